"""A network whose weights and activations are float16 or bfloat16, but for what stays float32."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from xmr.train.export.graphs import (
    array_of,
    constants,
    copied,
    element_types,
    finished,
    float32_nodes,
    largest,
)

RECURRENT = ("GRU", "LSTM")  # which TensorRT takes apart into parts of which some stay float32
LARGEST = 30_000.0  # of a value that is left to float16, half of what it can hold
SMALLEST = 2.0**-14  # that float16 holds with all its digits: a constant that is all smaller is one to keep from 0
TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
TORCH_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def in_half(model: ModelProto, precision: str, batches: Iterable[NDArray[Any]]) -> ModelProto:
    """A fused float32 network in float16 or bfloat16; what does not survive float16 stays float32 too.

    That is what overflows on one of these batches, and constants that are too large or all too small for it.

    Inputs and outputs keep their types. Where a float32 node meets a half one stands a Cast.
    """
    kept = float32_nodes(model)
    if precision == "float16":
        kept |= _overflowing(model, batches) | _lossy(model)
    if precision == "bfloat16":
        kept |= {node.name for node in model.graph.node if node.op_type in RECURRENT}
    return _Halving(model, precision, kept).halved()


def _overflowing(model: ModelProto, batches: Iterable[NDArray[Any]]) -> set[str]:
    """The nodes that read or make values too large for float16."""
    types = element_types(model)
    made = [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    too_large = {name for name, value in largest(model, made, batches).items() if not value <= LARGEST}
    too_large -= {name for name in too_large if _is_infinite_mask(model, name)}
    return {node.name for node in model.graph.node if too_large & {*node.input, *node.output}}


def _lossy(model: ModelProto) -> set[str]:
    """The nodes that read a constant which float16 would make infinite or nothing."""
    lossy = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and not _survives(array_of(tensor))
    }
    return {node.name for node in model.graph.node if lossy & {*node.input}}


def _survives(values: NDArray[Any]) -> bool:
    """Infinity does, and so does a tensor of which only some are tiny."""
    finite = np.abs(values[np.isfinite(values)])
    most = float(finite.max(initial=0))
    return most == 0 or SMALLEST <= most <= LARGEST


def _is_infinite_mask(model: ModelProto, name: str) -> bool:
    """Whether minus infinity was filled in, which float16 holds."""
    held = constants(model)
    for node in model.graph.node:
        if name in node.output and node.op_type == "Where":
            filled = [array_of(held[given]) for given in node.input[1:] if given in held]
            return any(bool(np.isinf(values).all()) for values in filled)
    return False


class _Halving:
    """One pass over the nodes of a network, in their order."""

    def __init__(self, model: ModelProto, precision: str, kept: Collection[str]) -> None:
        self.model, self.precision, self.kept = copied(model), precision, kept
        self.half = TYPES[precision]
        self.types = element_types(model)
        self.held = constants(self.model)
        self.nodes: list[NodeProto] = []
        self.is_half: dict[str, bool] = {}  # of float tensors
        self.casts: dict[tuple[str, int], str] = {}

    def halved(self) -> ModelProto:
        for node in self.model.graph.node:
            self._place(node)
        for output in self.model.graph.output:
            if self.is_half.get(output.name):
                raise AssertionError(f"{output.name}: an output of the head is float32")
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        return finished(self.model)

    def _place(self, node: NodeProto) -> None:
        is_half = node.name not in self.kept
        # a shape is that of any type: nothing is cast for it
        inputs = [name if node.op_type == "Shape" else self._input(name, is_half) for name in node.input]
        placed = NodeProto()
        placed.CopyFrom(node)
        placed.input[:] = inputs
        if is_half:
            _make_half(placed, self.half)
        self.nodes.append(placed)
        for name in node.output:
            if self.types.get(name) == TensorProto.FLOAT:
                self.is_half[name] = is_half

    def _input(self, name: str, is_half: bool) -> str:
        """The name under which a node reads a tensor in its own type."""
        if self.types.get(name) != TensorProto.FLOAT:
            return name
        if name in self.held:
            return self._constant(name) if is_half else name
        if self.is_half.get(name, False) == is_half:
            return name
        wanted = self.half if is_half else TensorProto.FLOAT
        if (name, wanted) not in self.casts:
            cast = self.casts[name, wanted] = f"{name}/{self.precision if is_half else 'float32'}"
            self.nodes.append(helper.make_node("Cast", [name], [cast], name=f"{cast}/Cast", to=wanted))
        return self.casts[name, wanted]

    def _constant(self, name: str) -> str:
        halved = f"{name}/{self.precision}"
        if halved not in self.held:
            self.held[halved] = _in_half(self.held[name], halved, self.precision)
            self.model.graph.initializer.append(self.held[halved])
        return halved


def _in_half(tensor: TensorProto, name: str, precision: str) -> TensorProto:
    """Its values rounded to the nearest."""
    values = torch.from_numpy(array_of(tensor).astype(np.float32)).to(TORCH_TYPES[precision])
    raw = values.contiguous().view(torch.int16).numpy().tobytes()
    return helper.make_tensor(name, TYPES[precision], tensor.dims, raw, raw=True)


def _make_half(node: NodeProto, half: int) -> None:
    """What a node makes of integers becomes half too."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = half
        if node.op_type == "ConstantOfShape" and attribute.t.data_type == TensorProto.FLOAT:
            precision = next(name for name, number in TYPES.items() if number == half)
            attribute.t.CopyFrom(_in_half(attribute.t, "", precision))


def rounded(model: ModelProto) -> ModelProto:
    """What a GPU computes of a half network, as a float32 one: every half number is rounded to half where it is made.

    For ONNX Runtime and OpenVINO compute on CPUs in float32 what a file says is half.
    """
    copy = copied(model)
    types = element_types(copy)
    halves = {name: of for name, of in types.items() if of in TYPES.values()}
    for tensor in copy.graph.initializer:
        if tensor.name in halves:
            tensor.CopyFrom(_in_float32(tensor))
    placed: list[NodeProto] = []
    for node in copy.graph.node:
        _make_float32(node)
        for place, name in enumerate(node.output):
            if name in halves:
                node.output[place] = f"{name}/exact"
        placed.append(node)
        placed += [cast for name in node.output if name.endswith("/exact") for cast in _rounding(name, halves)]
    del copy.graph.node[:]
    copy.graph.node.extend(placed)
    return finished(copy)


def _rounding(name: str, halves: dict[str, int]) -> list[NodeProto]:
    """To half and back."""
    whole = name.removesuffix("/exact")
    steps = ((name, f"{whole}/half", halves[whole]), (f"{whole}/half", whole, TensorProto.FLOAT))
    return [helper.make_node("Cast", [given], [made], name=f"{made}/Round", to=to) for given, made, to in steps]


def _in_float32(tensor: TensorProto) -> TensorProto:
    """The same numbers."""
    precision = next(name for name, number in TYPES.items() if number == tensor.data_type)
    codes = torch.frombuffer(bytearray(tensor.raw_data), dtype=TORCH_TYPES[precision])
    return numpy_helper.from_array(codes.float().numpy().reshape(tuple(tensor.dims)), tensor.name)


def _make_float32(node: NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in TYPES.values():
            attribute.i = TensorProto.FLOAT
        if node.op_type == "ConstantOfShape" and attribute.t.data_type in TYPES.values():
            attribute.t.CopyFrom(_in_float32(attribute.t))
