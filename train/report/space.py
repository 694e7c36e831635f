"""The shared space as pictures: who is close to whom in a sample, and all modalities in one plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.train.datasets import Row
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.items import row_contents
from xmr.train.evaluate.pair import Pair
from xmr.train.report.charts import Point, cloud, matrix
from xmr.train.report.items import SHAPE_OF, described, tag
from xmr.train.report.media import thumbnail
from xmr.train.report.page import NotDrawnError, figure
from xmr.train.report.rankings import NOTHING_TO_RANK, Ranking

MATRIX_SIDE = 24  # items of each modality in a matrix
MAX_POINTS = 240  # of a modality in the plane
MIN_POINTS = 5
PERPLEXITY = 30  # t-SNE's number of neighbours, as its authors have it
SMALL = 48  # pixels of the pictures that are shown beside a point


@dataclass(frozen=True)
class Sample:
    """Some items of one modality, and the row keys they belong to."""

    modality: str
    contents: list[Any]
    keys: list[str]


def samples(held_out: HeldOut, n_most: int, seed: int = 0) -> list[Sample]:
    """Of every modality at most `n_most` items, drawn from all of the rows; modalities without one are left out."""
    made = []
    for modality in held_out.model.modalities:
        keys = _key_of_content(held_out.rows, modality)
        every = list(keys)
        drawn = np.random.default_rng(seed).permutation(len(every))[:n_most]
        contents = [every[place] for place in sorted(drawn.tolist())]
        if contents:
            made.append(Sample(modality, contents, [keys[content] for content in contents]))
    return made


def counts(rows: Sequence[Row], modalities: Sequence[str]) -> dict[str, int]:
    """How many items of each modality the rows have."""
    return {modality: len(_key_of_content(rows, modality)) for modality in modalities}


def matrices(pairs: Sequence[tuple[Ranking, Ranking]], seed: int = 0) -> str:
    """For every two modalities, how similar some items of one are to some of the other."""
    if not pairs:
        raise NotDrawnError(NOTHING_TO_RANK)
    return f'<div class="grid">{"".join(_matrix(first.pair, seed) for first, _ in pairs)}</div>'


def plane(held_out: HeldOut, seed: int = 0) -> tuple[str, list[dict[str, Any]]]:
    """All modalities in one plane, and what the script shows of each point."""
    found = samples(held_out, MAX_POINTS, seed)
    n_points = sum(len(sample.contents) for sample in found)
    if n_points < MIN_POINTS:
        raise NotDrawnError(f"{n_points} items found, a map takes at least {MIN_POINTS}")
    vectors = np.concatenate([held_out.embeddings(sample.modality, sample.contents) for sample in found])
    places, how = flattened(vectors, seed)
    entries = [
        (sample.modality, content, key)
        for sample in found
        for content, key in zip(sample.contents, sample.keys, strict=True)
    ]
    points = [
        Point(float(x), float(y), f"c-{modality}", SHAPE_OF[modality], key)
        for (x, y), (modality, _, key) in zip(places, entries, strict=True)
    ]
    counts = ", ".join(f"{len(sample.contents)} of {sample.modality}" for sample in found)
    title = f"Map of the shared space by {how}: {counts}"
    legend = {sample.modality: f"c-{sample.modality} shape-{SHAPE_OF[sample.modality]}" for sample in found}
    caption = f"{counts}; {how}. Points that belong together light up with the one that is pointed at."
    return figure(cloud(points, title=title), caption, legend, "wide"), [_entry(*entry) for entry in entries]


def flattened(vectors: NDArray[np.float32], seed: int = 0) -> tuple[NDArray[np.float64], str]:
    """(n, 2) places of (n, dim) rows, and the name of the method: t-SNE, or PCA where scikit-learn is missing."""
    if find_spec("sklearn") is None:
        return principal(vectors), "PCA, since scikit-learn, which t-SNE is taken from, is not installed"
    from sklearn.manifold import TSNE

    start = principal(vectors)
    start = start / (start[:, 0].std() or 1) * 1e-4  # as small as t-SNE wants it, so that no seed decides
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init=start.astype(np.float32), random_state=seed, n_jobs=1).fit_transform(
        vectors
    )
    return np.asarray(made, dtype=np.float64), f"t-SNE, perplexity {perplexity:.0f}"


def principal(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 2): the two directions in which the rows differ most."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    n_there = min(2, len(sizes))
    flat[:, :n_there] = left[:, :n_there] * sizes[:n_there]
    return flat


def one_of_each_key(
    first: Sequence[str], second: Sequence[str], n_most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in two lists of keys: of some keys that stand in both, in their order, the first place of each."""
    both = sorted(set(first) & set(second))
    drawn = sorted(np.random.default_rng(seed).permutation(len(both))[:n_most].tolist())
    places = [[of.index(both[number]) for number in drawn] for of in (first, second)]
    return np.array(places[0], dtype=np.int64), np.array(places[1], dtype=np.int64)


def _key_of_content(rows: Sequence[Row], modality: str) -> dict[Any, str]:
    """Every file or sentence of a modality, and the key of the first row that has it."""
    keys: dict[Any, str] = {}
    for row in rows:
        for content in row_contents(row, modality):
            keys.setdefault(content, row.key)
    return keys


def _matrix(pair: Pair, seed: int) -> str:
    a, b = pair.items
    rows, columns = one_of_each_key(pair.items[a].keys, pair.items[b].keys, MATRIX_SIDE, seed)
    values = pair.similarities(a, rows, columns)
    right = np.array(pair.keys(a, rows))[:, None] == np.array(pair.keys(b, columns))[None, :]
    names = [
        [described(of.contents[place], of.keys[place]) for place in places]
        for of, places in ((pair.items[a], rows), (pair.items[b], columns))
    ]
    tips = [
        [f"{values[i, j]:.3f}\n{a}: {row}\n{b}: {column}" for j, column in enumerate(names[1])]
        for i, row in enumerate(names[0])
    ]
    said = f"{values[right].mean():.2f} on average where they belong together"
    said += f", {values[~right].mean():.2f} elsewhere" if not right.all() else ""
    chart = matrix(values, tips, title=f"Similarity of {len(rows)} {a} and {b} items: {said}", right=right)
    scale = (
        f'<p class="scale"><span>{values.min():.2f}</span><i class="ramp" aria-hidden="true"></i>'
        f"<span>{values.max():.2f}</span></p>"
    )
    return figure(chart + scale, f"{tag(a)} down, {tag(b)} across: {said}", kind="square")


def _entry(modality: str, content: Any, key: str) -> dict[str, Any]:
    entry = {"modality": modality, "name": described(content, key)}
    if modality == "image" and isinstance(content, Path):
        try:
            entry["picture"] = thumbnail(content, SMALL).uri
        except XmrError:  # the name says what it is
            return entry
    return entry
