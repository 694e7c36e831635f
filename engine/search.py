"""Exact top-k: the rows of a gallery with the largest inner product, found by the native kernel."""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import _topk

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
KERNELS = ["plain"]


@dataclass(frozen=True)
class Gallery:
    """(rows, dim) float32 that have been checked once and can be searched many times."""

    rows: Floats

    @classmethod
    def encode(cls, array: NDArray[Any]) -> "Gallery":
        """Check an array for repeated searches; ValueError as in `top_k`."""
        return cls(_checked("gallery", array))

    def __len__(self) -> int:
        return len(self.rows)


def top_k(
    queries: NDArray[Any],
    gallery: "NDArray[Any] | Gallery",
    k: int,
    *,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 0,
    isa: str = "auto",
) -> tuple[Floats, Rows]:
    """The k best gallery rows of each query: scores and row numbers, both (n_queries, min(k, rows)), best first.

    queries (n_queries, dim) and gallery (rows, dim) float32, of any length: the score is the inner product, summed
    in double. Equal scores: the smaller row first. `allow` (rows,) bool leaves rows out; where fewer than k are
    left, the places hold row -1 and score -inf. Threads 0: all. Bad input raises ValueError before any work.
    """
    if isa not in ("auto", *KERNELS):
        raise ValueError(f"isa is {isa!r}, one of {['auto', *KERNELS]} expected")
    if not isinstance(gallery, Gallery):
        gallery = Gallery.encode(gallery)
    if allow is not None:
        allow = np.ascontiguousarray(allow)
        if allow.dtype != np.bool_:
            raise ValueError(f"allow is {allow.dtype}, bool expected")
        if allow.shape != (len(gallery),):
            raise ValueError(f"allow has the shape {allow.shape}, the gallery has {len(gallery)} rows")
    return _topk.top_k(_checked("queries", queries), gallery.rows, operator.index(k), allow, threads)


def kernels() -> list[str]:
    """The instruction sets usable here, plain first."""
    return list(KERNELS)


def _checked(name: str, array: NDArray[Any]) -> Floats:
    array = np.asarray(array)
    if array.dtype != np.float32:
        raise ValueError(f"{name}: {array.dtype} found, float32 expected")
    if array.ndim != 2:
        raise ValueError(f"{name}: {array.ndim} axes found, 2 expected")
    array = np.ascontiguousarray(array)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"{name}: row {row} of {len(array)} holds NaN or Inf, finite numbers expected")
    return array
