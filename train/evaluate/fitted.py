"""Linear regression and canonical correlations of two modalities, fitted on train, their strengths chosen on val.

What is chosen gives the highest mean average precision: in the direction of a regression, and of canonical
correlations over both directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmr.train.baselines import (
    POWER,
    Array,
    Canonical,
    Paired,
    Regression,
    Side,
    canonical,
    paired,
    regression,
    unit_rows,
)
from xmr.train.datasets import Row
from xmr.train.evaluate.figures import score_outcomes
from xmr.train.evaluate.items import Items, matched_items, row_contents
from xmr.train.evaluate.pair import Pair
from xmr.train.evaluate.plain import PlainFeatures

Direction = tuple[str, str]  # query, gallery
Rows = NDArray[np.float32]

LINEAR, CCA, NORMALIZED_CCA = "linear regression", "CCA", "normalised CCA"
POWERS = {CCA: 0.0, NORMALIZED_CCA: POWER}
RIDGE_STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # of a variance of 1
CCA_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
DIMS = (8, 16, 32, 64, 128, 256, 512)
N_CHOOSING = 500  # queries of a direction that choose
BATCH_ROWS = 4096


@dataclass(frozen=True)
class Part:
    """The rows of a split and their features."""

    split: str
    rows: Sequence[Row]
    features: PlainFeatures


@dataclass(frozen=True)
class Matched:
    """The items of two modalities that can be held against each other, and their features."""

    items: Mapping[str, Items]
    features: Mapping[str, Rows]

    def pair(self, spaces: Mapping[str, Array]) -> Pair:
        """Both brought into one space (n, d), where they are ranked by cosine."""
        return Pair(self.items, {modality: unit_rows(rows) for modality, rows in spaces.items()})

    def mean_precision(self, query: str, spaces: Mapping[str, Array]) -> float:
        """Of some of the queries, the same every time; from all scores, which are few."""
        pair = self.pair(spaces)
        places = {modality: np.arange(len(of.keys)) for modality, of in self.items.items()}
        ranked = places[pair.other(query)]
        asked = pair.asked(query, np.random.default_rng(0).permutation(places[query]), ranked)[:N_CHOOSING]
        keys = pair.keys(query, asked), pair.keys(pair.other(query), ranked)
        outcomes = score_outcomes(lambda chosen: pair.similarities(query, chosen, ranked), asked, *keys)
        return float(np.mean(outcomes["precision"]))


def matched(part: Part, a: str, b: str) -> Matched | None:
    """None where nothing of the one belongs to anything of the other."""
    items = dict(zip((a, b), matched_items(part.rows, a, b), strict=True))
    if not items[a].contents:
        return None
    return Matched(items, {modality: part.features(modality, of.contents) for modality, of in items.items()})


@dataclass(frozen=True)
class Linear:
    """A regression of the gallery's features on the query's, which are compared as standardised features there."""

    query: str
    gallery: str
    map: Regression
    strength: float

    def spaces(self, features: Mapping[str, Rows]) -> dict[str, Array]:
        predicted = self.predicted(features[self.query])
        return {self.query: self.map.b(predicted), self.gallery: self.map.b(features[self.gallery])}

    def predicted(self, features: ArrayLike) -> Array:
        """(n, d) of the query -> (n, d') of the gallery."""
        return self.map(features)

    @property
    def chosen(self) -> list[dict[str, float]]:
        return [{"strength": self.strength}]


@dataclass(frozen=True)
class Correlated:
    """Canonical variables of two modalities, the strongest `dim` of them, times a power of the correlations."""

    a: str
    b: str
    canonical: Canonical
    strength: float
    dim: int
    power: float

    def spaces(self, features: Mapping[str, Rows]) -> dict[str, Array]:
        return {modality: self.variables(modality, features[modality]) for modality in (self.a, self.b)}

    def variables(self, modality: str, features: Rows) -> Array:
        """(n, d) -> (n, dim)."""
        return self.canonical.variables(self.side(modality), features, self.dim, self.power)

    def across(self, modality: str, features: Rows) -> Array:
        """(n, d) of one modality -> (n, d') standardised features of the other that its variables stand for."""
        other = self.side(self.b if modality == self.a else self.a)
        return self.variables(modality, features) @ other.expansion[: self.dim]

    def side(self, modality: str) -> Side:
        return self.canonical.a if modality == self.a else self.canonical.b

    @property
    def chosen(self) -> list[dict[str, float]]:
        return [{"strength": self.strength, "dim": self.dim}]


@dataclass(frozen=True)
class PairFit:
    """The baselines of two modalities that training rows pair."""

    a: str
    b: str
    n_pairs: int
    linear: Mapping[Direction, Linear]
    correlated: Mapping[str, Correlated]  # by method


def fit_pair(train: Part, val: Part, a: str, b: str) -> PairFit | str:
    """The baselines of two modalities, or why there are none."""
    if "text" in (a, b) and not train.features.bag.vocabulary:
        return "the train captions hold no word"
    contents = [(of_a, of_b) for row in train.rows for of_a in row_contents(row, a) for of_b in row_contents(row, b)]
    if len(contents) < 2:
        return f"{len(contents)} train rows pair {a} and {b}"
    held_out = matched(val, a, b)
    if held_out is None:
        return f"no {val.split} rows of {a} and {b} tell how strong it should be"
    pairs = paired(_batches(train.features, contents, a, b))
    linear = {(a, b): _choose_linear(pairs, held_out, a, b), (b, a): _choose_linear(pairs.swapped(), held_out, b, a)}
    return PairFit(a, b, pairs.n, linear, _choose_correlated(pairs, held_out, a, b))


def _batches(
    features: PlainFeatures, contents: Sequence[tuple[Any, Any]], a: str, b: str
) -> Iterator[tuple[Rows, Rows]]:
    for start in range(0, len(contents), BATCH_ROWS):
        of_a, of_b = zip(*contents[start : start + BATCH_ROWS], strict=True)
        yield features(a, of_a), features(b, of_b)


def _choose_linear(pairs: Paired, held_out: Matched, query: str, gallery: str) -> Linear:
    """Of equally good ones the strongest."""
    tried = [Linear(query, gallery, regression(pairs, strength), strength) for strength in RIDGE_STRENGTHS[::-1]]
    return max(tried, key=lambda linear: held_out.mean_precision(query, linear.spaces(held_out.features)))


def _choose_correlated(pairs: Paired, held_out: Matched, a: str, b: str) -> dict[str, Correlated]:
    """The best of each method; of equally good ones the first, which has the fewest numbers."""
    best: dict[str, tuple[float, Correlated]] = {}
    for strength in CCA_STRENGTHS[::-1]:
        found = canonical(pairs, strength)
        for dim in sorted({min(dim, len(found.correlations)) for dim in DIMS}):
            for method, power in POWERS.items():
                tried = Correlated(a, b, found, strength, dim, power)
                spaces = tried.spaces(held_out.features)
                figure = sum(held_out.mean_precision(query, spaces) for query, _ in permutations((a, b)))
                if method not in best or figure > best[method][0]:
                    best[method] = figure, tried
    return {method: chosen for method, (_, chosen) in best.items()}
