"""What a layer loses in int8: every layer is run beside a twin that reads the same float32 input."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from xmr.train.export.graphs import Ranges, copied, run
from xmr.train.export.int8.layout import Layout
from xmr.train.export.int8.rounding import Numbers, Rounding

TWIN_BATCHES = 4  # on which layers are compared with their int8 twins

Batches = Sequence[NDArray[Any]]


def shifts_of(layout: Layout, form: str, found: Ranges, batches: Batches) -> Mapping[str, Numbers]:
    """(channels,) what float32 gives more on average, of each layer that has a bias; all in one run of a batch."""
    probe = copied(layout.model)
    del probe.graph.output[:]
    layers = [layer for layer in layout.layers if layer.op_type != "MatMul"]
    for layer in layers:
        _add_twin(probe, layer, Rounding(layout, form, found))
    if not layers:
        return {}
    means = [sum(values) / len(batches) for values in zip(*run(probe, batches), strict=True)]
    return {layer.name: np.asarray(mean, np.float32) for layer, mean in zip(layers, means, strict=True)}


def _add_twin(probe: ModelProto, layer: NodeProto, rounding: Rounding) -> None:
    """A layer's int8 twin, and how far their outputs are apart."""
    rounding.add_layer(layer)
    twin, prefix = rounding.layers[layer.name], f"{layer.name}/twin."
    pair = rounding.pair(layer.input[0])
    twin.input[0], twin.output[0] = pair[1].output[0], "made"
    nodes = [*pair, *rounding.dequantising, twin]
    own = {tensor.name for tensor in rounding.added} | {name for node in nodes for name in node.output}
    for node in nodes:
        node.name = prefix + node.name
        node.input[:] = [prefix + name if name in own else name for name in node.input]
        node.output[:] = [prefix + name for name in node.output]
    for tensor in rounding.added:
        tensor.name = prefix + tensor.name
    probe.graph.node.extend(nodes)
    probe.graph.initializer.extend(rounding.added)
    _compare(probe, layer, prefix, others=_all_but_channels(rounding.layout, layer))


def _compare(probe: ModelProto, layer: NodeProto, prefix: str, others: list[int]) -> None:
    """The mean difference of each channel, as an output."""
    probe.graph.initializer.append(numpy_helper.from_array(np.array(others), f"{prefix}others"))
    shift, off = f"{layer.name}/shift", f"{prefix}off"
    probe.graph.node.append(helper.make_node("Sub", [layer.output[0], f"{prefix}made"], [off], name=off))
    mean = helper.make_node("ReduceMean", [off, f"{prefix}others"], [shift], name=shift, keepdims=0)
    probe.graph.node.append(mean)
    probe.graph.output.append(helper.make_empty_tensor_value_info(shift))


def _all_but_channels(layout: Layout, layer: NodeProto) -> list[int]:
    """Of a layer's output: (n, channels) of a Gemm, (n, channels, places...) of a Conv, as its weights."""
    return [0, *range(2, len(layout.held[layer.input[1]].dims))] if layer.op_type == "Conv" else [0]
