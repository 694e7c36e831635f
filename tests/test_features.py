"""The cache of frozen features: what is run again, and what is not."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xmr.engine.media import image
from xmr.train import features
from xmr.train.encoders import ConvImage, TimmImage
from xmr.train.features import Features, cached_features
from xmr.train.words import NO_WORDS

CPU = torch.device("cpu")
ENCODER = ConvImage(ConvImage.Settings(size=8, channels=(4,)), 4, NO_WORDS)


def write_picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(256, size=(10, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_pictures(folder: Path, n_pictures: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [write_picture(folder / f"{number}.png", number) for number in range(n_pictures)]


def run(paths: Sequence[Path], cache: Path, encoder: Any = ENCODER) -> tuple[Features, list[str], int]:
    """Features, errors, and the number of files that were decoded."""
    decoded: list[int] = []
    found, errors = cached_features(encoder, "image", paths, cache, CPU, lambda done, total: decoded.append(done))
    return found, errors, len(decoded)


def pixels_of(paths: Sequence[Path]) -> Any:
    return np.stack([image.load(path, ENCODER.preprocessing).pieces[0].array for path in paths])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 5)


@pytest.fixture(scope="module")
def filled(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    assert run(pictures, cache)[2] == 5
    return cache


@pytest.fixture
def cache(filled: Path, tmp_path: Path) -> Path:
    """A cache that knows the five pictures."""
    return Path(shutil.copytree(filled, tmp_path / "cache"))


def test_a_second_call_decodes_nothing(pictures: list[Path], cache: Path) -> None:
    found, errors, n_decoded = run(pictures, cache)
    assert (errors, n_decoded) == ([], 0)
    np.testing.assert_array_equal(found.take(pictures), pixels_of(pictures))


def test_features_come_in_the_order_asked_for(pictures: list[Path], cache: Path) -> None:
    found, _, _ = run(pictures, cache)
    asked = [pictures[place] for place in (3, 0, 3)]
    np.testing.assert_array_equal(found.take(asked), pixels_of(asked))


def test_a_new_file_adds_a_part(pictures: list[Path], cache: Path, tmp_path: Path) -> None:
    paths = [*pictures, write_picture(tmp_path / "new.png", 9)]
    found, _, n_decoded = run(paths, cache)
    assert n_decoded == 1
    assert len(list(cache.glob("image-*/*.npy"))) == 2
    np.testing.assert_array_equal(found.take(paths), pixels_of(paths))


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_file_is_run_again(tmp_path: Path, change: str) -> None:
    paths = write_pictures(tmp_path / "pictures", 3)
    run(paths, tmp_path / "cache")
    if change == "content":
        write_picture(paths[1], 9)
    os.utime(paths[1], ns=(0, 0))
    found, _, n_decoded = run(paths, tmp_path / "cache")
    assert n_decoded == 1
    np.testing.assert_array_equal(found.take(paths), pixels_of(paths))
    assert run(paths, tmp_path / "cache")[2] == 0


def test_files_that_are_not_asked_for_are_not_there(pictures: list[Path], cache: Path) -> None:
    found, _, _ = run(pictures[:2], cache)
    assert [path in found for path in pictures] == [True, True, False, False, False]


def test_an_interrupted_run_goes_on(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_ROWS", 2)
    monkeypatch.setattr(features, "BATCH_SIZE", 2)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features(ENCODER, "image", pictures, tmp_path, CPU, interrupt)
    found, _, n_decoded = run(pictures, tmp_path)
    assert n_decoded == 3  # two were written, the third and fourth were not yet
    np.testing.assert_array_equal(found.take(pictures), pixels_of(pictures))


def test_rows_without_their_list_of_files_are_no_part(pictures: list[Path], cache: Path) -> None:
    for listing in cache.glob("image-*/*.json"):
        listing.unlink()  # as a run that was killed between the two writes
    found, _, n_decoded = run(pictures, cache)
    assert n_decoded == 5
    np.testing.assert_array_equal(found.take(pictures), pixels_of(pictures))


def test_an_unreadable_file_is_reported_and_dropped(pictures: list[Path], cache: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found, errors, n_decoded = run([*pictures, bad], cache)
    assert errors == [f"{bad}: no image that Pillow can read; convert it to JPEG or PNG"]
    assert (n_decoded, bad in found, pictures[0] in found) == (1, False, True)


def test_another_preprocessing_is_another_cache(pictures: list[Path], cache: Path) -> None:
    larger = ConvImage(ConvImage.Settings(size=12, channels=(4,)), 4, NO_WORDS)
    found, _, n_decoded = run(pictures, cache, larger)
    assert n_decoded == 5
    assert found.take(pictures).shape == (5, 12, 12, 3)
    assert run(pictures, cache)[2] == 0


def test_other_frozen_weights_are_another_cache(pictures: list[Path], tmp_path: Path) -> None:
    def network(seed: int) -> TimmImage:
        torch.manual_seed(seed)
        return TimmImage(TimmImage.Settings(model="test_resnet", weights="random", size=32), 4, NO_WORDS)

    first, _, _ = run(pictures, tmp_path, network(0))
    assert run(pictures, tmp_path, network(0))[2] == 0
    second, _, n_decoded = run(pictures, tmp_path, network(1))
    assert n_decoded == 5
    assert not np.allclose(first.take(pictures), second.take(pictures))


def test_what_learns_has_no_part_in_the_cache(pictures: list[Path], cache: Path) -> None:
    other = ConvImage(ConvImage.Settings(size=8, channels=(7, 7)), 9, NO_WORDS)
    assert run(pictures, cache, other)[2] == 0
