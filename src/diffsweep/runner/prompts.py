"""What stands in for a prompt that is not given: the input's caption; else it depends on what the technique does.

One that draws from noise gets a default prompt. One that restores asks about no prompt at all: an empty one, with which
guidance has nothing to push towards, though a negative prompt may push. One that edits a picture of the user's must be
told what to make of it.
"""

from __future__ import annotations

from typing import Any

from diffsweep.core.problems import BadInput

DEFAULT_PROMPT = "a photo of a dog"
OPEN = "\0"  # no prompt of anybody's: it shows whether a technique asks about the cell's prompt at all


def settled(given: str | None, technique: Any, picture: Any, name: str, guidance: Any = None) -> tuple[str, str | None]:
    """The prompt, and what was assumed. picture: the input, whose choice is `name`."""
    if given is not None:
        return given, None
    takes, kind = technique.uses, type(technique).__module__.rpartition(".")[2]
    if "input" not in takes:
        assumed = "prompt" in takes and OPEN in technique.asked(OPEN)
        return DEFAULT_PROMPT, f"none is given, {kind} draws {DEFAULT_PROMPT!r}" if assumed else None
    if caption := picture.caption():
        return caption, None
    if "prompt" not in takes:
        return "", None
    if getattr(technique, "restores", False):
        how = f"with an empty one, {_steered(guidance)}"
        return "", f"none is given and input={name} has no caption: {kind} runs {how}"
    raise BadInput(
        f"prompt: {kind} edits the picture towards one, and input={name} has no caption: "
        'give prompt="a photo of ...", or prompt= for an empty one'
    )


def _steered(guidance: Any) -> str:
    """How the estimate about an empty prompt comes about."""
    other = [row for row in guidance.branches("") if row] if guidance else []
    return f"guided by {', '.join(map(repr, other))} alone" if other else "unguided"
