"""Features that a model is built on: what its trunks give, pooled, and words counted.

A baseline on them tells what the model's own layers add. Where training has finetuned a trunk it tells less, for the
features have learned from the pairs too; what the features are called says so.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from xmr.engine.media import text
from xmr.train.batches import Store
from xmr.train.encoders import LogSpectrogram, SpeechFrontEnd
from xmr.train.model import AlignedModel

Features = NDArray[np.float32]
Pool = Callable[[NDArray[Any]], NDArray[Any]]

N_WORDS = 1000  # of the training captions, the most frequent: a baseline's covariances grow with their square
GRID = 8  # places of a picture across and down
ROWS_AT_ONCE = 256  # maps, which are larger than what is made of them
FINETUNED = "finetuned with the model"
SPECTROGRAM = "mean and deviation of the spectrogram"


@dataclass(frozen=True)
class Bag:
    """The words that sentences are counted in, and how rare each is among the training captions."""

    vocabulary: tuple[str, ...]
    idf: NDArray[np.float32]  # (n_words,)

    @classmethod
    def of(cls, captions: Iterable[str], n_words: int = N_WORDS) -> "Bag":
        """The most frequent words, 1 + log((1 + n) / (1 + n_with)) for each; equally frequent ones by alphabet."""
        sentences = [set(text.words(caption)) for caption in captions]
        counts = Counter(word for sentence in sentences for word in sentence)
        chosen = sorted(counts, key=lambda word: (-counts[word], word))[:n_words]
        n_with = np.array([counts[word] for word in chosen])
        return cls(tuple(chosen), (1 + np.log((1 + len(sentences)) / (1 + n_with))).astype(np.float32))

    def __call__(self, captions: Sequence[str]) -> Features:
        """(n, n_words) unit rows: how often each word occurs, times its idf; zeros where no word is known."""
        rows = np.zeros((len(captions), len(self.vocabulary)), dtype=np.float32)
        for row, caption in zip(rows, captions, strict=True):
            for word in text.words(caption):
                if word in self._places:
                    row[self._places[word]] += self.idf[self._places[word]]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {word: place for place, word in enumerate(self.vocabulary)}


@dataclass(frozen=True)
class PlainFeatures:
    """(modality, contents) -> (n, d) features of files, or of sentences."""

    store: Store
    bag: Bag
    pools: Mapping[str, tuple[str, Pool]]  # modality -> what it is, in words, and how the trunk's output becomes rows

    @classmethod
    def of(cls, model: AlignedModel, store: Store, bag: Bag, finetuned: Collection[str] = ()) -> "PlainFeatures":
        """Of a model that has finetuned the trunks of some modalities."""
        pools = {name: _pool(model, name) for name in model.modalities if name != "text"}
        pools |= {name: (f"{pools[name][0]}, {FINETUNED}", pools[name][1]) for name in finetuned if name in pools}
        return cls(store, bag, pools)

    def __call__(self, modality: str, contents: Sequence[Any]) -> Features:
        if modality == "text":
            return self.bag(contents)
        (_, pool), cached = self.pools[modality], self.store.features[modality]
        parts = [contents[start : start + ROWS_AT_ONCE] for start in range(0, len(contents), ROWS_AT_ONCE)]
        return np.concatenate([np.asarray(pool(cached.take(part)), dtype=np.float32) for part in parts])

    def named(self, modality: str) -> str:
        """What the features of a modality are, in a few words."""
        return f"tf-idf of {len(self.bag.vocabulary)} words" if modality == "text" else self.pools[modality][0]


def _pool(model: AlignedModel, modality: str) -> tuple[str, Pool]:
    """By what the trunk gives: rows, a map, a spectrogram, or the decoded picture where there is no trunk."""
    trunk = model.encoder(modality).trunk
    if isinstance(trunk, SpeechFrontEnd):
        return SPECTROGRAM, heard_levels
    if isinstance(trunk, LogSpectrogram):
        return SPECTROGRAM, pooled
    return (f"mean colours of {GRID} x {GRID} places" if isinstance(trunk, nn.Identity) else "trunk, pooled"), pooled


def pooled(output: NDArray[Any]) -> NDArray[Any]:
    """(n, d) as it is; a picture's (n, h, w, 3) pixels, a map's (n, c, h, w) or a spectrogram's (n, bands, t) pooled.

    Pixels become the mean colours of a grid, a map its mean, a spectrogram the mean and deviation of each band.
    """
    if output.dtype == np.uint8:
        return mean_colours(output)
    if output.ndim == 4:
        return np.asarray(output.mean(axis=(2, 3)))
    if output.ndim == 3:
        return np.hstack([output.mean(axis=2), output.std(axis=2)])
    return output


def mean_colours(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, h, w, 3) -> (n, GRID² · 3): the mean colour of each cell of a grid."""
    of_rows = [part.mean(axis=1) for part in np.array_split(pixels, min(GRID, pixels.shape[1]), axis=1)]
    rows = np.stack(of_rows, axis=1)  # (n, GRID, w, 3)
    cells = [part.mean(axis=2) for part in np.array_split(rows, min(GRID, rows.shape[2]), axis=2)]
    return np.stack(cells, axis=2).reshape(len(pixels), -1)


def heard_levels(spectrogram: NDArray[Any]) -> NDArray[np.float64]:
    """(n, bands + 1, t), the last row 1 at the frames that count -> (n, 2 · bands): mean and deviation over those."""
    levels, is_frame = spectrogram[:, :-1].astype(np.float64), spectrogram[:, -1:].astype(np.float64)
    n_frames = np.maximum(is_frame.sum(axis=2), 1)
    mean = (levels * is_frame).sum(axis=2) / n_frames
    variance = (np.square(levels - mean[:, :, None]) * is_frame).sum(axis=2) / n_frames
    return np.hstack([mean, np.sqrt(variance)])
