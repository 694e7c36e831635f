"""Settings of the image encoders."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xmr.train.settings.field import PRETRAINED, setting
from xmr.train.settings.projection import ProjectionSettings


@dataclass(frozen=True)
class PictureSettings:
    """How pictures reach an image encoder; the settings of each inherit these."""

    size: int = setting(224, "pixels, each side", at_least=8)
    resize: Literal["squash", "crop"] = setting("squash", "the whole picture to a square, or its centre square")
    margin: float = setting(
        0.0,
        "share of the centre square cut off on every side; 0.0625: the published 224 of 256 pixels",
        at_least=0,
        below=0.5,
    )
    crops: bool = setting(
        True, "with more than one view a network that learns sees new crops; false: the picture and its mirror image"
    )
    mirror: bool = setting(True, "views are mirror images, too; false: where left and right have a meaning")
    views: int = setting(1, "versions of a picture to train on: itself, its mirror image, then crops", at_least=1)


@dataclass(frozen=True)
class TimmSettings(PictureSettings, ProjectionSettings):
    """Of xmr.train.encoders.TimmImage."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting("timm", "a pretrained network of the timm library, frozen")
    model: str = setting("tf_efficientnet_lite0", "its name in timm")
    weights: str = setting(PRETRAINED, "safetensors file with its weights; pretrained: download them; random: none")
    n_levels: int = setting(
        0, "of its last resolutions, those whose mean, maximum and deviation are features too", at_least=0
    )
    trunk_dropout: float = setting(
        0.0,
        "share of the units dropped inside the network where it learns; 0.5 as published for VGG",
        at_least=0,
        below=1,
    )


@dataclass(frozen=True)
class TimmMapSettings(PictureSettings, ProjectionSettings):
    """Of xmr.train.encoders.TimmMap."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting(
        "timm-map", "the last feature map of a network of the timm library, frozen, and a pooling of it"
    )
    model: str = setting("resnet152", "its name in timm")
    weights: str = setting(PRETRAINED, "safetensors file with its weights; pretrained: download them; random: none")
    map_weights: str = setting("", "safetensors file with the convolution's weight and bias; empty: random ones")
    channels: int = setting(2400, "of the convolution over the feature map, which makes the activation map", at_least=1)
    kernel: Literal[1, 3] = setting(1, "places a side that the convolution sees")
    pooling: Literal["weldon", "mean", "max"] = setting("weldon", "from the activation map to one number a channel")
    n_max: int = setting(15, "highest places of each channel whose mean weldon takes", at_least=1)
    n_min: int = setting(15, "lowest places of each channel whose mean weldon adds", at_least=0)
    halved: bool = setting(False, "half of weldon's sum, as first published; the sum as in DSVE")


@dataclass(frozen=True)
class AlexNetSettings(PictureSettings, ProjectionSettings):
    """Of xmr.train.encoders.AlexNet."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting("alexnet", "AlexNet as torchvision has it; its convolutions are frozen")
    weights: str = setting(PRETRAINED, "safetensors file with its weights; pretrained: download them; random: none")
    layer: Literal["pool5", "port"] = setting("pool5", "the last pool, or fc6 and fc7 on top of it, which can learn")
    pixels: Literal["imagenet", "unit"] = setting("imagenet", "brought to ImageNet's mean and deviation, or to 0 ... 1")
    teacher: bool = setting(True, "keep the network's classifier, which can teach the class softmax")


@dataclass(frozen=True)
class ConvnetSettings(PictureSettings):
    """Of xmr.train.encoders.ConvImage."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting("convnet", "a small convolutional network, trained from scratch")
    size: int = setting(64, "pixels, each side", at_least=8)
    shift: int = setting(6, "pixels by which a picture is moved at random while training", at_least=0)
    channels: tuple[int, ...] = setting((16, 32, 64, 128), "of each layer; every layer halves the picture", at_least=1)


IMAGE_SETTINGS: dict[str, type[Any]] = {
    "timm": TimmSettings,
    "timm-map": TimmMapSettings,
    "alexnet": AlexNetSettings,
    "convnet": ConvnetSettings,
}
