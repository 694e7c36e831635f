"""One file as ann-benchmarks reads it, to measure any approximate search on the rows of an index.

Datasets train (rows, dim) and test (queries, dim), float32; neighbors (queries, 100) int32, the rows of train nearest
to each query, and distances float32, one less the cosine; attributes type dense, distance angular, dimension,
point_type float. The queries are rows held out, or given. What the rows are stands beside them as JSON: items, and of
rows held out test_items. Needs h5py.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange.blocks import blocks_of
from xmr.engine.exchange.lists import Naming
from xmr.engine.exchange.npy import MAX_DIM, open_matrix
from xmr.engine.exchange.output import item_of
from xmr.engine.exchange.rows import Block, Entry, check_dim, rows_in_block, unit_rows
from xmr.engine.exchange.survey import Progress, Survey
from xmr.engine.search import top_k

SUFFIXES = (".hdf5", ".h5")
N_NEIGHBORS = 100  # as in the files that ann-benchmarks publishes
MAX_QUERIES = 10_000  # held out of a large index; of a small one a tenth
SEED = 1
QUERIES_AT_ONCE = 10_000
ITEMS_AT_ONCE = 4096
MAX_RATIO = 1000  # of the bytes that a dataset claims to those that it has
ITEMS, HELD_OUT = "items", "test_items"

Floats = NDArray[np.float32]


def write_hdf5(
    blocks: Iterable[Block],
    found: Survey,
    path: Path,
    *,
    queries: Floats | None = None,
    n_queries: int | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write rows of a survey; without `queries` (n, dim), `n_queries` of the rows are held out, the same every time."""
    import h5py

    held_out = np.zeros(found.n_all, dtype=np.bool_)
    if queries is None:
        chosen = np.random.default_rng(SEED).choice(found.n_all, n_held_out(found.n_all, n_queries), replace=False)
        held_out[chosen] = True
    try:
        with h5py.File(path, "w") as file:
            file.attrs.update({"type": "dense", "distance": "angular", "dimension": found.dim, "point_type": "float"})
            train = _Matrix(file, "train", ITEMS, (int((~held_out).sum()), found.dim))
            if queries is None:
                test = _Matrix(file, "test", HELD_OUT, (int(held_out.sum()), found.dim))
            else:
                file.create_dataset("test", data=queries)
            n_done = 0
            for block in blocks:
                is_query = held_out[n_done : n_done + len(block.entries)]
                n_done += len(block.entries)
                train.add(block, np.flatnonzero(~is_query))
                if is_query.any():
                    test.add(block, np.flatnonzero(is_query))
            _write_neighbors(file, progress)
    except RuntimeError as error:  # h5py's, where the disk is full
        raise XmrError(
            f"{path.parent}: could not be written ({error}); make room and run the same command again"
        ) from None


def read_hdf5(
    path: Path, *, dim: int | None = None, modality: str | None = None, normalize: bool = False
) -> Iterator[Block]:
    """The rows of train, and those of test where they were held out of an index."""
    import h5py

    path = path.absolute()
    naming = Naming(path, modality)
    with _told(path), h5py.File(path, "r") as file:
        parts = [("train", ITEMS), *([("test", HELD_OUT)] if HELD_OUT in file else [])]
        opened = [(_rows_of(file, name, path), _items_of(file, items, path)) for name, items in parts]
        for rows, items in opened:
            check_dim(rows.shape[1], dim or opened[0][0].shape[1], path)
            if items is not None and len(items) != len(rows):
                raise XmrError(f"{path}: {len(items)} items found for {len(rows)} rows; write the file again")
        for rows, items in opened:
            entries = _entries(items, len(rows), naming)
            cut = partial(_cut, rows)
            yield from blocks_of(cut, rows.shape, entries, source=path, normalize=normalize)


def check_h5py() -> None:
    """XmrError where h5py is missing."""
    from importlib.util import find_spec

    if find_spec("h5py") is None:
        raise XmrError("h5py is not installed, and .hdf5 files need it; pip install h5py, or choose another --format")


def read_queries(path: Path, dim: int) -> Floats:
    """(n, dim) unit rows of an .npy file."""
    return unit_rows(open_matrix(path, dim), source=path, first=1, normalize=False)


def n_held_out(n_rows: int, n_queries: int | None) -> int:
    """How many rows become queries: as many as asked for, or a tenth; UsageError where none would be left."""
    wanted = n_queries if n_queries is not None else min(MAX_QUERIES, max(1, n_rows // 10))
    if not 1 <= wanted < n_rows:
        raise UsageError(
            f"{wanted} of {n_rows} rows cannot be held out as queries; ask for fewer, or give others with --queries"
        )
    return wanted


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What h5py says of a damaged file, as one sentence."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise XmrError(f"{path}: no HDF5 file, or a damaged one ({error}); replace the file") from None


class _Matrix:
    """Rows and their items in the file, filled in order."""

    def __init__(self, file: Any, name: str, items: str, shape: tuple[int, int]) -> None:
        import h5py

        self._rows = file.create_dataset(name, shape, dtype="<f4")
        self._items = file.create_dataset(items, shape[:1], dtype=h5py.string_dtype())
        self._n_done = 0

    def add(self, block: Block, rows: NDArray[np.int64]) -> None:
        place = slice(self._n_done, self._n_done + len(rows))
        self._rows[place] = block.vectors[rows]
        self._items[place] = [json.dumps(item_of(block.entries[row]), ensure_ascii=False) for row in rows]
        self._n_done += len(rows)


def _write_neighbors(file: Any, progress: Progress) -> None:
    """Exact, by our own search, block by block: neither all rows nor all queries are in memory together."""
    train, test = file["train"], file["test"]
    shape = (len(test), min(N_NEIGHBORS, len(train)))
    neighbors = file.create_dataset("neighbors", shape, dtype="<i4")
    distances = file.create_dataset("distances", shape, dtype="<f4")
    for start in range(0, len(test), QUERIES_AT_ONCE):
        asked = test[start : start + QUERIES_AT_ONCE]
        scores, rows = _nearest(asked, train, progress)
        neighbors[start : start + len(asked)] = rows
        distances[start : start + len(asked)] = 1 - scores


def _nearest(asked: Floats, train: Any, progress: Progress) -> tuple[Floats, NDArray[np.int64]]:
    """Scores and rows of train, best first; equal scores: the smaller row, as earlier blocks come first."""
    scores = np.empty((len(asked), 0), dtype=np.float32)
    rows = np.empty((len(asked), 0), dtype=np.int64)
    step = rows_in_block(train.shape[1])
    for start in range(0, len(train), step):
        of_block, found = top_k(asked, train[start : start + step], N_NEIGHBORS)
        scores, rows = np.hstack([scores, of_block]), np.hstack([rows, found + start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :N_NEIGHBORS]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        progress(min(start + step, len(train)), len(train))
    return scores, rows


def _dataset(file: Any, name: str, path: Path) -> Any:
    """One whose numbers stand in this very file; XmrError for what is missing, elsewhere, or claims too much."""
    import h5py

    link = file.get(name, getlink=True)
    found = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise XmrError(f"{path}: no dataset {name} of its own found; rows stand in train, as ann-benchmarks has them")
    if found.size * found.dtype.itemsize > MAX_RATIO * max(1, found.id.get_storage_size()):
        raise XmrError(f"{path}: {name} claims the shape {found.shape}, far more than the file holds; write it again")
    return found


def _rows_of(file: Any, name: str, path: Path) -> Any:
    found = _dataset(file, name, path)
    if found.ndim != 2 or 0 in found.shape or found.shape[1] > MAX_DIM:
        raise XmrError(f"{path}: {name} has the shape {found.shape}, (rows, dim) expected, one row or more")
    if found.dtype.kind != "f" or found.dtype.itemsize > 8:
        raise XmrError(f"{path}: {name} is {found.dtype}, float16, float32 or float64 expected")
    return found


def _items_of(file: Any, name: str, path: Path) -> Any | None:
    """Those that we wrote; a file of somebody else has none."""
    import h5py

    if name not in file:
        return None
    found = _dataset(file, name, path)
    if found.ndim != 1 or h5py.check_string_dtype(found.dtype) is None:
        raise XmrError(f"{path}: {name} is {found.dtype}, one text a row expected; write the file again")
    return found


def _cut(rows: Any, start: int, stop: int) -> NDArray[Any]:
    cut: NDArray[Any] = rows[start:stop]
    return cut


def _entries(items: Any | None, n_rows: int, naming: Naming) -> Iterator[Entry]:
    for start in range(0, n_rows, ITEMS_AT_ONCE):
        stop = min(start + ITEMS_AT_ONCE, n_rows)
        written = [b"{}"] * (stop - start) if items is None else items[start:stop]
        for number, text in enumerate(written, start=start + 1):
            yield naming.entry(number, _parsed(text, number, naming.source), naming.source.parent)


def _parsed(text: bytes, number: int, path: Path) -> dict[str, object]:
    try:
        item = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        item = None
    if not isinstance(item, dict):
        raise XmrError(f"{path}: row {number}: no item that says what it is; write the file again")
    return item
