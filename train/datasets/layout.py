"""Where a dataset's files lie: the same archives are unpacked into folders of several names."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from xmr.engine.errors import XmrError

N_TRIED = 20  # of a dataset's files, to find out which folder they are in
IMAGE_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",  # as the archive spells it
    "Flicker8k_Dataset/Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)


def named_file(source: Path, names: Iterable[str]) -> Path:
    """The source itself where it is a file, else the first of these in it; XmrError where there is none."""
    if source.is_file():
        return source.resolve()
    names = list(names)
    found = next((source / name for name in names if (source / name).is_file()), None)
    if found is None:
        raise XmrError(f"{source}: no {' or '.join(names)} in it; name the file, or the folder that holds it")
    return found.resolve()


def optional_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of these files that is in a folder, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def folder_holding(folders: Iterable[Path], names: Iterable[str]) -> Path:
    """The first folder that holds one of the first few files; else the first that is there, else the first."""
    candidates, tried = list(folders), list(islice(names, N_TRIED))
    for folder in candidates:
        if any(os.path.isfile(folder / name) for name in tried):  # noqa: PTH113 (False for a name no file can have)
            return folder
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def image_folders(*roots: Path) -> list[Path]:
    """Where images may lie below, or right in, these folders."""
    return [root / name for root in roots for name in (*IMAGE_FOLDERS, ".")]


def files_under(root: Path) -> Iterator[Path]:
    """The files under a folder, sorted; hidden ones and links to folders are left out."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def resolver(folder: Path) -> Callable[[str], Path]:
    """Makes absolute paths of names in a file of that folder; ValueError for a name that no file can have.

    Links in a path are followed up to the last name in it, once for every folder.
    """
    known: dict[str, str] = {}

    def resolve(name: str) -> Path:
        if b"\0" in os.fsencode(name):
            raise ValueError("embedded null byte")
        parent, last = os.path.split(os.path.join(folder, name))  # noqa: PTH118 (called for every file of a dataset)
        if last in ("", ".", ".."):
            return Path(os.path.realpath(os.path.join(parent, last)))  # noqa: PTH118
        if parent not in known:
            known[parent] = os.path.realpath(parent)
        return Path(known[parent], last)

    return resolve
