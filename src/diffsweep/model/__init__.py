"""Models: what answers."""

from diffsweep.core.group import Group

GROUP = Group(mark="load", chosen=False)
