"""A report of how good a model is, as pictures: one HTML page that needs no network and no other file.

Each module draws one group of figures as HTML text; `page` puts them together. A figure that can't be drawn says why in
its place. What is drawn by chance depends on one seed, so that the same model gives the same figures.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.files import sync_folder, write_whole
from xmr.train.checkpoint import Checkpoint
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.report.curves import training_curves
from xmr.train.report.page import GENERATOR, NotDrawnError, Section, assemble, missing
from xmr.train.report.rankings import rank_pairs
from xmr.train.report.retrieval import examples, metric_table, other_tables, rank_histograms, recall_curves
from xmr.train.report.settings import settings_tables
from xmr.train.report.space import counts, matrices, plane
from xmr.train.report.units import hidden_units

__all__ = ["PAGE_NAME", "check_folder", "report_page", "write_report"]

PAGE_NAME = "index.html"
HEAD_BYTES = 4096  # of a page, in which it says who wrote it

Columns = Mapping[str, Sequence[tuple[str, str, str]]]  # kind of record -> heading, place in the record, format
Progress = Callable[[int, int], None]


def check_folder(folder: Path) -> None:
    """XmrError where a report must not be written: in a file's place, or over a page that is no report."""
    there = folder / PAGE_NAME
    if folder.exists() and not folder.is_dir():
        raise XmrError(f"{folder}: a file, a folder is needed for the report; choose another --report")
    if there.is_dir() or (
        there.is_file() and GENERATOR not in there.open("rb").read(HEAD_BYTES).decode(errors="replace")
    ):
        raise XmrError(f"{there}: exists and is no report of xmr; choose another --report")


def write_report(
    folder: Path,
    checkpoint: Checkpoint,
    held_out: HeldOut,
    records: Sequence[Mapping[str, Any]],
    *,
    split: str,
    sources: Sequence[str],
    metrics_folder: Path,
    columns: Columns | None = None,
    progress: Progress = lambda done, total: None,
    seed: int = 0,
) -> Path:
    """Write `report_page` to folder/index.html, whole; an older report there is replaced."""
    check_folder(folder)
    made = report_page(
        checkpoint,
        held_out,
        records,
        split=split,
        sources=sources,
        metrics_folder=metrics_folder,
        columns=columns,
        progress=progress,
        seed=seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE_NAME
    # a file's name may hold bytes that are no letters
    write_whole(path, lambda file: file.write(made.encode("utf-8", errors="replace")))
    sync_folder(folder)
    return path


def report_page(
    checkpoint: Checkpoint,
    held_out: HeldOut,
    records: Sequence[Mapping[str, Any]],
    *,
    split: str,
    sources: Sequence[str],
    metrics_folder: Path,
    columns: Columns | None = None,
    progress: Progress = lambda done, total: None,
    seed: int = 0,
) -> str:
    """The page of a model: `records` are those of the evaluation, training curves come from `metrics_folder`."""
    pairs = rank_pairs(held_out, seed)
    points: list[dict[str, Any]] = []

    def draw_plane() -> str:
        drawn, entries = plane(held_out, seed)
        points.extend(entries)
        return drawn

    figures: dict[str, Callable[[], str]] = {
        "retrieval": lambda: metric_table(records) + other_tables(records, columns or {}),
        "recall": lambda: recall_curves(pairs),
        "ranks": lambda: rank_histograms(pairs),
        "similarity": lambda: matrices(pairs, seed),
        "examples": lambda: examples(pairs, seed),
        "map": draw_plane,
        "units": lambda: hidden_units(held_out, seed),
        "training": lambda: training_curves(metrics_folder),
        "settings": lambda: settings_tables(checkpoint, held_out, split, sources),
    }
    sections = []
    for number, (anchor, draw) in enumerate(figures.items(), start=1):
        sections.append(Section(anchor, *HEADINGS[anchor], _drawn(draw)))
        progress(number, len(figures))
    title = f"{checkpoint.config.recipe}: retrieval on the {split} rows"
    return assemble(title, checkpoint.config.about, _tiles(held_out, records), sections, {"points": points})


HEADINGS = {
    "retrieval": (
        "Retrieval",
        "Ranks count from 1, recall and average precision are in percent, and equal scores count against the query.",
    ),
    "recall": (
        "Recall",
        "The share of queries with a right answer among the first k of the whole gallery; dotted, what chance gives.",
    ),
    "ranks": (
        "Ranks",
        "Where in the whole gallery the best right answer of a query stands, as a share of the queries.",
    ),
    "similarity": (
        "Similarity",
        "Some items of one modality against those of another that belong to them: the stronger the colour, the more "
        "similar. Right answers have a frame.",
    ),
    "examples": (
        "Examples",
        "Queries from the best, the middle and the worst tenth of the ranks, drawn by chance among their equals, with "
        "the first hits of the gallery and their scores.",
    ),
    "map": (
        "Map of the space",
        "A sample of all modalities, laid out so that what is close in the space is close here.",
    ),
    "units": (
        "Shared units",
        "The items that make single units of the layers which all modalities go through the strongest. Shown are the "
        "units whose strongest items stand out most in every modality.",
    ),
    "training": ("Training", "Losses at each step, and retrieval on the val rows after the epochs."),
    "settings": ("Settings", "What was judged, and everything it was trained with."),
}


def _drawn(draw: Callable[[], str]) -> str:
    try:
        return draw()
    except (NotDrawnError, XmrError) as reason:
        return missing(str(reason))


def _tiles(held_out: HeldOut, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What one wants to know first."""
    items = [
        (f"{modality} items", f"{n:,}") for modality, n in counts(held_out.rows, held_out.model.modalities).items()
    ]
    of_model = [record for record in records if "kind" not in record and record.get("R@10") is not None]
    recalls = [(f"{of['query']} to {of['gallery']}", float(of["R@10"])) for of in of_model]
    if not recalls:
        return items
    direction, best = max(recalls, key=lambda recall: recall[1])
    return [*items, (f"best recall at 10, {direction}", f"{best:.1f} %")]
