"""The figures of a direction: streamed from searches, equal to those of all scores; and as they were published."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xmr.engine.metrics import average_precision, precision_at_k, ranks
from xmr.train.evaluate import figures, published
from xmr.train.evaluate.figures import mean_figures, retrieval, score_outcomes, search_outcomes, summary
from xmr.train.evaluate.published import cmpl_figures, cmpl_precision, dsve_figures, judge_cmpl, judge_vsepp


def gallery_of(seed: int, n_rows: int, n_ids: int) -> tuple[NDArray[np.float32], ...]:
    """Queries and rows of few small whole numbers, so that scores tie and are exact; ids of both, rows of all ids."""
    rng = np.random.default_rng(seed)
    queries, rows = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (17, n_rows))
    ids = rng.permutation(np.arange(n_rows) % n_ids)
    return queries, rows, rng.choice(ids, 17), ids


@pytest.mark.parametrize(("n_rows", "n_ids"), [(1, 1), (49, 40), (50, 50), (200, 200), (300, 20), (300, 2)])
@pytest.mark.parametrize("n_hits", [1, 3, 128])
def test_a_search_gives_the_outcomes_of_the_whole_matrix(
    n_rows: int, n_ids: int, n_hits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "HITS", n_hits)  # few, so that many queries are asked again
    monkeypatch.setattr(figures, "CELLS", 1000)
    queries, rows, query_ids, ids = gallery_of(n_rows, n_rows, n_ids)
    if n_hits < 50:
        monkeypatch.setattr(figures, "BEST", 1)
    outcomes = search_outcomes(queries, rows, query_ids, ids)
    matrix = queries @ rows.T
    np.testing.assert_array_equal(outcomes["rank"], ranks(matrix, query_ids, ids))
    np.testing.assert_allclose(outcomes["precision"], average_precision(matrix, query_ids, ids), rtol=1e-12)
    if n_rows >= figures.BEST:
        np.testing.assert_array_equal(outcomes["at_50"], precision_at_k(matrix, query_ids, ids, figures.BEST))
    of_scores = score_outcomes(lambda places: matrix[places], np.arange(17), query_ids, ids)
    for name, values in outcomes.items():
        np.testing.assert_allclose(of_scores[name], values, rtol=1e-12)


@pytest.mark.parametrize("judge", [judge_vsepp, judge_cmpl])
def test_figures_as_published_stream_too(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "HITS", 60)
    queries, rows, query_ids, ids = gallery_of(0, 300, 100)
    streamed = search_outcomes(queries, rows, query_ids, ids, judge)
    whole = score_outcomes(lambda places: (queries @ rows.T)[places], np.arange(17), query_ids, ids, judge)
    for name, values in whole.items():
        np.testing.assert_allclose(streamed[name], values, rtol=1e-12)


def outcomes_of(judge: Any, scores: list[float], correct: list[bool]) -> dict[str, NDArray[Any]]:
    rows = np.arange(len(scores))[None]
    found: dict[str, NDArray[Any]] = judge(np.array([scores]), rows, np.array([correct]))
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3).map(float), st.booleans()), min_size=1, max_size=9))
def test_vsepp_sorts_and_reads_backwards(ranking: list[tuple[float, bool]]) -> None:
    scores, correct = (list(part) for part in zip(*ranking, strict=True))
    if not any(correct):
        return
    backwards = np.argsort(scores, kind="stable")[::-1]
    places = [place for place, row in enumerate(backwards) if correct[row]]
    assert outcomes_of(judge_vsepp, scores, correct)["rank"].tolist() == [1 + min(places)]


@pytest.mark.parametrize(
    ("found", "vsepp", "dsve"), [([1], 1, 0), ([3, 1, 2], 2, 1), ([1, 2], 1, 0.5), ([1, 2, 4, 9], 3, 2)]
)
def test_the_median_ranks_of_vsepp_and_dsve(found: list[int], vsepp: float, dsve: float) -> None:
    outcomes = {"rank": np.array(found)}
    assert published.vsepp_figures(outcomes)["median_rank"] == vsepp
    assert dsve_figures(outcomes)["median_rank"] == dsve


@pytest.mark.parametrize(
    ("right_ranks", "precision"),
    [
        ([1], 1.0),
        ([2], 0.0),  # the only right answer, and none before it
        ([1, 2], 0.75),
        ([2, 3], (0 + 1 / 3) / 2),
        ([1, 3, 4], (1 + 1 / 3 + 2 / 4) / 3),
    ],
)
def test_the_average_precision_of_cmpl_worked_by_hand(right_ranks: list[int], precision: float) -> None:
    correct = [rank in right_ranks for rank in range(1, 6)]
    outcomes = outcomes_of(judge_cmpl, [0.9, 0.8, 0.7, 0.6, 0.5], correct)
    assert outcomes["precision"].tolist() == pytest.approx([precision])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_precision_of_cmpl_is_that_of_its_loop(places: list[bool]) -> None:
    expected = []
    for p, is_right in enumerate(places):
        before = places[: max(1, p)]
        expected.append(sum(before) / (p + 1) if is_right else 0.0)
    np.testing.assert_allclose(cmpl_precision(np.array([places]))[0], expected, rtol=1e-12)


def test_cmpl_divides_what_it_finds_in_the_best_50_by_all_right_answers() -> None:
    correct = [place in (0, 1, 60) for place in range(80)]
    outcomes = outcomes_of(judge_cmpl, [float(-place) for place in range(80)], correct)
    assert outcomes["at_50"].tolist() == pytest.approx([(1 + 1 / 2) / 3])


def test_queries_that_cmpl_has_no_answer_for_are_misses() -> None:
    outcomes = {"rank": np.array([1, 2]), "precision": np.array([1.0, 0.5]), "at_50": np.array([1.0, 0.5])}
    assert cmpl_figures(outcomes, 2) == {"R@1": 25.0, "R@5": 50.0, "R@10": 50.0, "mAP": 75.0, "AP@50": 75.0}


def test_ap_at_50_is_the_mean_over_ids_of_the_share_of_right_answers() -> None:
    # id a is asked twice, b once; 30 of 60 rows are a's: it finds all of 30 and 20 of 50, b finds all of its 10
    rows = np.zeros((60, 1), dtype=np.float32)
    ids = np.array(["a"] * 30 + ["b"] * 10 + ["c"] * 20)
    rows[:30], rows[30:40] = 2, 1
    outcomes = search_outcomes(np.array([[1.0], [-1.0], [1.0]], dtype=np.float32), rows, ["a", "a", "b"], ids)
    assert outcomes["at_50"].tolist() == [30 / 50, 20 / 50, 10 / 50]
    assert summary(outcomes, ["a", "a", "b"], 60)["AP@50"] == pytest.approx(100 * ((0.6 + 0.4) / 2 + 0.2) / 2)


def test_the_mean_over_parts_leaves_out_what_one_of_them_lacks() -> None:
    found = mean_figures([{"R@1": 10.0, "AP@50": 3.0}, {"R@1": 20.0, "missing": {"AP@50": "too few"}}])
    assert found == {"R@1": 15.0, "missing": {"AP@50": "too few"}}


def test_five_captions_an_image() -> None:
    rng = np.random.default_rng(0)
    images, captions = rng.normal(size=(12, 6)), rng.normal(size=(60, 6))
    both = retrieval(images, captions, range(12), np.repeat(range(12), 5))
    scores = images.astype(np.float32) @ captions.astype(np.float32).T
    of_images = [min(int((scores[i] > scores[i, c]).sum()) + 1 for c in range(5 * i, 5 * i + 5)) for i in range(12)]
    of_captions = [int((scores[:, c] > scores[c // 5, c]).sum()) + 1 for c in range(60)]
    for name, found in (("a_to_b", of_images), ("b_to_a", of_captions)):
        assert both[name]["median_rank"] == np.median(found)
        assert both[name]["R@5"] == pytest.approx(100 * np.mean(np.array(found) <= 5), abs=1e-4)
