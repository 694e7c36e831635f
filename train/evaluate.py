"""Retrieval on held-out rows: every direction the modalities allow, also those that were never trained as pairs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.metrics import average_precision, median_rank, of_hits, ranks, recall_at_k
from xmr.engine.search import Gallery, top_k
from xmr.train.batches import Progress, Store, load_store
from xmr.train.checkpoint import Checkpoint, restore_model
from xmr.train.config import stage_configs
from xmr.train.datasets import LABEL, Row, read_rows, select, with_captions
from xmr.train.losses import Similarity, similarities
from xmr.train.model import AlignedModel, NotFiniteError
from xmr.train.objective import has_order_similarity

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
    is_order = has_order_similarity(stage_configs(checkpoint.config))
    return evaluate(model, store, readable, device, similarity="order" if is_order else "dot")


def evaluate(
    model: AlignedModel, store: Store, rows: Sequence[Row], device: torch.device, *, similarity: Similarity = "dot"
) -> list[dict[str, Any]]:
    """One record per direction: query, gallery, their sizes, the metrics, and those of a random ranking."""
    embeddings: dict[tuple[str, Any], NDArray[np.float32]] = {}
    records = []
    for a, b in combinations(model.modalities, 2):
        items = dict(zip((a, b), matched_items(rows, a, b), strict=True))
        if not items[a].contents:
            continue
        for modality in (a, b):
            fresh = [content for content in items[modality].contents if (modality, content) not in embeddings]
            vectors = embed_contents(model, store, modality, fresh, device)
            embeddings.update({(modality, content): vector for content, vector in zip(fresh, vectors, strict=True)})
        for query, gallery in permutations((a, b)):
            answered, ranked = items[query].among(set(items[gallery].keys)), items[gallery]
            queries = np.stack([embeddings[query, content] for content in answered.contents])
            rows_of_gallery = np.stack([embeddings[gallery, content] for content in ranked.contents])
            sizes = {"n_queries": len(answered.keys), "n_gallery": len(ranked.keys)}
            if similarity == "order":
                metrics = _order_metrics(queries, rows_of_gallery, answered.keys, ranked.keys, is_flipped=query == b)
            else:
                metrics = _search_metrics(queries, rows_of_gallery, answered.keys, ranked.keys)
            random = dict(_random_metrics(tuple(answered.keys), tuple(ranked.keys)))
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


def _order_metrics(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    *,
    is_flipped: bool,
) -> dict[str, float]:
    """The metrics of order embeddings, whose similarity is no inner product; flipped: the queries are the second."""
    found, precision = [], []
    for batch in np.array_split(np.arange(len(queries)), -(-len(queries) * len(rows) // CELLS)):
        asked, ranked = torch.from_numpy(queries[batch]), torch.from_numpy(rows)
        scores = similarities(ranked, asked, "order").T if is_flipped else similarities(asked, ranked, "order")
        ids = [query_ids[query] for query in batch], gallery_ids
        found.append(ranks(scores.numpy(), *ids))
        precision.append(average_precision(scores.numpy(), *ids))
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
