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
ROWS_AT_ONCE = 1024  # checked together, so that they are still in the cache
WORTH_CODING = 32  # queries from which an array that is searched once is coded first


class Gallery:
    """Rows that have been checked and coded once and can be searched many times."""

    def __init__(self, rows: Sequence[Floats], codes: Sequence[Codes | None]) -> None:
        """Segments (rows, dim) float32, finite, searched as one; codes None: every row of the gallery is scored."""
        self.segments = list(rows)
        self.parts = [
            _topk.Part(part) if coded is None else coded.part(part) for part, coded in zip(rows, codes, strict=True)
        ]
        self._on_cuda: Any = None

    @classmethod
    def encode(cls, array: NDArray[Any], *, threads: int = 0) -> "Gallery":
        """Check and code an array (rows, dim) float32; ValueError as in `top_k`."""
        rows = _checked("gallery", array)
        return cls([rows], [Codes.encode(rows, threads=threads) if 1 <= rows.shape[1] <= MAX_DIM else None])

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def on_cuda(self) -> Any:
        """The same rows on the GPUs of this machine, brought there once; XmrError where there is none, or no room."""
        if self._on_cuda is None:
            module = _cuda_module()
            try:
                self._on_cuda = module.Gallery(self.segments)
            except RuntimeError as error:
                raise XmrError(f"{error}; use the CPU") from None
        return self._on_cuda


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
    left, the places hold row -1 and score -inf. Threads 0: all. `isa` is one of `kernels()`, or auto: the last of
    them; plain scores every row. Bad input raises ValueError before any work. `device` cuda: on the GPUs of this
    machine, with k up to 2,048; XmrError where there is none.
    """
    if isa not in ("auto", *kernels()):
        raise ValueError(f"isa is {isa!r}, one of {['auto', *kernels()]} expected")
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, one of {DEVICES} expected")
    if device == "cuda" and isa != "auto":
        raise ValueError(f"isa is {isa!r}, auto expected on a GPU")
    queries = _checked("queries", queries)
    k = operator.index(k)
    if not isinstance(gallery, Gallery):
        is_coded = isa not in ("auto", "plain") or (isa == "auto" and len(queries) >= WORTH_CODING)
        rows = _checked("gallery", gallery)
        gallery = Gallery.encode(rows, threads=threads) if is_coded and device == "cpu" else Gallery([rows], [None])
    if allow is not None:
        allow = np.ascontiguousarray(allow)
        if allow.dtype != np.bool_:
            raise ValueError(f"allow is {allow.dtype}, bool expected")
        if allow.shape != (len(gallery),):
            raise ValueError(f"allow has the shape {allow.shape}, the gallery has {len(gallery)} rows")
    if device == "cuda":
        scores, found = gallery.on_cuda().top_k(queries, k, allow)
    else:
        scores, found, _ = _topk.top_k(queries, gallery.parts, k, allow, threads, isa)
    return scores, found


def kernels() -> list[str]:
    """The instruction sets usable here, plain first, the fastest last."""
    return _topk.kernels()


def _checked(name: str, array: NDArray[Any]) -> Floats:
    array = np.asarray(array)
    if array.dtype != np.float32:
        raise ValueError(f"{name}: {array.dtype} found, float32 expected")
    if array.ndim != 2:
        raise ValueError(f"{name}: {array.ndim} axes found, 2 expected")
    array = np.ascontiguousarray(array)
    for start in range(0, len(array), ROWS_AT_ONCE):
        finite = np.isfinite(array[start : start + ROWS_AT_ONCE])
        if not finite.all():
            row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"{name}: row {row} of {len(array)} holds NaN or Inf, finite numbers expected")
    return array


def _cuda_module() -> Any:
    try:
        from xmr.engine import _topk_cuda
    except ImportError as error:
        raise XmrError(f"the CUDA kernel was not built ({error}); install xmr where nvcc is, or use the CPU") from None
    if _topk_cuda.device_count() == 0:
        raise XmrError("no NVIDIA GPU with a working driver found; install the driver, or use the CPU")
    return _topk_cuda
