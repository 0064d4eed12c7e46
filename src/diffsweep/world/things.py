"""Things and places: a pencil, a lighthouse, a coast and others; each drawing places its subject anew."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from diffsweep.world.paint import Colour, Pen, Point, mixed, varied
from diffsweep.world.subjects import BLACK, WHITE, around, plain_ground, sky, wall


def turned(x: float, y: float, angle: float, points: Sequence[Point]) -> list[Point]:
    """Points (along, across) an axis that leaves (x, y) at an angle."""
    c, s = math.cos(angle), math.sin(angle)
    return [(x + u * c - v * s, y + u * s + v * c) for u, v in points]


def dark(pen: Pen, points: Sequence[Point], colour: Colour) -> None:
    """A polygon that is all ink in a sketch."""
    pen.draw.polygon(pen.at(points), fill=pen.ink if pen.sketching else colour)


def below(pen: Pen, y: float, colour: Colour) -> None:
    """Ground or sea, from y down."""
    pen.polygon([(-0.1, y), (1.1, y), (1.1, 1.1), (-0.1, 1.1)], colour)


def meadow(pen: Pen, rng: random.Random, y: float) -> None:
    sky(pen, rng)
    below(pen, y, varied(rng, rng.choice([(110, 165, 80), (140, 170, 90), (150, 130, 90)]), 14))


def sea(pen: Pen, rng: random.Random, y: float) -> None:
    sky(pen, rng)
    below(pen, y, varied(rng, rng.choice([(35, 95, 165), (30, 115, 160), (45, 80, 150)]), 12))


def pencil(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.6:
        plain_ground(pen, rng)
    else:
        wall(pen, rng)
    length, h = rng.uniform(0.78, 0.95), rng.uniform(0.095, 0.125)
    towards = rng.choice([45, 135, 135, 225, 315, 90, 270]) + rng.uniform(-14, 14)
    angle = math.radians(towards)
    x = rng.uniform(0.45, 0.55) - math.cos(angle) * length / 2
    y = rng.uniform(0.47, 0.53) - math.sin(angle) * length / 2
    body = varied(rng, rng.choice([(245, 195, 40), (245, 195, 40), (210, 50, 45), (50, 95, 195)]), 14)
    cone, end = length * rng.uniform(0.24, 0.3), length * 0.86

    def part(a: float, b: float, colour: Colour) -> None:
        pen.polygon(turned(x, y, angle, [(a, -h), (b, -h), (b, h), (a, h)]), colour)

    part(cone, end, body)
    shade = [(cone, h * 0.3), (end, h * 0.3), (end, h), (cone, h)]
    if not pen.sketching:
        pen.polygon(turned(x, y, angle, shade), mixed(body, BLACK, 0.22))
    part(end - length * 0.07, end, (190, 195, 200))
    part(end, length, varied(rng, (240, 140, 150), 10))
    pen.polygon(turned(x, y, angle, [(0, 0), (cone, -h), (cone, h)]), varied(rng, (232, 196, 145), 10))
    tip = 0.42
    dark(pen, turned(x, y, angle, [(0, 0), (cone * tip, -h * tip), (cone * tip, h * tip)]), mixed(body, BLACK, 0.85))


def amalfi_coast(pen: Pen, rng: random.Random) -> None:
    sea(pen, rng, rng.uniform(0.34, 0.44))
    left = rng.random() < 0.5
    top, foot, reach = rng.uniform(0.04, 0.12), rng.uniform(0.86, 0.94), rng.uniform(0.6, 0.72)

    def seen(points: Sequence[Point]) -> list[Point]:
        return [(x if left else 1 - x, y) for x, y in points]

    rock = varied(rng, rng.choice([(95, 110, 62), (112, 104, 70), (78, 104, 66)]), 12)
    ridge = [(0.2, top), (0.3, top + 0.16), (reach * 0.68, 0.38), (reach * 0.8, 0.6), (reach, foot)]
    dark(pen, seen([(-0.1, top - 0.04), *ridge, (reach * 0.9, 1.1), (-0.1, 1.1)]), rock)
    paints = [(250, 245, 232), (250, 215, 95), (242, 150, 140), (245, 165, 75)]
    first = rng.randrange(4)
    high = 0.15 if pen.sketching else 0.24
    for row in range(4):
        right = reach * (0.6 + 0.1 * row) - rng.uniform(0, 0.05)
        for i in range(2 if row < 2 else 3):
            w, h, base = rng.uniform(0.13, 0.19), rng.uniform(0.12, high), 0.42 + row * 0.165 + rng.uniform(-0.03, 0.03)
            colour = varied(rng, paints[(first + row + 2 * i + i // 2) % 4], 8)
            walls = seen([(right - w, base), (right - w, base - h), (right, base - h), (right, base)])
            pen.polygon(walls, colour, outline=False)
            a, b = right - w * 0.62, right - w * 0.38
            if i % 2 == row % 2:
                dark(pen, seen([(a, base), (a, base - 0.075), (b, base - 0.075), (b, base)]), (95, 70, 60))
            right -= w + rng.uniform(0.02, 0.05)


def sailing_boat(pen: Pen, rng: random.Random) -> None:
    horizon = rng.uniform(0.56, 0.66)
    sea(pen, rng, horizon)
    x, y, s = rng.uniform(0.44, 0.56), rng.uniform(0.76, 0.82), rng.uniform(0.8, 1.1)
    side = rng.choice((-1, 1))
    sail = varied(rng, rng.choice([(250, 248, 240), (250, 248, 240), (225, 75, 60), (245, 200, 80)]), 8)
    hull = varied(rng, rng.choice([(130, 70, 40), (175, 45, 45), (35, 45, 75)]), 12)
    top, boom = y - 0.66 * s, y - 0.06 * s
    pen.line([(x, top), (x, y)], (80, 55, 40), 0.028)
    pen.polygon([(x + side * 0.02, top), (x + side * 0.32 * s, boom), (x + side * 0.02, boom)], sail)
    jib = [(x - side * 0.02, top + 0.1 * s), (x - side * 0.25 * s, boom), (x - side * 0.02, boom)]
    pen.polygon(jib, mixed(sail, WHITE, 0.5) if rng.random() < 0.5 else sail)
    keel = y + 0.13 * s
    dark(pen, [(x - 0.36 * s, y), (x + 0.36 * s, y), (x + 0.24 * s, keel), (x - 0.24 * s, keel)], hull)


def lighthouse(pen: Pen, rng: random.Random) -> None:
    sea(pen, rng, rng.uniform(0.66, 0.74))
    x, top, foot = rng.uniform(0.42, 0.58), rng.uniform(0.2, 0.27), rng.uniform(0.8, 0.86)
    w, shut = rng.uniform(0.12, 0.15), 0.64
    rock = varied(rng, rng.choice([(92, 86, 80), (110, 92, 74), (80, 84, 92)]), 10)
    pen.polygon(
        [(x - 0.42, 1.1), (x - 0.34, 0.9), (x - 0.2, foot - 0.06), (x + 0.2, foot - 0.04), (x + 0.4, 1.1)], rock
    )
    red = varied(rng, (210, 45, 45), 14)
    bands = 5
    for i in range(bands):
        a, b = (top + (foot - top) * j / bands for j in (i, i + 1))
        p, q = (w * (shut + (1 - shut) * j / bands) for j in (i, i + 1))
        band = [(x - p, a), (x + p, a), (x + q, b), (x - q, b)]
        if i % 2:
            pen.polygon(band, WHITE)
        else:
            dark(pen, band, red)
    lamp = w * 0.5
    pen.polygon([(x - lamp, top), (x - lamp, top - 0.09), (x + lamp, top - 0.09), (x + lamp, top)], (255, 225, 110))
    dark(pen, [(x - w * 0.75, top - 0.08), (x, top - 0.17), (x + w * 0.75, top - 0.08)], red)
    dark(
        pen,
        [
            (x - w * 0.9, top - 0.005),
            (x + w * 0.9, top - 0.005),
            (x + w * 0.9, top + 0.025),
            (x - w * 0.9, top + 0.025),
        ],
        (50, 45, 50),
    )


def tree(pen: Pen, rng: random.Random) -> None:
    meadow(pen, rng, rng.uniform(0.76, 0.84))
    x, foot, s = rng.uniform(0.43, 0.57), rng.uniform(0.88, 0.93), rng.uniform(0.8, 1.02)
    leaf = varied(rng, rng.choice([(45, 110, 50), (70, 130, 45), (35, 95, 65)]), 14)
    trunk = varied(rng, (100, 68, 42), 12)
    w = 0.055 * s
    if rng.random() < 0.3:
        dark(pen, [(x - w, foot), (x - w, foot - 0.2), (x + w, foot - 0.2), (x + w, foot)], trunk)
        for i in range(3):
            base, half = foot - (0.13 + 0.19 * i) * s, (0.34 - 0.07 * i) * s
            pen.polygon([(x - half, base), (x, base - 0.33 * s), (x + half, base)], mixed(leaf, BLACK, 0.15))
        return
    y, r = foot - 0.53 * s, 0.3 * s
    dark(pen, [(x - w * 1.4, foot), (x - w * 0.8, y), (x + w * 0.8, y), (x + w * 1.4, foot)], trunk)
    lobes, turn = rng.choice([7, 8, 9]), rng.uniform(0, 1)
    crown = []
    for i in range(80):
        a = math.tau * i / 80
        q = r * (0.9 + 0.2 * abs(math.sin(lobes * a / 2 + turn)))
        crown.append((x + 1.08 * q * math.cos(a), y + q * math.sin(a)))
    pen.polygon(crown, leaf)
    pen.ellipse(x - r * 0.25, y - r * 0.3, r * 0.5, r * 0.4, mixed(leaf, WHITE, 0.12), outline=False)


def sunflower(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.6:
        meadow(pen, rng, rng.uniform(0.74, 0.88))
    else:
        wall(pen, rng)
    x, y, r = rng.uniform(0.42, 0.58), rng.uniform(0.35, 0.41), rng.uniform(0.27, 0.33)
    green = varied(rng, (55, 120, 45), 12)
    foot = x + rng.uniform(-0.08, 0.08)
    pen.line([(x, y), (foot, 1.1)], green, 0.06)
    for side in (-1, 1):
        low = rng.uniform(0.86, 0.94)
        base = (x + foot) / 2
        pen.polygon(
            [(base, low), (base + side * 0.12, low - 0.13), (base + side * 0.3, low - 0.13), (base + side * 0.17, low)],
            green,
        )
    petals = around(rng.choice([11, 12, 13]), rng.uniform(0, 0.5), 0.68)
    pen.polygon(petals(x, y, r), varied(rng, rng.choice([(250, 205, 35), (248, 185, 30)]), 8))
    pen.solid(x, y, r * 0.48, r * 0.48, varied(rng, (88, 52, 28), 10))


def mushroom(pen: Pen, rng: random.Random) -> None:
    ground = rng.uniform(0.76, 0.84)
    if rng.random() < 0.5:
        meadow(pen, rng, ground)
    else:
        pen.backdrop(varied(rng, (70, 105, 70), 12), varied(rng, (45, 75, 50), 10))
        below(pen, ground, varied(rng, (92, 76, 50), 12))
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.5, 0.57), rng.uniform(0.33, 0.41)
    h, w = r * rng.uniform(0.95, 1.2), r * rng.uniform(0.3, 0.38)
    pale = varied(rng, (240, 230, 208), 8)
    foot = y + r * 0.95
    pen.polygon([(x - w, y), (x + w, y), (x + w * 1.3, foot), (x - w * 1.3, foot)], pale)
    cap = [(x + r * math.cos(a), y - h * math.sin(a)) for a in (math.pi * i / 24 for i in range(25))]
    cap += [(x - r * 0.6, y + r * 0.13), (x + r * 0.6, y + r * 0.13)]
    dark(pen, cap, varied(rng, (208, 38, 35), 14))
    tilt = rng.uniform(-0.1, 0.1)
    for u, v, q in ((-0.6, 0.26, 0.14), (0.05, 0.3, 0.17), (0.64, 0.22, 0.13), (-0.3, 0.68, 0.14), (0.38, 0.64, 0.15)):
        pen.ellipse(x + (u + tilt) * r, y - v * h, q * r, q * r, WHITE, outline=False)


def teapot(pen: Pen, rng: random.Random) -> None:
    wall(pen, rng)
    below(pen, rng.uniform(0.68, 0.76), varied(rng, rng.choice([(150, 105, 65), (215, 205, 190), (95, 70, 60)]), 12))
    x, y, r = rng.uniform(0.46, 0.54), rng.uniform(0.54, 0.6), rng.uniform(0.23, 0.28)
    side = rng.choice((-1, 1))
    clay = varied(rng, rng.choice([(242, 240, 232), (45, 95, 200), (210, 60, 45)]), 14)
    rim = mixed(clay, BLACK, 0.35) if rng.random() < 0.7 else varied(rng, (60, 45, 45), 10)

    def seen(points: Sequence[Point]) -> list[Point]:
        return [(x + side * u * r, y + v * r) for u, v in points]

    bow = [(-0.8 - 0.75 * math.sin(a), -0.05 - 0.55 * math.cos(a)) for a in (math.pi * i / 16 for i in range(17))]
    pen.line(seen(bow), rim, 0.07)
    pen.polygon(seen([(0.7, 0.45), (1.25, 0.1), (1.45, -0.65), (1.8, -0.7), (1.6, 0.3), (0.8, 0.8)]), clay)
    pen.polygon(seen([(-0.6, 0.7), (0.6, 0.7), (0.65, 1.0), (-0.65, 1.0)]), rim)
    pen.ellipse(x, y, r * 1.12, r * 0.92, clay)
    pen.ellipse(x, y - r * 0.8, r * 0.6, r * 0.22, rim)
    pen.solid(x, y - r * 1.1, r * 0.17, r * 0.17, rim)


def hot_air_balloon(pen: Pen, rng: random.Random) -> None:
    sky(pen, rng)
    if rng.random() < 0.5:
        below(pen, rng.uniform(0.92, 0.96), varied(rng, (95, 140, 80), 14))
    x, y, r = rng.uniform(0.42, 0.58), rng.uniform(0.33, 0.38), rng.uniform(0.24, 0.29)
    first, second = rng.choice(
        [((215, 45, 45), (250, 215, 70)), ((50, 85, 190), (248, 246, 240)), ((225, 90, 35), (95, 45, 130))]
    )
    first, second = varied(rng, first, 12), varied(rng, second, 6)
    neck = y + r * 1.42
    for i, share in enumerate((1.0, 0.66, 0.26)):
        round_ = [(x + share * r * math.cos(a), y - r * math.sin(a)) for a in (math.pi * j / 24 for j in range(25))]
        low = [(x - share * r * 0.88, y + r * 0.55), (x - share * r * 0.3, neck), (x + share * r * 0.3, neck)]
        shape = [*round_, *low, (x + share * r * 0.88, y + r * 0.55)]
        if i == 1:
            dark(pen, shape, second)
        else:
            pen.polygon(shape, first)
    w, top = r * 0.24, neck + r * 0.3
    for edge in (-1, 1):
        pen.line([(x + edge * r * 0.26, neck), (x + edge * w * 0.9, top)], (70, 50, 40), 0.02)
    dark(
        pen, [(x - w, top), (x + w, top), (x + w * 0.85, top + r * 0.36), (x - w * 0.85, top + r * 0.36)], (115, 75, 45)
    )


THINGS: dict[str, Callable[[Pen, random.Random], None]] = {
    "pencil": pencil,
    "amalfi coast": amalfi_coast,
    "sailing boat": sailing_boat,
    "lighthouse": lighthouse,
    "tree": tree,
    "sunflower": sunflower,
    "mushroom": mushroom,
    "teapot": teapot,
    "hot air balloon": hot_air_balloon,
}
