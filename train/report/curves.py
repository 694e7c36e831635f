"""How the training went: losses over steps and held-out recall over epochs, from the checkpoint's metrics.jsonl."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmr.engine.media import MODALITIES
from xmr.train.report.charts import Line, line_chart
from xmr.train.report.items import tag
from xmr.train.report.page import NotDrawnError, figure

METRICS_NAME = "metrics.jsonl"
N_PLACES = 240  # of a curve: the steps between are averaged
SERIES = 6  # colours for losses
TOTAL = "total"
LARGEST = 1e300  # of a number on an axis, whose ends can still be subtracted

Record = dict[str, Any]


def training_curves(folder: Path) -> str:
    """The losses in one chart, and one for every two modalities with the recall on the val rows."""
    records = list(_records(folder / METRICS_NAME))
    figures = [*_loss_chart(records), *_val_charts(records)]
    if not figures:
        raise NotDrawnError(f"{METRICS_NAME} of the checkpoint holds no step")
    return f'<div class="grid">{"".join(figures)}</div>'


def averaged(x: Sequence[float], y: Sequence[float], n_places: int = N_PLACES) -> tuple[list[float], list[float]]:
    """At most `n_places` places of a curve, each the mean of the steps around it."""
    if len(x) <= n_places:
        return list(x), list(y)
    parts = [np.array_split(np.asarray(values, dtype=float), n_places) for values in (x, y)]
    across, up = ([float(part.mean()) for part in of] for of in parts)
    return across, up


def _records(path: Path) -> Iterator[Record]:
    if not path.is_file():
        raise NotDrawnError(f"{METRICS_NAME}, which training writes, is not beside the checkpoint")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # a training that was cut off ends in half a line
            continue
        if _is_record(record):
            yield record


def _is_record(record: Any) -> bool:
    """Whether a line is as training writes it: `loss` by name and `val` by direction, either of which may be absent."""
    return (
        isinstance(record, dict)
        and _is_number(record.get("step"))
        and _is_number(record.get("epoch", 0))
        and isinstance(record.get("loss") or {}, dict)
        and isinstance(val := record.get("val") or [], list)
        and all(isinstance(of, dict) and {"query", "gallery"} <= of.keys() for of in val)
        and all(of[name] in list(MODALITIES) for of in val for name in ("query", "gallery"))
    )


def _is_number(value: Any) -> bool:
    """Whether it has a place on an axis; NaN has none."""
    return isinstance(value, (int, float)) and abs(value) < LARGEST


def _loss_chart(records: Sequence[Record]) -> list[str]:
    series: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        for name, value in (record.get("loss") or {}).items():
            if _is_number(value):
                steps, values = series.setdefault(str(name), ([], []))
                steps.append(record["step"])
                values.append(value)
    if not series:
        return []
    names = sorted(series, key=lambda name: name != TOTAL)
    if len(names) == 2 and TOTAL in names:  # of one loss alone the total says nothing new
        names.remove(TOTAL)
    lines = [Line(name, *averaged(*series[name]), f"c-series-{place % SERIES}") for place, name in enumerate(names)]
    legend = {line.name: line.colour for line in lines}
    ends = "; ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    chart = line_chart(lines, title=f"Losses: {ends}", x_label="step", y_label="loss")
    return [figure(chart, "Losses on the training rows", legend)]


def _val_charts(records: Sequence[Record]) -> list[str]:
    curves: dict[frozenset[str], dict[str, tuple[list[float], list[float]]]] = {}
    for record in records:
        for of in record.get("val") or []:
            value = of.get("R@10")
            if _is_number(value):
                pair = curves.setdefault(frozenset((of["query"], of["gallery"])), {})
                epochs, values = pair.setdefault(f"{of['query']} to {of['gallery']}", ([], []))
                epochs.append(float(record["epoch"] if "epoch" in record else record["step"]))
                values.append(value)
    return [_val_chart(pair) for pair in curves.values()]


def _val_chart(directions: dict[str, tuple[list[float], list[float]]]) -> str:
    lines = [Line(name, *averaged(*curve), f"c-{name.split(' ')[0]}") for name, curve in directions.items()]
    ends = "; ".join(f"{line.name} {line.y[-1]:.0f} %" for line in lines)
    top = max(max(line.y) for line in lines)
    chart = line_chart(
        lines,
        title=f"Recall at 10 on the val rows after the last epoch: {ends}",
        x_label="epoch",
        y_label="recall at 10, %",
        y_range=(0, max(1.0, top)),
    )
    a, b = next(iter(directions)).split(" to ")
    return figure(chart, f"{tag(a)} and {tag(b)}, val rows", {line.name: line.colour for line in lines})
