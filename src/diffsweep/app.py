"""The command `diffsweep`: Hydra in, frozen values out.

Beside `diffsweep.explain` and `hydra_plugins.diffsweep_fused` this is the only importer of Hydra and OmegaConf, and no
DictConfig leaves it: a cell is a pair (resolved plain config, the axes it varies), and `runner` does the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from itertools import chain, repeat
from pathlib import Path
from posixpath import normpath
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from yaml import safe_load  # type: ignore[import-untyped]

from diffsweep import entry, process
from diffsweep.core.files import is_folder
from diffsweep.core.keys import AUTO, at, given
from diffsweep.core.problems import BadInput, not_text, require
from diffsweep.core.text import counted, labelled, visible
from diffsweep.explain import explain, mendable, sweeps_files
from diffsweep.paths import shipped
from hydra_plugins.diffsweep_fused._large import Large
from hydra_plugins.diffsweep_fused._loader import checked_composition

if TYPE_CHECKING:
    from diffsweep.runner.crew import Start
    from diffsweep.runner.listener import Listener
    from diffsweep.tracker.session import Session

Raw = tuple[dict[str, Any], dict[str, Any]]
QUOTES = "''"  # an empty text
# never axes
HELD = (
    *("sweeps", "sweep", "output_dir", "device", "plugins", "confirm", "plan"),
    *("engine", "store", "grid", "metric", "tracker"),
)


class CellFailed(RuntimeError):
    """A job of one cell whose cell failed; its reason is already printed."""


@dataclass(frozen=True)
class Status:
    """How a cell ended, `done` or `failed`; as a number, the objective of an optimising sweeper: the cell's value of
    the sweep's first metric, ValueError where it has none. Launchers send it from one process to another."""

    text: str
    folder: Path  # the sweep's
    cell_id: str

    def __float__(self) -> float:
        from diffsweep.store.cells import Store
        from diffsweep.store.schema import Document, load

        sweep = load(self.folder / "sweep.json", Document)
        metrics = sweep.get("metrics") or [""]
        record = Store(self.folder.parents[1]).get(self.cell_id)
        entry = record["metrics"].get(metrics[0]) if record else None
        value = entry["value"] if entry else None
        if self.text == "failed" or value is None:
            raise ValueError(f"cell {self.cell_id}: {self.text}, no {metrics[0] or 'metric'}")
        return float(value)


class Task:
    """What Hydra calls: once a job (`task(cfg)`), or once a multirun through the batch entry `freeze` and `many`."""

    def __init__(self) -> None:
        self.begin("diffsweep")

    def begin(self, command: str, listener: Listener | None = None) -> None:
        """Forget what an earlier call of `run` ran. listener: hears how the sweep goes on, by default the terminal."""
        self.command, self.listener = command, listener
        self.failed = 0
        self.folder: Path | None = None  # the sweep's
        self.error: Exception | None = None
        self.name: str | None = None
        self.launched: list[Raw] = []
        self.planned: list[list[Raw]] = []  # the batches of `plan=true`, which nobody runs
        self.hands_over = False  # whether workers elsewhere would run them
        self.session: Session | None = None

    def end(self) -> None:
        """No more cells are to come: close the tracker's session."""
        session, self.session = self.session, None
        if session and (line := session.close()):
            print(visible(line), file=sys.stderr, flush=True)

    def __call__(self, cfg: DictConfig) -> Status | None:
        """One job. Alone, it keeps its error for `main`: Hydra would print it a second time."""
        if not _running.locked():  # a launcher has begun this process
            process.lasting_outputs()
        job = HydraConfig.get()
        if job.mode == RunMode.MULTIRUN:
            return self._one_of_many(cfg, job)
        if job.sweeper.get("params"):
            print(
                f"note: one cell: hydra.sweeper.params ({', '.join(job.sweeper.params)}) needs -m, or "
                "hydra.mode: MULTIRUN in the file that holds it",
                file=sys.stderr,
            )
        try:
            (status,) = self.many([self.freeze(_resolved(cfg), {}, _typed(job))])
            return status
        except Exception as error:
            self.error = error
            return None

    def _one_of_many(self, cfg: DictConfig, job: HydraConf) -> Status:
        """One process a job: it cannot see which of its overrides vary, so each counts as an axis."""
        config, choices, lines = _resolved(cfg), job.runtime.choices, _typed(job)
        names = [line.partition("=")[0].lstrip("+") for line in lines if not line.startswith("~")]
        varying = [name for name in names if name.partition(".")[0] not in HELD]
        axes = {name: choices[name] if name in choices else at(config, name) for name in varying}
        before = self.failed
        (status,) = self.many([self.freeze(config, axes, lines)], joins=True)
        if self.failed > before:
            raise CellFailed(shlex.join(lines))
        return status

    def freeze(self, config: dict[str, Any], axes: dict[str, Any], overrides: Sequence[str]) -> Raw:
        """One job as a cell. A sweep without a name is called after its sweeps file."""
        for key in ("sweeps", "sweep.name", "output_dir", "confirm", "plan"):
            if key in axes:
                raise BadInput(f"{key} cannot be swept: give it one value, and call diffsweep once for each")
        if "sweeps" in config:
            raise BadInput("the config holds a key 'sweeps': a sweeps file must begin with '# @package _global_'")
        if not isinstance(texts := config.get("vars") or {}, dict):
            raise BadInput(f"vars={texts}: must hold texts by their names, as in vars.animal=dog")
        name = _sweeps_file(overrides)
        if name and at(config, "sweep.name", AUTO) == AUTO and isinstance(config.get("sweep", {}), dict):
            require(_misnamed(name))
            config = config | {"sweep": {**config.get("sweep", {}), "name": name}}
        return config, axes

    def many(self, cells: list[Raw], joins: bool = False, start: Start | None = None) -> list[Status]:
        """Run the cells; their statuses. joins: beside those that other processes run; start: starts workers that
        sample in place of this process. With `plan=true` the cells wait for `foresee`."""
        if cells[0][0].get("plan") is True:
            self.planned.append(cells)
            self.hands_over = start is not None
            return [Status("planned", Path(), "") for _ in cells]
        from diffsweep.runner.run import run_sweep  # heavy: imported once there is something to run

        process.check_stopped()
        listener = self._listener()
        for note in () if joins or self.launched else _unused(self.command, cells):
            listener.note(f"note: {note}")
        name = (
            given(at(cells[0][0], "sweep.name", AUTO)) or self.name or (_shared_name(self.command) if joins else None)
        )
        try:
            before = () if joins else self.launched
            outcome = run_sweep(cells, name, self.command, before, joins, self.session, listener, start)
        except SystemExit as stop:  # nothing below may end the process, least of all with 0
            raise RuntimeError(f"SystemExit({stop})") from stop
        self.session = outcome.session
        if joins:
            self.end()
        self.folder, self.name, self.launched = outcome.folder, outcome.folder.name, [*self.launched, *cells]
        self.failed += outcome.failed
        ends = zip(outcome.statuses, outcome.ids, strict=True)
        return [Status(text, outcome.folder, cell_id) for text, cell_id in ends]

    def foresee(self) -> None:
        """Show what the cells of `plan=true` would run and take."""
        if not self.planned:
            return
        from diffsweep.runner.foresee import foresee

        cells, listener = [cell for batch in self.planned for cell in batch], self._listener()
        for note in _unused(self.command, cells):
            listener.note(f"note: {note}")
        if (number := len(self.planned)) > 1:
            listener.note(
                f"note: {number} batches of hydra.sweeper.max_batch_size, which share no model calls: more calls"
            )
        if self.hands_over:
            listener.note("note: the plan is for this machine; workers on others may take another time")
        listener.forecast(foresee(cells, given(at(cells[0][0], "sweep.name", AUTO)), self.command, listener))

    def _listener(self) -> Listener:
        from diffsweep.terminal import Terminal

        return Terminal() if self.listener is None else self.listener

    def ended(self, statuses: Sequence[Status]) -> None:
        """Show the results of jobs that ran one by one, in processes that may have printed elsewhere."""
        from diffsweep.terminal import show_stored

        for folder, number in Counter(status.folder for status in statuses).items():
            self.folder = folder
            told = f"{folder}/: {counted('cell', number)} done"
            if self.listener is not None:
                self.listener.note(told)
                continue
            show_stored(folder)
            print(told, file=sys.stderr, flush=True)


class Composed(Task):
    """In place of the task: what a command line comes to, which nobody runs."""

    def many(self, cells: list[Raw], joins: bool = False, start: Start | None = None) -> list[Status]:
        self.launched += cells
        return [Status("composed", Path(), "") for _ in cells]


task = Task()  # importable, so that other launchers can send it to their processes
_running = Lock()


def main() -> int:
    """What the console entry calls; returns the exit code."""
    return entry.sweep()


def act() -> int:
    """Run what was typed."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"diffsweep {version('diffsweep')}")
        return 0
    try:
        run(arguments)
    except CellFailed:
        return 1
    return 1 if task.failed else 0


def run(arguments: Sequence[str], listener: Listener | None = None) -> Path | None:
    """Run a command line: the one way in, of the command and of `diffsweep.api`. The sweep's folder, None where there
    is none, as after --cfg or with `plan=true`.

    listener: hears how it goes on, by default the terminal. Errors are raised as they are; `mistake` explains those
    that the user can mend. RuntimeError where this process runs one already.
    """
    if not _running.acquire(blocking=False):
        raise RuntimeError("this process already runs a sweep: one after another, or a process for each")
    try:
        task.begin(shlex.join(["diffsweep", *arguments]), listener)
        try:
            try:
                _call(task, arguments)
            except Large as large:
                if listener or not large.planned:
                    raise
                print(labelled(zip(chain(["plan"], repeat("")), large.cost, strict=False)))
            task.foresee()
        finally:
            task.end()
    finally:
        _running.release()
    if task.error:
        raise task.error
    return task.folder


def composed(words: Sequence[str]) -> list[Raw]:
    """The cells of a sweep's words, in order, composed as the command does it, and not run."""
    found = Composed()
    _call(found, ["-m", *words])
    return found.launched


def _call(task: Task, arguments: Sequence[str]) -> None:
    """Have Hydra compose the jobs of a command line, and call the task with them."""
    if any("--experimental-rerun".startswith(word.split("=")[0]) for word in arguments if word.startswith("--e")):
        raise BadInput("--experimental-rerun is not supported: it runs what a pickle file holds; repeat the command")
    checks = (not_text, _long, _keyless, _several, _hydra_help)
    require(*(check(word) for check in checks for word in arguments))
    require(*_options(arguments))
    OmegaConf.register_new_resolver("diffsweep.sweeps", _sweeps_listed, replace=True)
    multirun = [word for word in arguments if word in ("-m", "--multirun")]  # wherever it was typed
    words = [word for word in arguments if word not in multirun]
    for note in _dropped(words):
        if task.listener is None:
            print(f"note: {note}", file=sys.stderr)
        else:
            task.listener.note(f"note: {note}")
    typed = [*multirun, *(_of_swept_choices(words) if multirun else words)]
    with _alone(), _errors_raised(), checked_composition(words), patch.object(sys, "argv", [sys.argv[0], *typed]):
        hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")(task)()


def _misnamed(name: str) -> str | None:
    """A problem where a sweeps file's name cannot be its sweep's."""
    from diffsweep.runner.plan import NAME, NAMES

    if re.fullmatch(NAME, name):
        return None
    return f"+sweeps={name}: its sweep is called after it, and a name has {NAMES}; sweep.name=... sets another"


def _unused(command: str, cells: Sequence[Raw]) -> Iterator[str]:
    """What is typed of a group that none of the cells' techniques uses."""
    from diffsweep.runner.parts import usable, used_by

    techniques = {json.dumps(config.get("technique"), default=str): config for config, _ in cells}
    used = [used_by(config.get("technique"), config.get("plugins")) for config in techniques.values()]
    for word in shlex.split(command) if all(used) else ():  # none of one that is not known
        group = re.split(r"[.=]", word)[0]
        unused = group in usable() and not any(group in groups for groups in used)
        if unused and group != "prompt":  # metrics ask about it
            names = dict.fromkeys(str(config["technique"]["name"]) for config in techniques.values())
            yield f"{word}: not used by technique={','.join(names)}"


def _shared_name(command: str) -> str | None:
    """The sweep of all jobs that one command starts, each in a process of its own: named by the command."""
    return f"multirun-{hashlib.sha256(command.encode()).hexdigest()[:8]}" if " " in command else None


def _several(word: str) -> str | None:
    return f"{word}: one sweeps file at a time, call diffsweep once for each" if word.startswith("+sweeps=[") else None


def _hydra_help(word: str) -> str | None:
    asked = word.startswith("--hy") and "--hydra-help".startswith(word)
    return f"{word}: not supported; see diffsweep --help" if asked else None


def _options(arguments: Sequence[str]) -> Iterator[str]:
    """Problems with words that begin with a dash: what is no option of Hydra's was meant for a key."""
    parser = get_args_parser()
    known = [option for action in parser._actions for option in action.option_strings]
    with patch.object(parser, "error", _refuse):
        unknown = [word for word in parser.parse_known_args(list(arguments))[1] if word.startswith("-")]
    keys = safe_load((shipped("conf") / "config.yaml").read_text())
    for word in unknown:
        option, equals, value = word.partition("=")
        if near := get_close_matches(option, known, n=1, cutoff=0.85):
            yield f"{word}: no such option; did you mean {near[0]!r}?"
            continue
        key = option.lstrip("-").replace("-", "_")
        if not equals:
            after = arguments[arguments.index(word) + 1 :] if word in arguments else ()
            given = after[0] if after and not re.search(r"^-|=", after[0]) else "..."
            value = "true" if keys.get(key) is False else given
        yield f"{word}: keys are written without dashes: {key}={value}"


def _refuse(message: str) -> NoReturn:
    raise BadInput(f"{message} (see diffsweep --help)")


def _long(word: str) -> str | None:
    """A problem where a key is longer than any file's name: Hydra looks for a folder that is called so."""
    key, equals, _ = word.partition("=")
    return f"{key[:40]}...: no such key" if equals and len(os.fsencode(key)) > 255 else None


def _keyless(word: str) -> str | None:
    """A problem where no key stands before the equals sign: Hydra would take it for a group."""
    return f"{word}: write key=value (see diffsweep --help)" if re.match(r"[+~]*=", word) else None


def mistake(error: Exception) -> str | None:
    """What the user can mend, in one message."""
    return explain(error) if mendable(error) else None


def _dropped(words: Sequence[str]) -> Iterator[str]:
    """Of two sweeps over one key, Hydra takes the last."""
    last: dict[str, Override] = {}
    for word in words:
        if "=" not in word or word.startswith("-"):
            continue
        with suppress(HydraException):  # reported later
            override = OverridesParser.create().parse_override(word)
            key = override.get_key_element().lstrip("+")
            before = last.get(key, override)
            if before.input_line != word and (before.is_sweep_override() or override.is_sweep_override()):
                yield f"{before.input_line} is dropped: {word} comes later"
            last[key] = override


def _of_swept_choices(words: Sequence[str]) -> list[str]:
    """A key within a group whose choice is swept, as a sweep of its one value: before it has a job, Hydra would set it
    on the group's default choice, which may not have it."""
    parser = OverridesParser.create()
    read: dict[str, Override] = {}
    for word in words:
        if "=" in word and not word.startswith("-"):
            with suppress(HydraException):  # reported later
                read[word] = parser.parse_override(word)
    swept = [o for o in read.values() if o.is_sweep_override() and is_folder(shipped("conf") / o.key_or_group)]
    places = tuple(f"{o.package or o.key_or_group.replace('/', '.')}." for o in swept)

    def held(word: str) -> bool:
        override = read.get(word)
        if override is None or override.is_delete() or override.is_sweep_override():
            return False
        return override.key_or_group.startswith(places) and override.value() is not None

    pairs = [(word, *word.partition("=")[::2]) for word in words]
    return [f"{key}=choice({value or QUOTES})" if held(word) else word for word, key, value in pairs]


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _typed(job: HydraConf) -> list[str]:
    """A job's override lines, their interpolations as they are typed."""
    lines = OmegaConf.to_container(job.overrides, resolve=False)
    assert isinstance(lines, dict)
    return list(lines["task"])


@contextmanager
def _alone() -> Iterator[None]:
    """Within, Hydra's globals are diffsweep's: a program that calls it may be a Hydra application itself."""
    outer, config, base = GlobalHydra.instance(), HydraConfig.instance(), VersionBase.instance()
    before = outer.hydra, config.cfg, base.version_base
    outer.clear()
    try:
        yield
    finally:
        outer.hydra, config.cfg, base.version_base = before


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
    chosen = [line for line in overrides if line.startswith("+sweeps=")]
    if not chosen:
        return None
    path = normpath(str(OverridesParser.create().parse_override(chosen[0]).value()))
    return path.removesuffix(".yaml").replace("/", "-")


def _sweeps_listed() -> str:
    """The sweep files that `+sweeps=NAME` finds from here, for --help."""
    return ", ".join(sweeps_files()) or "none yet"
