"""Encoders: their layers against slow references, what is frozen, and the files their weights come from."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.encoders import (
    ENCODERS,
    ConvImage,
    LogMel,
    MeanAndMax,
    RandomShift,
    ScalePixels,
    SoundNet,
    SoundNetTrunk,
    Spectrogram,
    TimmImage,
    WordConv,
    load_weights,
    max_over_time,
)
from xmr.train.words import NO_WORDS, Words

Array = NDArray[Any]
WIDTH = 12
TINY: dict[str, Any] = {
    "timm": TimmImage.Settings(model="test_resnet", weights="random", size=32, dropout=0.5),
    "convnet": ConvImage.Settings(size=16, channels=(4, 8)),
    "soundnet": SoundNet.Settings(weights="random", layers=(1, 2), hidden=6),
    "spectrogram": Spectrogram.Settings(n_mels=8, channels=(4, 4, 4, 4)),
    "words": WordConv.Settings(channels=(6, 6), dropout=0.5),
}


def some_words(n_words: int = 9, dim: int = 5) -> Words:
    vectors = np.random.default_rng(0).standard_normal((1 + n_words, dim)).astype(np.float32)
    vectors[text.PAD] = 0
    return Words(tuple("abcdefghijklmnop"[:n_words]), vectors)


def make_encoder(name: str, settings: Any = None) -> Any:
    torch.manual_seed(0)
    return ENCODERS[name](settings or TINY[name], WIDTH, some_words())


def some_batch(encoder: Any, n_items: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    kind = encoder.preprocessing
    if hasattr(kind, "size"):
        return torch.randint(256, (n_items, kind.size, kind.size, 3), dtype=torch.uint8, generator=generator)
    if hasattr(kind, "rate_hz"):
        return torch.rand(n_items, 6000, generator=generator) * 2 - 1
    return torch.randint(1, 10, (n_items, 7), generator=generator)


def scramble(network: nn.Module) -> None:
    """Weights and statistics at which no layer does nothing."""
    generator = torch.Generator().manual_seed(2)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)


@pytest.mark.parametrize("name", TINY)
def test_an_encoder_gives_one_row_of_the_heads_width_per_item(name: str) -> None:
    encoder = make_encoder(name).eval()
    batch = some_batch(encoder)
    features = encoder(batch)
    assert features.shape == (3, WIDTH)
    torch.testing.assert_close(encoder(batch[:1]), features[:1])


@pytest.mark.parametrize("name", TINY)
def test_what_is_frozen_does_not_learn(name: str) -> None:
    encoder = make_encoder(name).train()
    frozen = {key: value.clone() for key, value in encoder.trunk.state_dict().items()}
    encoder(some_batch(encoder)).sum().backward()
    assert encoder.training
    assert not encoder.trunk.training
    assert [key for key, value in encoder.named_parameters() if key.startswith("trunk") and value.requires_grad] == []
    assert all(torch.equal(value, frozen[key]) for key, value in encoder.trunk.state_dict().items())
    assert all(value.grad is not None for value in encoder.top.parameters())


def test_the_teacher_on_the_frozen_features_is_the_network_it_comes_from() -> None:
    encoder = make_encoder("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet").eval()
    pixels = some_batch(encoder)
    mean, deviation = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    expected = network((pixels.permute(0, 3, 1, 2) / 255 - mean) / deviation)
    # the same sum in another order
    torch.testing.assert_close(encoder.classifier(encoder.trunk(pixels)), expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_scaled_to_the_networks_mean_and_deviation() -> None:
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    scaled = ScalePixels((0.5, 0.5, 0.2), (0.25, 0.5, 0.1))(pixels)
    torch.testing.assert_close(scaled, torch.tensor([-2.0, 1.0, 0.0]).view(1, 3, 1, 1))


@pytest.mark.parametrize("n_padded", [1, 5, 40])
def test_padding_does_not_change_a_sentences_features(n_padded: int) -> None:
    encoder = make_encoder("words").eval()
    scramble(encoder.top.convolutions)  # biases that would lift the padding above the words
    ids = some_batch(encoder)
    padded = torch.nn.functional.pad(ids, (0, n_padded), value=text.PAD)
    torch.testing.assert_close(encoder(padded), encoder(ids))


def test_sentences_of_a_batch_do_not_change_one_another() -> None:
    encoder = make_encoder("words").eval()
    sentences = [np.array([3, 1, 4, 1, 5]), np.array([2]), np.array([text.PAD])]
    together = encoder(torch.from_numpy(text.pad(sentences)))
    alone = torch.cat([encoder(torch.from_numpy(text.pad([sentence]))) for sentence in sentences])
    torch.testing.assert_close(together, alone)


def test_the_order_of_words_matters() -> None:
    encoder = make_encoder("words").eval()
    assert not torch.allclose(encoder(torch.tensor([[1, 2, 3, 4]])), encoder(torch.tensor([[4, 3, 2, 1]])))


@pytest.mark.parametrize("finetune", [True, False])
def test_word_vectors_learn_only_where_asked_to(finetune: bool) -> None:
    encoder = make_encoder("words", WordConv.Settings(channels=(6,), finetune=finetune))
    assert encoder.top.vectors.weight.requires_grad is finetune


def test_the_vector_of_no_word_stays_0_while_words_learn() -> None:
    encoder = make_encoder("words", WordConv.Settings(channels=(6,)))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    encoder(torch.tensor([[1, 2, text.PAD]])).square().sum().backward()
    optimizer.step()
    assert not encoder.top.vectors.weight[text.PAD].any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"channels": (6,), "kernel": 4}, "encoders.text.kernel: 4 found, an odd number expected"),
        ({"channels": ()}, "encoders.text.channels: none found, at least one expected"),
    ],
)
def test_convolutions_that_cannot_be_made_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(XmrError, match=re.escape(sentence)):
        make_encoder("words", WordConv.Settings(**settings))


def mel_triangles(rate_hz: int, n_mels: int) -> Array:
    top = 2595 * np.log10(1 + rate_hz / 2 / 700)
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in np.linspace(0, top, n_mels + 2)]
    bands = np.zeros((n_mels, 513))
    for band in range(n_mels):
        low, peak, high = edges[band : band + 3]
        for place in range(513):
            frequency = place * rate_hz / 1024
            if low < frequency <= peak:
                bands[band, place] = (frequency - low) / (peak - low)
            elif peak < frequency < high:
                bands[band, place] = (high - frequency) / (high - peak)
    return bands


@pytest.mark.parametrize(("rate_hz", "n_mels"), [(22050, 16), (16000, 40)])
def test_log_mel_matches_an_fft(rate_hz: int, n_mels: int) -> None:
    samples = np.random.default_rng(3).uniform(-1, 1, (2, 3000))
    frames = sliding_window_view(samples, 1024, axis=1)[:, ::441]  # (2, 5, 1024)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    power = np.abs(np.fft.rfft(frames * window, axis=2)) ** 2
    levels = np.log(power @ mel_triangles(rate_hz, n_mels).T + 1e-5).transpose(0, 2, 1)
    expected = levels - levels.mean(axis=(1, 2), keepdims=True)
    ours = LogMel(rate_hz, n_mels)(torch.tensor(samples, dtype=torch.float32)).numpy()
    assert ours.shape == (2, n_mels, 5)
    # sums of 1024 products in float32, then the logarithm
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_log_mel_is_blind_to_loudness() -> None:
    samples = torch.rand(1, 4000, generator=torch.Generator().manual_seed(4)) - 0.5
    network = LogMel(22050, 16)
    # the floor of 1e-5 moves the quiet one a little
    torch.testing.assert_close(network(samples), network(samples * 0.5), rtol=0, atol=1e-3)


def reference_soundnet(trunk: SoundNetTrunk, samples: Array) -> Array:
    """(dim,) of one sound, a convolution at a time in float64."""
    weights = {name: value.double().numpy() for name, value in trunk.state_dict().items()}
    maps, pooled = samples[None] * 256, []
    for number, (_, kernel, stride, padding, pool) in enumerate(SoundNetTrunk.LAYERS, start=1):
        conv, bn = f"conv{number}", f"bn{number}"
        windows = sliding_window_view(np.pad(maps, ((0, 0), (padding, padding))), kernel, axis=1)[:, ::stride]
        maps = np.einsum("ctk,dck->dt", windows, weights[f"{conv}.weight"]) + weights[f"{conv}.bias"][:, None]
        scale = weights[f"{bn}.weight"] / np.sqrt(weights[f"{bn}.running_var"] + 1e-5)
        maps = (maps - weights[f"{bn}.running_mean"][:, None]) * scale[:, None] + weights[f"{bn}.bias"][:, None]
        maps = np.maximum(maps, 0)
        n_pooled = maps.shape[1] // pool
        maps = maps[:, : n_pooled * pool].reshape(len(maps), n_pooled, pool).max(axis=2)
        if number in trunk.chosen:
            pooled.append(maps.mean(axis=1))
    return np.log1p(np.concatenate(pooled))


@pytest.mark.parametrize("layers", [(4, 5, 6, 7), (7,), (1, 3)])
def test_soundnet_matches_a_slow_reference(layers: tuple[int, ...]) -> None:
    torch.manual_seed(5)
    trunk = SoundNetTrunk(layers).eval()
    for number in range(1, 8):
        scramble(trunk.get_submodule(f"bn{number}"))
    samples = np.random.default_rng(5).uniform(-1, 1, 45_000)
    expected = reference_soundnet(trunk, samples)
    with torch.inference_mode():
        [ours] = trunk(torch.tensor(samples[None], dtype=torch.float32)).numpy()
    assert ours.shape == (trunk.dim,)
    # seven layers of float32 sums on samples of up to 256
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", [(), (0,), (8,), (4, 9)])
def test_soundnet_has_seven_layers_to_choose_from(layers: tuple[int, ...]) -> None:
    with pytest.raises(XmrError, match=re.escape(f"encoders.sound.layers: {list(layers)} found, some of 1 to 7")):
        SoundNetTrunk(layers)


def test_mean_and_max_are_taken_over_all_places() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert MeanAndMax()(maps).tolist() == [[3.0, 1.0, 6.0, 4.0]]


def test_the_maximum_over_time_drops_the_rest_that_fills_no_pool() -> None:
    maps = torch.tensor([[[1.0, 5.0, 2.0, 0.0, 9.0]]])
    assert max_over_time(maps, 2).tolist() == [[[5.0, 2.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_any_float_type_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    stored = {name: value.to(dtype) for name, value in source.state_dict().items()}
    save_file(stored | {"unknown": torch.zeros(1)}, tmp_path / "weights.safetensors")
    load_weights(target, tmp_path / "weights.safetensors")
    assert target.weight.dtype == torch.float32
    torch.testing.assert_close(target.weight, stored["weight"].float(), rtol=0, atol=0)


def test_an_encoder_takes_its_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(6)
    trunk = SoundNetTrunk((1, 2))
    weights = tmp_path / "soundnet.safetensors"
    save_file({name: value.half() for name, value in trunk.state_dict().items() if value.is_floating_point()}, weights)
    encoder = make_encoder("soundnet", SoundNet.Settings(weights=str(weights), layers=(1, 2)))
    for name, value in encoder.trunk.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, trunk.state_dict()[name].half().float()), name


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"weight": torch.zeros(2, 3)}, "weights of another network, bias and 0 more are missing"),
        ({"other": torch.zeros(1)}, "weights of another network, weight and 1 more are missing"),
        (
            {"weight": torch.zeros(5, 3), "bias": torch.zeros(2)},
            "weights of another network, weight is (5, 3) in the file",
        ),
    ],
    ids=["missing", "foreign", "other shape"],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, stored: dict[str, Tensor], sentence: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(stored, path)
    with pytest.raises(XmrError) as error:
        load_weights(nn.Linear(3, 2), path)
    assert str(error.value).startswith(f"{path}: {sentence}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"\x10\0\0\0\0\0\0\0{broken json}  "])
def test_a_file_without_weights_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    sentence = (
        r"no weights that can be read \(.*\); give a" if content is not None else "no such file; give a safetensors"
    )
    with pytest.raises(XmrError, match=rf"weights.safetensors: {sentence}"):
        load_weights(nn.Linear(3, 2), path)


def test_an_unknown_network_of_timm_is_named() -> None:
    with pytest.raises(XmrError, match=r"encoders.image.model: timm has no network 'resnet99'"):
        TimmImage(TimmImage.Settings(model="resnet99", weights="random"), WIDTH, NO_WORDS)
    with pytest.raises(XmrError, match=r"encoders.image.model: .*tag \(in99k\).*; see timm.list_pretrained"):
        TimmImage(TimmImage.Settings(model="resnet50.in99k", weights="random"), WIDTH, NO_WORDS)


def test_frozen_weights_must_be_named() -> None:
    with pytest.raises(XmrError, match=r"encoders.sound.weights: none given; give a safetensors file"):
        make_encoder("soundnet", SoundNet.Settings())


def test_a_shifted_picture_keeps_its_pixels() -> None:
    shift = RandomShift(2)
    pixels = torch.arange(2 * 5 * 4 * 3, dtype=torch.uint8).view(2, 5, 4, 3)
    torch.manual_seed(0)
    moved = shift.train()(pixels)
    assert not torch.equal(moved, pixels)
    assert torch.equal(moved.flatten(1).sort().values, pixels.flatten(1))
    assert torch.equal(shift.eval()(pixels), pixels)
