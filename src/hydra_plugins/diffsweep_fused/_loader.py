"""Hydra's configuration loader, as diffsweep uses it: users' files are checked before Hydra acts on them, their choice
of launcher and sweeper is obeyed, texts stay as typed, and a sweep is counted before it is expanded."""

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from unittest.mock import patch

from hydra._internal import hydra as hydra_itself
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffsweep.core.problems import BadInput, require
from diffsweep.explain import not_a_choice
from diffsweep.model.hub import from_cache_alone
from diffsweep.paths import shipped
from hydra_plugins.diffsweep_fused._allowed import check_placed, check_typed, plain
from hydra_plugins.diffsweep_fused._files import UserFiles
from hydra_plugins.diffsweep_fused._grammar import count, one_sentence, texts_as_typed
from hydra_plugins.diffsweep_fused._large import Large, some_cells

MOST_CELLS = 100_000
OURS = "hydra_plugins.diffsweep_fused."  # launchers that hand over all cells at once
OWN = "config"  # conf/config.yaml
_USERS = ("command-line", "hydra.searchpath in command-line", "hydra.searchpath in main")  # Hydra's names for places
_OBEYED = ("hydra/launcher", "hydra/sweeper")


@contextmanager
def checked_composition(words: Sequence[str]) -> Iterator[None]:
    """Within, Hydra composes by `Loader`, and reads texts as they are typed. words: the command line."""
    with texts_as_typed(_holds_text(words)), patch.object(hydra_itself, "ConfigLoaderImpl", Loader):
        yield


class Loader(ConfigLoaderImpl):
    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        main = [str(place.path) for place in config_search_path.get_path() if place.provider == "main"]
        if [path.removeprefix("file://") for path in main] != [str(shipped("conf"))]:
            raise BadInput("--config-path would replace diffsweep's configuration; --config-dir adds a folder of yours")
        super().__init__(config_search_path)
        self.repository = _Repository(config_search_path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        if config_name not in (None, OWN):
            raise BadInput("--config-name would replace diffsweep's configuration; +sweeps=NAME adds a file of yours")
        with texts_as_typed(_holds_text(overrides)):  # a launcher's processes compose too
            try:
                config = super().load_configuration(
                    config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                )
            except RecursionError:
                raise BadInput("the configuration files' defaults lists name each other without an end") from None
            if run_mode == RunMode.MULTIRUN and validate_sweep_overrides:
                self._foreseeable(config)
                self._count(config)
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        for override in parsed:
            if not override.is_hydra_override():
                values, text = _values(override), str(override.input_line).partition("=")[2].strip()
                check_typed(override.key_or_group, values)
                require(not_a_choice(override.key_or_group, text, values))
        return [*parsed, *_obeyed(parsed, repository)], repository

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        config = super()._compose_config_from_defaults_list(defaults, repo)
        if isinstance(config.get("vars"), DictConfig):
            OmegaConf.set_struct(config.vars, False)  # of any name
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        placed = super()._load_single_config(default, repo)
        if placed.provider in _USERS:
            check_placed(plain(placed.config), f"{default.config_path}.yaml")
        return placed

    def _foreseeable(self, config: DictConfig) -> None:
        """BadInput where `plan=true` is asked of what is not planned as a whole."""
        if OmegaConf.select(config, "plan") is not True:
            return
        chosen = config.hydra.runtime.choices
        if not _expands(config):
            raise BadInput(
                f"plan=true: hydra/sweeper={chosen['hydra/sweeper']} chooses its cells while they run; leave it out, "
                "and list values"
            )
        if not str(config.hydra.launcher._target_).startswith(OURS):
            raise BadInput(
                f"plan=true: hydra/launcher={chosen['hydra/launcher']} runs each cell on its own; leave it out: the "
                "cells are the same, in shared model calls"
            )

    def _too_large(self, config: DictConfig, overrides: Collection[Override], counts: Mapping[str, int]) -> Large:
        """The refusal of a sweep, which says what it would cost."""
        from diffsweep.runner.rough import rough

        cells, planned = math.prod(counts.values()), OmegaConf.select(config, "plan") is True
        by_key = " x ".join(f"{key}: {n:,}" for key, n in counts.items() if n > 1)
        cost = [f"{cells:,} cells ({by_key})"]
        wrong = () if planned else (BadInput, HydraException, OmegaConfBaseException)  # told once they are meant
        with suppress(*wrong), nullcontext() if planned else from_cache_alone():
            cost += rough([*some_cells(self, config, overrides)], cells)
        return Large.of(cost, MOST_CELLS, planned)

    def _count(self, config: DictConfig) -> None:
        """BadInput for a sweep so large that it was hardly meant; a note where a sentence was taken for a sweep."""
        if not _expands(config):
            return
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        lines = [f"{key}={value}" for key, value in params.items()] + plain(config.hydra.overrides.task)
        parsed = OverridesParser.create(config_loader=self).parse_overrides(lines)
        last = {override.get_key_element(): override for override in parsed}  # of two on one key, as Hydra's sweeper
        counts = {key: count(override) for key, override in last.items()}
        cells = math.prod(counts.values())
        if cells > MOST_CELLS and OmegaConf.select(config, "confirm") is not True:
            raise self._too_large(config, last.values(), counts)
        holds_text = _holds_text(lines)
        for key, override in last.items():
            if (texts := one_sentence(override)) and holds_text(key.lstrip("+")):
                text = str(override.input_line).partition("=")[2].strip()
                print(
                    f"note: {key} has {len(texts)} values, {', '.join(map(repr, texts))}; one text with a comma needs "
                    f"""quotes inside the shell's: '{key}="{text}"'""",
                    file=sys.stderr,
                )


class _Repository(ConfigRepository):
    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """The user's folders are read by `UserFiles`."""
        super().initialize_sources(config_search_path)
        for i, source in enumerate(self.sources):
            if source.provider not in _USERS or isinstance(source, UserFiles):
                continue
            if source.scheme() != "file":
                raise BadInput(f"hydra.searchpath={source.full_path()}: only folders are searched")
            self.sources[i] = UserFiles(source.provider, f"{UserFiles.scheme()}://{source.path}")


def _obeyed(parsed: Sequence[Override], repository: IConfigRepository) -> list[Override]:
    """The launcher and the sweeper that a sweeps file chooses, as if they were typed: conf/config.yaml chooses first,
    and the first choice of a defaults list is Hydra's."""
    typed = {override.key_or_group for override in parsed}
    names = [override.value() for override in parsed if override.key_or_group == "sweeps" and override.is_add()]
    chosen = {key: value for name in names for key, value in _chosen(repository, f"sweeps/{name}", set())}
    lines = [f"{key}={value}" for key, value in chosen.items() if key not in typed]
    return OverridesParser.create().parse_overrides(lines)


def _chosen(repository: IConfigRepository, path: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """What a file and those that it includes choose of Hydra's; the file itself comes last and decides."""
    loaded = None if path in seen else repository.load_config(path)
    seen.add(path)
    for default in (loaded and loaded.defaults_list) or ():
        if isinstance(default, ConfigDefault) and not default.is_self():
            name = str(default.path)
            yield from _chosen(repository, name[1:] if name.startswith("/") else f"sweeps/{name}", seen)
    for default in (loaded and loaded.defaults_list) or ():
        if isinstance(default, GroupDefault) and default.override and str(default.group).strip("/") in _OBEYED:
            yield str(default.group).strip("/"), default.value


def _expands(config: DictConfig) -> bool:
    """Does the sweeper make a job of every combination? One that optimises asks for as many as it wants."""
    name = str(OmegaConf.select(config, "hydra.sweeper._target_")).rpartition(".")[2]
    return name in (BasicSweeper.__name__, "FusedSweeper")


def _values(override: Override) -> Any:
    """The plain values of an override, those of a sweep in a list."""
    value = override.value()
    return list(map(Override._convert_value, value.list)) if isinstance(value, ChoiceSweep) else value


def _holds_text(words: Sequence[str]) -> Callable[[str], bool]:
    """Which keys hold a text, where the words name these plugins."""
    plugins: tuple[str, ...] = ()
    for word in words:
        if word.startswith("plugins="):
            try:
                value = OverridesParser.create().parse_override(word).value()
            except HydraException:  # reported later
                continue
            plugins = tuple(map(str, value)) if isinstance(value, list) else ()

    def holds_text(key: str) -> bool:
        from diffsweep.runner import texts  # not before a word asks: --help needs none of it

        return texts.holds_text(key, plugins)

    return holds_text
