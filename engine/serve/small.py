"""Small pictures and waveforms that were made once, kept while there is room."""

from collections import OrderedDict
from collections.abc import Hashable

MAX_BYTES = 64_000_000


class Small:
    """The least recently asked goes first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._n_bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Hashable, content: bytes) -> None:
        if (before := self._kept.pop(key, None)) is not None:
            self._n_bytes -= len(before)
        self._kept[key] = content
        self._n_bytes += len(content)
        while self._n_bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._n_bytes -= len(gone)
