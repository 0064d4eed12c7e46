"""Metrics: numbers for stored pictures, one file a metric, computed as a second pass over the store.

A module here (or in the `metric` folder of a user's own package) lists in `METRICS` its instances, one for each name.
Importing them needs no torch: that, and torchmetrics, are imported where something is computed.
"""

from diffsweep.metric.batch import Batch, Metric, Score, SetMetric
from diffsweep.metric.choice import Chosen, Options, choose, defined, known
from diffsweep.metric.measure import measured_sweep
from diffsweep.metric.scoring import called, score, score_sets

__all__ = [
    "Batch",
    "Chosen",
    "Metric",
    "Options",
    "Score",
    "SetMetric",
    "called",
    "choose",
    "defined",
    "known",
    "measured_sweep",
    "score",
    "score_sets",
]
