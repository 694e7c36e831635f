"""What one has to know to read records of an evaluation: why figures are missing, what was left out, what was drawn."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xmr.train.evaluate.plain import FINETUNED

MISSING = "missing"  # kind of the records of what cannot be told, and where a record has the reasons of its figures
FAITHFUL = "faithful"  # what a record of retrieval has beside its figures, as published systems computed them

Record = Mapping[str, Any]


def remarks(records: Iterable[Record]) -> list[str]:
    """A sentence, without its stop, for all directions that it is said of."""
    said: dict[str, list[str]] = {}
    for record in records:
        for sentence in _remarks(record):
            said.setdefault(sentence, []).append(_about(record))
    return [f"{', '.join(dict.fromkeys(directions))}: {sentence}" for sentence, directions in said.items()]


def _about(record: Record) -> str:
    if "what" in record:
        return str(record["what"])
    if record.get("kind") == "transfer":
        return "classifier transfer" + (f" from {record['trained_on']}" if "trained_on" in record else "")
    of_model = f" of {record['model']}" if "model" in record else ""
    return f"{record['query']}→{record['gallery']}{of_model}"


def _remarks(record: Record) -> Iterator[str]:
    kind = record.get("kind")
    if kind == MISSING:
        yield f"{'cannot be computed' if 'what' in record else 'cannot be ranked'}; {record['reason']}"
    elif kind == "baseline":
        yield from _of_baseline(record)
    elif kind == "transfer":
        yield from _of_transfer(record)
    elif kind in (None, "comparison"):
        yield from _of_direction(record)


def _of_direction(record: Record) -> Iterator[str]:
    """Of a record of retrieval, or of models side by side."""
    for name, reason in record.get(MISSING, {}).items():
        yield f"{name} is missing; {reason}"
    if record["n_left_out"]:
        yield f"{record['n_left_out']} queries that have no right answer are not asked"
    if "folds" in record:
        left_out = f"; {record['n_ids_left_out']} ids that fill none are left out" if record["n_ids_left_out"] else ""
        yield f"mean over {record['folds']} folds of {record['fold_size']} ids{left_out}"
    if "galleries" in record:
        sizes = f"{record['galleries']} galleries of {record['gallery_size']} pairs"
        yield f"mean over {sizes}, drawn with seed {record['seed']}"
    if "averaged" in record:
        yield f"the items of an id are averaged to one, of {' and '.join(record['averaged'])}"
    if "note" in record:
        yield record["note"]
    for system, figures in record.get(FAITHFUL, {}).items():
        for name, reason in figures.get(MISSING, {}).items():
            yield f"{name} of {system} is missing; {reason}"


def _of_baseline(record: Record) -> Iterator[str]:
    if "R@1" not in record:
        yield f"no {record['method']}; {record[MISSING]['R@1']}"
    elif "chosen" in record and record["split"] == record["chosen_on"]:
        yield f"the strengths of baselines were chosen on {record['chosen_on']}, on which they are shown"
    for modality, what in record.get("features", {}).items():
        if what.endswith(FINETUNED):
            yield f"baselines are on features of {modality} that training has changed"


def _of_transfer(record: Record) -> Iterator[str]:
    for reason in dict.fromkeys(record.get(MISSING, {}).values()):
        yield f"figures that are missing: {reason}"
    if record["method"] != "chance":
        return
    if record["labels_left_out"]:
        yield f"labels of which a modality has too few items are left out: {', '.join(record['labels_left_out'])}"
    for modality, n in record["n_ambiguous"].items():
        yield f"{n} items of {modality} with several labels are left out"
