"""Embeddings made elsewhere as a matrix: an .npy file, and beside it a list of what its rows are."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.exchange.lists import Naming, entries_of, list_beside, unlisted
from xmr.engine.exchange.rows import Block, Entry, check_dim, rows_in_block, unit_rows

MAX_DIM = 65_536


def read_npy(
    rows: Path,
    *,
    listed: Path | None = None,
    dim: int | None = None,
    modality: str | None = None,
    normalize: bool = False,
) -> Iterator[Block]:
    """The rows of a float16, float32 or float64 matrix in blocks, from the mapped file; nothing is unpickled.

    `listed` says what they are, by default the file of the same name beside them; without any, a row is line n of the
    .npy file. `modality` is that of rows whose list does not tell. XmrError where the matrix, its dim, its list or a
    row is not what it must be; what concerns the whole of it is told before the first block.
    """
    rows = rows.absolute()
    matrix = open_matrix(rows, dim)
    naming = Naming(rows, modality)
    listed = listed or list_beside(rows)
    entries = unlisted(len(matrix), naming) if listed is None else entries_of(listed, len(matrix), naming)
    step = rows_in_block(matrix.shape[1])
    for start in range(0, len(matrix), step):
        cut = matrix[start : start + step]
        unit = unit_rows(cut, source=rows, first=start + 1, normalize=normalize)
        yield Block(unit, list(islice(entries, len(cut))))
    _expect_end(entries)


def open_matrix(rows: Path, dim: int | None) -> NDArray[Any]:
    """(n, dim) floats, mapped from an .npy file; XmrError for what is none or has other dims."""
    try:
        matrix: NDArray[Any] = np.load(rows, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise XmrError(f"{rows}: no such file; check the path") from None
    except (ValueError, OSError, EOFError, TypeError, SyntaxError, TokenError, OverflowError) as error:
        raise XmrError(f"{rows}: no .npy file of numbers ({error}); save it with numpy.save") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or 0 in matrix.shape or matrix.shape[1] > MAX_DIM:
        shape = getattr(matrix, "shape", "several arrays")
        raise XmrError(f"{rows}: {shape} found, (rows, dim) expected, one row or more; save it as one matrix")
    if matrix.dtype.kind != "f" or matrix.dtype.itemsize > 8:
        raise XmrError(f"{rows}: {matrix.dtype} found, float16, float32 or float64 expected; save it as one of these")
    check_dim(matrix.shape[1], dim, rows)
    return matrix


def _expect_end(entries: Iterator[Entry]) -> None:
    """Lists whose lines could not be counted before tell here that they have more of them."""
    next(entries, None)
