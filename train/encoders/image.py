"""Image encoders: (n, size, size, 3) uint8 pixels -> (n, width)."""

import logging
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.media import image
from xmr.train.encoders.encoder import Encoder, Projection, fill
from xmr.train.encoders.maps import MaxOfPlaces, MeanAndMax, MeanOfPlaces, WeldonPool
from xmr.train.settings import (
    PRETRAINED,
    AlexNetSettings,
    ConvnetSettings,
    PictureSettings,
    TimmMapSettings,
    TimmSettings,
)
from xmr.train.words import Words

WEIGHTS = "encoders.image.weights"
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PictureEncoder(Encoder):
    """What image encoders share: how pictures reach them."""

    def _see(self, settings: PictureSettings) -> None:
        self.preprocessing = image.Preprocessing(settings.size, settings.resize, settings.margin)
        self.views, self.crops, self.mirror = settings.views, settings.crops, settings.mirror
        n_most = 1 + self.mirror
        if self.views > n_most and not self.crops:
            found = f"{self.views} found, without crops there are {n_most}"
            raise XmrError(f"encoders.image.views: {found}; set crops or fewer")


class TimmImage(PictureEncoder):
    """A pretrained image network of timm, frozen up to its pooled features, then one layer to the head's width."""

    Settings = TimmSettings

    def __init__(self, settings: TimmSettings, width: int, words: Words) -> None:
        super().__init__()
        self._see(settings)
        dropout = {"drop_rate": settings.trunk_dropout} if settings.trunk_dropout else {}
        network = _timm_network(settings.model, settings.weights, **dropout)
        pooled = Levels(network, settings.n_levels)
        self.classifier = nn.Sequential(FirstFeatures(network.head_hidden_size), network.get_classifier())
        network.reset_classifier(0)
        self.trunk = nn.Sequential(OrderedDict(scale=_timm_scale(network), pooled=pooled))
        self.top = Projection(pooled.dim, width, settings)
        self._freeze()

    @property
    def network(self) -> nn.Module:
        return self.trunk.get_submodule("pooled.network")


class Levels(nn.Module):
    """Pixels -> what the network's classifier sees; then, of its last n resolutions, the mean, maximum and deviation.

    The last layer of a classifier has forgotten colours and textures that captions speak of.
    """

    def __init__(self, network: Any, n_levels: int) -> None:
        super().__init__()
        self.network, self.n_levels = network, n_levels
        self.dim = int(network.head_hidden_size)
        if n_levels:
            widths = [int(level["num_chs"]) for level in network.feature_info]
            if n_levels > len(widths):
                raise XmrError(f"encoders.image.n_levels: {n_levels} found, the network has {len(widths)}; set fewer")
            self.dim += 3 * sum(widths[-n_levels:])

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.n_levels:
            features: Tensor = self.network(pixels)
            return features
        last, levels = self.network.forward_intermediates(pixels, indices=self.n_levels)
        pooled = [self.network.forward_head(last)]
        for level in levels:
            deviations = level.var(dim=(2, 3), correction=0).clamp(min=1e-6).sqrt()
            pooled += [level.mean(dim=(2, 3)), level.amax(dim=(2, 3)), deviations]
        return torch.cat(pooled, dim=1)


class FirstFeatures(nn.Module):
    """(n, d) -> its first columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, features: Tensor) -> Tensor:
        return features[:, : self.dim]


class TimmMap(PictureEncoder):
    """The last map of a timm network, frozen, a convolution that makes an activation map of it, and a pooling of that.

    With WELDON pooling the image side of DSVE (Engilberge et al. 2018), with the mean that of DAVEnet (Harwath et al.
    2018), whose VGG16 ends without its last pool.
    """

    Settings = TimmMapSettings

    def __init__(self, settings: TimmMapSettings, width: int, words: Words) -> None:
        super().__init__()
        self._see(settings)
        self.is_compact = True
        network = _timm_network(settings.model, settings.weights)
        scale = _timm_scale(network)
        network.reset_classifier(0)
        self.trunk = nn.Sequential(OrderedDict(scale=scale, map=LastMap(network, settings.model)))
        channels, kernel = settings.channels, settings.kernel
        convolution = nn.Conv2d(network.num_features, channels, kernel, padding=kernel // 2)
        if settings.map_weights:
            fill(convolution, settings.map_weights, "encoders.image.map_weights")
        projection = Projection(channels, width, settings)
        self.top = nn.Sequential(
            OrderedDict(convolution=convolution, pooling=_pooling(settings), projection=projection)
        )
        self._freeze()

    @property
    def network(self) -> nn.Module:
        return self.trunk.get_submodule("map.network")

    def maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The activation map (n, channels, h, w), before pooling and projection; all of its columns are filled."""
        activations: Tensor = self.top.get_submodule("convolution")(features)
        n, *_, n_columns = activations.shape
        return activations, torch.full((n,), n_columns, device=features.device)


class AlexNet(PictureEncoder):
    """AlexNet's convolutions, frozen: pool5 as See, Hear and Read takes it (2017), or the layers of its port on top.

    The port keeps fc6 and fc7 with their dropouts, which stay active while it trains even where the layers are frozen,
    and ends in a new layer.
    """

    Settings = AlexNetSettings
    POOL5, FC = 9216, 4096  # numbers of pool5, of fc6 and of fc7

    def __init__(self, settings: AlexNetSettings, width: int, words: Words) -> None:
        super().__init__()
        self._see(settings)
        alexnet = _alexnet(settings.weights)
        pool5 = OrderedDict(features=alexnet.features, avgpool=alexnet.avgpool, flatten=nn.Flatten())
        is_unit = settings.pixels == "unit"
        scale = ScalePixels((0.0,) * 3, (1.0,) * 3) if is_unit else ScalePixels(IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.trunk = nn.Sequential(OrderedDict(scale=scale, network=nn.Sequential(pool5)))
        self.classifier = alexnet.classifier if settings.teacher else None
        if settings.layer == "port":
            self.top = _port_top(deepcopy(alexnet.classifier), width, settings)
        else:
            self.top = Projection(self.POOL5, width, settings)
        self._freeze()

    @property
    def network(self) -> nn.Module:
        return self.trunk.get_submodule("network")


class ConvImage(PictureEncoder):
    """Convolutions and maxima from the pixels on, trained from scratch: for small worlds."""

    Settings = ConvnetSettings

    def __init__(self, settings: ConvnetSettings, width: int, words: Words) -> None:
        super().__init__()
        self._see(settings)
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
        self.trunk = nn.Identity()
        self.top = nn.Sequential(*layers, MeanAndMax(), nn.Linear(2 * below, width))


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
        # floats first: TensorRT does nothing with bytes but cast them
        return pixels.float().permute(0, 3, 1, 2) * self.scale - self.shift


class LastMap(nn.Module):
    """(n, 3, h, w) -> (n, channels, h', w'): the last map of a timm network, in front of a pool that ends it."""

    def __init__(self, network: Any, model: str) -> None:
        super().__init__()
        layers = getattr(network, "features", None)
        if isinstance(layers, nn.Sequential) and isinstance(layers[-1], nn.MaxPool2d):
            layers[-1] = nn.Identity()
        if hasattr(network, "pre_logits"):  # VGG's fc6 and fc7
            network.pre_logits = nn.Identity()
        self.network, self.model = network, model

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(pixels)
        if features.ndim != 4 or features.shape[1] != self.network.num_features:
            raise XmrError(
                f"encoders.image.model: {self.model} gives {tuple(features.shape)}, no map of (n, channels, height, "
                "width); choose a convolutional network"
            )
        return features


def _pooling(settings: TimmMapSettings) -> nn.Module:
    if settings.pooling == "weldon":
        return WeldonPool(settings.n_max, settings.n_min, halved=settings.halved)
    return MeanOfPlaces() if settings.pooling == "mean" else MaxOfPlaces()


def _port_top(classifier: nn.Module, width: int, settings: AlexNetSettings) -> nn.Sequential:
    """Pool5 -> fc6 -> fc7 -> a new layer, which starts as torch's layers do."""
    names = ("dropout6", "fc6", "relu6", "dropout7", "fc7", "relu7")
    layers = OrderedDict(zip(names, classifier.children(), strict=False))  # without its last, the classes
    projection = Projection(AlexNet.FC, width, settings)
    for layer in projection:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.Sequential(layers | {"projection": projection})


def _timm_scale(network: Any) -> "ScalePixels":
    """As the network was trained."""
    config = network.pretrained_cfg
    return ScalePixels(config["mean"], config["std"])


def _alexnet(weights: str) -> Any:
    """torchvision's AlexNet with these weights, whose names in a file are torchvision's."""
    from torchvision import models  # type: ignore[import-untyped]

    try:
        with redirect_stdout(sys.stderr):  # torch tells of a download there
            network = models.alexnet(weights=models.AlexNet_Weights.DEFAULT if weights == PRETRAINED else None)
    except OSError as error:
        raise XmrError(f"{WEIGHTS}: no download ({error}); give a safetensors file") from None
    if weights != PRETRAINED:
        fill(network, weights, WEIGHTS)
    return network


def _timm_network(model: str, weights: str, **options: Any) -> Any:
    """timm's network of this name with these weights."""
    import timm

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what fails is said below
    if not timm.is_model(model):
        raise XmrError(f"encoders.image.model: timm has no network {model!r}; see timm.list_models()")
    try:
        network = timm.create_model(model, pretrained=weights == PRETRAINED, **options)
    except OSError as error:
        raise XmrError(f"{WEIGHTS}: no download ({error}); give a safetensors file") from None
    except RuntimeError as error:  # a tag that the network does not have
        raise XmrError(f"encoders.image.model: {error}; see timm.list_pretrained()") from None
    if weights != PRETRAINED:
        fill(network, weights, WEIGHTS)
    return network


IMAGE_ENCODERS: dict[str, type[Any]] = {
    "timm": TimmImage,
    "timm-map": TimmMap,
    "alexnet": AlexNet,
    "convnet": ConvImage,
}
