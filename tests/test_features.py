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
from xmr.train.augment import mirrored
from xmr.train.batches import Store
from xmr.train.encoders import ConvImage, TimmImage, TimmMap
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


def test_a_setting_of_the_trunk_without_weights_is_another_cache(pictures: list[Path], tmp_path: Path) -> None:
    def network(n_levels: int) -> TimmImage:
        torch.manual_seed(0)
        settings = TimmImage.Settings(model="test_resnet", weights="random", size=32, n_levels=n_levels)
        return TimmImage(settings, 4, NO_WORDS)

    few, more = (run(pictures, tmp_path, network(n_levels)) for n_levels in (1, 2))
    assert (few[2], more[2], run(pictures, tmp_path, network(2))[2]) == (5, 5, 0)
    assert few[0].take(pictures).shape[1] < more[0].take(pictures).shape[1]


def test_what_learns_has_no_part_in_the_cache(pictures: list[Path], cache: Path) -> None:
    other = ConvImage(ConvImage.Settings(size=8, channels=(7, 7)), 9, NO_WORDS)
    assert run(pictures, cache, other)[2] == 0


VIEWED = ConvImage(ConvImage.Settings(size=8, channels=(4,), views=4), 4, NO_WORDS)


def with_views(paths: Sequence[Path], cache: Path, encoder: Any = VIEWED, n_views: int = 4) -> Features:
    found, _ = cached_features(encoder, "image", paths, cache, CPU, lambda done, total: None, n_views=n_views)
    return found


def view_of(found: Features, paths: Sequence[Path], number: int) -> Any:
    return found.take(paths, np.full(len(paths), number))


def test_the_first_view_is_the_picture_the_second_its_mirror_image_the_others_are_crops(
    pictures: list[Path], tmp_path: Path
) -> None:
    found, pixels = with_views(pictures, tmp_path), pixels_of(pictures)
    np.testing.assert_array_equal(found.take(pictures), pixels)
    np.testing.assert_array_equal(view_of(found, pictures, 0), pixels)
    np.testing.assert_array_equal(view_of(found, pictures, 1), pixels[:, :, ::-1])
    crops = [view_of(found, pictures, number) for number in (2, 3)]
    assert [crop.shape for crop in crops] == [pixels.shape] * 2
    assert not np.array_equal(crops[0], crops[1])


def test_each_row_may_have_a_view_of_its_own(pictures: list[Path], tmp_path: Path) -> None:
    found = with_views(pictures, tmp_path)
    chosen = np.array([3, 0, 1, 2, 1])
    expected = [view_of(found, [path], number)[0] for path, number in zip(pictures, chosen, strict=True)]
    np.testing.assert_array_equal(found.take(pictures, chosen), np.stack(expected))


def test_a_pictures_views_do_not_depend_on_the_run_or_on_the_others(pictures: list[Path], tmp_path: Path) -> None:
    together = with_views(pictures, tmp_path / "together")
    later = with_views(pictures[:2], tmp_path / "apart")
    later = with_views([pictures[4], *pictures], tmp_path / "apart")
    for number in range(4):
        np.testing.assert_array_equal(view_of(later, pictures, number), view_of(together, pictures, number))
    again = with_views(pictures, tmp_path / "together")
    np.testing.assert_array_equal(view_of(again, pictures, 3), view_of(together, pictures, 3))


def test_another_number_of_views_is_another_cache(pictures: list[Path], tmp_path: Path) -> None:
    for n_views in (1, 2, 4):
        assert with_views(pictures, tmp_path, n_views=n_views).take(pictures).shape == (5, 8, 8, 3)
    assert len(list(tmp_path.glob("image-*"))) == 3


def small_network(views: int = 1) -> TimmImage:
    torch.manual_seed(0)
    settings = TimmImage.Settings(model="test_resnet", weights="random", size=32, views=views)
    return TimmImage(settings, 4, NO_WORDS)


def test_features_of_a_view_are_those_of_the_picture_seen_so(pictures: list[Path], tmp_path: Path) -> None:
    encoder = small_network(2)
    found = with_views(pictures, tmp_path, encoder, 2)
    pixels = np.stack([image.load(path, encoder.preprocessing).pieces[0].array for path in pictures])
    for number, seen in enumerate((pixels, np.stack([mirrored(picture) for picture in pixels]))):
        with torch.inference_mode():
            expected = encoder.trunk(torch.from_numpy(seen)).numpy()
        np.testing.assert_allclose(view_of(found, pictures, number), expected, rtol=1e-3, atol=1e-4)


def test_of_a_trunk_that_learns_the_pictures_are_kept_once_whatever_it_has_learned(
    pictures: list[Path], tmp_path: Path
) -> None:
    encoder = small_network(3)
    encoder.thaw("layer4")
    found = with_views(pictures, tmp_path, encoder, 3)
    assert (found.n_views, found.take(pictures).shape) == (3, (5, 32, 32, 3))
    for parameter in encoder.trunk.parameters():
        parameter.data += 1
    assert run(pictures, tmp_path, encoder)[2] == 0
    assert len(list(tmp_path.glob("image-*"))) == 1


def drawn(store: Store, paths: Sequence[Path], seed: int) -> Any:
    return store.training_inputs("image", paths, np.random.default_rng(seed)).numpy()


def test_training_draws_a_view_of_each_picture_and_evaluation_sees_the_first(
    pictures: list[Path], tmp_path: Path
) -> None:
    found = with_views(pictures, tmp_path)
    store = Store({"image": found})
    views = [view_of(found, pictures, number) for number in range(4)]
    seen = set()
    for seed in range(20):
        for row, pixels in enumerate(drawn(store, pictures, seed)):
            [number] = [number for number in range(4) if np.array_equal(pixels, views[number][row])]
            seen.add((row, number))
        np.testing.assert_array_equal(drawn(store, pictures, seed), drawn(store, pictures, seed))
        np.testing.assert_array_equal(store.inputs("image", pictures).numpy(), views[0])
    assert seen == {(row, number) for row in range(5) for number in range(4)}


def test_a_trunk_that_learns_sees_new_crops_in_training_alone(pictures: list[Path], tmp_path: Path) -> None:
    found = Features(2)  # as of a trunk that learns: the pictures themselves
    pixels = pixels_of(pictures)
    found.add_part({str(path): row for row, path in enumerate(pictures)}, pixels)
    store = Store({"image": found}, learning=frozenset({"image"}))
    crops = [drawn(store, pictures, seed) for seed in range(6)]
    assert all(crop.shape == pixels.shape and crop.dtype == np.uint8 for crop in crops)
    assert len({crop.tobytes() for crop in crops}) == 6
    np.testing.assert_array_equal(drawn(store, pictures, 0), crops[0])
    np.testing.assert_array_equal(store.inputs("image", pictures).numpy(), pixels)


def test_one_view_is_no_augmentation(pictures: list[Path], cache: Path) -> None:
    found, _, _ = run(pictures, cache)
    for learning in (frozenset[str](), frozenset({"image"})):
        store = Store({"image": found}, learning=learning)
        np.testing.assert_array_equal(drawn(store, pictures, 0), pixels_of(pictures))


def test_maps_are_kept_in_half_the_room(pictures: list[Path], tmp_path: Path) -> None:
    settings = TimmMap.Settings(model="test_resnet", weights="random", size=32, channels=4)
    encoder = TimmMap(settings, 4, NO_WORDS)
    found = with_views(pictures, tmp_path, encoder, 1)
    [kept] = [np.load(path) for path in tmp_path.glob("image-*/*.npy")]
    assert kept.dtype == np.float16
    taken = found.take(pictures)
    assert taken.dtype == np.float32
    pixels = np.stack([image.load(path, encoder.preprocessing).pieces[0].array for path in pictures])
    with torch.inference_mode():
        np.testing.assert_allclose(taken, encoder.trunk(torch.from_numpy(pixels)).numpy(), rtol=2e-3, atol=2e-3)
