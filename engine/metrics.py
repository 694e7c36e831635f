"""How well a ranking is: ranks, recall@k, median rank, average precision. Ranks count from 1, recall is in percent."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ranks = NDArray[np.int64]


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
    scores, correct = _checked(similarity, query_ids, gallery_ids)
    return _mean_precision(_in_order(scores, correct))


def of_hits(
    scores: ArrayLike, rows: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike
) -> tuple[Ranks, NDArray[np.float64]]:
    """Ranks and average precisions, both (n_queries,), from the best hits of each query instead of all scores.

    scores and rows (n_queries, k) as a search gives them, best first. What the hits do not settle is 0 in both: a
    correct row is not among them, or the last of them ties with one.
    """
    scores, rows, queries, gallery = map(np.asarray, (scores, rows, query_ids, gallery_ids))
    kinds, counts = np.unique(gallery, return_counts=True)
    if not (known := np.isin(queries, kinds)).all():
        raise ValueError(f"query id {queries[~known][0]!r} has no correct row among the {len(gallery)} of the gallery")
    correct = gallery[rows] == queries[:, None]
    is_settled = correct.sum(axis=1) == counts[np.searchsorted(kinds, queries)]
    if rows.shape[1] < len(gallery):
        is_settled &= np.where(correct, scores, np.inf).min(axis=1) > scores[:, -1]
    in_order = _in_order(scores[is_settled], correct[is_settled])
    ranks, precision = np.zeros(len(queries), dtype=np.int64), np.zeros(len(queries))
    ranks[is_settled] = 1 + in_order.argmax(axis=1)
    precision[is_settled] = _mean_precision(in_order)
    return ranks, precision


def _in_order(scores: NDArray[Any], correct: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which places of each ranking are correct: by score downwards, wrong before correct among equals."""
    return np.take_along_axis(correct, np.lexsort((correct, -scores), axis=1), axis=1)


def _mean_precision(in_order: NDArray[np.bool_]) -> NDArray[np.float64]:
    precision = np.cumsum(in_order, axis=1) / np.arange(1, in_order.shape[1] + 1)
    return np.asarray((precision * in_order).sum(axis=1) / in_order.sum(axis=1), dtype=np.float64)


def _checked(
    similarity: ArrayLike, query_ids: ArrayLike, gallery_ids: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    scores, queries, gallery = np.asarray(similarity), np.asarray(query_ids), np.asarray(gallery_ids)
    if scores.shape != (len(queries), len(gallery)):
        raise ValueError(f"similarity is {scores.shape}, ({len(queries)}, {len(gallery)}) expected by the ids")
    if np.isnan(scores).any():
        raise ValueError("similarity holds NaN, numbers expected")
    correct = queries[:, None] == gallery[None, :]
    if not correct.any(axis=1).all():
        lost = queries[~correct.any(axis=1)][0]
        raise ValueError(f"query id {lost!r} has no correct row among the {len(gallery)} of the gallery")
    return scores, correct
