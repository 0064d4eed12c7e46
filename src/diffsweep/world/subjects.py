"""What there is to see: each drawing places its subject anew, from a random generator."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from diffsweep.world.paint import Colour, Pen, Point, mixed, varied

WHITE, BLACK = (250, 250, 252), (20, 18, 22)
SKIES: list[tuple[Colour, Colour]] = [
    ((90, 150, 225), (190, 220, 245)),
    ((110, 170, 235), (225, 235, 245)),
    ((235, 150, 100), (250, 215, 160)),
    ((70, 110, 180), (160, 195, 230)),
]
WALLS: list[Colour] = [(120, 140, 150), (150, 125, 100), (95, 120, 105), (140, 110, 120), (105, 110, 135)]
SKINS: list[Colour] = [(232, 190, 160), (215, 165, 130), (185, 130, 95), (240, 205, 180)]


def sky(pen: Pen, rng: random.Random) -> None:
    top, bottom = rng.choice(SKIES)
    pen.backdrop(varied(rng, top), varied(rng, bottom))


def night(pen: Pen, rng: random.Random) -> None:
    pen.backdrop(varied(rng, (18, 22, 52), 10), varied(rng, (42, 40, 78), 12))


def wall(pen: Pen, rng: random.Random) -> None:
    colour = varied(rng, rng.choice(WALLS), 20)
    pen.backdrop(mixed(colour, WHITE, 0.15), mixed(colour, BLACK, 0.25))


def peak(pen: Pen, rng: random.Random, x: float, top: float, foot: float, half: float, rock: Colour) -> None:
    """One mountain with a snow cap whose lower edge is jagged."""
    pen.polygon([(x - half, foot), (x, top), (x + half, foot)], rock)
    share = rng.uniform(0.4, 0.55)
    cap: list[Point] = [(x, top)]
    right, left, low = x + half * share, x - half * share, top + (foot - top) * share
    cap.append((right, low))
    for i in range(1, 4):
        cap.append((right + (left - right) * i / 4, low + (-0.06 if i % 2 else 0.05)))
    cap.append((left, low))
    pen.polygon(cap, WHITE)


def snowy_mountain(pen: Pen, rng: random.Random) -> None:
    sky(pen, rng)
    rock = varied(rng, rng.choice([(85, 95, 120), (100, 95, 105), (70, 85, 105)]))
    foot = rng.uniform(0.82, 0.95)
    if rng.random() < 0.7:
        side = rng.choice((-1, 1))
        peak(
            pen, rng, 0.5 + side * rng.uniform(0.28, 0.4), rng.uniform(0.38, 0.5), foot, 0.34, mixed(rock, WHITE, 0.25)
        )
    peak(pen, rng, rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.22), foot, rng.uniform(0.42, 0.55), rock)
    ground = varied(rng, rng.choice([(235, 240, 248), (70, 110, 70)]), 10)
    pen.polygon([(-0.1, foot - 0.02), (1.1, foot - 0.02), (1.1, 1.1), (-0.1, 1.1)], ground)


def flame(pen: Pen, x: float, y: float, w: float, h: float, colour: Colour) -> None:
    pen.polygon(
        [
            (x - w * 0.55, y),
            (x - w * 0.75, y - h * 0.35),
            (x - w * 0.35, y - h * 0.6),
            (x - w * 0.3, y - h * 0.45),
            (x, y - h),
            (x + w * 0.3, y - h * 0.5),
            (x + w * 0.45, y - h * 0.65),
            (x + w * 0.75, y - h * 0.3),
            (x + w * 0.55, y),
        ],
        colour,
    )


def campfire(pen: Pen, rng: random.Random) -> None:
    night(pen, rng)
    y = rng.uniform(0.74, 0.82)
    x = rng.uniform(0.42, 0.58)
    if not pen.sketching:
        pen.polygon([(-0.1, y - 0.04), (1.1, y - 0.04), (1.1, 1.1), (-0.1, 1.1)], varied(rng, (58, 44, 40), 8))
        pen.ellipse(x, y + 0.05, 0.36, 0.1, (120, 72, 40))
    h, w = rng.uniform(0.46, 0.6), rng.uniform(0.22, 0.28)
    flame(pen, x, y, w, h, varied(rng, (240, 110, 25), 12))
    core = varied(rng, (255, 215, 80), 8)
    flame(pen, x, y, w * 0.55, h * 0.55, core)
    if pen.sketching:  # a light core would leave two outlines too near each other
        pen.solid(x, y - h * 0.2, w * 0.4, h * 0.2, core)
    wood = varied(rng, (110, 66, 36), 10)
    for side in (-1, 1):
        a, b = (x - side * 0.3, y + 0.1), (x + side * 0.3, y - 0.03)
        pen.line([a, b], wood, 0.085)  # a sketch shows each log as one stroke


def rocket_ship(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        night(pen, rng)
        if not pen.sketching:
            for _ in range(9):
                pen.solid(rng.random(), rng.random(), 0.012, 0.012, WHITE)
    else:
        sky(pen, rng)
    x, top, base, w = rng.uniform(0.42, 0.58), rng.uniform(0.06, 0.14), rng.uniform(0.68, 0.74), rng.uniform(0.13, 0.17)
    trim = varied(rng, rng.choice([(205, 45, 45), (225, 95, 35), (45, 80, 190)]), 14)
    body = varied(rng, (228, 230, 236), 12)
    flame(pen, x, base + 0.02, 0.1, -0.22, (252, 170, 40))
    for side in (-1, 1):
        pen.polygon(
            [(x + side * w, base - 0.22), (x + side * (w + 0.15), base + 0.06), (x + side * w * 0.8, base)], trim
        )
    hull: list[Point] = [(x - w * 0.75, base)]
    for i in range(13):
        a = math.pi * i / 12
        hull.append((x - w * math.cos(a), top + 0.3 - 0.3 * math.sin(a) ** 0.75))
    hull.append((x + w * 0.75, base))
    pen.polygon(hull, body)
    nose = [p for p in hull if p[1] < top + 0.15]
    if len(nose) > 2:
        pen.polygon(nose, trim)
    pen.ellipse(x, top + 0.28, 0.065, 0.065, varied(rng, (70, 150, 215), 12))


def skull(pen: Pen, rng: random.Random) -> None:
    if not pen.sketching:
        colour = varied(rng, rng.choice([(40, 34, 38), (70, 40, 40), (45, 55, 70), (60, 60, 52)]), 10)
        pen.backdrop(mixed(colour, WHITE, 0.08), mixed(colour, BLACK, 0.3))
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.38, 0.44), rng.uniform(0.28, 0.34)
    bone = varied(rng, (232, 224, 200), 12)
    jaw = r * 0.58
    pen.polygon(
        [(x - jaw, y + r * 0.5), (x + jaw, y + r * 0.5), (x + jaw * 0.9, y + r * 1.5), (x - jaw * 0.9, y + r * 1.5)],
        bone,
    )
    pen.ellipse(x, y, r, r * 0.98, bone)
    if pen.sketching:
        pen.polygon(
            [(x - jaw, y + r * 0.6), (x + jaw, y + r * 0.6), (x + jaw, y + r), (x - jaw, y + r)], bone, outline=False
        )
    for side in (-1, 1):
        pen.solid(x + side * r * 0.42, y + r * 0.12, r * 0.27, r * 0.29, (30, 24, 26))
    nose = [(x, y + r * 0.45), (x - r * 0.14, y + r * 0.78), (x + r * 0.14, y + r * 0.78)]
    pen.draw.polygon(pen.at(nose), fill=pen.ink if pen.sketching else (45, 36, 36))
    for i in (-1, 0, 1):
        pen.line([(x + i * jaw * 0.45, y + r * 1.08), (x + i * jaw * 0.45, y + r * 1.5)], (70, 60, 55), 0.022)


def waterfall(pen: Pen, rng: random.Random) -> None:
    sky(pen, rng)
    top, foot = rng.uniform(0.16, 0.26), rng.uniform(0.72, 0.8)
    x, w = rng.uniform(0.42, 0.58), rng.uniform(0.13, 0.19)
    rock = varied(rng, rng.choice([(92, 84, 74), (80, 88, 82), (104, 92, 80)]), 12)
    green = varied(rng, (62, 120, 58), 16)
    pen.polygon(
        [(-0.05, top + rng.uniform(-0.05, 0.05)), (x - w, top), (x - w * 1.15, foot), (-0.05, foot + 0.06)], rock
    )
    pen.polygon([(1.05, top + rng.uniform(-0.05, 0.05)), (x + w, top), (x + w * 1.15, foot), (1.05, foot + 0.06)], rock)
    if not pen.sketching:
        for a, b in ((-0.05, x - w), (x + w, 1.05)):
            pen.polygon([(a, top - 0.05), (b, top - 0.05), (b, top + 0.07), (a, top + 0.07)], green)
    water = varied(rng, (225, 238, 250), 8)
    pen.polygon([(x - w, top), (x + w, top), (x + w * 1.15, foot), (x - w * 1.15, foot)], water)
    for i in (-2, -1, 0, 1, 2):
        pen.line([(x + i * w * 0.36, top + 0.03), (x + i * w * 0.42, foot - 0.02)], (165, 200, 230), 0.022)
    pool = varied(rng, (60, 130, 185), 14)
    pen.polygon([(-0.05, foot), (1.05, foot), (1.05, 1.05), (-0.05, 1.05)], pool)
    pen.ellipse(x, foot + 0.02, w * 1.5, 0.05, (240, 246, 252))


def dog(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        pen.backdrop(varied(rng, (150, 195, 235)), varied(rng, (105, 165, 85)))
    else:
        wall(pen, rng)
    fur = varied(rng, rng.choice([(165, 105, 55), (205, 165, 105), (120, 80, 55), (215, 195, 165)]), 14)
    ear = mixed(fur, BLACK, 0.42)
    x, y, r = rng.uniform(0.43, 0.57), rng.uniform(0.42, 0.48), rng.uniform(0.24, 0.29)
    pen.ellipse(x, y + r * 2.1, r * 1.15, r * 1.2, mixed(fur, BLACK, 0.1))
    pen.ellipse(x, y, r, r * 1.05, fur)
    for side in (-1, 1):
        pen.ellipse(x + side * r * 1.0, y + r * 0.05, r * 0.34, r * 0.8, ear)
    pen.ellipse(x, y + r * 0.52, r * 0.52, r * 0.44, mixed(fur, WHITE, 0.6))
    for side in (-1, 1):
        pen.solid(x + side * r * 0.4, y - r * 0.15, r * 0.13, r * 0.15, (25, 20, 20))
    pen.solid(x, y + r * 0.32, r * 0.2, r * 0.14, (25, 20, 20))
    if rng.random() < 0.6:
        pen.ellipse(x, y + r * 0.88, r * 0.15, r * 0.22, (225, 105, 115))


def face(pen: Pen, rng: random.Random, x: float, y: float, r: float, skin: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(x + side * r * 0.92, y + r * 0.08, r * 0.16, r * 0.24, mixed(skin, BLACK, 0.08))
    pen.ellipse(x, y, r * 0.9, r * 1.15, skin)
    for side in (-1, 1):
        pen.solid(x + side * r * 0.36, y - r * 0.08, r * 0.12, r * 0.1, (35, 28, 28))
    pen.line([(x, y), (x - r * 0.1, y + r * 0.34), (x + r * 0.08, y + r * 0.36)], mixed(skin, BLACK, 0.35), 0.022)


def shoulders(pen: Pen, rng: random.Random, x: float, y: float, r: float) -> None:
    cloth = varied(rng, rng.choice([(60, 70, 105), (95, 55, 50), (55, 85, 65), (75, 70, 75)]), 14)
    pen.ellipse(x, y + r * 2.45, r * 1.9, r * 1.35, cloth)


def old_man(pen: Pen, rng: random.Random) -> None:
    wall(pen, rng)
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.38, 0.44), rng.uniform(0.22, 0.26)
    shoulders(pen, rng, x, y, r)
    white = varied(rng, (236, 234, 230), 8)
    pen.ellipse(x, y - r * 0.25, r * 1.08, r * 0.95, white)
    face(pen, rng, x, y + r * 0.05, r, varied(rng, rng.choice(SKINS), 8))
    beard = [
        (x - r * 0.88, y + r * 0.3),
        (x - r * 0.4, y + r * 0.5),
        (x + r * 0.4, y + r * 0.5),
        (x + r * 0.88, y + r * 0.3),
    ]
    length = rng.uniform(1.7, 2.2)
    pen.polygon([*beard, (x + r * 0.6, y + r * 1.3), (x, y + r * length), (x - r * 0.6, y + r * 1.3)], white)
    pen.line([(x - r * 0.26, y + r * 0.78), (x + r * 0.26, y + r * 0.78)], (150, 80, 75), 0.028)
    for side in (-1, 1):
        pen.line([(x + side * r * 0.16, y - r * 0.26), (x + side * r * 0.6, y - r * 0.3)], white, 0.035)


def man_wearing_a_hat(pen: Pen, rng: random.Random) -> None:
    wall(pen, rng)
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.48, 0.54), rng.uniform(0.21, 0.25)
    shoulders(pen, rng, x, y - r * 0.1, r)
    face(pen, rng, x, y, r, varied(rng, rng.choice(SKINS), 8))
    pen.line([(x - r * 0.26, y + r * 0.66), (x + r * 0.26, y + r * 0.66)], (150, 70, 70), 0.028)
    felt = varied(rng, rng.choice([(60, 42, 34), (35, 35, 42), (110, 75, 45), (70, 30, 35)]), 10)
    brim = y - r * 0.52
    pen.polygon(
        [(x - r * 0.82, brim), (x - r * 0.7, brim - r * 1.15), (x + r * 0.7, brim - r * 1.15), (x + r * 0.82, brim)],
        felt,
    )
    pen.ellipse(x, brim, r * 1.6, r * 0.22, felt)
    band = varied(rng, rng.choice([(190, 60, 50), (210, 180, 120), (90, 110, 150)]), 10)
    pen.polygon(
        [
            (x - r * 0.8, brim - r * 0.12),
            (x - r * 0.77, brim - r * 0.38),
            (x + r * 0.77, brim - r * 0.38),
            (x + r * 0.8, brim - r * 0.12),
        ],
        band,
    )


def house(pen: Pen, rng: random.Random, x: float, y: float, w: float) -> None:
    colour = varied(rng, rng.choice([(165, 95, 65), (190, 140, 90), (140, 75, 60), (175, 120, 110)]), 14)
    h = w * 0.75
    pen.polygon([(x - w / 2, y), (x - w / 2, y - h), (x + w / 2, y - h), (x + w / 2, y)], colour)
    pen.polygon([(x - w * 0.66, y - h), (x, y - h - w * 0.62), (x + w * 0.66, y - h)], WHITE)
    lit = (255, 220, 110)
    pen.polygon(
        [
            (x - w * 0.16, y - h * 0.3),
            (x - w * 0.16, y - h * 0.75),
            (x + w * 0.16, y - h * 0.75),
            (x + w * 0.16, y - h * 0.3),
        ],
        lit,
    )


def snowy_village(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        sky(pen, rng)
    else:
        pen.backdrop(varied(rng, (60, 75, 125)), varied(rng, (150, 150, 190)))
    foot = rng.uniform(0.55, 0.62)
    hill = varied(rng, (180, 195, 220), 10)
    pen.polygon(
        [(-0.1, foot), (rng.uniform(0.15, 0.4), foot - 0.28), (0.55, foot - 0.05), (0.8, foot - 0.22), (1.1, foot)],
        hill,
    )
    pen.polygon([(-0.1, foot), (1.1, foot - 0.03), (1.1, 1.1), (-0.1, 1.1)], varied(rng, (238, 242, 250), 6))
    house(pen, rng, rng.uniform(0.68, 0.8), foot + 0.12, rng.uniform(0.26, 0.31))
    house(pen, rng, rng.uniform(0.2, 0.3), foot + 0.18, rng.uniform(0.28, 0.34))
    if rng.random() < 0.7:
        house(pen, rng, rng.uniform(0.46, 0.54), foot + 0.33, rng.uniform(0.3, 0.36))


WRITEUP: dict[str, Callable[[Pen, random.Random], None]] = {
    "snowy mountain": snowy_mountain,
    "campfire": campfire,
    "rocket ship": rocket_ship,
    "skull": skull,
    "waterfall": waterfall,
    "dog": dog,
    "old man": old_man,
    "man wearing a hat": man_wearing_a_hat,
    "snowy village": snowy_village,
}
COLOURS: dict[str, Colour] = {
    "red": (215, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (248, 220, 50),
    "green": (50, 160, 70),
    "blue": (45, 85, 205),
    "purple": (135, 60, 165),
}


def plain_ground(pen: Pen, rng: random.Random) -> None:
    grey = varied(rng, rng.choice([(235, 232, 225), (200, 205, 212), (70, 72, 80), (45, 45, 52)]), 10)
    pen.backdrop(grey, mixed(grey, BLACK, 0.12))


def coloured(
    pen: Pen, rng: random.Random, colour: Colour, points: Callable[[float, float, float], list[Point]]
) -> None:
    plain_ground(pen, rng)
    r = rng.uniform(0.22, 0.36)
    x, y = rng.uniform(r + 0.04, 0.96 - r), rng.uniform(r + 0.04, 0.96 - r)
    shape = pen.at(points(x, y, r))
    pen.draw.polygon(shape, fill=varied(rng, colour, 10))  # a sketch keeps the colour: it is what the caption says
    if pen.sketching:
        pen.draw.line([*shape, shape[0], shape[1]], fill=pen.ink, width=round(pen.width), joint="curve")


def around(n: int, turn: float, inner: float = 1.0) -> Callable[[float, float, float], list[Point]]:
    """n corners on a circle; an inner radius makes a star of them."""

    def points(x: float, y: float, r: float) -> list[Point]:
        corners = n if inner == 1.0 else 2 * n
        angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
        radii = [r if i % 2 == 0 or inner == 1.0 else r * inner for i in range(corners)]
        return [(x + q * math.sin(a), y - q * math.cos(a)) for a, q in zip(angles, radii, strict=True)]

    return points


Shape = Callable[[Pen, random.Random, Colour], None]
SHAPES: dict[str, Shape] = {
    "circle": lambda pen, rng, colour: coloured(pen, rng, colour, around(40, 0)),
    "square": lambda pen, rng, colour: coloured(pen, rng, colour, around(4, math.pi / 4)),
    "triangle": lambda pen, rng, colour: coloured(pen, rng, colour, around(3, 0)),
    "star": lambda pen, rng, colour: coloured(pen, rng, colour, around(5, 0, 0.42)),
}
