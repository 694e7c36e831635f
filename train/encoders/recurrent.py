"""Recurrent layers over sequences of unequal length: (n, t, dim) and their lengths (n,) -> the state at every step.

What stands behind a sequence's end reaches none of its states: forwards it comes too late, and backwards each sequence
is read from its own end. So nothing is packed: an exported network could not do it, and a CPU gains little.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recurrent(nn.Module):
    """Layers of one kind, a module for each and each direction; the states of both directions side by side."""

    def __init__(
        self,
        layer: Callable[[int, int], nn.Module],
        input_dim: int,
        hidden: int,
        n_layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dim = 2 * hidden if bidirectional else hidden  # numbers of a state
        self.dropout = nn.Dropout(dropout)  # between the layers
        below = [input_dim, *[self.dim] * (n_layers - 1)]
        self.forwards = nn.ModuleList(layer(dim, hidden) for dim in below)
        self.backwards = nn.ModuleList(layer(dim, hidden) for dim in below if bidirectional)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(n, t, input_dim), (n,) -> (n, t, dim), zeros behind each length."""
        states = inputs
        for place, layer in enumerate(self.forwards):
            below = self.dropout(states) if place else states
            states = layer(below)
            if len(self.backwards):
                ended = self.backwards[place](reverse(below, lengths))
                states = torch.cat([states, reverse(ended, lengths)], dim=2)
        return states * is_step(states, lengths).unsqueeze(2)


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014), torch's cell."""

    def __init__(
        self, input_dim: int, hidden: int, n_layers: int = 1, *, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(GRULayer, input_dim, hidden, n_layers, bidirectional, dropout)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), torch's cell; forget gates begin with a bias of 1.

    With `learned_start` the states in front of the first step learn too, for each layer and direction its own.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: int,
        n_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        learned_start: bool = False,
    ) -> None:
        layer = partial(LSTMLayer, learned_start=learned_start)
        super().__init__(layer, input_dim, hidden, n_layers, bidirectional, dropout)


class GRULayer(nn.Module):
    """(n, t, input_dim) -> (n, t, hidden): the states of one layer in one direction."""

    def __init__(self, input_dim: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.GRU(input_dim, hidden, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            # of torch's gates reset, update, new; the reset after the matrix, as torch has it
            return _onnx_states("GRU", self.cell, inputs, gates=(1, 0, 2), linear_before_reset=1)
        states: Tensor = self.cell(inputs)[0]
        return states


class LSTMLayer(nn.Module):
    """(n, t, input_dim) -> (n, t, hidden): the states of one layer in one direction."""

    def __init__(self, input_dim: int, hidden: int, *, learned_start: bool) -> None:
        super().__init__()
        self.cell = nn.LSTM(input_dim, hidden, batch_first=True)
        # hidden state and memory in front of the first step
        self.start = nn.Parameter(torch.zeros(2, hidden)) if learned_start else None
        for name, values in self.cell.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(values)
            if name.startswith("bias_ih"):  # torch adds two biases
                nn.init.ones_(values[hidden : 2 * hidden])

    def forward(self, inputs: Tensor) -> Tensor:
        start = None
        if self.start is not None:
            both = self.start.unsqueeze(1).expand(-1, inputs.shape[0], -1).contiguous()  # (2, n, hidden)
            start = (both[:1], both[1:])
        if torch.onnx.is_in_onnx_export():
            # of torch's gates input, forget, new, output
            return _onnx_states("LSTM", self.cell, inputs, start or (), gates=(0, 3, 1, 2))
        states: Tensor = self.cell(inputs, start)[0]
        return states


class SRU(nn.Module):
    """Simple recurrent units (Lei et al. 2018), as in the first version of the paper; forwards only.

    Dropout of either kind leaves out the same units at all steps: `rnn_dropout` below each layer, where its matrix is
    applied, `dropout` on what all layers but the last give. Exported, it can read up to `max_steps`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: int,
        n_layers: int = 1,
        dropout: float = 0.0,
        rnn_dropout: float = 0.0,
        *,
        max_steps: int = 1024,
    ) -> None:
        super().__init__()
        self.dim = hidden
        below = [input_dim, *[hidden] * (n_layers - 1)]
        above = [*[dropout] * (n_layers - 1), 0.0]
        self.layers = nn.ModuleList(
            SRULayer(dim, hidden, share, rnn_dropout, max_steps) for dim, share in zip(below, above, strict=True)
        )

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(n, t, input_dim), (n,) -> (n, t, hidden), zeros behind each length."""
        states = inputs
        for layer in self.layers:
            states = layer(states)
        return states if lengths is None else states * is_step(states, lengths).unsqueeze(2)


class SRULayer(nn.Module):
    """(n, t, input_dim) -> (n, t, hidden): one layer of simple recurrent units.

    `weight` (input_dim, hidden × k) holds the k matrices column by column, those of one unit side by side: candidate,
    forget gate, reset gate and, where the widths differ, the way round the cell. `bias` holds those of both gates.
    """

    def __init__(self, input_dim: int, hidden: int, dropout: float, rnn_dropout: float, max_steps: int) -> None:
        super().__init__()
        self.n_matrices = 3 if input_dim == hidden else 4
        self.weight = nn.Parameter(torch.empty(input_dim, hidden * self.n_matrices))
        self.bias = nn.Parameter(torch.zeros(2 * hidden))
        self.dropout, self.rnn_dropout = nn.Dropout(dropout), nn.Dropout(rnn_dropout)
        self.max_steps = max_steps
        limit = (3 / input_dim) ** 0.5  # a variance of 1 / input_dim
        nn.init.uniform_(self.weight, -limit, limit)

    def forward(self, inputs: Tensor) -> Tensor:
        below = inputs * _shared(self.rnn_dropout, inputs)
        n, t, _ = inputs.shape
        parts = (below @ self.weight).view(n, t, -1, self.n_matrices)
        candidate, forget, reset, *around = parts.unbind(3)
        forget_bias, reset_bias = self.bias.chunk(2)
        forget, reset = torch.sigmoid(forget + forget_bias), torch.sigmoid(reset + reset_bias)
        memory = torch.tanh(_memory(forget, (1 - forget) * candidate, self.max_steps))
        skip = around[0] if around else inputs
        states: Tensor = reset * memory * _shared(self.dropout, memory) + (1 - reset) * skip
        return states


def last_state(states: Tensor, lengths: Tensor) -> Tensor:
    """(n, t, d), (n,) -> (n, d) at each sequence's last step; of an empty sequence at its first."""
    places = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, places).squeeze(1)


def mean_state(states: Tensor, lengths: Tensor) -> Tensor:
    """(n, t, d), (n,) -> (n, d) mean over each sequence's steps; zeros of an empty sequence."""
    total = (states * is_step(states, lengths).unsqueeze(2)).sum(dim=1)
    return total / lengths.clamp(min=1).unsqueeze(1)


def max_state(states: Tensor, lengths: Tensor) -> Tensor:
    """(n, t, d), (n,) -> (n, d) maximum over each sequence's steps; zeros of an empty sequence."""
    is_outside = ~is_step(states, lengths).unsqueeze(2)
    highest = states.masked_fill(is_outside, -torch.inf).amax(dim=1)
    return torch.where(lengths.unsqueeze(1) > 0, highest, 0.0)


def is_step(sequences: Tensor, lengths: Tensor) -> Tensor:
    """(n, t, ...), (n,) -> (n, t): whether a step lies before its sequence's end."""
    return torch.arange(sequences.shape[1], device=lengths.device) < lengths.unsqueeze(1)


def reverse(sequences: Tensor, lengths: Tensor) -> Tensor:
    """(n, t, d), (n,) -> each sequence back to front; what stands behind its end stays where it is."""
    step = torch.arange(sequences.shape[1], device=lengths.device)
    places = torch.where(is_step(sequences, lengths), lengths.unsqueeze(1) - 1 - step, step)  # (n, t)
    return sequences.gather(1, places.unsqueeze(2).expand(-1, -1, sequences.shape[2]))


def _onnx_states(
    operator: str,
    cell: nn.RNNBase,
    inputs: Tensor,
    start: tuple[Tensor, ...] = (),
    *,
    gates: tuple[int, ...],
    **how: int,
) -> Tensor:
    """The states as ONNX's own operator gives them; nn.GRU and nn.LSTM would be unrolled, as long as the traced batch.

    gates: of torch's gates, the one that stands at each of ONNX's places.
    """

    def in_order(values: Tensor) -> Tensor:
        parts = values.view(len(gates), -1, *values.shape[1:])
        return torch.cat([parts[gate] for gate in gates]).unsqueeze(0)

    given = {name: in_order(values) for name, values in cell.named_parameters()}
    biases = torch.cat([given["bias_ih_l0"], given["bias_hh_l0"]], dim=1)
    weights = (given["weight_ih_l0"], given["weight_hh_l0"], biases)
    n, t, _ = inputs.shape
    states = torch.onnx.ops.symbolic(
        operator,
        (inputs.transpose(0, 1), *weights, *((None, *start) if start else ())),
        {"hidden_size": cell.hidden_size, **how},
        dtype=inputs.dtype,
        shape=(t, 1, n, cell.hidden_size),
    )  # (t, direction, n, hidden)
    return states.squeeze(1).transpose(0, 1)


def _shared(dropout: nn.Dropout, sequences: Tensor) -> Tensor:
    """(n, 1, d) factors for (n, t, d): what is dropped is dropped at all steps (Gal and Ghahramani 2016)."""
    factors: Tensor = dropout(torch.ones_like(sequences[:, :1]))
    return factors


def _memory(keep: Tensor, new: Tensor, max_steps: int) -> Tensor:
    """c_t = keep_t c_t-1 + new_t from c_-1 = 0, all (n, t, d)."""
    if torch.onnx.is_in_onnx_export():  # the loop would be unrolled, as long as the traced batch
        return memory_by_doubling(keep, new, max_steps)
    memory = [new[:, 0]]
    for kept, added in zip(keep.unbind(1)[1:], new.unbind(1)[1:], strict=True):
        memory.append(torch.addcmul(added, kept, memory[-1]))
    return torch.stack(memory, dim=1)


def memory_by_doubling(keep: Tensor, new: Tensor, max_steps: int) -> Tensor:
    """The same for t up to max_steps in log2(max_steps) operations: steps are joined with their elders, 1, 2, 4 … back.

    (keep, new) after (keep', new') is (keep keep', new + keep new') (Blelloch 1990).
    """
    t = keep.shape[1]
    for exponent in range((max_steps - 1).bit_length()):
        shift = (0, 0, 2**exponent, 0)
        elder_keep, elder_new = (functional.pad(each, shift)[:, :t] for each in (keep, new))
        keep, new = keep * elder_keep, torch.addcmul(new, keep, elder_new)
    return new
