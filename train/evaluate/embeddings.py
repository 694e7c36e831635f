"""What rows are held against each other by: unit embeddings, order embeddings, or maps of where and when."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmr.train.batches import Store
from xmr.train.evaluate.items import Items
from xmr.train.losses import MatchKind, matchmap_similarity, similarities
from xmr.train.model import AlignedModel, NotFiniteError

Scores = Callable[
    [str, NDArray[np.int64]], NDArray[np.float32]
]  # queries of a modality, by their places -> (n, n_gallery)

BATCH_SIZE = 256
REMEDY = "train with a smaller learning_rate"


def embed_contents(
    model: AlignedModel, store: Store, modality: str, contents: Sequence[Any], device: torch.device
) -> NDArray[np.float32]:
    """(n, dim) unit rows of files or sentences."""
    model.eval()
    rows = [np.zeros((0, model.dim), dtype=np.float32)]
    with torch.inference_mode():
        for start in range(0, len(contents), BATCH_SIZE):
            batch = store.inputs(modality, contents[start : start + BATCH_SIZE]).to(device)
            features = model.features(modality, batch)
            rows.append(model.embed_features(modality, features).embeddings.float().cpu().numpy())
            if not np.isfinite(rows[-1]).all():
                raise NotFiniteError(f"the model's embeddings of {modality} are no numbers; {REMEDY}")
    return np.concatenate(rows)


def averaged(items: Items, rows: NDArray[np.float32]) -> tuple[Items, NDArray[np.float32]]:
    """One item for all that share an id and a key: the mean of their rows (n, dim), at unit length again.

    CMPL averages the features of one file, which it holds once a caption; here a file is one item from the start, and
    what is averaged are the several files, or sentences, of an id.
    """
    names = list(zip(items.ids, items.keys, strict=True))
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([number[name] for name in names], dtype=np.int64)
    sums = np.zeros((len(number), rows.shape[1]))
    np.add.at(sums, numbers, rows)
    _, first = np.unique(numbers, return_index=True)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return items.at(first.tolist()), (sums / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def by_order(rows_of: Mapping[str, NDArray[np.float32]]) -> Scores:
    """Order embeddings, whose similarity is no inner product; the first modality is the images'."""
    first, second = rows_of

    def scores(query: str, places: NDArray[np.int64]) -> NDArray[np.float32]:
        asked = torch.from_numpy(rows_of[query][places])
        ranked = torch.from_numpy(rows_of[second if query == first else first])
        found = similarities(asked, ranked, "order") if query == first else similarities(ranked, asked, "order").T
        return found.numpy()

    return scores


def by_maps(
    model: AlignedModel, store: Store, items: Mapping[str, Items], device: torch.device, kind: MatchKind
) -> Scores:
    """Every place of an image against every frame of a sound, pooled (DAVEnet); all pairs at once."""
    (first, images), (second, sounds) = items.items()
    of_images, _ = _maps(model, store, first, images.contents, device)
    of_sounds, n_frames = _maps(model, store, second, sounds.contents, device)
    matrix = matchmap_similarity(of_images, of_sounds, n_frames, kind=kind).cpu().numpy()  # (n_images, n_sounds)
    if not np.isfinite(matrix).all():
        raise NotFiniteError(f"the model's maps of {first} and {second} are no numbers; {REMEDY}")
    return lambda query, places: (matrix if query == first else matrix.T)[places]


def _maps(
    model: AlignedModel, store: Store, modality: str, contents: Sequence[Any], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(n, width, ...) of files, and (n,) the filled places of the last axis."""
    model.eval()
    made = []
    with torch.inference_mode():
        for start in range(0, len(contents), BATCH_SIZE):
            batch = store.inputs(modality, contents[start : start + BATCH_SIZE]).to(device)
            made.append(model.maps(modality, model.features(modality, batch).float()))
    maps, n_filled = zip(*made, strict=True)
    return torch.cat(maps), torch.cat(n_filled)
