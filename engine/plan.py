"""The command that builds TensorRT plans of an exported model, on the machine that serves it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError


def plan(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="Exported model folder; default .xmr/model.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Precisions to build, as float32,float16; default all it has.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="The GPU that they are for: auto (the first), cuda or cuda:N.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Build TensorRT plans of a model that are missing, or were built of or for something else.

    Example: xmr plan --precision float16
    """
    from xmr.engine.model import read_config
    from xmr.engine.runtime import check_device, check_gpu, number_of
    from xmr.engine.trt import make_plans

    check_device(device)
    if device == "cpu":
        raise UsageError("--device cpu: plans are for NVIDIA GPUs; leave it away, or name the GPU as cuda:N")
    if device != "auto":
        check_gpu(device)
    folder = model or workspace.default_folder("model")
    names = [name.strip() for name in precision.split(",")] if precision is not None else []
    made = make_plans(folder, read_config(folder), names, device=number_of(device), note=terminal.note)
    if as_json:
        terminal.print_json([asdict(one) for one in made])
        return
    rows = [(one.network, one.precision, one.size_mb, "built" if one.was_built else "good", one.file) for one in made]
    terminal.print_table(("network", "precision", "MB", "", "plan"), rows)
    n_built = sum(one.was_built for one in made)
    print(f"{n_built} built, {len(made) - n_built} still good; next: xmr index PATH --runtime tensorrt")
