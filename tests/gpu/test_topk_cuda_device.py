"""Exact top-k on the GPUs of this machine: the rows of a float64 brute force, and the scores of the CPU bit for bit."""

import numpy as np
import pytest
from galleries import ALL_KINDS, queries_and_rows
from numpy.typing import NDArray

from xmr.engine.search import Gallery, top_k

_topk_cuda = pytest.importorskip("xmr.engine._topk_cuda", reason="_topk_cuda was not built: there was no nvcc")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_topk_cuda.device_count() == 0, reason="there is no NVIDIA GPU with a working driver"),
]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
CODINGS = ["int8", "float16"]


def normal(rows: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def found_on_gpus(
    queries: Floats, segments: list[Floats], k: int, allow: NDArray[np.bool_] | None, coding: str
) -> tuple[Floats, Rows]:
    if coding == "int8":
        return top_k(queries, Gallery(segments, [None] * len(segments)), k, allow=allow, device="cuda")
    return _topk_cuda.Gallery(segments, coding).top_k(queries, k, allow)


def assert_is_as_on_the_cpu(
    queries: Floats, segments: list[Floats], k: int, coding: str, allow: NDArray[np.bool_] | None = None
) -> None:
    scores, rows = found_on_gpus(queries, segments, k, allow, coding)
    expected_scores, expected_rows = top_k(queries, np.concatenate(segments), k, allow=allow, isa="plain")
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


def assert_is_exact(queries: Floats, gallery: Floats, k: int, allow: NDArray[np.bool_] | None = None) -> None:
    """Both codings against the CPU, whose rows are compared with the brute force."""
    expected = top_k(queries, gallery, k, allow=allow)
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    if allow is not None:
        scores[:, ~allow] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(expected[1], np.where(np.take_along_axis(scores, rows, axis=1) == -np.inf, -1, rows))
    for coding in CODINGS:
        found = found_on_gpus(queries, [gallery], k, allow, coding)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("n_queries", "rows", "dim", "k"),
    [
        (0, 5, 4, 2),
        (3, 0, 4, 2),
        (1, 1, 1, 1),
        (2, 5, 0, 3),
        (1, 4, 16, 1_000_000_000),
        (1, 100_000, 512, 10),
        (8, 100_000, 512, 100),
        (8, 20_000, 4096, 10),
        (9, 50_001, 300, 10),
        (130, 20_000, 65, 10),
        (200, 50_001, 512, 10),
        (1025, 20_000, 64, 5),
        (3, 50_000, 128, 2048),
        (64, 50_000, 128, 2048),
    ],
)
def test_the_gpu_answers_as_the_brute_force(n_queries: int, rows: int, dim: int, k: int) -> None:
    assert_is_exact(normal(n_queries, dim, seed=1), normal(rows, dim, seed=2), k)


@pytest.mark.parametrize("n_queries", [1, 8, 100])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3])
def test_rows_that_are_not_allowed_are_never_found(n_queries: int, share: float) -> None:
    allow = np.random.default_rng(3).random(50_000) < share
    assert_is_exact(normal(n_queries, 64), normal(50_000, 64, seed=2), 20, allow)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("n_queries", [1, 9, 130])
@pytest.mark.parametrize("dim", [65, 300])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_rows_may_be_anything(kind: str, dim: int, n_queries: int, coding: str) -> None:
    queries, gallery = queries_and_rows(kind, np.random.default_rng(0), n_queries, 8000, dim)
    assert_is_as_on_the_cpu(queries, [gallery], 20, coding)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("n_queries", [1, 9, 130])
@pytest.mark.parametrize("dim", [1025, 4096])
def test_sums_that_cancel_in_many_dimensions(dim: int, n_queries: int, coding: str) -> None:
    """Scores of about 1 that are left of sums of dim / 2."""
    half = dim // 2
    queries = np.ones((n_queries, dim), np.float32) + 1e-2 * normal(n_queries, dim, seed=1)
    gallery = np.ones((8000, dim), np.float32)
    gallery[:, half : 2 * half] = -1
    gallery += 1e-2 * normal(8000, dim, seed=2)
    assert_is_as_on_the_cpu(queries, [gallery], 20, coding)


def test_rows_in_a_tight_cone_are_told_apart() -> None:
    gallery = np.random.default_rng(0).integers(-2, 3, (30_000, 48)).astype(np.float32) + 1000
    assert_is_exact(np.ones((9, 48), np.float32), gallery, 50)


def test_equal_rows_come_by_their_number() -> None:
    gallery = np.tile(normal(10, 32), (5000, 1))
    scores, rows = top_k(gallery[:10], gallery, 100, device="cuda")
    np.testing.assert_array_equal(rows, np.arange(10)[:, None] + 10 * np.arange(100))
    assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("n_queries", [1, 9, 130])
@pytest.mark.parametrize("share", [0.001, 0.5, 1.0])
def test_segments_are_numbered_through(share: float, n_queries: int, coding: str) -> None:
    rows = normal(7000, 65)
    segments = [rows[:1], rows[1:5000], rows[5000:5000], rows[5000:]]
    allow = np.random.default_rng(3).random(7000) < share
    assert_is_as_on_the_cpu(normal(n_queries, 65, seed=1), segments, 30, coding, allow)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_query_of_zeros_finds_the_first_rows(coding: str) -> None:
    queries = normal(130, 65, seed=1)
    queries[::7] = 0
    allow = np.arange(20_000) % 3 > 0
    assert_is_as_on_the_cpu(queries, [normal(20_000, 65)], 20, coding, allow)


def test_one_gallery_answers_searches_of_every_size() -> None:
    rows = normal(20_000, 65)
    gallery = Gallery([rows], [None])
    for n_queries, k in [(130, 20), (1, 2048), (1025, 1), (9, 300)]:
        queries = normal(n_queries, 65, seed=n_queries)
        found, expected = top_k(queries, gallery, k, device="cuda"), top_k(queries, rows, k)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[0], expected[0])


def test_a_k_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 2049, at most 2048 expected on a GPU"):
        top_k(normal(1, 4), normal(3000, 4), 2049, device="cuda")


def test_columns_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="queries have 512 columns, the gallery has 256"):
        top_k(normal(2, 512), normal(3, 256), 1, device="cuda")
