"""The pipeline of `xmr index`: files are decoded ahead on worker processes and embedded in batches of one modality."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.corpus import CorpusFile
from xmr.engine.media import MODALITIES, Piece
from xmr.engine.media.decode import Decoded, Task, decode_ahead
from xmr.engine.model import BATCH_SIZE, Model

PATIENCE = 8  # a file waits for its batch to fill while at most so many batches of files queue behind it


@dataclass
class EmbeddedItem:
    """One item of a file; `vector` (dim,) stands once its batch has run."""

    modality: str
    start_s: float | None
    end_s: float | None
    text: str | None
    line: int | None
    vector: NDArray[np.float32] | None = None


@dataclass
class EmbeddedFile:
    """All items of one file, or the reason why it has none."""

    file: CorpusFile
    items: list[EmbeddedItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    _n_tasks: int = 0  # not decoded yet

    @property
    def is_complete(self) -> bool:
        # from the end, where those that still wait stand: a text may have a million lines
        return self._n_tasks == 0 and all(item.vector is not None for item in reversed(self.items))

    def take(self, decoded: Decoded) -> list[tuple[EmbeddedItem, NDArray[Any]]]:
        """Note what came of one task; what is left to embed."""
        self._n_tasks -= 1
        if decoded.loaded is None:
            self.error = decoded.error
            return []
        self.notes.extend(note for note in decoded.loaded.notes if note not in self.notes)
        fresh = [(_item(decoded.task.modality, piece), piece.array) for piece in decoded.loaded.pieces]
        self.items.extend(item for item, _ in fresh)
        return fresh


def modalities_of(model: Model, medium: str) -> list[str]:
    """The modalities as which the model embeds a file of this medium."""
    return [name for name in model.modalities if MODALITIES[name].medium == medium]


def embed_files(
    model: Model, files: Sequence[CorpusFile], *, workers: int = 0, batch_size: int = BATCH_SIZE
) -> Iterator[EmbeddedFile]:
    """Every file of a medium that the model embeds, in the given order, embedded or with its error.

    Workers 0: one less than the CPUs.
    """
    batches = _Batches(model, batch_size)
    results = {file.path: EmbeddedFile(file, _n_tasks=len(modalities_of(model, file.medium))) for file in files}
    tasks = [Task(file.path, modality) for file in files for modality in modalities_of(model, file.medium)]
    queue: deque[EmbeddedFile] = deque()
    for decoded in decode_ahead(tasks, model.preprocessing, workers=workers):
        result = results[decoded.task.path]
        if not queue or queue[-1] is not result:
            queue.append(result)
        batches.add(decoded.task.modality, result.take(decoded))
        if len(queue) > PATIENCE * batch_size:
            batches.flush()
        yield from _completed(queue, results)
    batches.flush()
    yield from _completed(queue, results)


class _Batches:
    """Items that wait for a full batch, by modality."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self._waiting: dict[str, list[tuple[EmbeddedItem, NDArray[Any]]]] = {name: [] for name in model.modalities}

    def add(self, modality: str, items: list[tuple[EmbeddedItem, NDArray[Any]]]) -> None:
        waiting = self._waiting[modality]
        waiting.extend(items)
        n_full = len(waiting) // self._batch_size * self._batch_size
        self._embed(modality, waiting[:n_full])
        del waiting[:n_full]

    def flush(self) -> None:
        for modality, waiting in self._waiting.items():
            self._embed(modality, waiting)
            waiting.clear()

    def _embed(self, modality: str, items: list[tuple[EmbeddedItem, NDArray[Any]]]) -> None:
        for start in range(0, len(items), self._batch_size):
            batch = items[start : start + self._batch_size]
            vectors = self._model.embed_arrays(modality, [array for _, array in batch])
            for (item, _), vector in zip(batch, vectors, strict=True):
                item.vector = vector


def _item(modality: str, piece: Piece) -> EmbeddedItem:
    return EmbeddedItem(modality, piece.start_s, piece.end_s, piece.text, piece.line)


def _completed(queue: deque[EmbeddedFile], results: dict[Path, EmbeddedFile]) -> Iterator[EmbeddedFile]:
    while queue and queue[0].is_complete:
        result = queue.popleft()
        del results[result.file.path]
        usable = [item for item in result.items if item.vector is not None and item.vector.any()]
        if len(usable) < len(result.items):
            n_lost = len(result.items) - len(usable)
            result.notes.append(
                f"{result.file.path}: {n_lost} items left out, the model gives them no usable embedding"
            )
            result.items = usable
        if result.error is None and not result.items:
            result.error = f"{result.file.path}: nothing in it that the model can embed; remove it or put something in"
        yield result
