"""Creatures and people: each stands out by its silhouette, and by what stays dark in a sketch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from diffsweep.world.paint import Colour, Pen, Point, mixed, varied
from diffsweep.world.subjects import BLACK, SKINS, WHITE, face, night, shoulders, sky, wall

INK: Colour = (28, 24, 28)


def ground(pen: Pen, rng: random.Random, y: float, colour: Colour) -> None:
    """A sky above a ground that starts at y; a sketch leaves both white."""
    sky(pen, rng)
    if not pen.sketching:
        pen.polygon([(-0.1, y), (1.1, y), (1.1, 1.1), (-0.1, 1.1)], varied(rng, colour))


def dark(pen: Pen, points: Sequence[Point], colour: Colour) -> None:
    """A polygon that stays dark in a sketch."""
    pen.draw.polygon(pen.at(points), fill=pen.ink if pen.sketching else colour)


def oval(x: float, y: float, rx: float, ry: float, turn: float) -> list[Point]:
    """An ellipse turned clockwise by an angle."""
    c, s = math.cos(turn), math.sin(turn)
    circle = [(rx * math.cos(math.pi * i / 14), ry * math.sin(math.pi * i / 14)) for i in range(28)]
    return [(x + u * c - v * s, y + u * s + v * c) for u, v in circle]


def cat(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        wall(pen, rng)
    else:
        ground(pen, rng, rng.uniform(0.55, 0.75), (110, 160, 90))
    fur = varied(rng, rng.choice([(225, 135, 55), (70, 68, 78), (205, 205, 212), (235, 210, 170)]), 12)
    x, y, r, side = rng.uniform(0.42, 0.54), rng.uniform(0.32, 0.4), rng.uniform(0.17, 0.21), rng.choice((-1, 1))
    x = x if side > 0 else 1 - x
    for thin in (0.0, 0.02):  # outlined dots, then their insides: one outlined tail
        for i in range(25):
            u, v = 0.4 + 1.45 * math.sin(math.pi * i / 34), 2.9 - i * 0.09
            pen.ellipse(x + side * u * r, y + v * r, r * 0.24 - thin, r * 0.24 - thin, fur, outline=not thin)
    pen.ellipse(x, y + r * 2.05, r * 1.1, r * 1.3, mixed(fur, BLACK, 0.12))
    for ear in (-1, 1):
        a, tip, b = (
            (x + ear * r * 1.0, y + r * 0.1),
            (x + ear * r * 1.05, y - r * 1.5),
            (x + ear * r * 0.1, y - r * 0.7),
        )
        pen.polygon([a, tip, b], mixed(fur, BLACK, 0.12))
    pen.ellipse(x, y, r * 1.15, r * 0.95, fur)
    pen.ellipse(x, y + r * 1.95, r * 0.5, r * 0.75, mixed(fur, WHITE, 0.65), outline=False)
    for eye in (-1, 1):
        pen.solid(x + eye * r * 0.48, y - r * 0.1, r * 0.22, r * 0.24, (120, 200, 90))
        pen.solid(x + eye * r * 0.48, y - r * 0.1, r * 0.1, r * 0.24, INK)
    dark(pen, [(x - r * 0.2, y + r * 0.3), (x + r * 0.2, y + r * 0.3), (x, y + r * 0.55)], (225, 120, 130))


def owl(pen: Pen, rng: random.Random) -> None:
    rng.choice((night, night, sky))(pen, rng)
    x, y, r = rng.uniform(0.42, 0.58), rng.uniform(0.34, 0.42), rng.uniform(0.23, 0.29)
    feathers = varied(rng, rng.choice([(145, 100, 62), (120, 115, 118), (190, 150, 100)]), 12)
    wing = mixed(feathers, BLACK, 0.35)
    foot = min(0.92, y + r * 1.95)
    pen.ellipse(x, y + r * 0.9, r * 0.95, r * 1.25, feathers)
    pen.ellipse(x, y + r * 1.1, r * 0.55, r * 0.9, mixed(feathers, WHITE, 0.55), outline=False)
    for side in (-1, 1):
        pen.polygon(oval(x + side * r * 0.85, y + r * 1.0, r * 0.3, r * 0.95, side * -0.15), wing)
    head = [(-1, -1.15), (-0.4, -0.8), (0.4, -0.8), (1, -1.15), (1.05, 0.1), (0.6, 0.65), (-0.6, 0.65), (-1.05, 0.1)]
    pen.polygon([(x + u * r, y + v * r) for u, v in head], feathers)
    gaze = rng.uniform(-0.08, 0.08) * r
    iris = varied(rng, (250, 200, 50), 8)
    for side in (-1, 1):
        pen.ellipse(x + side * r * 0.47, y - r * 0.1, r * 0.44, r * 0.44, iris)
        pen.solid(x + side * r * 0.47 + gaze, y - r * 0.1, r * 0.22, r * 0.22, INK)
    dark(pen, [(x - r * 0.16, y + r * 0.15), (x + r * 0.16, y + r * 0.15), (x, y + r * 0.6)], (235, 150, 50))
    dark(pen, [(-0.1, foot), (1.1, foot - 0.03), (1.1, foot + 0.04), (-0.1, foot + 0.07)], varied(rng, (88, 58, 38), 8))


def fish(pen: Pen, rng: random.Random) -> None:
    deep = rng.choice([(35, 95, 170), (40, 140, 165), (25, 60, 120)])
    pen.backdrop(varied(rng, mixed(deep, WHITE, 0.3)), varied(rng, deep))
    x, y, r, way = rng.uniform(0.44, 0.56), rng.uniform(0.42, 0.58), rng.uniform(0.27, 0.34), rng.choice((-1, 1))
    x += way * 0.08
    scales = varied(rng, rng.choice([(245, 130, 40), (245, 210, 60), (225, 70, 70), (190, 200, 215)]), 12)
    fin = mixed(scales, BLACK, 0.25)

    def at(*points: Point) -> list[Point]:
        return [(x + way * u * r, y + v * r) for u, v in points]

    pen.polygon(at((-0.75, 0), (-1.6, -0.65), (-1.35, 0), (-1.6, 0.65)), fin)
    pen.polygon(at((0.35, -0.5), (-0.35, -0.95), (-0.6, -0.35)), fin)
    pen.polygon(at((0.1, 0.5), (-0.35, 0.9), (-0.4, 0.4)), fin)
    pen.ellipse(x, y, r, r * 0.62, scales)
    if rng.random() < 0.5:
        for u, h in ((0.15, 0.57), (-0.4, 0.53)):
            pen.polygon(at((u + 0.1, -h), (u - 0.1, -h), (u - 0.1, h), (u + 0.1, h)), WHITE)
    (eye,) = at((0.58, -0.14))
    pen.ellipse(*eye, r * 0.17, r * 0.17, WHITE)
    pen.solid(*eye, r * 0.1, r * 0.1, INK)
    for i in range(rng.randint(1, 3)):
        pen.ellipse(x + way * r * (0.95 + i * 0.05), y - r * (0.6 + i * 0.35), 0.03, 0.03, mixed(deep, WHITE, 0.7))


def butterfly(pen: Pen, rng: random.Random) -> None:
    if rng.random() < 0.5:
        sky(pen, rng)
    else:
        pen.backdrop(varied(rng, (165, 205, 120)), varied(rng, (70, 130, 65)))
    x, y, r, turn = rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.56), rng.uniform(0.3, 0.38), rng.uniform(-0.2, 0.2)
    wing = varied(rng, rng.choice([(245, 140, 35), (60, 90, 220), (250, 220, 70), (205, 70, 160)]), 12)
    spot = rng.choice([WHITE, mixed(wing, BLACK, 0.55)])
    c, s = math.cos(turn), math.sin(turn)

    def at(*points: Point) -> list[Point]:
        return [(x + (u * c - v * s) * r, y + (u * s + v * c) * r) for u, v in points]

    for side in (-1, 1):
        low = [(0, 0.05), (0.75, 0.15), (0.95, 0.5), (0.7, 0.9), (0.35, 0.85), (0.1, 0.4)]
        high = [(0, 0.1), (0.15, -0.35), (0.7, -0.95), (1.15, -0.95), (1.25, -0.55), (1.0, 0.1), (0.5, 0.2)]
        pen.polygon(at(*((side * u, v) for u, v in low)), mixed(wing, BLACK, 0.2))
        pen.polygon(at(*((side * u, v) for u, v in high)), wing)
        for u, v, q in ((0.85, -0.5, 0.2), (0.6, 0.52, 0.15)):
            pen.ellipse(*at((side * u, v))[0], r * q, r * q, spot)
        pen.line(at((0, -0.4), (side * 0.12, -0.8), (side * 0.35, -1.1)), INK, 0.022)
    dark(pen, at(*oval(0, 0.08, 0.11, 0.62, 0)), INK)


def penguin(pen: Pen, rng: random.Random) -> None:
    ground(pen, rng, rng.uniform(0.6, 0.8), (232, 240, 250))
    x, y, r = rng.uniform(0.42, 0.58), rng.uniform(0.27, 0.32), rng.uniform(0.15, 0.19)
    coat, orange = varied(rng, rng.choice([(28, 30, 40), (45, 52, 75)]), 8), varied(rng, (245, 160, 40), 10)
    lean, lift = rng.uniform(-0.1, 0.1) * r, rng.uniform(0.15, 0.7)
    for side in (-1, 1):
        dark(pen, oval(x + side * r * (1.3 + lift * 0.4), y + r * 1.9, r * 0.3, r * 1.05, side * -lift), coat)
        pen.ellipse(x + side * r * 0.6, y + r * 3.5, r * 0.55, r * 0.2, orange)
    pen.solid(x, y + r * 1.95, r * 1.3, r * 1.6, coat)
    pen.solid(x + lean, y, r * 0.95, r, coat)
    pen.ellipse(x, y + r * 2.15, r * 0.9, r * 1.25, WHITE, outline=False)
    for side in (-1, 1):
        pen.ellipse(x + lean + side * r * 0.36, y + r * 0.02, r * 0.42, r * 0.48, WHITE, outline=False)
        pen.solid(x + lean + side * r * 0.36, y - r * 0.05, r * 0.15, r * 0.17, INK)
    beak = [(x + lean - r * 0.34, y + r * 0.25), (x + lean + r * 0.34, y + r * 0.25), (x + lean, y + r * 0.75)]
    dark(pen, beak, orange)


def rabbit(pen: Pen, rng: random.Random) -> None:
    ground(pen, rng, rng.uniform(0.5, 0.72), rng.choice([(95, 160, 75), (120, 175, 90), (165, 135, 95)]))
    fur = varied(rng, rng.choice([(240, 236, 232), (165, 125, 90), (150, 148, 155)]), 10)
    x, y, r = rng.uniform(0.42, 0.58), rng.uniform(0.49, 0.52), rng.uniform(0.145, 0.18)
    side, pink = rng.choice((-1, 1)), (235, 165, 170)
    pen.ellipse(x + side * r * 1.25, y + r * 2.1, r * 0.4, r * 0.4, WHITE)
    pen.ellipse(x, y + r * 1.6, r * 1.2, r * 1.1, mixed(fur, BLACK, 0.1))
    for ear in (-1, 1):
        turn = ear * rng.uniform(0.08, 0.3)
        root = (x + ear * r * (0.42 + abs(turn)), y - r * 1.45)
        pen.polygon(oval(*root, r * 0.33, r * 1.15, turn), fur)
        pen.polygon(oval(*root, r * 0.15, r * 0.8, turn), pink, outline=False)
    pen.ellipse(x, y, r, r * 0.92, fur)
    for paw in (-1, 1):
        pen.ellipse(x + paw * r * 0.6, y + r * 2.5, r * 0.55, r * 0.28, mixed(fur, WHITE, 0.3))
        pen.ellipse(x + paw * r * 0.22, y + r * 0.48, r * 0.3, r * 0.26, mixed(fur, WHITE, 0.5), outline=False)
        pen.solid(x + paw * r * 0.45, y - r * 0.12, r * 0.16, r * 0.19, INK)
    pen.solid(x, y + r * 0.28, r * 0.15, r * 0.11, (215, 100, 115))


def hipster_barista(pen: Pen, rng: random.Random) -> None:
    wall(pen, rng)
    x, y, r = rng.uniform(0.44, 0.56), rng.uniform(0.31, 0.34), rng.uniform(0.17, 0.2)
    shoulders(pen, rng, x, y - r * 0.3, r * 1.2)
    apron = varied(rng, rng.choice([(165, 100, 50), (50, 110, 100), (60, 60, 70)]), 10)
    pen.polygon([(x - r * 0.8, y + r * 1.4), (x + r * 0.8, y + r * 1.4), (x + r * 1.3, 1.1), (x - r * 1.3, 1.1)], apron)
    skin = varied(rng, rng.choice(SKINS), 8)
    face(pen, rng, x, y, r, skin)
    hair = varied(rng, rng.choice([(58, 38, 28), (32, 26, 26), (110, 60, 30)]), 8)
    beard = [(-0.92, 0.1), (-0.5, 0.5), (0.5, 0.5), (0.92, 0.1), (0.88, 1.0), (0.4, 1.6), (-0.4, 1.6), (-0.88, 1.0)]
    dark(pen, [(x + u * r, y + v * r) for u, v in beard], hair)
    pen.line([(x - r * 0.22, y + r * 0.78), (x + r * 0.22, y + r * 0.78)], (215, 140, 130), 0.03)
    for side in (-1, 1):
        (left, top), (right, low) = (
            (x + r * (side * 0.42 - 0.36), y - r * 0.42),
            (x + r * (side * 0.42 + 0.36), y + r * 0.3),
        )
        lens, rim = (pen.paper, pen.ink) if pen.sketching else (mixed(skin, WHITE, 0.55), INK)
        pen.draw.ellipse([*pen.at([(left, top), (right, low)])], fill=lens, outline=rim, width=3)
        pen.solid(x + side * r * 0.42, y - r * 0.06, r * 0.12, r * 0.12, INK)
    knit = varied(rng, rng.choice([(190, 60, 55), (225, 165, 50), (60, 120, 150), (90, 95, 105)]), 12)
    dome = [(x - r * math.cos(math.pi * i / 12), y - r * (0.6 + 0.95 * math.sin(math.pi * i / 12))) for i in range(13)]
    pen.polygon(dome, knit)
    cuff = [(-1.05, -0.85), (1.05, -0.85), (1.05, -0.42), (-1.05, -0.42)]
    pen.polygon([(x + u * r, y + v * r) for u, v in cuff], mixed(knit, BLACK, 0.25))
    cup, top, side = x + rng.uniform(-0.6, 0.6) * r, rng.uniform(0.69, 0.73), rng.choice((-1, 1))
    pen.ellipse(cup + side * 0.16, top + 0.11, 0.08, 0.08, WHITE)
    pen.ellipse(cup + side * 0.165, top + 0.11, 0.04, 0.04, apron)
    pen.polygon([(cup - 0.16, top), (cup + 0.16, top), (cup + 0.12, top + 0.25), (cup - 0.12, top + 0.25)], WHITE)
    pen.solid(cup, top + 0.01, 0.13, 0.035, (95, 58, 36))


CREATURES: dict[str, Callable[[Pen, random.Random], None]] = {
    "cat": cat,
    "owl": owl,
    "fish": fish,
    "butterfly": butterfly,
    "penguin": penguin,
    "rabbit": rabbit,
    "hipster barista": hipster_barista,
}
