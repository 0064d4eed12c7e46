"""Techniques: what is done with a model."""

from diffsweep.core.group import Group
from diffsweep.technique.job import Plain, Technique

GROUP = Group(mark="program", contract=Technique, base=Plain, chosen=False)
