"""A matrix that stands in a file, cut into blocks."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.exchange.lists import Naming, entries_of, unlisted
from xmr.engine.exchange.rows import Block, Entry, rows_in_block, unit_rows


def blocks_of(
    cut: Callable[[int, int], NDArray[Any]],
    shape: tuple[int, int],
    entries: Iterator[Entry],
    *,
    source: Path,
    normalize: bool,
) -> Iterator[Block]:
    """The (n, dim) rows that `cut(start, stop)` reads of `source`, with their entries; XmrError names a bad row."""
    n_rows, dim = shape
    for start in range(0, n_rows, rows_in_block(dim)):
        rows = cut(start, min(start + rows_in_block(dim), n_rows))
        unit = unit_rows(rows, source=source, first=start + 1, normalize=normalize)
        yield Block(np.ascontiguousarray(unit), list(islice(entries, len(unit))))
    next(entries, None)  # a list that has more of them tells so here


def entries_beside(listed: Path | None, n_rows: int, naming: Naming) -> Iterator[Entry]:
    """Those of a list; without one, rows are told apart by their number."""
    return entries_of(listed, n_rows, naming) if listed is not None else unlisted(n_rows, naming)
