"""Exact top-k: the same rows as a float64 brute force, whatever the size, the threads or the ties."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from xmr.engine.search import Gallery, kernels, top_k

Floats = NDArray[np.float32]


def normal(rows: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def brute_force(
    queries: Floats, gallery: Floats, k: int, allow: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every inner product in double, sorted by score downwards, then by row; -inf and -1 where no row is left."""
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    if allow is not None:
        scores[:, ~allow] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, rows, axis=1)
    return best, np.where(best == -np.inf, -1, rows)


def assert_is_brute_force(
    queries: Floats, gallery: Floats, k: int, allow: NDArray[np.bool_] | None = None, **options: Any
) -> None:
    scores, rows = top_k(queries, gallery, k, allow=allow, **options)
    expected_scores, expected_rows = brute_force(queries, gallery, k, allow)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6, atol=1e-6)


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
        (2, 300, 1000, 100),
        (7, 257, 4096, 3),
        (1, 4, 16, 1_000_000_000),
    ],
)
def test_top_k_is_the_brute_force(isa: str, n_queries: int, rows: int, dim: int, k: int) -> None:
    queries, gallery = normal(n_queries, dim, seed=1), normal(rows, dim, seed=2)
    assert_is_brute_force(queries, gallery, k, isa=isa)
    assert top_k(queries, gallery, k, isa=isa)[1].shape == (n_queries, min(k, rows))


@pytest.mark.parametrize("isa", kernels())
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_top_k_is_the_brute_force_where_scores_tie(isa: str, data: st.DataObject) -> None:
    n_queries, rows, dim = (data.draw(st.integers(0, size)) for size in (4, 150, 20))
    small = st.integers(-2, 2).map(np.float32)  # whole numbers: every sum is exact, so ties are ties in any order
    queries = data.draw(arrays(np.float32, (n_queries, dim), elements=small))
    gallery = data.draw(arrays(np.float32, (rows, dim), elements=small))
    allow = data.draw(st.none() | arrays(np.bool_, rows))
    threads = data.draw(st.sampled_from([0, 1, 2, 7]))
    assert_is_brute_force(queries, gallery, data.draw(st.integers(1, 160)), allow, threads=threads, isa=isa)


def test_equal_rows_come_by_their_number() -> None:
    gallery = np.ones((200, 12), dtype=np.float32)
    assert top_k(gallery[:2], gallery, 150)[1].tolist() == [list(range(150))] * 2


def test_every_copy_of_the_best_row_is_found() -> None:
    gallery = normal(500, 16) * np.float32(0.01)
    gallery[[3, 70, 71, 499]] = normal(1, 16, seed=5)
    assert top_k(gallery[3:4], gallery, 4)[1].tolist() == [[3, 70, 71, 499]]


@pytest.mark.parametrize("scale", [1e-42, 1e-20, 1e30])
def test_very_small_and_very_large_numbers_rank_as_in_double(scale: float) -> None:
    queries, gallery = normal(3, 19) * np.float32(scale), normal(90, 19, seed=2) * np.float32(scale)
    with np.errstate(over="ignore"):
        rows = top_k(queries, gallery, 90)[1]
    np.testing.assert_array_equal(rows, brute_force(queries, gallery, 90)[1])


def test_scores_that_differ_only_in_double_are_told_apart() -> None:
    gallery = np.ones((3, 2), dtype=np.float32)
    gallery[:, 1] = [0, 1e-9, 2e-9]
    scores, rows = top_k(np.ones((1, 2), dtype=np.float32), gallery, 3)
    assert rows.tolist() == [[2, 1, 0]]
    assert scores.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("n_allowed", [0, 1, 5, 299, 300])
def test_rows_that_are_not_allowed_are_never_found(n_allowed: int) -> None:
    allow = np.zeros(300, dtype=np.bool_)
    allow[np.random.default_rng(3).permutation(300)[:n_allowed]] = True
    assert_is_brute_force(normal(4, 10), normal(300, 10, seed=2), 20, allow)


def test_where_no_row_is_allowed_every_place_is_empty() -> None:
    scores, rows = top_k(normal(2, 4), normal(3, 4), 2, allow=np.zeros(3, dtype=np.bool_))
    assert rows.tolist() == [[-1, -1]] * 2
    assert scores.tolist() == [[-np.inf, -np.inf]] * 2


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
def test_the_layout_in_memory_does_not_matter(lay_out: Callable[[Floats], Floats]) -> None:
    queries, gallery, allow = normal(3, 12), normal(70, 12, seed=2), np.arange(140) % 3 > 0
    scores, rows = top_k(lay_out(queries), lay_out(gallery), 9, allow=allow[::2])
    np.testing.assert_array_equal(rows, brute_force(queries, gallery, 9, allow[::2])[1])
    np.testing.assert_array_equal(scores, top_k(queries, gallery, 9, allow=allow[::2].copy())[0])


@pytest.mark.parametrize("rows", [1, 64, 65, 1000])
def test_the_number_of_threads_changes_no_bit(rows: int) -> None:
    queries, gallery = normal(5, 37), normal(rows, 37, seed=2)
    gallery[rows // 2 :] = gallery[: rows - rows // 2]
    alone = top_k(queries, gallery, 50, threads=1)
    for threads in (0, 2, 7):
        for one, other in zip(alone, top_k(queries, gallery, 50, threads=threads), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_encoded_gallery_answers_as_the_array_does() -> None:
    array = normal(200, 24)
    gallery = Gallery.encode(array)
    assert len(gallery) == 200
    for seed in range(3):
        queries = normal(2, 24, seed)
        for one, other in zip(top_k(queries, gallery, 5), top_k(queries, array, 5), strict=True):
            np.testing.assert_array_equal(one, other)


def test_arguments_are_left_as_they_were() -> None:
    queries, gallery, allow = normal(3, 6), normal(9, 6, seed=2), np.ones(9, dtype=np.bool_)
    before = [array.copy() for array in (queries, gallery, allow)]
    top_k(queries, gallery, 4, allow=allow)
    for array, copy in zip((queries, gallery, allow), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_read_only_arrays_can_be_searched() -> None:
    gallery = normal(9, 6)
    gallery.flags.writeable = False
    assert top_k(gallery, gallery, 1)[1].shape == (9, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gallery_that_is_not_finite_is_refused_by_row(value: float) -> None:
    gallery = normal(5, 4)
    gallery[3, 1] = value
    with pytest.raises(ValueError, match="gallery: row 3 of 5 holds NaN or Inf"):
        Gallery.encode(gallery)
    with pytest.raises(ValueError, match="queries: row 3 of 5 holds NaN or Inf"):
        top_k(gallery, normal(2, 4), 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queries": normal(2, 512), "gallery": normal(3, 256)}, "queries have 512 columns, the gallery has 256"),
        ({"queries": np.zeros(4, np.float32)}, "queries: 1 axes found, 2 expected"),
        ({"gallery": np.zeros((2, 3, 4), np.float32)}, "gallery: 3 axes found, 2 expected"),
        ({"queries": np.zeros((2, 4))}, "queries: float64 found, float32 expected"),
        ({"gallery": np.zeros((2, 4), np.int8)}, "gallery: int8 found, float32 expected"),
        ({"gallery": np.zeros((5, 4), ">f4")}, "gallery: >f4 found, float32 expected"),
        ({"k": 0}, "k is 0, at least 1 expected"),
        ({"k": -3}, "k is -3, at least 1 expected"),
        ({"threads": -1}, "threads is -1, 0 .all. or more expected"),
        ({"allow": np.ones(4, np.bool_)}, r"allow has the shape \(4,\), the gallery has 5 rows"),
        ({"allow": np.ones(5, np.int64)}, "allow is int64, bool expected"),
        ({"isa": "avx9000"}, "isa is 'avx9000', one of .*'plain'"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_found(arguments: dict[str, object], said: str) -> None:
    good: dict[str, object] = {"queries": normal(2, 4), "gallery": normal(5, 4), "k": 1}
    with pytest.raises(ValueError, match=said):
        top_k(**(good | arguments))


def test_k_is_a_whole_number() -> None:
    with pytest.raises(TypeError):
        top_k(normal(2, 4), normal(5, 4), 2.5)


def test_the_plain_kernel_is_listed_first() -> None:
    assert kernels()[0] == "plain"
