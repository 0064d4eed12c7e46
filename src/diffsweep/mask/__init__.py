"""Masks: where a picture may change."""

from diffsweep.core.group import Group
from diffsweep.mask.mask import Mask

GROUP = Group(mark="values", contract=Mask, base=Mask)
