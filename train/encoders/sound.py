"""Sound encoders: (n, time) samples in [-1, 1] -> (n, width)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import sound
from xmr.train.encoders.encoder import Encoder, Projection, fill
from xmr.train.encoders.maps import MaxOverTime, MeanAndMax, max_over_time
from xmr.train.settings import SoundNetSettings, SpectrogramSettings
from xmr.train.words import Words


class SoundNet(Encoder):
    """SoundNet's convolutions (Aytar, Vondrick, Torralba 2016), frozen; log(1 + mean over time) of some layers."""

    Settings = SoundNetSettings

    def __init__(self, settings: SoundNetSettings, width: int, words: Words) -> None:
        super().__init__()
        self.preprocessing = sound.Preprocessing(SoundNetTrunk.RATE_HZ, settings.window_s, settings.window_s)
        trunk = SoundNetTrunk(settings.layers)
        fill(trunk, settings.weights, "encoders.sound.weights")
        self.trunk = trunk
        self.top = _soundnet_top(trunk.dim, width, settings)
        self._freeze()


class Spectrogram(Encoder):
    """A log spectrogram made inside the network, then one-dimensional convolutions over time, from scratch."""

    Settings = SpectrogramSettings

    def __init__(self, settings: SpectrogramSettings, width: int, words: Words) -> None:
        super().__init__()
        if settings.n_fft % 2:
            raise XmrError(f"encoders.sound.n_fft: {settings.n_fft} found, an even number expected")
        self.preprocessing = sound.Preprocessing(settings.rate_hz, settings.window_s, settings.window_s)
        if settings.bands == "mel":
            self.trunk: LogSpectrogram = LogMel(settings.rate_hz, settings.n_mels, settings.n_fft, settings.hop)
        else:
            self.trunk = LogSpectrogram(np.eye(settings.n_fft // 2 + 1), settings.hop)
        layers: list[nn.Module] = []
        below = self.trunk.n_bands
        for place, channels in enumerate(settings.channels):
            layers.append(nn.Conv1d(below, channels, settings.kernel, padding=settings.kernel // 2, bias=False))
            layers += [nn.BatchNorm1d(channels), nn.ReLU(), *([MaxOverTime(2)] if place < 3 else [])]
            below = channels
        self.top = nn.Sequential(*layers, MeanAndMax(), nn.Linear(2 * below, width))
        self._freeze()


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
    RATE_HZ = 22050
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


class LogSpectrogram(nn.Module):
    """(n, t) samples -> (n, bands, frames): log power in bands, its mean subtracted.

    `bands` (bands, n_fft / 2 + 1) say how much of each frequency goes into each band.
    """

    FLOOR = 1e-5

    def __init__(self, bands: NDArray[np.float64], hop: int) -> None:
        super().__init__()
        self.basis: Tensor
        self.bands: Tensor
        self.n_bands, self.n_fft, self.hop = len(bands), 2 * (bands.shape[1] - 1), hop
        self.register_buffer("basis", fourier_basis(np.hanning(self.n_fft + 1)[:-1]), persistent=False)
        self.register_buffer("bands", torch.tensor(bands, dtype=torch.float32).unsqueeze(2), persistent=False)

    def extra_repr(self) -> str:
        return f"n_bands={self.n_bands}, n_fft={self.n_fft}, hop={self.hop}"

    def forward(self, samples: Tensor) -> Tensor:
        power = spectral_power(samples, self.basis, self.hop)
        levels = torch.log(functional.conv1d(power, self.bands) + self.FLOOR)
        return levels - levels.mean(dim=(1, 2), keepdim=True)


class LogMel(LogSpectrogram):
    """(n, t) samples -> (n, n_mels, frames): log power in mel bands, its mean subtracted."""

    def __init__(self, rate_hz: int, n_mels: int, n_fft: int = 1024, hop: int = 441) -> None:
        super().__init__(_mel_bands(rate_hz, n_fft, n_mels), hop)
        self.rate_hz = rate_hz

    def extra_repr(self) -> str:
        return f"rate_hz={self.rate_hz}, {super().extra_repr()}"


def fourier_basis(window: NDArray[np.float64]) -> Tensor:
    """(n_fft + 2, 1, n_fft) float32: cosines, then sines, of the frequencies 0 ... n_fft / 2 in steps of 1 / n_fft.

    With them the Fourier transform is a convolution, which exports to every runtime.
    """
    n_fft = len(window)
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft  # whole ones left out, for exactness
    angles = 2 * np.pi * turns / n_fft
    basis = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    return torch.tensor(basis, dtype=torch.float32).unsqueeze(1)


def spectral_power(samples: Tensor, basis: Tensor, hop: int) -> Tensor:
    """(n, t) samples -> (n, n_fft / 2 + 1, frames): squared magnitude, a frame every `hop` samples."""
    cosines, sines = functional.conv1d(samples.unsqueeze(1), basis, stride=hop).chunk(2, dim=1)
    return cosines.square() + sines.square()


def _soundnet_top(below: int, width: int, settings: SoundNetSettings) -> nn.Sequential:
    """Frozen features -> (n, width): one layer, or two with a ReLU in between."""
    if not settings.hidden:
        return Projection(below, width, settings)
    hidden = Projection(below, settings.hidden, replace(settings, projection="linear", batch_norm=False))
    return nn.Sequential(hidden, nn.ReLU(), Projection(settings.hidden, width, replace(settings, scale="none")))


def _mel_bands(rate_hz: int, n_fft: int, n_mels: int) -> NDArray[np.float64]:
    """(n_mels, n_fft / 2 + 1) triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700)."""
    top_mel = 2595 * np.log10(1 + rate_hz / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top_mel, n_mels + 2) / 2595) - 1)
    bins_hz = np.arange(n_fft // 2 + 1) * rate_hz / n_fft
    low, middle, high = (edges_hz[start : start + n_mels, None] for start in range(3))
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


SOUND_ENCODERS: dict[str, type[Any]] = {
    "soundnet": SoundNet,
    "spectrogram": Spectrogram,
}
