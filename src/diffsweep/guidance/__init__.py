"""Guidance: what is asked at each step, and how answers become one."""

from diffsweep.core.group import Group
from diffsweep.guidance.rule import Rule

GROUP = Group(mark="branches", kind=Rule)
