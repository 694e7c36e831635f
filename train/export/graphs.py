"""What the precisions have in common: an encoder and the head as one network, and what of it stays float32.

A network is an onnx.ModelProto of one input. Nothing here changes the one it is given.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper, shape_inference

from xmr.train.encoders.encoder import UnitLength
from xmr.train.encoders.image import ScalePixels
from xmr.train.encoders.sound import LogMel, LogSpectrogram
from xmr.train.encoders.speech import SpeechFrontEnd
from xmr.train.onnx_network import NAMESPACE

Ranges = Mapping[str, tuple[float, float]]  # of a tensor's values: the smallest and the largest

HEAD = "head."  # how the names of the head's nodes begin in a fused network
# modules whose arithmetic no smaller type carries: powers of samples, pixels, and lengths
FLOAT32_MODULES = tuple(of.__name__ for of in (LogSpectrogram, LogMel, SpeechFrontEnd, ScalePixels, UnitLength))
FLOAT32_OPERATORS = (
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Log",
    "Exp",
    "Range",
    "Resize",
)
LENGTHS = ("ReduceL2", "Sqrt")  # operators that make what others are divided by
OF_LENGTHS = ("Clip", "Max", "Add", "Expand")  # which keep a length from 0, and give it to all that it divides


def fused(encoder: ModelProto, head: ModelProto) -> ModelProto:
    """Encoder and head as one network, from the encoder's input to the head's outputs."""
    named = compose.add_prefix(head, HEAD, rename_inputs=False, rename_outputs=False)
    [features] = [output.name for output in encoder.graph.output]
    model = compose.merge_models(encoder, named, io_map=[(features, features)], name="served")
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = encoder.producer_name, encoder.producer_version
    _name_axes(model)
    _read_bytes_once(model)
    onnx.checker.check_model(model)
    return model


def float32_nodes(model: ModelProto) -> set[str]:
    """The nodes of a fused network that stay float32 in every precision: the head, front ends and normalisations."""
    kept: set[str] = set()
    made: set[str] = set()  # tensors that kept nodes make
    lengths: set[str] = set()
    for node in model.graph.node:
        is_of_length = not lengths.isdisjoint(node.input) and node.op_type in (*OF_LENGTHS, "Div")
        # a node that the exporter's optimiser made is of no module, but of what it reads
        is_inner = not _module_of(node) and not made.isdisjoint(node.input)
        if is_of_length or is_inner or node.op_type in LENGTHS or _stays_float32(node):
            kept.add(node.name)
            made.update(node.output)
        if node.op_type in LENGTHS or (is_of_length and node.op_type != "Div"):
            lengths.update(node.output)
    return kept


def _stays_float32(node: NodeProto) -> bool:
    if node.name.startswith(HEAD) or node.op_type in FLOAT32_OPERATORS:
        return True
    return any(module in _module_of(node) for module in FLOAT32_MODULES)


def _module_of(node: NodeProto) -> str:
    return next((prop.value for prop in node.metadata_props if prop.key == NAMESPACE), "")


def _name_axes(model: ModelProto) -> None:
    """The exporter numbers the axes that may change."""
    for value in model.graph.input:
        for axis, name in enumerate(("batch", "time")):
            if axis < len(value.type.tensor_type.shape.dim) and value.type.tensor_type.shape.dim[axis].dim_param:
                value.type.tensor_type.shape.dim[axis].dim_param = name
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _read_bytes_once(model: ModelProto) -> None:
    """Whoever asks for the shape of pixels asks for that of the floats made of them: TensorRT only casts bytes."""
    [given] = model.graph.input
    if given.type.tensor_type.elem_type != TensorProto.UINT8:
        return
    cast = next(node for node in model.graph.node if node.op_type == "Cast" and node.input[0] == given.name)
    others = [node for node in model.graph.node if node is not cast and given.name in node.input]
    for node in others:
        node.input[:] = [cast.output[0] if name == given.name else name for name in node.input]
    place = list(model.graph.node).index(cast)
    moved = NodeProto()
    moved.CopyFrom(cast)
    del model.graph.node[place]
    model.graph.node.insert(0, moved)


def copied(model: ModelProto) -> ModelProto:
    """A copy to be changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def constants(model: ModelProto) -> dict[str, TensorProto]:
    """What a network holds, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array_of(tensor: TensorProto) -> NDArray[Any]:
    array: NDArray[Any] = numpy_helper.to_array(tensor)
    return array


def element_types(model: ModelProto) -> dict[str, int]:
    """The type of every tensor that can be told, as TensorProto numbers them."""
    inferred = shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def finished(model: ModelProto) -> ModelProto:
    """Ready to be written: constants that nothing reads left out, checked."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def run(model: ModelProto, batches: Iterable[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Every output for each batch, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for batch in batches:
        yield session.run(None, {name: batch})


def ranges(
    model: ModelProto, tensors: Sequence[str], batches: Iterable[NDArray[Any]]
) -> dict[str, tuple[float, float]]:
    """What float32 tensors of a network hold: the means over batches of each batch's smallest and largest value."""
    means = _extremes(model, tensors, batches).mean(axis=0).tolist()
    return {tensor: (low, high) for tensor, (low, high) in zip(tensors, means, strict=True)}


def largest(model: ModelProto, tensors: Sequence[str], batches: Iterable[NDArray[Any]]) -> dict[str, float]:
    """The largest absolute value that float32 tensors of a network hold in any batch; NaN where one is no number."""
    found = np.abs(_extremes(model, tensors, batches)).max(axis=(0, 2)).tolist()
    return dict(zip(tensors, found, strict=True))


def _extremes(model: ModelProto, tensors: Sequence[str], batches: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """(n_batches, n_tensors, 2) the smallest and the largest value."""
    probe = copied(model)
    del probe.graph.output[:]
    for tensor in tensors:
        for operator in ("ReduceMin", "ReduceMax"):
            name = f"{tensor}/{operator}"
            probe.graph.node.append(helper.make_node(operator, [tensor], [name], keepdims=0))
            probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
    found = np.array([[float(value) for value in values] for values in run(probe, batches)])
    return found.reshape(-1, len(tensors), 2)


def write(model: ModelProto, path: Path) -> None:
    """The same network is written as the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
