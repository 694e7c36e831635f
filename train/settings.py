"""Everything that can be set, with its default, its meaning and its limits. No torch: settings are read before it is.

From the meanings `xmr init` writes an xmr.toml that explains itself.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

Value = TypeVar("Value")
PRETRAINED = "pretrained"  # as `weights`: those that the library of the encoder downloads
RANDOM = "random"  # as `weights`: none, to compare with


def setting(default: Value, meaning: str, *, at_least: float | None = None, below: float | None = None) -> Value:
    """A dataclass field with its default, the sentence that explains it in xmr.toml, and its limits."""
    value: Value = field(default=default, metadata={"meaning": meaning, "at_least": at_least, "below": below})
    return value


@dataclass(frozen=True)
class TimmSettings:
    """Of xmr.train.encoders.TimmImage."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting("timm", "a pretrained network of the timm library, frozen")
    model: str = setting("tf_efficientnet_lite0", "its name in timm")
    weights: str = setting(PRETRAINED, "safetensors file with its weights; pretrained: download them; random: none")
    size: int = setting(224, "pixels, each side", at_least=8)
    resize: Literal["squash", "crop"] = setting("squash", "the whole picture to a square, or its centre square")
    dropout: float = setting(0.0, "share of the pooled features dropped while training", at_least=0, below=1)


@dataclass(frozen=True)
class ConvnetSettings:
    """Of xmr.train.encoders.ConvImage."""

    medium: ClassVar[str] = "image"  # of the modalities it is for

    name: str = setting("convnet", "a small convolutional network, trained from scratch")
    size: int = setting(64, "pixels, each side", at_least=8)
    resize: Literal["squash", "crop"] = setting("squash", "the whole picture to a square, or its centre square")
    shift: int = setting(6, "pixels by which a picture is moved at random while training", at_least=0)
    channels: tuple[int, ...] = setting((16, 32, 64, 128), "of each layer; every layer halves the picture", at_least=1)


@dataclass(frozen=True)
class SoundNetSettings:
    """Of xmr.train.encoders.SoundNet."""

    medium: ClassVar[str] = "audio"  # of the modalities it is for

    name: str = setting("soundnet", "SoundNet's convolutions, frozen, and a layer on top")
    weights: str = setting("", "safetensors file with its weights; random: none")
    layers: tuple[int, ...] = setting((5, 6), "convolutions whose pooled outputs are used", at_least=1)
    window_s: float = setting(5.0, "seconds of a window", at_least=0.1)
    hidden: int = setting(0, "units of a layer between SoundNet and the head; 0: none", at_least=0)
    dropout: float = setting(0.0, "share of the pooled features dropped while training", at_least=0, below=1)


@dataclass(frozen=True)
class SpectrogramSettings:
    """Of xmr.train.encoders.Spectrogram."""

    medium: ClassVar[str] = "audio"  # of the modalities it is for

    name: str = setting("spectrogram", "a log-mel spectrogram and convolutions over time, trained from scratch")
    rate_hz: int = setting(22050, "samples a second", at_least=1000)
    window_s: float = setting(2.0, "seconds of a window", at_least=0.1)
    n_mels: int = setting(64, "bands of the spectrogram", at_least=1)
    channels: tuple[int, ...] = setting(
        (64, 64, 128, 128), "of each convolution; the first three halve the time", at_least=1
    )
    kernel: int = setting(5, "frames a convolution sees", at_least=1)


@dataclass(frozen=True)
class WordConvSettings:
    """Of xmr.train.encoders.WordConv."""

    medium: ClassVar[str] = "text"  # of the modalities it is for

    name: str = setting("words", "word vectors and convolutions over the words")
    max_words: int = setting(24, "words of a sentence that are read", at_least=1)
    channels: tuple[int, ...] = setting((512,), "of each convolution", at_least=1)
    kernel: int = setting(3, "words a convolution sees", at_least=1)
    dropout: float = setting(
        0.0, "share of the numbers dropped while training, of word vectors and of the maximum", at_least=0, below=1
    )
    finetune: bool = setting(True, "let the word vectors learn too")


ENCODER_SETTINGS: dict[str, type[Any]] = {
    "timm": TimmSettings,
    "convnet": ConvnetSettings,
    "soundnet": SoundNetSettings,
    "spectrogram": SpectrogramSettings,
    "words": WordConvSettings,
}


@dataclass(frozen=True)
class HeadSettings:
    """The layers that all modalities share."""

    hidden: tuple[int, ...] = setting(
        (1024,), "widths of the fully connected layers; the last is the embedding's", at_least=1
    )
    relu_embedding: bool = setting(True, "compare the last layer after its ReLU (as published) or before it")
    n_classes: int = setting(1000, "outputs of the class softmax; the teacher's number, 0: no class layer", at_least=0)
    dropout: float = setting(
        0.0, "share of the units dropped in front of each layer while training", at_least=0, below=1
    )


@dataclass(frozen=True)
class LossSettings:
    """What is minimised: a loss of pairs, and model transfer from the image encoder's own classifier."""

    name: str = setting("ranking", "loss of pairs, a key of xmr.train.losses.LOSSES")
    weight: float = setting(1.0, "of the loss of pairs", at_least=0)
    margin: float = setting(0.2, "of ranking, in cosine", at_least=0)
    temperature: float = setting(0.07, "of info_nce", at_least=1e-4)
    transfer: float = setting(
        0.0, "weight of model transfer, KL(teacher || class softmax) for every modality; 0: none", at_least=0
    )


@dataclass(frozen=True)
class WordSettings:
    """Word vectors: a word2vec file, or trained on the captions of the training rows."""

    file: str = setting("", "word2vec file to load (.bin: binary, else text); empty: train on the captions")
    n_words: int = setting(0, "most frequent words of the file to keep beside those of the captions", at_least=0)
    dim: int = setting(300, "numbers a word, when trained here", at_least=1)
    min_count: int = setting(2, "rarer words of the captions are left out", at_least=1)
    epochs: int = setting(20, "passes over the captions", at_least=1)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is trained."""

    recipe: str = setting("quick", "the recipe these settings start from, a file of xmr/train/recipes")
    data: tuple[str, ...] = setting(("pairs.jsonl",), "pairs.jsonl files, or folders that hold one")
    seed: int = setting(0, "of weights, order and dropout", at_least=0)
    epochs: int = setting(20, "passes over the largest kind of pair", at_least=1)
    batch_size: int = setting(128, "pairs of each kind (image-text, image-sound) in a step", at_least=2)
    learning_rate: float = setting(1e-3, "of AdamW, at its highest", at_least=0)
    weight_decay: float = setting(0.01, "of AdamW", at_least=0)
    warmup_steps: int = setting(50, "steps in which the learning rate rises from 0", at_least=0)
    schedule: Literal["cosine", "constant"] = setting("cosine", "of the learning rate after the warm-up")
    eval_every: int = setting(
        1, "epochs from one evaluation on the val rows to the next; the last is always evaluated", at_least=1
    )
    clip_norm: float = setting(0.0, "gradients are scaled down to this norm; 0: never", at_least=0)
    width: int = setting(1024, "numbers that every encoder hands to the shared head", at_least=1)
    encoders: dict[str, Any] = field(default_factory=dict)  # modality -> the Settings of its encoder
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    words: WordSettings = field(default_factory=WordSettings)
