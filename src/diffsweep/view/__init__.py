"""Views: how a picture is looked at."""

from diffsweep.core.group import Group
from diffsweep.core.types import View

GROUP = Group(mark="apply", kind=View)
