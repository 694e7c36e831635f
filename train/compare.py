"""Models side by side on the same queries and galleries, with intervals that tell whether a difference is one.

The rows that are asked are drawn again and again with replacement, the same ones for every model (paired bootstrap,
Efron and Tibshirani 1993; for information retrieval Sakai 2006), and the middle 95 % of what a figure then comes to is
its interval. The captions of a row are drawn together, as they succeed or fail together: drawn apart they would make
intervals too narrow. A difference can be believed where its interval leaves out 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.train.batches import Progress
from xmr.train.checkpoint import Checkpoint
from xmr.train.datasets import Row
from xmr.train.evaluate import HeldOut, open_held_out, read_split
from xmr.train.evaluate.figures import RECALLS, Outcomes
from xmr.train.evaluate.pair import make_pair
from xmr.train.evaluate.protocol import UnrankedError

FIGURES = (*(f"R@{k}" for k in RECALLS), "median_rank", "mAP")
DRAWS = 1000
COVERED = (2.5, 97.5)  # percentiles


def compare(
    models: Sequence[tuple[str, Checkpoint]],
    sources: Sequence[str],
    split: str,
    cache: Path,
    device: torch.device,
    *,
    n_draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[dict[str, Any]]:
    """One record a direction and model (name, checkpoint): figures, their intervals, the differences to the first.

    Compared are the directions between modalities that all models have; XmrError where these are fewer than two.
    What the models cannot all read is left out for all of them, so that they answer the same queries.
    """
    shared = _shared_modalities(models, note)
    rows = [
        _only(row, shared)
        for row in read_split(sources, split, shared, _captions(models, note), cache=cache, note=note)
    ]
    opened = [open_held_out(checkpoint, rows, cache, device, progress, note) for _, checkpoint in models]
    kept = _in_common(rows, opened)
    if not kept:
        raise XmrError(f"no {split} row can be read by all of the models; compare those that read the same files")
    for held_out in opened:
        held_out.rows = kept
    records: list[dict[str, Any]] = []
    for a, b in combinations(shared, 2):
        try:
            records.extend(_of_pair([name for name, _ in models], opened, a, b, n_draws, seed))
        except UnrankedError as error:
            records.append({"kind": "missing", "query": a, "gallery": b, "reason": str(error)})
    return records


def intervals(
    of_models: Sequence[Outcomes], row_ids: Sequence[str], n_draws: int = DRAWS, seed: int = 0
) -> list[dict[str, Any]]:
    """For each model its figures on the same queries, their intervals, and the differences to the first model.

    An outcome is (n_queries,); "rank" and "precision" are used. Recalls and mAP are in percent. row_ids (n_queries) say
    which queries are drawn together.
    """
    if {len(outcomes["rank"]) for outcomes in of_models} != {len(row_ids)}:
        found = ", ".join(str(len(outcomes["rank"])) for outcomes in of_models)
        raise ValueError(f"outcomes of {found} queries found, {len(row_ids)} of each model expected")
    values = [_values(outcomes, np.arange(len(row_ids))) for outcomes in of_models]  # (figures,)
    if len(set(row_ids)) < 2:
        reason = "a single row is asked, which cannot be drawn in different ways"
        return [{**_named(value), "missing": {"intervals": reason}} for value in values]
    drawn = _drawn(of_models, row_ids, n_draws, seed)  # (models, draws, figures)
    made = []
    for number, (value, of_draws) in enumerate(zip(values, drawn, strict=True)):
        record: dict[str, Any] = _named(value) | {"intervals": _intervals(of_draws)}
        if number:
            record["differences"] = _differences(value - values[0], of_draws - drawn[0])
        made.append(record)
    return made


def _of_pair(
    names: Sequence[str], opened: Sequence[HeldOut], a: str, b: str, n_draws: int, seed: int
) -> Iterator[dict[str, Any]]:
    pairs = [make_pair(held_out, a, b) for held_out in opened]
    for query, gallery in ((a, b), (b, a)):
        items = pairs[0].items
        ranked = np.arange(len(items[gallery].keys))
        asked = pairs[0].asked(query, np.arange(len(items[query].keys)), ranked)
        row_ids = [items[query].ids[place] for place in asked]
        found = intervals([pair.outcomes(query, asked, ranked) for pair in pairs], row_ids, n_draws, seed)
        n_left_out = items[query].n_unmatched + len(items[query].keys) - len(asked)
        sizes = {"n_queries": len(asked), "n_gallery": len(ranked), "n_left_out": n_left_out}
        for name, of_model in zip(names, found, strict=True):
            direction = {"kind": "comparison", "query": query, "gallery": gallery, **sizes}
            yield {**direction, "model": name, **of_model, "n_draws": n_draws, "seed": seed}


def _in_common(rows: Sequence[Row], opened: Sequence[HeldOut]) -> list[Row]:
    """The rows without the files that a model could not read, those that still pair two modalities."""
    readable = set.intersection(
        *({(modality, path) for row in held_out.rows for modality, path in row.files.items()} for held_out in opened)
    )
    left = [
        replace(row, files={name: path for name, path in row.files.items() if (name, path) in readable}) for row in rows
    ]
    return [row for row in left if len(row.modalities) >= 2]


def _shared_modalities(models: Sequence[tuple[str, Checkpoint]], note: Callable[[str], None]) -> list[str]:
    of_models = {name: list(checkpoint.config.encoders) for name, checkpoint in models}
    shared = [modality for modality in MODALITIES if all(modality in having for having in of_models.values())]
    said = "; ".join(f"{name} has {', '.join(having)}" for name, having in of_models.items())
    if len(shared) < 2:
        raise XmrError(f"the models have {', '.join(shared) or 'nothing'} in common, two modalities are needed: {said}")
    if any(set(having) != set(shared) for having in of_models.values()):
        note(f"compared by {', '.join(shared)}, which all have: {said}")
    return shared


def _captions(models: Sequence[tuple[str, Checkpoint]], note: Callable[[str], None]) -> str:
    """Which captions of a row count: those that all were trained with, else all."""
    wanted = {checkpoint.config.captions for _, checkpoint in models}
    if len(wanted) == 1:
        return wanted.pop()
    note(f"all captions count: the models were trained with {' and '.join(sorted(wanted))} of a row's captions")
    return "all"


def _only(row: Row, modalities: Sequence[str]) -> Row:
    """The row without what the models do not share."""
    has_text = "text" in modalities
    files = {modality: path for modality, path in row.files.items() if modality in modalities}
    return replace(row, files=files, captions=row.captions if has_text else (), boxes=row.boxes if has_text else ())


def _values(outcomes: Outcomes, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """(figures,) of the queries at these places."""
    found, precision = outcomes["rank"][drawn], outcomes["precision"][drawn]
    recalls = [100 * (found <= k).mean() for k in RECALLS]
    return np.array([*recalls, np.median(found), 100 * precision.mean()])


def _drawn(of_models: Sequence[Outcomes], row_ids: Sequence[str], n_draws: int, seed: int) -> NDArray[np.float64]:
    """(models, draws, figures), each draw the same queries for every model."""
    rng = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place, row_id in enumerate(row_ids):
        places.setdefault(row_id, []).append(place)
    of_rows = [np.array(of_row) for of_row in places.values()]
    found = []
    for _ in range(n_draws):
        queries = np.concatenate([of_rows[row] for row in rng.integers(len(of_rows), size=len(of_rows))])
        found.append([_values(outcomes, queries) for outcomes in of_models])
    return np.stack(found, axis=1)


def _intervals(of_draws: NDArray[np.float64]) -> dict[str, list[float]]:
    low, high = np.percentile(of_draws, COVERED, axis=0)
    return {name: [round(float(low[at]), 4), round(float(high[at]), 4)] for at, name in enumerate(FIGURES)}


def _differences(values: NDArray[np.float64], of_draws: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    found, of_figures = {}, _intervals(of_draws)
    for name, value in _named(values).items():
        interval = of_figures[name]
        found[name] = {"value": value, "interval": interval, "excludes_0": not interval[0] <= 0 <= interval[1]}
    return found


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(FIGURES, values, strict=True)}
