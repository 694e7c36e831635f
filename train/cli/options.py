"""What several commands have in common: their options, and what they do with them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmr.engine.errors import XmrError

if TYPE_CHECKING:
    from xmr.train.settings import TrainConfig

CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="Checkpoint folder; default .xmr/checkpoint.")
]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Pairs: a file, a folder, or NAME:PATH; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, as size=small; repeatable.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def need_torch() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "gensim", "safetensors", "tomli_w") if find_spec(name) is None]
    if missing:
        raise XmrError(f"{missing[0]} is not installed; pip install 'xmr[train]'")


def elsewhere(config: "TrainConfig", data: list[str] | None) -> "TrainConfig":
    """The settings of a checkpoint whose data has moved."""
    from xmr.train.config import anchored_source

    return replace(config, data=tuple(anchored_source(source, Path.cwd()) for source in data)) if data else config
