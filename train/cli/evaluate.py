"""The commands that tell how good a model is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError, XmrError
from xmr.train.cli.options import CheckpointOption, DataOption, DeviceOption, JsonOption, elsewhere, need_torch
from xmr.train.cli.tables import MISSING, TABLES, note_records, print_records


def evaluate(
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    fold_size: Annotated[
        int | None, typer.Option("--fold-size", min=1, help="Mean over folds of so many ids: 1000 for 1K.")
    ] = None,
    keep_tail: Annotated[
        bool, typer.Option("--keep-tail", help="The ids that fill no fold are one fold more.")
    ] = False,
    gallery: Annotated[
        int | None, typer.Option("--gallery", min=1, help="Mean over random galleries of so many pairs.")
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Galleries to draw; default 5.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn.")] = 0,
    average: Annotated[
        str | None, typer.Option("--average", help="Modalities whose items of one id are averaged, as image,text.")
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Also the figures as published systems computed them.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also regression and canonical correlations on the same features.")
    ] = False,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Also classifiers trained on one modality, tested on the others.")
    ] = False,
    pointing: Annotated[
        str | None, typer.Option("--pointing", help="Instead: where are phrases, as visual-genome:PATH.")
    ] = None,
    segmentation: Annotated[
        str | None, typer.Option("--segmentation", help="Instead: where are categories, COCO's instances.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=8, help="Pixels a side of the images looked into; default the model's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Also draw the figures, as DIR/index.html.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Retrieval on held-out rows, all directions that the modalities allow, next to a random ranking.

    Example: xmr eval --split val
    """
    _check_protocol(fold_size, keep_tail, gallery, repeats)
    looks = bool(pointing or segmentation)
    if size and not looks:
        raise UsageError(f"--size {size}: is for looking into images; give --pointing or --segmentation too")
    ranking: dict[str, Any] = {
        "data": data,
        "fold-size": fold_size,
        "gallery": gallery,
        "seed": seed,
        "average": average,
    }
    ranking |= {"faithful": faithful, "baselines": baselines, "transfer": transfer, "report": report}
    if looks and (given := [name for name, value in ranking.items() if value]):
        raise UsageError(f"--{given[0]}: is for ranking; drop it, or --pointing and --segmentation")
    if segmentation and not pointing and split != "val":
        raise UsageError(f"--split {split}: --segmentation takes all images of its file; name the file of the split")
    need_torch()
    from xmr.engine.runtime import check_device

    check_device(device)
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.datasets import SPLITS
    from xmr.train.evaluate import Protocol, evaluate_held_out, load_held_out
    from xmr.train.run import pick_device

    if split not in SPLITS:
        raise UsageError(f"--split {split} is unknown; one of {', '.join(SPLITS)}")
    folder = checkpoint or workspace.default_folder("checkpoint")
    loaded = load_checkpoint(best_of(folder))
    if looks:
        located = _located(loaded, pointing, segmentation, split, size, pick_device(device))
        terminal.print_json(located) if as_json else print_records(located)
        return
    if report:
        from xmr.train.report import check_folder

        check_folder(report)
    averaged = _modalities("--average", average, list(loaded.config.encoders))
    protocol = Protocol(
        fold_size=fold_size,
        keep_tail=keep_tail,
        gallery_size=gallery,
        repeats=repeats or Protocol.repeats,
        seed=seed,
        averaged=averaged,
        faithful=faithful,
    )
    sources = elsewhere(loaded.config, data).data
    held_out = load_held_out(loaded, sources, split, workspace.default_folder("cache"), pick_device(device))
    records = evaluate_held_out(held_out, protocol)
    must_rank(records)
    if baselines or transfer:
        records += _beside(loaded, held_out, records, protocol, sources, split, baselines=baselines, transfer=transfer)
    note_records(records)
    terminal.print_json(records) if as_json else print_records(records)
    if report:  # after the figures, which a page that cannot be drawn must not cost
        _draw(report, loaded, held_out, records, split, sources, folder, seed)


def _check_protocol(fold_size: int | None, keep_tail: bool, gallery: int | None, repeats: int | None) -> None:
    """UsageError for options that do not go together."""
    if fold_size and gallery:
        raise UsageError(f"--fold-size {fold_size} and --gallery {gallery} given; choose one of them")
    if keep_tail and not fold_size:
        raise UsageError("--keep-tail: there are no folds; give --fold-size too")
    if repeats and not gallery:
        raise UsageError(f"--repeats {repeats}: no galleries are drawn; give --gallery too")


def _located(
    loaded: Any, pointing: str | None, segmentation: str | None, split: str, size: int | None, device: Any
) -> list[dict[str, Any]]:
    """The records of looking for phrases and for categories in images."""
    from xmr.train.evaluate import point_checkpoint, segment_checkpoint

    records = point_checkpoint(loaded, pointing, device, split=split, size=size) if pointing else []
    return records + (segment_checkpoint(loaded, segmentation, device, size=size) if segmentation else [])


def _beside(
    loaded: Any,
    held_out: Any,
    records: list[dict[str, Any]],
    protocol: Any,
    sources: Sequence[str],
    split: str,
    *,
    baselines: bool,
    transfer: bool,
) -> list[dict[str, Any]]:
    """The records of baselines and of classifiers; what cannot be computed leaves the others as they are."""
    from xmr.train.evaluate import baseline_records, load_baselines, transfer_records

    wanted: dict[str, Callable[[Any], list[dict[str, Any]]]] = {}
    if baselines:
        wanted["baselines"] = lambda fitted: baseline_records(fitted, records, protocol)
    if transfer:
        wanted["transfer"] = lambda fitted: transfer_records(held_out, fitted)
    made: list[dict[str, Any]] = []
    try:
        fitted = load_baselines(held_out, loaded, sources, split, workspace.default_folder("cache"))
    except XmrError as error:
        return [{"kind": MISSING, "what": name, "reason": str(error)} for name in wanted]
    for name, compute in wanted.items():
        try:
            made += compute(fitted)
        except XmrError as error:
            made.append({"kind": MISSING, "what": name, "reason": str(error)})
    return made


def _draw(
    folder: Path,
    loaded: Any,
    held_out: Any,
    records: list[dict[str, Any]],
    split: str,
    sources: Sequence[str],
    metrics_folder: Path,
    seed: int,
) -> None:
    from xmr.train.report import write_report

    with terminal.progress_bar("drawing the report") as progress:
        page = write_report(
            folder,
            loaded,
            held_out,
            records,
            split=split,
            sources=sources,
            metrics_folder=metrics_folder,
            columns=TABLES,
            progress=progress,
            seed=seed,
        )
    terminal.note(f"report in {terminal.shown_path(page)}; open it in a browser")


def _modalities(option: str, given: str | None, known: list[str]) -> tuple[str, ...]:
    """The names of a list with commas; UsageError for one that the model does not have."""
    names = tuple(dict.fromkeys(name.strip() for name in given.split(","))) if given is not None else ()
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{option} {given}: the model has no {unknown[0]!r}; it has {', '.join(known)}")
    return names


def must_rank(records: list[dict[str, Any]]) -> None:
    """XmrError where no two modalities could be ranked."""
    if all(record.get("kind") == MISSING for record in records):
        raise XmrError("; ".join(dict.fromkeys(record["reason"] for record in records)))
