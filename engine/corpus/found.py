"""What a scan finds: files, what it leaves out and why, and what nobody may look into."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from xmr.engine.media import SUFFIXES, medium_of
from xmr.engine.media.content import Content

MAX_NOTES = 100  # of one scan


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of a known medium, as it was when it was found."""

    path: Path  # absolute, links in the root resolved; of an archive's member the archive's path and its name
    medium: str
    size_bytes: int
    mtime_ns: int  # of a member that of its archive
    metadata: Mapping[str, object] = field(default_factory=dict)  # what a manifest says of it, as JSON can hold it
    archive: Path | None = None  # that it is a member of
    start: int = 0  # the first of its bytes in the archive
    root: Path | None = None  # under which it was found

    @property
    def content(self) -> Content:
        """Where its bytes are."""
        return Content(self.path, self.archive, self.start, None if self.archive is None else self.size_bytes)


@dataclass(frozen=True)
class Scan:
    """What lies under some paths."""

    roots: list[Path]  # absolute
    files: list[CorpusFile]  # by path
    n_ignored: int  # files and folders that were left out
    unreadable: dict[Path, str] = field(default_factory=dict)  # what nobody may look into, or is not there, and why
    notes: list[str] = field(default_factory=list)  # what was overlooked to get these
    ignored: dict[str, int] = field(default_factory=dict)  # how many were left out for which reason, most first

    def told_ignored(self) -> str:
        """Why files were left out, as `3 of other kinds, 2 hidden`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.ignored.items())


class Finds:
    """Grows while paths are looked through; `media` are the wanted ones."""

    def __init__(self, media: set[str]) -> None:
        self.media = media
        self.files: dict[Path, CorpusFile] = {}
        self.metadata: dict[Path, dict[str, object]] = {}  # by file
        self.unreadable: dict[Path, str] = {}
        self.ignored: Counter[str] = Counter()
        self._other: Counter[str] = Counter()  # suffixes
        self._notes: list[str] = []
        self._n_notes = 0

    def wants(self, path: Path) -> bool:
        return medium_of(path) in self.media

    def take(
        self,
        path: Path,
        status: os.stat_result,
        root: Path,
        *,
        archive: Path | None = None,
        at: tuple[int, int] = (0, 0),
    ) -> None:
        """A regular file, or a member of an archive whose bytes are `at` (start, size); left out if nobody wants it."""
        medium = medium_of(path)
        if medium is None or medium not in self.media:
            self.leave_other(path)
        elif not is_utf8(str(path)):  # neither the catalog nor JSON can hold it
            self.ignored["with a name that is not UTF-8"] += 1
        else:
            start, size = at if archive is not None else (0, status.st_size)
            self.files[path] = CorpusFile(
                path, medium, size, status.st_mtime_ns, archive=archive, start=start, root=root
            )

    def leave_other(self, path: Path) -> None:
        self.ignored["of other kinds"] += 1
        self._other[path.suffix.lower() or path.name] += 1

    def refuse(self, path: Path, reason: str) -> None:
        """`reason` is a whole sentence."""
        self.unreadable[path] = reason

    def fail(self, path: Path, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        self.refuse(path, f"{path}: cannot be read ({reason}); mend that and run again")

    def note(self, sentence: str) -> None:
        self._n_notes += 1
        if self._n_notes <= MAX_NOTES:
            self._notes.append(sentence)

    def describe(self, path: Path, metadata: Mapping[str, object]) -> None:
        """What is said of a file; of what was said of it before, nothing is replaced."""
        if metadata:
            self.metadata[path] = {**metadata, **self.metadata.get(path, {})}

    def scan(self, roots: list[Path]) -> Scan:
        for path, metadata in self.metadata.items():
            if path in self.files:
                self.files[path] = replace(self.files[path], metadata=metadata)
        more = self._n_notes - len(self._notes)
        notes = [*self._notes, f"{more} more of these notes"] if more else self._notes
        files = [self.files[path] for path in sorted(self.files)]
        return Scan(roots, files, self.ignored.total(), self.unreadable, notes, dict(self.ignored.most_common()))

    def nothing_to_embed(self) -> str:
        known = sorted({suffix for medium in self.media for suffix in SUFFIXES[medium]})
        counts = self._other if self._other else self.ignored
        found = ", ".join(f"{count} {what}" for what, count in counts.most_common(5)) or "no file at all"
        return f"nothing to embed, found {found}; the model takes {' '.join(known)}"


def is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are none stand in the name as halves of surrogate pairs
        return False
    return True
