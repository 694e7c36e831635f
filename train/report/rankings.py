"""Every direction with the rank of each query: what recall curves, histograms and examples are drawn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.items import Items
from xmr.train.evaluate.pair import Pair, make_pair
from xmr.train.evaluate.protocol import UnrankedError

NOTHING_TO_RANK = "no two modalities of these rows can be held against each other"
MAX_QUERIES = 5000  # of a direction that are ranked; of more, some are drawn


@dataclass(frozen=True)
class Ranking:
    """One direction, every query against the whole gallery."""

    pair: Pair
    query: str
    asked: NDArray[np.int64]  # (n,) places of the queries that are ranked, each of which has a right answer
    ranks: NDArray[np.int64]  # (n,) of each query's best right answer, from 1
    n_right: NDArray[np.int64]  # (n,) right answers in the gallery
    n_queries: int  # that have a right answer, ranked or not

    @property
    def gallery(self) -> str:
        return self.pair.other(self.query)

    @property
    def queries(self) -> Items:
        return self.pair.items[self.query]

    @property
    def ranked(self) -> Items:
        return self.pair.items[self.gallery]

    @property
    def n_gallery(self) -> int:
        return len(self.ranked.keys)

    def hits(self, place: int, k: int) -> list[tuple[int, float]]:
        """The k best of the gallery for the query at a place: their places and scores, best first."""
        [scores] = self.pair.similarities(self.query, np.array([place]), np.arange(self.n_gallery))
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(row), float(scores[row])) for row in best]


def rank_pairs(held_out: HeldOut, seed: int = 0) -> list[tuple[Ranking, Ranking]]:
    """Both directions of every two modalities that can be held against each other."""
    made = []
    for a, b in combinations(held_out.model.modalities, 2):
        try:
            pair = make_pair(held_out, a, b)
        except UnrankedError:
            continue
        made.append((_ranking(pair, a, seed), _ranking(pair, b, seed)))
    return made


def chance(n_right: ArrayLike, n_gallery: int, ks: Sequence[int]) -> list[float]:
    """Recall@k in percent that a random order of the gallery gives, at each k: one in the first k is right."""
    counts, of_count = np.unique(np.asarray(n_right), return_counts=True)
    found = [
        sum(int(n) * (1 - _all_wrong(int(count), n_gallery, k)) for count, n in zip(counts, of_count, strict=True))
        for k in ks
    ]
    return [100 * value / int(of_count.sum()) for value in found]


def _all_wrong(n_right: int, n_gallery: int, k: int) -> float:
    """The chance that k of the gallery, drawn without putting back, are all wrong: C(n - r, k) / C(n, k)."""
    if k > n_gallery - n_right:
        return 0.0
    above, below = (n_gallery - n_right, n_gallery - k), (n_gallery - n_right - k, n_gallery)
    return math.exp(sum(map(_log_factorial, above)) - sum(map(_log_factorial, below)))


def _log_factorial(n: int) -> float:
    return math.lgamma(n + 1)


def _ranking(pair: Pair, query: str, seed: int) -> Ranking:
    places = {modality: np.arange(len(of.keys)) for modality, of in pair.items.items()}
    ranked = places[pair.other(query)]
    having = pair.asked(query, places[query], ranked)
    asked = _some(having, seed)
    right = dict(zip(*np.unique(pair.keys(pair.other(query), ranked), return_counts=True), strict=True))
    n_right = np.array([right[key] for key in pair.keys(query, asked)], dtype=np.int64)
    found = np.asarray(pair.outcomes(query, asked, ranked)["rank"], dtype=np.int64)
    return Ranking(pair, query, asked, found, n_right, len(having))


def _some(places: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most MAX_QUERIES of them, in their order."""
    if len(places) <= MAX_QUERIES:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, MAX_QUERIES, replace=False))
