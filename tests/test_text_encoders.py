"""Text encoders and recurrent layers: against formulas step by step, what padding may not change, sizes, export."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.engine.runtime import Network
from xmr.train.encoders import (
    ENCODERS,
    GRU,
    LSTM,
    SRU,
    Encoder,
    SlotConvolutions,
    WordBag,
    WordBiLSTM,
    WordGRU,
    WordSlots,
    WordSRU,
)
from xmr.train.encoders.recurrent import Recurrent, last_state, max_state, mean_state, memory_by_doubling, reverse
from xmr.train.onnx_network import to_onnx
from xmr.train.words import Words

Array = NDArray[Any]
WIDTH, DIM, N_WORDS = 6, 12, 9
SOME = {"units": 5}
SLOTS = {"max_words": 8, "channels": (4, 4, 4)}
VARIANTS: dict[str, Any] = {
    "words": ENCODERS["words"].Settings(max_words=8, channels=(4,)),
    "slots": WordSlots.Settings(**SLOTS, finetune=True),
    "slots of the port": WordSlots.Settings(**SLOTS, along="vectors", drop_repeats=True),
    "gru": WordGRU.Settings(units=WIDTH, projection="none"),
    "gru, both directions": WordGRU.Settings(**SOME, bidirectional=True, n_layers=2, layer_dropout=0.2),
    "gru, maximum": WordGRU.Settings(**SOME, bidirectional=True, halves="concat", pooling="max", word_dropout=0.2),
    "gru, mean": WordGRU.Settings(**SOME, pooling="mean", scale="length"),
    "bilstm": WordBiLSTM.Settings(**SOME, learned_start=True, drop_end=True, word_dropout=0.3, state_dropout=0.3),
    "sru": WordSRU.Settings(**SOME, n_layers=3, max_words=8),
    "bag": WordBag.Settings(hidden=4, word_dropout=0.1),
    "bag, idf": WordBag.Settings(pooling="idf", scale="deviation", batch_norm=True),
    "bag, sum": WordBag.Settings(pooling="sum"),
}
# one of each operator that an export may meet
EXPORTED = ("slots", "slots of the port", "gru, both directions", "gru, maximum", "bilstm", "sru", "bag, idf")


def some_words(*, marks: bool = False) -> Words:
    vocabulary = (*(text.MARKS if marks else ()), *"abcdefghi")
    random = np.random.default_rng(0)
    vectors = random.standard_normal((1 + len(vocabulary), DIM)).astype(np.float32)
    vectors[text.PAD] = 0
    idf = random.uniform(1, 3, 1 + len(vocabulary)).astype(np.float32)
    idf[text.PAD] = 0
    return Words(vocabulary, vectors, idf)


def make_encoder(settings: Any, width: int = WIDTH, words: Words | None = None) -> Any:
    torch.manual_seed(0)
    encoder: Encoder = ENCODERS[settings.name](settings, width, words or some_words())
    for name, values in encoder.named_parameters():
        if name.endswith(("bias", "start", "bias_ih_l0", "bias_hh_l0")):
            nn.init.uniform_(values, -0.5, 0.5)  # a bias of 0 would hide that it is added where nothing is
    return encoder.eval()


def some_ids(n: int, t: int, seed: int = 0) -> Tensor:
    """Sentences of 0 to t words, one of them of t."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, N_WORDS + 1, (n, t))
    for row in range(1, n):
        ids[row, random.integers(0, t + 1) :] = text.PAD
    return torch.from_numpy(ids)


def n_parameters(network: nn.Module) -> int:
    return sum(values.numel() for values in network.parameters())


# recurrent layers


def some_sequences(n: int = 5, t: int = 7, dim: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(n, t, dim), torch.tensor([7, 3, 1, 5, 7])[:n]


def packed(reference: nn.RNNBase, inputs: Tensor, lengths: Tensor) -> Tensor:
    sequences = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    states: Tensor = pad_packed_sequence(reference(sequences)[0], batch_first=True, total_length=inputs.shape[1])[0]
    return states


def copy_weights(layers: Recurrent, reference: nn.RNNBase) -> None:
    """Torch counts the layers in its names, and marks those of the backward direction."""
    for suffix, cells in (("", layers.forwards), ("_reverse", layers.backwards)):
        for place, layer in enumerate(cells):
            for name, values in layer.cell.named_parameters():
                values.data.copy_(reference.get_parameter(name.replace("l0", f"l{place}") + suffix))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("ours", "torchs"), [(GRU, nn.GRU), (LSTM, nn.LSTM)], ids=["gru", "lstm"])
def test_recurrent_layers_are_torchs_on_packed_sequences(
    ours: Any, torchs: Any, bidirectional: bool, n_layers: int
) -> None:
    inputs, lengths = some_sequences()
    layers = ours(4, 3, n_layers, bidirectional=bidirectional)
    reference = torchs(4, 3, n_layers, bidirectional=bidirectional, batch_first=True)
    copy_weights(layers, reference)
    states = layers(inputs, lengths)
    assert states.shape == (5, 7, layers.dim)
    torch.testing.assert_close(states, packed(reference, inputs, lengths))


@pytest.mark.parametrize("make", [GRU, LSTM])
def test_what_stands_behind_a_sequence_neither_reaches_its_states_nor_learns(make: Any) -> None:
    inputs, lengths = some_sequences()
    layers = make(4, 3, 2, bidirectional=True)
    inputs.requires_grad_()
    states = layers(inputs, lengths)
    states.square().sum().backward()
    is_behind = torch.arange(7) >= lengths[:, None]
    assert not states[is_behind].any()
    assert not inputs.grad[is_behind].any()
    assert inputs.grad[~is_behind].all()


def test_an_empty_sequence_has_no_states() -> None:
    inputs, _ = some_sequences(2)
    for layers in (GRU(4, 3, bidirectional=True), LSTM(4, 3, learned_start=True), SRU(4, 3)):
        assert not layers(inputs, torch.tensor([0, 0])).any()


def test_dropout_stands_between_the_layers_only() -> None:
    inputs, lengths = some_sequences()
    torch.manual_seed(0)
    one, two = GRU(4, 3, dropout=0.5).train(), GRU(4, 3, 2, dropout=0.5).train()
    torch.testing.assert_close(one(inputs, lengths), one(inputs, lengths))
    assert not torch.allclose(two(inputs, lengths), two(inputs, lengths))


def test_a_sequence_is_turned_around_within_its_length() -> None:
    sequences = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]).unsqueeze(2)
    turned = reverse(sequences, torch.tensor([4, 3, 0])).squeeze(2)
    assert turned.tolist() == [[4, 3, 2, 1], [3, 2, 1, 4], [1, 2, 3, 4]]


def test_forget_gates_begin_with_a_bias_of_1_and_the_others_with_0() -> None:
    [layer] = LSTM(4, 3).forwards
    bias = layer.cell.bias_ih_l0 + layer.cell.bias_hh_l0
    assert bias.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_learned_starts_are_the_states_in_front_of_the_first_step() -> None:
    inputs, lengths = some_sequences()
    lstm = LSTM(4, 3, bidirectional=True, learned_start=True)
    [forwards], [backwards] = lstm.forwards, lstm.backwards
    for layer in (forwards, backwards):
        nn.init.normal_(layer.start)
    states = lstm(inputs, lengths)
    for row, length in enumerate(lengths):
        for half, layer, steps in ((0, forwards, range(length)), (3, backwards, reversed(range(length)))):
            hidden, memory = layer.start[:1], layer.start[1:]
            for step in steps:
                gates = inputs[row, step] @ layer.cell.weight_ih_l0.T + hidden @ layer.cell.weight_hh_l0.T
                into, keep, new, out = (gates + layer.cell.bias_ih_l0 + layer.cell.bias_hh_l0).chunk(4, dim=1)
                memory = keep.sigmoid() * memory + into.sigmoid() * new.tanh()
                hidden = out.sigmoid() * memory.tanh()
                torch.testing.assert_close(states[row, step, half : half + 3], hidden[0])


def slow_sru(layer: Any, inputs: Array) -> Array:
    """One sequence (t, input_dim), one unit and one step at a time."""
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    hidden = len(bias) // 2
    k = weight.shape[1] // hidden
    assert k == (3 if weight.shape[0] == hidden else 4)
    states = np.zeros((len(inputs), hidden))
    for unit in range(hidden):
        memory = 0.0
        for step, vector in enumerate(inputs):
            parts = [vector @ weight[:, unit * k + place] for place in range(k)]
            forget = 1 / (1 + np.exp(-parts[1] - bias[unit]))
            reset = 1 / (1 + np.exp(-parts[2] - bias[hidden + unit]))
            memory = forget * memory + (1 - forget) * parts[0]
            states[step, unit] = reset * np.tanh(memory) + (1 - reset) * (parts[3] if k == 4 else vector[unit])
    return states


def test_simple_recurrent_units_follow_their_formulas_step_by_step() -> None:
    inputs, lengths = some_sequences()
    torch.manual_seed(0)
    sru = SRU(4, 6, 3)
    for layer in sru.layers:
        nn.init.normal_(layer.bias)
    states = sru(inputs, lengths)
    for row, length in enumerate(lengths):
        expected = inputs[row, :length].double().numpy()
        for layer in sru.layers:
            expected = slow_sru(layer, expected)
        np.testing.assert_allclose(states[row, :length].detach().numpy(), expected, atol=1e-6)
    assert not states[1, 3:].any()


@pytest.mark.parametrize("t", [*range(1, 10), 31, 32])
def test_joining_steps_by_doubling_is_taking_one_after_the_other(t: int) -> None:
    random = np.random.default_rng(t)
    keep, new = random.uniform(0, 1, (2, t, 3)), random.standard_normal((2, t, 3))
    memory, expected = np.zeros((2, 3)), np.zeros((2, t, 3))
    for step in range(t):
        memory = expected[:, step] = keep[:, step] * memory + new[:, step]
    for max_steps in (t, 32):
        ours = memory_by_doubling(torch.from_numpy(keep), torch.from_numpy(new), max_steps)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_simple_recurrent_units_leave_out_the_same_units_at_all_steps() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 9, 4)
    lower, upper = SRU(4, 40, 2, dropout=0.5).train().layers
    assert upper.dropout.p == 0  # the last layer's states are used whole
    with torch.no_grad():
        lower.bias[40:] = 50  # the way round the cell closed
    is_dropped = lower(inputs) == 0  # (n, t, hidden)
    assert (is_dropped == is_dropped[:, :1]).all()
    assert 0.3 < is_dropped.float().mean() < 0.7
    assert not (is_dropped[0] == is_dropped[1]).all()  # but others in every sequence


def test_dropout_below_a_layer_does_not_reach_the_way_round_its_cell() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 6)
    [layer] = SRU(6, 6, rnn_dropout=0.9).train().layers
    with torch.no_grad():
        layer.bias[6:] = -50  # nothing but the way round
    torch.testing.assert_close(layer(inputs), inputs)


def test_states_are_pooled_within_each_length() -> None:
    states = torch.tensor([[[-3.0], [-1.0], [9.0]], [[2.0], [4.0], [6.0]], [[0.0], [0.0], [0.0]]])
    lengths = torch.tensor([2, 3, 0])
    assert last_state(states, lengths).tolist() == [[-1], [6], [0]]
    assert mean_state(states, lengths).tolist() == [[-2], [4], [0]]
    assert max_state(states, lengths).tolist() == [[-1], [6], [0]]


# all encoders


@pytest.mark.parametrize("name", VARIANTS)
def test_a_sentence_has_the_same_features_alone_padded_and_among_others(name: str) -> None:
    encoder = make_encoder(VARIANTS[name])
    sentences = [np.array([3, 1, 4, 1, 5]), np.array([2]), np.array([9, 9, 1])]
    together = encoder(torch.from_numpy(text.pad(sentences)))
    assert together.shape == (3, WIDTH)
    for sentence, features in zip(sentences, together, strict=True):
        alone = encoder(torch.from_numpy(sentence)[None])
        padded = encoder(torch.from_numpy(np.pad(sentence, (0, 30), constant_values=text.PAD))[None])
        torch.testing.assert_close(alone[0], features)
        torch.testing.assert_close(padded[0], features)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_sentence_of_padding_alone_has_finite_features(name: str) -> None:
    encoder = make_encoder(VARIANTS[name])
    features = encoder(torch.full((2, 4), text.PAD))
    assert features.isfinite().all()
    features.sum().backward()
    assert all(values.grad.isfinite().all() for values in encoder.parameters() if values.grad is not None)


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_above_the_word_vectors_learns_and_they_do_where_asked_to(name: str) -> None:
    words = some_words(marks=True)
    before = words.vectors.copy()
    encoder = make_encoder(VARIANTS[name], words=words).train()
    encoder(some_ids(6, 7)).square().sum().backward()
    optimizer = torch.optim.SGD([values for values in encoder.parameters() if values.requires_grad], lr=1)
    optimizer.step()
    assert encoder.top.vectors.weight.requires_grad is VARIANTS[name].finetune
    assert all(values.grad is not None for values in encoder.parameters() if values.requires_grad)
    assert not encoder.top.vectors.weight[text.PAD].any()
    np.testing.assert_array_equal(words.vectors, before)  # they are the encoder's own


@pytest.mark.parametrize("name", VARIANTS)
def test_words_in_another_order_say_something_else_but_in_a_bag(name: str) -> None:
    encoder = make_encoder(VARIANTS[name])
    one, other = encoder(torch.tensor([[1, 2, 3, 4], [4, 2, 1, 3]]))
    assert torch.allclose(one, other, atol=1e-6) is name.startswith("bag")


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_text_encoder_gives_what_torch_does_for_sentences_of_any_length(name: str, tmp_path: Path) -> None:
    encoder = make_encoder(VARIANTS[name], words=some_words(marks=True))
    path = tmp_path / "text.onnx"
    to_onnx(encoder, some_ids(2, 5).numpy(), path, input_name="text", output_names=["features"], dynamic_axes=[0, 1])
    network = Network(path, "cpu")
    for n, t in ((1, 1), (3, 2), (2, 5), (7, 8), (1, 6)):
        ids = some_ids(n, t, seed=t)
        exported = network.run(ids.numpy())["features"]
        torch.testing.assert_close(torch.from_numpy(exported), encoder(ids).detach(), rtol=1e-5, atol=1e-5)


def test_exported_recurrent_layers_are_operators_of_any_length(tmp_path: Path) -> None:
    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.lstm = GRU(4, 3, bidirectional=True), LSTM(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            lengths = (inputs != 0).any(dim=2).sum(dim=1)
            return torch.cat([self.gru(inputs, lengths), self.lstm(inputs, lengths)], dim=2)

    path, network = tmp_path / "states.onnx", States().eval()
    inputs, lengths = some_sequences()
    inputs = inputs * (torch.arange(7) < lengths[:, None]).unsqueeze(2)
    batch = inputs[:2, :3].numpy()
    to_onnx(network, batch, path, input_name="inputs", output_names=["states"], dynamic_axes=[0, 1])
    graph = onnx.load(path).graph
    operators = [node.op_type for node in graph.node]
    assert (operators.count("GRU"), operators.count("LSTM")) == (2, 1)  # not one for each step of the batch
    assert all(axis.dim_param for axis in graph.output[0].type.tensor_type.shape.dim[:2])
    exported = Network(path, "cpu").run(inputs.numpy())["states"]
    torch.testing.assert_close(torch.from_numpy(exported), network(inputs).detach(), rtol=1e-5, atol=1e-6)


def test_the_published_sizes() -> None:
    with torch.device("meta"):  # counted, not made
        port = WordSlots.Settings(along="vectors")
        assert n_parameters(SlotConvolutions(port, 9216, 300)) == 202_394_916
        assert n_parameters(GRU(300, 1024)) == 4_073_472  # VSE++
        assert n_parameters(GRU(1024, 1024, bidirectional=True)) == 12_595_200  # VASE's speech
        assert n_parameters(SRU(620, 2400, 4, 0.25, 0.25)) == 57_811_200  # DSVE
        # CMPL: torch has two biases for a cell's one
        assert n_parameters(LSTM(512, 512, bidirectional=True, learned_start=True)) == 4_198_400 + 4_096 + 2_048


def test_sentences_with_marks_need_room_for_a_word() -> None:
    with pytest.raises(XmrError, match=r"encoders.text.max_words: 2 found, at least 3 with the words' marks"):
        make_encoder(WordBag.Settings(max_words=2), words=some_words(marks=True))


# slots


def slots_of(settings: Any, sentence: str) -> Array:
    """The word of every slot, by its vector."""
    encoder = make_encoder(settings)
    ids = torch.from_numpy(text.encode(sentence, encoder.preprocessing))[None]
    vectors = encoder.top.vectors.weight.numpy()
    named = [*".abcdefghi"]
    [slots] = encoder.top.slots(ids).numpy()
    return np.array([named[int(np.abs(vectors[:10] - slot).sum(axis=1).argmin())] for slot in slots])


@pytest.mark.parametrize(
    ("drop_repeats", "sentence", "expected"),
    [
        (False, "a b c", "abc....."),
        (False, "a zzz c zzz", "a.c....."),  # a word's slot is its place among all words
        (False, "a b a c a", "abaca..."),
        (True, "a b a c a", ".b.ca..."),
        (True, "a a zzz zzz b", ".a..b..."),
        (False, "a b c d e f g h i", "abcdefgh"),
    ],
)
def test_a_word_has_the_slot_of_its_place_in_the_sentence(drop_repeats: bool, sentence: str, expected: str) -> None:
    settings = WordSlots.Settings(**SLOTS, drop_repeats=drop_repeats)
    assert "".join(slots_of(settings, sentence)) == expected


def test_the_slot_of_an_unknown_word_is_empty_whatever_its_vector() -> None:
    words = some_words(marks=True)
    encoder = make_encoder(VARIANTS["slots"], words=words)
    assert encoder.preprocessing.vocabulary == words.vocabulary
    unknown, known = words.vocabulary.index(text.UNKNOWN) + 1, words.vocabulary.index("a") + 1
    slots = encoder.top.slots(torch.tensor([[known, unknown, known]]))
    assert words.vectors[unknown].any()
    assert slots[0].any(dim=1).tolist() == [True, False, True, *[False] * 5]


@pytest.mark.parametrize("along", ["words", "vectors"])
def test_slots_are_convolved_along_the_words_or_along_the_numbers(along: Any) -> None:
    torch.manual_seed(0)
    network = SlotConvolutions(WordSlots.Settings(max_words=8, channels=(3, 4, 5), along=along), WIDTH, DIM)
    slots = torch.randn(2, 8, DIM)
    maps = (slots.transpose(1, 2) if along == "words" else slots).detach().double().numpy()
    for place, layer in enumerate(network.convolutions):
        maps = slow_convolution(layer, np.pad(maps, ((0, 0), (0, 0), (1, 1))) if along == "words" else maps)
        if place > 0:
            maps = maps[:, :, : maps.shape[2] // 2 * 2].reshape(*maps.shape[:2], -1, 2).max(axis=3)
    linear = network.projection[2]
    expected = maps.reshape(2, -1) @ linear.weight.detach().double().numpy().T
    np.testing.assert_allclose(network(slots).detach().numpy(), expected, atol=1e-5)


def slow_convolution(layer: Any, maps: Array) -> Array:
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    n, _, t = maps.shape
    out = np.zeros((n, len(bias), t - 2))
    for row in range(n):
        for channel in range(len(bias)):
            for place in range(t - 2):
                out[row, channel, place] = (maps[row, :, place : place + 3] * weight[channel]).sum() + bias[channel]
    return np.maximum(out, 0)


def test_an_encoder_of_slots_is_restored_from_its_own_vocabulary_and_vectors() -> None:
    encoder = make_encoder(VARIANTS["slots"])
    assert encoder.preprocessing.vocabulary == (*"abcdefghi", text.UNKNOWN)
    restored = Words(encoder.preprocessing.vocabulary, encoder.top.vectors.weight.detach().numpy())
    again = make_encoder(VARIANTS["slots"], words=restored)
    again.load_state_dict(encoder.state_dict())
    assert again.preprocessing == encoder.preprocessing
    torch.testing.assert_close(again(some_ids(4, 6)), encoder(some_ids(4, 6)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (4, 4)}, "encoders.text.channels: 2 found, three expected"),
        ({"max_words": 3}, "encoders.text.max_words: too few for three convolutions"),
    ],
)
def test_slots_that_leave_nothing_to_convolve_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(XmrError, match=re.escape(message)):
        make_encoder(WordSlots.Settings(**SLOTS | settings))


def test_too_short_vectors_to_convolve_along_are_refused() -> None:
    with pytest.raises(XmrError, match=r"words.dim: too few for three convolutions; set more, as .* 300 numbers"):
        SlotConvolutions(WordSlots.Settings(along="vectors"), WIDTH, 11)
    SlotConvolutions(WordSlots.Settings(along="vectors", channels=(2, 2, 2)), WIDTH, 12)


# gru, bilstm, bag


def states_of(encoder: Any, sentence: list[int]) -> tuple[Array, Array]:
    """The states of both directions of a one-layer encoder, by torch's cells: (t, units) each, in reading order."""
    vectors = encoder.top.vectors.weight[sentence]
    [forwards], [backwards] = encoder.top.gru.forwards, encoder.top.gru.backwards
    ahead = forwards.cell(vectors[None])[0][0]
    back = backwards.cell(vectors.flip(0)[None])[0][0].flip(0)
    return ahead.detach().numpy(), back.detach().numpy()


@pytest.mark.parametrize("halves", ["mean", "concat"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_both_directions_are_joined_and_pooled(pooling: Any, halves: Any) -> None:
    width = 5 if halves == "mean" else 10
    settings = WordGRU.Settings(**SOME, bidirectional=True, pooling=pooling, halves=halves, projection="none")
    encoder = make_encoder(settings, width)
    ahead, back = states_of(encoder, [4, 1, 7])
    joined = (ahead + back) / 2 if halves == "mean" else np.concatenate([ahead, back], axis=1)
    ends = np.stack([ahead[2], back[0]])  # each has read the whole sentence
    whole = ends.mean(axis=0) if halves == "mean" else ends.reshape(-1)
    expected = {"last": whole, "mean": joined.mean(axis=0), "max": joined.max(axis=0)}[pooling]
    features = encoder(torch.tensor([[4, 1, 7, text.PAD]]))
    np.testing.assert_allclose(features[0].detach().numpy(), expected, atol=1e-6)


def test_without_a_projection_the_units_must_be_the_width() -> None:
    with pytest.raises(XmrError, match=r"projection: none asked for, but 5 features meet width 6"):
        make_encoder(WordGRU.Settings(**SOME, projection="none"))


def lstm_states(encoder: Any, sentence: list[int]) -> Tensor:
    states: Tensor = encoder.top.lstm(encoder.top.vectors(torch.tensor([sentence])), torch.tensor([len(sentence)]))
    return states[0]


@pytest.mark.parametrize("max_over", ["words", "padding"])
def test_the_maximum_is_over_the_words_or_as_published_over_zeros_behind_them_too(max_over: Any) -> None:
    settings = WordBiLSTM.Settings(**SOME, max_over=max_over, projection="none", batch_norm=False)
    encoder = make_encoder(settings, 10).train()
    batch = torch.tensor([[3, 8, text.PAD], [1, 2, 3]])
    alone, together = encoder(torch.tensor([[3, 8]])), encoder(batch)
    highest = lstm_states(encoder, [3, 8]).amax(dim=0)
    assert (highest < 0).any()
    torch.testing.assert_close(alone[0], highest)
    torch.testing.assert_close(together[0], highest.clamp(min=0) if max_over == "padding" else highest)
    torch.testing.assert_close(together[1], lstm_states(encoder, [1, 2, 3]).amax(dim=0))
    torch.testing.assert_close(encoder.eval()(batch)[0], highest)  # whatever stands beside it


@pytest.mark.parametrize("drop_end", [True, False])
def test_the_end_of_a_sentence_can_be_left_unread(drop_end: bool) -> None:
    encoder = make_encoder(WordBiLSTM.Settings(**SOME, drop_end=drop_end), words=some_words(marks=True))
    marked = text.encode("a b", encoder.preprocessing)
    assert len(marked) == 4
    features = encoder(torch.from_numpy(np.stack([marked, [*marked[:3], text.PAD]])))
    assert torch.allclose(features[0], features[1]) is drop_end


def test_a_projection_with_batch_norm_has_no_bias() -> None:
    top = make_encoder(WordBiLSTM.Settings(**SOME)).top
    assert top.projection[2].bias is None
    assert isinstance(top.projection[3], nn.BatchNorm1d)


@pytest.mark.parametrize("pooling", ["mean", "sum", "idf"])
def test_a_bag_is_the_weighted_mean_or_the_sum_of_its_words(pooling: Any) -> None:
    words = some_words()
    assert words.idf is not None
    encoder = make_encoder(WordBag.Settings(pooling=pooling, projection="none"), DIM, words)
    weights = {"mean": np.full(3, 1 / 3), "sum": np.ones(3), "idf": words.idf[[2, 5, 2]] / words.idf[[2, 5, 2]].sum()}
    expected = weights[pooling] @ words.vectors[[2, 5, 2]]
    features = encoder(torch.tensor([[2, 5, 2, text.PAD]]))
    np.testing.assert_allclose(features[0].detach().numpy(), expected, atol=1e-6)


def test_a_bag_remembers_how_rare_its_words_are() -> None:
    words = some_words()
    encoder = make_encoder(VARIANTS["bag, idf"], words=words)
    again = make_encoder(VARIANTS["bag, idf"], words=Words(words.vocabulary, words.vectors))
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(some_ids(4, 6)), encoder(some_ids(4, 6)))
