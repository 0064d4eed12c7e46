"""Hydra's composition of a multirun's jobs as plain values, at a cost per distinct value instead of per job.

A job's override lines are of two kinds. Choices of groups (and lines on Hydra's own keys or with interpolations) decide
the *base*, which Hydra composes in full, once per distinct choice. The others set values. Without interpolations, a
top-level node of the config depends only on the overrides of that node; with them, also on those of the nodes it reads.
So each node is computed once per distinct set of override lines that can reach it, by Hydra's own
`_apply_overrides_to_config` on a copy of just those nodes, and shared by all jobs that agree on them.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.diffsweep_fused._grammar import count

_ABSENT = object()
_ANYTHING = "*"  # stands for every key: what an interpolation reads where its text does not say
_KEPT_BASES = 256


@dataclass(frozen=True)
class Line:
    """One override line, read once however many jobs share it."""

    text: str
    override: Override
    is_group: bool

    @cached_property
    def name(self) -> str:
        """The key without its prefix: `guidance.scale`, `technique`, `view@views.first`."""
        return _name(self.override)

    @cached_property
    def top(self) -> str:
        """The top-level node it reaches into."""
        return re.split(r"[./\[]", self.override.key_or_group, maxsplit=1)[0]

    @cached_property
    def opaque(self) -> bool:
        """Must Hydra compose whatever this line touches?"""
        return self.top == "hydra" or self.override.is_sweep_override() or "${" in str(self.override.value())


class Composer:
    """Plain configs for the jobs of one multirun; `master` is the multirun's own composed config.

    With `resolve=False` interpolations stay as they are, as in Hydra's own check that a job can be composed.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, resolve: bool = True) -> None:
        self._loader = loader
        self._master = master
        self._resolve = resolve
        self._parser = OverridesParser.create(config_loader=loader)
        self._lines: dict[str, Line] = {}
        self._is_group = lru_cache(maxsize=None)(self._find_group)
        self._base = lru_cache(maxsize=_KEPT_BASES)(self._compose_base)

    def read(self, texts: Sequence[str]) -> list[Line]:
        if new := [text for text in dict.fromkeys(texts) if text not in self._lines]:
            for text, override in zip(new, self._parser.parse_overrides(new), strict=True):
                self._lines[text] = Line(text, override, self._is_group(override.key_or_group))
        return [self._lines[text] for text in texts]

    def plain(self, texts: Sequence[str], number: int = 0) -> dict[str, Any]:
        """`OmegaConf.to_container` of the job's composed config, without `hydra`. Jobs share its nodes: read only."""
        lines = self.read(texts)
        whole = {line.top for line in lines if line.opaque}
        base = self._base(tuple(line.text for line in lines if line.is_group or line.top in whole))
        if base.reads_hydra and self._resolve:  # ${hydra:job.num} and the like differ from job to job
            return self._one_by_one(texts, number)
        try:
            return base.plain([line for line in lines if not (line.is_group or line.top in whole)])
        except (HydraException, OmegaConfBaseException):
            self._loader.load_sweep_config(self._master, list(texts))  # Hydra's own words, before the whole config
            raise

    def swept(self) -> set[str]:
        """The names that the command line and `hydra.sweeper.params` declare as varying over this multirun."""
        params = OmegaConf.select(self._master, "hydra.sweeper.params") or {}
        task: Any = OmegaConf.to_container(self._master.hydra.overrides.task, resolve=False)  # a job resolves its own
        lines = [f"{key}={value}" for key, value in params.items()] + task
        last = {o.get_key_element(): o for o in self._parser.parse_overrides(lines)}  # as BasicSweeper: the last counts
        return {_name(o) for o in last.values() if _varies(o)}

    def _find_group(self, key: str) -> bool:
        hydra = self._master.hydra
        lines: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)
        return bool(self._loader.get_group_options(key, None, hydra.job.config_name, lines))

    def _compose_base(self, texts: tuple[str, ...]) -> "_Base":
        return _Base(_without_hydra(self._loader.load_sweep_config(self._master, list(texts))), self._resolve)

    def _one_by_one(self, texts: Sequence[str], number: int) -> dict[str, Any]:
        config = self._loader.load_sweep_config(self._master, list(texts))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            return _container(_without_hydra(copy.deepcopy(config)), resolve=True)
        finally:
            HydraConfig.instance().cfg = before


class _Base:
    """One full composition, and its nodes under the value overrides asked for so far."""

    def __init__(self, config: DictConfig, resolve: bool) -> None:
        self._config = config
        self._resolve = resolve
        raw = _container(config, resolve=False)
        reads = {top: set(_references(value)) for top, value in raw.items()}
        self.reads_hydra = any("hydra" in found for found in reads.values())
        self._closure = {top: _closure(top, reads) for top in raw}
        self._part = lru_cache(maxsize=None)(self._copy_of)
        self._nodes: dict[tuple[str, ...], Any] = {}

    def plain(self, lines: Sequence[Line]) -> dict[str, Any]:
        whole: dict[str, Any] | None = None
        nodes = {}
        for top in dict.fromkeys([*self._closure, *(line.top for line in lines)]):
            closure = self._closure.get(top, frozenset({top}))
            if _ANYTHING in closure:
                whole = whole or _overridden(self._config, lines, self._resolve)
                nodes[top] = whole.get(top, _ABSENT)
            else:
                nodes[top] = self._node(top, closure, [line for line in lines if line.top in closure])
        return {top: value for top, value in nodes.items() if value is not _ABSENT}

    def _node(self, top: str, closure: frozenset[str], lines: Sequence[Line]) -> Any:
        key = (top, *(line.text for line in lines))
        if key not in self._nodes:
            part = _overridden(self._part(closure), lines, self._resolve)
            self._nodes[key] = part.get(top, _ABSENT)
        return self._nodes[key]

    def _copy_of(self, tops: frozenset[str]) -> DictConfig:
        """The composition with these nodes only: types and flags as Hydra made them."""
        part = copy.deepcopy(self._config)
        with read_write(part), open_dict(part):
            for top in self._closure.keys() - tops:
                del part[top]
        return part


def _name(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _varies(override: Override) -> bool:
    if not override.is_sweep_override():
        return False
    return not override.is_discrete_sweep() or count(override) > 1


def _overridden(config: DictConfig, lines: Sequence[Line], resolve: bool) -> dict[str, Any]:
    config = copy.deepcopy(config)
    ConfigLoaderImpl._apply_overrides_to_config([line.override for line in lines], config)
    return _container(config, resolve)


def _container(config: DictConfig, resolve: bool) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _without_hydra(config: DictConfig) -> DictConfig:
    with read_write(config), open_dict(config):
        del config["hydra"]
    return config


def _references(value: Any) -> Iterator[str]:
    """The top-level keys that the interpolations within a raw value name, `hydra` for Hydra's, or _ANYTHING."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)
    elif isinstance(value, str):
        for text in re.findall(r"\$\{\s*([^${}]*)", value):
            first = re.match(r"[^.:\[\s]+", text)
            if first and first.group() == "hydra":
                yield "hydra"
            elif ":" in text or text.startswith("..") or not (first or text.startswith(".")):
                yield _ANYTHING  # a resolver, a relative reference that climbs, a computed or quoted key
            elif first:
                yield first.group()


def _closure(top: str, reads: dict[str, set[str]]) -> frozenset[str]:
    reached, fresh = {top}, {top}
    while fresh:
        fresh = {read for key in fresh for read in reads.get(key, ())} - reached
        reached |= fresh
    return frozenset(reached)
