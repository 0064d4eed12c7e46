"""Configuration files of the user's own: sweeps files, and those of a folder given by `--config-dir`.

They are read with bounds, checked before Hydra sees them, and a text in them stays as it is written, as it does on the
command line: `prompt: 1_1_1` is no number. `hydra.sweeper.params` holds lines as they would be typed.
"""

import os
import re
from io import StringIO
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from diffsweep.core.problems import BadInput
from hydra_plugins.diffsweep_fused._allowed import check_file

MOST_BYTES = 1_000_000
MOST_NODES = 20_000  # aliases (`*name`) count as what they stand for
DEEPEST = 50
PARAMS = ("hydra", "sweeper", "params")
READINGS = 3  # twice while it builds the sweeper, then the sweeper itself
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`
_READ = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool"))  # what YAML makes of a bare word


class UserFiles(FileConfigSource):
    """A folder of the user's."""

    @staticmethod
    def scheme() -> str:
        return "user"

    def load_config(self, config_path: str) -> ConfigResult:
        name = self._normalize_file_name(config_path)
        path = Path(os.path.realpath(Path(self.path) / name))
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        text = _text(path, name)
        header = ConfigSource._get_header_dict(text[:512])
        package = header["package"] or name.rpartition("/")[0].replace("/", ".")
        config = _read(text, path, name, tuple(word for word in package.split(".") if word not in ("", "_global_")))
        check_file(config, name)
        place = f"{self.scheme()}://{self.path}"
        return ConfigResult(self.provider, place, OmegaConf.create(config), header)


def _text(path: Path, name: str) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise BadInput(f"{name}: more than {MOST_BYTES:,} bytes, which no configuration file needs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not a text in UTF-8 ({error.reason} at byte {error.start})") from None


def _read(text: str, path: Path, name: str, place: tuple[str, ...]) -> dict[str, Any]:
    """A file's keys as plain values, interpolations unresolved."""
    _bounded(text, path, name)
    loader = get_yaml_loader()(_stream(text, path))
    try:
        root = loader.get_single_node()
        if root is not None:
            _check_params(root, place, name)
            root = _as_written(root, place)
        keys = {} if root is None else loader.construct_document(root)
    except BadInput:
        raise
    except (ValueError, RecursionError) as error:  # such as a number of 10,000 digits, or keys that merge themselves
        raise BadInput(f"{name}: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(keys, dict):
        raise BadInput(f"{name}: must hold keys, not {keys!r:.40}")
    return keys


def _stream(text: str, path: Path) -> StringIO:
    """The text as a file whose name stands in YAML's messages."""
    stream = StringIO(text)
    stream.name = str(path)
    return stream


def _bounded(text: str, path: Path, name: str) -> None:
    """BadInput for a file that would be huge once its aliases are replaced by what they stand for."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # each node's anchor, and its size so far

    def grown(size: int) -> None:
        anchor, before = open_nodes[-1]
        if before + size > MOST_NODES:
            raise BadInput(f"{name}: more than {MOST_NODES:,} values, counting what its aliases (*name) stand for")
        open_nodes[-1] = anchor, before + size

    for event in yaml.parse(_stream(text, path), Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_nodes):
                raise BadInput(f"{name}: *{event.anchor} stands within &{event.anchor} itself")
            grown(sizes.get(event.anchor, 1))
        elif isinstance(event, yaml.ScalarEvent):
            sizes |= {event.anchor: 1} if event.anchor else {}
            grown(1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > DEEPEST:
                raise BadInput(f"{name}: more than {DEEPEST} levels of keys or lists within each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            sizes |= {anchor: size} if anchor else {}
            grown(size)


def _as_written(node: yaml.Node, place: tuple[str, ...]) -> yaml.Node:
    """The node with bare words as texts where the key holds one, and in the lines to be swept."""
    if isinstance(node, yaml.MappingNode):
        places = [place if key.tag == _MERGE else (*place, str(key.value)) for key, _ in node.value]
        node.value = [(key, _as_written(value, at)) for (key, value), at in zip(node.value, places, strict=True)]
    elif isinstance(node, yaml.SequenceNode):
        node.value = [_as_written(item, place) for item in node.value]
    elif place[:-1] == PARAMS and node.tag in (*_READ, _TEXT):  # another node: an alias may stand elsewhere too
        return yaml.ScalarNode(_TEXT, _per_job(node.value), node.start_mark, node.end_mark, node.style)
    elif node.style is None and node.tag in _READ:
        from diffsweep.runner.texts import holds_text  # Hydra imports this module in every application

        node.tag = _TEXT if holds_text(".".join(place)) else node.tag
    return node


def _per_job(line: str) -> str:
    """`${` escaped for each time that Hydra reads a sweeper's settings, so that each job reads the interpolation."""
    escaped = "\\" * (2**READINGS - 1) + "${"
    return re.sub(r"(?<!\\)\$\{", lambda found: escaped, line)


def _check_params(node: yaml.Node, place: tuple[str, ...], name: str) -> None:
    """`seed: [0, 1]` could mean two values or one list: neither is assumed. What a user escapes would be read later."""
    if place[:-1] == PARAMS and "\\${" in str(node.value):
        raise BadInput(
            f"{name}: {'.'.join(place)}: {node.value!r} is refused: ${{...}} names a key, without a backslash"
        )
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = place if key.tag == _MERGE else (*place, str(key.value))
        if here[:-1] == PARAMS and isinstance(value, yaml.CollectionNode):
            items = value.value if isinstance(value, yaml.SequenceNode) else []
            texts = [item.value for item in items if isinstance(item, yaml.ScalarNode)] or ["0", "1", "2"]
            raise BadInput(
                f"{name}: hydra.sweeper.params: a YAML list or mapping is refused, write a sweep as it is typed, "
                f'{key.value}: {",".join(texts)}; one value that is a list: {key.value}: "[{",".join(texts)}]"'
            )
        _check_params(value, here, name)
