"""What one search reads: some segments as one gallery, and which of their rows may be found."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.index.segments import Ids, OpenSegment
from xmr.engine.search import Gallery, top_k

SHARE = 1 / 20  # of the rows' bytes that searches may bring into memory, a fifth of those of the codes

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """Segments in the order of their rows in the gallery: by modality, then as they were indexed."""

    segments: list[OpenSegment]
    gallery: Gallery
    live: Mask | None  # rows whose items were not deleted; None: all
    grown: list[int] = field(default_factory=lambda: [0])  # bytes since the last rest, all that ever changes here

    @classmethod
    def of(cls, segments: list[OpenSegment], deleted: Iterable[int]) -> "View":
        gallery = Gallery([segment.rows for segment in segments], [segment.codes for segment in segments])
        dead = _rows_of(segments, np.fromiter(deleted, dtype=np.int64))
        return cls(segments, gallery, ~dead if dead.any() else None)

    def top_k(
        self, queries: NDArray[np.float32], k: int, allow: Mask | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `search.top_k`. Of the rows that were looked at, only a share of their bytes stays in memory."""
        before = _resident_bytes()
        found = top_k(queries, self.gallery, k, allow=allow)
        self.grown[0] += _resident_bytes() - before
        if self.grown[0] >= SHARE * sum(segment.rows.nbytes for segment in self.segments):
            self.grown[0] = 0
            for segment in self.segments:
                segment.rest()
        return found

    def ids_of(self, rows: NDArray[np.int64]) -> Ids:
        """The items of rows of the gallery."""
        ids = np.empty(len(rows), dtype=np.int64)
        start = 0
        for segment in self.segments:
            inside = (rows >= start) & (rows < start + len(segment.ids))
            ids[inside] = segment.ids[rows[inside] - start]
            start += len(segment.ids)
        return ids

    def allowed(self, ids: Ids | None) -> Mask | None:
        """Which rows may be found, where only these items may; None: all."""
        if ids is None:
            return self.live
        chosen = _rows_of(self.segments, ids)
        return chosen if self.live is None else chosen & self.live

    def vectors_of(self, ids: Ids) -> NDArray[np.float32]:
        """(n, dim) rows of items, in the order in which they are asked for; XmrError for an item without one."""
        vectors = np.empty((len(ids), self.gallery.dim or 0), dtype=np.float32)
        is_found = np.zeros(len(ids), dtype=np.bool_)
        for segment in self.segments:
            places = np.searchsorted(segment.ids, ids)
            places[places == len(segment.ids)] = 0
            inside = (segment.ids[places] == ids) & ~is_found
            vectors[inside] = segment.rows[places[inside]]
            is_found |= inside
        if not is_found.all():
            raise XmrError(f"item {ids[~is_found][0]}: no row of it in any segment; `xmr verify` tells more")
        return vectors


def _resident_bytes() -> int:
    """Of this process, with the pages of files that it has mapped."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # where it is not known, a search is taken to have brought in nothing
        return 0


def _rows_of(segments: Iterable[OpenSegment], ids: Ids) -> Mask:
    """Which rows of the gallery these items, ascending, have."""
    masks = [np.zeros(0, dtype=np.bool_)]
    for segment in segments:
        low, high = np.searchsorted(ids, (segment.ids[0], segment.ids[-1] + 1))
        mask = np.zeros(len(segment.ids), dtype=np.bool_)
        places = np.searchsorted(segment.ids, ids[low:high])
        is_here = segment.ids[places] == ids[low:high]
        mask[places[is_here]] = True
        masks.append(mask)
    return np.concatenate(masks)
