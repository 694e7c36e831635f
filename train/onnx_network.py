"""One torch network -> one ONNX file, with its dynamic axes checked."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 20


def to_onnx(
    network: nn.Module,
    batch: NDArray[Any],
    path: Path,
    *,
    input_name: str,
    output_names: Sequence[str],
    dynamic_axes: Iterable[int],
) -> None:
    """Write `path`, traced with one batch. A declared axis that the trace has fixed is our mistake."""
    axes = list(dynamic_axes)
    for library in ("onnxscript", "onnx_ir"):  # which tell of every step that they leave out
        logging.getLogger(library).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.from_numpy(batch),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),),
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    written = onnx.load(path)
    onnx.checker.check_model(written)
    shape = written.graph.input[0].type.tensor_type.shape
    for axis in axes:
        assert shape.dim[axis].dim_param, f"{path.name}: axis {axis} was declared dynamic and is {shape.dim[axis]}"
