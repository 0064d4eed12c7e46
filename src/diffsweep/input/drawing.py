"""A drawing described in words, for image-to-image edits of rough sketches.

Each shape is one line: its kind, its numbers, its colour. Numbers are shares of the picture's side, from the top left;
a picture that is not square is the middle of the square of its longer side.

    circle X Y RADIUS COLOUR        rectangle X0 Y0 X1 Y1 COLOUR
    line X0 Y0 X1 Y1 WIDTH COLOUR   polygon X Y X Y X Y ... COLOUR
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from diffsweep.core.problems import BadInput, require
from diffsweep.input.picture import Picture

NUMBERS = {"circle": 3, "rectangle": 4, "line": 5, "polygon": None}
SCALE = 4  # drawn larger, then reduced: smooth edges
HOUSE = (
    "rectangle 0 0.7 1 1 forestgreen",
    "circle 0.8 0.2 0.1 gold",
    "rectangle 0.25 0.45 0.65 0.8 peru",
    "polygon 0.2 0.45 0.45 0.2 0.7 0.45 firebrick",
    "rectangle 0.4 0.6 0.5 0.8 saddlebrown",
)


def colour_problem(key: str, colour: str) -> str | None:
    try:
        ImageColor.getrgb(colour)
    except ValueError:
        return f"{key}={colour}: not a colour that CSS knows, such as gold or #ffd700"
    return None


def parsed(shape: str) -> tuple[str, list[float], str]:
    kind, *words = shape.split() or [""]
    if kind not in NUMBERS:
        raise BadInput(f"shapes: {shape!r}: the kinds are {', '.join(NUMBERS)}")
    try:
        numbers, colour = [float(word) for word in words[:-1]], words[-1]
    except (ValueError, IndexError):
        raise BadInput(f"shapes: {shape!r}: numbers, then a colour, are needed after {kind}") from None
    n = NUMBERS[kind]
    wrong = len(numbers) != n if n is not None else len(numbers) < 6 or len(numbers) % 2
    sized = kind in ("circle", "line")  # the last number is a radius or a width
    takes = "three or more pairs of" if n is None else n
    require(
        f"shapes: {shape!r}: {kind} takes {takes} numbers" if wrong else None,
        f"shapes: {shape!r}: the numbers must be finite" if not all(map(math.isfinite, numbers)) else None,
        f"shapes: {shape!r}: the last number must be at least 0" if sized and numbers and numbers[-1] < 0 else None,
        colour_problem("shapes", colour),
    )
    return kind, numbers, colour


@dataclass(frozen=True)
class Drawing(Picture):
    shapes: tuple[str, ...] = HOUSE
    background: str = "skyblue"

    def __post_init__(self) -> None:
        for shape in self.shapes:
            parsed(shape)
        require(colour_problem("background", self.background))

    def pixels(self, size: int) -> np.ndarray:
        side = size * SCALE
        image = Image.new("RGB", (side, side), self.background)
        draw = ImageDraw.Draw(image)
        for shape in self.shapes:
            kind, numbers, colour = parsed(shape)
            p = [number * side for number in numbers]
            if kind == "circle":
                draw.circle(p[:2], p[2], fill=colour)
            elif kind == "rectangle":
                x, y = sorted(p[0::2]), sorted(p[1::2])
                draw.rectangle((x[0], y[0], x[1], y[1]), fill=colour)
            elif kind == "line":
                draw.line(p[:4], fill=colour, width=max(1, round(p[4])))
            else:
                draw.polygon(list(zip(p[0::2], p[1::2], strict=True)), fill=colour)
        return np.asarray(image.resize((size, size), Image.Resampling.BOX))
