"""Many programs, few model calls: continuous batching for sweeps.

Every program runs at its own pace. Each call takes `rows` open questions, whoever asks them, pads the last rows of
the tail, and hands the answers back; a program whose answers are complete goes on to its next questions. All calls of a
sweep have one shape: a row's bits then do not depend on its neighbours.

A step has three parts, with plain values between them: `policy` chooses the rows of the next call, `execution` answers
them by one call of a model, `programs` go on with their answers.
"""

from diffsweep.engine.engine import Engine
from diffsweep.engine.policy import WINDOW
from diffsweep.engine.values import Counts, Finished, Source, Work

__all__ = ["WINDOW", "Counts", "Engine", "Finished", "Source", "Work"]
