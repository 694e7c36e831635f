"""Which dataset a file or folder is, by the files that only it has."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from xmr.train.datasets import class_pairs, coco, cub, flickr8k, huggingface, karpathy, videos, visual_genome
from xmr.train.datasets.layout import files_under
from xmr.train.datasets.pairs import PAIRS_NAMES
from xmr.train.datasets.pedes import RECORDS_NAME
from xmr.train.datasets.records import TABLES

# the first that has a file of one of these patterns; what says more of the same images stands first
PATTERNS = {
    "pairs": PAIRS_NAMES,
    "flickr8k-spoken": flickr8k.SPOKEN_NAMES,
    "flickr8k": flickr8k.TOKEN_NAMES,
    "karpathy": karpathy.PATTERNS,
    "coco": (coco.PATTERN, f"annotations/{coco.PATTERN}"),
    "visual-genome": (visual_genome.REGIONS_NAME,),
    "cub": (cub.CAPTIONS_NAME, f"{cub.FOLDER_NAME}/{cub.CAPTIONS_NAME}"),
    "cuhk-pedes": (RECORDS_NAME,),
    "class-pairs": (*class_pairs.LISTS["sound"], *class_pairs.ESC50_NAMES),
}
PLACES_MARK = b'"audio_base_path"'
MARK_BYTES = 4096  # at either end of a JSON, where its short keys stand
N_LOOKED_AT = 10_000  # files of a folder that nothing else tells of


def recognise(path: Path) -> str | None:
    """The name of the dataset that a path holds, or None."""
    return _of_file(path) if path.is_file() else _of_folder(path)


def _of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return "pairs"
    if suffix == ".tar":
        return "webdataset"
    if suffix in videos.SUFFIXES:
        return "videos"
    named = (name for name, patterns in PATTERNS.items() if any(path.match(pattern) for pattern in patterns))
    return next(named, None) or ("places-audio" if _is_places(path) else None)


def _of_folder(folder: Path) -> str | None:
    for name, patterns in PATTERNS.items():
        if any(next(folder.glob(pattern), None) for pattern in patterns):
            return name
    if any(_is_places(path) for part in (folder, folder / "metadata") for path in sorted(part.glob("*.json"))):
        return "places-audio"
    if all(any(map(class_pairs.has_classes, parts)) for parts in _class_folders(folder)):
        return "class-pairs"
    return next(filter(None, map(_of_content, islice(files_under(folder), N_LOOKED_AT))), None)


def _of_content(path: Path) -> str | None:
    """What one of the files in a folder says about the folder."""
    if path.name.lower() in huggingface.METADATA_NAMES or path.suffix.lower() == ".parquet":
        return "huggingface"
    if path.suffix == ".tar":
        return "webdataset"
    return "videos" if path.suffix.lower() in videos.SUFFIXES else None


def _class_folders(folder: Path) -> Iterator[list[Path]]:
    yield from ([folder / name for name in names] for names in class_pairs.FOLDERS.values())


def _is_places(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(MARK_BYTES)
        file.seek(-min(MARK_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return PLACES_MARK in start or PLACES_MARK in file.read()
