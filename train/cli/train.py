"""The command that trains, and shows the recipes that it can train."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError, XmrError
from xmr.train.cli.options import (
    CheckpointOption,
    DataOption,
    DeviceOption,
    JsonOption,
    SetOption,
    elsewhere,
    need_torch,
)
from xmr.train.cli.tables import note_records, print_records

if TYPE_CHECKING:
    from xmr.train.settings import TrainConfig


def train(
    recipe: Annotated[str | None, typer.Option("--recipe", help="Recipe, in place of the one in xmr.toml.")] = None,
    data: DataOption = None,
    assignments: SetOption = None,
    checkpoint: CheckpointOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the checkpoint stands.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")] = False,
    device: DeviceOption = "auto",
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the recipes; with --recipe, one in full.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn a model from pairs; a checkpoint every evaluation or minute, Ctrl-C leaves one to go on from.

    Example: xmr train --set epochs=5
    """
    if list_recipes:
        _print_recipes(recipe, assignments or [], as_json)
        return
    from xmr.engine.runtime import check_device

    check_device(device)
    if resume and (recipe or assignments or overwrite):
        raise UsageError("--resume goes on with the checkpoint's own settings; drop the other options, or --resume")
    config = None if resume else _read_settings(recipe, data or [], assignments or [])
    need_torch()
    from xmr.engine.info import CHECKPOINT_NAME
    from xmr.train.checkpoint import load_checkpoint
    from xmr.train.fit import fit

    folder = checkpoint or workspace.default_folder("checkpoint")
    config = config or elsewhere(load_checkpoint(folder / CHECKPOINT_NAME).config, data)
    cache = workspace.default_folder("cache")
    with _memory_said():
        results = fit(config, folder, cache, resume=resume, overwrite=overwrite, device=device)
    if as_json:
        terminal.print_json(results)
        return
    note_records(results)
    print_records(results)
    print(f"checkpoint in {terminal.shown_path(folder)}; next: xmr export")


def _read_settings(recipe: str | None, data: list[str], assignments: list[str]) -> "TrainConfig":
    """The workspace's settings and what the command line adds; read without torch, so that a slip shows at once."""
    from xmr.train.config import anchored_source, load_config

    settings = workspace.config_path()
    if not settings.is_file() and not (recipe and data):
        raise XmrError(f"{Path.cwd()}: no xmr.toml here; start with `xmr init`, or give --recipe and --data")
    sources = json.dumps([anchored_source(source, Path.cwd()) for source in data])  # as a TOML list
    named = [f"data={sources}"] if data else []
    return load_config(settings, recipe=recipe, assignments=[*named, *assignments])


def _print_recipes(recipe: str | None, assignments: list[str], as_json: bool) -> None:
    """All recipes, one a line; of one alone its encoders and its stages too, in the size and variant assigned."""
    from xmr.train.config import STAGE_FACTS, recipe_facts, recipe_names

    facts = [recipe_facts(name, assignments) for name in ([recipe] if recipe else recipe_names())]
    if as_json:
        terminal.print_json([asdict(of) for of in facts])
    elif recipe is None:
        columns = ("recipe", "modalities", "losses", "variants", "sizes", "paper")
        rows = [
            (of.name, *(", ".join(part) for part in (of.modalities, of.losses, of.variants, of.sizes)), of.about)
            for of in facts
        ]
        terminal.print_table(columns, rows)
    else:
        of = facts[0]
        print(f"{of.name}: {of.about}\nvariants: {', '.join(of.variants) or 'none'}; sizes: {', '.join(of.sizes)}\n")
        terminal.print_table(("modality", "encoder"), list(of.encoders.items()))
        print()
        stages = [
            (
                number,
                *(stage[key] for key in STAGE_FACTS),
                ", ".join(f"{modality} from {layer}" for modality, layer in stage["finetune"].items()),
                ", ".join(stage["losses"]),
            )
            for number, stage in enumerate(of.stages, start=1)
        ]
        terminal.print_table(("stage", *(key.replace("_", " ") for key in STAGE_FACTS), "finetunes", "losses"), stages)


@contextmanager
def _memory_said() -> Iterator[None]:
    """Too little memory, which torch tells of in several ways, as one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, MemoryError) or "memory" in str(error):
            first = str(error).splitlines()[0] if str(error) else "no more is there"
            raise XmrError(f"too little memory ({first}); train with a smaller batch_size or width") from None
        raise
