"""Exact top-k: the same rows as a float64 brute force, whatever the size, the threads, the ties or the codes."""

import math
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from galleries import ALL_KINDS, WAYS, coded, normal, queries_and_rows, rows_of_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xmr.engine import _topk, search
from xmr.engine.codes import MAX_DIM, Codes
from xmr.engine.search import Gallery, kernels, top_k

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Answer = tuple[NDArray[np.floating], NDArray[np.int64]]

LANES = 32
BLOCK_ROWS = 16
FEW_ROWS = 128  # so many, and eight times k, are scored outright: codes leave none of them out
ISAS = ["auto", *kernels()]
PLAIN_AND_FASTEST = ["plain", kernels()[-1]]


# two references: what topk.h defines, bit by bit, and sums that are exact or in any order


def inner_products(query: Floats, gallery: Floats) -> NDArray[np.float64]:
    """As topk.h defines a score: LANES sums in double over the dimensions d ≡ lane, added up by halves."""
    sums = np.zeros((len(gallery), LANES))
    for start in range(0, gallery.shape[1], LANES):
        products = gallery[:, start : start + LANES].astype(np.float64) * query[start : start + LANES]
        sums[:, : products.shape[1]] += products
    while sums.shape[1] > 1:
        sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
    return sums[:, 0]


def best_of(scores: NDArray[np.float64], k: int, allow: Flags | None = None) -> Answer:
    """Of (n_queries, rows): sorted by score downwards, then by row; -inf and -1 where no row is left."""
    if allow is not None:
        scores = np.where(allow, scores, -np.inf)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, rows, axis=1)
    return best, np.where(best == -np.inf, -1, rows)


def definition(queries: Floats, gallery: Floats, k: int, allow: Flags | None = None) -> Answer:
    """What topk.h defines, scores rounded to float32 as they are returned."""
    scores = np.array([inner_products(query, gallery) for query in queries]).reshape(len(queries), len(gallery))
    best, rows = best_of(scores, k, allow)
    with np.errstate(over="ignore"):
        return best.astype(np.float32), rows


def brute_force(queries: Floats, gallery: Floats, k: int, allow: Flags | None = None) -> Answer:
    """By a matrix product in double, summed in an order of its own."""
    return best_of(queries.astype(np.float64) @ gallery.astype(np.float64).T, k, allow)


def assert_equal(found: Answer, expected: Answer, said: str = "") -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=said)


def assert_is_brute_force(queries: Floats, gallery: Floats, k: int, allow: Flags | None = None, **options: Any) -> None:
    scores, rows = top_k(queries, gallery, k, allow=allow, **options)
    expected_scores, expected_rows = brute_force(queries, gallery, k, allow)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6, atol=1e-6)


# every kind of data, mask, segment and code, on every instruction set


@dataclass(frozen=True)
class Case:
    """One search. Everything drawn at random follows from the seed."""

    kind: str
    seed: int
    n_queries: int
    rows: int
    dim: int
    k: int
    mask: str
    ways: list[str]  # of coding, a segment each
    threads: int

    def arrays(self) -> tuple[Floats, Floats, Flags | None]:
        rng = np.random.default_rng(self.seed)
        queries, gallery = queries_and_rows(self.kind, rng, self.n_queries, self.rows, self.dim)
        return queries, gallery, MASKS[self.mask](rng, self.rows)

    def gallery(self, rows: Floats) -> Gallery:
        """The rows in segments, some of which may be empty."""
        rng = np.random.default_rng(self.seed)
        cuts = np.sort(rng.integers(0, len(rows) + 1, len(self.ways) - 1))
        segments = [np.ascontiguousarray(part) for part in np.split(rows, cuts)]
        return Gallery(segments, [coded(way, part, rng) for way, part in zip(self.ways, segments, strict=True)])


def only_last(rng: np.random.Generator, rows: int) -> Flags:
    return np.arange(rows) == rows - 1


def empty_blocks(rng: np.random.Generator, rows: int) -> Flags:
    blocks = rng.random(rows // BLOCK_ROWS + 1) < 0.3
    return np.repeat(blocks, BLOCK_ROWS)[:rows] & (rng.random(rows) < 0.9)


MASKS: dict[str, Callable[[np.random.Generator, int], Flags | None]] = {
    "none": lambda rng, rows: None,
    "half": lambda rng, rows: rng.random(rows) < 0.5,
    "few": lambda rng, rows: rng.random(rows) < 0.03,
    "all": lambda rng, rows: np.ones(rows, dtype=np.bool_),
    "no row": lambda rng, rows: np.zeros(rows, dtype=np.bool_),
    "last row": only_last,
    "empty blocks": empty_blocks,
}


def cases(n_queries: int, rows: int, dim: int) -> st.SearchStrategy[Case]:
    """Searches of up to these sizes."""
    return st.builds(
        Case,
        kind=st.sampled_from(ALL_KINDS),
        seed=st.integers(0, 2**32 - 1),
        n_queries=st.integers(1, n_queries) | st.integers(0, n_queries),
        rows=st.integers(0, rows) | st.integers(rows // 2, rows) | st.integers(rows // 2, rows),
        dim=st.integers(1, dim),
        k=st.integers(1, 16) | st.integers(1, 60) | st.sampled_from([1, 10, 100, 500, 2048, 10**9]),
        mask=st.sampled_from(list(MASKS)),
        ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=4),
        threads=st.sampled_from([0, 1, 2, 7]),
    )


def assert_every_isa_is_the_definition(case: Case) -> None:
    queries, rows, allow = case.arrays()
    gallery, expected = case.gallery(rows), definition(queries, rows, case.k, allow)
    for isa in ISAS:
        found = top_k(queries, gallery, case.k, allow=allow, threads=case.threads, isa=isa)
        assert_equal(found, expected, isa)


@settings(max_examples=5000, deadline=None)
@given(case=cases(n_queries=6, rows=700, dim=150))
def test_every_search_is_the_brute_force(case: Case) -> None:
    assert_every_isa_is_the_definition(case)


@settings(max_examples=500, deadline=None)
@given(case=cases(n_queries=40, rows=2000, dim=300))
def test_every_search_of_more_rows_is_the_brute_force(case: Case) -> None:
    assert_every_isa_is_the_definition(case)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_of_data_coded_in_every_way_is_searched_exactly(kind: str, way: str) -> None:
    for seed, dim in enumerate((1, 3, 64, 100)):
        assert_every_isa_is_the_definition(Case(kind, seed, 4, 250, dim, 7, "none", [way], 1))


@pytest.mark.parametrize("kind", ["normal", "cone", "small whole numbers", "values of all magnitudes"])
@pytest.mark.parametrize(
    ("n_queries", "rows", "dim", "k"),
    [
        (3, 2**16 - 1, 5, 10),
        (3, 2**16, 4, 2048),
        (3, 2**16 + 1, 7, 100),
        (5, 900, 1000, 100),
        (18, 200, 4095, 10),
        (7, 257, 4096, 3),
        (2, 150, MAX_DIM, 3),
        (1, 5, MAX_DIM + 1, 3),
        (2100, 300, 8, 5),
    ],
)
def test_large_sizes_are_searched_exactly(kind: str, n_queries: int, rows: int, dim: int, k: int) -> None:
    queries, gallery = queries_and_rows(kind, np.random.default_rng(rows), n_queries, rows, dim)
    opened, expected = Gallery.encode(gallery), definition(queries, gallery, k)
    for isa in kernels():
        assert_equal(top_k(queries, opened, k, isa=isa), expected, isa)


@pytest.mark.parametrize("isa", kernels())
@pytest.mark.parametrize("k", [1, 5, 30])
def test_rows_a_few_steps_of_their_codes_above_the_threshold_are_found(k: int, isa: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        queries, gallery = queries_and_rows("scores few steps apart", rng, 20, 3000, 8 + seed)
        opened = Gallery([gallery], [coded("plain", gallery, rng)])
        assert_equal(top_k(queries, opened, k, isa=isa), definition(queries, gallery, k))


def test_the_largest_k_of_a_large_batch_is_searched_exactly() -> None:
    queries, gallery = normal(240, 5), normal(13_000, 5, seed=2)
    opened, expected = Gallery.encode(gallery), definition(queries, gallery, 2048)
    for isa in kernels():
        assert_equal(top_k(queries, opened, 2048, isa=isa), expected, isa)


@pytest.mark.parametrize("isa", kernels())
def test_the_largest_sums_of_codes_do_not_overflow(isa: str) -> None:
    gallery = np.ones((160, MAX_DIM), dtype=np.float32)
    gallery[::2] *= -1
    scores, rows = top_k(gallery[:2], Gallery.encode(gallery), 20, isa=isa)
    assert scores.tolist() == [[MAX_DIM] * 20] * 2
    assert rows.tolist() == [list(range(0, 40, 2)), list(range(1, 41, 2))]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    seed=st.integers(0, 2**32 - 1),
    n_queries=st.sampled_from([17, 64, 112]),
    k=st.sampled_from([1, 10, 300]),
    way=st.sampled_from(WAYS),
    mask=st.sampled_from(list(MASKS)),
)
def test_no_number_of_threads_changes_a_bit(kind: str, seed: int, n_queries: int, k: int, way: str, mask: str) -> None:
    """At sizes at which seven threads find work."""
    case = Case(kind, seed, n_queries, 8000, 96, k, mask, [way, way], 0)
    queries, rows, allow = case.arrays()
    gallery = case.gallery(rows)
    alone = top_k(queries, gallery, k, allow=allow, threads=1, isa="plain")
    for isa in kernels()[1:]:
        for threads in (1, 2, 7, 7):
            found = top_k(queries, gallery, k, allow=allow, threads=threads, isa=isa)
            assert_equal(found, alone, f"{isa}, {threads} threads")


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 250),
    dim=st.integers(1, 40),
    k=st.integers(1, 10),
)
def test_no_row_that_is_better_in_exact_arithmetic_is_left_out(
    kind: str, way: str, seed: int, rows: int, dim: int, k: int
) -> None:
    """Better by more than a sum in double can be wrong."""
    rng = np.random.default_rng(seed)
    queries, gallery = queries_and_rows(kind, rng, 2, rows, dim)
    scores, found = top_k(queries, Gallery([gallery], [coded(way, gallery, rng)]), k)
    for query, its_scores, its_rows in zip(queries.astype(np.float64), scores, found, strict=True):
        products = gallery.astype(np.float64) * query
        exact = np.array([math.fsum(row) for row in products])
        wrong = dim * 2.0**-53 * np.abs(products).sum(axis=1)
        left_out = np.delete(np.arange(rows), its_rows)
        worst = (exact + wrong)[its_rows].min()
        assert (exact - wrong)[left_out].max(initial=-np.inf) <= worst
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(its_scores, exact[its_rows].astype(np.float32), rtol=1e-6, atol=2 * wrong.max())


@pytest.mark.parametrize("isa", kernels())
@pytest.mark.parametrize(
    ("n_queries", "rows", "dim", "k"),
    [
        (0, 5, 4, 2),
        (3, 0, 4, 2),
        (0, 0, 4, 1),
        (1, 1, 1, 1),
        (3, 1, 8, 1),
        (2, 5, 0, 3),
        (2, 10, 1, 10),
        (4, 63, 7, 5),
        (4, 64, 8, 64),
        (4, 65, 9, 66),
        (1, 129, 31, 7),
        (5, 1000, 33, 10),
        (40, 1000, 33, 10),
        (1, 4, 16, 1_000_000_000),
    ],
)
def test_an_array_is_searched_as_a_gallery_is(isa: str, n_queries: int, rows: int, dim: int, k: int) -> None:
    queries, gallery = normal(n_queries, dim, seed=1), normal(rows, dim, seed=2)
    assert_is_brute_force(queries, gallery, k, isa=isa)
    assert top_k(queries, gallery, k, isa=isa)[1].shape == (n_queries, min(k, rows))
    assert_equal(top_k(queries, gallery, k, isa=isa), top_k(queries, Gallery.encode(gallery), k))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["small whole numbers", "one-hot"]),
    seed=st.integers(0, 2**32 - 1),
    n_queries=st.integers(0, 20),
    rows=st.integers(0, 600),
    dim=st.integers(1, 40),
    k=st.integers(1, 20) | st.integers(1, 610),
    mask=st.sampled_from(list(MASKS)),
)
def test_scores_that_tie_come_by_row(
    kind: str, seed: int, n_queries: int, rows: int, dim: int, k: int, mask: str
) -> None:
    """Sums of whole numbers are exact, so ties are ties in any order of summation."""
    queries, gallery, allow = Case(kind, seed, n_queries, rows, dim, k, mask, ["own"], 0).arrays()
    for isa in kernels():
        assert_is_brute_force(queries, gallery, k, allow, isa=isa)


def test_equal_rows_come_by_their_number() -> None:
    gallery = np.ones((2000, 12), dtype=np.float32)
    assert top_k(gallery[:2], gallery, 150)[1].tolist() == [list(range(150))] * 2
    assert top_k(gallery[:2], Gallery.encode(gallery), 150)[1].tolist() == [list(range(150))] * 2


@pytest.mark.parametrize("isa", kernels())
def test_every_copy_of_the_best_row_is_found(isa: str) -> None:
    gallery = normal(500, 16) * np.float32(0.01)
    gallery[[3, 70, 71, 499]] = normal(1, 16, seed=5)
    assert top_k(gallery[3:4], gallery, 4, isa=isa)[1].tolist() == [[3, 70, 71, 499]]


@pytest.mark.parametrize("isa", kernels())
def test_scores_that_differ_only_in_double_are_told_apart(isa: str) -> None:
    gallery = np.ones((300, 2), dtype=np.float32)
    gallery[:, 1] = -1e-8
    gallery[[7, 120, 299], 1] = [0, 1e-9, 2e-9]
    scores, rows = top_k(np.ones((1, 2), dtype=np.float32), gallery, 3, isa=isa)
    assert rows.tolist() == [[299, 120, 7]]
    assert scores.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("isa", kernels())
def test_a_zero_query_finds_the_first_rows(isa: str) -> None:
    scores, rows = top_k(np.zeros((2, 40), dtype=np.float32), normal(300, 40), 3, isa=isa)
    assert rows.tolist() == [[0, 1, 2]] * 2
    assert scores.tolist() == [[0, 0, 0]] * 2


# segments and masks


@pytest.mark.parametrize("isa", kernels())
@pytest.mark.parametrize("cuts", [[0], [1], [100], [16, 16, 17], [0, 33, 64, 400]])
def test_segments_are_searched_as_one_gallery(isa: str, cuts: list[int]) -> None:
    queries, rows = normal(5, 24), normal(400, 24, seed=2)
    segments = np.split(rows, cuts)
    gallery = Gallery(segments, [Codes.encode(part) for part in segments])
    assert len(gallery) == 400
    assert_equal(top_k(queries, gallery, 30, isa=isa), definition(queries, rows, 30))


def test_a_segment_without_codes_is_searched_with_the_others() -> None:
    queries, rows = normal(5, 24), normal(400, 24, seed=2)
    gallery = Gallery([rows[:90], rows[90:]], [Codes.encode(rows[:90]), None])
    assert_equal(top_k(queries, gallery, 30), definition(queries, rows, 30))


@pytest.mark.parametrize("isa", kernels())
@pytest.mark.parametrize("n_allowed", [0, 1, 5, 299, 300])
def test_rows_that_are_not_allowed_are_never_found(isa: str, n_allowed: int) -> None:
    allow = np.zeros(300, dtype=np.bool_)
    allow[np.random.default_rng(3).permutation(300)[:n_allowed]] = True
    assert_is_brute_force(normal(4, 10), normal(300, 10, seed=2), 10, allow, isa=isa)


@pytest.mark.parametrize("isa", kernels())
def test_where_no_row_is_allowed_every_place_is_empty(isa: str) -> None:
    scores, rows = top_k(normal(2, 4), normal(300, 4), 2, allow=np.zeros(300, dtype=np.bool_), isa=isa)
    assert rows.tolist() == [[-1, -1]] * 2
    assert scores.tolist() == [[-np.inf, -np.inf]] * 2


@pytest.mark.parametrize("isa", kernels())
def test_where_fewer_than_k_rows_are_allowed_the_last_places_are_empty(isa: str) -> None:
    allow = np.isin(np.arange(300), [17, 80])
    scores, rows = top_k(normal(20, 4), normal(300, 4, seed=2), 5, allow=allow, isa=isa)
    assert (np.sort(rows[:, :2], axis=1) == [17, 80]).all()
    assert (rows[:, 2:] == -1).all()
    assert (scores[:, 2:] == -np.inf).all()


@pytest.mark.parametrize("isa", kernels()[1:])
def test_rows_that_are_not_allowed_cost_nothing(isa: str) -> None:
    rows = normal(5000, 64)
    allow = np.arange(5000) // BLOCK_ROWS == 100
    _, found, n_scored = _topk.top_k(normal(8, 64, seed=2), [Codes.encode(rows).segment(rows)], 4, allow, 1, isa)
    assert (found // BLOCK_ROWS == 100).all()
    assert n_scored <= 8 * BLOCK_ROWS


# what the codes save


def n_scored_per_query(queries: Floats, rows: Floats, codes: Codes, isa: str = "auto") -> float:
    return _topk.top_k(queries, [codes.segment(rows)], 10, None, 1, isa)[2] / len(queries)


def plain_codes(rows: Floats) -> Codes:
    return Codes(*_topk.encode(rows), None, False)


@pytest.mark.parametrize("isa", kernels()[1:])
@pytest.mark.parametrize("n_queries", [1, 40])
def test_a_tenth_of_gaussian_rows_is_not_even_scored(isa: str, n_queries: int) -> None:
    rows = normal(20_000, 64)
    assert n_scored_per_query(normal(n_queries, 64, seed=2), rows, Codes.encode(rows), isa) < 2000


@pytest.mark.parametrize("kind", ["wide cone", "shifted relu", "outlier dimension"])
def test_the_way_of_coding_that_is_chosen_leaves_few_rows_to_score(kind: str) -> None:
    both = rows_of_kind(kind, np.random.default_rng(0), 10_040, 128)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    queries, rows = both[:40].copy(), both[40:].copy()
    chosen = Codes.encode(rows)
    n_scored = n_scored_per_query(queries, rows, chosen)
    assert chosen.mean is not None
    assert n_scored < 1000
    assert 2 * n_scored < n_scored_per_query(queries, rows, plain_codes(rows))


# threads and the interpreter


@pytest.fixture
def ticks() -> Iterator[Callable[[], int]]:
    """How often another Python thread had its turn. It has one only where this thread gives up the GIL."""
    count, is_done = 0, threading.Event()

    def tick() -> None:
        nonlocal count
        while not is_done.is_set():
            count += 1
            time.sleep(0)

    interval_s = sys.getswitchinterval()
    thread = threading.Thread(target=tick)
    thread.start()
    sys.setswitchinterval(1000)
    yield lambda: count
    is_done.set()
    sys.setswitchinterval(interval_s)
    thread.join()


def test_other_threads_go_on_while_a_search_runs(ticks: Callable[[], int]) -> None:
    queries, parts = normal(30, 64), [_topk.Segment(normal(20_000, 64))]
    for _ in range(100):
        before = ticks()
        _topk.top_k(queries, parts, 10, None, 1)
        if ticks() > before:
            return
    pytest.fail("no other thread had a turn during 100 searches")


def test_other_threads_go_on_while_rows_are_coded(ticks: Callable[[], int]) -> None:
    rows = normal(50_000, 64)
    for _ in range(100):
        before = ticks()
        _topk.encode(rows, None, True, 1)
        if ticks() > before:
            return
    pytest.fail("no other thread had a turn while rows were coded 100 times")


def test_searches_may_run_side_by_side() -> None:
    queries, rows = normal(40, 96), normal(8000, 96, seed=2)
    gallery = Gallery.encode(rows)
    expected, found = top_k(queries, gallery, 20, isa="plain"), []
    threads = [
        threading.Thread(target=lambda isa=isa: found.append(top_k(queries, gallery, 20, threads=2, isa=isa)))
        for isa in kernels() * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for answer in found:
        assert_equal(answer, expected)


# arguments


@pytest.mark.parametrize("isa", PLAIN_AND_FASTEST)
@pytest.mark.parametrize(
    "lay_out",
    [
        lambda array: np.asfortranarray(array),
        lambda array: np.repeat(array, 2, axis=0)[::2],
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[::-1][::-1],
    ],
    ids=["columns", "every other row", "every other column", "reversed twice"],
)
def test_the_layout_in_memory_does_not_matter(lay_out: Callable[[Floats], Floats], isa: str) -> None:
    queries, gallery, allow = normal(3, 12), normal(200, 12, seed=2), np.arange(400) % 3 > 0
    found = top_k(lay_out(queries), lay_out(gallery), 9, allow=allow[::2], isa=isa)
    assert_equal(found, definition(queries, gallery, 9, allow[::2]))


def test_rows_need_not_start_where_a_cache_line_does() -> None:
    queries, gallery = normal(3, 20), normal(200, 20, seed=2)
    bytes_of = np.zeros(gallery.nbytes + 1, dtype=np.uint8)
    moved = bytes_of[1:].view(np.float32).reshape(gallery.shape)
    moved[:] = gallery
    assert_equal(top_k(queries, moved, 9), definition(queries, gallery, 9))
    assert_equal(top_k(queries, Gallery.encode(moved), 9), definition(queries, gallery, 9))


def test_arguments_are_left_as_they_were() -> None:
    queries, gallery, allow = normal(3, 6), normal(9, 6, seed=2), np.ones(9, dtype=np.bool_)
    before = [array.copy() for array in (queries, gallery, allow)]
    for isa in kernels():
        top_k(queries, gallery, 4, allow=allow, isa=isa)
    for array, copy in zip((queries, gallery, allow), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("isa", PLAIN_AND_FASTEST)
def test_read_only_arrays_can_be_searched(isa: str) -> None:
    gallery = normal(9, 6)
    gallery.flags.writeable = False
    assert top_k(gallery, gallery, 1, isa=isa)[1].shape == (9, 1)


@pytest.mark.parametrize("isa", PLAIN_AND_FASTEST)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_row(value: float, isa: str) -> None:
    gallery = normal(5, 4)
    gallery[3, 1] = value
    with pytest.raises(ValueError, match="gallery: row 3 of 5 holds NaN or Inf"):
        Gallery.encode(gallery)
    with pytest.raises(ValueError, match="gallery: row 3 of 5 holds NaN or Inf"):
        top_k(normal(2, 4), gallery, 1, isa=isa)
    with pytest.raises(ValueError, match="queries: row 3 of 5 holds NaN or Inf"):
        top_k(gallery, normal(2, 4), 1, isa=isa)


BAD_ARGUMENTS = [
    ({"queries": normal(2, 512), "gallery": normal(3, 256)}, "queries have 512 columns, the gallery has 256"),
    ({"queries": np.zeros(4, np.float32)}, "queries: 1 axes found, 2 expected"),
    ({"gallery": np.zeros((2, 3, 4), np.float32)}, "gallery: 3 axes found, 2 expected"),
    ({"queries": np.zeros((2, 4))}, "queries: float64 found, float32 expected"),
    ({"gallery": np.zeros((2, 4), np.int8)}, "gallery: int8 found, float32 expected"),
    ({"gallery": np.zeros((5, 4), ">f4")}, "gallery: >f4 found, float32 expected"),
    ({"k": 0}, "k is 0, at least 1 expected"),
    ({"k": -3}, "k is -3, at least 1 expected"),
    ({"threads": -1}, "threads is -1, 0 .all. to 1024 expected"),
    ({"allow": np.ones(4, np.bool_)}, r"allow has the shape \(4,\), the gallery has 5 rows"),
    ({"allow": np.ones((5, 1), np.bool_)}, r"allow has the shape \(5, 1\), the gallery has 5 rows"),
    ({"allow": np.ones(5, np.int64)}, "allow is int64, bool expected"),
    ({"isa": "avx9000"}, "isa is 'avx9000', one of .*'plain'"),
    ({"device": "tpu"}, "device is 'tpu', one of .*'cpu'"),
]


@pytest.mark.parametrize("isa", PLAIN_AND_FASTEST)
@pytest.mark.parametrize(("arguments", "said"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_with_what_was_found(arguments: dict[str, object], said: str, isa: str) -> None:
    good: dict[str, object] = {"queries": normal(2, 4), "gallery": normal(5, 4), "k": 1, "isa": isa}
    with pytest.raises(ValueError, match=said):
        top_k(**(good | arguments))


@pytest.mark.parametrize(("arguments", "said"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_before_any_work(
    arguments: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object, **__: object) -> None:
        raise AssertionError("rows are coded although an argument is bad")

    monkeypatch.setattr(search.Codes, "encode", encode)
    good: dict[str, object] = {"queries": normal(2, 4), "gallery": normal(5, 4), "k": 1, "isa": kernels()[-1]}
    with pytest.raises(ValueError, match=said):
        top_k(**(good | arguments))


@pytest.mark.parametrize("isa", PLAIN_AND_FASTEST)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queries": normal(2, 5)}, "queries have 5 columns, the gallery has 4"),
        ({"k": 0}, "k is 0, at least 1 expected"),
        ({"allow": np.ones(31, np.bool_)}, r"allow has the shape \(31,\), the gallery has 30 rows"),
    ],
)
def test_bad_arguments_are_refused_for_an_encoded_gallery_too(
    arguments: dict[str, object], said: str, isa: str
) -> None:
    gallery = Gallery([normal(10, 4), normal(20, 4)], [Codes.encode(normal(10, 4)), Codes.encode(normal(20, 4))])
    good: dict[str, object] = {"queries": normal(2, 4), "gallery": gallery, "k": 1, "isa": isa}
    with pytest.raises(ValueError, match=said):
        top_k(**(good | arguments))


def test_segments_of_different_dim_are_refused_by_both() -> None:
    gallery = Gallery([normal(5, 4), normal(5, 6)], [None, None])
    with pytest.raises(ValueError, match="queries have 4 columns, the gallery has 6"):
        top_k(normal(1, 4), gallery, 1)


def test_k_is_a_whole_number() -> None:
    with pytest.raises(TypeError):
        top_k(normal(2, 4), normal(5, 4), 2.5)


def test_the_instruction_sets_come_from_the_plain_loop_to_the_fastest() -> None:
    known = {
        "x86_64": ["plain", "avx2", "avx512vnni", "amx"],
        "aarch64": ["plain", "neon"],
    }.get(platform.machine(), ["plain"])
    assert kernels()[0] == "plain"
    assert kernels() == known[: len(kernels())]


def test_auto_is_the_fastest() -> None:
    rows = normal(3000, 64)
    parts, queries = [Codes.encode(rows).segment(rows)], normal(3, 64, seed=2)
    n_scored = {isa: _topk.top_k(queries, parts, 10, None, 1, isa)[2] for isa in ISAS}
    assert n_scored["auto"] == n_scored[kernels()[-1]]
    if len(kernels()) > 1:
        assert n_scored["plain"] == 0 < n_scored["auto"]  # plain does not count: it scores every row
