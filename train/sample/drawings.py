"""What each concept looks like: one function a concept, shapes from back to front."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from xmr.train.sample.pen import WHITE, Colour, Paint, Pen, Point, box, curve, mirrored, oval, polygon

Drawing = Callable[[Pen, Paint, Generator], None]

YELLOW: Colour = (250, 208, 60)
ORANGE: Colour = (240, 140, 40)
STEEL: Colour = (150, 156, 166)
WOOD: Colour = (150, 100, 60)


def bell(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.stroke(oval(0, -0.8, 0.16, 0.16), paint.dark, 0.1)
    pen.fill(oval(rng.uniform(-0.15, 0.15), 0.76, 0.18, 0.18), paint.dark)
    left: list[Point] = [(-0.86, 0.66), (-0.62, 0.42), (-0.53, 0), (-0.42, -0.42), (-0.2, -0.66)]
    pen.fill(curve(*mirrored(left)), paint.main)
    pen.stroke(curve((-0.32, -0.3), (-0.4, 0.05), (-0.46, 0.35), closed=False), paint.light, 0.1)
    pen.fill(box(-0.86, 0.54, 0.86, 0.72), paint.dark)


def rain(pen: Pen, paint: Paint, rng: Generator) -> None:
    slant = rng.uniform(0.1, 0.3)
    for row, column in np.ndindex(2, 4):
        x, y = -0.6 + 0.4 * column - 0.15 * row + rng.uniform(-0.05, 0.05), 0.25 + 0.42 * row
        drop = curve((x, y), (x - slant + 0.1, y + 0.2), (x - slant, y + 0.33), (x - slant - 0.07, y + 0.2))
        pen.fill(drop, paint.main, edged=False)
    _cloud(pen, paint.light)


def siren(pen: Pen, paint: Paint, rng: Generator) -> None:
    for angle in np.radians(np.arange(-165, 0, 30) + rng.uniform(-6, 6)):
        ray = polygon(*((r * np.cos(angle), 0.2 + r * np.sin(angle)) for r in (0.78, 1.1)))
        pen.stroke(ray, paint.main, 0.1)
    dome = [(-0.5, 0.5), *map(tuple, oval(0, 0.15, 0.5, 0.62, 180, 360).tolist()), (0.5, 0.5)]
    pen.fill(polygon(*dome), paint.main)
    pen.fill(oval(0, 0.15, 0.2, 0.26), YELLOW, edged=False)
    pen.stroke(oval(0, 0.15, 0.36, 0.46, 190, 240), paint.light, 0.09)
    pen.fill(box(-0.72, 0.5, 0.72, 0.88), paint.ink)


def car(pen: Pen, paint: Paint, rng: Generator) -> None:
    roof = rng.uniform(-0.6, -0.45)
    pen.fill(polygon((-0.62, 0), (-0.38, roof), (0.3, roof), (0.62, 0)), paint.main)
    pen.fill(polygon((-0.46, -0.02), (-0.3, roof + 0.12), (-0.06, roof + 0.12), (-0.06, -0.02)), WHITE)
    pen.fill(polygon((0.05, -0.02), (0.05, roof + 0.12), (0.24, roof + 0.12), (0.46, -0.02)), WHITE)
    body = curve((-0.98, 0.4), (-0.98, 0.1), (-0.6, -0.03), (0.6, -0.03), (0.98, 0.15), (0.98, 0.4))
    pen.fill(body, paint.main)
    pen.fill(oval(0.9, 0.16, 0.1, 0.09), YELLOW, edged=False)
    for x in (-0.52, 0.52):
        pen.fill(oval(x, 0.42, 0.27, 0.27), paint.ink)
        pen.fill(oval(x, 0.42, 0.12, 0.12), STEEL, edged=False)


def dog(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(curve((-0.66, 0.72), (-0.68, -0.3), (-0.4, -0.72), (0.4, -0.72), (0.68, -0.3), (0.5, 0.75)), paint.main)
    droop = rng.uniform(0.35, 0.6)
    for side in (-1, 1):
        ear = ((0.42, -0.75), (0.85, -0.62), (0.98, 0), (0.85, droop), (0.62, droop - 0.2), (0.56, -0.3))
        pen.fill(curve(*((side * x, y) for x, y in ear)), paint.dark)
        _eye(pen, paint, side * 0.27, -0.22, 0.13)
    pen.fill(curve((-0.1, 0.6), (0.1, 0.6), (0.15, 0.92), (0, 1.0), (-0.15, 0.92)), (235, 110, 125))
    pen.fill(oval(0, 0.42, 0.42, 0.33), paint.light)
    pen.fill(oval(0, 0.22, 0.19, 0.13), paint.ink)
    pen.stroke(polygon((0, 0.3), (0, 0.52)), paint.ink, 0.06)
    pen.stroke(curve((-0.25, 0.52), (-0.1, 0.6), (0, 0.52), (0.1, 0.6), (0.25, 0.52), closed=False), paint.ink, 0.06)


def wave(pen: Pen, paint: Paint, rng: Generator) -> None:
    for y, colour in ((-0.3, paint.light), (0.15, paint.main), (0.6, paint.dark)):
        shift = rng.uniform(-0.12, 0.12)
        crest: list[Point] = []
        for x in (-0.65 + shift, shift, 0.65 + shift):
            crest += [(x - 0.3, y + 0.16), (x - 0.12, y - 0.12), (x + 0.1, y - 0.24), (x + 0.26, y - 0.1)]
            crest.append((x + 0.12, y))
        top = curve((-1, y + 0.2), *crest, (1, y + 0.2), closed=False)
        pen.fill(np.concatenate([top, polygon((1, y + 0.4), (-1, y + 0.4))]), colour, edged=False)
        pen.stroke(top, WHITE, 0.07)


def clock(pen: Pen, paint: Paint, rng: Generator) -> None:
    for x in (-0.5, 0.5):
        pen.stroke(polygon((x, 0.6), (x * 1.4, 0.98)), paint.dark, 0.14)
    pen.fill(oval(0, 0, 0.92, 0.92), paint.main)
    pen.fill(oval(0, 0, 0.72, 0.72), WHITE)
    for angle in np.radians(np.arange(0, 360, 30)):
        mark = polygon(*((r * np.cos(angle), r * np.sin(angle)) for r in (0.56, 0.64)))
        pen.stroke(mark, paint.ink, 0.06)
    for reach, width in ((0.34, 0.1), (0.52, 0.07)):
        angle = rng.uniform(0, 2 * np.pi)
        pen.stroke(polygon((0, 0), (reach * np.cos(angle), reach * np.sin(angle))), paint.ink, width)
    pen.fill(oval(0, 0, 0.08, 0.08), paint.main, edged=False)


def bird(pen: Pen, paint: Paint, rng: Generator) -> None:
    for x in (-0.1, 0.15):
        pen.stroke(polygon((x, 0.5), (x + 0.04, 0.92)), ORANGE, 0.07)
    pen.fill(polygon((-0.45, 0.1), (-1, rng.uniform(-0.35, 0.1)), (-0.92, 0.4), (-0.4, 0.45)), paint.dark)
    pen.fill(polygon((0.66, -0.55), (1.0, -0.42), (0.66, -0.28)), ORANGE)
    body: list[Point] = [(-0.6, 0.2), (-0.2, -0.2), (0.15, -0.55), (0.45, -0.75), (0.74, -0.5)]
    pen.fill(curve(*body, (0.6, 0.1), (0.2, 0.55), (-0.3, 0.5)), paint.main)
    lift = rng.uniform(-0.45, 0.1)
    pen.fill(curve((0.28, 0), (-0.1, lift - 0.1), (-0.75, lift), (-0.3, 0.32), (0.1, 0.3)), paint.light)
    _eye(pen, paint, 0.46, -0.45, 0.1)


def drum(pen: Pen, paint: Paint, rng: Generator) -> None:
    side = np.concatenate([oval(0, 0.6, 0.8, 0.3, 0, 180), oval(0, -0.15, 0.8, 0.3, 180, 360)])
    pen.fill(side, paint.main)
    zigzag = [(x, 0.2 if i % 2 else 0.72) for i, x in enumerate(np.linspace(-0.78, 0.78, 8).tolist())]
    pen.stroke(polygon(*((x, y + 0.18 * (1 - x * x)) for x, y in zigzag)), paint.light, 0.07)
    pen.fill(oval(0, -0.15, 0.8, 0.3), WHITE)
    for side_of in (-1, 1):
        tip, end = (side_of * 0.15, -0.2), (side_of * rng.uniform(0.6, 0.85), rng.uniform(-1, -0.8))
        pen.stroke(polygon(tip, end), WOOD, 0.11)
        pen.fill(oval(*tip, 0.11, 0.11), WOOD)


def train(pen: Pen, paint: Paint, rng: Generator) -> None:
    for i in range(int(rng.integers(1, 4))):
        pen.fill(oval(0.45 - 0.3 * i, -0.82 - 0.06 * i, 0.14 + 0.04 * i, 0.12), WHITE)
    pen.fill(polygon((0.4, -0.2), (0.34, -0.62), (0.72, -0.62), (0.66, -0.2)), paint.ink)
    pen.fill(box(-0.3, -0.25, 0.85, 0.4), paint.main)
    pen.fill(box(-0.88, -0.6, -0.25, 0.4), paint.main)
    pen.fill(box(-0.74, -0.45, -0.4, -0.08), WHITE)
    pen.fill(box(-0.98, -0.72, -0.15, -0.58), paint.dark)
    pen.fill(box(-0.92, 0.36, 0.9, 0.52), paint.dark)
    pen.fill(polygon((0.86, 0.2), (1.02, 0.7), (0.8, 0.7)), paint.ink)
    for x, radius in ((-0.58, 0.28), (0.1, 0.2), (0.58, 0.2)):
        pen.fill(oval(x, 0.85 - radius, radius, radius), paint.ink)
        pen.fill(oval(x, 0.85 - radius, radius / 2.5, radius / 2.5), paint.light, edged=False)


def phone(pen: Pen, paint: Paint, rng: Generator) -> None:
    left: list[Point] = [(0, 0.88), (-0.8, 0.85), (-0.5, -0.1), (-0.28, -0.35)]
    pen.fill(curve(*mirrored(left)), paint.main)
    pen.fill(oval(0, 0.32, 0.36, 0.36), WHITE)
    for angle in np.radians(np.arange(0, 360, 45) + rng.uniform(0, 45)):
        pen.fill(oval(0.24 * np.cos(angle), 0.32 + 0.24 * np.sin(angle), 0.06, 0.06), paint.ink, edged=False)
    pen.fill(oval(0, 0.32, 0.1, 0.1), paint.dark, edged=False)
    rest = rng.uniform(-0.62, -0.5)
    handle = curve((-0.78, rest + 0.16), (-0.5, rest - 0.1), (0.5, rest - 0.1), (0.78, rest + 0.16), closed=False)
    pen.stroke(handle, paint.edge, 0.32)
    pen.stroke(handle, paint.dark, 0.24)
    for x in (-0.76, 0.76):
        pen.fill(oval(x, rest + 0.22, 0.24, 0.17), paint.dark)


def fire(pen: Pen, paint: Paint, rng: Generator) -> None:
    for left, right in ((0.72, 0.98), (0.98, 0.72)):
        pen.stroke(polygon((-0.7, left), (0.7, right)), WOOD, 0.17)
    tip, lick = rng.uniform(-0.15, 0.15), rng.uniform(-0.5, -0.25)
    outer: list[Point] = [(0, 0.78), (-0.55, 0.6), (-0.68, 0.15), (-0.5, lick), (-0.3, 0), (-0.2, -0.5), (tip, -1)]
    outer += [(0.22, -0.5), (0.32, -0.1), (0.52, lick + 0.1), (0.68, 0.2), (0.52, 0.62)]
    pen.fill(curve(*outer), paint.main)
    inner: list[Point] = [(0, 0.74), (-0.36, 0.52), (-0.3, 0.1), (-0.12, 0.15), (tip / 2, -0.4), (0.15, 0.1)]
    pen.fill(curve(*inner, (0.32, 0.15), (0.36, 0.5)), YELLOW)
    pen.fill(oval(0, 0.52, 0.14, 0.22), WHITE, edged=False)


def wind(pen: Pen, paint: Paint, rng: Generator) -> None:
    for y, start, stop, up in ((-0.25, -0.9, 0.35, True), (0.1, -1, 0.65, True), (0.42, -0.75, 0.2, False)):
        stop += rng.uniform(-0.1, 0.1)
        radius = rng.uniform(0.22, 0.3)
        turns = np.radians(np.linspace(90, -190, 24) if up else np.linspace(-90, 190, 24))
        centre = y - radius if up else y + radius
        shrink = np.linspace(1, 0.6, 24)
        curl = np.stack([stop + radius * shrink * np.cos(turns), centre + radius * shrink * np.sin(turns)], axis=1)
        path = np.concatenate([polygon((start, y)), curl])
        pen.stroke(path, paint.edge, 0.2)
        pen.stroke(path, paint.main, 0.13)


def cat(pen: Pen, paint: Paint, rng: Generator) -> None:
    for side in (-1, 1):
        pen.fill(polygon((side * 0.75, -0.05), (side * 0.68, -0.95), (side * 0.12, -0.5)), paint.main)
        pen.fill(polygon((side * 0.62, -0.3), (side * 0.6, -0.72), (side * 0.32, -0.48)), (240, 160, 170), edged=False)
    pen.fill(oval(0, 0.12, 0.8, 0.7), paint.main)
    for x in (-0.2, 0, 0.2):
        pen.stroke(polygon((x, -0.52), (x * 0.8, -0.3)), paint.dark, 0.09)
    slit = rng.uniform(0.03, 0.09)
    for side in (-1, 1):
        pen.fill(oval(side * 0.33, 0, 0.17, 0.14), (200, 230, 90))
        pen.fill(oval(side * 0.33, 0, slit, 0.13), paint.ink, edged=False)
        for y in (0.28, 0.4, 0.52):
            pen.stroke(polygon((side * 0.3, 0.35 + (y - 0.4) / 3), (side * 0.98, y)), paint.ink, 0.035)
        pen.stroke(oval(side * 0.12, 0.38, 0.12, 0.14, 0, 180), paint.ink, 0.05)
    pen.fill(polygon((-0.11, 0.22), (0.11, 0.22), (0, 0.36)), (235, 120, 140))


def frog(pen: Pen, paint: Paint, rng: Generator) -> None:
    for side in (-1, 1):
        pen.fill(oval(side * 0.72, 0.62, 0.28, 0.3), paint.dark)
    pen.fill(oval(0, 0.2, 0.92, 0.62), paint.main)
    look = rng.uniform(-0.08, 0.08)
    for side in (-1, 1):
        pen.fill(oval(side * 0.5, -0.46, 0.3, 0.32), paint.main)
        pen.fill(oval(side * 0.5, -0.5, 0.2, 0.2), WHITE)
        pen.fill(oval(side * 0.5 + look, -0.5, 0.1, 0.1), paint.ink, edged=False)
        pen.fill(oval(side * 0.09, 0.02, 0.035, 0.035), paint.ink, edged=False)
    pen.fill(oval(0, 0.56, 0.55, 0.22), paint.light, edged=False)
    pen.stroke(curve((-0.75, 0.14), (-0.4, 0.36), (0, 0.43), (0.4, 0.36), (0.75, 0.14), closed=False), paint.ink, 0.07)


def helicopter(pen: Pen, paint: Paint, rng: Generator) -> None:
    reach = rng.uniform(0.75, 1.0)
    pen.stroke(polygon((0.1 - reach, -0.72), (0.1 + reach, -0.72)), paint.main, 0.1)
    pen.stroke(polygon((0.1, -0.72), (0.1, -0.4)), paint.main, 0.08)
    pen.fill(polygon((-0.2, -0.15), (-1, -0.18), (-1, -0.02), (-0.2, 0.22)), paint.main)
    pen.fill(polygon((-0.85, -0.1), (-1.05, -0.5), (-0.9, -0.5), (-0.7, -0.1)), paint.dark)
    pen.fill(curve((-0.38, 0), (-0.1, -0.42), (0.4, -0.42), (0.78, 0), (0.72, 0.35), (0.1, 0.42)), paint.main)
    pen.fill(curve((0.26, -0.28), (0.46, -0.24), (0.66, 0.05), (0.3, 0.08)), WHITE)
    for x in (-0.1, 0.45):
        pen.stroke(polygon((x, 0.38), (x, 0.68)), paint.main, 0.07)
    pen.stroke(curve((-0.45, 0.7), (0.6, 0.7), (0.85, 0.6), closed=False), paint.main, 0.09)


def door(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(box(-0.66, -1, 0.66, 1), WHITE)
    pen.fill(box(-0.52, -0.86, 0.52, 1), paint.main)
    split = rng.uniform(-0.15, 0.2)
    for left, right in ((-0.4, -0.06), (0.06, 0.4)):
        pen.fill(box(left, -0.72, right, split - 0.06), paint.dark)
        pen.fill(box(left, split + 0.12, right, 0.86), paint.dark)
    pen.fill(oval(0.4, split + 0.03, 0.09, 0.09), YELLOW)


def piano(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(polygon((-0.9, -0.1), (-0.75, -0.95), (0.1, -0.9), (0.45, -0.45), (0.9, -0.3), (0.9, -0.1)), paint.dark)
    for x in (-0.78, 0.78):
        pen.fill(box(x - 0.08, 0.4, x + 0.08, 0.98), paint.dark)
    pen.fill(box(-0.95, -0.12, 0.95, 0.5), paint.main)
    pen.fill(box(-0.85, 0, 0.85, 0.4), WHITE)
    edges = np.linspace(-0.85, 0.85, int(rng.integers(8, 11)))
    for i, x in enumerate(edges[1:-1].tolist()):
        pen.stroke(polygon((x, 0), (x, 0.4)), paint.ink, 0.03)
        if i % 7 not in (2, 6):
            pen.fill(box(x - 0.055, 0, x + 0.055, 0.25), paint.ink, edged=False)


def whistle(pen: Pen, paint: Paint, rng: Generator) -> None:
    hang = rng.uniform(-0.25, 0.1)
    cord = curve((-0.75, 0), (-0.95, -0.4), (-0.6, -0.8), (0, -0.85), (hang + 0.4, -0.95), closed=False)
    pen.stroke(cord, paint.accent, 0.08)
    pen.fill(polygon((-0.4, -0.4), (1, -0.4), (1, 0), (0.1, 0.1)), paint.main)
    pen.fill(oval(-0.25, 0.18, 0.6, 0.6), paint.main)
    pen.fill(oval(-0.25, 0.18, 0.3, 0.3), paint.dark)
    pen.fill(polygon((0.2, -0.42), (0.5, -0.42), (0.3, -0.18)), paint.ink)
    pen.stroke(oval(-0.25, 0.18, 0.45, 0.45, 150, 210), paint.light, 0.08)


def bee(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(polygon((-0.72, 0.1), (-1.02, 0.2), (-0.72, 0.36)), paint.ink)
    pen.fill(oval(-0.05, 0.22, 0.75, 0.46), paint.main)
    for x in (-0.5, -0.17, 0.16):
        half = 0.4 * np.sqrt(1 - ((x + 0.05) / 0.75) ** 2)
        pen.stroke(curve((x, 0.22 - half), (x + 0.06, 0.22), (x, 0.22 + half), closed=False), paint.ink, 0.16)
    pen.fill(oval(0.66, 0.12, 0.3, 0.3), paint.ink)
    pen.fill(oval(0.74, 0.04, 0.09, 0.09), WHITE, edged=False)
    for x in (0.62, 0.85):
        pen.stroke(curve((0.68, -0.1), (x, -0.4), (x + 0.1, -0.52), closed=False), paint.ink, 0.06)
    spread = rng.uniform(0.1, 0.35)
    for lean in (-spread - 0.15, spread - 0.05):
        pen.fill(curve((0.05, -0.18), (lean - 0.22, -0.6), (lean, -0.98), (lean + 0.25, -0.65)), (226, 240, 250))


def owl(pen: Pen, paint: Paint, rng: Generator) -> None:
    for x in (-0.25, 0.25):
        pen.fill(oval(x, 0.95, 0.2, 0.1), ORANGE)
    left: list[Point] = [(-0.35, 0.92), (-0.65, 0.5), (-0.66, -0.2), (-0.7, -0.95), (-0.3, -0.72)]
    pen.fill(curve(*mirrored(left)), paint.main)
    pen.fill(oval(0, 0.45, 0.4, 0.45), paint.light, edged=False)
    for row, column in np.ndindex(3, 3):
        pen.stroke(oval(0.22 * (column - 1), 0.25 + 0.2 * row, 0.08, 0.08, 0, 180), paint.dark, 0.05)
    pupil = rng.uniform(0.1, 0.17)
    for side in (-1, 1):
        pen.fill(curve((side * 0.62, 0), (side * 0.78, 0.4), (side * 0.6, 0.78), (side * 0.48, 0.4)), paint.dark)
        pen.fill(oval(side * 0.3, -0.35, 0.29, 0.29), WHITE)
        pen.fill(oval(side * 0.27, -0.35, pupil, pupil), paint.ink, edged=False)
    pen.fill(polygon((-0.12, -0.22), (0.12, -0.22), (0, 0.06)), ORANGE)


def thunder(pen: Pen, paint: Paint, rng: Generator) -> None:
    kink = rng.uniform(-0.08, 0.08)
    bolt: list[Point] = [(-0.1, -0.2), (0.38, -0.2), (0.15 + kink, 0.22), (0.4, 0.22), (-0.22, 1.02)]
    pen.fill(polygon(*bolt, (-0.02 + kink, 0.42), (-0.3, 0.42)), paint.main)
    _cloud(pen, (86, 88, 104))


def keyboard(pen: Pen, paint: Paint, rng: Generator) -> None:
    plug = (rng.uniform(0.3, 0.7), -1)
    pen.stroke(curve((0.2, -0.45), (0.1, -0.75), (0.4, -0.85), plug, closed=False), paint.main, 0.07)
    pen.fill(box(-1, -0.5, 1, 0.55), paint.main)
    for row, column in np.ndindex(3, 8):
        x, y = -0.83 + 0.225 * column + 0.04 * (row % 2), -0.38 + 0.22 * row
        pen.fill(box(x, y, x + 0.15, y + 0.14), WHITE, edged=False)
    pen.fill(box(-0.45, 0.29, 0.45, 0.42), WHITE, edged=False)
    for x in (-0.83, 0.62):
        pen.fill(box(x, 0.29, x + 0.22, 0.42), paint.accent, edged=False)


def kettle(pen: Pen, paint: Paint, rng: Generator) -> None:
    for x in (0.72, 0.92):
        drift = rng.uniform(-0.1, 0.1)
        pen.stroke(curve((x, -0.3), (x + 0.1, -0.5), (x - 0.05, -0.7), (x + drift, -0.95), closed=False), WHITE, 0.09)
    pen.stroke(oval(-0.05, -0.35, 0.5, 0.5, 190, 350), paint.main, 0.12)
    pen.fill(polygon((0.4, 0.4), (0.78, -0.2), (0.98, -0.12), (0.55, 0.65)), paint.main)
    left: list[Point] = [(-0.62, 0.85), (-0.72, 0.4), (-0.5, -0.15), (-0.2, -0.32)]
    pen.fill(curve(*((x - 0.05, y) for x, y in mirrored(left))), paint.main)
    pen.fill(curve((-0.4, -0.22), (-0.2, -0.38), (0.1, -0.38), (0.3, -0.22)), paint.dark)
    pen.fill(oval(-0.05, -0.45, 0.09, 0.09), paint.ink)
    pen.stroke(curve((-0.45, 0), (-0.58, 0.3), (-0.55, 0.6), closed=False), paint.light, 0.1)


def duck(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(curve((0.8, -0.52), (1.05, -0.42), (1.02, -0.28), (0.75, -0.28)), ORANGE)
    body: list[Point] = [(-0.9, -0.15), (-0.5, 0.02), (0.1, 0.02), (0.25, -0.15), (0.65, -0.05), (0.72, 0.35)]
    pen.fill(curve(*body, (0.45, 0.7), (-0.5, 0.7), (-0.85, 0.3)), paint.main)
    pen.fill(oval(0.5, -0.45, 0.38, 0.38), paint.main)
    pen.fill(curve((-0.6, 0.15), (0.1, 0.12), (0.25, 0.3), (-0.1, 0.52), (-0.5, 0.45)), paint.light)
    _eye(pen, paint, 0.6, -0.53, 0.09)
    ripple = rng.uniform(0.05, 0.12)
    water = polygon(*((x, 0.76 + ripple * np.sin(9 * x)) for x in np.linspace(-1, 1, 40).tolist()))
    pen.stroke(water, (70, 140, 215), 0.13)


def trumpet(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.stroke(oval(-0.05, 0.18, 0.42, 0.25), paint.edge, 0.17)
    pen.stroke(oval(-0.05, 0.18, 0.42, 0.25), paint.main, 0.11)
    pen.fill(box(-0.92, -0.13, 0.4, 0.03), paint.main)
    pen.fill(curve((0.3, -0.12), (0.7, -0.22), (1.0, -0.6), (1.02, 0.5), (0.7, 0.12), (0.3, 0.02)), paint.main)
    pen.fill(oval(0.98, -0.05, 0.1, 0.5), paint.dark)
    pen.fill(box(-1.02, -0.16, -0.88, 0.06), paint.dark)
    for x in (-0.3, -0.05, 0.2):
        press = rng.uniform(-0.42, -0.3)
        pen.fill(box(x - 0.07, press, x + 0.07, 0.35), paint.light)
        pen.fill(box(x - 0.1, press - 0.07, x + 0.1, press), paint.ink)


def cow(pen: Pen, paint: Paint, rng: Generator) -> None:
    for side in (-1, 1):
        horn = ((0.35, -0.62), (0.62, -0.72), (0.66, -1.0), (0.8, -0.72), (0.55, -0.45))
        pen.fill(curve(*((side * x, y) for x, y in horn)), (236, 226, 196))
        pen.fill(curve((side * 0.45, -0.4), (side * 0.95, -0.45), (side * 0.98, -0.2), (side * 0.5, -0.15)), paint.dark)
    left: list[Point] = [(-0.3, 0.7), (-0.46, 0.3), (-0.58, -0.4), (-0.3, -0.72)]
    pen.fill(curve(*mirrored(left)), WHITE)
    patch = rng.uniform(-0.05, 0.15)
    spot = curve((-0.56, -0.4), (-0.3, -0.7), (-0.05, -0.6), (-0.1, -0.1), (-0.4, patch), (-0.52, -0.1))
    pen.fill(spot, paint.main, edged=False)
    pen.fill(curve((0.3, -0.7), (0.52, -0.5), (0.52, -0.2), (0.3, -0.35)), paint.main, edged=False)
    for side in (-1, 1):
        _eye(pen, paint, side * 0.28, -0.25, 0.11)
    pen.fill(oval(0, 0.62, 0.56, 0.34), (240, 170, 170))
    for side in (-1, 1):
        pen.fill(oval(side * 0.22, 0.54, 0.09, 0.11), paint.ink, edged=False)
    pen.stroke(oval(0, 0.66, 0.25, 0.15, 20, 160), paint.ink, 0.05)


def guitar(pen: Pen, paint: Paint, rng: Generator) -> None:
    pen.fill(box(-0.09, -0.85, 0.09, 0.1), WOOD)
    pen.fill(polygon((-0.14, -1.05), (0.14, -1.05), (0.12, -0.78), (-0.12, -0.78)), paint.ink)
    waist = rng.uniform(0.28, 0.36)
    left: list[Point] = [(-0.2, 1.0), (-0.6, 0.75), (-0.55, 0.42), (-waist, 0.2), (-0.44, -0.05), (-0.3, -0.25)]
    pen.fill(curve(*mirrored(left)), paint.main)
    pen.fill(oval(0, 0.22, 0.19, 0.19), paint.ink)
    pen.fill(box(-0.24, 0.66, 0.24, 0.76), paint.dark)
    for x in (-0.05, 0.0, 0.05):
        pen.stroke(polygon((x, -0.85), (x, 0.7)), paint.light, 0.025)


def _cloud(pen: Pen, colour: Colour) -> None:
    puffs = ((-0.55, -0.2, 0.36), (0.55, -0.2, 0.34), (-0.2, -0.5, 0.42), (0.28, -0.42, 0.38))
    for x, y, radius in puffs:
        pen.fill(oval(x, y, radius, radius), colour)
    pen.fill(oval(0, -0.22, 0.72, 0.27), colour, edged=False)


def _eye(pen: Pen, paint: Paint, x: float, y: float, radius: float) -> None:
    pen.fill(oval(x, y, radius, radius), WHITE)
    pen.fill(oval(x, y, radius * 0.6, radius * 0.6), paint.ink, edged=False)
