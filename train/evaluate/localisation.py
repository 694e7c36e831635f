"""Localisation: the pointing game and semantic segmentation of DSVE-loc (Engilberge et al. 2018), on arrays.

Each is given in two ways. As published the point is the corner of a cell and the average precision leaves out the first
hit; corrected the point is the cell's middle and every hit counts. And each for two choices of a query's dimensions:
the published share of its largest, or all of them, as ranking goes by.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from xmr.engine.localize import HOT_SHARE, Area, Corner, heat_of, point_of

POINTING_SHARE, SEGMENTATION_SHARE = 180 / 2400, 10 / 2400  # of a query's dimensions, DSVE-loc's code
THRESHOLDS = (0.3, 0.4, 0.5)  # of the intersection over union
DIMS = ("all", "published")  # of a query
AT: tuple[Corner, ...] = ("centre", "corner")  # of a cell
SIDE = 200  # pixels of the squares that masks are compared on

Heats = Sequence[NDArray[Any]]


def pointing_game(
    heats: Heats, boxes: ArrayLike, sizes: ArrayLike, areas: Sequence[Area] | None = None
) -> dict[str, float]:
    """How often the hottest cell points into a phrase's box, in percent of the phrases.

    heats (n) of (h, w), one a phrase; boxes (n, 4) x, y, width, height and sizes (n, 2) width, height, in pixels of the
    picture; areas (n) what each map covers of it, by default all. `accuracy` points with the cell's middle,
    `accuracy_faithful` with its top left corner (as DSVE-loc does); `centre` is how often the picture's centre lies in
    the box, `random` how often a point drawn at random would. A point on the box's edge is outside.
    """
    boxes, sizes = np.asarray(boxes, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    n = len(heats)
    if not n or boxes.shape != (n, 4) or sizes.shape != (n, 2):
        raise ValueError(f"{n} heats, boxes {boxes.shape} and sizes {sizes.shape}; one or more, (n, 4) and (n, 2)")
    covered = areas or [(0.0, 0.0, width, height) for width, height in sizes.tolist()]
    points = [[point_of(heat, area, at) for at in AT] for heat, area in zip(heats, covered, strict=True)]
    return pointing_figures(points, boxes, sizes)


def pointing_figures(points: ArrayLike, boxes: ArrayLike, sizes: ArrayLike) -> dict[str, float]:
    """The figures of `pointing_game` from (n, 2, 2) points x, y: of each phrase the cell's middle and its corner."""
    points, boxes, sizes = (np.asarray(numbers, dtype=np.float64) for numbers in (points, boxes, sizes))
    start = boxes[:, :2].clip(min=0)
    of_box = (np.minimum(boxes[:, :2] + boxes[:, 2:], sizes) - start).clip(min=0).prod(axis=1)
    return {
        "accuracy": _percent_inside(points[:, 0], boxes),
        "accuracy_faithful": _percent_inside(points[:, 1], boxes),
        "centre": _percent_inside(sizes / 2, boxes),
        "random": round(100 * float((of_box / sizes.prod(axis=1)).mean()), 4),
    }


def segmentation(
    heats: Heats,
    masks: Heats,
    categories: Sequence[str],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    share: float = HOT_SHARE,
    side: int = SIDE,
) -> dict[str, Any]:
    """How well the hot part of a heat map covers a category's pixels, over the images that show it.

    heats (n) of (h, w), masks (n) of bool (height, width) over the same area, categories (n) names: one an image and
    category that is in it. Heat and mask are brought to `side` pixels; hot is what is above `share` of the way from
    coldest to hottest. `IoU` is the mean intersection over union in percent; `mAP@t` the mean over categories of the
    percent whose IoU is above t; `mAP@t_faithful` has one hit less in each category, which is what the published
    step integration comes to; `whole` the same figures for all of the picture. A category of no image is in neither.
    """
    if not len(heats) == len(masks) == len(categories) > 0:
        raise ValueError(
            f"{len(heats)} heats, {len(masks)} masks, {len(categories)} categories; one or more, of one number"
        )
    overlaps = [overlap(heat, mask, share, side) for heat, mask in zip(heats, masks, strict=True)]
    return segmentation_figures(overlaps, categories, thresholds)


def segmentation_figures(
    overlaps: ArrayLike, categories: Sequence[str], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Any]:
    """The figures of `segmentation` from (n, 2): of each mask its `overlap`."""
    overlaps, names = np.asarray(overlaps, dtype=np.float64), np.asarray(categories)
    of_category = {str(name): overlaps[names == name] for name in dict.fromkeys(categories)}
    of_hot, of_whole = ({name: rows[:, column] for name, rows in of_category.items()} for column in (0, 1))
    by_category = {
        name: {"n_images": len(values), **_mean_figures({name: values}, thresholds)} for name, values in of_hot.items()
    }
    whole = _mean_figures(of_whole, thresholds)
    return {**_mean_figures(of_hot, thresholds), "whole": whole, "categories": by_category}


def overlap(heat: NDArray[Any], mask: NDArray[Any], share: float = HOT_SHARE, side: int = SIDE) -> tuple[float, float]:
    """Intersection over union of a mask with the hot part of (h, w), and with all of it."""
    shown = _nearest(mask, side)
    return intersection_over_union(hot_pixels(heat, share, side), shown), float(shown.mean())


def hot_pixels(heat: NDArray[Any], share: float = HOT_SHARE, side: int = SIDE) -> NDArray[np.bool_]:
    """(h, w) -> (side, side): where the heat, in 256 steps and resized bilinearly, is hot (DSVE-loc's code)."""
    low, high = float(heat.min()), float(heat.max())
    steps = ((heat - low) * (255 / (high - low or 1))).clip(0, 255) + 0.5
    resized = np.asarray(Image.fromarray(steps.astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR))
    pixels = resized.astype(np.float64)
    is_hot: NDArray[np.bool_] = pixels > share * (pixels.max() - pixels.min())
    return is_hot


def intersection_over_union(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Of two masks; 0 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def heats_of(places: NDArray[Any], query: NDArray[Any], share: float) -> dict[str, NDArray[np.float32]]:
    """By each choice of DIMS: all dimensions of the query, or a share of them, at least one, the largest by value."""
    n_dims = max(1, round(share * len(query)))
    return {"all": heat_of(places, query), "published": heat_of(places, query, n_dims, "value")}


def _percent_inside(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> float:
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return round(100 * float(((points > start) & (points < end)).all(axis=1).mean()), 4)


def _mean_figures(overlaps: Mapping[str, NDArray[np.float64]], thresholds: Sequence[float]) -> dict[str, float]:
    """Of the IoU of every image that shows each category."""
    figures = {"IoU": round(100 * float(np.mean([values.mean() for values in overlaps.values()])), 4)}
    for threshold in thresholds:
        hits = [(int((values > threshold).sum()), len(values)) for values in overlaps.values()]
        figures[f"mAP@{threshold:g}"] = round(100 * float(np.mean([n_hits / n for n_hits, n in hits])), 4)
        faithful = [max(0, n_hits - 1) / n for n_hits, n in hits]
        figures[f"mAP@{threshold:g}_faithful"] = round(100 * float(np.mean(faithful)), 4)
    return figures


def _nearest(mask: NDArray[Any], side: int) -> NDArray[np.bool_]:
    picture = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    return np.asarray(picture.resize((side, side), Image.Resampling.NEAREST)) > 0
