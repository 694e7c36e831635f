"""Readers of training data: each makes rows of a dataset as it is published. A row is what belongs together.

A source is a path, or `name:path` with a name of DATASETS; without one the reader is found from what is there. All
readers work alike: `reader(source, cache)`, where media that must be unpacked go below `cache`. Their rows may name
files that are missing; `read_rows` leaves those out and says so.
"""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.class_pairs import read_class_pairs
from xmr.train.datasets.coco import read_coco
from xmr.train.datasets.cub import read_cub
from xmr.train.datasets.flickr8k import read_flickr8k, read_flickr8k_spoken
from xmr.train.datasets.huggingface import read_huggingface
from xmr.train.datasets.karpathy import read_karpathy
from xmr.train.datasets.pairs import read_pairs, read_spoken_pairs
from xmr.train.datasets.pedes import read_cuhk_pedes
from xmr.train.datasets.places_audio import read_places_audio
from xmr.train.datasets.present import pairing_rows
from xmr.train.datasets.recognise import recognise
from xmr.train.datasets.rows import LABEL, MEDIA, SPLITS, Note, Reader, Row, with_captions
from xmr.train.datasets.videos import read_videos
from xmr.train.datasets.visual_genome import read_visual_genome
from xmr.train.datasets.webdataset import read_webdataset

__all__ = [
    "DATASETS",
    "LABEL",
    "MEDIA",
    "SPLITS",
    "Note",
    "Reader",
    "Row",
    "read_pairs",
    "read_rows",
    "select",
    "split_source",
    "with_captions",
]

# a name in front of a path, also where a folder was put in front of both
NAME_IN_SOURCE = re.compile(r"(?:^|/)([A-Za-z][\w-]+):")


def read_rows(sources: Iterable[str], cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """The rows of several sources, without the files that are missing, of which `note` gets a sentence a source.

    XmrError for a source that is missing, unknown or wrong, or that no row is left of.
    """
    return [row for source in sources for row in _read_source(source, cache, note)]


def split_source(source: str) -> tuple[str | None, Path]:
    """The dataset's name and the path of `name:path`; None where a colon is part of the path, or there is none."""
    name, colon, path = source.partition(":")
    return (name, Path(path)) if colon and name in DATASETS else (None, Path(source))


def select(rows: Iterable[Row], split: str, modalities: Sequence[str]) -> list[Row]:
    """The rows of a split that pair at least two of these modalities."""
    return [row for row in rows if row.split == split and len(set(row.modalities) & set(modalities)) >= 2]


def _read_source(source: str, cache: Path | None, note: Note) -> list[Row]:
    name, path = split_source(source)
    if not os.path.exists(path):  # noqa: PTH110 (False for a path that nothing can have)
        raise XmrError(_missing_sentence(source, name, path))
    name = name or recognise(path)
    if name is None:
        raise XmrError(f"{path}: no dataset that is known; write name:path with a name of {', '.join(DATASETS)}")
    rows = pairing_rows(DATASETS[name](path, cache, note), name, path, note)
    if others := [row.split for row in rows if row.split not in SPLITS]:
        of = f"{len(others)} of {len(rows)} rows are of the split {others[0]!r}"
        more = ", or of others," if len(set(others)) > 1 else ","
        note(f"{name}: {of}{more} and are not used; splits are {', '.join(SPLITS)}")
    return rows


def _missing_sentence(source: str, name: str | None, path: Path) -> str:
    unknown = NAME_IN_SOURCE.search(source)
    if name is None and unknown is not None:
        names = get_close_matches(unknown[1], DATASETS, n=len(DATASETS), cutoff=0)  # the closest first
        return f"{source}: dataset {unknown[1]!r} is unknown; there are {', '.join(names)}"
    return f"{path}: no such file or folder; give --data a pairs.jsonl, a folder that holds one, or name:path"


DATASETS: dict[str, Reader] = {
    "pairs": read_pairs,
    "spoken-pairs": read_spoken_pairs,
    "flickr8k": read_flickr8k,
    "flickr8k-spoken": read_flickr8k_spoken,
    "places-audio": read_places_audio,
    "karpathy": read_karpathy,
    "coco": read_coco,
    "visual-genome": read_visual_genome,
    "cub": read_cub,
    "cuhk-pedes": read_cuhk_pedes,
    "class-pairs": read_class_pairs,
    "videos": read_videos,
    "huggingface": read_huggingface,
    "webdataset": read_webdataset,
}
