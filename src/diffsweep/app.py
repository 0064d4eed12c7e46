"""The command `diffsweep`: Hydra in, frozen values out.

Beside `hydra_plugins.diffsweep_fused` this is the only importer of Hydra and OmegaConf, and no DictConfig leaves it: a
cell is a pair (resolved plain config, the axes it varies), and `diffsweep.sweep.runner` does the rest.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

from diffsweep import process
from diffsweep.core.problems import BadInput, did_you_mean, not_text, require
from diffsweep.paths import shipped

if TYPE_CHECKING:
    from diffsweep.tracker.session import Session

Cell = tuple[dict[str, Any], dict[str, Any]]
QUOTES = "''"  # an empty text
_SETTINGS = ("sweeps", "sweep", "output_dir", "device", "plugins", "engine", "grid", "metric", "tracker")  # never axes


class CellFailed(RuntimeError):
    """A job of one cell whose cell failed; its reason is already told."""


@dataclass(frozen=True)
class Status:
    """How a cell ended, `done` or `failed`; as a number, what an optimising sweeper is after: the cell's value of the
    sweep's first metric, ValueError where it has none. Launchers send it from one process to another."""

    text: str
    folder: Path
    place: int  # in sweep.json, in `folder`

    def __float__(self) -> float:
        from diffsweep.sweep.schema import Document, load
        from diffsweep.sweep.store import Store

        sweep = load(self.folder / "sweep.json", Document)
        cell_id, metrics = sweep["cells"][self.place]["cell_id"], sweep.get("metrics") or [""]
        record = Store(self.folder.parents[1]).get(cell_id)
        entry = record["metrics"].get(metrics[0]) if record else None
        value = entry["value"] if entry else None
        if self.text == "failed" or value is None:
            raise ValueError(f"cell {cell_id}: {self.text}, no {metrics[0] or 'metric'}")
        return float(value)


class Task:
    """What Hydra calls: once a job (`task(cfg)`), or once a multirun through the batch entry `freeze` and `many`."""

    def __init__(self) -> None:
        self.begin("diffsweep")

    def begin(self, command: str) -> None:
        """Forget what an earlier call of `main` ran."""
        self.command = command
        self.failed = 0
        self.error: Exception | None = None
        self.name: str | None = None
        self.launched: list[Cell] = []
        self.session: Session | None = None

    def end(self) -> None:
        """No more is to come: whoever was told of the sweep hears that."""
        session, self.session = self.session, None
        if session and (told := session.close()):
            print(told, file=sys.stderr, flush=True)

    def __call__(self, cfg: DictConfig) -> Status | None:
        """One job. Alone, it keeps its error for `main`: Hydra would tell it a second time."""
        process.lasting_outputs()  # where a launcher has begun this process
        job = HydraConfig.get()
        if job.mode == RunMode.MULTIRUN:
            return self._one_of_many(cfg, job)
        try:
            (status,) = self.many([self.freeze(_resolved(cfg), {}, job.overrides.task)])
            return status
        except Exception as error:
            self.error = error
            return None

    def _one_of_many(self, cfg: DictConfig, job: HydraConf) -> Status:
        """One process a job: it cannot see which of its overrides vary, so each counts as an axis."""
        config, choices = _resolved(cfg), job.runtime.choices
        names = [line.partition("=")[0].lstrip("+") for line in job.overrides.task if not line.startswith("~")]
        varying = [name for name in names if name.partition(".")[0] not in _SETTINGS]
        axes = {name: choices[name] if name in choices else _at(config, name) for name in varying}
        before = self.failed
        (status,) = self.many([self.freeze(config, axes, job.overrides.task)], joins=True)
        if self.failed > before:
            raise CellFailed(shlex.join(job.overrides.task))
        return status

    def freeze(self, config: dict[str, Any], axes: dict[str, Any], overrides: Sequence[str]) -> Cell:
        """One job as a cell. A sweep without a name is called after its sweeps file."""
        for key in ("sweeps", "sweep.name", "output_dir"):
            if key in axes:
                raise BadInput(f"{key} cannot be swept: give it one value, and call diffsweep once for each")
        if "sweeps" in config:
            raise BadInput("the config holds a key 'sweeps': a sweeps file must begin with '# @package _global_'")
        name = _sweeps_file(overrides)
        if name and _at(config, "sweep.name") is None and isinstance(config.get("sweep", {}), dict):
            config = config | {"sweep": {**config.get("sweep", {}), "name": name}}
        return config, axes

    def many(self, cells: list[Cell], joins: bool = False) -> list[Status]:
        """Run the cells; their statuses. joins: beside those that other processes run."""
        from diffsweep.sweep.runner import run_sweep  # heavy: imported once there is something to run

        process.check_stopped()
        name = _at(cells[0][0], "sweep.name") or self.name
        try:
            outcome = run_sweep(cells, name, self.command, () if joins else self.launched, joins, self.session)
        except SystemExit as stop:  # nothing below may end the process, least of all with 0
            raise RuntimeError(f"SystemExit({stop})") from stop
        self.session = outcome.session
        if joins:
            self.end()
        before = len(self.launched)
        self.name, self.launched = outcome.folder.name, [*self.launched, *cells]
        self.failed += outcome.failed
        return [Status(text, outcome.folder, before + i) for i, text in enumerate(outcome.statuses)]


task = Task()  # importable, so that other launchers can send it to their processes


def main() -> int:
    """The console entry; returns the exit code (see `diffsweep --help`)."""
    return process.run("diffsweep", _main, _mistake, "Cells that are stored are safe")


def _main() -> int:
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"diffsweep {version('diffsweep')}")
        return 0
    if any("--experimental-rerun".startswith(word.split("=")[0]) for word in arguments if word.startswith("--e")):
        raise BadInput("--experimental-rerun is not supported: it runs what a pickle file holds; repeat the command")
    require(*(not_text(word) for word in arguments))
    OmegaConf.register_new_resolver("diffsweep.sweeps", _sweeps_listed, replace=True)
    multirun = [word for word in arguments if word in ("-m", "--multirun")]  # wherever it was typed
    words = [word for word in arguments if word not in multirun]
    sys.argv[1:] = [*multirun, *(_of_swept_choices(words) if multirun else words)]
    task.begin(shlex.join(["diffsweep", *arguments]))
    try:
        with _errors_raised():
            hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")(task)()
    except CellFailed:
        return 1
    finally:
        task.end()
    if task.error:
        raise task.error
    return 1 if task.failed else 0


def _mistake(error: Exception) -> str | None:
    """What the user can mend, in one message."""
    return explain(error) if _mendable(error) else None


def _of_swept_choices(words: Sequence[str]) -> list[str]:
    """A key within a group whose choice is swept, as a sweep of its one value: before it has a job, Hydra would set it
    on the group's default choice, which may not have it."""
    parser = OverridesParser.create()
    read: dict[str, Override] = {}
    for word in words:
        if "=" in word and not word.startswith("-"):
            with suppress(HydraException):  # told later
                read[word] = parser.parse_override(word)
    swept = [o for o in read.values() if o.is_sweep_override() and (shipped("conf") / o.key_or_group).is_dir()]
    places = tuple(f"{o.package or o.key_or_group.replace('/', '.')}." for o in swept)

    def held(word: str) -> bool:
        override = read.get(word)
        if override is None or override.is_delete() or override.is_sweep_override():
            return False
        return override.key_or_group.startswith(places) and override.value() is not None

    pairs = [(word, *word.partition("=")[::2]) for word in words]
    return [f"{key}=choice({value or QUOTES})" if held(word) else word for word, key, value in pairs]


def explain(error: BaseException) -> str:
    """A mistake in one short message: the key, what is allowed, and what was probably meant."""
    if isinstance(error, BadInput):
        return "\n".join(error.messages)
    if isinstance(error, OverrideParseException):
        return _about_grammar(error.override, error.message)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _about_choice(str(error.missing_cfg_file), list(error.options or []))
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
            return _about_key(cause.parent_node, str(cause.full_key))
    for pattern, advice in _ADVICE:
        if found := re.search(pattern, str(error), flags=re.DOTALL):
            return found.expand(advice)
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    lines = [str(cause).strip().splitlines()[0] for cause in chain if str(cause).strip()]
    return ": ".join(dict.fromkeys(lines)) or type(error).__name__


# What Hydra says, and what is said instead.
_ADVICE = (
    (
        r"Ambiguous value for argument '\+sweeps=",
        r"+sweeps names several files: one at a time, call diffsweep once for each",
    ),
    (
        r"Ambiguous value for argument '(([^=]+)=(.*?))'\n",
        r"""\1 names several values: add -m to sweep over them, or quote a text with commas twice: '\2="\3"'""",
    ),
    (r"Sweep parameters '(.*?)' requires --multirun", r"\1 is a sweep: add -m"),
    (r"force-add of config groups is not supported: '\+\+(sweeps.*?)'", r"++\1: write +\1"),
    (r"force-add of config groups is not supported: '\+\+(.*?)'", r"++\1 is a choice of a group: write \1"),
    (r"Could not override 'sweeps'.*use (\+\S+)", r"a sweeps file is added: write \1"),
    (r"Could not override '(.*?)'\. No match", r"\1: there is nothing of that name to choose"),
    (r"Multiple values for sweeps\.", r"+sweeps is given twice: one sweeps file at a time"),
    (r"Multiple values for (\S+)\. .*override \S+: (\S+?)'", r"+\1=\2: \1 is already chosen; write \1=\2"),
    (r"An item is already at '(.*?)'", r"+\1: the key exists already; write it without +"),
    (r"Could not delete from config\. '(.*?)' does not exist", r"~\1: there is no such key"),
    (r"Could not override '(\S+@\S+)'", r"\1: no config is placed there"),
    (r"does not support sweep type : INTERVAL", r"interval(...) has no end of values: write range(a,b,step) or a list"),
    (
        r"Config group override must be a string or a list\. Got (\w+)",
        r"a choice must be a name, as in guidance=none, not \1",
    ),
)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _at(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _about_grammar(override: str, message: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r}: write key=value (see diffsweep --help)"
    quoted = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    reason = next((line for line in message.splitlines() if " at " in line or " while " in line), "not Hydra's grammar")
    return f"cannot read {override!r} ({reason}); if the value is a text, quote it inside the shell's quotes: {quoted}"


def _about_choice(path: str, options: list[str]) -> str:
    group, _, choice = path.rpartition("/")
    given, kind = ("+sweeps", "sweeps file, neither in ./sweeps nor shipped") if group == "sweeps" else (group, group)
    allowed = f"choose one of {', '.join(options)}" if options else "there are none"
    return f"{given}={choice}: no such {kind}; {allowed}{did_you_mean(choice, options)}"


def _about_key(node: DictConfig, key: str) -> str:
    parent = key.rpartition(".")[0]
    everything = [path for path in _paths(node._get_root()) if path.split(".")[0] != "hydra"]
    namesakes = [path for path in everything if path.split(".")[-1] == key.split(".")[-1]]
    meant = (
        f"; did you mean {namesakes[0]!r}?"
        if namesakes
        else did_you_mean(key, [path for path in everything if not key.startswith(f"{path}.")])
    )
    siblings = [path.removeprefix(f"{parent}.") for path in everything if path.rpartition(".")[0] == parent]
    allowed = f"{parent or 'the keys'} {'has' if parent else 'are'} {', '.join(siblings) or 'no keys of its own'}"
    if elsewhere := _elsewhere(key):
        return f"{key}: no such key{_of_choice(node)}; {elsewhere}"
    return f"{key}: no such key; {allowed}{meant}"


def _of_choice(node: DictConfig) -> str:
    """Whose key it would be."""
    group, root = str(node._get_full_key("")).partition(".")[0], node._get_root()
    choice = OmegaConf.select(root, f"{group}.name") if group and (shipped("conf") / group).is_dir() else None
    return f" of {group}={choice}" if choice else ""


def _elsewhere(key: str) -> str:
    """Which other choices of the key's group have it."""
    group, _, own = key.partition(".")
    files = sorted((shipped("conf") / group).glob("*.yaml")) if own else []
    having = [f.stem for f in files if own.split(".")[0] in (safe_load(f.read_text()) or {})]
    if not having:
        return ""
    return f"{', '.join(f'{group}={choice}' for choice in having)} {'has' if len(having) == 1 else 'have'} it"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config; interpolations are not followed."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for key, value in node.items_ex(resolve=False):
            yield f"{prefix}{key!s}"
            yield from _paths(value, f"{prefix}{key!s}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _mendable(error: Exception) -> bool:
    """Is it a mistake in what was typed or written in a config, rather than one of the program's?"""
    if isinstance(error, BadInput | HydraException | OmegaConfBaseException | YAMLError):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and Path(last).is_relative_to(Path(hydra.__file__).parent)


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Hydra's own `main` prints errors and exits with 1, unless this variable is set: then it raises them."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _sweeps_file(overrides: Sequence[str]) -> str | None:
    """The name that `+sweeps=NAME` gives a sweep."""
    chosen = [line.removeprefix("+sweeps=") for line in overrides if line.startswith("+sweeps=")]
    return chosen[0].removesuffix(".yaml").replace("/", "-") if chosen else None


def _sweeps_listed() -> str:
    """The sweep files that `+sweeps=NAME` finds from here, for --help."""
    folders = (Path("sweeps"), shipped("sweeps"))
    return ", ".join(sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})) or "none yet"
