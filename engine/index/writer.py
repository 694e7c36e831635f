"""Writes embedded files into an index: their segments, and in one transaction what makes them visible.

How much goes into a segment depends on the items alone, so that the same files give the same ones.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmr.engine.catalog import Catalog, Item, Segment
from xmr.engine.codes import Codes
from xmr.engine.corpus import CorpusFile
from xmr.engine.files import sha256_of, sync_folder, write_whole

if TYPE_CHECKING:  # a query starts without the pipeline
    from xmr.engine.codes import Floats
    from xmr.engine.embed import EmbeddedFile, EmbeddedItem

ROWS_SUFFIX, CODES_SUFFIX = ".f32.npy", ".i8"  # of a segment's files; Codes adds to the second


@dataclass
class AddSummary:
    """What an `add` did, counted in files but for `n_items`."""

    n_embedded: int = 0
    n_items: int = 0
    n_unchanged: int = 0
    n_removed: int = 0  # files that were in the index and are no longer there
    n_ignored: int = 0
    skipped: list[str] = field(default_factory=list)  # one sentence a file
    notes: list[str] = field(default_factory=list)


class Writer:
    """Appends to the segments and the catalog of an index, whose writer lock is held meanwhile."""

    def __init__(self, segments: Path, catalog: Catalog) -> None:
        self._segments = segments
        self._catalog = catalog

    def commit(self, groups: "Iterable[Sequence[EmbeddedFile]]", summary: AddSummary) -> None:
        """Make files visible, in place of what the index held of them: all of it or nothing.

        Each group becomes a segment a modality. A long file goes on in the next group; the last one ends it.
        """
        digests: dict[Path, str] = {}  # of the files that have begun
        n_items: Counter[Path] = Counter()
        notes: list[str] = []
        errors: dict[Path, str] = {}
        with self._catalog.transaction():
            for group in groups:
                self._begin(group, digests)
                errors |= self._end(group, digests)
                good = [result for result in group if result.error is None]
                self._append(good, digests)
                for result in good:
                    n_items[result.file.path] += len(result.items)
                notes += [note for result in group for note in result.notes]
        good_files = digests.keys() - errors.keys()
        summary.n_embedded += len(good_files)
        summary.n_items += sum(n_items[path] for path in good_files)
        summary.notes += notes
        summary.skipped += errors.values()

    def write_codes(self, file: str, rows: "Floats") -> None:
        """The codes of the rows of a segment, beside its file of this name."""
        Codes.encode(rows).save(self._segments / codes_name(file))
        sync_folder(self._segments)

    def _begin(self, group: "Sequence[EmbeddedFile]", digests: dict[Path, str]) -> None:
        """Forget what the index held of the files that are new in this group, and note what they are."""
        for result in group:
            path = result.file.path
            if path not in digests:
                digests[path] = _digest(path) if result.error is None else ""
                self._catalog.forget(str(path))

    def _end(self, group: "Sequence[EmbeddedFile]", digests: dict[Path, str]) -> dict[Path, str]:
        """The errors of the files that end in this group; what came of these before is forgotten."""
        for result in group:
            if result.is_last and result.error is None and _has_changed(result.file, digests[result.file.path]):
                result.error = f"{result.file.path}: changed while it was embedded; run the same command again"
        errors = {result.file.path: result.error for result in group if result.is_last and result.error is not None}
        for path, error in errors.items():
            self._catalog.forget(str(path))
            self._catalog.skip(str(path), error)
        return errors

    def _append(self, files: "Sequence[EmbeddedFile]", digests: dict[Path, str]) -> None:
        rows_of: dict[str, list[tuple[CorpusFile, EmbeddedItem]]] = {}
        for result in files:
            for item in result.items:
                rows_of.setdefault(item.modality, []).append((result.file, item))
        first_items = accumulate(map(len, rows_of.values()), initial=self._catalog.next_item())
        segments = [
            self._write_segment(number, modality, rows, first_item)
            for number, (modality, rows), first_item in zip(
                count(self._catalog.next_segment()), rows_of.items(), first_items, strict=False
            )
        ]
        items = [
            _catalog_item(segment.id, row, file, item, digests[file.path])
            for segment in segments
            for row, (file, item) in enumerate(rows_of[segment.modality])
        ]
        self._catalog.add(segments, items)

    def _write_segment(
        self, number: int, modality: str, rows: "list[tuple[CorpusFile, EmbeddedItem]]", first_item: int
    ) -> Segment:
        vectors = np.stack([item.vector for _, item in rows if item.vector is not None])
        path = self._segments / f"{number:06d}{ROWS_SUFFIX}"
        write_whole(path, lambda file: np.save(file, vectors, allow_pickle=False))
        self.write_codes(path.name, vectors)
        return Segment(number, path.name, modality, len(vectors), sha256_of(path), first_item)


def codes_name(file: str) -> str:
    """What the files of the codes of a segment begin with, by the name of the file of its rows."""
    return file.replace(ROWS_SUFFIX, CODES_SUFFIX)


def _digest(path: Path) -> str:
    """sha256; empty where the file cannot be read any more."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _has_changed(file: CorpusFile, digest: str) -> bool:
    """Whether it is no longer as it was when it was found."""
    try:
        status = file.path.stat()
    except OSError:
        return True
    return not digest or (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.mtime_ns)


def _catalog_item(segment: int, row: int, file: CorpusFile, item: "EmbeddedItem", digest: str) -> Item:
    metadata = json.dumps({} if item.line is None else {"line": item.line})
    place = (str(file.path), item.start_s, item.end_s, item.text)
    return Item(segment, row, item.modality, *place, digest, file.size_bytes, file.mtime_ns, metadata)
