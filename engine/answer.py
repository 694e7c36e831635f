"""What a search is made into for a reader: one hit of each file, near duplicates folded, a page of it.

All of this is exact. The ranked list of all items is read from its top, in prefixes that grow until they hold the page;
what an item is grouped with or folded into stands above it, so a longer prefix changes nothing of what a shorter one
showed. Each prefix is one search, and all of them are of one version of the index.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError
from xmr.engine.index import Hit, Index
from xmr.engine.media import MODALITIES

ALIKE = 0.98  # cosine from which two items are near duplicates
ROUNDING = 1e-6  # that the cosine of two equal float32 rows may fall short of 1
GROUPS = ("file",)
GROWTH = 4  # of a prefix that did not hold the page
HITS_AT_ONCE = 256  # that are compared with what is shown


@dataclass(frozen=True)
class Wanted:
    """What is shown of the ranked list. UsageError for what cannot be."""

    k: int = 10
    offset: int = 0  # hits before the first one shown
    to: tuple[str, ...] | None = None  # modalities; None: all
    where: str | None = None  # condition in SQL, see where.py
    min_score: float | None = None
    group: str | None = None  # file: of each the best hit alone
    fold: float | None = None  # cosine from which an item is left out and counted with a better one of its modality

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"{self.k} hits wanted; ask for 1 or more")
        if self.offset < 0:
            raise UsageError(f"offset {self.offset} found; give 0 or more")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise UsageError(f"smallest score {self.min_score:g} found; give a cosine")
        if unknown := [name for name in self.to or () if name not in MODALITIES]:
            raise UsageError(f"{unknown[0]!r} is no modality to search; choose among {', '.join(MODALITIES)}")
        if self.group is not None and self.group not in GROUPS:
            raise UsageError(f"group {self.group!r} found; hits are grouped by {', '.join(GROUPS)}")
        if self.fold is not None and not 0 < self.fold <= 1:
            raise UsageError(f"fold {self.fold:g} found; give a cosine above 0, up to 1")


@dataclass(frozen=True)
class Answer:
    """One hit that is shown; its rank is `rank`, from 1 on the first page."""

    rank: int
    hit: Hit
    folded: tuple[int, ...] = ()  # ids of its near duplicates, best first


def answer(
    index: Index,
    vector: NDArray[np.float32],
    wanted: Wanted,
    without: Collection[int] = (),
    *,
    go_on: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """The wanted page of the ranking against a unit vector (dim,), without some items.

    Duplicates are counted down to the first hit after the page, or to the end of what scores high enough. `go_on` is
    called now and then, and may raise where it has taken too long.
    """
    with index.snapshot():
        n_items, n_wanted = len(index), wanted.offset + wanted.k
        if wanted.group is None and wanted.fold is None and not without:
            return plain_answer(index, vector, wanted)[0]
        n_read = n_wanted + len(without)
        if wanted.group is not None or wanted.fold is not None:
            n_read *= GROWTH
        while True:
            go_on()
            n_read = min(n_read, max(1, n_items))
            hits = index.search(vector, n_read, to=wanted.to, where=wanted.where, min_score=wanted.min_score)
            is_all = len(hits) < n_read or n_read >= n_items
            shown = _shown(index, hits, wanted, without, go_on)
            # with folding the hit after the page ends the count of the last one's duplicates
            if is_all or len(shown) >= n_wanted + (wanted.fold is not None):
                return _page(shown, wanted)
            n_read *= GROWTH


def plain_answer(index: Index, vectors: NDArray[np.float32], wanted: Wanted) -> list[list[Answer]]:
    """The wanted page of each of the unit vectors (n, dim) or (dim,), neither grouped nor folded, by one search."""
    n_read = wanted.offset + wanted.k
    hits = index.search(vectors, n_read, wanted.to, wanted.where, wanted.min_score, wanted.offset)
    pages: list[list[Answer]] = [[] for _ in np.atleast_2d(vectors)]
    for hit in hits:
        pages[hit.query].append(Answer(hit.rank, hit))
    return pages


Shown = tuple[Hit, list[Hit]]  # with what is folded into it


def _shown(
    index: Index, hits: Iterable[Hit], wanted: Wanted, without: Collection[int], go_on: Callable[[], None]
) -> list[Shown]:
    """What of a prefix of the ranking is shown, best first."""
    left = [hit for hit in hits if hit.id not in without]
    if wanted.group is not None:
        best: dict[str, Hit] = {}
        for hit in left:
            best.setdefault(hit.path, hit)
        left = list(best.values())
    if wanted.fold is None:
        return [(hit, []) for hit in left]
    return _folded(index, left, wanted.fold, go_on)


class _Rows(NamedTuple):
    """The embeddings of some hits."""

    vectors: NDArray[np.float32]  # (n, dim)
    modalities: NDArray[np.int8]  # (n,), their places in MODALITIES

    def alike(self, others: "_Rows", cosine: float) -> NDArray[np.bool_]:
        """(n, n_others), which of them are near duplicates."""
        is_near: NDArray[np.bool_] = self.vectors @ others.vectors.T >= cosine - ROUNDING
        is_near &= self.modalities[:, None] == others.modalities
        return is_near

    def extended(self, vectors: NDArray[np.float32], modalities: NDArray[np.int8]) -> "_Rows":
        return _Rows(np.concatenate([self.vectors, vectors]), np.concatenate([self.modalities, modalities]))


def _folded(index: Index, hits: Sequence[Hit], cosine: float, go_on: Callable[[], None]) -> list[Shown]:
    """Each hit is shown, or goes to the best one shown of its modality that it is a near duplicate of."""
    shown: list[Shown] = []
    kept = _Rows(np.empty((0, index.dim), dtype=np.float32), np.empty(0, dtype=np.int8))  # of what is shown
    for start in range(0, len(hits), HITS_AT_ONCE):
        go_on()
        block = hits[start : start + HITS_AT_ONCE]
        modalities = np.array([list(MODALITIES).index(hit.modality) for hit in block], dtype=np.int8)
        rows = _Rows(index.vectors([hit.id for hit in block]), modalities)
        of_earlier, among = rows.alike(kept, cosine), rows.alike(rows, cosine)
        fresh: list[int] = []  # places in the block of what is shown
        for place, hit in enumerate(block):
            better = np.concatenate([of_earlier[place], among[place, fresh]])
            if better.any():
                shown[int(better.argmax())][1].append(hit)
                continue
            fresh.append(place)
            shown.append((hit, []))
        kept = kept.extended(rows.vectors[fresh], rows.modalities[fresh])
    return shown


def _page(shown: Sequence[Shown], wanted: Wanted) -> list[Answer]:
    """Cut; of the duplicates those that rank above the first hit after the page."""
    end = wanted.offset + wanted.k
    after = shown[end][0].rank if len(shown) > end else math.inf
    return [
        Answer(rank, hit, tuple(other.id for other in folded if other.rank < after))
        for rank, (hit, folded) in enumerate(shown[wanted.offset : end], wanted.offset + 1)
    ]
