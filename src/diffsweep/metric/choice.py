"""The metrics that there are, those that a sweep chose, and their definitions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from diffsweep.core.packages import HINT, described, imported, modules, source
from diffsweep.core.problems import BadInput, did_you_mean, one_of, require
from diffsweep.core.text import in_one_line
from diffsweep.metric.batch import DIRECTIONS, NEEDS, Described, Metric, SetMetric
from diffsweep.metric.distribution import FEATURES
from diffsweep.model.clip import Clip
from diffsweep.store.schema import Definition, wrong

MISSING = ("refuse", "skip")


@dataclass(frozen=True)
class Options:
    """The keys that fill metrics' fields of the same names. missing: what to do about a metric whose weights or
    packages are missing, one of `MISSING`."""

    missing: str = "refuse"
    judge: str = Clip.path
    features: str = "clip"
    references: str = "inputs"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(one_of("metric.missing", self.missing, MISSING), one_of("metric.features", self.features, FEATURES))

    def on(self, metric: Any) -> Any:
        own = {"judge": Clip(self.judge, "metric.judge"), "features": self.features, "references": self.references}
        there = {f.name for f in dataclasses.fields(metric)} if dataclasses.is_dataclass(metric) else set()
        return dataclasses.replace(metric, **{key: value for key, value in own.items() if key in there})


@dataclass(frozen=True)
class Chosen:
    """Metrics of pictures and of sets, and those that cannot be measured, with the reason."""

    metrics: tuple[Metric, ...] = ()
    of_sets: tuple[SetMetric, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [metric.name for metric in (*self.metrics, *self.of_sets)]

    def ready(self) -> None:
        """Download missing weights before the pictures are sampled."""
        for metric in (*self.metrics, *self.of_sets):
            if judge := getattr(metric, "judge", None):
                judge.fetch()


@lru_cache
def known(plugins: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every metric by name, the plugins' first: all that the modules of each package's `metric` folder list. BadInput
    for what is no metric."""
    found: dict[str, Any] = {}
    for path in modules("metric", plugins):
        listed = getattr(imported(path), "METRICS", ())
        if not isinstance(listed, tuple | list):
            raise BadInput(f"{path}.METRICS: must be a tuple of metrics, as in (MyMetric(),), not {_shown(listed)}")
        for metric in listed:
            try:
                wrong = _wrong(metric)
            except Exception as error:  # a property of a user's own may do anything
                wrong = described(error)
            if wrong:
                raise BadInput(f"{path}.METRICS: {_shown(metric)}: {wrong}")
            found.setdefault(metric.name, metric)
    return found


def _wrong(metric: Any) -> str | None:
    """Why an object is no metric."""
    if isinstance(metric, type):
        return "is a class; METRICS holds instances of it"
    for what in ("name", "needs", "direction", "definition"):
        if not hasattr(metric, what):
            return f"has no {what}"
    if not isinstance(metric.name, str) or not metric.name:
        return f"name={metric.name!r:.80}: must be a text"
    if not isinstance(metric.needs, frozenset) or metric.needs - NEEDS.keys():
        return f"needs={metric.needs!r:.80}: must be a frozenset of {', '.join(NEEDS)}, or an empty one"
    if metric.direction not in DIRECTIONS:
        return f"direction={metric.direction!r:.80}: must be {' or '.join(DIRECTIONS)}"
    if not callable(metric.definition):
        return "definition: must be a method"
    if not (callable(metric) or callable(getattr(metric, "together", None))):
        return "has neither __call__(batch) nor together(batch)"
    try:
        hash(metric)
    except TypeError as error:
        return f"cannot be hashed ({error}): a dataclass must be frozen"
    return None


def _shown(metric: Any) -> str:
    """A metric by its name, or what is there instead."""
    try:
        return f"metric {metric.name!r:.80}"
    except Exception:  # it has none
        return f"{metric!r:.80}"


def choose(names: Iterable[str], options: Options = Options()) -> Chosen:
    """The metrics of these names; BadInput for every name there is none of, and for those that cannot be measured."""
    metrics = known(options.plugins)
    names = dict.fromkeys(names)
    there = ", ".join(metrics)
    wrong = [name for name in names if name not in metrics]
    if wrong:
        raise BadInput(
            f"metric.names: no metric {n!r}; there are {there}; {HINT}{did_you_mean(n, metrics)}" for n in wrong
        )
    chosen, unavailable = [], {}
    for metric in (options.on(metrics[name]) for name in names):
        if reason := _missing_from(metric):
            unavailable[metric.name] = reason
        else:
            chosen.append(metric)
    if unavailable and options.missing == "refuse":
        raise BadInput(
            f"metric {name}: {reason} (metric.missing=skip goes on without it)" for name, reason in unavailable.items()
        )
    of_sets = tuple(metric for metric in chosen if hasattr(metric, "together"))
    return Chosen(tuple(metric for metric in chosen if metric not in of_sets), of_sets, unavailable)


def _missing_from(metric: Described) -> str | None:
    """Why a metric cannot be measured."""
    try:
        reason: str | None = getattr(metric, "missing", lambda: None)()
        if reason is None and not _bounds_hold(definition := defined(metric)):
            return f"bounds={definition['bounds']}: must be [low, high] in its definition, null for none"
        if reason is None and definition["direction"] != metric.direction:
            return f"direction={definition['direction']!r:.80}: must be {metric.direction} in its definition too"
        if reason is None and (problem := wrong(definition, Definition)):
            return f"its definition cannot be stored ({problem})"
        return reason
    except BadInput as error:
        return "; ".join(error.messages)
    except Exception as error:  # a definition of a user's own may hold anything
        return f"its definition cannot be stored ({in_one_line(error)})"


def _bounds_hold(definition: Mapping[str, Any]) -> bool:
    bounds = definition.get("bounds", [None, None])
    if not isinstance(bounds, list) or len(bounds) != 2:
        return False
    ends = [end for end in bounds if end is not None]
    return all(type(end) in (int, float) for end in ends) and (len(ends) < 2 or ends[0] < ends[1])


def defined(metric: Described) -> dict[str, Any]:
    """A metric's definition as JSON holds it. A user's own includes the hash of its file, so that an edited metric is
    another one; a shipped metric's definition is written by hand."""
    own = {"source": found} if (found := source(metric)) else {}
    return json.loads(json.dumps({"direction": metric.direction, **metric.definition(), **own}, allow_nan=False))
