"""The int8 codes of a segment's rows, a quarter of their bytes: what a search reads in place of them.

csrc/topk.h says what they mean. They are made once, when a segment is written, in the way that leaves a search the
fewest rows to score: as the rows stand, or after subtracting their mean, or also rotated.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import _topk
from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of, write_whole

FORMAT = 1
MAX_DIM, BLOCK_ROWS, CODES_TAIL = _topk.MAX_DIM, _topk.BLOCK_ROWS, _topk.CODES_TAIL
DTYPES = {"codes": np.uint8, "blocks": np.float32, "bounds": np.float32, "mean": np.float64}
# what numpy raises for a damaged header, which it reads as Python
NO_ARRAY = (EOFError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError, TokenError)
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

    def segment(self, rows: Floats) -> _topk.Segment:
        """Rows and codes as the kernel takes them; ValueError where they cannot belong together."""
        for name, dtype in DTYPES.items():
            array = getattr(self, name)
            if array is not None and array.dtype != dtype:
                raise ValueError(f"{name}: {array.dtype} found, {np.dtype(dtype)} expected")
        return _topk.Segment(rows, self.codes, self.blocks, self.bounds, self.mean, self.is_rotated)

    def save(self, path: Path) -> None:
        """Write `path`.json and an array `path`.*.npy each beside it; the json last, with the sha256 of the others."""
        arrays = {name: array for name in DTYPES if (array := getattr(self, name)) is not None}
        for name, array in arrays.items():
            write_whole(_array_path(path, name), partial(np.save, arr=array, allow_pickle=False))
        digests = {name: sha256_of(_array_path(path, name)) for name in arrays}
        meta = {"format": FORMAT, "is_rotated": self.is_rotated, "arrays": digests}
        write_whole(_meta_path(path), lambda file: file.write(json.dumps(meta).encode()))

    @classmethod
    def open(cls, path: Path, rows: Floats) -> "Codes":
        """Codes as `save` wrote them, memory-mapped; XmrError where they are damaged, or those of other rows.

        Some blocks are coded again to see that they are of these rows. That the rest is whole is for checksums to say.
        """
        try:
            meta = json.loads(_meta_path(path).read_text())
            if meta["format"] != FORMAT or not isinstance(meta["is_rotated"], bool):
                raise ValueError(f"format {meta['format']} found, this version reads {FORMAT}")
            arrays = {name: _mapped(_array_path(path, name)) for name in meta["arrays"]}
            codes = cls(arrays["codes"], arrays["blocks"], arrays["bounds"], arrays.get("mean"), meta["is_rotated"])
            codes.segment(rows)
            codes._check_some_blocks(rows)
        except (OSError, KeyError, AttributeError, *NO_ARRAY) as error:
            reason = str(error).partition("\n")[0]
            raise XmrError(f"{_meta_path(path)}: no codes of its segment can be read from it ({reason})") from None
        return codes

    def _check_some_blocks(self, rows: Floats) -> None:
        n_blocks, block_bytes = len(self.blocks), (len(self.codes) - CODES_TAIL) // max(1, len(self.blocks))
        for block in sorted({0, n_blocks // 2, n_blocks - 1} if n_blocks else ()):
            row = block * BLOCK_ROWS
            codes, *bounds = _topk.encode(rows[row : row + BLOCK_ROWS], self.mean, self.is_rotated, 1)
            theirs = self.codes[block * block_bytes :][:block_bytes]
            if not (
                np.array_equal(codes[:block_bytes], theirs)
                and np.array_equal(bounds[0], self.blocks[block : block + 1])
                and np.array_equal(bounds[1], self.bounds[row : row + BLOCK_ROWS])
            ):
                raise ValueError(f"rows {row} and following have other codes")


def _meta_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _array_path(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}.npy")


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _best_way(rows: Floats) -> tuple[NDArray[np.float64] | None, bool]:
    """Which mean to subtract, and whether to rotate: the plainest way that comes near the fewest rows to score.

    The queries are rows themselves: what other modalities will ask is not known here.
    """
    sample = _some(rows, SAMPLE_ROWS)
    queries = _some(sample, SAMPLE_QUERIES)
    ways: list[tuple[NDArray[np.float64] | None, bool]] = [(None, False)]
    if len(sample) > 4 * SAMPLE_K:
        mean = sample.mean(axis=0, dtype=np.float64)
        ways += [(mean, False), (mean, True)]
    n_scored = [_n_scored(sample, queries, *way) for way in ways]
    return next(way for way, n in zip(ways, n_scored, strict=True) if n <= WORTH_A_SHIFT * min(n_scored))


def _n_scored(sample: Floats, queries: Floats, mean: NDArray[np.float64] | None, is_rotated: bool) -> int:
    codes = Codes(*_topk.encode(sample, mean, is_rotated), mean, is_rotated)
    # one thread: with more, the number depends on which was faster
    return _topk.top_k(queries, [codes.segment(sample)], SAMPLE_K, threads=1)[2] if len(sample) else 0


def _some(rows: Floats, most: int) -> Floats:
    """Evenly spaced rows."""
    return np.ascontiguousarray(rows[:: -(-len(rows) // most) or 1])
