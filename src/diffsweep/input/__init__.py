"""Inputs: the picture to start from, or to measure against."""

from diffsweep.core.group import Group
from diffsweep.input.picture import Picture

GROUP = Group(mark="pixels", contract=Picture, base=Picture)
