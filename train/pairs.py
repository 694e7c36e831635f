"""The training rows as batches of pairs: which rows a step sees is a function of the seed and the step alone."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmr.engine.media import text
from xmr.train.datasets import Row
from xmr.train.features import Features, cached_features
from xmr.train.model import AlignedModel

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # label -> a bar moved by (done, total)


@dataclass(frozen=True)
class Store:
    """What the trained parts of the encoders take in, for every row."""

    features: dict[str, Features]  # of the modalities that are files
    preprocessing: Any = None  # of text

    def inputs(self, modality: str, contents: Sequence[Any]) -> Tensor:
        """The features of files, or the padded word ids of sentences."""
        if modality == "text":
            return torch.from_numpy(text.pad([self._ids(sentence) for sentence in contents]))
        return torch.from_numpy(self.features[modality].take(contents))

    def _ids(self, sentence: str) -> NDArray[np.int64]:
        ids = text.encode(sentence, self.preprocessing)
        return ids if len(ids) else np.array([text.PAD])


@dataclass
class PairBatches:
    """The pairs of two modalities, in a new order every epoch."""

    a: str
    b: str
    rows: list[Row]
    batch_size: int
    seed: int
    ids: NDArray[np.int64] = field(init=False)
    _epoch: tuple[int, NDArray[np.int64], NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        numbers = {key: number for number, key in enumerate(dict.fromkeys(row.key for row in self.rows))}
        self.ids = np.array([numbers[row.key] for row in self.rows])

    @property
    def name(self) -> str:
        return f"{self.a}-{self.b}"

    @property
    def n_steps(self) -> int:
        """Steps of an epoch; the rest that fills no batch has its turn in another order."""
        return max(1, len(self.rows) // self.batch_size)

    def at(self, step: int) -> tuple[list[Any], list[Any], Tensor]:
        """The contents of a and of b, and the ids of the pairs, at a global step."""
        epoch, place = divmod(step, self.n_steps)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, *self.name.encode()])
            self._epoch = (epoch, rng.permutation(len(self.rows)), rng.random(len(self.rows)))
        _, order, choice = self._epoch
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        a, b = ([_content(self.rows[row], modality, choice[row]) for row in chosen] for modality in (self.a, self.b))
        return a, b, torch.from_numpy(self.ids[chosen])


def make_batches(rows: Sequence[Row], modalities: Sequence[str], batch_size: int, seed: int) -> list[PairBatches]:
    """One set of batches for every two modalities that rows pair."""
    kinds = [
        PairBatches(a, b, paired, batch_size, seed)
        for a, b in combinations(modalities, 2)
        if (paired := [row for row in rows if {a, b} <= set(row.modalities)])
    ]
    return [kind for kind in kinds if len(kind.rows) >= 2]


def load_store(
    model: AlignedModel,
    rows: Sequence[Row],
    cache: Path,
    device: torch.device,
    progress: Progress,
) -> tuple[Store, list[Row], list[str]]:
    """Features of all rows, the rows whose files could be read, and a sentence for each file that could not."""
    features: dict[str, Features] = {}
    errors: list[str] = []
    for modality in model.modalities:
        if modality != "text":
            paths = sorted({row.files[modality] for row in rows if modality in row.files})
            with progress(f"{modality} features") as show:
                features[modality], unreadable = cached_features(
                    model.encoder(modality), modality, paths, cache, device, show
                )
            errors += unreadable
    readable = [row for row in rows if _is_readable(row, features)]
    preprocessing = model.encoder("text").preprocessing if "text" in model.modalities else None
    return Store(features, preprocessing), readable, errors


def _is_readable(row: Row, features: dict[str, Features]) -> bool:
    return all(row.files[modality] in known for modality, known in features.items() if modality in row.files)


def _content(row: Row, modality: str, choice: float) -> Path | str:
    """The row's file, or one of its captions: `choice` in [0, 1) says which."""
    if modality == "text":
        return row.captions[int(choice * len(row.captions))]
    return row.files[modality]
