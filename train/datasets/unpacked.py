"""Media that come inside a tar, a table or a video, as files of their own in a cache.

What a source holds is unpacked once, into a folder of another name that gets its own when all is there. It is done
again when the source's size or time changes, or when a file of the folder is gone.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.workspace import default_folder

CONTENTS_NAME = "contents.json"
VERSION = 2  # of what is unpacked and how; another one unpacks anew

# fills the folder with files and returns what is to be known of them, as JSON can hold it
Unpack = Callable[[Path, Path], Any]


def unpacked(source: Path, cache: Path | None, unpack: Unpack) -> tuple[Path, Any]:
    """The folder that holds what `unpack(source, folder)` made of a source, and what it returned."""
    folder = folder_of(source, cache, unpack)
    contents = contents_of(folder)
    if contents is None:
        _unpack_whole(source, folder, unpack)
        contents = contents_of(folder)
        assert contents is not None, "it was written just now"
    return folder, contents["returned"]


def folder_of(source: Path, cache: Path | None, unpack: Unpack) -> Path:
    """Where a source is unpacked to: named by its path, size and time, and by who unpacks it."""
    status = source.stat()
    content = json.dumps([VERSION, unpack.__module__, str(source), status.st_size, status.st_mtime_ns])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return (cache or default_folder("cache")).resolve() / "unpacked" / safe_name(source.name, digest)


def contents_of(folder: Path) -> dict[str, Any] | None:
    """What is in an unpacked folder; None where it is not there as a whole."""
    try:
        contents = json.loads((folder / CONTENTS_NAME).read_text(encoding="utf-8"))
        is_whole = set(contents["files"]) <= {path.name for path in folder.iterdir()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return contents if is_whole else None


def safe_name(name: str, digest: str, suffix: str = "") -> str:
    """A file's name that no folder, link or control character is hidden in, and that nothing else has."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:80]}-{digest}{suffix}"


def _unpack_whole(source: Path, folder: Path, unpack: Unpack) -> None:
    unborn = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unborn, ignore_errors=True)
    try:
        unborn.mkdir(parents=True)
        returned = unpack(source, unborn)
        contents = {"files": sorted(path.name for path in unborn.iterdir()), "returned": returned}
        (unborn / CONTENTS_NAME).write_text(json.dumps(contents), encoding="utf-8")
        _take_place(unborn, folder)
    except OSError as error:
        reason = error.strerror or error
        raise XmrError(
            f"{source}: cannot be unpacked into {folder} ({reason}); check both, and the room there"
        ) from None
    finally:
        shutil.rmtree(unborn, ignore_errors=True)


def _take_place(unborn: Path, folder: Path) -> None:
    """Give the folder its name, unless another process that was faster has made the same."""
    try:
        unborn.rename(folder)
    except OSError:
        if contents_of(folder) is not None:
            return
        shutil.rmtree(folder)  # it had lost files
        unborn.rename(folder)
