"""Rows as the texmex corpus has them: of each an int32, its dim, and then so many float32 numbers, little-endian.

The ids of the items stand beside the rows, in the same order, as an .npy file of int64; items.jsonl says what they are.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.exchange.blocks import blocks_of, entries_beside
from xmr.engine.exchange.lists import Naming
from xmr.engine.exchange.npy import MAX_DIM
from xmr.engine.exchange.output import IDS_NAME, LIST_NAME, write_items
from xmr.engine.exchange.rows import Block, check_dim
from xmr.engine.exchange.survey import Survey

ROWS_NAME = "vectors.fvecs"
SUFFIX = ".fvecs"


def write_fvecs(blocks: Iterable[Block], found: Survey, folder: Path) -> None:
    """Write rows of a survey; `folder` must not be there."""
    folder.mkdir()
    ids: list[int] = []
    with (folder / ROWS_NAME).open("wb") as rows, (folder / LIST_NAME).open("wb") as items:
        for block in blocks:
            written = np.empty((len(block.vectors), found.dim + 1), dtype="<f4")
            written[:, 1:] = block.vectors
            written.view("<i4")[:, 0] = found.dim
            rows.write(written.data)
            write_items(items, block.entries)
            ids += [-1 if entry.id is None else entry.id for entry in block.entries]
    np.save(folder / IDS_NAME, np.array(ids, dtype="<i8"), allow_pickle=False)


def read_fvecs(
    path: Path,
    *,
    listed: Path | None = None,
    dim: int | None = None,
    modality: str | None = None,
    normalize: bool = False,
) -> Iterator[Block]:
    """The rows of a file, whose dims must all be the same; `listed` says what they are, as does items.jsonl beside."""
    path = path.absolute()
    words = _words(path)
    n_rows, width = words.shape
    check_dim(width - 1, dim, path)

    def cut(start: int, stop: int) -> NDArray[Any]:
        some = words[start:stop]
        others = some[:, 0] != width - 1
        if others.any():
            row = int(others.argmax())
            raise XmrError(
                f"{path}: row {start + row + 1}: {some[row, 0]} numbers found, {width - 1} expected as in row 1; "
                f"write the file again"
            )
        return some.view("<f4")[:, 1:]

    listed = listed or next(iter(path.parent.glob(LIST_NAME)), None)
    entries = entries_beside(listed, n_rows, Naming(path, modality))
    yield from blocks_of(cut, (n_rows, width - 1), entries, source=path, normalize=normalize)


def _words(path: Path) -> NDArray[np.int32]:
    """(n, 1 + dim) int32, mapped: the numbers of a row after its dim are float32."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        dim = int.from_bytes(file.read(4), "little", signed=True)
    if size_bytes < 4 or not 1 <= dim <= MAX_DIM:
        raise XmrError(f"{path}: no .fvecs file, its first row claims {dim} numbers; check the file")
    if size_bytes % (4 * (dim + 1)):
        raise XmrError(
            f"{path}: {size_bytes} bytes found, whole rows of {dim} numbers ({4 * (dim + 1)} bytes) expected; "
            f"the file is cut short, or its rows have different dims"
        )
    return np.memmap(path, "<i4", "r", shape=(size_bytes // (4 * (dim + 1)), dim + 1))
