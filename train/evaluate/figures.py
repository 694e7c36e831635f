"""The figures of one direction: every query is ranked against the gallery, then the queries are summed up.

What a query came to is an outcome. Outcomes are arrays (n_queries,) by name: "rank", "precision" (average precision)
and, where 50 rows are ranked, "at_50" (the share of right answers among the best 50).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xmr.engine.metrics import (
    correct_hits,
    first_correct,
    in_order,
    mean_precision,
    median_rank,
    recall_at_k,
    share_of_first,
)
from xmr.engine.search import Gallery, top_k

Outcomes = dict[str, NDArray[Any]]
Judge = Callable[
    [NDArray[Any], NDArray[np.int64], NDArray[np.bool_]], Outcomes
]  # of scores, rows, correct: (n, k) each

RECALLS = (1, 5, 10)
BEST = 50  # rows that AP@50 looks at
RANDOM_DRAWS, RANDOM_QUERIES = 5, 1000
HITS = 128  # of a query that are looked at first
CELLS = 1 << 22  # of a ranking that are held at a time


def retrieval(a: ArrayLike, b: ArrayLike, a_ids: ArrayLike, b_ids: ArrayLike) -> dict[str, Any]:
    """Both directions between embeddings a (n, d) and b (m, d), ranked by inner product, and the sum of the recalls.

    {"a_to_b": …, "b_to_a": …, "rsum": …}, each direction R@1, R@5, R@10 in percent, median_rank, mean_rank, mAP,
    AP@50, n_left_out: the queries without a right answer, which are not asked. What cannot be told has its reason in
    "missing". Ids say what belongs together, any number of rows to an id; ties count against the query. ValueError
    where the sizes do not fit or no id is on both sides.
    """
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    a_ids, b_ids = np.asarray(a_ids), np.asarray(b_ids)
    if (len(a_ids), len(b_ids)) != (len(a), len(b)):
        raise ValueError(f"{len(a_ids)} and {len(b_ids)} ids found for {len(a)} and {len(b)} rows")
    both = {"a_to_b": _one_way(a, b, a_ids, b_ids), "b_to_a": _one_way(b, a, b_ids, a_ids)}
    return {**both, "rsum": rsum(both.values())}


def rsum(directions: Any) -> float:
    """The sum of R@1, R@5 and R@10 over directions."""
    return round(sum(float(figures[f"R@{k}"]) for figures in directions for k in RECALLS), 4)


def search_metrics(
    queries: NDArray[np.float32], rows: NDArray[np.float32], query_ids: Sequence[Any], gallery_ids: Sequence[Any]
) -> dict[str, Any]:
    """The figures of searching rows (m, d) for queries (n, d), each of which has a right answer."""
    return summary(search_outcomes(queries, rows, query_ids, gallery_ids), query_ids, len(rows))


def judge(scores: NDArray[Any], rows: NDArray[np.int64], correct: NDArray[np.bool_]) -> Outcomes:
    """The outcomes of queries, ties counting against them."""
    places = in_order(scores, correct)
    outcomes: Outcomes = {"rank": first_correct(places), "precision": mean_precision(places)}
    return outcomes | ({"at_50": share_of_first(places, BEST)} if places.shape[1] >= BEST else {})


def search_outcomes(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    judge: Judge = judge,
) -> Outcomes:
    """The outcomes of searching rows (m, d) for queries (n, d). Each has a right answer.

    The exact search gives each query its best hits; only those that these do not settle get more, at last all.
    """
    gallery, ids, gallery_ids = Gallery.encode(rows), np.asarray(query_ids), np.asarray(gallery_ids)
    waiting, found = np.arange(len(queries)), []
    for k in sorted({min(k, len(rows)) for k in (HITS, 16 * HITS, len(rows))}):
        unsettled = []
        for batch in np.array_split(waiting, -(-waiting.size * k // CELLS) or 1):
            scores, hits = top_k(queries[batch], gallery, k)
            is_settled, correct = correct_hits(scores, hits, ids[batch], gallery_ids)
            found.append((batch[is_settled], judge(scores[is_settled], hits[is_settled], correct[is_settled])))
            unsettled.append(batch[~is_settled])
        waiting = np.concatenate(unsettled)
        if not waiting.size:
            break
    assert not waiting.size, "the whole ranking settles every query"
    return _joined(found)


def score_outcomes(
    scores: Callable[[NDArray[np.int64]], NDArray[Any]],
    asked: NDArray[np.int64],
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    judge: Judge = judge,
) -> Outcomes:
    """The same of queries, given by their places, whose scores (n, n_gallery) are made a part at a time."""
    ids, gallery_ids = np.asarray(query_ids), np.asarray(gallery_ids)
    n_at_once, found = max(1, CELLS // len(gallery_ids)), []
    for start in range(0, len(asked), n_at_once):
        batch = np.arange(start, min(start + n_at_once, len(asked)))
        of_batch = scores(asked[start : start + n_at_once])
        rows = np.broadcast_to(np.arange(len(gallery_ids)), of_batch.shape)
        _, correct = correct_hits(of_batch, rows, ids[batch], gallery_ids)
        found.append((batch, judge(of_batch, rows, correct)))
    return _joined(found)


def summary(outcomes: Outcomes, query_ids: Sequence[Any], n_gallery: int) -> dict[str, Any]:
    """The figures of a direction. AP@50 is the mean over ids of the mean over an id's queries (Reed et al. 2016)."""
    found = outcomes["rank"]
    figures = {f"R@{k}": recall_at_k(found, k) for k in RECALLS}
    figures |= {"median_rank": median_rank(found), "mean_rank": float(np.mean(found))}
    figures |= {"mAP": 100 * float(np.mean(outcomes["precision"]))}
    if "at_50" in outcomes:
        figures["AP@50"] = 100 * mean_over_ids(outcomes["at_50"], query_ids)
    rounded: dict[str, Any] = {name: round(value, 4) for name, value in figures.items()}
    if "at_50" not in outcomes:
        rounded["missing"] = {"AP@50": f"{n_gallery} items are ranked, {BEST} are needed"}
    return rounded


def mean_over_ids(values: NDArray[Any], ids: Sequence[Any]) -> float:
    """The mean over ids of the mean over the values of an id."""
    _, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return float(np.mean(np.bincount(numbers, values) / np.bincount(numbers)))


@lru_cache(maxsize=64)  # the same in every epoch
def random_metrics(
    query_keys: tuple[str, ...],
    gallery_keys: tuple[str, ...],
    n_draws: int = RANDOM_DRAWS,
    seed: tuple[int, ...] = (0,),
) -> dict[str, float]:
    """The figures of a random ranking, mean over some draws; of many queries some are drawn."""
    rng = np.random.default_rng(seed)
    _, numbers = np.unique([*query_keys, *gallery_keys], return_inverse=True)
    asked, ranked = numbers[: len(query_keys)], numbers[len(query_keys) :]
    draws = []
    for _ in range(n_draws):
        ids = rng.permutation(asked)[:RANDOM_QUERIES]
        outcomes = score_outcomes(
            lambda places: rng.random((len(places), len(ranked)), dtype=np.float32), np.arange(len(ids)), ids, ranked
        )
        draws.append(summary(outcomes, ids.tolist(), len(ranked)))
    return {name: value for name, value in mean_figures(draws).items() if name != "missing"}


def mean_figures(of_parts: Sequence[Mapping[str, Any]], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """The mean of every figure over parts; a figure that one part is missing is missing, with that part's reason."""
    missing = {name: reason for figures in of_parts for name, reason in figures.get("missing", {}).items()}
    names = [name for name in of_parts[0] if name != "missing" and all(name in figures for figures in of_parts)]
    values = {name: [figures[name] for figures in of_parts] for name in names}
    means: dict[str, Any] = {name: round(float(np.average(of, weights=weights)), 4) for name, of in values.items()}
    return means | ({"missing": missing} if missing else {})


def _one_way(
    queries: NDArray[np.float32], rows: NDArray[np.float32], query_ids: NDArray[Any], gallery_ids: NDArray[Any]
) -> dict[str, Any]:
    has_answer = np.isin(query_ids, gallery_ids)
    if not has_answer.any():
        raise ValueError(f"none of the {len(query_ids)} query ids is among the {len(gallery_ids)} of the gallery")
    ids = query_ids[has_answer]
    figures = search_metrics(queries[has_answer], rows, ids.tolist(), gallery_ids.tolist())
    return figures | {"n_left_out": int((~has_answer).sum())}


def _joined(found: Sequence[tuple[NDArray[np.int64], Outcomes]]) -> Outcomes:
    """The outcomes of batches of queries, in the order of the queries."""
    order = np.argsort(np.concatenate([places for places, _ in found]))
    return {name: np.concatenate([outcomes[name] for _, outcomes in found])[order] for name in found[0][1]}
