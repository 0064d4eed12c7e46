"""The pen: shapes in the unit square, painted as a photo, an oil painting or a sketch."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

STYLES = ("oil painting", "photo", "sketch")
SIDE = 128
Colour = tuple[int, int, int]
Point = tuple[float, float]


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """share of b in a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def varied(rng: random.Random, colour: Colour, by: int = 18) -> Colour:
    """The colour, a little lighter or darker and a little off."""
    light = rng.randint(-by, by)
    return tuple(min(255, max(0, c + light + rng.randint(-by // 2, by // 2))) for c in colour)  # type: ignore[return-value]


class Pen:
    """Draws on a square of SIDE pixels; coordinates run from 0 to 1, from the top left."""

    def __init__(self, style: str, rng: random.Random) -> None:
        self.style = style
        self.rng = rng
        grey = rng.randint(240, 255)
        self.paper: Colour = (grey, grey, max(0, grey - rng.randint(0, 8)))
        self.ink: Colour = (rng.randint(15, 55),) * 3
        self.width = rng.uniform(2.6, 3.6)  # of a line, in pixels of the large picture
        self.image = Image.new("RGB", (SIDE, SIDE), self.paper)
        self.draw = ImageDraw.Draw(self.image)

    @property
    def sketching(self) -> bool:
        return self.style == "sketch"

    def at(self, points: Sequence[Point]) -> list[Point]:
        return [(x * SIDE, y * SIDE) for x, y in points]

    def tone(self, colour: Colour) -> Colour:
        """A fill: itself, or in a sketch a light tint of its grey."""
        if not self.sketching:
            return colour
        grey = round(0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2])
        return mixed(self.paper, (grey, grey, grey), 0.32)

    def backdrop(self, top: Colour, bottom: Colour) -> None:
        """The background, from top to bottom; a sketch leaves the paper white."""
        if self.sketching:
            return
        share = np.linspace(0, 1, SIDE)[:, None, None]
        rows = np.array(top) * (1 - share) + np.array(bottom) * share
        pixels = np.broadcast_to(np.rint(rows), (SIDE, SIDE, 3)).astype(np.uint8)
        self.image = Image.fromarray(np.ascontiguousarray(pixels))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point], colour: Colour, outline: bool = True) -> None:
        p = self.at(points)
        self.draw.polygon(p, fill=self.tone(colour))
        if self.sketching and outline:
            self.draw.line([*p, p[0], p[1]], fill=self.ink, width=round(self.width), joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, outline: bool = True) -> None:
        box = [c * SIDE for c in (x - rx, y - ry, x + rx, y + ry)]
        edge = self.ink if self.sketching and outline else None
        self.draw.ellipse(box, fill=self.tone(colour), outline=edge, width=round(self.width) if edge else 0)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """width: as a share of the side; a sketch draws its own."""
        w = self.width if self.sketching else width * SIDE
        self.draw.line(
            self.at(points), fill=self.ink if self.sketching else colour, width=max(1, round(w)), joint="curve"
        )

    def solid(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """A dark accent that stays dark in a sketch, such as an eye."""
        box = [c * SIDE for c in (x - rx, y - ry, x + rx, y + ry)]
        self.draw.ellipse(box, fill=self.ink if self.sketching else colour)

    def finished(self, size: int) -> np.ndarray:
        """uint8, size x size x 3, in the pen's style."""
        seed = self.rng.getrandbits(32)
        noise = np.random.default_rng(seed)
        image = self.image
        pixels: np.ndarray
        if self.style == "photo":
            image = image.filter(ImageFilter.GaussianBlur(1.2))
            pixels = np.asarray(image, np.float32)
            angle = noise.uniform(0, 2 * np.pi)
            y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
            pixels = pixels * (1 + 0.22 * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
        elif self.style == "oil painting":
            pixels = np.asarray(image.filter(ImageFilter.MedianFilter(3)), np.float32)
            warm = np.array([1.06, 0.97, 0.78], np.float32)
            strokes = Image.fromarray(noise.normal(0, 1, (16, 16)).astype(np.float32))
            faint = np.asarray(strokes.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[..., None]
            pixels = (pixels * 0.86 + 8) * warm + 3.5 * faint  # faint: guidance amplifies texture
        else:
            pixels = np.asarray(image, np.float32)
        image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        return np.asarray(
            image.resize((size, size), Image.Resampling.BOX if size <= SIDE else Image.Resampling.BICUBIC)
        )
