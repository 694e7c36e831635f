"""The command that turns a checkpoint into an exported model."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.train.cli.options import CheckpointOption, DataOption, JsonOption, elsewhere, need_torch


def export(
    data: DataOption = None,
    checkpoint: CheckpointOption = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder to write; default .xmr/model.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the model; default: recipe and a digest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as ONNX networks that run without torch, checked against torch on real items.

    Example: xmr export
    """
    need_torch()
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.export import default_name
    from xmr.train.export import export as write

    loaded = load_checkpoint(best_of(checkpoint or workspace.default_folder("checkpoint")))
    loaded = replace(loaded, config=elsewhere(loaded.config, data))
    folder = model or workspace.default_folder("model")
    parity = write(loaded, folder, name or default_name(loaded), note=terminal.note)
    if as_json:
        terminal.print_json([asdict(result) for result in parity])
        return
    rows = [
        (
            of.modality,
            of.n_items,
            f"{of.min_cosine:.6f}",
            f"{of.top10_overlap:.1f}",
            "" if of.min_map_cosine is None else f"{of.min_map_cosine:.6f}",
        )
        for of in parity
    ]
    columns = ("modality", "items", "min cosine to torch", "top-10 overlap %", "min cosine of maps")
    terminal.print_table(columns, rows)
    print(f"model in {terminal.shown_path(folder)}; next: xmr index PATH")
