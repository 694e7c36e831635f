"""The sample world: what it writes, that a seed repeats it, and that text and sound never meet in a row."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from xmr.train.sample import CONCEPTS, SampleSizes, SampleSummary, write_sample
from xmr.train.sample.captions import TEMPLATES, describe
from xmr.train.sample.scene import PATTERNS, Scene, imagine, paint
from xmr.train.sample.sounds import record
from xmr.train.sample.synthesis import N_SAMPLES

LABELS = ("bell", "dog", "rain", "siren")
TINY = SampleSizes(
    text_train=2, text_val=1, sound_train=2, sound_val=1, corpus_images=1, corpus_sounds=1, corpus_notes=1
)


def write_tiny(folder: Path, seed: int = 0, sizes: SampleSizes = TINY) -> SampleSummary:
    return write_sample(folder, seed=seed, sizes=sizes, concepts=LABELS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def rows(world: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]


def test_the_same_seed_writes_the_same_bytes(world: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert contents(tmp_path) == contents(world)


def test_another_seed_changes_every_file(world: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path, seed=1)
    other = contents(tmp_path)
    assert not [name for name, content in contents(world).items() if other[name] == content]


def test_other_sizes_leave_the_shared_media_as_they_are(world: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path, sizes=dataclasses.replace(TINY, sound_val=2))
    media = {name: content for name, content in contents(world).items() if not name.endswith("pairs.jsonl")}
    assert media.items() < contents(tmp_path).items()


def test_rows_have_an_image_and_either_captions_or_a_sound(rows: list[dict[str, str]]) -> None:
    keys = {tuple(row) for row in rows}
    assert keys == {("id", "image", "captions", "label", "split"), ("id", "image", "sound", "label", "split")}
    assert all(len(row["captions"]) == 3 for row in rows if "captions" in row)


def test_rows_name_every_training_file_once(world: Path, rows: list[dict[str, str]]) -> None:
    named = sorted(row[key] for row in rows for key in ("image", "sound") if key in row)
    assert named == sorted(name for name in contents(world) if name.startswith(("images/", "sounds/")))


def test_splits_have_the_sizes_asked_for(rows: list[dict[str, str]]) -> None:
    kinds = [("text" if "captions" in row else "sound", row["split"]) for row in rows if row["label"] == "bell"]
    assert kinds == [("text", "train")] * 2 + [("text", "val")] + [("sound", "train")] * 2 + [("sound", "val")]


def test_summary_counts_what_was_written(tmp_path: Path) -> None:
    assert write_tiny(tmp_path) == SampleSummary(
        concepts=4,
        text_pairs=12,
        sound_pairs=12,
        train_pairs=16,
        val_pairs=8,
        corpus_images=4,
        corpus_sounds=4,
        corpus_notes=4,
        queries=8,
    )
    assert len((tmp_path / "corpus/notes.txt").read_text().splitlines()) == 4


def test_corpus_and_query_media_are_in_no_row(world: Path) -> None:
    media = [content for name, content in contents(world).items() if name.endswith((".jpg", ".wav"))]
    assert len(set(media)) == len(media)


def test_media_have_the_documented_format(world: Path) -> None:
    with Image.open(world / "query/dog.jpg") as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")
    for name in ("query/dog.wav", "sounds/dog-003.flac"):
        sound = soundfile.info(world / name)
        assert (sound.samplerate, sound.channels, sound.frames, sound.subtype) == (22_050, 1, 44_100, "PCM_16")


def test_progress_counts_concepts(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_sample(
        tmp_path, sizes=SampleSizes(1, 0, 0, 0, 0, 0, 0), concepts=("cat", "owl"), progress=lambda *c: calls.append(c)
    )
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize("label", CONCEPTS)
def test_every_concept_is_drawn_over_its_background(label: str) -> None:
    scene = dataclasses.replace(imagine(label, np.random.default_rng(0)), pattern="plain", size=0.4, x=0.5, y=0.5)
    pixels = np.asarray(paint(scene, np.random.default_rng(0)), dtype=float)
    is_drawn = np.abs(pixels - np.median(pixels, axis=(0, 1))).sum(axis=2) > 90
    assert 0.1 < is_drawn[10:86, 10:86].mean() < 0.9


@pytest.mark.parametrize("label", CONCEPTS)
def test_every_concept_is_heard_without_clipping(label: str) -> None:
    for seed in range(3):
        wave = record(CONCEPTS[label].sound, np.random.default_rng(seed))
        assert wave.shape == (N_SAMPLES,)
        assert 0.2 < np.abs(wave).max() < 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_captions_say_what_the_scene_shows(pattern: str) -> None:
    scene = Scene("owl", "orange", pattern, "blue", "pale", size=0.22, x=0.2, y=0.8)
    captions = describe(scene, np.random.default_rng(0), len(TEMPLATES))
    for words in (("owl",), ("orange", "tangerine"), ("tiny", "very small"), ("left",), ("blue", "cobalt")):
        assert sum(any(word in caption for word in words) for caption in captions) >= 6
    assert not [caption for caption in captions if "{" in caption or "  " in caption or " ," in caption]


def test_captions_write_an_before_a_vowel() -> None:
    scene = Scene("owl", "orange", "plain", "blue", "full", size=0.35, x=0.5, y=0.5)
    captions = describe(scene, np.random.default_rng(0), len(TEMPLATES))
    assert not [caption for caption in captions if " a o" in f" {caption}" or " an t" in f" {caption}"]
