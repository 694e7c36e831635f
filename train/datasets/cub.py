"""CUB-200-2011 birds (Wah et al. 2011) with ten sentences an image (Reed et al. 2016), letters in Torch 7 tables.

The splits are disjoint in their classes, so that what is tested was never seen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.packages import need
from xmr.train.datasets.records import text_lines, without_blanks
from xmr.train.datasets.rows import Note, Row

# 70 letters, numbered from 1; 0 ends a sentence
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
FOLDER_NAME = "CUB_200_2011"
CAPTIONS_NAME = "cub_icml"
MANIFESTS = {"train": ("train.txt", "train_val.txt"), "val": ("val.txt",), "test": ("test.txt",)}


def read_cub(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image with its ten sentences; its species is the category, its path the id.

    `source` is CUB_200_2011 or the folder above: images/<class>/<image>.jpg, cub_icml/<class>/<image>.t7 and the
    manifests train.txt, val.txt and test.txt. Without a train.txt, train_val.txt stands for it.
    """
    root = (source / FOLDER_NAME if (source / FOLDER_NAME).is_dir() else source).resolve()
    if not (root / CAPTIONS_NAME).is_dir():
        raise XmrError(f"{root}: no {CAPTIONS_NAME}/ with captions in it; give the folder that holds it and images/")
    rows, uncaptioned, damaged = [], [], []
    for name, split in _split_of_class(root).items():
        tables = {path.stem: path for path in sorted((root / CAPTIONS_NAME / name).glob("*.t7"))}
        images = root / "images" / name
        uncaptioned += [path for path in sorted(images.glob("*.jpg")) if path.stem not in tables]
        for stem, table in tables.items():
            image = images / f"{stem}.jpg"
            try:
                captions = _sentences(table)
            except XmrError as error:
                damaged.append(str(error))
                continue
            rows.append(Row(str(image), split, files={"image": image}, captions=captions, category=name))
    if damaged and not rows:
        raise XmrError(damaged[0])
    if damaged:
        note(f"cub: tables of captions that are left out: {len(damaged)}, such as {damaged[0]}")
    if uncaptioned:
        note(f"cub: images without a .t7 of captions: {len(uncaptioned)}, such as {uncaptioned[0]}; they are left out")
    return rows


def _split_of_class(root: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, names in MANIFESTS.items():
        path = next((root / name for name in names if (root / name).is_file()), None)
        for where, name in _classes(path) if path else ():
            if splits.get(name, split) != split:
                raise XmrError(f"{where}: {name} is in {splits[name]} as well; a class belongs to one split")
            splits[name] = split
    if not splits:
        raise XmrError(f"{root}: no classes in train.txt, val.txt or test.txt; put the manifests of the splits there")
    return splits


def _classes(path: Path) -> Iterator[tuple[str, str]]:
    """The class folders of lines `<id> <class folder>`, up to the first blank line."""
    for where, line in text_lines(path):
        if not line.strip():
            return
        match line.split():
            case [_, name] if not {"/", "\\", "\0"} & set(name) and name not in (".", ".."):
                yield where, name
            case _:
                raise XmrError(f"{where}: {line[:40]!r} found, <id> <class folder> expected")


def _sentences(path: Path) -> tuple[str, ...]:
    """The sentences of a caption table, in order."""
    letters = _letters(path)
    if letters.size and letters.max() > len(ALPHABET):
        raise XmrError(f"{path}: letter {letters.max()} found, there are {len(ALPHABET)}; fetch the file again")
    sentences = []
    for column in letters.T:
        end = np.flatnonzero(column == 0)
        numbers = column[: end[0]] if len(end) else column
        sentences.append("".join(ALPHABET[number - 1] for number in numbers))
    return without_blanks(sentences)


def _letters(path: Path) -> NDArray[np.uint8]:
    """(letters, sentences) of the table's `char`."""
    need("torchfile", "train", path)
    import torchfile

    try:
        with path.open("rb") as file:
            reader = torchfile.T7Reader(file)
            table: Any = reader.read_obj()
    except Exception as error:  # a damaged file makes the reader stumble in any way at all
        raise XmrError(f"{path}: no Torch 7 table that can be read ({error}); fetch the file again") from None
    letters = table.get(b"char") if isinstance(table, dict) else None
    if not isinstance(letters, np.ndarray) or letters.dtype != np.uint8 or letters.ndim != 2:
        raise XmrError(f"{path}: no ByteTensor `char` of letters and sentences in it; fetch the file again")
    if not _is_inside(letters, reader.objects.values()):
        raise XmrError(f"{path}: `char` is cut short; fetch the file again")
    return letters


def _is_inside(view: NDArray[Any], objects: Any) -> bool:
    """Whether a tensor lies within one of the storages that were read: the reader does not look."""
    low, high = byte_bounds(view)
    storages = (byte_bounds(item) for item in objects if isinstance(item, np.ndarray) and item.flags.owndata)
    return any(start <= low and high <= end for start, end in storages)
