"""Batches of items of one modality and of similar length, which depend on the order of the items alone.

What comes when, and how fast, changes nothing: the same files give the same batches, and so the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from xmr.engine.media.decode import PIECE_BYTES

GROUP = 16  # batches whose items are sorted by length together
GROUP_BYTES = 4_000_000  # of arrays, from which no more of them wait to be sorted
PATIENCE = 64  # an item waits for its batch to fill while at most so many batches of items come after it

Key = TypeVar("Key")
Entry = tuple[Key, NDArray[Any]]


@dataclass(frozen=True)
class Batch(Generic[Key]):
    """Arrays for one run of a modality's network, and whose they are."""

    modality: str
    keys: list[Key]
    arrays: list[NDArray[Any]]

    @property
    def n_bytes(self) -> int:
        """That it holds while it waits."""
        return sum(array.nbytes + PIECE_BYTES for array in self.arrays)

    @property
    def n_numbers(self) -> int:
        """That go into the network: every array as long as the longest."""
        return len(self.arrays) * max(array.size for array in self.arrays)

    @property
    def n_padding(self) -> int:
        return self.n_numbers - sum(array.size for array in self.arrays)


@dataclass
class _Waiting(Generic[Key]):
    entries: list[Entry[Key]] = field(default_factory=list)
    n_bytes: int = 0
    since: int = 0  # how many items there were before the oldest


class Batches(Generic[Key]):
    """Items that wait for a full batch, by modality."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: dict[str, _Waiting[Key]] = {}
        self._n_items = 0

    def add(self, modality: str, entries: list[Entry[Key]]) -> Iterator[Batch[Key]]:
        """Take items of one modality; the batches that are full with them, or have waited too long."""
        for entry in entries:
            waiting = self._waiting.setdefault(modality, _Waiting(since=self._n_items))
            self._n_items += 1
            waiting.entries.append(entry)
            waiting.n_bytes += entry[1].nbytes
            if self._is_enough(waiting):
                yield from self._take(modality)
        for late in [name for name, waiting in self._waiting.items() if self._is_late(waiting)]:
            yield from self._take(late)

    def flush(self) -> Iterator[Batch[Key]]:
        """What still waits."""
        for modality in list(self._waiting):
            yield from self._take(modality)

    def _is_enough(self, waiting: _Waiting[Key]) -> bool:
        n_batches, n_over = divmod(len(waiting.entries), self._batch_size)
        return n_over == 0 and (n_batches >= GROUP or waiting.n_bytes >= GROUP_BYTES)

    def _is_late(self, waiting: _Waiting[Key]) -> bool:
        return self._n_items - waiting.since > PATIENCE * self._batch_size

    def _take(self, modality: str) -> Iterator[Batch[Key]]:
        """Shortest first; those of one length in their order."""
        entries = sorted(self._waiting.pop(modality).entries, key=lambda entry: len(entry[1]))
        for start in range(0, len(entries), self._batch_size):
            keys, arrays = zip(*entries[start : start + self._batch_size], strict=True)
            yield Batch(modality, list(keys), list(arrays))
