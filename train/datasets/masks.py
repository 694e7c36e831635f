"""Masks as COCO writes them: polygons, and run lengths as lists of numbers or as a string of six bits a letter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.train.datasets.records import EXACT

Mask = NDArray[np.bool_]  # (height, width)

FIRST_LETTER, LAST_LETTER = 48, 111  # of run lengths in a string: letter - 48 is six bits
GOES_ON, IS_NEGATIVE = 0x20, 0x10


def segmentation_mask(segmentation: Any, height: int, width: int, where: str) -> Mask:
    """The pixels of an annotation's `segmentation`: a list of polygons, or {"counts", "size"}."""
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if size != [height, width]:
            raise XmrError(f"{where}: a mask of size {size}, the image has {[height, width]}; fetch the file again")
        return decode_runs(run_lengths(counts, where), height, width, where)
    if not isinstance(segmentation, list):
        raise XmrError(
            f"{where}: segmentation is {type(segmentation).__name__}, polygons or run lengths expected; "
            "fetch the file again"
        )
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in segmentation:
        mask |= fill_polygon(_vertices(polygon, where), height, width)
    return mask


def run_lengths(counts: Any, where: str) -> list[int]:
    """How many pixels are off, on, off … : as they stand, or out of COCO's string.

    Each number of the string takes as many letters as it needs, five bits a letter, the lowest first; a letter's sixth
    bit says that another follows, the highest of the last letter's five that the number is negative. From the fourth
    number on they are differences to the number two before.
    """
    if isinstance(counts, list) and all(isinstance(n, int) and n >= 0 for n in counts):
        return counts
    if not isinstance(counts, str):
        raise XmrError(f"{where}: counts are {str(counts)[:40]!r}, a list of numbers or a string expected")
    lengths: list[int] = []
    value = shift = 0
    for letter in counts:
        if not FIRST_LETTER <= ord(letter) <= LAST_LETTER:
            raise XmrError(f"{where}: {letter!r} in counts, which is no letter of run lengths; fetch the file again")
        bits = ord(letter) - FIRST_LETTER
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & GOES_ON:
            continue
        if bits & IS_NEGATIVE:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise XmrError(f"{where}: counts end in the middle of a number; fetch the file again")
    return lengths


def decode_runs(lengths: Sequence[int], height: int, width: int, where: str) -> Mask:
    """Off, on, off … pixels, down each column and then the next, as a mask."""
    total = sum(lengths)
    if total != height * width or min(lengths, default=0) < 0:
        raise XmrError(f"{where}: run lengths of {total} pixels, the image has {height * width}; fetch the file again")
    is_on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(is_on, lengths).reshape(width, height).T


def fill_polygon(vertices: NDArray[np.float64], height: int, width: int) -> Mask:
    """The pixels whose middle lies inside a polygon (k, 2) of x, y: an odd number of its sides is left of them."""
    sides = np.zeros((height, width + 1), dtype=np.int64)
    for (x, y), (next_x, next_y) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if y == next_y:
            continue
        first, last = sorted((y, next_y))
        rows = np.arange(max(0, int(np.ceil(first - 0.5))), min(height, int(np.ceil(last - 0.5))))
        crossings = x + (rows + 0.5 - y) * (next_x - x) / (next_y - y)
        np.add.at(sides, (rows, np.ceil(crossings - 0.5).clip(0, width).astype(int)), 1)
    is_inside: Mask = sides[:, :width].cumsum(axis=1) % 2 == 1
    return is_inside


def _vertices(polygon: Any, where: str) -> NDArray[np.float64]:
    """[x, y, x, y, …] -> (k, 2)."""
    is_numbers = isinstance(polygon, list) and all(
        isinstance(number, int | float) and abs(number) < EXACT for number in polygon
    )
    if not is_numbers or len(polygon) < 6 or len(polygon) % 2:
        raise XmrError(f"{where}: {str(polygon)[:40]} is no polygon of three points or more; fetch the file again")
    return np.array(polygon, dtype=np.float64).reshape(-1, 2)
