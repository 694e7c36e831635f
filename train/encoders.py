"""Image, sound, speech and text encoders: arrays as `xmr.engine.media` loads them -> (n, width) for the shared head.

An encoder has two parts. `frozen` is run once per file and its output cached on disk; `trained` learns. An encoder
that learns from the first layer on has an empty frozen part, and what is cached is the decoded input.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import image, sound, text
from xmr.train.settings import (
    PRETRAINED,
    RANDOM,
    ConvnetSettings,
    SoundNetSettings,
    SpectrogramSettings,
    TimmSettings,
    WordConvSettings,
)
from xmr.train.words import Words


class Encoder(nn.Module):
    """What all encoders share: raw batch -> `frozen` -> features -> `trained` -> (n, width)."""

    preprocessing: Any  # how files become the raw batch
    frozen: nn.Module
    trained: nn.Module

    def __init__(self) -> None:
        super().__init__()
        # frozen features -> class logits, where the frozen part was trained as a classifier: the teacher
        self.classifier: nn.Module | None = None

    def forward(self, batch: Tensor) -> Tensor:
        features: Tensor = self.trained(self.frozen(batch))
        return features

    def train(self, mode: bool = True) -> "Encoder":
        """As ever, but the frozen part stays as it is served."""
        super().train(mode)
        self.frozen.eval()
        return self

    def _freeze(self) -> None:
        for part in (self.frozen, self.classifier):
            if part is not None:
                part.requires_grad_(False).eval()


class TimmImage(Encoder):
    """A pretrained image network of timm, frozen up to its pooled features, then one layer to the head's width."""

    Settings = TimmSettings

    def __init__(self, settings: TimmSettings, width: int, words: Words) -> None:
        super().__init__()
        network = _timm_network(settings)
        self.preprocessing = image.Preprocessing(size=settings.size, resize=settings.resize)
        self.classifier = network.get_classifier()
        network.reset_classifier(0)
        config = network.pretrained_cfg
        self.frozen = nn.Sequential(ScalePixels(config["mean"], config["std"]), network)
        self.trained = _top(network.head_hidden_size, 0, width, settings.dropout)
        self._freeze()


class ConvImage(Encoder):
    """Convolutions and maxima from the pixels on, trained from scratch: for small worlds."""

    Settings = ConvnetSettings

    def __init__(self, settings: ConvnetSettings, width: int, words: Words) -> None:
        super().__init__()
        self.preprocessing = image.Preprocessing(size=settings.size, resize=settings.resize)
        layers: list[nn.Module] = [RandomShift(settings.shift), ScalePixels((0.5,) * 3, (0.25,) * 3)]
        below = 3
        for channels in settings.channels:
            layers += [
                nn.Conv2d(below, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(2),  # strides in its place learn the training pictures by heart
            ]
            below = channels
        self.frozen = nn.Identity()
        self.trained = nn.Sequential(*layers, MeanAndMax(), nn.Linear(2 * below, width))


class SoundNet(Encoder):
    """SoundNet's convolutions (Aytar, Vondrick, Torralba 2016), frozen; log(1 + mean over time) of some layers."""

    Settings = SoundNetSettings

    def __init__(self, settings: SoundNetSettings, width: int, words: Words) -> None:
        super().__init__()
        self.preprocessing = sound.Preprocessing(22050, settings.window_s, settings.window_s)
        trunk = SoundNetTrunk(settings.layers)
        _fill(trunk, settings.weights, "encoders.sound.weights")
        self.frozen = trunk
        self.trained = _top(trunk.dim, settings.hidden, width, settings.dropout)
        self._freeze()


class Spectrogram(Encoder):
    """Log-mel spectrogram made inside the network, then one-dimensional convolutions over time, from scratch."""

    Settings = SpectrogramSettings

    def __init__(self, settings: SpectrogramSettings, width: int, words: Words) -> None:
        super().__init__()
        self.preprocessing = sound.Preprocessing(settings.rate_hz, settings.window_s, settings.window_s)
        layers: list[nn.Module] = []
        below = settings.n_mels
        for place, channels in enumerate(settings.channels):
            layers.append(nn.Conv1d(below, channels, settings.kernel, padding=settings.kernel // 2, bias=False))
            layers += [nn.BatchNorm1d(channels), nn.ReLU(), *([MaxOverTime(2)] if place < 3 else [])]
            below = channels
        self.frozen = LogMel(settings.rate_hz, settings.n_mels)
        self.trained = nn.Sequential(*layers, MeanAndMax(), nn.Linear(2 * below, width))
        self._freeze()


class WordConv(Encoder):
    """Word vectors, one-dimensional convolutions over the words, the maximum over them (See, Hear and Read's text)."""

    Settings = WordConvSettings

    def __init__(self, settings: WordConvSettings, width: int, words: Words) -> None:
        super().__init__()
        if settings.kernel % 2 == 0:
            raise XmrError(f"encoders.text.kernel: {settings.kernel} found, an odd number expected")
        if not settings.channels:
            raise XmrError("encoders.text.channels: none found, at least one expected, as in [512]")
        self.preprocessing = text.Preprocessing(settings.max_words, words.vocabulary)
        self.frozen = nn.Identity()
        self.trained = WordConvolutions(settings, width, words)


class WordConvolutions(nn.Module):
    """(n, t) word ids -> (n, width); what stands behind a sentence's end does not change its features."""

    def __init__(self, settings: WordConvSettings, width: int, words: Words) -> None:
        super().__init__()
        vectors = torch.from_numpy(words.vectors)
        n_words, dim = vectors.shape
        self.vectors = nn.Embedding(n_words, dim, text.PAD, _weight=vectors, _freeze=not settings.finetune)
        self.dropout = nn.Dropout(settings.dropout)
        below = [vectors.shape[1], *settings.channels[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(wide, channels, settings.kernel, padding=settings.kernel // 2)
            for wide, channels in zip(below, settings.channels, strict=True)
        )
        self.top = nn.Linear(settings.channels[-1], width)

    def forward(self, ids: Tensor) -> Tensor:
        is_word = (ids != text.PAD).unsqueeze(1)  # (n, 1, t)
        maps = self.dropout(self.vectors(ids)).transpose(1, 2)  # (n, dim, t)
        for convolution in self.convolutions:
            maps = torch.relu(convolution(maps)) * is_word
        features: Tensor = self.top(self.dropout(maps.amax(dim=2)))
        return features


class RandomShift(nn.Module):
    """(n, h, w, 3), each picture moved by up to `shift` pixels while training; what leaves on one side enters again."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.training or not self.shift:
            return pixels
        n, height, width, _ = pixels.shape
        down, right = torch.randint(-self.shift, self.shift + 1, (2, n, 1), device=pixels.device)
        rows = (torch.arange(height, device=pixels.device) - down) % height  # (n, height)
        columns = (torch.arange(width, device=pixels.device) - right) % width
        picture = torch.arange(n, device=pixels.device)[:, None, None]
        return pixels[picture, rows[:, :, None], columns[:, None, :]]


class ScalePixels(nn.Module):
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float: mean and deviation as the network was trained, in [0, 1]."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 1 / (255 * torch.tensor(deviation)).view(1, 3, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(deviation)).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift


class SoundNetTrunk(nn.Module):
    """(n, t) samples in [-1, 1] -> (n, dim): log(1 + mean over time) of the channels of each chosen layer."""

    # channels, kernel, stride, padding, pool of conv1 ... conv7
    LAYERS = (
        (16, 64, 2, 32, 8),
        (32, 32, 2, 16, 8),
        (64, 16, 2, 8, 1),
        (128, 8, 2, 4, 1),
        (256, 4, 2, 2, 4),
        (512, 4, 2, 2, 1),
        (1024, 4, 2, 2, 1),
    )
    SCALE = 256.0  # the published weights are for samples in [-256, 256]

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers or not set(layers) <= set(range(1, len(self.LAYERS) + 1)):
            raise XmrError(f"encoders.sound.layers: {list(layers)} found, some of 1 to {len(self.LAYERS)} expected")
        self.chosen = frozenset(layers)
        self.dim = sum(self.LAYERS[layer - 1][0] for layer in self.chosen)
        below = 1
        for number, (channels, kernel, stride, padding, _) in enumerate(self.LAYERS, start=1):
            self.add_module(f"conv{number}", nn.Conv1d(below, channels, kernel, stride, padding))
            self.add_module(f"bn{number}", nn.BatchNorm1d(channels))
            below = channels

    def extra_repr(self) -> str:
        return f"layers={sorted(self.chosen)}"

    def forward(self, samples: Tensor) -> Tensor:
        maps = samples.unsqueeze(1) * self.SCALE
        pooled = []
        for number, (*_, pool) in enumerate(self.LAYERS[: max(self.chosen)], start=1):
            maps = torch.relu(self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(maps)))
            if pool > 1:
                maps = max_over_time(maps, pool)
            if number in self.chosen:
                pooled.append(maps.mean(dim=2))
        return torch.log1p(torch.cat(pooled, dim=1))


class LogMel(nn.Module):
    """(n, t) samples -> (n, n_mels, frames): log power in mel bands, its mean over time subtracted.

    The Fourier transform is a convolution with cosines and sines, so that it exports to every runtime.
    """

    N_FFT = 1024
    HOP = 441  # samples, 20 ms at 22,050 Hz
    FLOOR = 1e-5

    def __init__(self, rate_hz: int, n_mels: int) -> None:
        super().__init__()
        self.basis: Tensor
        self.bands: Tensor
        window = np.hanning(self.N_FFT + 1)[:-1]
        angles = 2 * np.pi * np.outer(np.arange(self.N_FFT // 2 + 1), np.arange(self.N_FFT)) / self.N_FFT
        basis = np.concatenate([np.cos(angles), np.sin(angles)]) * window
        self.register_buffer("basis", torch.tensor(basis, dtype=torch.float32).unsqueeze(1), persistent=False)
        bands = torch.tensor(_mel_bands(rate_hz, self.N_FFT, n_mels), dtype=torch.float32)
        self.register_buffer("bands", bands.unsqueeze(2), persistent=False)
        self.rate_hz = rate_hz

    def extra_repr(self) -> str:
        return f"rate_hz={self.rate_hz}, n_mels={len(self.bands)}"

    def forward(self, samples: Tensor) -> Tensor:
        parts = functional.conv1d(samples.unsqueeze(1), self.basis, stride=self.HOP)
        cosines, sines = parts.chunk(2, dim=1)
        bands = functional.conv1d(cosines.square() + sines.square(), self.bands)
        levels = torch.log(bands + self.FLOOR)
        return levels - levels.mean(dim=(1, 2), keepdim=True)


def max_over_time(maps: Tensor, pool: int) -> Tensor:
    """(n, c, t) -> (n, c, t // pool). As a picture of height 1, because max_pool1d would fix the exported time axis."""
    return functional.max_pool2d(maps.unsqueeze(2), (1, pool)).squeeze(2)


class MaxOverTime(nn.Module):
    """max_over_time as a layer."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        return max_over_time(maps, self.pool)


class MeanAndMax(nn.Module):
    """(n, c, ...) -> (n, 2c): mean and maximum over all that follows the channels."""

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(start_dim=2)
        return torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=1)


def _timm_network(settings: TimmSettings) -> Any:
    """The network with the weights that the settings name."""
    import timm

    if not timm.is_model(settings.model):
        raise XmrError(f"encoders.image.model: timm has no network {settings.model!r}; see timm.list_models()")
    try:
        network = timm.create_model(settings.model, pretrained=settings.weights == PRETRAINED)
    except OSError as error:
        raise XmrError(f"encoders.image.weights: no download ({error}); give a safetensors file") from None
    if settings.weights != PRETRAINED:
        _fill(network, settings.weights, "encoders.image.weights")
    return network


def _fill(network: nn.Module, weights: str, where: str) -> None:
    """Weights from a file; random ones only on request, for a frozen network learns nothing any more."""
    if not weights:
        raise XmrError(f"{where}: none given; give a safetensors file, or {RANDOM!r} if that is what you want")
    if weights != RANDOM:
        load_weights(network, Path(weights))


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a safetensors file of any float type; names it does not know are left, none may lack."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise XmrError(f"{path}: no weights that can be read ({error}); give a safetensors file") from None
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    try:
        missing = network.load_state_dict(floats, strict=False).missing_keys
    except RuntimeError as error:
        raise XmrError(f"{path}: weights of another network ({str(error).splitlines()[-1].strip()})") from None
    if lacking := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise XmrError(f"{path}: weights of another network, {lacking[0]} and {len(lacking) - 1} more are missing")


def _top(below: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    """Frozen features, which have any scale, brought to mean 0 and deviation 1, then one or two layers."""
    layers: list[nn.Module] = [nn.BatchNorm1d(below, affine=False), nn.Dropout(dropout)]
    if hidden:
        layers += [nn.Linear(below, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden or below, width))


def _mel_bands(rate_hz: int, n_fft: int, n_mels: int) -> NDArray[np.float64]:
    """(n_mels, n_fft / 2 + 1) triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700)."""
    top_mel = 2595 * np.log10(1 + rate_hz / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top_mel, n_mels + 2) / 2595) - 1)
    bins_hz = np.arange(n_fft // 2 + 1) * rate_hz / n_fft
    low, middle, high = (edges_hz[start : start + n_mels, None] for start in range(3))
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


ENCODERS: dict[str, type[Any]] = {
    "timm": TimmImage,
    "convnet": ConvImage,
    "soundnet": SoundNet,
    "spectrogram": Spectrogram,
    "words": WordConv,
}
