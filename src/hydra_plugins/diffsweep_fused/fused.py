"""The `fused` launcher and sweeper: a whole multirun is planned cheaply and handed over in one call.

A task function with a *batch entry* carries two attributes beside being callable:

* `freeze(config, axes, overrides)` turns one job into whatever the task calls a cell. `config` is the job's resolved
  plain config (its nodes are shared between jobs: read only), `axes` maps the names this multirun varies to the job's
  values, `overrides` are the job's override lines.
* `many(cells)` runs them all, and returns one value a cell; `many(cells, start=start)` has `start` start workers for it
  (`workers`).

A third one, `ended(values)`, hears of all jobs that another launcher has run one by one.

Any other task function is run job by job, exactly as Hydra's basic launcher does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from diffsweep.core.keys import at
from hydra_plugins.diffsweep_fused._grammar import count
from hydra_plugins.diffsweep_fused.composer import Composer, Line


@dataclass
class FusedLauncherConf:
    _target_: str = "hydra_plugins.diffsweep_fused.fused.FusedLauncher"


@dataclass
class FusedSweeperConf:
    _target_: str = "hydra_plugins.diffsweep_fused.fused.FusedSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="diffsweep")
ConfigStore.instance().store(group="hydra/sweeper", name="fused", node=FusedSweeperConf, provider="diffsweep")


def has_batch_entry(task_function: Any) -> bool:
    return hasattr(task_function, "freeze") and hasattr(task_function, "many")


class FusedLauncher(BasicLauncher):
    """Hydra's basic launcher, and one call for all jobs where the task function has a batch entry."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._composer = Composer(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if not has_batch_entry(self.task_function):
            return super().launch(job_overrides, initial_job_idx)
        setup_globals()
        varying = self._composer.swept() | _differing([self._composer.read(texts) for texts in job_overrides])
        cells = [self._freeze(texts, initial_job_idx + n, varying) for n, texts in enumerate(job_overrides)]
        return self._returns(job_overrides, cells)

    def _freeze(self, texts: Sequence[str], number: int, varying: set[str]) -> Any:
        config = self._composer.plain(texts, number)
        axes = {  # typed by the config where the key is found there, as on the command line where not
            line.name: line.override.value() if line.is_group else at(config, line.name, line.override.value())
            for line in self._composer.read(texts)
            if line.name in varying
        }
        return self.task_function.freeze(config, axes, list(texts))  # type: ignore[union-attr]

    def _run(self, cells: list[Any]) -> Sequence[Any]:
        return self.task_function.many(cells)  # type: ignore[union-attr]

    def _returns(self, job_overrides: Sequence[Sequence[str]], cells: list[Any]) -> list[JobReturn]:
        assert self.hydra_context is not None and self.config is not None and self.task_function is not None
        callbacks = self.hydra_context.callbacks
        for _ in cells:
            callbacks.on_job_start(config=self.config, task_function=self.task_function)
        values = self._run(cells)
        returns = []
        for lines, value in zip(job_overrides, values, strict=True):
            returned = JobReturn(overrides=list(lines), task_name=JobRuntime.instance().get("name"))
            returned.status, returned.return_value = JobStatus.COMPLETED, value
            callbacks.on_job_end(config=self.config, job_return=returned)
            returns.append(returned)
        return returns


class FusedSweeper(BasicSweeper):
    """Hydra's basic sweeper: its grammar and batches, without composing every job in full to see whether it can be.

    `multirun.yaml` is written only where Hydra's own files are wanted (`hydra.output_subdir` is not null).
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._plans_itself = isinstance(self.launcher, FusedLauncher) and has_batch_entry(task_function)
        self._ended = None if self._plans_itself else getattr(task_function, "ended", None)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        if empty := [override for override in overrides if count(override) == 0]:
            raise HydraException(f"Nothing to sweep over: {_why_empty(empty[0], self.hydra_context.config_loader)}")
        self.overrides = self.split_arguments(overrides, self.max_batch_size)
        if self.config.hydra.output_subdir is not None:
            folder = Path(self.config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        number = 0
        while not self.is_done():
            batch = self.get_job_batch()
            self.validate_batch_is_legal(batch)
            returns.append(self.launcher.launch(batch, initial_job_idx=number))
            for returned in returns[-1]:
                if returned.status is JobStatus.FAILED:  # its `return_value` would print a message of its own
                    raise returned._return_value
            number += len(batch)
        if self._ended:
            self._ended([returned.return_value for batch in returns for returned in batch])
        return returns

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Every job can be composed: found before the first one runs, at the composer's price."""
        assert self.config is not None and self.hydra_context is not None
        if self._plans_itself:
            return
        composer = Composer(self.hydra_context.config_loader, self.config, resolve=False)
        for lines in batch:
            composer.plain(lines)


def _differing(jobs: Sequence[Sequence[Line]]) -> set[str]:
    """The names whose lines are not the same in every job: what an optimising sweeper varies without declaring it."""
    lines = [{line.name: line.text for line in job} for job in jobs]
    return {name for name in {*chain(*lines)} if len({job.get(name) for job in lines}) > 1}


def _why_empty(override: Override, loader: ConfigLoader) -> str:
    key, line = override.key_or_group, override.input_line
    if not isinstance(override.value(), Glob):
        return f"{line} has no values"
    if choices := loader.get_group_options(key):
        return f"{line} fits no choice; there are {', '.join(choices)}"
    return f"{line}: glob fits names of choices, not files; list the values: {key}=a,b"
