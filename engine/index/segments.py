"""The segments of an index: rows of one modality, the ids of their items and the codes that a search reads.

    000001.f32.npy   (rows, dim) float32, unit length, memory-mapped
    000001.ids.npy   (rows,) int64, ascending: whose the rows are
    000001.i8.*      the codes of the rows, see engine/codes.py

A segment is written once and never changed. Only the catalog makes it part of the index.
"""

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.catalog import Segment, SegmentFile
from xmr.engine.codes import NO_ARRAY, Codes, Floats
from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.files import sha256_of, sync_folder, write_whole

ROWS, IDS, CODES = "f32.npy", "ids.npy", "i8"  # what follows the number in a name; Codes adds to the last

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class OpenSegment:
    """Its arrays, memory-mapped."""

    ids: Ids
    rows: Floats
    codes: Codes

    def rest(self) -> None:
        """Give back the memory of the rows that a search has looked at: the system's cache still has them.

        A search reads all codes, and then a few rows, around each of which the system maps others.
        """
        if isinstance(self.rows.base, mmap.mmap):
            self.rows.base.madvise(mmap.MADV_DONTNEED)


class SegmentStore:
    """The folder of the segments' files."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self._dim = dim
        self._opened: dict[Segment, OpenSegment] = {}

    def write(self, number: int, modality: str, ids: Ids, rows: Iterable[Floats]) -> tuple[Segment, list[SegmentFile]]:
        """Write blocks of rows, in the order of their ids, as a segment that nobody sees yet."""
        path = self.folder / _name(number, ROWS)
        write_whole(path, lambda file: _save_blocks(file, (len(ids), self._dim), rows))
        write_whole(self.folder / _name(number, IDS), lambda file: np.save(file, ids, allow_pickle=False))
        segment = Segment(number, modality, len(ids), int(ids[0]), int(ids[-1]))
        Codes.encode(self._map(segment, ROWS, (len(ids), self._dim), np.float32)).save(self._codes_path(segment))
        sync_folder(self.folder)
        return segment, self.files_of(segment)

    def files_of(self, segment: Segment) -> list[SegmentFile]:
        """What stands in its files now."""
        paths = sorted(self.folder.glob(f"{segment.id:06d}.*"))
        return [SegmentFile(path.name, path.stat().st_size, sha256_of(path)) for path in paths]

    def open(self, segment: Segment) -> OpenSegment:
        """Its arrays, opened once; XmrError where they are damaged, or gone as a writer merged them with others."""
        if segment not in self._opened:
            ids, rows = self.open_rows(segment)
            try:
                codes = Codes.open(self._codes_path(segment), rows)
            except XmrError as error:
                raise UnreadableError(f"{error}; `xmr index` with any path makes them anew") from None
            self._opened[segment] = OpenSegment(ids, rows, codes)
        return self._opened[segment]

    def open_rows(self, segment: Segment) -> tuple[Ids, Floats]:
        """Ids and rows, memory-mapped."""
        ids: Ids = self._map(segment, IDS, (segment.rows,), np.int64)
        if (ids[0], ids[-1]) != (segment.first_item, segment.last_item):
            raise UnreadableError(
                f"{self.folder / _name(segment.id, IDS)}: the ids {ids[0]} to {ids[-1]} found, {segment.first_item} to "
                f"{segment.last_item} expected; `xmr verify` tells more"
            )
        rows: Floats = self._map(segment, ROWS, (segment.rows, self._dim), np.float32)
        return ids, rows

    def has_good_codes(self, segment: Segment) -> bool:
        _, rows = self.open_rows(segment)
        try:
            Codes.open(self._codes_path(segment), rows)
        except XmrError:
            return False
        return True

    def has_codes_as_written(self, segment: Segment, files: Iterable[SegmentFile]) -> bool:
        """Whether every byte of the codes is as the catalog says of the files of the segment."""
        codes = [(self.folder / file.name, file) for file in files if file.name.startswith(_name(segment.id, CODES))]
        return all(path.is_file() and sha256_of(path) == file.sha256 for path, file in codes)

    def code_again(self, segment: Segment) -> list[SegmentFile]:
        """Make the codes anew from the rows; what stands in its files then."""
        _, rows = self.open_rows(segment)
        Codes.encode(rows).save(self._codes_path(segment))
        sync_folder(self.folder)
        return self.files_of(segment)

    def keep_only(self, known: Iterable[Segment]) -> None:
        """Close the segments that are not part of the index any more."""
        self._opened = {segment: self._opened[segment] for segment in known if segment in self._opened}

    def remove_others(self, known: Sequence[Segment]) -> None:
        """Delete the files of segments that are not part of the index, and what an interrupted writer left."""
        numbers = {f"{segment.id:06d}" for segment in known}
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in numbers and not path.is_dir():
                path.unlink()

    def _codes_path(self, segment: Segment) -> Path:
        return self.folder / _name(segment.id, CODES)

    def _map(self, segment: Segment, kind: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        path = self.folder / _name(segment.id, kind)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{array.shape} {array.dtype} found, {shape} {np.dtype(dtype)} expected")
        except FileNotFoundError:
            raise UnreadableError(f"{path}: missing; `xmr verify` tells what else is") from None
        except (OSError, *NO_ARRAY) as error:
            reason = "no array of numbers" if "pickle" in str(error) else str(error).partition("\n")[0]
            raise UnreadableError(
                f"{path}: a segment of the index cannot be read ({reason}); `xmr verify` tells more"
            ) from None
        return array


def _name(number: int, kind: str) -> str:
    return f"{number:06d}.{kind}"


def _save_blocks(file: IO[bytes], shape: tuple[int, int], blocks: Iterable[Floats]) -> None:
    """An .npy file of rows that need not be in memory together."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    n_rows = 0
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype="<f4").data)
        n_rows += len(block)
    if n_rows != shape[0]:
        raise RuntimeError(f"{n_rows} rows found, {shape[0]} expected")
