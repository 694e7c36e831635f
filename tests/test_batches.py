"""Batches of pairs: a function of the seed and the step, every pair in its turn."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.batches import Batches, Store, id_numbers, load_store, make_batches
from xmr.train.config import load_config
from xmr.train.datasets import Row
from xmr.train.model import AlignedModel
from xmr.train.settings import TimmSettings, TrainConfig
from xmr.train.words import Words

ROWS = [
    Row(str(number), "train", files={"image": Path(f"{number}.png")}, captions=tuple(f"{number}.{c}" for c in range(3)))
    for number in range(10)
]


def image_text(batch_size: int = 3, seed: int = 0) -> Batches:
    return Batches(("image", "text"), ROWS, np.arange(len(ROWS)), batch_size, seed)


def pair_at(batches: Batches, step: int) -> tuple[list[Any], list[Any]]:
    contents = batches.at(step)[0]
    return contents["image"], contents["text"]


def epoch_of(batches: Batches, epoch: int) -> list[Path]:
    steps = range(epoch * batches.n_steps, (epoch + 1) * batches.n_steps)
    return [image for step in steps for image in batches.at(step)[0]["image"]]


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    straight = image_text()
    expected = [straight.at(step) for step in range(12)]
    for step in (11, 0, 7, 7, 3, 10):
        contents, ids = image_text().at(step)
        assert contents == expected[step][0]
        assert torch.equal(ids, expected[step][1])
        assert straight.at(step)[0] == expected[step][0]


def test_another_seed_draws_another_order() -> None:
    assert epoch_of(image_text(seed=1), 0) != epoch_of(image_text(seed=0), 0)


def test_two_kinds_of_the_same_rows_are_drawn_apart() -> None:
    text_image = Batches(("text", "image"), ROWS, np.arange(len(ROWS)), 3, 0)
    assert text_image.at(0)[0]["image"] != image_text().at(0)[0]["image"]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_pair_comes_once_an_epoch(epoch: int) -> None:
    assert sorted(epoch_of(image_text(batch_size=5), epoch)) == [row.files["image"] for row in ROWS]


def test_the_order_changes_with_the_epoch() -> None:
    assert epoch_of(image_text(batch_size=5), 0) != epoch_of(image_text(batch_size=5), 1)


def test_the_rest_that_fills_no_batch_has_its_turn_later() -> None:
    epochs = [epoch_of(image_text(batch_size=4), epoch) for epoch in range(10)]
    assert [len(set(images)) for images in epochs] == [8] * 10
    assert set.union(*map(set, epochs)) == {row.files["image"] for row in ROWS}


def test_fewer_pairs_than_a_batch_are_one_batch() -> None:
    batches = image_text(batch_size=64)
    assert batches.n_steps == 1
    assert len(batches.at(3)[0]["image"]) == 10


def test_a_caption_is_one_of_its_row_and_varies() -> None:
    batches = image_text(batch_size=10)
    seen = Counter()
    for step in range(60):
        images, captions = pair_at(batches, step)
        assert [image.stem for image in images] == [caption.split(".")[0] for caption in captions]
        seen.update(captions)
    assert len(seen) == 30
    assert min(seen.values()) >= 5  # of 20 expected


def test_ids_number_what_belongs_together() -> None:
    labels = ["dog", "rain", "dog"]
    rows = [Row(str(place), "train", label, {"image": Path("a")}, ("a",)) for place, label in enumerate(labels)]
    assert id_numbers(rows) == {"label:dog": 0, "label:rain": 1}
    [batches] = make_batches(rows, ["image", "text"], 3, 0)
    assert batches.ids.tolist() == [0, 1, 0]


def test_rows_of_a_step_are_those_whose_contents_it_has() -> None:
    batches = image_text(batch_size=4)
    for step in (0, 5, 9):
        assert [row.files["image"] for row in batches.rows_at(step)] == batches.at(step)[0]["image"]


def test_a_kind_may_have_three_modalities() -> None:
    full = [
        Row(name, "train", files={"image": Path(name), "speech": Path(name)}, captions=(name,)) for name in ("a", "b")
    ]
    silent = Row("c", "train", files={"image": Path("c")}, captions=("c",))
    modalities = ["image", "speech", "text"]
    [batches] = make_batches([*full, silent], modalities, 2, 0, kinds=["image-speech-text"])
    contents, ids = batches.at(0)
    assert batches.name == "image-speech-text"
    assert {modality: sorted(map(str, of)) for modality, of in contents.items()} == {
        modality: ["a", "b"] for modality in modalities
    }
    assert sorted(ids.tolist()) == [0, 1]


def test_an_epoch_may_have_every_caption_once() -> None:
    [batches] = make_batches(ROWS, ["image", "text"], 5, 0, per_caption=True)
    captions = [caption for step in range(batches.n_steps) for caption in batches.at(step)[0]["text"]]
    assert sorted(captions) == sorted(caption for row in ROWS for caption in row.captions)
    assert sorted(batches.ids.tolist()) == sorted(3 * list(range(10)))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("image-sound", "batches: image-sound asked for, 0 train rows have it; mend --data"),
        ("image-speech", "batches: image-speech asks for speech, encoders are of image, sound, text"),
    ],
)
def test_a_kind_that_no_row_has_is_refused(kind: str, sentence: str) -> None:
    with pytest.raises(XmrError, match=sentence):
        make_batches(ROWS, ["image", "sound", "text"], 2, 0, kinds=[kind])


def test_there_is_a_kind_for_every_two_modalities_that_rows_pair() -> None:
    full = Row("f", "train", files={"image": Path("i"), "sound": Path("s")}, captions=("c",))
    silent = Row("q", "train", files={"image": Path("j")}, captions=("d",))
    kinds = make_batches([full, silent, full, silent], ["image", "sound", "text"], 2, 0)
    assert {kind.name: len(kind.rows) for kind in kinds} == {"image-sound": 2, "image-text": 4, "sound-text": 2}


def test_a_single_pair_has_no_negatives_and_is_left_out() -> None:
    heard = Row("s", "train", files={"image": Path("i"), "sound": Path("s")})
    assert [kind.name for kind in make_batches([*ROWS, heard], ["image", "sound", "text"], 4, 0)] == ["image-text"]


def test_sentences_become_padded_ids() -> None:
    store = Store({}, text.Preprocessing(max_words=3, vocabulary=("dog", "a")))
    ids = store.inputs("text", ["A dog", "", "a a a a", "cats"])
    assert ids.tolist() == [[2, 1, 0], [0, 0, 0], [2, 2, 2], [0, 0, 0]]


NO_BAR: Any = nullcontext(lambda done, total: None)


def tiny_config() -> TrainConfig:
    settings = ["encoders.image.size=8", "encoders.image.channels=[4]", "encoders.text.channels=[4]", "width=4"]
    return load_config(None, recipe="quick", assignments=[*settings, "head.hidden=[4]"])


def test_rows_of_unreadable_files_are_left_out_and_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (9, 9), "red").save(good)
    bad.write_bytes(b"no picture")
    rows = [Row(path.stem, "train", files={"image": path}, captions=("a dog",)) for path in (good, bad)]
    model = AlignedModel(tiny_config(), Words(("a", "dog"), np.zeros((3, 4), dtype=np.float32)))
    label_of_bar: list[str] = []

    def progress(label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        label_of_bar.append(label)
        return nullcontext(lambda done, total: None)

    store, readable, errors = load_store(model, rows, tmp_path / "cache", torch.device("cpu"), progress)
    assert [row.id for row in readable] == ["good"]
    assert [error.partition(":")[0] for error in errors] == [str(bad)]
    assert label_of_bar == ["image features"]
    assert store.inputs("image", [good, good]).shape == (2, 8, 8, 3)


def test_a_row_goes_on_without_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    picture, sound = tmp_path / "good.png", tmp_path / "bad.wav"
    Image.new("RGB", (9, 9), "red").save(picture)
    sound.write_bytes(b"no sound")
    model = AlignedModel(tiny_config(), Words(("a", "dog"), np.zeros((3, 4), dtype=np.float32)))
    rows = [
        Row("a", "train", files={"image": picture, "sound": sound}, captions=("a dog",)),
        Row("b", "train", files={"image": picture, "sound": sound}),
    ]
    _, readable, errors = load_store(model, rows, tmp_path / "cache", torch.device("cpu"), lambda label: NO_BAR)
    assert readable == [Row("a", "train", files={"image": picture}, captions=("a dog",))]
    assert len(errors) == 1


def test_views_are_made_of_train_pictures_alone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.png" for name in ("train", "val")]
    for path in paths:
        Image.effect_noise((9, 9), 60).convert("RGB").save(path)
    settings = tiny_config()
    image = TimmSettings(model="test_resnet", weights="random", size=32, views=3)
    config = replace(settings, encoders=settings.encoders | {"image": image})
    rows = [Row(path.stem, path.stem, files={"image": path}, captions=("a dog",)) for path in paths]
    model = AlignedModel(config, Words(("a", "dog"), np.zeros((3, 4), dtype=np.float32)))
    cpu, cache = torch.device("cpu"), tmp_path / "cache"
    store, _, _ = load_store(model, rows, cache, cpu, lambda label: NO_BAR, with_views=True)
    folders = list(cache.iterdir())
    shapes = sorted(np.load(file).shape[:2] for file in cache.glob("*/*.npy"))
    assert [shape[0] for shape in shapes] == [1, 1]
    assert 3 in [shape[1] for shape in shapes]
    alone, _, _ = load_store(model, rows[1:], cache, cpu, lambda label: NO_BAR)
    assert sorted(cache.iterdir()) == sorted(folders)  # what an evaluation asks for is there
    np.testing.assert_array_equal(store.inputs("image", paths[1:]), alone.inputs("image", paths[1:]))
    drawn = store.training_inputs("image", paths[:1], np.random.default_rng(1))
    assert drawn.shape == store.inputs("image", paths[:1]).shape
