"""A pen on a picture: shapes in the drawing's own coordinates, turned, stretched and placed on the canvas.

A drawing lives in the square from -1 to 1, x to the right and y downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = NDArray[np.float64]  # (n, 2)

WHITE: Colour = (250, 250, 246)


@dataclass(frozen=True)
class Paint:
    """The colours of one drawing."""

    main: Colour  # the one that captions name
    dark: Colour  # its shadow side
    light: Colour  # its lit side
    ink: Colour  # eyes, keys, thin lines
    edge: Colour  # around every shape
    accent: Colour  # anything else


@dataclass(frozen=True)
class Pen:
    """Where and how large a drawing stands on its canvas."""

    canvas: ImageDraw.ImageDraw
    x: float  # of the drawing's centre, in pixels of the canvas
    y: float
    scale: tuple[float, float]  # pixels per unit, across and down; negative across: mirrored
    turn: float  # radians
    edge: Colour
    edge_width: float  # units

    def fill(self, points: Points, colour: Colour, *, edged: bool = True) -> None:
        """Fill a closed shape and run the edge colour around it."""
        corners = self._pixels(points)
        self.canvas.polygon(corners, fill=colour)
        if edged and self.edge_width > 0:
            self._line([*corners, corners[0], corners[1]], self.edge, self.edge_width)

    def stroke(self, points: Points, colour: Colour, width: float = 0.08) -> None:
        """Draw a line with round ends through the points."""
        path = self._pixels(points)
        self._line(path, colour, width)
        radius = width * self.scale[1] / 2
        for x, y in (path[0], path[-1]):
            self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def _pixels(self, points: Points) -> list[Point]:
        across, down = (points * self.scale).T
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        xs, ys = self.x + across * cos - down * sin, self.y + across * sin + down * cos
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    def _line(self, path: list[Point], colour: Colour, width: float) -> None:
        self.canvas.line(path, fill=colour, width=max(1, round(width * self.scale[1])), joint="curve")


def polygon(*corners: Point) -> Points:
    """The corners themselves."""
    return np.array(corners, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """A rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def oval(x: float, y: float, across: float, down: float, start: float = 0, stop: float = 360) -> Points:
    """An ellipse of two radii, or its arc in degrees: 0 points right, 90 down."""
    angles = np.radians(np.linspace(start, stop, 25))
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def curve(*knots: Point, closed: bool = True) -> Points:
    """A smooth line through the knots (a Catmull-Rom spline)."""
    ring = np.array(knots, dtype=np.float64)
    padded = np.concatenate([ring[-1:], ring, ring[:2]] if closed else [ring[:1], ring, ring[-1:]])
    t = np.linspace(0, 1, 5, endpoint=False)[:, None]
    pieces = [_between(padded[i : i + 4], t) for i in range(len(padded) - 3)]
    return np.concatenate(pieces if closed else [*pieces, ring[-1:]])


def mirrored(half: Sequence[Point]) -> list[Point]:
    """The left half of a symmetrical outline, from the bottom up, completed by its right half."""
    return [*half, *((-x, y) for x, y in reversed(half) if x != 0)]


def _between(knots: Points, t: Points) -> Points:
    before, start, stop, after = knots
    cubic = 3 * (start - stop) + after - before
    square = 2 * before - 5 * start + 4 * stop - after
    return np.asarray(start + t / 2 * (stop - before + t * (square + t * cubic)))
