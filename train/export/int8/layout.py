"""What of a network can be int8, and how its tensors hang together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from xmr.train.export.graphs import constants, element_types, float32_nodes

WEIGHTED = ("Conv", "Gemm", "MatMul")
SAME_RANGE = ("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")  # what comes out went in
ACTIVATIONS = ("Relu", "Clip")  # which a kernel applies before it rounds


@dataclass(frozen=True)
class Layout:
    """Of one network, which is not changed."""

    model: ModelProto
    held: Mapping[str, TensorProto]  # constants
    makers: Mapping[str, NodeProto]  # by a tensor that they make
    readers: Mapping[str, Sequence[NodeProto]]
    layers: Sequence[NodeProto]  # products with constant weights that may leave float32
    sums: Sequence[NodeProto]  # additions of two activations, as around the blocks of a residual network

    def rounded(self, node: NodeProto) -> str:
        """The tensor that is rounded to int8 where a node's output is: behind the activation that it alone feeds."""
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type in ACTIVATIONS:
            return str(readers[0].output[0])
        return str(node.output[0])

    def source(self, name: str) -> str:
        """The tensor that has the range of this one and stands in front of what only moves numbers."""
        return _source(self.makers, name)

    @property
    def measured(self) -> list[str]:
        """The tensors whose ranges are needed."""
        names = [name for layer in self.layers for name in (layer.input[0], self.rounded(layer))]
        names += [name for node in self.sums for name in (*node.input, self.rounded(node))]
        return list(dict.fromkeys(map(self.source, names)))


def layout_of(model: ModelProto) -> Layout:
    """Of a fused float32 network."""
    held, kept, types = constants(model), float32_nodes(model), element_types(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    free = [
        node for node in model.graph.node if node.name not in kept and types.get(node.output[0]) == TensorProto.FLOAT
    ]
    layers = [node for node in _products(free, held) if not _is_reduced(makers, node.input[0])]
    sums = [node for node in free if node.op_type == "Add" and not any(name in held for name in node.input)]
    return Layout(model, held, makers, readers, layers, sums)


def _products(nodes: Iterable[NodeProto], held: Mapping[str, TensorProto]) -> list[NodeProto]:
    return [
        node
        for node in nodes
        if node.op_type in WEIGHTED
        and node.input[1] in held
        and (node.op_type != "MatMul" or len(held[node.input[1]].dims) == 2)
    ]


def _is_reduced(makers: Mapping[str, NodeProto], name: str) -> bool:
    """Whether it is a mean or maximum: small, and OpenVINO rounds what comes right out of one wrongly."""
    maker = makers.get(_source(makers, name))
    return maker is not None and maker.op_type.startswith("Reduce")


def _source(makers: Mapping[str, NodeProto], name: str) -> str:
    while name in makers and makers[name].op_type in SAME_RANGE:
        name = makers[name].input[0]
    return name
