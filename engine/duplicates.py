"""The near duplicates in an index: of each modality, groups of items that are alike to the first of them.

Items are taken in the order in which they were indexed. One that no group has yet begins one, and takes in every later
item without a group whose cosine with it is large enough: so all of a group are alike to its first item, though two of
them may be less alike to each other. The neighbours come from the exact search, whose answers grow until they end
below that cosine; a group of many is read once, by its first item, and costs no more than one search.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from xmr.engine.answer import ROUNDING
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.index import Index

NEIGHBOURS = 16  # that are asked for at first
GROWTH = 8
QUERIES_AT_ONCE = 512

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Items of one modality, the one that was indexed first before the others, which come most alike first."""

    modality: str
    ids: list[int]
    scores: list[float]  # cosine of each with the first


def duplicates(
    index: Index,
    cosine: float,
    to: tuple[str, ...] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Group]:
    """All groups of two or more, by modality and then by their first item.

    XmrError for a modality that the index lacks, UsageError for what is no cosine.
    """
    if not 0 < cosine <= 1:
        raise UsageError(f"cosine {cosine:g} found; give one above 0, up to 1")
    with index.snapshot():
        counts = index.counts()
        if lacking := [name for name in to or () if name not in counts]:
            held = ", ".join(counts) or "nothing yet"
            raise XmrError(f"{index.folder}: no {lacking[0]} in this index, it holds {held}; change --to")
        modalities = [name for name in counts if to is None or name in to]
        total, n_done = sum(counts[name] for name in modalities), 0
        for modality in modalities:
            yield from _of_modality(index, modality, cosine - ROUNDING, partial(_moved, progress, n_done, total))
            n_done += counts[modality]


def _moved(progress: Callable[[int, int], None], n_before: int, total: int, n_done: int) -> None:
    progress(n_before + n_done, total)


def _of_modality(index: Index, modality: str, cosine: float, progress: Callable[[int], None]) -> Iterator[Group]:
    ids = index.ids(modality)
    has_group = np.zeros(len(ids), dtype=np.bool_)
    for start in range(0, len(ids), QUERIES_AT_ONCE):
        places = start + np.flatnonzero(~has_group[start : start + QUERIES_AT_ONCE])
        progress(start)
        if len(places) == 0:
            continue
        vectors = index.vectors(ids[places].tolist())
        scores, found = index.nearest(vectors, NEIGHBOURS, modality)
        for place, vector, of_it, names in zip(places, vectors, scores, found, strict=True):
            if has_group[place]:  # of an item of this block
                continue
            of_it, names = _alike(index, modality, vector, cosine, of_it, names)
            at = np.searchsorted(ids, names)
            is_taken = ~has_group[at] & (at > place)
            has_group[at[is_taken]] = True
            if is_taken.any():
                yield Group(modality, [int(ids[place]), *names[is_taken].tolist()], [1.0, *of_it[is_taken].tolist()])
    progress(len(ids))


def _alike(index: Index, modality: str, vector: Floats, cosine: float, scores: Floats, ids: Ids) -> tuple[Floats, Ids]:
    """All items that are alike to one, best first, where the best NEIGHBOURS are known: their scores and ids."""
    k = NEIGHBOURS
    while len(scores) == k and scores[-1] >= cosine:
        k *= GROWTH
        more, names = index.nearest(vector, k, modality)
        scores, ids = more[0], names[0]
    return scores[scores >= cosine], ids[scores >= cosine]
