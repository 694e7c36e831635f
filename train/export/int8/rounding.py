"""Pairs of QuantizeLinear and DequantizeLinear put around the nodes of a network."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from xmr.train.export.graphs import Ranges, array_of, copied, finished
from xmr.train.export.int8.layout import Layout

CPU, TENSORRT = "int8", "int8-trt"
SMALLEST_TABLE = 4096  # numbers of a table of word vectors that is worth being kept in int8
LARGEST_BIAS = 2**28  # in steps: int32 has to hold it and the sum of up to 60,000 products beside it
# of a step: what a bias is counted in is the product of two, which float32 has to hold
SMALLEST_STEP = 1e-18

FINEST = 2.0**-16  # of a channel's steps, as a share of the widest

Numbers = NDArray[np.float32]


class Rounding:
    """A network that is being made int8, or one layer of it."""

    def __init__(self, layout: Layout, form: str, found: Ranges) -> None:
        self.layout, self.form, self.found = layout, form, found
        self.layers: dict[str, NodeProto] = {}  # as they read what is rounded, by name
        self.rounded: set[str] = set()  # tensors that are read through a pair
        self.is_quantised: set[str] = set()  # nodes
        self.added: list[TensorProto] = []
        self.dequantising: list[NodeProto] = []  # of constants

    def add_layer(self, layer: NodeProto, shift: Numbers | float = 0.0) -> None:
        """A layer between rounded tensors; `shift` (channels,) is added to its bias."""
        node = self.layers[layer.name] = NodeProto()
        node.CopyFrom(layer)
        bias = self._bias(layer, shift)
        scales = self._add_weights(node, bias)
        if bias is not None:
            node.input[2:] = [self._add_bias(node, bias, scales)]
        self.rounded.add(layer.input[0])
        self.is_quantised.add(layer.name)
        if self.form == CPU:
            self.rounded.add(self.layout.rounded(layer))

    def add_sums(self) -> None:
        """An addition whose inputs are both rounded, of which one is a layer's or another sum's, adds integers."""
        for node in self.layout.sums:
            if any(name in self.rounded for name in node.input) and all(
                name in self.rounded or self.layout.source(name) in self.found for name in node.input
            ):
                self.rounded |= {*node.input, self.layout.rounded(node)}
                self.is_quantised.add(node.name)

    def add_tables(self) -> None:
        """Word vectors as int8 rows, with a scale for each of their numbers."""
        for node in self.layout.model.graph.node:
            tensor = self.layout.held.get(node.input[0]) if node.op_type == "Gather" else None
            if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
                continue
            if np.prod(tensor.dims) < SMALLEST_TABLE or any(each.name == "axis" and each.i for each in node.attribute):
                continue
            self._add_table(node, tensor)

    def _add_table(self, node: NodeProto, tensor: TensorProto) -> None:
        values = array_of(tensor)
        scales = _scales(np.abs(values).max(axis=0))
        reading = self.layers[node.name] = NodeProto()
        reading.CopyFrom(node)
        gathered, made = f"{node.output[0]}/int8", node.output[0]
        names = [self._constant(f"{node.name}/rows", _codes(values, scales))]
        names += [self._constant(f"{node.name}/scales", scales)]
        names += [self._constant(f"{node.name}/zeros", np.zeros(len(scales), np.int8))]
        reading.input[0], reading.output[0] = names[0], gathered
        pair = helper.make_node("DequantizeLinear", [gathered, *names[1:]], [made], name=f"{made}/Dequantize", axis=2)
        self.dequantising.append(pair)

    def _bias(self, layer: NodeProto, shift: Numbers | float) -> Numbers | None:
        """(channels,); a MatMul has none."""
        if layer.op_type == "MatMul":
            return None
        n_channels = self.layout.held[layer.input[1]].dims[channel_axis(layer)]
        bias = np.zeros(n_channels, np.float32)
        if len(layer.input) > 2 and layer.input[2]:
            bias = bias + array_of(self.layout.held[layer.input[2]]).reshape(-1)
        return (bias + shift).astype(np.float32)

    def _add_weights(self, node: NodeProto, bias: Numbers | None) -> Numbers:
        """Weights behind a DequantizeLinear; the scale of each output channel."""
        values = array_of(self.layout.held[node.input[1]])
        axis = channel_axis(node)
        others = tuple(place for place in range(values.ndim) if place != axis)
        scales = _scales(np.abs(values).max(axis=others))
        if bias is not None and self.form == CPU:  # a channel that is almost all bias has steps that can count it
            scales = np.maximum(scales, np.abs(bias) / (self._step(node) * LARGEST_BIAS)).astype(np.float32)
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        codes = _codes(values, scales.reshape(shape))
        node.input[1] = self._dequantised(f"{node.name}/weights", codes, scales, axis)
        return scales

    def _add_bias(self, node: NodeProto, bias: Numbers, weight_scales: Numbers) -> str:
        name = f"{node.name}/bias"
        if self.form != CPU:
            return self._constant(name, bias)
        scales = (weight_scales * self._step(node)).astype(np.float32)
        codes = np.rint(bias.astype(np.float64) / scales).astype(np.int32)
        return self._dequantised(name, codes, scales, 0)

    def _step(self, node: NodeProto) -> np.float32:
        """What one step of a layer's input is."""
        scale, _ = _uint8(*self.found[self.layout.source(node.input[0])])
        return np.float32(scale)

    def _dequantised(self, name: str, codes: NDArray[Any], scales: Numbers, axis: int) -> str:
        parts = (("codes", codes), ("scales", scales), ("zeros", np.zeros(len(scales), codes.dtype)))
        names = [self._constant(f"{name}/{part}", of) for part, of in parts]
        self.dequantising.append(
            helper.make_node("DequantizeLinear", names, [name], name=f"{name}/Dequantize", axis=axis)
        )
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.added.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def quantised(self) -> ModelProto:
        """The nodes in their order, each rounded tensor's pair right behind the node that makes it."""
        model = copied(self.layout.model)
        placed: list[NodeProto] = []
        waiting = {node.output[0]: node for node in self.dequantising}
        for value in model.graph.input:
            placed += self.pair(value.name)
        for original in model.graph.node:
            node = self.layers.get(original.name, original)
            placed += [waiting.pop(name) for name in node.input if name in waiting]
            placed.append(node)
            placed += [waiting.pop(made) for made in [*waiting] if waiting[made].input[0] in node.output]
            for name in original.output:
                placed += self.pair(name)
        self._read_rounded(placed)
        del model.graph.node[:]
        model.graph.node.extend(placed)
        model.graph.initializer.extend(self.added)
        return finished(model)

    def pair(self, name: str) -> list[NodeProto]:
        """Through which a tensor is read that is rounded."""
        if name not in self.rounded:
            return []
        low, high = self.found[self.layout.source(name)]
        scale, zero = _uint8(low, high) if self.form == CPU else _int8(low, high)
        facts = [self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", zero)]
        codes, back = f"{name}/codes", f"{name}/rounded"
        return [
            helper.make_node("QuantizeLinear", [name, *facts], [codes], name=f"{name}/Quantize"),
            helper.make_node("DequantizeLinear", [codes, *facts], [back], name=f"{name}/Dequantize"),
        ]

    def _read_rounded(self, placed: Iterable[NodeProto]) -> None:
        """Quantised nodes read through the pairs; on CPUs all do, so that one type of a tensor is kept."""
        for node in placed:
            if node.op_type == "QuantizeLinear":
                continue
            if self.form == CPU or node.name in self.is_quantised:
                node.input[:] = [f"{name}/rounded" if name in self.rounded else name for name in node.input]


def channel_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts output channels."""
    if node.op_type == "Conv":
        return 0
    is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Gemm" and is_transposed else 1


def _codes(values: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.int8]:
    codes: NDArray[np.int8] = np.rint(values / scales).clip(-127, 127).astype(np.int8)
    return codes


def _scales(largest: NDArray[Any]) -> Numbers:
    """(channels,) of the largest absolute values: what one step of int8 is.

    A channel that is next to nothing has no finer steps than beside the others are of use.
    """
    most = max(float(largest.max(initial=0)) / 127, SMALLEST_STEP)
    return np.maximum(largest / 127, most * FINEST).astype(np.float32)


def _uint8(low: float, high: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and zero point of numbers in this range, in which 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, SMALLEST_STEP) if high > low else 1.0)
    return np.array(scale, np.float32), np.array(np.rint(-low / scale).clip(0, 255), np.uint8)


def _int8(low: float, high: float) -> tuple[NDArray[Any], NDArray[Any]]:
    most = max(abs(low), abs(high))
    return np.array(max(most / 127, SMALLEST_STEP) if most else 1.0, np.float32), np.array(0, np.int8)
