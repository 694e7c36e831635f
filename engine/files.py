"""Files that are there as a whole or not at all, whatever interrupts their writing; and what is in them, in short."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file under another name; sync it, then give it its own. The folder is for `sync_folder`.

    Where the writing fails, nothing of it is left.
    """
    unborn = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unborn.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unborn.replace(path)
    except BaseException:
        unborn.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """With its parents; each name lasts."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of its files last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
