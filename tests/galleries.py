"""Queries and galleries that a search by way of codes may get wrong, and the ways to make those codes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xmr.engine import _topk
from xmr.engine.codes import Codes

Floats = NDArray[np.float32]
Pair = tuple[NDArray[np.floating], NDArray[np.floating]]  # queries and rows
Make = Callable[[np.random.Generator, int, int], NDArray[np.floating]]

LARGEST = 3e38  # of a float32, nearly


def normal(rows: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def clusters(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    centres = rng.standard_normal((8, dim))
    return centres[rng.integers(0, 8, n)] + 0.05 * rng.standard_normal((n, dim))


def outlier_dimension(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    values = rng.standard_normal((n, dim))
    values[:, dim // 2] *= 60
    return values


def cone(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.standard_normal(dim) + 0.02 * rng.standard_normal((n, dim))


def wide_cone(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.standard_normal(dim) + 0.2 * rng.standard_normal((n, dim))


def relu(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return np.maximum(rng.standard_normal((n, dim)), 0)


def shifted_relu(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return np.maximum(rng.standard_normal((n, dim)) + 5, 0)


def softmax(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    exponentials = np.exp(3 * rng.standard_normal((n, dim)))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def up_to_the_largest_float(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return LARGEST * rng.choice([-1, 1], (n, dim)) * rng.uniform(0, 1, (n, dim)) ** 4


def norms_of_all_magnitudes(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return 10.0 ** rng.integers(-44, 38, (n, 1)) * rng.standard_normal((n, dim))


def values_of_all_magnitudes(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return 10.0 ** rng.integers(-44, 38, (n, dim)) * rng.standard_normal((n, dim))


def equal_up_to_one_ulp(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    base = rng.standard_normal(dim).astype(np.float32)
    towards = rng.choice(np.array([-np.inf, np.inf], dtype=np.float32), (n, dim))
    return np.where(rng.random((n, dim)) < 2 / dim, np.nextafter(base, towards), base)


def duplicates(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.standard_normal((5, dim))[rng.integers(0, 5, n)]


def small_whole_numbers(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.integers(-2, 3, (n, dim)).astype(np.float64)


def sparse(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.standard_normal((n, dim)) * (rng.random((n, dim)) < 1 / dim)


def one_hot(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return np.eye(dim)[rng.integers(0, dim, n)]


def many_zero_rows(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.floating]:
    return rng.standard_normal((n, dim)) * (rng.random((n, 1)) < 0.3)


def scaled(scale: float) -> Make:
    return lambda rng, n, dim: scale * rng.standard_normal((n, dim))


KINDS: dict[str, Make] = {
    "normal": scaled(1),
    "clusters": clusters,
    "outlier dimension": outlier_dimension,
    "cone": cone,
    "wide cone": wide_cone,
    "relu": relu,
    "shifted relu": shifted_relu,
    "softmax": softmax,
    "denormal": scaled(1e-42),
    "smallest": scaled(2e-45),
    "tiny": scaled(1e-30),
    "where scales end": scaled(1e-28),
    "huge": scaled(1e30),
    "up to the largest float": up_to_the_largest_float,
    "norms of all magnitudes": norms_of_all_magnitudes,
    "values of all magnitudes": values_of_all_magnitudes,
    "equal up to one ulp": equal_up_to_one_ulp,
    "duplicates": duplicates,
    "small whole numbers": small_whole_numbers,
    "sparse": sparse,
    "one-hot": one_hot,
    "many zero rows": many_zero_rows,
}


def clipped(values: NDArray[np.floating]) -> Floats:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)


def rows_of_kind(kind: str, rng: np.random.Generator, rows: int, dim: int) -> Floats:
    return clipped(KINDS[kind](rng, rows, dim))


def rows_at_their_bounds(rng: np.random.Generator, n_queries: int, rows: int, dim: int) -> Pair:
    """Rows whose upper bound is their score, among others that are coded without error and score nearly the same.

    The queries are whole numbers up to 127, so they are their own codes. The rows are whole numbers, with 127 in the
    first dimension, so the scale is 1, and what most of them have beside that is parallel to the first query.
    """
    queries = rng.integers(-127, 128, (n_queries, dim)).astype(np.float64)
    queries[:, 0] = 0
    queries[:, -1] = 127 * (dim > 1)
    gallery = rng.integers(-2, 3, (rows, dim)).astype(np.float64)
    gallery[:, 0] = 127
    if n_queries:
        gallery += rng.choice([-1, 0, 0.5, 0.9, 1], (rows, 1)) * (0.499 / 127) * queries[:1]
    return queries, gallery


def scores_few_steps_apart(rng: np.random.Generator, n_queries: int, rows: int, dim: int) -> Pair:
    """Whole numbers that are their own codes, so that scores differ by few times the product of the two scales."""
    queries = rng.integers(-3, 4, (n_queries, dim)).astype(np.float64)
    gallery = rng.integers(-1, 2, (rows, dim)).astype(np.float64)
    queries[:, 0], gallery[:, 0] = 0, 127
    if dim > 1:
        queries[:, -1], gallery[:, -1] = rng.choice([-127, 127], n_queries), 0
    return queries, gallery


def scores_equal_up_to_rounding(rng: np.random.Generator, n_queries: int, rows: int, dim: int) -> Pair:
    """The same numbers in another order in every row, so that only the order of summation tells them apart."""
    queries = rng.standard_normal((n_queries, 1)) * np.ones(dim)
    return queries, rng.permuted(np.tile(rng.standard_normal(dim), (rows, 1)), axis=1)


PAIRS: dict[str, Callable[[np.random.Generator, int, int, int], Pair]] = {
    "rows at their bounds": rows_at_their_bounds,
    "scores few steps apart": scores_few_steps_apart,
    "scores equal up to rounding": scores_equal_up_to_rounding,
}
ALL_KINDS = [*KINDS, *PAIRS]


def queries_and_rows(kind: str, rng: np.random.Generator, n_queries: int, rows: int, dim: int) -> tuple[Floats, Floats]:
    """Queries of the same kind as the rows; some of them are rows, point away from one, or are zero."""
    if kind in PAIRS:
        queries, gallery = PAIRS[kind](rng, n_queries, rows, dim)
        return clipped(queries), clipped(gallery)
    both = rows_of_kind(kind, rng, n_queries + rows, dim)
    queries, gallery = both[:n_queries].copy(), both[n_queries:].copy()
    for query in range(0, n_queries if rows else 0, 3):
        queries[query] = gallery[rng.integers(0, rows)] * rng.choice(np.array([-1, 0, 1], dtype=np.float32))
    return queries, gallery


WAYS = ["own", "plain", "rotated", "mean", "mean rotated", "far", "far rotated"]


def mean_of_way(way: str, rows: Floats, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """What is subtracted: nothing, the mean, or a point far from all rows."""
    if "mean" in way:
        return rows.mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(rows.shape[1])
    if "far" in way:
        return rng.standard_normal(rows.shape[1]) * 10 ** rng.uniform(-3, 3) * float(np.abs(rows).max(initial=0))
    return None


def coded(way: str, rows: Floats, rng: np.random.Generator) -> Codes:
    """The codes of rows, made in one of WAYS; own: as `Codes.encode` chooses."""
    if way == "own":
        return Codes.encode(rows)
    mean = mean_of_way(way, rows, rng)
    return Codes(*_topk.encode(rows, mean, "rotated" in way), mean, "rotated" in way)
