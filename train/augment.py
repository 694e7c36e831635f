"""Other views of a picture to train on: its mirror image, unless nothing is to be mirrored, and crops at random.

Crops are taken from the square that the encoder loads, with an area and an aspect drawn at random, and resized back.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

ASPECT = (3 / 4, 4 / 3)  # of a crop, width to height
VIEW_AREA = (0.5, 1.0)  # of the picture; what is seen once and cached should still show what the picture shows
RANDOM_AREA = (0.08, 1.0)  # as networks of ImageNet are trained (Szegedy et al. 2015)
TRIES = 10  # to draw a crop that fits in


def view(pixels: Pixels, number: int, rng: np.random.Generator, *, mirror: bool = True) -> Pixels:
    """One view of a picture, (h, w, 3) like it: 0 as it is, 1 mirrored, from 2 on a crop, mirrored half of the time.

    Where nothing is mirrored, 1 is a crop too.
    """
    if number == 0:
        return pixels
    return mirrored(pixels) if number == 1 and mirror else _crop(pixels, VIEW_AREA, rng, mirror)


def random_view(pixels: Pixels, rng: np.random.Generator, *, crops: bool = True, mirror: bool = True) -> Pixels:
    """A new crop of every picture, or the whole, mirrored half of the time: (n, h, w, 3) like the batch."""
    if crops:
        return np.stack([_crop(picture, RANDOM_AREA, rng, mirror) for picture in pixels])
    return np.stack([mirrored(picture) if mirror and rng.random() < 0.5 else picture for picture in pixels])


def mirrored(pixels: Pixels) -> Pixels:
    """(h, w, 3), left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _crop(pixels: Pixels, area: tuple[float, float], rng: np.random.Generator, mirror: bool) -> Pixels:
    height, width = pixels.shape[:2]
    box = _box(height, width, area, rng)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box=box)
    cropped = np.asarray(resized)
    return mirrored(cropped) if mirror and rng.random() < 0.5 else cropped


def _box(height: int, width: int, area: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels; the whole picture where no crop that was drawn fits into it."""
    for _ in range(TRIES):
        share = rng.uniform(*area) * height * width
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))  # as often wide as high
        crop_width, crop_height = round(np.sqrt(share * aspect)), round(np.sqrt(share / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            top = int(rng.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    return 0, 0, width, height
