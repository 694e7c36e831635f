"""Views of a picture to train on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xmr.train.augment import ASPECT, RANDOM_AREA, VIEW_AREA, _box, mirrored, random_view, view


def picture(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_first_view_is_the_picture_and_the_second_its_mirror_image() -> None:
    pixels, rng = picture(), np.random.default_rng(1)
    np.testing.assert_array_equal(view(pixels, 0, rng), pixels)
    np.testing.assert_array_equal(view(pixels, 1, rng), pixels[:, ::-1])


def test_a_further_view_is_a_crop_resized_back_and_mirrored_half_of_the_time() -> None:
    pixels = picture()
    n_mirrored = 0
    for seed in range(200):
        crop = Image.fromarray(pixels).resize(
            (32, 24), Image.Resampling.BICUBIC, box=_box(24, 32, VIEW_AREA, np.random.default_rng(seed))
        )
        seen = view(pixels, 2, np.random.default_rng(seed))
        is_mirrored = not np.array_equal(seen, crop)
        np.testing.assert_array_equal(mirrored(seen) if is_mirrored else seen, crop)
        n_mirrored += is_mirrored
    assert 80 < n_mirrored < 120


@pytest.mark.parametrize("area", [VIEW_AREA, RANDOM_AREA])
def test_crops_lie_inside_with_the_area_and_aspect_asked_for(area: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    boxes = np.array([_box(200, 200, area, rng) for _ in range(500)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes.max() <= 200
    # rounding to whole pixels moves both a little
    assert (widths * heights / 200**2 >= area[0] - 0.02).all()
    assert (widths / heights >= ASPECT[0] - 0.03).all()
    assert (widths / heights <= ASPECT[1] + 0.03).all()
    assert len({tuple(box) for box in boxes.tolist()}) > 400


def test_a_crop_that_never_fits_is_the_whole_picture() -> None:
    assert _box(2, 1000, (0.9, 1.0), np.random.default_rng(3)) == (0, 0, 1000, 2)


def test_the_same_seed_gives_the_same_view() -> None:
    pixels = picture()
    first, again, other = (view(pixels, 2, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_picture_of_a_batch_gets_a_crop_of_its_own() -> None:
    batch = np.stack([picture()] * 3)
    seen = random_view(batch, np.random.default_rng(6))
    assert (seen.shape, seen.dtype) == (batch.shape, np.uint8)
    assert len({row.tobytes() for row in seen}) == 3
    np.testing.assert_array_equal(seen, random_view(batch, np.random.default_rng(6)))


def test_a_view_leaves_the_picture_alone() -> None:
    pixels = picture()
    before = pixels.copy()
    for number in range(4):
        view(pixels, number, np.random.default_rng(7))
    np.testing.assert_array_equal(pixels, before)


def test_without_mirror_images_every_further_view_is_a_plain_crop() -> None:
    pixels = picture()
    for seed in range(50):
        for number in (1, 2):
            rng = np.random.default_rng(seed)
            crop = Image.fromarray(pixels).resize(
                (32, 24), Image.Resampling.BICUBIC, box=_box(24, 32, VIEW_AREA, np.random.default_rng(seed))
            )
            np.testing.assert_array_equal(view(pixels, number, rng, mirror=False), crop)
    batch = np.stack([pixels, pixels])
    whole = random_view(batch, np.random.default_rng(0), crops=False, mirror=False)
    np.testing.assert_array_equal(whole, batch)
