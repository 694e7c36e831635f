"""Ranks and what is counted from them: cases worked by hand, and naive loops over random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xmr.engine.metrics import (
    Ties,
    average_precision,
    correct_hits,
    first_correct,
    in_order,
    mean_precision,
    median_rank,
    precision_at_k,
    ranks,
    recall_at_k,
)


def naive_rank(scores: list[float], correct: list[bool]) -> int:
    """The place of the first correct row in the worst order that the scores allow."""
    worst = sorted(zip(scores, correct, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return 1 + [is_correct for _, is_correct in worst].index(True)


def naive_average_precision(scores: list[float], correct: list[bool]) -> float:
    worst = sorted(zip(scores, correct, strict=True), key=lambda pair: (-pair[0], pair[1]))
    n_correct, precisions = 0, []
    for place, (_, is_correct) in enumerate(worst, start=1):
        if is_correct:
            n_correct += 1
            precisions.append(n_correct / place)
    return sum(precisions) / len(precisions)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Few scores and few ids, so that ties and several correct rows are common; every query has a correct row."""
    gallery = draw(st.lists(st.integers(0, 3), min_size=1, max_size=12))
    queries = draw(st.lists(st.sampled_from(gallery), min_size=1, max_size=5))
    row = st.lists(st.integers(-2, 2).map(float), min_size=len(gallery), max_size=len(gallery))
    return np.array([draw(row) for _ in queries]), queries, gallery


@settings(max_examples=200, deadline=None)
@given(rankings())
def test_ranks_and_average_precision_are_those_of_a_loop(
    ranking: tuple[NDArray[np.float64], list[int], list[int]],
) -> None:
    similarity, queries, gallery = ranking
    correct = [[query == row for row in gallery] for query in queries]
    lines = list(zip(similarity.tolist(), correct, strict=True))
    assert ranks(similarity, queries, gallery).tolist() == [naive_rank(*line) for line in lines]
    expected = [naive_average_precision(*line) for line in lines]
    np.testing.assert_allclose(average_precision(similarity, queries, gallery), expected, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(rankings(), st.integers(1, 12))
def test_hits_that_settle_a_query_give_the_metrics_of_all_its_scores(
    ranking: tuple[NDArray[np.float64], list[int], list[int]], k: int
) -> None:
    similarity, queries, gallery = ranking
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(similarity, rows, axis=1)
    settled, correct = correct_hits(scores, rows, queries, gallery)
    places = in_order(scores[settled], correct[settled])
    assert settled.all() or k < len(gallery)
    np.testing.assert_array_equal(first_correct(places), ranks(similarity, queries, gallery)[settled])
    np.testing.assert_array_equal(mean_precision(places), average_precision(similarity, queries, gallery)[settled])


@pytest.mark.parametrize(
    ("rows", "is_settled"),
    [
        ([0, 1, 4], True),  # both of id a, and what follows scores less
        ([2, 1, 0], False),  # both, but a row that was not found may tie with the last
        ([2, 0, 4], False),  # one is missing
        ([2, 1, 4, 0, 3], True),  # nothing is
    ],
)
def test_hits_settle_a_query_when_they_surely_hold_all_its_correct_rows(rows: list[int], is_settled: bool) -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5][: len(rows)]
    assert correct_hits([scores], [rows], ["a"], ["a", "a", "b", "c", "d"])[0].tolist() == [is_settled]


def test_scores_without_a_sign_rank_as_others_do() -> None:
    for kind in (np.uint8, np.bool_, np.int64, np.float32):
        scores = np.array([[1, 0, 0]], dtype=kind)
        assert average_precision(scores, [0], [0, 1, 2]).tolist() == [1.0]
        assert precision_at_k(scores, [0], [0, 1, 2], 1).tolist() == [1.0]


@pytest.mark.parametrize(
    ("scores", "gallery_ids", "rank", "precision"),
    [
        ([0.9, 0.5, 0.1], ["a", "b", "c"], 1, 1.0),
        ([0.1, 0.5, 0.9], ["a", "b", "c"], 3, 1 / 3),
        ([0.5, 0.5, 0.5], ["a", "b", "c"], 3, 1 / 3),  # a tie counts against the query
        ([0.5, 0.5, 0.1], ["a", "b", "a"], 2, (1 / 2 + 2 / 3) / 2),
        ([0.9, 0.8, 0.7, 0.6], ["a", "b", "a", "b"], 1, (1 + 2 / 3) / 2),
        ([0.7, 0.7], ["a", "a"], 1, 1.0),  # a tie among correct rows costs nothing
        ([-3.0], ["a"], 1, 1.0),
    ],
)
def test_one_query_worked_by_hand(scores: list[float], gallery_ids: list[str], rank: int, precision: float) -> None:
    assert ranks([scores], ["a"], gallery_ids).tolist() == [rank]
    assert average_precision([scores], ["a"], gallery_ids).tolist() == pytest.approx([precision])


def test_the_best_placed_of_several_correct_rows_counts() -> None:
    similarity = [[0.2, 0.9, 0.4, 0.8], [0.2, 0.9, 0.4, 0.8]]
    assert ranks(similarity, [0, 1], [0, 1, 0, 0]).tolist() == [2, 1]


def test_equal_scores_everywhere_give_the_worst_rank() -> None:
    assert ranks(np.zeros((3, 10)), [0, 1, 2], range(10)).tolist() == [10, 10, 10]


@settings(max_examples=100, deadline=None)
@given(rankings(), st.integers(1, 12))
def test_precision_at_k_is_that_of_a_loop(ranking: tuple[NDArray[np.float64], list[int], list[int]], k: int) -> None:
    similarity, queries, gallery = ranking
    if k > len(gallery):
        with pytest.raises(ValueError, match=f"{len(gallery)} rows are ranked, {k} expected"):
            precision_at_k(similarity, queries, gallery, k)
        return
    for found, scores, query in zip(precision_at_k(similarity, queries, gallery, k), similarity, queries, strict=True):
        worst = sorted(zip(scores, gallery, strict=True), key=lambda pair: (-pair[0], pair[1] == query))
        assert found == sum(id_ == query for _, id_ in worst[:k]) / k


@pytest.mark.parametrize(
    ("ties", "correct_row", "place"),
    [
        ("against", 1, 2),
        ("against", 5, 2),
        ("smaller row", 1, 0),
        ("smaller row", 3, 1),
        ("larger row", 1, 2),
        ("larger row", 5, 0),
    ],
)
def test_what_comes_first_among_equal_scores(ties: Ties, correct_row: int, place: int) -> None:
    scores, rows = np.array([[0.5, 0.9, 0.9, 0.9]]), np.array([[7, 3, 1, 5]])
    assert in_order(scores, rows == correct_row, ties, rows).argmax() == place


@pytest.mark.parametrize(("k", "percent"), [(1, 25.0), (2, 25.0), (5, 75.0), (9, 75.0), (10, 100.0)])
def test_recall_is_the_percent_of_ranks_up_to_k(k: int, percent: float) -> None:
    assert recall_at_k([1, 3, 5, 10], k) == percent


@pytest.mark.parametrize(("found", "median"), [([7], 7.0), ([1, 2, 9], 2.0), ([9, 1, 2, 4], 3.0)])
def test_median_rank_lies_in_the_middle(found: list[int], median: float) -> None:
    assert median_rank(found) == median


@pytest.mark.parametrize("measure", [ranks, average_precision])
@pytest.mark.parametrize(
    ("similarity", "query_ids", "said"),
    [
        ([[1.0, 2.0]], [0], r"similarity is \(1, 2\), \(1, 3\) expected"),
        ([[1.0, 2.0, np.nan]], [0], "similarity holds NaN"),
        ([[1.0, 2.0, 3.0]], [9], "query id .*9.* has no correct row among the 3"),
    ],
)
def test_a_ranking_that_cannot_be_judged_is_refused(measure, similarity, query_ids, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        measure(similarity, query_ids, [0, 1, 2])


def test_scores_of_minus_infinity_rank_last() -> None:
    assert ranks([[-np.inf, 0.5, -np.inf]], [0], [0, 1, 2]).tolist() == [3]
