"""A config group: a folder of parts, one file each, and of the same word a folder of conf/."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """What the package of a group says of its parts, as its `GROUP`.

    mark: what makes a module's dataclass a part. kind: a field of this type holds a part. contract: what every part
    has, and base: the class that gives a user's own most of it. chosen: a technique says by `uses` whether such a part
    decides its pictures; of the others, the cell or the sweep has one in any case.
    """

    mark: str
    kind: type | None = None
    contract: type | None = None
    base: type | None = None
    chosen: bool = True
