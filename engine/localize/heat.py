"""From what a model makes of each place and a query's embedding to heat, and from heat to a point and a box.

Heat is (h, w) over a picture or (t,) over a sound: one number a cell. Cells divide the picture that the network saw
evenly, so that cell (row, column) of (h, w) covers 1 / w of its width and 1 / h of its height.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Choice = Literal["magnitude", "value"]
Corner = Literal["centre", "corner"]
Area = tuple[float, float, float, float]  # x, y, width, height in pixels
Point = tuple[float, float]  # x, y in pixels

HOT_SHARE = 0.45  # of the way from the coldest to the hottest cell (Engilberge et al. 2018, its segmentation)


@dataclass(frozen=True)
class PictureHeat:
    """Where a query is in a picture, in pixels of the upright picture."""

    values: NDArray[np.float32]  # (h, w), one number a cell
    score: float  # cosine of the query and the whole, for there is a hottest cell in every picture
    size: tuple[int, int]  # of the picture: width, height
    area: Area  # of it, what the map covers
    point: Point  # of the hottest cell
    box: Area  # around the largest hot region
    heard_s: float | None = None  # when a query that is heard names the hottest cell


@dataclass(frozen=True)
class SoundHeat:
    """When a query is in a sound, in seconds from its start."""

    values: NDArray[np.float32]  # (t,), one number a cell
    score: float  # cosine of the query and the whole
    spans_s: NDArray[np.float64]  # (t, 2), start and end of each cell
    seconds: float  # of the hottest cell
    span_s: tuple[float, float]  # the longest hot stretch
    samples: NDArray[np.float32]  # (t,) of the sound, as the network heard it
    rate_hz: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz


Heat = PictureHeat | SoundHeat


def heat_of(
    places: NDArray[Any], query: NDArray[Any], n_dims: int | None = None, by: Choice = "magnitude"
) -> NDArray[np.float32]:
    """(dim, ...) of places and a query (dim,) -> (...): how much each place has of what is asked for.

    The sum over the query's n_dims largest dimensions, or all, of query times place. `magnitude` takes the largest
    |v_d| and weighs by v_d: with all dimensions the inner product, which ranking goes by. `value` is as published
    (DSVE-loc, Engilberge et al. 2018): the largest v_d, weighed by |v_d|, 180 of 2400 to point, 10 to segment.
    """
    if places.shape[:1] != query.shape:
        raise ValueError(f"places are {places.shape}, the query is {query.shape}; both begin with the dimensions")
    if n_dims is not None and n_dims < 1:
        raise ValueError(f"n_dims is {n_dims}; at least 1")
    size = np.abs(query) if by == "magnitude" else query
    chosen = np.argsort(-size, kind="stable")[:n_dims]
    weights = query[chosen] if by == "magnitude" else np.abs(query[chosen])
    heat: NDArray[np.float32] = np.tensordot(weights, places[chosen], axes=1).astype(np.float32)
    return heat


def hottest_cell(heat: NDArray[Any]) -> tuple[int, ...]:
    """Its place in the map; of several the first in reading order."""
    return tuple(int(place) for place in np.unravel_index(int(np.argmax(heat)), heat.shape))


def point_of(heat: NDArray[Any], area: Area, at: Corner = "centre") -> Point:
    """Where the hottest cell of (h, w) lies in the area that the map covers: its centre, or its top left corner.

    The corner is what DSVE-loc's published figures take.
    """
    row, column = hottest_cell(heat)
    shift = 0.5 if at == "centre" else 0.0
    x, y, width, height = area
    return x + width * (column + shift) / heat.shape[1], y + height * (row + shift) / heat.shape[0]


def box_of(heat: NDArray[Any], area: Area, share: float = HOT_SHARE) -> Area:
    """x, y, width, height around the largest connected region of hot cells of (h, w), in the area the map covers."""
    region = hot_region(heat, share)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    x, y, width, height = area
    cell_width, cell_height = width / heat.shape[1], height / heat.shape[0]
    left, top = columns[0] * cell_width, rows[0] * cell_height
    n_columns, n_rows = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    return float(x + left), float(y + top), float(n_columns * cell_width), float(n_rows * cell_height)


def hot_region(heat: NDArray[Any], share: float = HOT_SHARE) -> NDArray[np.bool_]:
    """(h, w): the largest connected region of the cells that reach `share` of the way from the coldest to the hottest.

    Cells meet at their sides. Of regions of one size the one with the hottest cell; where all cells are alike, all.
    """
    is_hot = heat - heat.min() >= share * (heat.max() - heat.min())
    regions, left = [], is_hot.copy()
    while left.any():
        seed = np.zeros_like(is_hot)
        seed[np.unravel_index(int(np.argmax(left)), left.shape)] = True
        regions.append(_grown(seed, is_hot))
        left &= ~regions[-1]
    return max(regions, key=lambda region: (int(region.sum()), float(heat[region].max())))


def _grown(region: NDArray[np.bool_], within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All that is connected with a region of (h, w)."""
    while True:
        padded = np.pad(region, 1)
        grown = region | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        grown &= within
        if (grown == region).all():
            return region
        region = grown
