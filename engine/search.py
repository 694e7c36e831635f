"""Exact top-k: the rows of a gallery with the largest inner product, found by the native kernels.

A `Gallery` holds rows with their int8 codes and is searched by way of those; the answer is that of scoring every row.
"""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import _topk
from xmr.engine.codes import MAX_DIM, Codes
from xmr.engine.errors import XmrError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
DEVICES = ["cpu", "cuda"]
MAX_THREADS = 1024
CUDA_MAX_K = 2048
ROWS_AT_ONCE = 1024  # checked together, so that they are still in the cache
WORTH_CODING = 32  # queries from which an array that is searched once is coded first


class Gallery:
    """Rows that have been checked and coded once and can be searched many times.

    The rows are kept as they are given, not copied: they must not change as long as the gallery is used.
    """

    def __init__(self, rows: Sequence[Floats], codes: Sequence[Codes | None]) -> None:
        """Segments (rows, dim) float32, finite, searched as one; codes None: every row of the gallery is scored."""
        self.rows = list(rows)
        self.segments = [
            _topk.Segment(of_segment) if coded is None else coded.segment(of_segment)
            for of_segment, coded in zip(rows, codes, strict=True)
        ]
        self._on_cuda: Any = None

    @classmethod
    def encode(cls, array: NDArray[Any], *, threads: int = 0) -> "Gallery":
        """Check and code an array (rows, dim) float32; ValueError as in `top_k`."""
        rows = _finite("gallery", _floats("gallery", array))
        return cls([rows], [Codes.encode(rows, threads=threads) if 1 <= rows.shape[1] <= MAX_DIM else None])

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def dim(self) -> int | None:
        """Columns; None where there is no segment."""
        return self.rows[0].shape[1] if self.rows else None

    def top_k_on_cuda(self, queries: Floats, k: int, allow: NDArray[np.bool_] | None) -> tuple[Floats, Rows]:
        """As `top_k`, on the GPUs of this machine, where the rows are brought once; XmrError where that cannot be."""
        try:
            if self._on_cuda is None:
                self._on_cuda = _cuda_module().Gallery(self.rows)
            scores, rows = self._on_cuda.top_k(queries, k, allow)
        except RuntimeError as error:
            raise XmrError(f"{error}; use the CPU") from None
        return scores, rows


def top_k(
    queries: NDArray[Any],
    gallery: "NDArray[Any] | Gallery",
    k: int,
    *,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 0,
    isa: str = "auto",
    device: str = "cpu",
) -> tuple[Floats, Rows]:
    """The k best gallery rows of each query: scores and row numbers, both (n_queries, min(k, rows)), best first.

    queries (n_queries, dim) and gallery (rows, dim) float32, of any length: the score is the inner product, summed
    in double. Equal scores: the smaller row first. `allow` (rows,) bool leaves rows out; where fewer than k are
    left, the places hold row -1 and score -inf. Bad input raises ValueError before any work.

    On the CPU: `threads` 0 for all; `isa` one of `kernels()`, or auto for the last of them; plain scores every row.
    On `device` cuda: all GPUs of this machine, k up to 2,048; XmrError where there is none.
    """
    rows = gallery if isinstance(gallery, Gallery) else _floats("gallery", gallery)
    queries, k = _floats("queries", queries), operator.index(k)
    allow = None if allow is None else np.ascontiguousarray(allow)
    _check(queries, rows, k, allow, threads, isa, device)
    queries, k = _finite("queries", queries), min(k, len(rows))
    if not isinstance(rows, Gallery):
        is_coded = device == "cpu" and isa != "plain" and (isa != "auto" or len(queries) >= WORTH_CODING)
        rows = Gallery.encode(rows, threads=threads) if is_coded else Gallery([_finite("gallery", rows)], [None])
    if k == 0:
        return np.zeros((len(queries), 0), dtype=np.float32), np.zeros((len(queries), 0), dtype=np.int64)
    if device == "cuda":
        return rows.top_k_on_cuda(queries, k, allow)
    scores, found, _ = _topk.top_k(queries, rows.segments, k, allow, threads, isa)
    return scores, found


def kernels() -> list[str]:
    """The instruction sets usable here, plain first, the fastest last."""
    return _topk.kernels()


def _check(
    queries: Floats,
    gallery: Floats | Gallery,
    k: int,
    allow: NDArray[Any] | None,
    threads: int,
    isa: str,
    device: str,
) -> None:
    """ValueError for what can be said without reading the rows."""
    dim = gallery.dim if isinstance(gallery, Gallery) else gallery.shape[1]
    if dim is not None and queries.shape[1] != dim:
        raise ValueError(f"queries have {queries.shape[1]} columns, the gallery has {dim}")
    if k < 1:
        raise ValueError(f"k is {k}, at least 1 expected")
    if allow is not None and allow.dtype != np.bool_:
        raise ValueError(f"allow is {allow.dtype}, bool expected")
    if allow is not None and allow.shape != (len(gallery),):
        raise ValueError(f"allow has the shape {allow.shape}, the gallery has {len(gallery)} rows")
    if not 0 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads}, 0 (all) to {MAX_THREADS} expected")
    if isa not in ("auto", *kernels()):
        raise ValueError(f"isa is {isa!r}, one of {['auto', *kernels()]} expected")
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, one of {DEVICES} expected")
    if device == "cuda" and isa != "auto":
        raise ValueError(f"isa is {isa!r}, auto expected on a GPU")
    if device == "cuda" and min(k, len(gallery)) > CUDA_MAX_K:
        raise ValueError(f"k is {k}, at most {CUDA_MAX_K} expected on a GPU")


def _floats(name: str, array: NDArray[Any]) -> Floats:
    array = np.asarray(array)
    if array.dtype != np.float32:
        raise ValueError(f"{name}: {array.dtype} found, float32 expected")
    if array.ndim != 2:
        raise ValueError(f"{name}: {array.ndim} axes found, 2 expected")
    return array


def _finite(name: str, array: Floats) -> Floats:
    """The array, contiguous."""
    for start in range(0, len(array), ROWS_AT_ONCE):
        finite = np.isfinite(array[start : start + ROWS_AT_ONCE])
        if not finite.all():
            row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"{name}: row {row} of {len(array)} holds NaN or Inf, finite numbers expected")
    return np.ascontiguousarray(array)


def _cuda_module() -> Any:
    try:
        from xmr.engine import _topk_cuda
    except ImportError as error:
        raise XmrError(f"the CUDA kernel was not built ({error}); install xmr where nvcc is, or use the CPU") from None
    return _topk_cuda
