"""Two modalities of held-out rows, held against each other: who is asked, and what each query came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError
from xmr.train.evaluate.embeddings import Scores, averaged, by_maps, by_order
from xmr.train.evaluate.figures import Judge, Outcomes, judge, score_outcomes, search_outcomes
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.items import Items, matched_items
from xmr.train.evaluate.protocol import UnrankedError


@dataclass(frozen=True)
class Pair:
    """The items of two modalities, and what they are compared by: rows (n, dim), or scores that are made of them."""

    items: Mapping[str, Items]
    rows: Mapping[str, NDArray[np.float32]]
    scores: Scores | None = None
    averaged: tuple[str, ...] = ()  # modalities whose items of one id have become one

    def with_means(self, modalities: Sequence[str]) -> "Pair":
        """The items of one id as one item, of these modalities: the mean of their rows."""
        items, rows = dict(self.items), dict(self.rows)
        chosen = tuple(modality for modality in modalities if modality in items)
        for modality in chosen:
            items[modality], rows[modality] = averaged(items[modality], rows[modality])
        return replace(self, items=items, rows=rows, averaged=chosen)

    def asked(self, query: str, places: NDArray[np.int64], ranked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these places, those of queries that have a right answer among the places of the gallery."""
        keys = set(self.keys(self.other(query), ranked))
        return np.array([place for place in places.tolist() if self.items[query].keys[place] in keys], dtype=np.int64)

    def outcomes(
        self, query: str, asked: NDArray[np.int64], ranked: NDArray[np.int64], judge: Judge = judge
    ) -> Outcomes:
        """Of each query asked, given by its place, when the items at the places `ranked` are the gallery."""
        gallery = self.other(query)
        keys = self.keys(query, asked), self.keys(gallery, ranked)
        if self.scores is None:
            return search_outcomes(self.rows[query][asked], _at(self.rows[gallery], ranked), *keys, judge)
        return score_outcomes(partial(self.similarities, query, ranked=ranked), asked, *keys, judge)

    def similarities(self, query: str, asked: NDArray[np.int64], ranked: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n_asked, n_ranked), larger is nearer."""
        if self.scores is not None:
            return self.scores(query, asked)[:, ranked]
        return self.rows[query][asked] @ self.rows[self.other(query)][ranked].T

    def keys(self, modality: str, places: NDArray[np.int64]) -> list[str]:
        return [self.items[modality].keys[place] for place in places]

    def other(self, modality: str) -> str:
        [other] = set(self.items) - {modality}
        return other


def make_pair(held_out: HeldOut, a: str, b: str, average: Sequence[str] = ()) -> Pair:
    """Embed what rows give of two modalities; UnrankedError where nothing of the one belongs to any of the other."""
    model, comparison = held_out.model, held_out.comparison
    items = dict(zip((a, b), matched_items(held_out.rows, a, b), strict=True))
    if not items[a].contents:
        raise UnrankedError(f"no row pairs {a} and {b}, and no id or label is on rows of both")
    if comparison != "dot" and comparison != "order" and all(model.encoder(modality).has_maps for modality in items):
        if set(average) & set(items):
            raise UsageError(f"--average {average[0]}: this model compares maps of {a} and {b}, which have no mean")
        return Pair(items, {}, by_maps(model, held_out.store, items, held_out.device, comparison))
    rows = {modality: held_out.embeddings(modality, of.contents) for modality, of in items.items()}
    pair = Pair(items, rows).with_means(average)
    return replace(pair, scores=by_order(pair.rows)) if comparison == "order" else pair


def _at(rows: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Not copied where they are all."""
    return rows if np.array_equal(places, np.arange(len(rows))) else rows[places]
