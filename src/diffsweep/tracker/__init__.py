"""Trackers: where results are logged."""

from diffsweep.core.group import Group

GROUP = Group(mark="log", chosen=False)
