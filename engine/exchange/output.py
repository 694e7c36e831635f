"""Files and folders that are written out under another name and get their own once they are whole and on the disk."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange.rows import Entry
from xmr.engine.files import sync_folder

LIST_NAME = "items.jsonl"  # of the items whose rows stand beside it
IDS_NAME = "ids.npy"
OWN = re.compile(  # the files in a folder that was written out
    r"((image|sound|speech|text)/)?([a-z]+_emb/[a-z]+_emb_\d+\.npy|metadata/metadata_\d+\.parquet)"
    rf"|vectors\.(index|fvecs)|{re.escape(IDS_NAME)}|{re.escape(LIST_NAME)}"
)


def check_file(out: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Refuse before any work what could not become a file in the end."""
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"{out}: this format is one file; name it so, as {out.stem or 'index'}{suffixes[0]}")
    _check_parent(out)
    if out.is_dir():
        raise XmrError(f"{out}: a folder has the name of a file to write; choose another name")
    if out.exists() and not overwrite:
        raise XmrError(f"{out}: exists already; replace it with --overwrite, or choose another name")


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse before any work what could not become a folder in the end; one with a user's other files stays."""
    _check_parent(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise XmrError(f"{out}: a file has the name of a folder to write; choose another name")
    if not overwrite and any(out.iterdir()):
        raise XmrError(f"{out}: exists already; replace it with --overwrite, or choose another name")
    for path in out.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or OWN.fullmatch(path.relative_to(out).as_posix())):
            raise XmrError(f"{out}: holds other files ({path.name}), which --overwrite spares; choose another folder")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Another name, to write a file or a folder to; then it is `out`. Where the writing fails, nothing of it is left.

    A folder takes the place of an older one in two steps: an interrupt between them leaves the older one under a hidden
    name.
    """
    out = out.resolve()
    unborn = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield unborn
        _sync(unborn)
        _put(unborn, out)
    except BaseException:
        _remove(unborn)
        raise
    sync_folder(out.parent)


def item_of(entry: Entry) -> dict[str, object]:
    """What a row is, as lists have it."""
    return {
        "id": entry.id,
        "path": entry.path,
        "modality": entry.modality,
        "start_s": entry.start_s,
        "end_s": entry.end_s,
        "line": entry.line,
        "text": entry.text,
        "metadata": dict(entry.metadata),
    }


def write_items(file: IO[bytes], entries: Sequence[Entry]) -> None:
    """A line each, in the order of their rows."""
    for entry in entries:
        file.write(json.dumps(item_of(entry), ensure_ascii=False).encode() + b"\n")


def _check_parent(out: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise XmrError(f"{out.parent}: no such folder; make it, or choose another one")


def _sync(written: Path) -> None:
    for path in [written, *written.rglob("*")] if written.is_dir() else [written]:
        sync_folder(path)  # a file is made to last in the same way


def _put(unborn: Path, out: Path) -> None:
    if not unborn.is_dir() or not out.exists():
        unborn.replace(out)
        return
    older = out.with_name(f".{out.name}.{os.getpid()}.older")
    out.rename(older)
    try:
        unborn.rename(out)
    except BaseException:
        older.rename(out)
        raise
    shutil.rmtree(older)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
