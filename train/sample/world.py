"""The sample world on disk: pairs to train on, a corpus to index, media to query with.

Every file depends on the seed and its own name alone, so other sizes leave the files they share as they are.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from xmr.train.sample.captions import describe
from xmr.train.sample.concepts import CONCEPTS
from xmr.train.sample.scene import Scene, imagine, paint
from xmr.train.sample.sounds import record
from xmr.train.sample.synthesis import SAMPLE_RATE

CAPTIONS_PER_IMAGE = 3
QUERIES = ("bell", "dog", "piano", "rain", "siren", "train")

Row = dict[str, str | list[str]]


@dataclass(frozen=True)
class SampleSizes:
    """Rows and files of each concept."""

    text_train: int = 24  # image-text pairs
    text_val: int = 6
    sound_train: int = 16  # image-sound pairs
    sound_val: int = 6
    corpus_images: int = 3
    corpus_sounds: int = 3
    corpus_notes: int = 2  # sentences


@dataclass(frozen=True)
class SampleSummary:
    """What was written, in all concepts."""

    concepts: int
    text_pairs: int
    sound_pairs: int
    train_pairs: int
    val_pairs: int
    corpus_images: int
    corpus_sounds: int
    corpus_notes: int
    queries: int


DEFAULT_SIZES = SampleSizes()


def write_sample(
    folder: Path,
    *,
    seed: int = 0,
    sizes: SampleSizes = DEFAULT_SIZES,
    concepts: Sequence[str] = tuple(CONCEPTS),
    progress: Callable[[int, int], None] | None = None,
) -> SampleSummary:
    """Write images/, sounds/, pairs.jsonl, corpus/ and query/ into a folder.

    No row has both text and sound: what is read and what is heard meet in images alone. progress is told how
    many concepts are done, of how many.
    """
    for name in ("images", "sounds", "corpus/images", "corpus/sounds", "query"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    notes: list[str] = []
    for n_done, label in enumerate(concepts, start=1):
        rows += _write_pairs(folder, seed, label, sizes)
        _write_corpus(folder, seed, label, sizes)
        notes += _notes(seed, label, sizes.corpus_notes)
        if progress is not None:
            progress(n_done, len(concepts))
    _write_lines(folder / "pairs.jsonl", (json.dumps(row) for row in rows))
    _write_lines(folder / "corpus" / "notes.txt", notes)
    (folder / "corpus" / "thumbnails.bin").write_bytes(_rng(seed, "corpus/thumbnails").bytes(512))
    queries = [label for label in QUERIES if label in concepts]
    for label in queries:
        _write_image(folder / f"query/{label}.jpg", label, _rng(seed, f"query/image/{label}"))
        _write_sound(folder / f"query/{label}.wav", label, _rng(seed, f"query/sound/{label}"))
    return _summary(rows, len(concepts), sizes, len(queries))


def _write_pairs(folder: Path, seed: int, label: str, sizes: SampleSizes) -> Iterator[Row]:
    for number, (kind, split) in enumerate(_deal(sizes)):
        name = f"{label}-{number:03}"
        scene = _write_image(folder / f"images/{name}.jpg", label, _rng(seed, f"images/{name}"))
        row: Row = {"id": name, "image": f"images/{name}.jpg"}
        if kind == "text":
            row["captions"] = describe(scene, _rng(seed, f"captions/{name}"), CAPTIONS_PER_IMAGE)
        else:
            row["sound"] = f"sounds/{name}.flac"
            _write_sound(folder / f"sounds/{name}.flac", label, _rng(seed, f"sounds/{name}"))
        yield row | {"label": label, "split": split}


def _deal(sizes: SampleSizes) -> list[tuple[str, str]]:
    """Kind and split of a concept's pairs, in the order of their numbers."""
    return (
        [("text", "train")] * sizes.text_train
        + [("text", "val")] * sizes.text_val
        + [("sound", "train")] * sizes.sound_train
        + [("sound", "val")] * sizes.sound_val
    )


def _write_corpus(folder: Path, seed: int, label: str, sizes: SampleSizes) -> None:
    for number in range(1, sizes.corpus_images + 1):
        name = f"corpus/images/{label}-{number}"
        _write_image(folder / f"{name}.jpg", label, _rng(seed, name))
    for number in range(1, sizes.corpus_sounds + 1):
        name = f"corpus/sounds/{label}-{number}"
        _write_sound(folder / f"{name}.wav", label, _rng(seed, name))


def _notes(seed: int, label: str, n_notes: int) -> Iterator[str]:
    for number in range(n_notes):
        rng = _rng(seed, f"corpus/notes/{label}-{number}")
        yield from describe(imagine(label, rng), rng, 1)


def _write_image(path: Path, label: str, rng: Generator) -> Scene:
    scene = imagine(label, rng)
    paint(scene, rng).save(path, quality=90)
    return scene


def _write_sound(path: Path, label: str, rng: Generator) -> None:
    samples = np.rint(record(CONCEPTS[label].sound, rng) * 32767).astype(np.int16)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _rng(seed: int, name: str) -> Generator:
    return np.random.default_rng([seed, *name.encode()])


def _summary(rows: list[Row], n_concepts: int, sizes: SampleSizes, n_queries: int) -> SampleSummary:
    return SampleSummary(
        concepts=n_concepts,
        text_pairs=sum("captions" in row for row in rows),
        sound_pairs=sum("sound" in row for row in rows),
        train_pairs=sum(row["split"] == "train" for row in rows),
        val_pairs=sum(row["split"] == "val" for row in rows),
        corpus_images=n_concepts * sizes.corpus_images,
        corpus_sounds=n_concepts * sizes.corpus_sounds,
        corpus_notes=n_concepts * sizes.corpus_notes,
        queries=2 * n_queries,
    )
