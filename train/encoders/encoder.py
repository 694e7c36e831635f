"""What all encoders share: two parts, the projection at the end, and weights from files.

An encoder is a `trunk` and a `top`. The trunk comes with its weights or needs none; as long as nothing in it learns,
it is run once per file and its output cached on disk. The top always learns. An encoder that learns from the first
layer on has an empty trunk, and what is cached is the decoded input.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.train.settings import PRETRAINED, RANDOM, ProjectionSettings


class Encoder(nn.Module):
    """Raw batch -> `trunk` -> features -> `top` -> (n, width)."""

    preprocessing: Any  # how files become the raw batch
    trunk: nn.Module
    top: nn.Module

    def __init__(self) -> None:
        super().__init__()
        # features of the trunk -> class logits, where it was trained as a classifier: the teacher
        self.classifier: nn.Module | None = None
        self.views = 1  # versions of a picture that are trained on
        self.mirror = True  # whether mirror images are among them
        self.crops = True  # whether a learning trunk sees crops of it, or the whole picture and its mirror image
        self.is_compact = False  # whether features are cached as float16, for trunks that give whole maps

    def forward(self, batch: Tensor) -> Tensor:
        features: Tensor = self.top(self.trunk(batch))
        return features

    def maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk gave -> (n, width, ...) at every place, and (n,) the filled places of the last axis."""
        raise XmrError(f"{type(self).__name__}: keeps no map of where and when; choose an encoder that does")

    @property
    def has_maps(self) -> bool:
        return type(self).maps is not Encoder.maps

    @property
    def network(self) -> nn.Module:
        """The part of the trunk that has weights; `thaw` takes the names of its layers."""
        return self.trunk

    def thaw(self, layer: str) -> None:
        """Let the trunk learn from the layer of this name on, in the order of the network; all: from the first on."""
        parameters = dict(self.network.named_parameters())
        first = 0 if layer == "all" else _place_of(layer, list(parameters))
        if first is None or not parameters:
            layers = list(dict.fromkeys(name.split(".")[0] for name in parameters))
            found = f"its layers are {', '.join(layers)}" if layers else "nothing in its trunk can learn"
            raise XmrError(f"finetune: {type(self).__name__} has no layer {layer!r}; {found}")
        for place, parameter in enumerate(parameters.values()):
            parameter.requires_grad_(place >= first)

    @property
    def is_frozen(self) -> bool:
        """Whether nothing in the trunk learns, so that its output can be cached."""
        return not any(parameter.requires_grad for parameter in self.trunk.parameters())

    def train(self, mode: bool = True) -> "Encoder":
        """As ever, but what does not learn in the trunk, and the teacher, stay as they are served."""
        super().train(mode)
        if self.classifier is not None:
            self.classifier.eval()
        if _is_frozen(self.top):
            self.top.eval()
        if self.is_frozen:
            self.trunk.eval()
            return self
        for module in self.trunk.modules():
            if _is_frozen(module):
                module.eval()
        return self

    def _freeze(self) -> None:
        for part in (self.trunk, self.classifier):
            if part is not None:
                part.requires_grad_(False).eval()


def _is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters and none of them learns."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


class Projection(nn.Sequential):
    """(n, below) features of any scale -> (n, width): each encoder's own last layer. Glorot's uniform weights."""

    def __init__(self, below: int, width: int, settings: ProjectionSettings) -> None:
        scales = {"deviation": nn.BatchNorm1d(below, affine=False), "length": UnitLength(), "none": nn.Identity()}
        layers: list[nn.Module] = [scales[settings.scale], nn.Dropout(settings.dropout)]
        if settings.projection == "linear":
            linear = nn.Linear(below, width, bias=not settings.batch_norm)
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
            layers.append(linear)
        elif below != width:
            raise XmrError(f"projection: none asked for, but {below} features meet width {width}; set width={below}")
        if settings.batch_norm:
            layers.append(nn.BatchNorm1d(width))
        super().__init__(*layers)


class UnitLength(nn.Module):
    """(n, d) -> (n, d), each row divided by its length; a row of zeros stays one."""

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=1)


def fill(network: nn.Module, weights: str, where: str) -> None:
    """Weights from a file; random ones only on request, for a trunk learns little or nothing."""
    if not weights:
        raise XmrError(f"{where}: none given; give a safetensors file, or {RANDOM!r} if that is what you want")
    if weights != RANDOM:
        load_weights(network, Path(weights))


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a safetensors file of any float type; names it does not know are left, none may lack."""
    if not path.is_file():
        raise XmrError(f"{path}: no such file; give a safetensors file, {PRETRAINED!r} or {RANDOM!r}")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise XmrError(f"{path}: no weights that can be read ({error}); give a safetensors file") from None
    _check_weights(network.state_dict(), tensors, path)
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    network.load_state_dict(floats, strict=False)


def _check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """XmrError for the first layer, in the order of the network, that the file lacks or has in another shape."""
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    for name in needed:
        if name not in found:
            n_more = sum(name not in found for name in needed) - 1
            raise XmrError(
                f"{path}: weights of another network, {name} and {n_more} more are missing; "
                f"the file holds {', '.join(list(found)[:3]) or 'nothing'}{', ...' if len(found) > 3 else ''}"
            )
        if found[name].shape != expected[name].shape:
            raise XmrError(
                f"{path}: weights of another network, {name} is {tuple(found[name].shape)} in the file, "
                f"{tuple(expected[name].shape)} expected; give a file of this network"
            )


def _place_of(layer: str, names: Sequence[str]) -> int | None:
    """The first of the names that stands for a parameter of this layer."""
    return next((place for place, name in enumerate(names) if f"{name}.".startswith(f"{layer}.")), None)
