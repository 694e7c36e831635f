"""The command that sets models side by side."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError, XmrError
from xmr.train.cli.evaluate import must_rank
from xmr.train.cli.options import DataOption, DeviceOption, JsonOption, elsewhere, need_torch
from xmr.train.cli.tables import MISSING, note_records

FIGURES = {"R@1": "R@1", "R@5": "R@5", "R@10": "R@10", "median_rank": "median rank", "mAP": "mAP"}


def compare(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="A B...", help="Checkpoint folders; A is the measure.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    draws: Annotated[int, typer.Option("--draws", min=100, help="Times that the queries are drawn.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing.")] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Models side by side on one split: figures with 95 % intervals, and which differences can be believed.

    Example: xmr compare runs/a runs/b
    """
    if len(checkpoints) < 2:
        raise UsageError(f"{checkpoints[0]} alone given; name two checkpoint folders or more")
    need_torch()
    from xmr.engine.runtime import check_device

    check_device(device)
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.compare import compare as side_by_side
    from xmr.train.datasets import SPLITS
    from xmr.train.run import pick_device

    if split not in SPLITS:
        raise UsageError(f"--split {split} is unknown; one of {', '.join(SPLITS)}")
    models = [(str(folder), load_checkpoint(best_of(folder))) for folder in checkpoints]
    configs = {name: elsewhere(checkpoint.config, data) for name, checkpoint in models}
    sources = _same_sources({name: config.data for name, config in configs.items()})
    cache = workspace.default_folder("cache")
    records = side_by_side(models, sources, split, cache, pick_device(device), n_draws=draws, seed=seed)
    must_rank(records)
    note_records(records)
    if as_json:
        terminal.print_json(records)
        return
    told = [record for record in records if record.get("kind") != MISSING]
    _print_figures(told)
    print()
    _print_differences(told, models[0][0])


def _same_sources(of_models: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The data that all models were trained on; XmrError where they were not trained on the same."""
    (first, sources), *others = of_models.items()
    for name, other in others:
        if set(other) != set(sources):
            raise XmrError(
                f"{first} was trained on {', '.join(sources)}, {name} on {', '.join(other)}; say with --data on "
                "which rows both are to be judged, that neither has seen in training"
            )
    return sources


def _print_figures(records: Sequence[Mapping[str, Any]]) -> None:
    columns = ("query", "gallery", "queries", "items", "model", *(f"{name} [95 %]" for name in FIGURES.values()))
    names = ("query", "gallery", "n_queries", "n_gallery", "model")
    terminal.print_table(columns, [[*(record[name] for name in names), *_figures(record)] for record in records])


def _figures(record: Mapping[str, Any]) -> Iterator[str]:
    for name in FIGURES:
        interval = record.get("intervals", {}).get(name)
        yield f"{record[name]:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _print_differences(records: Sequence[Mapping[str, Any]], first: str) -> None:
    """Against the first model; a star where the interval leaves out 0."""
    columns = ("query", "gallery", f"* beyond chance: minus {first}", *FIGURES.values())
    rows = [
        (record["query"], record["gallery"], record["model"], *_differences(record["differences"]))
        for record in records
        if "differences" in record
    ]
    if rows:
        terminal.print_table(columns, rows)


def _differences(of_figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in FIGURES:
        difference = of_figures[name]
        low, high = difference["interval"]
        yield f"{difference['value']:+.1f} [{low:+.1f}, {high:+.1f}]{' *' if difference['excludes_0'] else ''}"
