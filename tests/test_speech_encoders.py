"""Speech and sound encoders: spectrograms against formulas, what padding may not change, sizes, pooling, export."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.runtime import Network
from xmr.train.encoders import (
    ENCODERS,
    Davenet,
    DavenetSpeech,
    Encoder,
    LogSpectrogram,
    ResDavenet,
    ResDavenetSpeech,
    SoundNet,
    Spectrogram,
    SpeechFrontEnd,
)
from xmr.train.encoders.speech import GruOfSteps, MaxOfSteps, MeanOfSteps, slaney_bands
from xmr.train.onnx_network import to_onnx
from xmr.train.words import NO_WORDS

Array = NDArray[Any]
WIDTH = 6
RATE_HZ = 16000
WIDTHS = (3, 4, 5, 6, 7)
SMALL: dict[str, Any] = {"window_s": 0.5, "widths": WIDTHS, "hidden": 5}
SPEECH = {"davenet": DavenetSpeech, "resdavenet": ResDavenetSpeech}


def make_encoder(name: str, **settings: Any) -> Encoder:
    torch.manual_seed(0)
    encoder: Encoder = ENCODERS[name](SPEECH[name].Settings(**SMALL | settings), WIDTH, NO_WORDS)
    scramble(encoder.top)
    return encoder.eval()


def scramble(network: nn.Module) -> None:
    """Statistics and scales of batch norm at which it does something."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else -0.3))


def some_clip(n_samples: int, seed: int = 0) -> Array:
    """Noise that swells and fades around a level that is not 0."""
    rng = np.random.default_rng(seed)
    loudness = 0.01 + np.abs(np.sin(np.arange(n_samples) / 700))
    samples: Array = (0.05 + 0.2 * loudness * rng.standard_normal(n_samples)).astype(np.float32)
    return samples


def padded(clips: list[Array], n_samples: int) -> Tensor:
    return torch.from_numpy(np.stack([np.pad(clip, (0, n_samples - len(clip))) for clip in clips]))


def mel_of(hz: float) -> float:
    """Slaney's Auditory Toolbox: linear to 1000 Hz, which is 15 mel, and 27 mel more for a factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def hz_of(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def reference_bands() -> Array:
    edges = [hz_of(mel) for mel in np.linspace(mel_of(20), mel_of(8000), 42)]
    bands = np.zeros((40, 201))
    for band in range(40):
        low, peak, high = edges[band : band + 3]
        for place in range(201):
            hz = place * RATE_HZ / 400
            if low < hz <= peak:
                bands[band, place] = (hz - low) / (peak - low)
            elif peak < hz < high:
                bands[band, place] = (high - hz) / (high - peak)
        bands[band] *= 2 / (high - low)
    return bands


def reference_spectrogram(clip: Array) -> Array:
    """(40, 1 + n // 160) of one clip, a frame at a time in float64."""
    centred = clip.astype(np.float64) - clip.astype(np.float64).mean()
    emphasised = centred.copy()
    for place in range(1, len(clip)):
        emphasised[place] = centred[place] - 0.97 * centred[place - 1]
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    around = np.pad(emphasised, 200)
    frames = []
    for frame in range(1 + len(clip) // 160):
        spectrum = np.fft.rfft(around[160 * frame : 160 * frame + 400] * window)
        frames.append(reference_bands() @ np.abs(spectrum) ** 2)
    power = np.maximum(1e-10, np.array(frames).T)
    decibels = 10 * np.log10(power) - 10 * np.log10(power.max())
    return np.maximum(decibels, decibels.max() - 80)


# the front end


@pytest.mark.parametrize("n_samples", [8000, 5123, 400, 100, 1])
def test_the_spectrogram_matches_its_formulas_whatever_follows_the_clip(n_samples: int) -> None:
    clip = some_clip(n_samples)
    features = SpeechFrontEnd(-80.0)(padded([clip], n_samples + 1000))[0].numpy()
    n_frames = 1 + n_samples // 160
    assert features.shape == (41, 1 + (n_samples + 1000) // 160)
    assert features[40].tolist() == [1] * n_frames + [0] * (features.shape[1] - n_frames)
    # sums of 400 products in float32, then the logarithm
    np.testing.assert_allclose(features[:40, :n_frames], reference_spectrogram(clip), rtol=0, atol=1e-4)


def test_what_is_80_decibels_below_the_loudest_is_raised_to_that() -> None:
    clip = np.sin(2 * np.pi * 440 * np.arange(4000) / RATE_HZ).astype(np.float32)
    decibels = SpeechFrontEnd(-80.0)(padded([clip], 4000))[0, :40].numpy()
    assert (decibels.min(), decibels.max()) == (-80, 0)
    # bands without the tone are rounding errors of float32 where they are 70 decibels below it
    np.testing.assert_allclose(decibels, reference_spectrogram(clip), rtol=0, atol=0.01)


@pytest.mark.parametrize("pad_db", [-80.0, 0.0])
def test_frames_behind_the_clip_have_the_level_of_the_padding(pad_db: float) -> None:
    features = SpeechFrontEnd(pad_db)(padded([some_clip(1600)], 4800))[0]
    assert (features[:40, 11:] == pad_db).all()
    assert features[40].sum() == 11


def test_silence_is_one_frame_and_no_error() -> None:
    features = SpeechFrontEnd(-80.0)(torch.zeros(1, 1600))[0]
    assert features[40].tolist() == [1] + [0] * 10
    assert features[:40, 0].tolist() == [0] * 40


def test_the_published_window_makes_the_published_2048_frames() -> None:
    preprocessing = make_encoder("davenet", window_s=20.48).preprocessing
    n_samples = round(preprocessing.window_s * preprocessing.rate_hz)
    assert (preprocessing.rate_hz, preprocessing.fill) == (16000, "silence")
    assert 1 + n_samples // SpeechFrontEnd.HOP == 2048


def test_mel_bands_are_slaneys() -> None:
    np.testing.assert_allclose(slaney_bands(16000, 400, 40, 20, 8000), reference_bands(), rtol=0, atol=1e-12)


# the convolutions


@pytest.mark.parametrize(
    ("network", "n_parameters"), [(Davenet, 15_965_570), (ResDavenet, 44_670_978)], ids=["davenet", "resdavenet"]
)
def test_the_published_networks_have_their_size(network: Any, n_parameters: int) -> None:
    with torch.device("meta"):
        published = network()
        assert sum(parameter.numel() for parameter in published.parameters()) == n_parameters
        assert published(torch.empty(2, 40, 2048)).shape == (2, 1024, 128)


def test_the_published_gru_has_its_size() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in GruOfSteps(1024, 1024).parameters()) == 12_595_200


def convolved(maps: Array, layer: nn.Module) -> Array:
    """(c, t) -> (d, t'): a convolution over time alone, one output at a time."""
    weight = layer.weight.detach().double().numpy().squeeze(2)  # (d, c, kernel)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    reach, stride = layer.padding[1], layer.stride[1]
    around = np.pad(maps, ((0, 0), (reach, reach)))
    starts = range(0, around.shape[1] - weight.shape[2] + 1, stride)
    return np.array([(weight * around[:, at : at + weight.shape[2]]).sum((1, 2)) + bias for at in starts]).T


def normed(maps: Array, layer: nn.Module) -> Array:
    state = {name: tensor.double().numpy() for name, tensor in layer.state_dict().items()}
    scale = state["weight"] / np.sqrt(state["running_var"] + 1e-5)
    return (maps - state["running_mean"][:, None]) * scale[:, None] + state["bias"][:, None]


def first_layer(spectrogram: Array, layer: nn.Module) -> Array:
    weight = layer.weight.detach().double().numpy()[:, 0, :, 0]  # (d, 40)
    return weight @ spectrogram + (0 if layer.bias is None else layer.bias.detach().double().numpy()[:, None])


@pytest.mark.parametrize("n_frames", [33, 48])
@pytest.mark.parametrize("time_pool", ["avg", "max"])
def test_davenet_matches_a_slow_reference(time_pool: str, n_frames: int) -> None:
    network = Davenet(WIDTHS, time_pool).eval()
    scramble(network)
    spectrogram = np.random.default_rng(1).standard_normal((40, n_frames))
    maps = np.maximum(
        0, first_layer(normed(spectrogram[None].reshape(1, -1), network.batchnorm1).reshape(40, -1), network.conv1)
    )
    for number in range(2, 6):
        maps = np.maximum(0, convolved(maps, network.get_submodule(f"conv{number}")))
        around = np.pad(maps, ((0, 0), (1, 1)))
        pool = np.mean if time_pool == "avg" else np.max
        maps = np.array([pool(around[:, at : at + 3], axis=1) for at in range(0, maps.shape[1], 2)]).T
    with torch.inference_mode():
        [ours] = network(torch.tensor(spectrogram[None], dtype=torch.float32)).numpy()
    assert ours.shape == (7, 3)
    np.testing.assert_allclose(ours, maps, rtol=1e-4, atol=1e-6)


def test_resdavenet_matches_a_slow_reference() -> None:
    network = ResDavenet(WIDTHS).eval()
    scramble(network)
    spectrogram = np.random.default_rng(1).standard_normal((40, 37))
    maps = np.maximum(0, normed(first_layer(spectrogram, network.conv1), network.bn1))
    for number in range(1, 5):
        for block in network.get_submodule(f"layer{number}").children():
            inner = np.maximum(0, normed(convolved(maps, block.conv1), block.bn1))
            inner = normed(convolved(inner, block.conv2), block.bn2)
            if isinstance(block.downsample, nn.Sequential):
                maps = normed(convolved(maps, block.downsample[0]), block.downsample[1])
            maps = np.maximum(0, inner + maps)
    with torch.inference_mode():
        [ours] = network(torch.tensor(spectrogram[None], dtype=torch.float32)).numpy()
    assert ours.shape == (7, 3)
    np.testing.assert_allclose(ours, maps, rtol=1e-4, atol=1e-5)


def test_what_resdavenet_does_not_use_does_not_learn() -> None:
    encoder = make_encoder("resdavenet", pooling="mean")
    encoder(padded([some_clip(4000), some_clip(3000)], 4000)).square().sum().backward()
    names = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert names == ["top.network.batchnorm1.weight", "top.network.batchnorm1.bias"]
    assert not any(encoder.get_parameter(name).requires_grad for name in names)


@pytest.mark.parametrize("network", [Davenet, ResDavenet])
def test_five_widths_are_needed(network: Any) -> None:
    with pytest.raises(XmrError, match=re.escape("encoder widths: [3, 4] found, one of each of five layers expected")):
        network((3, 4))


# padding


@pytest.mark.parametrize("pooling", ["gru", "mean", "max"])
@pytest.mark.parametrize("name", SPEECH)
def test_neither_padding_nor_the_batch_changes_a_clips_features(name: str, pooling: str) -> None:
    encoder = make_encoder(name, pooling=pooling)
    clips = [some_clip(n_samples, n_samples) for n_samples in (1, 161, 2500, 4000, 5119, 5120)]
    with torch.inference_mode():
        alone = torch.cat([encoder(padded([clip], len(clip))) for clip in clips])
        for n_samples in (5120, 5121, 9000):
            torch.testing.assert_close(encoder(padded(clips, n_samples)), alone, rtol=0, atol=1e-5)


def test_padding_is_heard_where_asked_to() -> None:
    encoder = make_encoder("davenet", padding="heard", pooling="mean", pad_db=0.0)
    features = encoder.trunk(padded([some_clip(3000)], 6000))
    maps, n_steps = encoder.maps(features)
    torch.testing.assert_close(maps, encoder.top.network(features[:, :40]), rtol=0, atol=0)
    assert (maps.shape[2], n_steps.tolist()) == (3, [2])  # a matchmap is of the clip's own steps
    torch.testing.assert_close(encoder.top.pooling(maps, n_steps), maps[:, :, :2].mean(dim=2))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_heard_padding_is_not_pooled_but_by_a_gru(pooling: str) -> None:
    encoder = make_encoder("davenet", padding="heard", pooling=pooling, pad_db=0.0)
    maps = torch.tensor([[[1.0, 3.0, 9.0]]])
    assert encoder.top.pooling(maps, torch.tensor([2])).item() == {"mean": 2.0, "max": 3.0}[pooling]
    features = encoder.trunk(padded([some_clip(3000)], 6000))
    assert torch.equal(encoder.top(features), encoder.top.projection(encoder.top.pooling(*encoder.maps(features))))


def test_maps_are_zero_behind_the_steps_that_count() -> None:
    encoder = make_encoder("davenet")
    maps, n_steps = encoder.maps(encoder.trunk(padded([some_clip(6000), some_clip(2400), some_clip(2560)], 6400)))
    assert maps.shape == (3, 7, 3)
    # 38, 16 and 17 frames, sixteen of which make a step
    assert n_steps.tolist() == [3, 1, 2]
    assert [bool(maps[row, :, n:].any()) for row, n in enumerate(n_steps.tolist())] == [False] * 3


# pooling over time


def gru_states(cell: nn.GRU, inputs: Array) -> Array:
    """(t, c) -> (t, hidden), a step at a time: gates in the order reset, update, new."""
    weight_in, weight_state, bias_in, bias_state = (value.detach().double().numpy() for value in cell.parameters())
    state, states = np.zeros(cell.hidden_size), []
    for step in inputs:
        of_input, of_state = np.split(weight_in @ step + bias_in, 3), np.split(weight_state @ state + bias_state, 3)
        reset, update = (1 / (1 + np.exp(-(of_input[gate] + of_state[gate]))) for gate in (0, 1))
        new = np.tanh(of_input[2] + reset * of_state[2])
        state = (1 - update) * new + update * state
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("norm", ["channels", "time", "none"])
@pytest.mark.parametrize("reading", ["ends", "last"])
def test_the_gru_matches_a_slow_reference(norm: str, reading: str) -> None:
    torch.manual_seed(3)
    pooling = GruOfSteps(4, 5, norm, reading).eval()
    forwards, backwards = [module for module in pooling.modules() if isinstance(module, nn.GRU)]
    maps, n_steps = np.random.default_rng(3).standard_normal((3, 4, 6)), [6, 1, 4]
    expected = []
    for rows, n in zip(maps, n_steps, strict=True):
        rows[:, n:] = 0
        clip = rows[:, :n]
        if norm != "none":
            clip = clip / (np.sqrt((clip**2).sum(axis=0 if norm == "channels" else 1, keepdims=True)) + 1e-8)
        forward = gru_states(forwards, clip.T)
        backward = gru_states(backwards, clip.T[::-1])[::-1]
        expected.append((forward[-1] + backward[0 if reading == "ends" else -1]) / 2)
    with torch.inference_mode():
        ours = pooling(torch.tensor(maps, dtype=torch.float32), torch.tensor(n_steps)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_mean_and_maximum_are_of_the_steps_that_count() -> None:
    maps = torch.tensor([[[1.0, 3.0, 0.0], [2.0, 2.0, 0.0]], [[6.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])
    n_steps = torch.tensor([2, 1])
    assert MeanOfSteps()(maps, n_steps).tolist() == [[2.0, 2.0], [6.0, 3.0]]
    assert MaxOfSteps()(maps, n_steps).tolist() == [[3.0, 2.0], [6.0, 3.0]]


def test_without_a_projection_the_mean_of_the_maps_is_what_an_encoder_gives() -> None:
    encoder = make_encoder("davenet", pooling="mean", projection="none", scale="none", widths=(3, 4, 5, 6, WIDTH))
    features = encoder.trunk(padded([some_clip(6000), some_clip(2400)], 6400))
    maps, n_steps = encoder.maps(features)
    expected = torch.stack([rows[:, :n].mean(dim=1) for rows, n in zip(maps, n_steps, strict=True)])
    torch.testing.assert_close(encoder.top(features), expected)


def test_a_clip_in_the_cache_may_be_kept_in_half_precision() -> None:
    encoder = make_encoder("davenet", pooling="mean")
    features = encoder.trunk(padded([some_clip(6000)], 6400))
    # half precision is exact to 0.03 decibels at the lowest level
    torch.testing.assert_close(features.half().float(), features, rtol=0, atol=0.032)
    assert encoder.is_compact


def test_nothing_in_the_trunk_of_a_speech_encoder_can_learn() -> None:
    with pytest.raises(XmrError, match=r"finetune: DavenetSpeech has no layer 'all'; nothing in its trunk can learn"):
        make_encoder("davenet").thaw("all")


# spectrograms and SoundNet


def test_linear_bands_are_all_frequencies_there_are() -> None:
    samples = np.random.default_rng(4).uniform(-1, 1, (2, 900))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    frames = [samples[:, at : at + 128] * window for at in range(0, 900 - 127, 50)]
    levels = np.log(np.abs(np.fft.rfft(np.stack(frames, axis=2), axis=1)) ** 2 + 1e-5)  # (2, 65, frames)
    expected = levels - levels.mean(axis=(1, 2), keepdims=True)
    ours = LogSpectrogram(np.eye(65), 50)(torch.tensor(samples, dtype=torch.float32)).numpy()
    # where the power is near the floor, float32 sums show in the logarithm
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_five_seconds_in_257_bands_are_what_see_hear_and_read_heard() -> None:
    settings = Spectrogram.Settings(bands="linear", rate_hz=16000, window_s=5.0, n_fft=512, hop=160)
    encoder = Spectrogram(settings, WIDTH, NO_WORDS)
    assert encoder.trunk(torch.zeros(1, 80000)).shape == (1, 257, 497)


def test_an_odd_frame_has_no_spectrum() -> None:
    with pytest.raises(XmrError, match="n_fft: 401 found, an even number expected"):
        Spectrogram(Spectrogram.Settings(n_fft=401), WIDTH, NO_WORDS)


def test_a_layer_between_soundnet_and_its_projection_is_scaled_dropped_and_cut_off_at_zero() -> None:
    torch.manual_seed(0)
    settings = SoundNet.Settings(weights="random", layers=(1, 2), hidden=5, dropout=0.3)
    encoder = SoundNet(settings, WIDTH, NO_WORDS).eval()
    scale, dropout, hidden, relu, none, dropout_above, linear = [
        module for module in encoder.top.modules() if not isinstance(module, nn.Sequential)
    ]
    assert [type(module) for module in (scale, relu, none)] == [nn.BatchNorm1d, nn.ReLU, nn.Identity]
    assert dropout.p == dropout_above.p == 0.3
    features = torch.rand(4, 48)
    expected = linear(torch.relu(hidden(features / np.sqrt(1 + 1e-5))))  # its statistics are still 0 and 1
    torch.testing.assert_close(encoder.top(features), expected)


def test_soundnet_learns_from_a_named_layer_on() -> None:
    encoder = SoundNet(SoundNet.Settings(weights="random", layers=(5, 6)), WIDTH, NO_WORDS)
    assert encoder.is_frozen
    encoder.thaw("conv6")
    learning = {name.split(".")[0] for name, value in encoder.trunk.named_parameters() if value.requires_grad}
    assert learning == {"conv6", "bn6", "conv7", "bn7"}
    encoder.train()
    assert [encoder.trunk.get_submodule(name).training for name in ("bn5", "bn6")] == [False, True]


# export


EXPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "davenet": ("davenet", {}),
    "davenet as published": ("davenet", {"norm": "time", "reading": "last", "padding": "heard", "pad_db": 0.0}),
    "resdavenet": ("resdavenet", {"pooling": "mean"}),
}


@pytest.mark.parametrize("case", EXPORTED)
def test_an_exported_speech_encoder_gives_what_torch_gives_at_other_shapes(case: str, tmp_path: Path) -> None:
    name, settings = EXPORTED[case]
    encoder = make_encoder(name, **settings)
    clips = [some_clip(n_samples, n_samples) for n_samples in (8000, 5000, 900, 7999)]
    check_export(encoder, padded(clips[:2], 8000), [padded(clips, 12000), padded(clips[2:3], 1000)], tmp_path)


def test_exported_sound_encoders_give_what_torch_gives_at_other_shapes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Spectrogram(Spectrogram.Settings(bands="linear", n_fft=64, hop=30, channels=(3, 3)), WIDTH, NO_WORDS)
    batches = [torch.rand(n_items, n_samples) - 0.5 for n_items, n_samples in ((2, 4000), (5, 6001), (1, 900))]
    check_export(encoder.eval(), batches[0], batches[1:], tmp_path)


def check_export(encoder: nn.Module, traced: Tensor, others: list[Tensor], folder: Path) -> None:
    path = folder / "encoder.onnx"
    to_onnx(encoder, traced.numpy(), path, input_name="sound", output_names=["features"], dynamic_axes=[0, 1])
    network = Network(path, "cpu")
    for batch in (traced, *others):
        with torch.inference_mode():
            expected = encoder(batch).numpy()
        np.testing.assert_allclose(network.run(batch.numpy())["features"], expected, rtol=0, atol=1e-4)
