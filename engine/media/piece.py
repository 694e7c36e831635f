"""What a file holds once it is read: pieces, each of which becomes one item of an index."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """One array as the exported model wants it, and where in the file it comes from."""

    array: NDArray[Any]
    start_s: float | None = None  # of a sound's window
    end_s: float | None = None
    text: str | None = None  # of a line of text
    line: int | None = None  # its number, from 1


@dataclass(frozen=True)
class Loaded:
    """The pieces of a file, and what the reader had to overlook to get them."""

    pieces: list[Piece]
    notes: list[str] = field(default_factory=list)
