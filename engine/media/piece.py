"""What a file holds once it is read: pieces, each of which becomes one item of an index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """One array as the exported model wants it, and where in the file it comes from."""

    array: NDArray[Any]
    start_s: float | None = None  # of a sound's window, a video's frame, a subtitle
    end_s: float | None = None
    text: str | None = None  # of a line of text
    line: int | None = None  # its number, from 1; of a table's row its own
    metadata: Mapping[str, object] | None = None  # of a table's row its other columns, as JSON can hold them


@dataclass(frozen=True)
class Loaded:
    """The pieces of a file, or of a part of it, and what the reader had to overlook to get them."""

    pieces: list[Piece]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stream:
    """A file that may be long: its pieces are read while they are drawn, once, and the notes grow meanwhile."""

    pieces: Iterator[Piece]
    notes: list[str] = field(default_factory=list)

    def read(self) -> Loaded:
        """All of it."""
        return Loaded(list(self.pieces), self.notes)
