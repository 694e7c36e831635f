"""A batch in parts, several of them in a network at once: threads that share no part never wait for one another."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STREAMS = 8  # from there on a stream has several threads
PART_ITEMS = 8  # of fewer it shows what a run costs by itself, of more that the last stream is waited for
PART_BYTES = 1_000_000  # of less, as of sentences, too

Run = Callable[[NDArray[Any]], list[NDArray[Any]]]


def n_streams(threads: int) -> int:
    """Streams that so many threads are divided into."""
    return min(threads, MOST_STREAMS)


def parts_of(n_items: int, n_bytes: int) -> list[slice]:
    """A batch's parts: whole and in order, as equal as can be; by its size alone, so that no thread changes a bit."""
    n_parts = max(1, min(n_items // PART_ITEMS, n_bytes // PART_BYTES))
    ends = [round(n_items * part / n_parts) for part in range(n_parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


class Streams:
    """Runs batches in parts; `run` gives a part's outputs, items first, and is asked by at most `streams` threads.

    Batches may come from several threads: the parts of the next fill the streams that those of the last leave free.
    """

    def __init__(self, run: Run, streams: int, *, is_cut: bool = True) -> None:
        self._run, self._is_cut = run, is_cut
        self._pool = ThreadPoolExecutor(streams, "stream")

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of a whole batch."""
        parts = parts_of(len(batch), batch.nbytes) if self._is_cut else [slice(None)]
        outputs = list(self._pool.map(lambda part: self._run(batch[part]), parts))
        return outputs[0] if len(outputs) == 1 else [np.concatenate(of) for of in zip(*outputs, strict=True)]
