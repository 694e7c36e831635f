"""Writes into an index: segments, and in one transaction what makes them visible.

How much goes into a segment depends on the items alone, so that the same files give the same ones.
"""

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xmr.engine.catalog import Catalog, File, Item, Segment, SegmentFile
from xmr.engine.corpus import CorpusFile
from xmr.engine.index.segments import SegmentStore
from xmr.engine.media import MODALITIES, medium_of

if TYPE_CHECKING:  # a query starts without the pipeline
    from xmr.engine.codes import Floats
    from xmr.engine.embed import EmbeddedFile, EmbeddedItem
    from xmr.engine.exchange.rows import Block, Entry
    from xmr.engine.index.view import Mask

FAN_IN = 16  # small segments that are merged into one
FULL_ROWS = 262_144  # of a segment: no merging makes a larger one
ROWS_AT_ONCE = 16_384  # that are copied together


@dataclass
class AddSummary:
    """What an `add` did, counted in files but for `n_items`."""

    n_embedded: int = 0
    n_items: int = 0
    n_unchanged: int = 0
    n_renamed: int = 0  # found under another name, with the same content
    n_missing: int = 0  # in the index, and no longer there
    n_removed: int = 0  # such as were taken out of the index
    n_ignored: int = 0
    errors: dict[str, str] = field(default_factory=dict)  # of the skipped files: path, one sentence
    notes: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> list[str]:
        """Why files were skipped, one sentence each."""
        return list(self.errors.values())


class Begun(NamedTuple):
    """A file of which a first part is written."""

    id: int  # in the catalog
    sha256: str  # empty where it could not be read


class Writer:
    """Changes the segments and the catalog of an index, whose writer lock is held meanwhile."""

    def __init__(self, store: SegmentStore, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    def commit(self, groups: "Iterable[Sequence[EmbeddedFile]]", summary: AddSummary) -> None:
        """Make files visible, in place of what the index held of them: all of it or nothing.

        Each group becomes a segment a modality. A long file goes on in the next group; the last one ends it.
        """
        begun: dict[Path, Begun] = {}
        n_items: Counter[Path] = Counter()
        notes: list[str] = []
        errors: dict[Path, str] = {}
        with self._catalog.transaction():
            for group in groups:
                self._begin(group, begun)
                errors |= self._end(group, begun)
                good = [result for result in group if result.file.path not in errors]
                self._append(good, begun)
                for result in good:
                    n_items[result.file.path] += len(result.items)
                notes += [note for result in group for note in result.notes]
        good_files = begun.keys() - errors.keys()
        summary.n_embedded += len(good_files)
        summary.n_items += sum(n_items[path] for path in good_files)
        summary.notes += notes
        summary.errors |= {str(path): error for path, error in errors.items()}

    def append(self, modality: str, rows: "Floats", items: Sequence[Item]) -> None:
        """A segment of (n, dim) rows and their items, whose files the catalog has; inside a transaction."""
        numbered = [item._replace(id=number) for number, item in enumerate(items, start=self._catalog.next_item())]
        ids = np.array([item.id for item in numbered], dtype=np.int64)
        segment, files = self._store.write(self._catalog.next_segment(), modality, ids, [rows])
        self._catalog.add_items(numbered)
        self._catalog.add_segment(segment, files)

    def merge_small(self) -> None:
        """Merge small neighbours, so that a large index has few segments; each row is moved a few times at most."""
        for modality in {segment.modality for segment in self._catalog.segments()}:
            while len(run := mergeable(self._catalog.segments([modality]))) > 1:
                self.merge(run)

    def merge(self, run: Sequence[Segment]) -> None:
        """Put one segment in the place of neighbours, without the rows of deleted items."""
        opened = [self._store.open_rows(segment) for segment in run]
        deleted = np.array(self._catalog.deleted([run[0].modality]), dtype=np.int64)
        keeps = [~np.isin(ids, deleted) for ids, _ in opened]
        ids = np.concatenate([of[keep] for (of, _), keep in zip(opened, keeps, strict=True)])
        with self._catalog.transaction():
            if len(ids):
                rows = _kept(zip((rows for _, rows in opened), keeps, strict=True))
                merged, files = self._store.write(self._catalog.next_segment(), run[0].modality, ids, rows)
            self._catalog.drop_segments(run)
            if len(ids):
                self._catalog.add_segment(merged, files)
        self._clean_up()

    def compact(self, progress: Callable[[int, int], None]) -> None:
        """Merge all that can be merged, and leave the rows of deleted items out; `progress` counts rows."""
        segments = self._catalog.segments()
        n_rows, n_done = sum(segment.rows for segment in segments), 0
        for modality in sorted({segment.modality for segment in segments}):
            deleted = self._catalog.deleted([modality])
            of_modality = [segment for segment in segments if segment.modality == modality]
            n_dead = {one.id: _n_between(deleted, one.first_item, one.last_item) for one in of_modality}
            for run in in_full_ones(of_modality, n_dead):
                if len(run) > 1 or n_dead[run[0].id]:
                    self.merge(run)
                n_done += sum(segment.rows for segment in run)
                progress(n_done, n_rows)

    def append_block(self, block: "Block", begun: dict[str, int]) -> None:
        """Take rows that were embedded elsewhere; `begun` has the files, by path, that earlier blocks began."""
        with self._catalog.transaction():
            paths = dict.fromkeys(entry.path for entry in block.entries if entry.path not in begun)
            for path in self._catalog.held(list(paths)):
                self._catalog.forget(path)
            media = _given_media(block.entries)
            files = [File(path, None, media[path], None, 0, 0, 0, "", "{}") for path in paths]
            begun.update(zip(paths, self._catalog.add_files(files), strict=True))
            for modality in dict.fromkeys(entry.modality for entry in block.entries):
                rows = [row for row, entry in enumerate(block.entries) if entry.modality == modality]
                vectors = block.vectors if len(rows) == len(block.entries) else block.vectors[rows]
                self.append(modality, vectors, [_given_item(begun, block.entries[row]) for row in rows])

    def _clean_up(self) -> None:
        segments = self._catalog.segments()
        self._store.keep_only(segments)
        self._store.remove_others(segments)

    def mend_codes(self) -> None:
        """Code the rows again where the codes of a segment cannot be opened: nothing is lost with them."""
        for segment in self._catalog.segments():
            if not self._store.has_good_codes(segment):
                self._code_again(segment)

    def mend_all_codes(self) -> None:
        """As `mend_codes`, and where any byte of them is not as it was written; reads all of them."""
        files: defaultdict[int, list[SegmentFile]] = defaultdict(list)
        for number, file in self._catalog.segment_files().values():
            files[number].append(file)
        for segment in self._catalog.segments():
            is_written = self._store.has_codes_as_written(segment, files[segment.id])
            if not (is_written and self._store.has_good_codes(segment)):
                self._code_again(segment)

    def _code_again(self, segment: Segment) -> None:
        files = self._store.code_again(segment)
        with self._catalog.transaction():
            self._catalog.set_segment_files(segment.id, files)
        self._store.keep_only([])

    def _begin(self, group: "Sequence[EmbeddedFile]", begun: dict[Path, Begun]) -> None:
        """Forget what the index held of the files that are new in this group, and note what they are now."""
        for file in [result.file for result in group if result.file.path not in begun]:
            self._catalog.forget(str(file.path))
            digest = _digest(file)
            [file_id] = self._catalog.add_files([catalog_file(file, digest)])
            begun[file.path] = Begun(file_id, digest)

    def _end(self, group: "Sequence[EmbeddedFile]", begun: dict[Path, Begun]) -> dict[Path, str]:
        """The errors of the files that end in this group; what came of these before is forgotten."""
        for result in group:
            is_other = _has_changed(result.file) or not begun[result.file.path].sha256
            if result.is_last and result.error is None and is_other:
                result.error = f"{result.file.path}: changed while it was embedded; run the same command again"
        errors = {result.file.path: result.error for result in group if result.is_last and result.error is not None}
        for path, error in errors.items():
            self._catalog.forget(str(path))
            self._catalog.skip(str(path), error)
        return errors

    def _append(self, files: "Sequence[EmbeddedFile]", begun: dict[Path, Begun]) -> None:
        rows_of: dict[str, list[tuple[int, EmbeddedItem]]] = {}
        for result in files:
            for item in result.items:
                rows_of.setdefault(item.modality, []).append((begun[result.file.path].id, item))
        for modality, entries in rows_of.items():
            vectors = np.stack([item.vector for _, item in entries if item.vector is not None])
            self.append(modality, vectors, [_catalog_item(file, item) for file, item in entries])


def mergeable(segments: Sequence[Segment]) -> list[Segment]:
    """Of the segments of a modality, in order, the last ones that are to become one; fewer than two: none.

    As in a log-structured merge tree: FAN_IN of about a size, or as many as make a full one.
    """
    small: list[Segment] = []
    for segment in reversed(segments):
        if segment.rows > FULL_ROWS // 2:
            break
        small.insert(0, segment)
    for level in sorted({_level(segment.rows) for segment in small}):
        run: list[Segment] = []
        for segment in reversed(small):
            if _level(segment.rows) > level:
                break
            run.insert(0, segment)
        if len(run) >= FAN_IN or sum(segment.rows for segment in run) >= FULL_ROWS:
            return _that_fit(run)
    return []


def in_full_ones(segments: Sequence[Segment], n_dead: Mapping[int, int]) -> Iterator[list[Segment]]:
    """Runs of neighbours of one modality that compaction merges: as few segments as can be, none with dead rows."""
    run: list[Segment] = []
    for segment in segments:
        if run and sum(one.rows - n_dead[one.id] for one in [*run, segment]) > FULL_ROWS:
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def catalog_file(file: CorpusFile, digest: str) -> File:
    """A file of a corpus as the catalog keeps it."""
    root, archive = (None if path is None else str(path) for path in (file.root, file.archive))
    facts = (file.start, file.size_bytes, file.mtime_ns, digest, _json(file.metadata))
    return File(str(file.path), root, file.medium, archive, *facts)


def _that_fit(run: Sequence[Segment]) -> list[Segment]:
    """The first of them, as many as make one segment that is not too large."""
    chosen: list[Segment] = []
    for segment in run:
        if sum(one.rows for one in chosen) + segment.rows > FULL_ROWS:
            break
        chosen.append(segment)
    return chosen


def _level(n_rows: int) -> int:
    """Of two segments one level apart, one has up to FAN_IN times the rows of the other."""
    level = 0
    while n_rows >= FAN_IN ** (level + 1):
        level += 1
    return level


def _kept(rows_of: "Iterable[tuple[Floats, Mask]]") -> "Iterator[Floats]":
    for rows, keep in rows_of:
        for start in range(0, len(keep), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            yield rows[some][keep[some]]


def _digest(file: CorpusFile) -> str:
    """sha256; empty where the file cannot be read any more."""
    try:
        return file.content.sha256()
    except OSError:
        return ""


def _has_changed(file: CorpusFile) -> bool:
    """Whether it, or its archive, is no longer as it was when it was found."""
    try:
        status = (file.archive or file.path).stat()
    except OSError:
        return True
    return status.st_mtime_ns != file.mtime_ns or (file.archive is None and status.st_size != file.size_bytes)


def _n_between(ids: Sequence[int], first: int, last: int) -> int:
    """How many of ascending ids."""
    return bisect_right(ids, last) - bisect_left(ids, first)


def _given_media(entries: "Iterable[Entry]") -> dict[str, str]:
    """By path: what the ending says, where that can hold what was made of the file."""
    media: dict[str, str] = {}
    for entry in entries:
        modality, named = MODALITIES[entry.modality], medium_of(Path(entry.path))
        if named is not None and named in modality.read:
            media[entry.path] = named
        else:
            media.setdefault(entry.path, modality.medium)
    return media


def _given_item(files: Mapping[str, int], entry: "Entry") -> Item:
    metadata = _json(entry.metadata) if entry.metadata else None
    place = (entry.start_s, entry.end_s, entry.line, entry.text)
    return Item(0, files[entry.path], entry.modality, *place, metadata)


def _json(metadata: Mapping[str, object]) -> str:
    return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True)


def _catalog_item(file: int, item: "EmbeddedItem") -> Item:
    metadata = _json(item.metadata) if item.metadata else None
    return Item(0, file, item.modality, item.start_s, item.end_s, item.line, item.text, metadata)
