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
NAMESPACE = "namespace"  # of a node: the modules that it comes from


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
    _forget_the_trace(written)
    onnx.checker.check_model(written)
    path.write_bytes(written.SerializeToString(deterministic=True))
    shape = written.graph.input[0].type.tensor_type.shape
    for axis in axes:
        assert shape.dim[axis].dim_param, f"{path.name}: axis {axis} was declared dynamic and is {shape.dim[axis]}"


def _forget_the_trace(written: onnx.ModelProto) -> None:
    """Leave of what the exporter notes the modules that nodes come from: the rest names files of this machine."""
    del written.graph.value_info[:]
    for node in written.graph.node:
        kept = [prop for prop in node.metadata_props if prop.key == NAMESPACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for part in (written.graph, *written.graph.initializer, *written.graph.input, *written.graph.output):
        del part.metadata_props[:]
