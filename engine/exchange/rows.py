"""What every reader and writer of rows speaks: blocks of embeddings, each row with what it is the embedding of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError

BLOCK_BYTES = 32_000_000  # of rows that a reader hands over at once
UNIT_WITHIN = 1e-3  # that the length of a row may differ from 1: float16 rows of 4,096 numbers keep it
EXACT_WITHIN = 1e-5  # what is left of a length when float32 rows are divided by it is below


@dataclass(frozen=True)
class Entry:
    """What one row is the embedding of: an item of an index, and the file it comes from."""

    path: str  # of the file; unique in an index, it need not exist
    modality: str  # a key of MODALITIES
    start_s: float | None = None  # of a window or frame
    end_s: float | None = None
    line: int | None = None  # of a text file or table, from 1; of rows without a path their number
    text: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)  # JSON values, of file and item together
    id: int | None = None  # in the index it comes from; one that takes it gives ids of its own


@dataclass(frozen=True)
class Block:
    """Some rows in their order: vectors (n, dim) float32, C-contiguous, unit length; entries, one a row."""

    vectors: NDArray[np.float32]
    entries: Sequence[Entry]


def rows_in_block(dim: int) -> int:
    """How many float32 rows of `dim` numbers a block holds."""
    return max(1, BLOCK_BYTES // (4 * dim))


def check_dim(found: int, expected: int | None, source: object) -> None:
    """XmrError unless rows of `source` have as many numbers as those of the model or the index; None: any number."""
    if expected is not None and found != expected:
        raise XmrError(
            f"{source}: rows of {found} numbers found, {expected} expected; embed with the index's own model"
        )


def unit_rows(rows: NDArray[Any], *, source: object, first: int, normalize: bool) -> NDArray[np.float32]:
    """(n, dim) rows of any float type as float32 rows of unit length; `first` is the number of the first one, from 1.

    XmrError names the first row with NaN or infinity, of length zero, or (unless `normalize`) of another length than 1
    by more than UNIT_WITHIN. A row that is off by no more than float32's own rounding stays as it is to the bit, the
    others are divided by their length.
    """
    unit = np.array(rows, dtype=np.float32, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit, dtype=np.float64))
    _refuse(~np.isfinite(lengths), "NaN or infinity found, numbers expected; embed its item again", source, first)
    _refuse(lengths == 0, "all zeros found, a direction expected; leave the row out", source, first)
    off = np.abs(lengths - 1)
    if not normalize and (off > UNIT_WITHIN).any():
        length = lengths[(off > UNIT_WITHIN).argmax()]
        reason = f"length {length:.4g} found, 1 expected; pass --normalize to divide by it"
        _refuse(off > UNIT_WITHIN, reason, source, first)
    rounded = off > EXACT_WITHIN
    unit[rounded] = unit[rounded] / lengths[rounded, None]
    return unit


def _refuse(bad: NDArray[np.bool_], reason: str, source: object, first: int) -> None:
    if bad.any():
        raise XmrError(f"{source}: row {first + int(bad.argmax())}: {reason}")
