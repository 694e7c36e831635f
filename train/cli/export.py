"""The command that turns a checkpoint into an exported model."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.train.cli.options import CheckpointOption, DataOption, JsonOption, elsewhere, need_torch

if TYPE_CHECKING:
    from xmr.train.export import Parity


def export(
    data: DataOption = None,
    checkpoint: CheckpointOption = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder to write; default .xmr/model.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the model; default: recipe and a digest.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Networks in float16 too.")] = False,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Offer bfloat16: by OpenVINO, and with --trt in networks of their own.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Networks in int8 too, calibrated on train rows.")] = False,
    trt: Annotated[
        bool, typer.Option("--trt", help="Build TensorRT plans, of what --int8 and --bf16 make for it too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as ONNX networks that run without torch, checked against torch on real items.

    Example: xmr export --int8
    """
    need_torch()
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.export import Wishes, default_name
    from xmr.train.export import export as write

    if trt:
        from xmr.engine.trt import find_builder

        find_builder()  # before minutes are spent on networks for it
    loaded = load_checkpoint(best_of(checkpoint or workspace.default_folder("checkpoint")))
    loaded = replace(loaded, config=elsewhere(loaded.config, data))
    folder = model or workspace.default_folder("model")
    wishes = Wishes(float16=fp16, bfloat16=bf16, int8=int8, tensorrt=trt)
    report = _print_json if as_json else _print
    write(loaded, folder, name or default_name(loaded), wishes, note=terminal.note, report=report)
    if as_json:
        return
    if trt:
        print(f"{_n_plans(folder)} plans for TensorRT in {terminal.shown_path(folder / 'plans')}")
    print(f"model in {terminal.shown_path(folder)}; next: xmr index PATH")


def _n_plans(folder: Path) -> int:
    from xmr.engine.model import read_config
    from xmr.engine.trt import plans_of

    return len(plans_of(folder, read_config(folder)))


def _print_json(parity: "Sequence[Parity]") -> None:
    terminal.print_json([asdict(of) | {"missed": of.missed} for of in parity])


def _print(parity: "Sequence[Parity]") -> None:
    rows = [
        (
            of.modality,
            of.precision,
            f"{of.runtime} (off)" if of.missed else of.runtime,
            f"{of.n_items} {of.split}",
            f"{of.min_cosine:.6f}",
            "" if of.top10_overlap is None else f"{of.top10_overlap:.1f}",
            "" if of.min_map_cosine is None else f"{of.min_map_cosine:.6f}",
            "" if of.class_error is None else f"{of.class_error:.4f}",
        )
        for of in parity
    ]
    columns = (
        "modality",
        "precision",
        "runtime",
        "items",
        "min cosine to torch",
        "top-10 overlap %",
        "maps",
        "classes",
    )
    terminal.print_table(columns, rows)
