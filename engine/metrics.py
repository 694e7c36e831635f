"""How well a ranking is: ranks, recall@k, median rank, average precision. Ranks count from 1, recall is in percent."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ranks = NDArray[np.int64]
Places = NDArray[np.bool_]  # (n_queries, k): which places of each ranking, best first, hold a correct row
Ties = Literal["against", "smaller row", "larger row"]  # which of equal scores is placed first


def ranks(similarity: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike) -> Ranks:
    """(n_queries,): the rank of each query's best-placed correct row, 1 + the wrong rows that score as high or higher.

    similarity (n_queries, n_rows); a row is correct where its id equals the query's. Ties count against the query,
    so that equal scores everywhere give the worst rank. A query without a correct row raises ValueError.
    """
    scores, correct = _checked(similarity, query_ids, gallery_ids)
    best = np.where(correct, scores, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(1 + ((scores >= best) & ~correct).sum(axis=1), dtype=np.int64)


def recall_at_k(ranks: ArrayLike, k: int) -> float:
    """Percent of the queries whose rank is k or better."""
    return 100.0 * float(np.mean(np.asarray(ranks) <= k))


def median_rank(ranks: ArrayLike) -> float:
    """The median of the ranks."""
    return float(np.median(np.asarray(ranks)))


def average_precision(similarity: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike) -> NDArray[np.float64]:
    """(n_queries,): the mean, over a query's correct rows, of the share of correct rows down to each of them.

    Ties count against the query: a correct row stands behind every wrong row of its score.
    """
    return mean_precision(in_order(*_checked(similarity, query_ids, gallery_ids)))


def precision_at_k(similarity: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike, k: int) -> NDArray[np.float64]:
    """(n_queries,): the share of correct rows among the k best, ties against the query; ValueError for fewer rows."""
    return share_of_first(in_order(*_checked(similarity, query_ids, gallery_ids)), k)


def correct_hits(
    scores: ArrayLike, rows: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which queries the hits settle (n_queries,), and which hits are correct (n_queries, k).

    scores and rows (n_queries, k) as a search gives them, best first. They settle a query whose correct rows are all
    among them, none of which ties with the last: every row that scores as high as a correct one is then there too.
    """
    scores, rows, queries, gallery = map(np.asarray, (scores, rows, query_ids, gallery_ids))
    kinds, counts = np.unique(gallery, return_counts=True)
    if not (known := np.isin(queries, kinds)).all():
        raise ValueError(f"query id {queries[~known][0]!r} has no correct row among the {len(gallery)} of the gallery")
    correct = gallery[rows] == queries[:, None]
    is_settled = correct.sum(axis=1) == counts[np.searchsorted(kinds, queries)]
    if rows.shape[1] < len(gallery):
        is_settled &= np.where(correct, scores, np.inf).min(axis=1) > scores[:, -1]
    return is_settled, correct


def in_order(
    scores: NDArray[Any], correct: NDArray[np.bool_], ties: Ties = "against", rows: NDArray[np.int64] | None = None
) -> Places:
    """The places of each ranking that are correct: by score downwards; among equals wrong before correct, or by row.

    scores (signed numbers) and correct (n_queries, k); rows (n_queries, k), the row numbers, by default 0 to k - 1.
    """
    best_first = np.argsort(-scores, axis=1)
    places, ordered = (np.take_along_axis(of, best_first, axis=1) for of in (correct, scores))
    # where equal scores are all right or all wrong, their order does not matter
    is_open = ((ordered[:, 1:] == ordered[:, :-1]) & (places[:, 1:] != places[:, :-1])).any(axis=1)
    if is_open.any():
        numbers = np.broadcast_to(np.arange(scores.shape[1]), scores.shape) if rows is None else rows
        first = {"against": correct, "smaller row": numbers, "larger row": -numbers}[ties][is_open]
        by_score_and_tie = np.lexsort((first, -scores[is_open]), axis=1)
        places[is_open] = np.take_along_axis(correct[is_open], by_score_and_tie, axis=1)
    return places


def first_correct(places: Places) -> Ranks:
    """(n_queries,): the rank of the best-placed correct row; every query must have one."""
    return np.asarray(1 + places.argmax(axis=1), dtype=np.int64)


def mean_precision(places: Places) -> NDArray[np.float64]:
    """(n_queries,): the average precision of rankings whose correct rows are all there."""
    precision = np.cumsum(places, axis=1) / np.arange(1, places.shape[1] + 1)
    return np.asarray((precision * places).sum(axis=1) / places.sum(axis=1), dtype=np.float64)


def share_of_first(places: Places, k: int) -> NDArray[np.float64]:
    """(n_queries,): the share of correct rows among the first k; ValueError where there are fewer places."""
    if places.shape[1] < k:
        raise ValueError(f"{places.shape[1]} rows are ranked, {k} expected at least")
    return np.asarray(places[:, :k].mean(axis=1), dtype=np.float64)


def _checked(
    similarity: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    scores, queries, gallery = np.asarray(similarity), np.asarray(query_ids), np.asarray(gallery_ids)
    if scores.dtype.kind in "bu":  # which have no negative
        scores = scores.astype(np.float64)
    if scores.shape != (len(queries), len(gallery)):
        raise ValueError(f"similarity is {scores.shape}, ({len(queries)}, {len(gallery)}) expected by the ids")
    if np.isnan(scores).any():
        raise ValueError("similarity holds NaN, numbers expected")
    correct = queries[:, None] == gallery[None, :]
    if not correct.any(axis=1).all():
        lost = queries[~correct.any(axis=1)][0]
        raise ValueError(f"query id {lost!r} has no correct row among the {len(gallery)} of the gallery")
    return scores, correct
