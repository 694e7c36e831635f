"""The files under a folder that may be looked at: none hidden, none that an ignore file names, no links out of it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from xmr.engine.corpus.found import Finds
from xmr.engine.corpus.ignore import NAMES, Ignore

Folder = tuple[
    Path, "Ignore | None", "tuple[tuple[int, int], ...]"
]  # its rules; device and inode of it and those above


def walk(root: Path, finds: Finds, *, ignore: bool) -> Iterator[tuple[Path, os.stat_result]]:
    """The regular files under a root, which may be one itself; nothing is opened, and so no pipe or device waits.

    What is left out is counted in `finds`, what cannot be looked into named there. A file system that is mounted
    inside itself is entered once.
    """
    status = root.stat()
    if not stat.S_ISDIR(status.st_mode):
        if stat.S_ISREG(status.st_mode):
            yield root, status
        return
    waiting: list[Folder] = [(root, None, ((status.st_dev, status.st_ino),))]
    while waiting:
        folder, rules, above = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            finds.fail(folder, error)
            continue
        rules = _rules(folder, entries, rules, finds) if ignore else None
        for entry in entries:
            if not _is_left_out(entry, rules, finds):
                try:
                    yield from _look(entry, root, rules, above, waiting, finds)
                except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
                    finds.fail(Path(entry.path), error)


def _look(
    entry: "os.DirEntry[str]",
    root: Path,
    rules: "Ignore | None",
    above: tuple[tuple[int, int], ...],
    waiting: list[Folder],
    finds: Finds,
) -> Iterator[tuple[Path, os.stat_result]]:
    """A file is given back, a folder is put to those that wait."""
    path = Path(entry.path)
    if entry.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(root) or not target.is_file():
            finds.ignored["as link out of the folder, to a folder or to nothing"] += 1
            return
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        place = (status.st_dev, status.st_ino)
        if place not in above:
            waiting.append((path, rules, (*above, place)))
    elif stat.S_ISREG(status.st_mode):
        yield path, status
    else:
        finds.ignored["as pipe, socket or device"] += 1


def _is_left_out(entry: "os.DirEntry[str]", rules: "Ignore | None", finds: Finds) -> bool:
    if entry.name.startswith("."):
        if entry.name not in NAMES:
            finds.ignored["hidden"] += 1
        return True
    if rules is not None and rules.leaves_out(entry.path, is_folder=entry.is_dir(follow_symlinks=False)):
        finds.ignored["by an ignore file"] += 1
        return True
    return False


def _rules(folder: Path, entries: "list[os.DirEntry[str]]", above: "Ignore | None", finds: Finds) -> "Ignore | None":
    """The rules that hold in a folder: those above it, and those of its own ignore files."""
    own = [entry for entry in entries if entry.name in NAMES and entry.is_file(follow_symlinks=False)]
    if not own:
        return above
    try:
        return Ignore.read(folder, [Path(entry.path) for entry in own], above)
    except OSError as error:
        finds.fail(folder / own[0].name, error)
        return above
