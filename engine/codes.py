"""The int8 codes of a segment's rows, a quarter of their bytes: what a search reads in place of them.

csrc/topk.h says what they mean. They are made once, when a segment is written, in the way that leaves a search the
fewest rows to score: as the rows stand, or after subtracting their mean, or also rotated.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import _topk
from xmr.engine.errors import XmrError
from xmr.engine.files import write_whole

FORMAT = 1
MAX_DIM = _topk.MAX_DIM
SAMPLE_ROWS = 4096  # on which the ways to code are compared
SAMPLE_QUERIES = 32
SAMPLE_K = 10
WORTH_A_SHIFT = 2.0  # how many times fewer rows must be left by a way that costs more

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Codes:
    """The arrays that csrc/topk.h describes, of rows (n, dim)."""

    codes: NDArray[np.uint8]
    blocks: Floats  # (blocks of 16 rows, 4): scale, largest residual norm, largest norm
    bounds: Floats  # (rows of all blocks, 2): residual norm, norm
    mean: NDArray[np.float64] | None  # (dim,) was subtracted
    is_rotated: bool

    @classmethod
    def encode(cls, rows: Floats, *, threads: int = 0) -> "Codes":
        """The codes of finite rows, made in the way that suits them."""
        mean, is_rotated = _best_way(rows)
        return cls(*_topk.encode(rows, mean, is_rotated, threads), mean, is_rotated)

    def part(self, rows: Floats) -> _topk.Part:
        """Rows and codes as the kernel takes them; ValueError where their sizes do not belong together."""
        return _topk.Part(rows, self.codes, self.blocks, self.bounds, self.mean, self.is_rotated)

    def save(self, path: Path, rows_sha256: str) -> None:
        """Write `path`.json and an array `path`.*.npy each beside it; rows_sha256 is of the file of the rows."""
        arrays: dict[str, NDArray[Any]] = {"codes": self.codes, "blocks": self.blocks, "bounds": self.bounds}
        if self.mean is not None:
            arrays["mean"] = self.mean
        for name, array in arrays.items():
            write_whole(_array_path(path, name), partial(np.save, arr=array, allow_pickle=False))
        meta = {"format": FORMAT, "rows_sha256": rows_sha256, "is_rotated": self.is_rotated, "arrays": list(arrays)}
        write_whole(_meta_path(path), lambda file: file.write(json.dumps(meta).encode()))

    @classmethod
    def open(cls, path: Path, rows_sha256: str) -> "Codes":
        """Codes as `save` wrote them, memory-mapped; XmrError where they are damaged or of other rows."""
        try:
            meta = json.loads(_meta_path(path).read_text())
            found = meta["format"], meta["rows_sha256"]
            if found != (FORMAT, rows_sha256):
                raise ValueError(f"format and rows {found} found, {(FORMAT, rows_sha256)} expected")
            arrays = {name: _mapped(_array_path(path, name)) for name in meta["arrays"]}
            return cls(arrays["codes"], arrays["blocks"], arrays["bounds"], arrays.get("mean"), meta["is_rotated"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise XmrError(f"{path}: the codes of a segment cannot be read ({error}); index again elsewhere") from None


def _meta_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _array_path(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}.npy")


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _best_way(rows: Floats) -> tuple[NDArray[np.float64] | None, bool]:
    """Which mean to subtract, and whether to rotate: the plainest way that comes near the fewest rows to score."""
    sample = np.ascontiguousarray(rows[:: max(1, len(rows) // SAMPLE_ROWS)][:SAMPLE_ROWS])
    queries = np.ascontiguousarray(sample[:: max(1, len(sample) // SAMPLE_QUERIES)][:SAMPLE_QUERIES])
    ways: list[tuple[NDArray[np.float64] | None, bool]] = [(None, False)]
    if len(sample) > 4 * SAMPLE_K:
        mean = sample.mean(axis=0, dtype=np.float64)
        ways += [(mean, False), (mean, True)]
    n_scored = [_n_scored(sample, queries, *way) for way in ways]
    return next(way for way, n in zip(ways, n_scored, strict=True) if n <= WORTH_A_SHIFT * min(n_scored))


def _n_scored(sample: Floats, queries: Floats, mean: NDArray[np.float64] | None, is_rotated: bool) -> int:
    codes = Codes(*_topk.encode(sample, mean, is_rotated), mean, is_rotated)
    return _topk.top_k(queries, [codes.part(sample)], SAMPLE_K)[2] if len(sample) else 0
