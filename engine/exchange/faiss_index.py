"""Faiss's own index file: IndexFlatIP in an IndexIDMap2, whose ids are those of the index; items.jsonl beside it.

The file is written and read here, as faiss keeps such an index since its first version: a header (dim, rows, metric),
the rows as they are, and the ids. So rows need not fit in memory, and what a file claims is checked before anything is
read; faiss itself is not needed.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from xmr.engine.errors import XmrError
from xmr.engine.exchange.blocks import blocks_of, entries_beside
from xmr.engine.exchange.lists import Naming
from xmr.engine.exchange.npy import MAX_DIM
from xmr.engine.exchange.output import LIST_NAME, write_items
from xmr.engine.exchange.rows import Block, check_dim
from xmr.engine.exchange.survey import Survey

INDEX_NAME = "vectors.index"
SUFFIXES = frozenset({".index", ".faiss"})
HEADER = struct.Struct("<4siqqq?i")  # kind, dim, rows, two numbers of no meaning, is trained, metric
COUNT = struct.Struct("<Q")
MEANINGLESS = 1 << 20
INNER_PRODUCT = 0
FLAT = {b"IxFI", b"IxF2", b"IxFl"}  # IndexFlatIP, IndexFlatL2, IndexFlat of another metric
ID_MAPS = {b"IxMp", b"IxM2"}  # IndexIDMap, IndexIDMap2


class _Flat(NamedTuple):
    """Where the rows of an index file are."""

    n_rows: int
    dim: int
    start: int  # the first of their bytes


def write_faiss(blocks: Iterable[Block], found: Survey, folder: Path) -> None:
    """Write rows of a survey; `folder` must not be there."""
    folder.mkdir()
    ids: list[int] = []
    with (folder / INDEX_NAME).open("wb") as rows, (folder / LIST_NAME).open("wb") as items:
        for kind in (b"IxM2", b"IxFI"):
            rows.write(HEADER.pack(kind, found.dim, found.n_all, MEANINGLESS, MEANINGLESS, True, INNER_PRODUCT))
        rows.write(COUNT.pack(found.n_all * found.dim))
        for block in blocks:
            rows.write(np.ascontiguousarray(block.vectors, dtype="<f4").data)
            write_items(items, block.entries)
            ids += [-1 if entry.id is None else entry.id for entry in block.entries]
        rows.write(COUNT.pack(len(ids)))
        rows.write(np.array(ids, dtype="<i8").data)


def read_faiss(
    path: Path,
    *,
    listed: Path | None = None,
    dim: int | None = None,
    modality: str | None = None,
    normalize: bool = False,
) -> Iterator[Block]:
    """The rows of an index that keeps them as they are; `listed` says what they are, as does items.jsonl beside it."""
    path = path.absolute()
    flat = _flat_of(path)
    check_dim(flat.dim, dim, path)
    rows = np.memmap(path, "<f4", "r", flat.start, (flat.n_rows, flat.dim))
    listed = listed or next(iter(path.parent.glob(LIST_NAME)), None)
    entries = entries_beside(listed, flat.n_rows, Naming(path, modality))
    yield from blocks_of(lambda start, stop: rows[start:stop], rows.shape, entries, source=path, normalize=normalize)


def _flat_of(path: Path) -> _Flat:
    """XmrError for any other index, and for one that is not as long as it says."""
    with path.open("rb") as file:
        kind, dim, n_rows = _header(file, path)
        has_ids = kind in ID_MAPS
        if has_ids:
            kind, *inner = _header(file, path)
            if inner != [dim, n_rows]:
                raise _damaged(path)
        if kind not in FLAT:
            raise XmrError(
                f"{path}: a faiss index of the kind {kind.decode('ascii', 'replace')} found, an IndexFlat expected "
                f"(also in an IndexIDMap); write the rows out as .npy"
            )
        start = file.tell() + COUNT.size
        size_bytes = start + 4 * n_rows * dim + (COUNT.size + 8 * n_rows if has_ids else 0)
        if (n_rows * dim,) != COUNT.unpack(_exactly(file, COUNT.size, path)) or size_bytes != path.stat().st_size:
            raise _damaged(path)
    return _Flat(n_rows, dim, start)


def _header(file: BinaryIO, path: Path) -> tuple[bytes, int, int]:
    kind, dim, n_rows, _, _, _, metric = HEADER.unpack(_exactly(file, HEADER.size, path))
    if metric not in (0, 1):
        _exactly(file, 4, path)  # the argument of a metric that has one
    if kind not in FLAT | ID_MAPS:
        return kind, dim, n_rows
    if not 1 <= dim <= MAX_DIM or n_rows < 1:
        raise XmrError(f"{path}: {n_rows} rows of {dim} numbers found, one row of up to {MAX_DIM} or more expected")
    return kind, dim, n_rows


def _exactly(file: BinaryIO, n_bytes: int, path: Path) -> bytes:
    found = file.read(n_bytes)
    if len(found) != n_bytes:
        raise _damaged(path)
    return found


def _damaged(path: Path) -> XmrError:
    return XmrError(f"{path}: no faiss index, or one cut short; write it again with faiss.write_index")
