"""The aligned model: one encoder per modality and the head they share."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import image, sound
from xmr.train.encoders import ENCODERS, Encoder
from xmr.train.settings import HeadSettings, TrainConfig
from xmr.train.words import Words


class Head(nn.Module):
    """Fully connected layers with ReLU that every modality goes through, and the class softmax on top of them."""

    def __init__(self, settings: HeadSettings, width: int) -> None:
        super().__init__()
        widths = [width, *settings.hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(settings.dropout)
        self.relu_embedding = settings.relu_embedding
        self.classes = nn.Linear(widths[-1], settings.n_classes) if settings.n_classes else None
        self.width, self.dim = width, widths[-1]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n, width) -> embeddings (n, dim), unit rows, and class logits (n, n_classes)."""
        last = hidden = features
        for layer in self.layers:
            last = layer(self.dropout(torch.relu(hidden)))
            hidden = last
        active = torch.relu(last)
        embeddings = functional.normalize(active if self.relu_embedding else last, dim=1)
        return embeddings, None if self.classes is None else self.classes(active)


def _try_out(encoder: Encoder, modality: str) -> None:
    """One input of zeros, so that settings which leave a layer nothing to work on are found before any work."""
    preprocessing = encoder.preprocessing
    if isinstance(preprocessing, image.Preprocessing):
        batch = torch.zeros(1, preprocessing.size, preprocessing.size, 3, dtype=torch.uint8)
    elif isinstance(preprocessing, sound.Preprocessing):
        batch = torch.zeros(1, round(preprocessing.window_s * preprocessing.rate_hz))
    else:
        return
    try:
        with torch.inference_mode():
            encoder.eval()(batch)
        encoder.train()
    except RuntimeError as error:
        raise XmrError(f"encoders.{modality}: too small an input for its layers ({error}); set a larger one") from None


class AlignedModel(nn.Module):
    """Encoders by modality, and the head."""

    def __init__(self, config: TrainConfig, words: Words) -> None:
        super().__init__()
        encoders = {
            modality: ENCODERS[settings.name](settings, config.width, words)
            for modality, settings in config.encoders.items()
        }
        for modality, encoder in encoders.items():
            _try_out(encoder, modality)
        self.encoders = nn.ModuleDict(encoders)
        self.head = Head(config.head, config.width)

    def encoder(self, modality: str) -> Encoder:
        encoder: Any = self.encoders[modality]
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return self.head.dim

    def forward(self, modality: str, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """A raw batch -> embeddings and class logits."""
        outputs: tuple[Tensor, Tensor | None] = self.head(self.encoder(modality)(batch))
        return outputs

    def embed_features(self, modality: str, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the frozen part of an encoder gave -> embeddings and class logits."""
        outputs: tuple[Tensor, Tensor | None] = self.head(self.encoder(modality).trained(features))
        return outputs

    def learning_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that training changes, with their names."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)
