"""What a model makes of each place of a picture, or each step of a sound: what is exported to find things in them.

Where everything above the places is affine, the embedding before it has unit length is a sum over places, of their
maxima, or both, and a place gives its share: the layers above applied to the place alone, less what they make of
nothing, so that biases do not count. That is the class activation map of Zhou et al. (2016) with embeddings in place
of classes, and the map of DSVE-loc (Engilberge et al. 2018, section 3.3). Elsewhere a place gives the unit embedding
of a picture or sound that is like it everywhere.
"""

from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xmr.train.encoders import (
    ConvImage,
    DavenetSpeech,
    Encoder,
    ResDavenetSpeech,
    SoundNet,
    SoundNetTrunk,
    Spectrogram,
    TimmImage,
    TimmMap,
    UnitLength,
    max_over_time,
)
from xmr.train.encoders.image import Levels
from xmr.train.encoders.maps import MaxOverTime
from xmr.train.encoders.speech import SMALLEST_LENGTH, STEP, GruOfSteps, SpeechFrontEnd, SpeechTop
from xmr.train.model import AlignedModel, Head

SHARES, EMBEDDINGS = "shares", "embeddings"  # what a place gives
AFFINE = (nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.Identity, UnitLength)
CLOSE = 1e-4  # of what a timm network's pooling gives to the mean of its map, relative to the largest feature


class Places(nn.Module):
    """A raw batch -> (n, dim, h, w) of pictures, (n, dim, t) of sounds."""

    def __init__(self, features: nn.Module, top: nn.Module, head: Head, gives: str) -> None:
        super().__init__()
        self.features = features  # raw batch -> (n, c, ...)
        self.top = _without_lengths(top) if gives == SHARES else top  # (n, c) -> (n, width)
        self.head, self.gives = head, gives

    def forward(self, batch: Tensor) -> Tensor:
        features = self.features(batch)
        n, channels, *places = features.shape
        rows = features.flatten(2).mT.reshape(-1, channels)  # (n * places, c)
        made = self._shares(rows) if self.gives == SHARES else self.head(self.top(rows)).embeddings
        return made.reshape(n, -1, self.head.dim).mT.reshape(-1, self.head.dim, *places)

    def _shares(self, rows: Tensor) -> Tensor:
        of_nothing = self.head(self.top(torch.zeros_like(rows[:1]))).at_own_length
        shares: Tensor = self.head(self.top(rows)).at_own_length - of_nothing
        return shares


class UnitShares(nn.Module):
    """(n, t) samples -> (n, dim, steps): shares in the unit embedding of the n windows, so that windows compare.

    What Places gives is left at the length of the embedding, or of features that a projection brings to unit length.
    """

    def __init__(self, places: Places, encoder: Encoder) -> None:
        super().__init__()
        self.places, self.encoder = places, encoder

    def forward(self, batch: Tensor) -> Tensor:
        whole: Tensor = self.places.head(self.encoder(batch)).at_own_length
        lengths = whole.norm(dim=1)
        top = self.encoder.top
        if any(isinstance(layer, UnitLength) for layer in top.modules()):
            assert isinstance(top, SpeechTop)
            pooled: Tensor = top.pooling(*top.maps(self.encoder.trunk(batch)))
            lengths = lengths * pooled.norm(dim=1)
        shares: Tensor = self.places(batch) / lengths.clamp(min=SMALLEST_LENGTH).view(-1, 1, 1)
        return shares


def steps_s(encoder: Encoder) -> tuple[float, float]:
    """When the steps of a sound's map are: the middle of the first from the window's start, and their distance."""
    first, distance = 0.5, 1.0  # of samples
    for kernel, stride, padding in LAYERS_OVER_TIME[type(encoder)](encoder):
        first += distance * ((kernel - 1) / 2 - padding)
        distance *= stride
    rate_hz = encoder.preprocessing.rate_hz
    return first / rate_hz, distance / rate_hz


def places_of(model: AlignedModel, modality: str) -> Places | None:
    """The places of a modality, sharing the model's weights; None where its encoder keeps no place apart."""
    encoder = model.encoder(modality)
    parts = PARTS.get(type(encoder))
    if parts is None:
        return None
    with torch.inference_mode():
        made = parts(encoder.eval(), is_affine(model.head))
    if made is None:
        return None
    features, top, is_sum = made
    gives = SHARES if is_sum and is_affine(top) and is_affine(model.head) else EMBEDDINGS
    return Places(features, top, model.head, gives).eval()


def is_affine(network: nn.Module) -> bool:
    """Whether it is a matrix and a bias. Division by length counts as one: it does not tell places apart."""
    if isinstance(network, Head):
        is_plain = network.embedding == "linear" and not network.is_absolute
        return is_plain and len(network.layers) <= (0 if network.relu_features else 1)
    layers = [module for module in network.modules() if not list(module.children())]
    return all(isinstance(layer, (*AFFINE, Twice)) for layer in layers)


class Twice(nn.Module):
    """(n, c) -> (n, 2c): the mean and the maximum of what is the same everywhere."""

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, rows], dim=1)


class TimmPlaces(nn.Module):
    """(n, 3, h, w) -> (n, c, h', w'): at each place the features of a timm network and of its last resolutions.

    Where the features add up, what levels give by maximum and deviation is left out; else it is that of the place.
    """

    def __init__(self, network: Any, n_levels: int, last: Tensor, *, is_summed: bool) -> None:
        """`last` is what the network makes of any picture before it pools; it tells what its axes are."""
        super().__init__()
        self.network, self.n_levels = network, n_levels
        pooled = network.forward_head(last)
        self.is_last = last.ndim == 4 and last.shape[1] != network.num_features  # channels, as in Swin
        maps = self._maps(last)
        mean = maps.flatten(2).mean(dim=2)
        self.is_mean = pooled.shape == mean.shape and bool((pooled - mean).abs().max() <= CLOSE * mean.abs().max())
        self.is_sum = self.is_mean and last.ndim == 4 and is_summed

    def forward(self, pixels: Tensor) -> Tensor:
        if self.n_levels:
            last, levels = self.network.forward_intermediates(pixels, indices=self.n_levels)
        else:
            last, levels = self.network.forward_features(pixels), []
        maps = self._maps(last)
        parts = [maps if self.is_mean and last.ndim == 4 else self._alone(last, maps)]
        for level in levels:
            parts += self._of_level(level, (maps.shape[2], maps.shape[3]))
        return torch.cat(parts, dim=1)

    def _maps(self, last: Tensor) -> Tensor:
        """Channels first, of tokens without those that stand for no place."""
        if last.ndim == 4:
            return last.permute(0, 3, 1, 2) if self.is_last else last
        tokens = last[:, _n_prefix_tokens(self.network) :]
        side = isqrt(tokens.shape[1])
        return tokens.mT.reshape(len(tokens), -1, side, side)

    def _alone(self, last: Tensor, maps: Tensor) -> Tensor:
        """What the network's last layers make of a picture that is everywhere like one place."""
        n, channels, height, width = maps.shape
        rows = maps.flatten(2).mT.reshape(-1, channels)
        if last.ndim == 3:
            everywhere = rows[:, None].expand(-1, last.shape[1], -1)
        elif self.is_last:
            everywhere = rows[:, None, None].expand(-1, height, width, -1)
        else:
            everywhere = rows[:, :, None, None].expand(-1, -1, height, width)
        features = self.network.forward_head(everywhere)
        made: Tensor = features.reshape(n, height * width, -1).mT.reshape(n, -1, height, width)
        return made

    def _of_level(self, level: Tensor, size: tuple[int, int]) -> list[Tensor]:
        mean = functional.adaptive_avg_pool2d(level, size)
        if self.is_sum:
            return [mean, torch.zeros_like(mean), torch.zeros_like(mean)]
        variance = functional.adaptive_avg_pool2d(level.square(), size) - mean.square()
        return [mean, functional.adaptive_max_pool2d(level, size), variance.clamp(min=1e-6).sqrt()]


class SpeechSteps(nn.Module):
    """(n, 41, frames) -> (n, c, steps): what the convolutions give, or the states of the GRU on top of them."""

    def __init__(self, top: SpeechTop) -> None:
        super().__init__()
        self.top = top

    def forward(self, features: Tensor) -> Tensor:
        maps, n_steps = self.top.maps(features)
        if not isinstance(self.top.pooling, GruOfSteps):
            return maps
        pooling = self.top.pooling
        if self.top.hears_padding:
            n_steps = torch.full_like(n_steps, maps.shape[2])
        if pooling.norm_axis is not None:
            maps = functional.normalize(maps, dim=pooling.norm_axis, eps=SMALLEST_LENGTH)
        forward, backward = pooling.gru(maps.mT, n_steps).chunk(2, dim=2)
        states: Tensor = (forward + backward).mT / 2
        return states


class SoundNetSteps(nn.Module):
    """(n, t) samples -> (n, dim, steps): log(1 + a chosen layer), over the steps of the coarsest of them.

    Of a finer layer a step is the mean of what the layers between the two hear in it.
    """

    def __init__(self, trunk: SoundNetTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, samples: Tensor) -> Tensor:
        maps = samples.unsqueeze(1) * self.trunk.SCALE
        kept: list[Tensor] = []
        for number, (_, *geometry, pool) in enumerate(self.trunk.LAYERS[: max(self.trunk.chosen)], start=1):
            convolution, norm = (self.trunk.get_submodule(f"{name}{number}") for name in ("conv", "bn"))
            maps = torch.relu(norm(convolution(maps)))
            maps = max_over_time(maps, pool) if pool > 1 else maps
            kept = [_mean_over_time(_mean_over_time(finer, *geometry), pool, pool, 0) for finer in kept]
            if number in self.trunk.chosen:
                kept.append(maps)
        return torch.log1p(torch.cat(kept, dim=1))


def _mean_over_time(maps: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(n, c, t) -> the mean over the steps that a convolution or pool would see, its padding left out."""
    return functional.avg_pool1d(maps, kernel, stride, padding, count_include_pad=False)


def _n_prefix_tokens(network: Any) -> int:
    """Of a timm network: the tokens in front of the others that stand for no place."""
    return int(getattr(network, "num_prefix_tokens", 0))


Parts = tuple[nn.Module, nn.Module, bool]  # raw batch -> (n, c, ...), (n, c) -> (n, width), whether places add up


def _of_timm_map(encoder: TimmMap, is_summed: bool) -> Parts:
    convolution, projection = (encoder.top.get_submodule(name) for name in ("convolution", "projection"))
    return nn.Sequential(encoder.trunk, convolution), projection, True


def _of_timm(encoder: TimmImage, is_summed: bool) -> Parts | None:
    scale, pooled = encoder.trunk.get_submodule("scale"), encoder.trunk.get_submodule("pooled")
    assert isinstance(pooled, Levels)
    side = encoder.preprocessing.size
    noise = torch.randint(256, (1, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    device = next(encoder.parameters()).device
    network: Any = encoder.network
    last = network.forward_features(scale(noise.to(device)))
    if not _keeps_places(network, last):
        return None
    places = TimmPlaces(network, pooled.n_levels, last, is_summed=is_summed and is_affine(encoder.top))
    return nn.Sequential(scale, places), encoder.top, places.is_sum


def _keeps_places(network: Any, last: Any) -> bool:
    """Whether what a timm network ends with is one map: of maps or tokens of several sizes there is a list."""
    if not isinstance(last, Tensor):
        return False
    n_tokens = last.shape[1] - _n_prefix_tokens(network)
    return last.ndim == 4 or (last.ndim == 3 and isqrt(n_tokens) ** 2 == n_tokens > 1)


def _of_convolutions(encoder: ConvImage | Spectrogram, is_summed: bool) -> Parts:
    *layers, _, linear = encoder.top.children()
    return nn.Sequential(encoder.trunk, *layers), nn.Sequential(Twice(), linear), True


def _of_speech(encoder: DavenetSpeech | ResDavenetSpeech, is_summed: bool) -> Parts:
    is_sum = not isinstance(encoder.top.pooling, GruOfSteps)
    return nn.Sequential(encoder.trunk, SpeechSteps(encoder.top)), encoder.top.projection, is_sum


Layer = tuple[int, int, int]  # over time: kernel, stride, padding


def _layers_of_spectrogram(encoder: Spectrogram) -> list[Layer]:
    layers: list[Layer] = [(encoder.trunk.n_fft, encoder.trunk.hop, 0)]
    for layer in encoder.top.children():
        if isinstance(layer, nn.Conv1d):
            layers.append((layer.kernel_size[0], layer.stride[0], int(layer.padding[0])))
        elif isinstance(layer, MaxOverTime):
            layers.append((layer.pool, layer.pool, 0))
    return layers


def _layers_of_speech(encoder: DavenetSpeech | ResDavenetSpeech) -> list[Layer]:
    """Above the spectrogram every layer is padded by half of what it sees, so that a step begins where it is."""
    return [(SpeechFrontEnd.N_FFT, SpeechFrontEnd.HOP, SpeechFrontEnd.N_FFT // 2), (1, STEP, 0)]


def _layers_of_soundnet(encoder: SoundNet) -> list[Layer]:
    assert isinstance(encoder.trunk, SoundNetTrunk)
    layers: list[Layer] = []
    for _, kernel, stride, padding, pool in encoder.trunk.LAYERS[: max(encoder.trunk.chosen)]:
        layers += [(kernel, stride, padding), (pool, pool, 0)]
    return layers


def _of_soundnet(encoder: SoundNet, is_summed: bool) -> Parts:
    assert isinstance(encoder.trunk, SoundNetTrunk)
    return SoundNetSteps(encoder.trunk), encoder.top, False


def _without_lengths(network: nn.Module) -> nn.Module:
    """The layers of a projection, without one that divides by the length of the whole."""
    return nn.Sequential(*(layer for layer in network.children() if not isinstance(layer, UnitLength)))


PARTS: dict[type[Encoder], Callable[[Any, bool], Parts | None]] = {
    TimmMap: _of_timm_map,
    TimmImage: _of_timm,
    ConvImage: _of_convolutions,
    Spectrogram: _of_convolutions,
    DavenetSpeech: _of_speech,
    ResDavenetSpeech: _of_speech,
    SoundNet: _of_soundnet,
}
LAYERS_OVER_TIME: dict[type[Encoder], Callable[[Any], list[Layer]]] = {
    Spectrogram: _layers_of_spectrogram,
    DavenetSpeech: _layers_of_speech,
    ResDavenetSpeech: _layers_of_speech,
    SoundNet: _layers_of_soundnet,
}
