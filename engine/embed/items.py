"""What comes out of the pipeline: files, their items, and the vectors of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xmr.engine.corpus import CorpusFile
from xmr.engine.media import Piece
from xmr.engine.media.decode import Decoded


@dataclass
class EmbeddedItem:
    """One item of a file; `vector` (dim,) stands once its batch has run."""

    modality: str
    start_s: float | None
    end_s: float | None
    text: str | None
    line: int | None
    metadata: Mapping[str, object] | None = None  # of a table's row its other columns
    vector: NDArray[np.float32] | None = None


@dataclass
class EmbeddedFile:
    """All items of one file, or the reason why it has none. A long file comes in parts, each with some of them.

    Only in the last part it is known whether the file could be read to its end.
    """

    file: CorpusFile
    part: int = 0
    is_last: bool = True
    items: list[EmbeddedItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def is_embedded(self) -> bool:
        # from the end, where those that still wait stand
        return all(item.vector is not None for item in reversed(self.items))

    def take(self, modality: str, pieces: Sequence[Piece]) -> list[EmbeddedItem]:
        """Items of the file: one a piece, to be embedded."""
        fresh = [_item(modality, piece) for piece in pieces]
        self.items.extend(fresh)
        return fresh

    def end(self, decoded: Decoded) -> None:
        """Note what was overlooked in the file, or why it cannot be read."""
        if decoded.loaded is None:
            self.error = self.error or decoded.error
        else:
            self.notes.extend(note for note in decoded.loaded.notes if note not in self.notes)

    def cut(self) -> "EmbeddedFile":
        """End this part here: the next one."""
        self.is_last = False
        return EmbeddedFile(self.file, self.part + 1, error=self.error)

    def finish(self) -> None:
        """Leave out the items that the model gave no direction, and say so."""
        usable = [item for item in self.items if item.vector is not None and item.vector.any()]
        if len(usable) < len(self.items):
            n_lost = len(self.items) - len(usable)
            self.notes.append(f"{self.file.path}: {n_lost} items left out, the model gives them no usable embedding")
            self.items = usable
        if self.error is None and not self.items and self.is_last and self.part == 0:
            self.error = f"{self.file.path}: nothing in it that the model can embed; remove it or put something in"


def _item(modality: str, piece: Piece) -> EmbeddedItem:
    return EmbeddedItem(modality, piece.start_s, piece.end_s, piece.text, piece.line, piece.metadata)
