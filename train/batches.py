"""The training rows as batches: which rows a step sees is a function of the seed and the step alone."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, text
from xmr.train.augment import random_view
from xmr.train.datasets import Row
from xmr.train.features import Features, cached_features
from xmr.train.model import AlignedModel

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # label -> a bar moved by (done, total)


@dataclass(frozen=True)
class Store:
    """What goes into the model for every row: features of frozen trunks, decoded files for those that learn."""

    features: dict[str, Features]  # of the modalities that are files
    preprocessing: Any = None  # of text
    learning: frozenset[str] = frozenset()  # modalities whose trunk learns
    uncropped: frozenset[str] = frozenset()  # those of them that see whole pictures only
    unmirrored: frozenset[str] = frozenset()  # those of them that see no mirror images

    def inputs(self, modality: str, contents: Sequence[Any]) -> Tensor:
        """The features of files as they are served, or the padded word ids of sentences."""
        if modality == "text":
            return torch.from_numpy(text.pad([self._ids(sentence) for sentence in contents]))
        return torch.from_numpy(self.features[modality].take(contents))

    def training_inputs(self, modality: str, contents: Sequence[Any], rng: np.random.Generator) -> Tensor:
        """The same of one of the views of each picture; where the trunk learns, of a new one."""
        known = self.features.get(modality)
        if known is None or known.n_views == 1:
            return self.inputs(modality, contents)
        if modality in self.learning:
            crops, mirror = modality not in self.uncropped, modality not in self.unmirrored
            return torch.from_numpy(random_view(known.take(contents), rng, crops=crops, mirror=mirror))
        return torch.from_numpy(known.take(contents, rng.integers(known.n_views, size=len(contents))))

    def _ids(self, sentence: str) -> NDArray[np.int64]:
        ids = text.encode(sentence, self.preprocessing)
        return ids if len(ids) else np.array([text.PAD])


@dataclass
class Batches:
    """The rows that have some modalities, in a new order every epoch."""

    modalities: tuple[str, ...]
    rows: list[Row]
    ids: NDArray[np.int64]  # of each row, the number of what it shows
    batch_size: int
    seed: int
    first_step: int = 0  # the step at which their first epoch begins
    first_epoch: int = 0  # its number: orders that were drawn before are not drawn again
    _epoch: tuple[int, NDArray[np.int64], NDArray[np.float64]] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "-".join(self.modalities)

    @property
    def n_steps(self) -> int:
        """Steps of an epoch; the rest that fills no batch has its turn in another order."""
        return max(1, len(self.rows) // self.batch_size)

    def at(self, step: int) -> tuple[dict[str, list[Any]], Tensor]:
        """The contents by modality, and the ids of the rows, at a global step."""
        chosen, choice = self._draw(step)
        contents = {
            modality: [_content(self.rows[row], modality, choice[row]) for row in chosen]
            for modality in self.modalities
        }
        return contents, torch.from_numpy(self.ids[chosen])

    def rows_at(self, step: int) -> list[Row]:
        """The rows of a global step."""
        return [self.rows[row] for row in self._draw(step)[0]]

    def _draw(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        epoch, place = divmod(step - self.first_step, self.n_steps)
        epoch += self.first_epoch
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, *self.name.encode()])
            self._epoch = (epoch, rng.permutation(len(self.rows)), rng.random(len(self.rows)))
        _, order, choice = self._epoch
        return order[place * self.batch_size : (place + 1) * self.batch_size], choice


def make_batches(
    rows: Sequence[Row],
    modalities: Sequence[str],
    batch_size: int,
    seed: int,
    *,
    kinds: Sequence[str] = (),
    per_caption: bool = False,
    numbers: dict[str, int] | None = None,
    first_step: int = 0,
) -> list[Batches]:
    """One set of batches for every two modalities that rows pair, or for each of the kinds, as image-speech-text.

    The image, where there is one, is the first of their modalities. `numbers` are those of `id_numbers`.
    """
    numbers = numbers or id_numbers(rows)
    made = []
    for kind in _kinds(modalities, kinds):
        having = [row for row in rows if set(kind) <= set(row.modalities)]
        if per_caption and "text" in kind:
            having = [replace(row, captions=(caption,)) for row in having for caption in row.captions]
        if len(having) >= 2:
            ids = np.array([numbers[row.key] for row in having])
            made.append(Batches(kind, having, ids, batch_size, seed, first_step))
        elif kinds:
            raise XmrError(f"batches: {'-'.join(kind)} asked for, {len(having)} train rows have it; mend --data")
    return made


def _kinds(modalities: Sequence[str], asked: Sequence[str]) -> list[tuple[str, ...]]:
    """Every two modalities, or the kinds that are asked for, each once."""
    for kind in asked:
        if unknown := set(kind.split("-")) - set(modalities):
            raise XmrError(f"batches: {kind} asks for {min(unknown)}, encoders are of {', '.join(modalities)}")
    ordered = [modality for modality in MODALITIES if modality in modalities]
    named = [tuple(modality for modality in ordered if modality in kind.split("-")) for kind in asked]
    return list(dict.fromkeys(named)) or list(combinations(ordered, 2))


def id_numbers(rows: Iterable[Row]) -> dict[str, int]:
    """A number for everything that rows show."""
    return {key: number for number, key in enumerate(dict.fromkeys(row.key for row in rows))}


def load_store(
    model: AlignedModel,
    rows: Sequence[Row],
    cache: Path,
    device: torch.device,
    progress: Progress,
    *,
    with_views: bool = False,
) -> tuple[Store, list[Row], list[str]]:
    """Features of all rows, what of them could be read and still pairs, a sentence for each file that could not."""
    features: dict[str, Features] = {}
    errors: list[str] = []
    for modality in model.modalities:
        if modality != "text":
            encoder = model.encoder(modality)
            having = [row for row in rows if modality in row.files]
            seen = {row.files[modality] for row in having if with_views and row.split == "train"}
            features[modality] = Features(encoder.views if with_views else 1)
            # views are for training alone: what is evaluated is cached as `xmr eval` asks for it
            for paths, n_views in ((seen, encoder.views), ({row.files[modality] for row in having} - seen, 1)):
                if not paths:
                    continue
                with progress(f"{modality} features") as show:
                    found, unreadable = cached_features(
                        encoder, modality, sorted(paths), cache, device, show, n_views=n_views
                    )
                features[modality].add(found)
                errors += unreadable
    parts = [_readable_part(row, features) for row in rows]
    readable = [row for row in parts if len(set(row.modalities) & set(model.modalities)) >= 2]
    preprocessing = model.encoder("text").preprocessing if "text" in model.modalities else None
    learning = frozenset(modality for modality in features if not model.encoder(modality).is_frozen)
    uncropped = frozenset(modality for modality in features if not model.encoder(modality).crops)
    unmirrored = frozenset(modality for modality in features if not model.encoder(modality).mirror)
    return Store(features, preprocessing, learning, uncropped, unmirrored), readable, errors


def _readable_part(row: Row, features: dict[str, Features]) -> Row:
    """The row without the files that could not be read."""
    files = {name: path for name, path in row.files.items() if name not in features or path in features[name]}
    return row if len(files) == len(row.files) else replace(row, files=files)


def _content(row: Row, modality: str, choice: float) -> Path | str:
    """The row's file, or one of its captions: `choice` in [0, 1) says which."""
    if modality == "text":
        return row.captions[int(choice * len(row.captions))]
    return row.files[modality]
