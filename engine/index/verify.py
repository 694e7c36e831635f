"""Whether an index is as it was written: every byte against its checksum, and the catalog against the segments."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmr.engine.catalog import Catalog, Segment, SegmentFile
from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.index.lock import Seal, no_writer
from xmr.engine.index.segments import CODES, SegmentStore
from xmr.engine.processors import cpus

FROM_BACKUP = "restore the index from a backup, or index again into another folder"
BY_COMPACT = "run `xmr compact`, which makes it anew"


@dataclass(frozen=True)
class Fault:
    """A file that is not as it should be."""

    path: str
    found: str  # what is wrong
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; {self.remedy}"


@dataclass
class Verified:
    """What was read, and what is wrong with it."""

    n_items: int = 0
    n_segments: int = 0
    n_bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(folder: Path, catalog: Catalog, store: SegmentStore, progress: Callable[[int, int], None]) -> Verified:
    """Every fault of an index whose catalog could be opened; `progress` counts bytes.

    XmrError while a writer is at work. SQLite looks at the catalog while the files of the segments are hashed.
    """
    verified = Verified()
    with no_writer(folder), catalog.snapshot(), ThreadPoolExecutor(cpus()) as pool:
        by_sqlite = pool.submit(_faults_by_sqlite, catalog.path)
        verified.faults += _faults_of_seal(Seal(catalog.path), verified)
        try:
            verified.faults += _faults_of_segments(catalog, store, verified, pool, progress)
        except (XmrError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:  # numbers made text
            verified.faults.append(Fault(str(catalog.path), f"cannot be read to its end ({error})", FROM_BACKUP))
        verified.faults += [Fault(str(catalog.path), found, FROM_BACKUP) for found in by_sqlite.result()]
    return verified


def _faults_by_sqlite(path: Path) -> list[str]:
    try:
        with closing(Catalog(path)) as catalog:
            return catalog.faults()
    except XmrError as error:
        return [f"cannot be read to its end ({error})"]


def _faults_of_seal(seal: Seal, verified: Verified) -> Iterator[Fault]:
    verified.n_bytes += seal.catalog.stat().st_size
    if not seal.is_there():
        verified.notes.append(f"{seal.catalog}: not sealed, its writer was interrupted or readers were in its way")
    elif fault := seal.fault():
        path, found = fault
        yield Fault(str(path), found, FROM_BACKUP if path == seal.catalog else BY_COMPACT)


def _faults_of_segments(
    catalog: Catalog,
    store: SegmentStore,
    verified: Verified,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None],
) -> list[Fault]:
    segments, files = catalog.segments(), catalog.segment_files()
    verified.n_segments, verified.n_items = len(segments), sum(catalog.counts().values())
    if others := [path for path in store.folder.iterdir() if path.name not in files and not path.is_dir()]:
        verified.notes.append(f"{store.folder}: {len(others)} files left by an interrupted writer; the next drops them")
    faults = list(_faults_of_files(store, [file for _, file in files.values()], verified, pool, progress))
    for segment in segments:
        faults += _faults_of_rows(store, segment, {fault.path for fault in faults})
    return faults or list(_faults_of_items(catalog, store, segments))


def _faults_of_files(
    store: SegmentStore,
    files: list[SegmentFile],
    verified: Verified,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None],
) -> Iterator[Fault]:
    """Each file against what the catalog says of it; hashing is the work."""
    n_total = sum(file.bytes for file in files) + verified.n_bytes
    checked = pool.map(lambda file: _fault(store.folder / file.name, file), files)
    for file, found in zip(files, checked, strict=True):
        if found is not None:
            is_remade = file.name.partition(".")[2].startswith(CODES)
            yield Fault(str(store.folder / file.name), found, BY_COMPACT if is_remade else FROM_BACKUP)
        verified.n_bytes += file.bytes
        progress(verified.n_bytes, n_total)


def _fault(path: Path, file: SegmentFile) -> str | None:
    """What is wrong with it."""
    try:
        n_bytes = path.stat().st_size
        if n_bytes != file.bytes:
            return f"{n_bytes} bytes found, {file.bytes} expected"
        return None if sha256_of(path) == file.sha256 else "has other bytes than were written"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _faults_of_rows(store: SegmentStore, segment: Segment, known: set[str]) -> Iterator[Fault]:
    """Whether the arrays are those that the catalog describes; files with a fault already are left alone."""
    if any(Path(path).name.startswith(f"{segment.id:06d}.") for path in known):
        return
    try:
        store.open(segment)
    except XmrError as error:
        yield Fault(str(store.folder / f"{segment.id:06d}"), f"not as the catalog says ({error})", FROM_BACKUP)


def _faults_of_items(catalog: Catalog, store: SegmentStore, segments: list[Segment]) -> Iterator[Fault]:
    """Whether every item has one row, and every row an item that can be found or was deleted."""
    for modality in sorted({segment.modality for segment in segments}):
        opened = [store.open(segment) for segment in segments if segment.modality == modality]
        rows = np.concatenate([segment.ids for segment in opened])
        items = np.array(catalog.item_ids(modality), dtype=np.int64)
        deleted = np.array(catalog.deleted([modality]), dtype=np.int64)
        expected = np.sort(np.concatenate([items, deleted]))
        if not np.array_equal(rows, expected):
            n_lost, n_extra = len(np.setdiff1d(expected, rows)), len(np.setdiff1d(rows, expected))
            found = f"{n_lost} {modality} items without a row, {n_extra} rows without an item"
            yield Fault(str(catalog.path), found, FROM_BACKUP)
