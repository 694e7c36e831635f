"""A model on held-out rows: one record a direction, also of modalities that were never trained as pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmr.train.batches import Store
from xmr.train.datasets import Row
from xmr.train.evaluate.figures import RANDOM_DRAWS, RECALLS, mean_figures, random_metrics, rsum, summary
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.pair import Pair, make_pair
from xmr.train.evaluate.protocol import Part, Protocol, UnrankedError, parts
from xmr.train.evaluate.published import published_figures
from xmr.train.model import AlignedModel
from xmr.train.objective import Comparison

ALL_AGAINST_ALL = Protocol()


def evaluate(
    model: AlignedModel, store: Store, rows: Sequence[Row], device: torch.device, *, comparison: Comparison = "dot"
) -> list[dict[str, Any]]:
    """One record per direction that can be ranked, as `evaluate_held_out` gives them."""
    records = evaluate_held_out(HeldOut(model, store, rows, device, comparison))
    return [record for record in records if "kind" not in record]


def evaluate_held_out(held_out: HeldOut, protocol: Protocol = ALL_AGAINST_ALL) -> list[dict[str, Any]]:
    """One record per direction: query, gallery, their sizes, the figures, and those of a random ranking.

    Where there are several folds or galleries, a figure is the mean over them, n_gallery too, and n_queries the sum.
    n_left_out counts the queries that have no right answer; they are not asked. Two modalities that cannot be ranked
    give a record of the kind "missing" with the reason. Pairs of modalities that keep no maps are compared by inner
    product where the comparison is by maps.
    """
    records: list[dict[str, Any]] = []
    for a, b in combinations(held_out.model.modalities, 2):
        try:
            records.extend(both_ways(make_pair(held_out, a, b, protocol.averaged), protocol))
        except UnrankedError as error:
            records.append({"kind": "missing", "query": a, "gallery": b, "reason": str(error)})
    return records


def both_ways(pair: Pair, protocol: Protocol = ALL_AGAINST_ALL) -> list[dict[str, Any]]:
    """The records of the two directions of a pair, as `evaluate_held_out` says; UnrankedError where there is none."""
    a, b = pair.items
    of_parts, facts = parts(a, b, pair.items, protocol)
    records = [_direction(pair, query, of_parts, protocol) for query in (a, b)]
    both: dict[str, Any] = {"rsum": rsum(records)} | facts
    if pair.averaged:
        both["averaged"] = list(pair.averaged)
    return [both | record for record in records]


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
        return rsum(chosen)
    sign = -1 if by == "median_rank" else 1
    return sign * float(np.mean([record[by] for record in chosen]))


def _direction(pair: Pair, query: str, of_parts: Sequence[Part], protocol: Protocol) -> dict[str, Any]:
    """The record of a direction: figures are means over the parts in which anything is asked."""
    gallery, n_draws = pair.other(query), -(-RANDOM_DRAWS // len(of_parts))
    n_left_out, found = pair.items[query].n_unmatched, []
    for number, part in enumerate(of_parts):
        asked = pair.asked(query, part[query], part[gallery])
        n_left_out += len(part[query]) - len(asked)
        if len(asked):
            found.append(_part_figures(pair, query, asked, part[gallery], n_draws, (protocol.seed, number)))
            if protocol.faithful:
                found[-1]["faithful"] = published_figures(pair, query, part, protocol)
    if not found:
        raise UnrankedError(f"no {query} has its {gallery} in the same fold; take larger ones")
    sizes = {"n_queries": sum(part["n_queries"] for part in found), "n_gallery": _mean_size(found)}
    weights = [part["n_queries"] for part in found] if protocol.keep_tail else None
    means = mean_figures([part["figures"] for part in found], weights)
    later: dict[str, Any] = {name: means.pop(name) for name in ("AP@50", "missing") if name in means}
    random = mean_figures([part["random"] for part in found], weights)
    record: dict[str, Any] = {"query": query, "gallery": gallery, **sizes, **means, "random": random, **later}
    record["n_left_out"] = n_left_out
    if too_small := _said_of_small(min(part["n_gallery"] for part in found)):
        record["note"] = too_small
    if protocol.fold_size is not None:
        record["folds"] = len(found)  # those in which anything is asked
    if len(of_parts) > 1:
        record["median_ranks"] = [part["figures"]["median_rank"] for part in found]
    if protocol.faithful:
        record["faithful"] = _mean_of_systems([part["faithful"] for part in found])
    return record


def _part_figures(
    pair: Pair,
    query: str,
    asked: NDArray[np.int64],
    ranked: NDArray[np.int64],
    n_draws: int,
    seed: tuple[int, ...],
) -> dict[str, Any]:
    keys, gallery_keys = pair.keys(query, asked), pair.keys(pair.other(query), ranked)
    return {
        "n_queries": len(asked),
        "n_gallery": len(ranked),
        "figures": summary(pair.outcomes(query, asked, ranked), keys, len(ranked)),
        "random": random_metrics(tuple(keys), tuple(gallery_keys), n_draws, seed),
    }


def _mean_size(found: Sequence[Mapping[str, Any]]) -> int | float:
    mean = float(np.mean([part["n_gallery"] for part in found]))
    return int(mean) if mean.is_integer() else round(mean, 4)


def _said_of_small(n_gallery: int) -> str:
    """Which recalls say nothing, because no ranking of so few items can miss."""
    told = [f"R@{k}" for k in RECALLS if k >= n_gallery]
    return f"{' and '.join(told)} can only be 100 where {n_gallery} items are ranked" if told else ""


def _mean_of_systems(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over parts of the figures of every system."""
    return {system: mean_figures([part[system] for part in found]) for system in found[0]}
