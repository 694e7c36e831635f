"""Retrieval on held-out rows: every direction the modalities allow, also those that were never trained as pairs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.metrics import average_precision, median_rank, of_hits, ranks, recall_at_k
from xmr.engine.search import Gallery, top_k
from xmr.train.batches import Progress, Store, load_store
from xmr.train.checkpoint import Checkpoint, restore_model
from xmr.train.config import stage_configs
from xmr.train.datasets import LABEL, Row, read_rows, select, with_captions
from xmr.train.losses import MatchKind, matchmap_similarity, similarities
from xmr.train.model import AlignedModel, NotFiniteError
from xmr.train.objective import Comparison, comparison_of

Scores = Callable[[str, Sequence[int]], Tensor]  # queries of a modality, by their places -> (n, n_gallery)

BATCH_SIZE = 256
RANDOM_DRAWS, RANDOM_QUERIES = 5, 1000
HITS = 128  # of a query that are looked at first
CELLS = 1 << 22  # of a ranking that are held at a time


@dataclass(frozen=True)
class Items:
    """What is asked or ranked: files or sentences, and for each the key that its right answers share."""

    contents: list[Any]
    keys: list[str]

    def among(self, keys: set[str]) -> "Items":
        kept = [pair for pair in zip(self.contents, self.keys, strict=True) if pair[1] in keys]
        return Items([content for content, _ in kept], [key for _, key in kept])


def retrieval(a: ArrayLike, b: ArrayLike, a_ids: ArrayLike, b_ids: ArrayLike) -> dict[str, Any]:
    """Both directions between embeddings a (n, d) and b (m, d), ranked by inner product, and the sum of the recalls.

    {"a_to_b": …, "b_to_a": …, "rsum": …}, each direction R@1, R@5, R@10 in percent, median_rank, mean_rank, mAP.
    """
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    both = {"a_to_b": _search_metrics(a, b, a_ids, b_ids), "b_to_a": _search_metrics(b, a, b_ids, a_ids)}
    rsum = sum(metrics[f"R@{k}"] for metrics in both.values() for k in (1, 5, 10))
    return {**both, "rsum": round(rsum, 4)}


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    sources: Sequence[str],
    split: str,
    cache: Path,
    device: torch.device,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[dict[str, Any]]:
    """`evaluate` a checkpoint on the rows of a split; XmrError where the sources have none."""
    model = restore_model(checkpoint).to(device)
    rows = [with_captions(row, checkpoint.config.captions) for row in read_rows(sources, cache=cache, note=note)]
    selected = select(rows, split, model.modalities)
    if not selected:
        splits = ", ".join(sorted({row.split for row in rows}))
        raise XmrError(f"{', '.join(sources)}: no {split} rows of {', '.join(model.modalities)}; splits are {splits}")
    store, readable, errors = load_store(model, selected, cache, device, progress)
    for sentence in errors:
        note(f"skipped: {sentence}")
    return evaluate(model, store, readable, device, comparison=comparison_of(stage_configs(checkpoint.config)))


def evaluate(
    model: AlignedModel, store: Store, rows: Sequence[Row], device: torch.device, *, comparison: Comparison = "dot"
) -> list[dict[str, Any]]:
    """One record per direction: query, gallery, their sizes, the metrics, and those of a random ranking.

    Pairs of modalities that keep no maps are compared by inner product where the comparison is by maps.
    """
    embeddings: dict[tuple[str, Any], NDArray[np.float32]] = {}

    def vectors(modality: str, contents: Sequence[Any]) -> NDArray[np.float32]:
        fresh = [content for content in contents if (modality, content) not in embeddings]
        made = embed_contents(model, store, modality, fresh, device)
        embeddings.update({(modality, content): vector for content, vector in zip(fresh, made, strict=True)})
        return np.stack([embeddings[modality, content] for content in contents])

    records = []
    for a, b in combinations(model.modalities, 2):
        items = dict(zip((a, b), matched_items(rows, a, b), strict=True))
        if not items[a].contents:
            continue
        scores: Scores | None = None
        if comparison != "dot" and comparison != "order" and model.encoder(a).has_maps and model.encoder(b).has_maps:
            scores = _by_maps(model, store, items, device, comparison)
        else:
            rows_of = {modality: vectors(modality, items[modality].contents) for modality in (a, b)}
            if comparison == "order":
                scores = _by_order(rows_of)
        for query, gallery in permutations((a, b)):
            ranked = items[gallery].keys
            answers = set(ranked)
            asked = [place for place, key in enumerate(items[query].keys) if key in answers]
            ids = [items[query].keys[place] for place in asked]
            if scores is None:
                metrics = _search_metrics(rows_of[query][asked], rows_of[gallery], ids, ranked)
            else:
                metrics = _score_metrics(partial(scores, query), asked, ids, ranked)
            random = dict(_random_metrics(tuple(ids), tuple(ranked)))
            sizes = {"n_queries": len(ids), "n_gallery": len(ranked)}
            records.append({"query": query, "gallery": gallery, **sizes, **metrics, "random": random})
    return records


def matched_items(rows: Sequence[Row], a: str, b: str) -> tuple[Items, Items]:
    """The items of two modalities that can be held against each other, each file or sentence of a key once.

    Where rows pair the two, those rows decide: their label, else their id. Where none does, they are matched through
    what they share with a third modality: a label of the row itself, or of a row with the same id. Then what has no
    label is left out where labels match, because nobody knows what it would be a right answer to.
    """
    direct = [row for row in rows if {a, b} <= set(row.modalities)]
    label_of_id = {row.id: row.key for row in rows if row.label is not None}
    of_a, of_b = (
        _unique(
            row_items for row in direct or rows for row_items in _items(row, modality, {} if direct else label_of_id)
        )
        for modality in (a, b)
    )
    kinds = {_is_label(key) for key in set(of_a.keys) & set(of_b.keys)}
    comparable = {key for key in (*of_a.keys, *of_b.keys) if _is_label(key) in kinds}
    return of_a.among(comparable), of_b.among(comparable)


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
                raise NotFiniteError(
                    f"the model's embeddings of {modality} are no numbers; train with a smaller learning_rate"
                )
    return np.concatenate(rows)


def _is_label(key: str) -> bool:
    return key.startswith(LABEL)


def score_of(records: Sequence[dict[str, Any]], by: str, on: Sequence[str] = ()) -> float:
    """One number for a model, more is better: the mean of a metric over the directions, of some pairs or of all.

    rsum is the sum of R@1, R@5 and R@10 over them; of the median rank, the negative; `last` is always as good.
    """
    if by == "last":
        return 0.0
    chosen = [
        record
        for record in records
        if not on or {frozenset(pair.split("-")) for pair in on} & {frozenset((record["query"], record["gallery"]))}
    ]
    if not chosen:
        return 0.0
    if by == "rsum":
        return sum(float(record[f"R@{k}"]) for record in chosen for k in (1, 5, 10))
    sign = -1 if by == "median_rank" else 1
    return sign * float(np.mean([record[by] for record in chosen]))


@lru_cache(maxsize=16)  # the same in every epoch
def _random_metrics(query_keys: tuple[str, ...], gallery_keys: tuple[str, ...]) -> dict[str, float]:
    """The metrics of a random ranking, mean over some draws; of many queries some are drawn."""
    rng = np.random.default_rng(0)
    _, numbers = np.unique([*query_keys, *gallery_keys], return_inverse=True)
    asked, ranked = numbers[: len(query_keys)], numbers[len(query_keys) :]
    n_at_once = max(1, CELLS // len(ranked))
    draws = []
    for _ in range(RANDOM_DRAWS):
        found, precision = [], []
        ids = rng.permutation(asked)[:RANDOM_QUERIES]
        for start in range(0, len(ids), n_at_once):
            batch = ids[start : start + n_at_once]
            similarity = rng.random((len(batch), len(ranked)), dtype=np.float32)
            found.append(ranks(similarity, batch, ranked))
            precision.append(average_precision(similarity, batch, ranked))
        draws.append(_metrics(np.concatenate(found), np.concatenate(precision)))
    return {name: round(float(np.mean([draw[name] for draw in draws])), 4) for name in draws[0]}


def _search_metrics(
    queries: NDArray[np.float32], rows: NDArray[np.float32], query_ids: ArrayLike, gallery_ids: ArrayLike
) -> dict[str, float]:
    """The metrics of searching (n, d) with (m, d). Queries that the first HITS do not settle get the whole ranking."""
    gallery, ids, gallery_ids = Gallery.encode(rows), np.asarray(query_ids), np.asarray(gallery_ids)
    if (len(ids), len(gallery_ids)) != (len(queries), len(rows)):
        raise ValueError(f"{len(ids)} and {len(gallery_ids)} ids found for {len(queries)} queries and {len(rows)} rows")
    found, precision = np.zeros(len(queries), dtype=np.int64), np.zeros(len(queries))
    for k in (min(HITS, len(rows)), len(rows)):
        waiting = np.flatnonzero(found == 0)
        for batch in np.array_split(waiting, -(-waiting.size * k // CELLS) or 1):
            hits = top_k(queries[batch], gallery, k)
            found[batch], precision[batch] = of_hits(*hits, ids[batch], gallery_ids)
    assert found.all(), "the whole ranking settles every query"
    return _metrics(found, precision)


def _by_order(rows_of: Mapping[str, NDArray[np.float32]]) -> Scores:
    """Order embeddings, whose similarity is no inner product; the first modality is the images'."""
    first, second = rows_of

    def scores(query: str, places: Sequence[int]) -> Tensor:
        asked = torch.from_numpy(rows_of[query][places])
        ranked = torch.from_numpy(rows_of[second if query == first else first])
        return similarities(asked, ranked, "order") if query == first else similarities(ranked, asked, "order").T

    return scores


def _by_maps(
    model: AlignedModel, store: Store, items: Mapping[str, Items], device: torch.device, kind: MatchKind
) -> Scores:
    """Every place of an image against every frame of a sound, pooled (DAVEnet); all pairs at once."""
    (first, images), (second, sounds) = items.items()
    of_images, _ = _maps(model, store, first, images.contents, device)
    of_sounds, n_frames = _maps(model, store, second, sounds.contents, device)
    matrix = matchmap_similarity(of_images, of_sounds, n_frames, kind=kind).cpu()  # (n_images, n_sounds)
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


def _score_metrics(
    scores: Callable[[Sequence[int]], Tensor],
    asked: Sequence[int],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
) -> dict[str, float]:
    """The metrics of queries, given by their places, whose scores (n, n_gallery) are made a part at a time."""
    found, precision = [], []
    n_at_once = max(1, CELLS // len(gallery_ids))
    for start in range(0, len(asked), n_at_once):
        part = slice(start, start + n_at_once)
        of_part = scores(asked[part]).numpy(), query_ids[part], gallery_ids
        found.append(ranks(*of_part))
        precision.append(average_precision(*of_part))
    return _metrics(np.concatenate(found), np.concatenate(precision))


def _metrics(found: NDArray[np.int64], precision: NDArray[np.float64]) -> dict[str, float]:
    """Of the rank and the average precision of every query."""
    metrics = {f"R@{k}": recall_at_k(found, k) for k in (1, 5, 10)}
    metrics |= {"median_rank": median_rank(found), "mean_rank": float(np.mean(found))}
    return {name: round(value, 4) for name, value in (metrics | {"mAP": 100 * float(np.mean(precision))}).items()}


def _items(row: Row, modality: str, label_of_id: dict[str, str]) -> list[tuple[Any, str]]:
    contents: Sequence[Any] = (
        row.captions if modality == "text" else [row.files[modality]] if modality in row.files else []
    )
    key = row.key if row.label is not None else label_of_id.get(row.id, row.key)
    return [(content, key) for content in contents]


def _unique(pairs: Iterable[tuple[Any, str]]) -> Items:
    """Each content of a key once: a sentence said of two images stays two items, a sound paired twice is one."""
    unique = list(dict.fromkeys(pairs))
    return Items([content for content, _ in unique], [key for _, key in unique])
