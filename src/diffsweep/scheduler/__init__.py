"""Schedulers: one update rule each, as weights."""

from diffsweep.core.group import Group
from diffsweep.core.types import Scheduler

GROUP = Group(mark="weights", kind=Scheduler)
