"""Speech encoders: (n, time) samples in [-1, 1] at 16 kHz -> (n, width). They hear sounds just as well.

The trunk makes a log-mel spectrogram of the samples; the top runs convolutions over it and pools what they give over
time. A clip is as long as its last sample that is not exactly 0: what follows fills the window, and unless asked to, no
layer hears it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import sound
from xmr.train.encoders.encoder import Encoder, Projection
from xmr.train.encoders.recurrent import GRU
from xmr.train.encoders.sound import fourier_basis, spectral_power
from xmr.train.settings import DavenetSettings, ResDavenetSettings, SpeechSettings
from xmr.train.words import Words

STEP = 16  # frames from one step of what the convolutions give to the next, as four layers halve the time
SMALLEST_LENGTH = 1e-8  # that a step is divided by


class SpeechEncoder(Encoder):
    """Spectrogram, convolutions and a pooling of them: what the encoders of speech share."""

    def __init__(self, network: nn.Module, channels: int, settings: SpeechSettings, width: int) -> None:
        super().__init__()
        # a sample less, so that the published 20.48 s make the published 2048 frames and not one more
        window_s = (round(settings.window_s * SpeechFrontEnd.RATE_HZ) - 1) / SpeechFrontEnd.RATE_HZ
        self.preprocessing = sound.Preprocessing(SpeechFrontEnd.RATE_HZ, window_s, window_s, fill="silence")
        self.is_compact = True
        self.trunk = SpeechFrontEnd(settings.pad_db)
        self.top: SpeechTop = SpeechTop(network, channels, settings, width)
        self._freeze()

    def maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolutions give, (n, channels, steps), 0 behind each clip's end, and (n,) the steps up to it."""
        return self.top.maps(features)


class DavenetSpeech(SpeechEncoder):
    """DAVEnet's convolutions (Harwath et al. 2018), with VASE's GRU on top or a mean over time."""

    Settings = DavenetSettings

    def __init__(self, settings: DavenetSettings, width: int, words: Words) -> None:
        network = Davenet(settings.widths, settings.time_pool)
        super().__init__(network, settings.widths[-1], settings, width)


class ResDavenetSpeech(SpeechEncoder):
    """ResDAVEnet's convolutions (Harwath, Hsu, Glass 2020), with VASE's GRU on top or a mean over time."""

    Settings = ResDavenetSettings

    def __init__(self, settings: ResDavenetSettings, width: int, words: Words) -> None:
        super().__init__(ResDavenet(settings.widths), settings.widths[-1], settings, width)


class SpeechFrontEnd(nn.Module):
    """(n, t) samples -> (n, 41, 1 + t // 160): 40 mel bands in decibels below the loudest, and which frames count.

    The last row is 1 at the frames of the clip and 0 at those behind its end, whose bands are `pad_db`. As DAVEnet has
    it: mean subtracted, pre-emphasis, frames of 25 ms every 10 ms around their place, Hamming's window.
    """

    RATE_HZ = 16000
    N_FFT, HOP = 400, 160  # samples
    N_BANDS, LOWEST_HZ, HIGHEST_HZ = 40, 20.0, 8000.0
    PRE_EMPHASIS = 0.97
    FLOOR = 1e-10  # of the power
    RANGE_DB = 80.0  # what is fainter than the loudest by more is raised to that

    def __init__(self, pad_db: float) -> None:
        super().__init__()
        self.basis: Tensor
        self.bands: Tensor
        self.pad_db = pad_db
        bands = slaney_bands(self.RATE_HZ, self.N_FFT, self.N_BANDS, self.LOWEST_HZ, self.HIGHEST_HZ)
        # symmetric: the published code calls the window's function, which does not know that it is for a spectrum
        self.register_buffer("basis", fourier_basis(np.hamming(self.N_FFT)), persistent=False)
        self.register_buffer("bands", torch.tensor(bands, dtype=torch.float32).unsqueeze(2), persistent=False)

    def extra_repr(self) -> str:
        return f"pad_db={self.pad_db}"

    def forward(self, samples: Tensor) -> Tensor:
        place = torch.arange(1, samples.shape[1] + 1, device=samples.device)
        ends = (place * (samples != 0)).amax(dim=1, keepdim=True)  # (n, 1), samples of the clip
        emphasised = self._emphasised(samples, ends, place <= ends)
        power = spectral_power(functional.pad(emphasised, (self.N_FFT // 2, self.N_FFT // 2)), self.basis, self.HOP)
        levels = 10 * torch.log10(functional.conv1d(power, self.bands).clamp(min=self.FLOOR))
        is_frame = torch.arange(levels.shape[2], device=samples.device) * self.HOP <= ends  # (n, frames)
        is_frame = is_frame.unsqueeze(1)
        loudest = levels.masked_fill(~is_frame, 10 * float(np.log10(self.FLOOR))).amax(dim=(1, 2), keepdim=True)
        decibels = (levels - loudest).clamp(min=-self.RANGE_DB).masked_fill(~is_frame, self.pad_db)
        return torch.cat([decibels, is_frame.to(decibels.dtype)], dim=1)

    def _emphasised(self, samples: Tensor, ends: Tensor, is_clip: Tensor) -> Tensor:
        """(n, t): without its mean, each sample less 0.97 of the one before, silent behind the clip."""
        mean = samples.sum(dim=1, keepdim=True) / ends.clamp(min=1)
        centred = (samples - mean) * is_clip
        before = functional.pad(centred, (1, 0))[:, :-1]
        return (centred - self.PRE_EMPHASIS * before) * is_clip


class Davenet(nn.Module):
    """(n, 40, t) spectrogram -> (n, channels, t / 16): five convolutions, the last four each followed by a pool.

    `time_pool` avg is VASE's, max DAVEnet's. Frames at which `is_frame` (n, t) is 0 and not 1 are not heard and give 0:
    a clip gives the same with any length of padding behind it.
    """

    KERNELS = (11, 17, 17, 17)  # frames, of conv2 ... conv5

    def __init__(
        self, widths: Sequence[int] = (128, 256, 512, 512, 1024), time_pool: Literal["avg", "max"] = "avg"
    ) -> None:
        super().__init__()
        _check_widths(widths)
        self.batchnorm1 = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, widths[0], (SpeechFrontEnd.N_BANDS, 1))
        for number, ((below, channels), kernel) in enumerate(zip(pairwise(widths), self.KERNELS, strict=True), start=2):
            self.add_module(f"conv{number}", nn.Conv2d(below, channels, (1, kernel), padding=(0, kernel // 2)))
        pool = nn.AvgPool2d if time_pool == "avg" else nn.MaxPool2d
        self.pool = pool((1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, spectrogram: Tensor, is_frame: Tensor | None = None) -> Tensor:
        heard = _heard(spectrogram, is_frame)
        maps = torch.relu(self.conv1(self.batchnorm1(spectrogram.unsqueeze(1)))) * heard  # (n, c, 1, t)
        for number in range(2, 2 + len(self.KERNELS)):
            maps = torch.relu(self.get_submodule(f"conv{number}")(maps)) * heard
            heard = heard[..., ::2]
            maps = self.pool(maps) * heard
        return maps.squeeze(2)


class ResDavenet(nn.Module):
    """(n, 40, t) spectrogram -> (n, channels, t / 16): a convolution and four stages of two residual blocks.

    `is_frame` as for Davenet. `batchnorm1` is part of the published weights and does nothing, there as here.
    """

    def __init__(self, widths: Sequence[int] = (128, 128, 256, 512, 1024)) -> None:
        super().__init__()
        _check_widths(widths)
        self.batchnorm1 = nn.BatchNorm2d(1).requires_grad_(False)
        self.conv1 = nn.Conv2d(1, widths[0], (SpeechFrontEnd.N_BANDS, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for number, (below, channels) in enumerate(pairwise(widths), start=1):
            blocks = ResidualBlock(below, channels, stride=2), ResidualBlock(channels, channels, stride=1)
            self.add_module(f"layer{number}", nn.ModuleList(blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, spectrogram: Tensor, is_frame: Tensor | None = None) -> Tensor:
        heard = _heard(spectrogram, is_frame)
        maps = torch.relu(self.bn1(self.conv1(spectrogram.unsqueeze(1)))) * heard  # (n, c, 1, t)
        for number in range(1, 5):
            heard = heard[..., ::2]
            for block in self.get_submodule(f"layer{number}").children():
                maps = block(maps, heard)
        return maps.squeeze(2)


class ResidualBlock(nn.Module):
    """(n, below, 1, t) -> (n, channels, 1, t / stride): two convolutions over nine frames and a way around them."""

    def __init__(self, below: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(below, channels, (1, 9), stride=(1, stride), padding=(0, 4), bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, (1, 9), padding=(0, 4), bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or below != channels:
            around = nn.Conv2d(below, channels, 1, stride=(1, stride), bias=False)
            self.downsample = nn.Sequential(around, nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor, heard: Tensor) -> Tensor:
        """`heard` (n, 1, 1, t / stride) is 1 at the frames of the output that count, and 0."""
        inner = torch.relu(self.bn1(self.conv1(maps))) * heard
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(maps)) * heard


class SpeechTop(nn.Module):
    """(n, 41, frames) of SpeechFrontEnd -> (n, width): convolutions, pooling over time, projection."""

    def __init__(self, network: nn.Module, channels: int, settings: SpeechSettings, width: int) -> None:
        super().__init__()
        self.network = network
        self.hears_padding, self.pools_padding = settings.padding == "heard", settings.pooling == "gru"
        if settings.pooling == "gru":
            self.pooling: nn.Module = GruOfSteps(channels, settings.hidden, settings.norm, settings.reading)
        else:
            self.pooling = MeanOfSteps() if settings.pooling == "mean" else MaxOfSteps()
        self.projection = Projection(settings.hidden if settings.pooling == "gru" else channels, width, settings)

    def forward(self, features: Tensor) -> Tensor:
        maps, n_steps = self.maps(features)
        if self.hears_padding and self.pools_padding:
            n_steps = torch.full_like(n_steps, maps.shape[2])
        rows: Tensor = self.projection(self.pooling(maps, n_steps))
        return rows

    def maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(n, channels, steps), what is heard going on behind a clip's end, and (n,) the steps up to there."""
        spectrogram, is_frame = features[:, :-1], features[:, -1]
        heard = torch.ones_like(is_frame) if self.hears_padding else is_frame
        return self.network(spectrogram, heard), is_frame[:, ::STEP].sum(dim=1).long()


class MeanOfSteps(nn.Module):
    """(n, c, t) and the n_steps (n,) that count -> (n, c): their mean."""

    def forward(self, maps: Tensor, n_steps: Tensor) -> Tensor:
        return (maps * _counts(maps, n_steps)).sum(dim=2) / n_steps.unsqueeze(1)


class MaxOfSteps(nn.Module):
    """(n, c, t), nowhere negative, and the n_steps (n,) that count -> (n, c): their maximum."""

    def forward(self, maps: Tensor, n_steps: Tensor) -> Tensor:
        return (maps * _counts(maps, n_steps)).amax(dim=2)


def _counts(maps: Tensor, n_steps: Tensor) -> Tensor:
    """(n, 1, t): whether a step is one of the first that count."""
    return torch.arange(maps.shape[2], device=maps.device) < n_steps[:, None, None]


class GruOfSteps(nn.Module):
    """(n, c, t) and the n_steps (n,) that count -> (n, hidden): mean of what a GRU's two directions end in.

    VASE's. Every step is first divided by its length over the channels, or every channel by that over time (`norm`).
    `reading` ends takes each direction where it has heard all, last both at the last step, as published: there the
    backward one has heard that step alone.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        norm: Literal["channels", "time", "none"] = "channels",
        reading: Literal["ends", "last"] = "ends",
    ) -> None:
        super().__init__()
        self.gru = GRU(channels, hidden, bidirectional=True)
        self.norm_axis = {"channels": 1, "time": 2, "none": None}[norm]
        self.reading = reading

    def forward(self, maps: Tensor, n_steps: Tensor) -> Tensor:
        if self.norm_axis is not None:
            # published with the constant added, which the exporter takes for an addition of 0 and leaves out
            maps = functional.normalize(maps, dim=self.norm_axis, eps=SMALLEST_LENGTH)
        states = self.gru(maps.transpose(1, 2), n_steps)  # (n, t, 2 hidden)
        last = (n_steps - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        forward, backward = states.gather(1, last).squeeze(1).chunk(2, dim=1)
        if self.reading == "ends":
            backward = states[:, 0].chunk(2, dim=1)[1]
        mean: Tensor = (forward + backward) / 2
        return mean


def slaney_bands(rate_hz: int, n_fft: int, n_bands: int, lowest_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """(n_bands, n_fft / 2 + 1) triangles of equal area, evenly spaced on the mel scale of Slaney's Auditory Toolbox."""
    edges_hz = _slaney_hz(np.linspace(_slaney_mel(lowest_hz), _slaney_mel(highest_hz), n_bands + 2))
    bins_hz = np.arange(n_fft // 2 + 1) * rate_hz / n_fft
    low, middle, high = (edges_hz[start : start + n_bands, None] for start in range(3))
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles


# 200 / 3 Hz a mel up to 1000 Hz, from there a factor of 6.4 every 27 mel
_LINEAR_HZ, _BREAK_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return float(_BREAK_HZ / _LINEAR_HZ + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _slaney_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = mels - _BREAK_HZ / _LINEAR_HZ
    return np.where(above < 0, mels * _LINEAR_HZ, _BREAK_HZ * np.exp(above * _LOG_STEP))


def _heard(spectrogram: Tensor, is_frame: Tensor | None) -> Tensor:
    """(n, 1, 1, t), by which maps are multiplied so that what is not heard is what convolutions pad with.

    Every second of them is what is heard of half the frames, for a layer that halves the time begins with the first.
    """
    return (torch.ones_like(spectrogram[:, 0]) if is_frame is None else is_frame)[:, None, None]


def _check_widths(widths: Sequence[int]) -> None:
    if len(widths) != 5:
        raise XmrError(f"encoder widths: {list(widths)} found, one of each of five layers expected")


SPEECH_ENCODERS: dict[str, type[Any]] = {
    "davenet": DavenetSpeech,
    "resdavenet": ResDavenetSpeech,
}
