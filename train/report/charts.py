"""Charts as SVG text: lines, bars, a matrix and a cloud of points. Colours are classes that the page's style fills in.

Every chart is a picture to a screen reader, with a sentence of its own; what it shows in detail stands in `data-tip`s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 380, 240  # of a small chart, in the units of its viewBox
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40  # room around the plot
CHARACTER = 5.5  # width of one in a tick's name
N_TICKS = 5


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str  # a class of the style sheet, as c-image
    is_reference: bool = False  # dashed: what the others are compared with


@dataclass(frozen=True)
class Point:
    """One point of a cloud; its number is that of the item it stands for."""

    x: float
    y: float
    colour: str
    shape: str  # a key of SHAPES
    key: str  # points of one key belong together


@dataclass(frozen=True)
class Axis:
    """From numbers to places between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    is_whole: bool = False  # whether only whole numbers mean something

    def place(self, value: float) -> float:
        low, high, value = (math.log(number) if self.is_log else number for number in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        made = log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high)
        return [tick for tick in made if tick == int(tick)] if self.is_whole else made


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    is_log: bool = False,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Lines over a common x, a count, which `is_log` makes logarithmic; y from `y_range`, or what the lines need."""
    x = np.concatenate([np.asarray(line.x, dtype=float) for line in lines])
    y = np.concatenate([np.asarray(line.y, dtype=float) for line in lines])
    low, high = y_range or (float(y.min()), float(y.max()))
    across = Axis(float(x.min()), float(x.max()), LEFT, WIDTH - RIGHT, is_log, is_whole=True)
    up = Axis(low, high if high > low else low + 1, HEIGHT - BOTTOM, TOP)
    drawn = [_grid(across, up), _labels(x_label, y_label)]
    for line in sorted(lines, key=lambda line: not line.is_reference):  # what is compared with lies below
        path = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in zip(line.x, line.y, strict=True))
        style = f"line {line.colour}{' reference' if line.is_reference else ''}"
        drawn.append(f'<polyline class="{style}" points="{path}"><title>{escape(line.name)}</title></polyline>')
        if len(line.x) == 1:
            drawn.append(
                f'<circle class="dot {line.colour}" cx="{path.split(",")[0]}" cy="{path.split(",")[1]}" r="3"/>'
            )
    return _picture(title, WIDTH, HEIGHT, drawn)


def bar_chart(names: Sequence[str], shares: Sequence[float], *, title: str, x_label: str, colour: str) -> str:
    """A bar for each name, its height a share in percent; names that would run into each other are left out."""
    up = Axis(0, max(*shares, 1.0) * 1.12, HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(names)
    n_apart = 1 + int(CHARACTER * max(map(len, names)) / step)
    drawn = [_levels(up), _labels(x_label, "% of the queries")]
    for place, (name, share) in enumerate(zip(names, shares, strict=True)):
        left, top = LEFT + place * step, up.place(share)
        tip = escape(f"rank {name}: {share:.1f} % of the queries")
        is_named = (len(names) - 1 - place) % n_apart == 0
        drawn.append(
            f'<rect class="bar {colour}" x="{left + step * 0.1:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" '
            f'height="{up.start - top:.1f}" rx="2" data-tip="{tip}"/>'
            f"{_text('tick', left + step / 2, up.start + 14, name) if is_named else ''}"
        )
    return _picture(title, WIDTH, HEIGHT, drawn)


def matrix(values: ArrayLike, tips: Sequence[Sequence[str]], *, title: str, right: NDArray[np.bool_]) -> str:
    """(n, m) cells, darker where larger; those that are `right` answers have a frame."""
    cells = np.asarray(values, dtype=float)
    low, high = float(cells.min()), float(cells.max())
    side = 12
    drawn = []
    for (row, column), value in np.ndenumerate(cells):
        depth = (value - low) / ((high - low) or 1)
        frame = " right" if right[row, column] else ""
        drawn.append(
            f'<rect class="cell{frame}" x="{column * side + 0.5}" y="{row * side + 0.5}" width="{side - 1}" '
            f'height="{side - 1}" fill-opacity="{depth:.2f}" data-tip="{escape(tips[row][column])}"/>'
        )
    return _picture(title, cells.shape[1] * side, cells.shape[0] * side, drawn)


def cloud(points: Sequence[Point], *, title: str, width: int = 720, height: int = 520) -> str:
    """Points in a plane without axes; point i has `data-item` i."""
    margin = 14
    x, y = (np.array([getattr(point, of) for point in points]) for of in "xy")
    across = Axis(float(x.min()), float(x.max()), margin, width - margin)
    up = Axis(float(y.min()), float(y.max()), height - margin, margin)
    drawn = [
        f'<path class="point {point.colour}" d="{SHAPES[point.shape]}" data-item="{number}" '
        f'data-key="{escape(point.key)}" transform="translate({across.place(point.x):.1f} {up.place(point.y):.1f})"/>'
        for number, point in enumerate(points)
    ]
    return _picture(title, width, height, drawn)


# around (0, 0), so that a modality is told by more than its colour
SHAPES = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "triangle": "M0-5.4L5.2 3.8H-5.2z",
    "diamond": "M0-5.8L5.4 0L0 5.8L-5.4 0z",
    "square": "M-4-4H4V4H-4z",
}


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / N_TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; over less than two of them also 2 and 5 times each."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    factors = (1,) if high / low >= 100 else (1, 2, 5)
    return [factor * power for power in powers for factor in factors if low <= factor * power <= high]


def _grid(across: Axis, up: Axis) -> str:
    marks = [_text("tick", across.place(tick), up.start + 14, _short(tick)) for tick in across.ticks]
    return _levels(up) + "".join(marks)


def _levels(up: Axis) -> str:
    """The horizontal lines of a plot with their numbers."""
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up.place(tick):.1f}" y2="{up.place(tick):.1f}"/>'
        f"{_text('tick', LEFT - 6, up.place(tick) + 3.5, _short(tick), 'end')}"
        for tick in up.ticks
    )


def _labels(x_label: str, y_label: str) -> str:
    below = _text("axis", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label)
    beside = _text("axis", 0, 0, y_label)
    return f'{below}<g transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{beside}</g>'


def _text(kind: str, x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _picture(title: str, width: int, height: int, drawn: Sequence[str]) -> str:
    inside = "".join(drawn)
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{inside}</svg>'


def _short(number: float) -> str:
    """1200000 as 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
