"""The files a user has: which of them hold a medium xmr knows, in an order that does not depend on the disk."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, medium_of


@dataclass(frozen=True)
class CorpusFile:
    """One file of a known medium, as it was when it was found."""

    path: Path  # absolute, links in the root resolved
    medium: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Scan:
    """What lies under some paths."""

    roots: list[Path]  # absolute
    files: list[CorpusFile]  # by path
    n_ignored: int  # files of other kinds, or of names that are not UTF-8
    unreadable: dict[Path, str] = field(default_factory=dict)  # files and folders nobody may look into, and why


def scan(paths: Iterable[Path], media: Iterable[str]) -> Scan:
    """Every file under `paths` whose medium is among `media`; hidden files and folders are left out.

    Links to files are followed only inside the path they are found under, links to folders never. A missing path or
    one with nothing to embed raises XmrError.
    """
    wanted = set(media)
    roots = [path.resolve() for path in paths]
    found: dict[Path, CorpusFile] = {}
    other: Counter[str] = Counter()
    unreadable: dict[Path, str] = {}
    for root in roots:
        if not root.exists():
            raise XmrError(f"{root}: no such file or folder; check the path")
        for path in _walk(root, unreadable):
            medium = medium_of(path)
            if medium not in wanted:
                other[path.suffix.lower() or path.name] += 1
                continue
            if not _is_utf8(path):  # neither the catalog nor JSON can hold it
                other["with a name that is not UTF-8"] += 1
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # gone since it was listed
                continue
            found[path] = CorpusFile(path, medium, status.st_size, status.st_mtime_ns)
    if not found and not unreadable:
        raise XmrError(f"{', '.join(map(str, roots))}: {_nothing_to_embed(other, wanted)}")
    return Scan(roots, [found[path] for path in sorted(found)], sum(other.values()), unreadable)


def _walk(root: Path, unreadable: dict[Path, str]) -> Iterator[Path]:
    """The files under a root; what cannot be looked into is noted with the reason."""

    def note(path: str | Path, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        unreadable[Path(path)] = f"{path}: cannot be read ({reason}); mend that and run again"

    if root.is_file():
        yield root
        return
    for folder, subfolders, names in os.walk(root, onerror=lambda error: note(error.filename, error)):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            try:
                if not name.startswith(".") and _is_inside(path, root) and path.is_file():
                    yield path
            except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
                note(path, error)


def _is_inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(root)


def _is_utf8(path: Path) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


def _nothing_to_embed(other: Counter[str], media: set[str]) -> str:
    known = sorted({suffix for m in MODALITIES.values() if m.medium in media for suffix in m.suffixes})
    found = ", ".join(f"{count} {suffix}" for suffix, count in other.most_common(5)) or "no file at all"
    return f"nothing to embed, found {found}; the model takes {' '.join(known)}"
