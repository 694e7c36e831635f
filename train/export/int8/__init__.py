"""A network in int8: convolutions and matrix products between QuantizeLinear and DequantizeLinear.

Weights have a scale for each output channel, activations one each, from ranges that real items take. Two forms:
`int8` for CPUs (uint8 activations, int32 bias, outputs quantised too, so that whole runs of layers stay int8),
`int8-trt` for TensorRT (symmetric int8 activations, float bias). Every layer is run beside its int8 twin once: what
the twin is off by on average is taken out of its bias (Nagel et al. 2019, section 4.2). What spoils the embeddings by
itself stays in float32, and of the others as few of the first, whose errors all behind them inherit, as let embeddings
be alike.

layout tells what of a network can be int8, rounding makes it so, twins measures what a layer is off by.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from onnx import ModelProto, NodeProto

from xmr.train.export.graphs import ranges
from xmr.train.export.int8.layout import layout_of
from xmr.train.export.int8.rounding import CPU, TENSORRT, Numbers, Rounding
from xmr.train.export.int8.twins import TWIN_BATCHES, Batches, shifts_of

__all__ = ["CPU", "TENSORRT", "Quantised", "in_int8"]


@dataclass(frozen=True)
class Quantised:
    """A network in int8, and how many of its layers are."""

    model: ModelProto
    n_layers: int
    n_left_out: int


def in_int8(model: ModelProto, form: str, batches: Batches, is_alike: Callable[[ModelProto], bool]) -> Quantised:
    """A fused float32 network in int8 with as many layers as let `is_alike` hold; the same for the same batches.

    One layer at the least is int8, whether that is alike or not; none, where nothing in the network can be.
    """
    layout = layout_of(model)
    if not layout.layers:
        return Quantised(model, 0, 0)
    found = ranges(model, layout.measured, batches)
    shifts = shifts_of(layout, form, found, batches[:TWIN_BATCHES])

    def only(names: Collection[str]) -> ModelProto:
        layers = [layer for layer in layout.layers if layer.name in names]
        return _quantised(Rounding(layout, form, found), layers, shifts)

    @cache
    def is_enough(names: frozenset[str]) -> bool:
        return is_alike(only(names))

    names = [layer.name for layer in layout.layers]
    spoiling = _spoiling(names, lambda part: is_enough(frozenset(part)))
    first_out = [*spoiling, *(name for name in names if name not in spoiling)]
    most = len(names) - 1
    n_spoiling = min(len(spoiling), most)
    n = n_spoiling + _fewest(most - n_spoiling, lambda n: is_enough(frozenset(first_out[n_spoiling + n :])))
    return Quantised(only(first_out[n:]), len(names) - n, n)


def _quantised(rounding: Rounding, layers: Iterable[NodeProto], shifts: Mapping[str, Numbers]) -> ModelProto:
    for layer in layers:
        rounding.add_layer(layer, shifts.get(layer.name, 0.0))
    if rounding.form == CPU:
        rounding.add_sums()
        rounding.add_tables()
    return rounding.quantised()


def _spoiling(names: Sequence[str], is_enough: Callable[[Sequence[str]], bool]) -> list[str]:
    """The layers that are too much even as the only ones in int8, looked for by halves that are too much."""
    if is_enough(names):
        return []
    if len(names) == 1:
        return [*names]
    middle = len(names) // 2
    return _spoiling(names[:middle], is_enough) + _spoiling(names[middle:], is_enough)


def _fewest(most: int, is_enough: Callable[[int], bool]) -> int:
    """The smallest number that is enough, where more is no worse: doubling, then halving; `most` if none is."""
    if is_enough(0):
        return 0
    low, high = 0, 1
    while high < most and not is_enough(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
