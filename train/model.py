"""The aligned model: one encoder per modality and the head they share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, image, sound
from xmr.train.encoders import ENCODERS, Encoder
from xmr.train.settings import HeadSettings, TrainConfig
from xmr.train.words import Words

# in what torch says of an input that leaves a layer nothing
TOO_SMALL = ("Calculated padded input size", "Output size is too small", "output size", "Kernel size can't be greater")


class Outputs(NamedTuple):
    """What the head makes of n items."""

    embeddings: Tensor  # (n, dim) unit rows, which are compared
    logits: Tensor | None  # (n, n_classes)
    at_own_length: Tensor  # (n, dim), the embeddings before they are brought to unit length
    # of each shared layer below the embedding, and of the class softmax above it: (n, its width), unit rows
    layers: list[Tensor]


class NotFiniteError(XmrError):
    """A loss, a gradient, a weight or an embedding that is no number."""


class Head(nn.Module):
    """Fully connected layers with ReLU that every modality goes through, and the class softmax on top of them."""

    def __init__(self, settings: HeadSettings, width: int) -> None:
        super().__init__()
        widths = [width, *settings.hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(settings.dropout)
        self.relu_features = settings.relu_features
        self.embedding, self.is_absolute = settings.embedding, settings.is_absolute
        self.classes = nn.Linear(widths[-1], settings.n_classes) if settings.n_classes else None
        if self.embedding == "classes" and self.classes is None:
            raise XmrError("head.embedding: the class softmax asked for, but head.n_classes is 0; set it")
        self.width, self.dim = width, settings.n_classes if self.embedding == "classes" else widths[-1]

    def forward(self, features: Tensor) -> Outputs:
        """(n, width) -> embeddings and class logits."""
        last = features
        below: list[Tensor] = []
        for layer in self.layers:
            active = torch.relu(last) if below or self.relu_features else last
            last = layer(self.dropout(active))
            below.append(functional.normalize(torch.relu(last), dim=1))
        active = torch.relu(last) if len(self.layers) else last
        logits = None if self.classes is None else self.classes(active)
        chosen = self._embedding(last, logits)
        embeddings = functional.normalize(chosen, dim=1)
        if self.embedding == "classes":
            return Outputs(embeddings, logits, chosen, below)
        classes = [] if logits is None else [functional.normalize(logits.softmax(dim=1), dim=1)]
        return Outputs(embeddings, logits, chosen, below[:-1] + classes)

    def _embedding(self, last: Tensor, logits: Tensor | None) -> Tensor:
        if self.embedding == "classes":
            assert logits is not None
            return logits.softmax(dim=1)
        chosen = torch.relu(last) if self.embedding == "relu" else last
        return chosen.abs() if self.is_absolute else chosen


class AlignedModel(nn.Module):
    """Encoders by modality, the image's first, and the head."""

    def __init__(self, config: TrainConfig, words: Words) -> None:
        super().__init__()
        encoders = {
            modality: ENCODERS[config.encoders[modality].name](config.encoders[modality], config.width, words)
            for modality in MODALITIES
            if modality in config.encoders
        }
        for modality, encoder in encoders.items():
            _try_out(encoder, modality)
        self.encoders = nn.ModuleDict(encoders)
        self.head = Head(config.head, config.width)
        self._can_learn = {name: parameter.requires_grad for name, parameter in self.named_parameters()}

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

    def forward(self, modality: str, batch: Tensor) -> Outputs:
        """A raw batch -> embeddings and class logits."""
        outputs: Outputs = self.head(self.encoder(modality)(batch))
        return outputs

    def features(self, modality: str, inputs: Tensor) -> Tensor:
        """What the trunk makes of a raw batch; of a frozen trunk it is handed in, ready from the cache."""
        encoder = self.encoder(modality)
        features: Tensor = inputs if encoder.is_frozen else encoder.trunk(inputs)
        return features

    def embed_features(self, modality: str, features: Tensor) -> Outputs:
        """What the trunk of an encoder gave -> embeddings and class logits."""
        outputs: Outputs = self.head(self.encoder(modality).top(features))
        return outputs

    def maps(self, modality: str, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk of an encoder gave -> its maps (n, width, ...) and the filled places of their last axis."""
        return self.encoder(modality).maps(features)

    def set_learning(self, stage: TrainConfig) -> None:
        """Let learn what a stage lets learn; XmrError for a name that nothing has."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._can_learn[name])
        for modality, layer in stage.finetune.items():
            if modality in self.encoders:
                self.encoder(modality).thaw(layer)
        names = dict(self.named_parameters())
        for pattern in stage.freeze:
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise XmrError(
                    f"freeze: {pattern!r} is the name of no parameter; they are like {', '.join(_some(names))}"
                )
            for name in matching:
                names[name].requires_grad_(False)
        if not any(parameter.requires_grad for parameter in names.values()):
            raise XmrError("freeze: nothing is left to learn in a stage; name fewer parameters")
        self.train(self.training)  # what learns no longer is as it is served, what learns anew is not

    def learning_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that training changes, with their names."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)


class LazyOutputs(Mapping[str, Outputs]):
    """The outputs of a model for the features of each modality, made when one is first asked for.

    A loss of maps needs none, and would have the convolutions run twice.
    """

    def __init__(
        self, model: AlignedModel, features: Mapping[str, Tensor], autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._model, self._features, self._autocast = model, features, autocast
        self._made: dict[str, Outputs] = {}

    def __getitem__(self, modality: str) -> Outputs:
        if modality not in self._made:
            with self._autocast():
                self._made[modality] = self._model.embed_features(modality, self._features[modality])
        return self._made[modality]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)


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
        if not any(sign in str(error) for sign in TOO_SMALL):
            raise
        raise XmrError(f"encoders.{modality}: too small an input for its layers ({error}); set a larger one") from None


def _some(names: Iterable[str]) -> list[str]:
    """One name of each module two levels down, to show what names look like."""
    return list({".".join(name.split(".")[:3]): name for name in names}.values())
