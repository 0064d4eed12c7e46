"""What `prompt=auto` stands for: the input's caption; else it depends on what the technique does.

A technique that draws from noise gets a default prompt. One that restores gets an empty prompt, which guidance cannot
push towards, though a negative prompt may push away. One that edits a picture needs the user's prompt.
"""

from __future__ import annotations

from typing import Any

from diffsweep.core.keys import AUTO
from diffsweep.core.problems import BadInput
from diffsweep.core.types import AGAINST
from diffsweep.model.labels import SEVERAL

DEFAULT_PROMPT = "a photo of a dog"
OPEN = "\0"  # no prompt of anybody's: it shows whether a technique asks about the cell's prompt at all


def settled(
    given: str, technique: Any, picture: Any, name: str, guidance: Any = None, assumed: str | None = None
) -> tuple[str, str | None]:
    """The prompt, and a note if it was assumed. picture: the input, whose choice is `name`. assumed: what the model
    takes for auto, where it reads no text."""
    if given != AUTO:
        return given, None
    if assumed == "":
        return "", None
    takes, kind = technique.uses, type(technique).__module__.rpartition(".")[2]
    if "input" not in takes:
        drawn = assumed or DEFAULT_PROMPT
        asks = "prompt" in takes and OPEN in technique.prompts_for(OPEN)
        return drawn, f"none is given, {kind} draws {drawn!r}" if asks else None
    if assumed is None and (caption := picture.caption()):
        return caption, None
    if "prompt" not in takes:
        return "", None
    if getattr(technique, "restores", False):
        how = f"with an empty one, {_steered(guidance)}"
        return "", f"none is given and input={name} has no caption: {kind} runs {how}"
    if assumed is not None:
        raise BadInput(f"prompt: {kind} edits the picture towards one: give a label, such as prompt={assumed!r}")
    raise BadInput(
        f"prompt: {kind} edits the picture towards one, and input={name} has no caption: "
        'give prompt="a photo of ...", or prompt= for an empty one'
    )


def read(model: Any, prompt: str, technique: Any, guidance: Any) -> str:
    """The prompt in its plainest form for a model; BadInput where it cannot be told of that, or of another one that is
    asked about. guidance: as it is for the model's stage."""
    if not hasattr(model, "read"):
        return prompt
    plainest = model.read(prompt)
    typed = getattr(technique, "prompts", AUTO)
    for own in technique.prompts_for(plainest):
        if own != plainest and own not in (() if typed == AUTO else typed):
            _require_text(model, technique, own)
        model.read(own, "prompt" if own == plainest else SEVERAL)
        for other in guidance.branches(own) if guidance else ():
            model.read(other or "", "guidance.negative_prompt")
    return plainest


def _require_text(model: Any, technique: Any, prompt: str) -> None:
    """BadInput where a model cannot be told of what a technique asks about of its own."""
    try:
        model.read(prompt)
    except BadInput as error:
        kind = type(technique).__module__.rpartition(".")[2]
        labels = f", or give labels, as {SEVERAL}=[0,1]" if model.labels.count else ""
        raise BadInput(
            f"technique={kind}: asks about {prompt!r} too, and model.path={model.path} reads no text; choose a model "
            f"that does{labels}"
        ) from error


def _steered(guidance: Any) -> str:
    """How an empty prompt is guided."""
    rows = [row.removeprefix(AGAINST) for row in guidance.branches("") if row] if guidance else []
    other = [row for row in rows if row]
    return f"guided by {', '.join(map(repr, other))} alone" if other else "unguided"
