"""Records as tables: which figures of each kind of record are shown, under which heading and how."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from xmr.engine import terminal

Column = tuple[str, str, str]  # heading, where the record has it (a.b: b of a), its format
RETRIEVAL = "retrieval"  # of the records that name no kind: one direction each
FAITHFUL = "faithful"  # what such a record has beside its figures, as published systems computed them
MISSING = "missing"  # of what cannot be told: it is no table but a sentence

TABLES: dict[str, Sequence[Column]] = {
    RETRIEVAL: (
        ("query", "query", ""),
        ("gallery", "gallery", ""),
        ("queries", "n_queries", ""),
        ("items", "n_gallery", ""),
        ("R@1", "R@1", ".1f"),
        ("R@5", "R@5", ".1f"),
        ("R@10", "R@10", ".1f"),
        ("median rank", "median_rank", ".1f"),
        ("mean rank", "mean_rank", ".1f"),
        ("mAP", "mAP", ".1f"),
        ("AP@50", "AP@50", ".1f"),
        ("rsum", "rsum", ".1f"),
        ("random R@10", "random.R@10", ".1f"),
        ("random mAP", "random.mAP", ".1f"),
    ),
    FAITHFUL: (
        ("query", "query", ""),
        ("gallery", "gallery", ""),
        ("as in", "system", ""),
        ("R@1", "R@1", ".1f"),
        ("R@5", "R@5", ".1f"),
        ("R@10", "R@10", ".1f"),
        ("median rank", "median_rank", ".1f"),
        ("mean rank", "mean_rank", ".1f"),
        ("mAP", "mAP", ".1f"),
        ("AP@50", "AP@50", ".1f"),
        ("top-1 of 64", "top-1", ".1f"),
    ),
    "baseline": (
        ("query", "query", ""),
        ("gallery", "gallery", ""),
        ("method", "method", ""),
        ("through", "through", ""),
        ("R@1", "R@1", ".1f"),
        ("R@5", "R@5", ".1f"),
        ("R@10", "R@10", ".1f"),
        ("median rank", "median_rank", ".1f"),
        ("mAP", "mAP", ".1f"),
        ("times the model's", "gain", ".2f"),
    ),
    "transfer": (
        ("trained on", "trained_on", ""),
        ("method", "method", ""),
        *((f"{modality} %", f"accuracy.{modality}", ".1f") for modality in ("image", "sound", "speech", "text")),
    ),
    "pointing": (
        ("images", "n_images", ""),
        ("phrases", "n_phrases", ""),
        ("left out", "n_left_out", ""),
        ("query dims", "dims", ""),
        ("pointed into the box %", "accuracy", ".1f"),
        ("as published %", "accuracy_faithful", ".1f"),
        ("image centre %", "centre", ".1f"),
        ("random point %", "random", ".1f"),
    ),
    "segmentation": (
        ("images", "n_images", ""),
        ("masks", "n_masks", ""),
        ("outside", "n_left_out", ""),
        ("categories", "n_categories", ""),
        ("query dims", "dims", ""),
        ("IoU %", "IoU", ".1f"),
        ("mAP@0.3", "mAP@0.3", ".1f"),
        ("mAP@0.4", "mAP@0.4", ".1f"),
        ("mAP@0.5", "mAP@0.5", ".1f"),
        ("as published @0.3", "mAP@0.3_faithful", ".1f"),
        ("@0.4", "mAP@0.4_faithful", ".1f"),
        ("@0.5", "mAP@0.5_faithful", ".1f"),
        ("whole image IoU %", "whole.IoU", ".1f"),
    ),
}


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """One table for each run of records of a kind, an empty line between two; a figure that is missing is blank."""
    told = [record for record in records if record.get("kind") != MISSING]
    faithful = [row for record in told if FAITHFUL in record for row in _as_published(record)]
    for number, (kind, of_kind) in enumerate(groupby([*told, *faithful], key=_kind)):
        if number:
            print()
        columns = TABLES[kind]
        rows = [[_cell(record, place, how) for _, place, how in columns] for record in of_kind]
        terminal.print_table([heading for heading, _, _ in columns], rows)


def note_records(records: Iterable[Mapping[str, Any]]) -> None:
    """What one has to know to read the tables, on stderr: one line for all directions that it is said of."""
    from xmr.train.evaluate.remarks import remarks

    for sentence in remarks(records):
        terminal.note(sentence)


def _kind(record: Mapping[str, Any]) -> str:
    return str(record.get("kind", RETRIEVAL))


def _as_published(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for our figures, and one for each system's."""
    systems = {"xmr": record, **record[FAITHFUL]}
    named = {name: record[name] for name in ("query", "gallery")}
    return [{**figures, **named, "kind": FAITHFUL, "system": system} for system, figures in systems.items()]


def _cell(record: Mapping[str, Any], place: str, how: str) -> str:
    value: Any = record
    for key in place.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else format(value, how)
