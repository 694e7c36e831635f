"""Settings of the text encoders."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xmr.train.settings.field import setting
from xmr.train.settings.projection import ProjectionSettings

MAX_WORDS = "words of a sentence that are read"
FINETUNE = "let the word vectors learn too"
WORD_DROPOUT = "share of the numbers of word vectors dropped while training"
UNSCALED = "features are first brought to mean 0 and deviation 1, or to unit length, or left alone"


@dataclass(frozen=True)
class WordConvSettings:
    """Of xmr.train.encoders.WordConv."""

    medium: ClassVar[str] = "text"  # of the modalities it is for

    name: str = setting("words", "word vectors and convolutions over the words")
    max_words: int = setting(24, MAX_WORDS, at_least=1)
    channels: tuple[int, ...] = setting((512,), "of each convolution", at_least=1)
    kernel: int = setting(3, "words a convolution sees", at_least=1)
    dropout: float = setting(
        0.0, "share of the numbers dropped while training, of word vectors and of the maximum", at_least=0, below=1
    )
    finetune: bool = setting(True, FINETUNE)


@dataclass(frozen=True)
class TextSettings(ProjectionSettings):
    """What the settings of the other text encoders have in common."""

    medium: ClassVar[str] = "text"

    scale: Literal["deviation", "length", "none"] = setting("none", UNSCALED)
    max_words: int = setting(24, MAX_WORDS, at_least=1)
    finetune: bool = setting(True, FINETUNE)


@dataclass(frozen=True)
class WordSlotsSettings(TextSettings):
    """Of xmr.train.encoders.WordSlots."""

    name: str = setting("slots", "a slot for each word of a sentence, and three convolutions over all slots")
    max_words: int = setting(16, "slots: words of a sentence that are read, known or not", at_least=1)
    finetune: bool = setting(False, FINETUNE)
    along: Literal["words", "vectors"] = setting(
        "words", "what the convolutions run along: the words, or (as published code does) the numbers of the vectors"
    )
    channels: tuple[int, ...] = setting((300, 300, 300), "of the three convolutions", at_least=1)
    drop_repeats: bool = setting(False, "a word said twice keeps its last slot only, as in published code")


@dataclass(frozen=True)
class WordGRUSettings(TextSettings):
    """Of xmr.train.encoders.WordGRU."""

    name: str = setting("gru", "word vectors and gated recurrent units")
    units: int = setting(1024, "of a layer, in each direction", at_least=1)
    n_layers: int = setting(1, "recurrent layers", at_least=1)
    bidirectional: bool = setting(False, "read the sentence backwards too")
    halves: Literal["mean", "concat"] = setting("mean", "both directions: averaged, as SCAN does, or side by side")
    pooling: Literal["last", "mean", "max"] = setting("last", "of the states: where each direction ends, or over words")
    word_dropout: float = setting(0.0, WORD_DROPOUT, at_least=0, below=1)
    layer_dropout: float = setting(0.0, "share of the states dropped between layers", at_least=0, below=1)


@dataclass(frozen=True)
class WordBiLSTMSettings(TextSettings):
    """Of xmr.train.encoders.WordBiLSTM."""

    name: str = setting("bilstm", "word vectors, a bidirectional LSTM and the maximum over the words")
    batch_norm: bool = setting(True, "batch norm in place of the projection's bias")
    units: int = setting(512, "in each direction", at_least=1)
    max_over: Literal["words", "padding"] = setting(
        "words", "the maximum is over the words; padding: in training, as published, over zeros behind shorter ones too"
    )
    learned_start: bool = setting(False, "the states in front of the first word learn too")
    drop_end: bool = setting(False, "<end> is not read, where the vocabulary has one")
    word_dropout: float = setting(0.0, WORD_DROPOUT, at_least=0, below=1)
    state_dropout: float = setting(0.0, "share of the states dropped in front of the maximum", at_least=0, below=1)


@dataclass(frozen=True)
class WordSRUSettings(TextSettings):
    """Of xmr.train.encoders.WordSRU."""

    name: str = setting("sru", "word vectors and simple recurrent units; the state at the last word")
    finetune: bool = setting(False, FINETUNE)
    units: int = setting(2400, "of a layer", at_least=1)
    n_layers: int = setting(4, "recurrent layers", at_least=1)
    layer_dropout: float = setting(
        0.25,
        "share of the units dropped on top of a layer, but the last; the same ones at all words",
        at_least=0,
        below=1,
    )
    rnn_dropout: float = setting(
        0.25, "share of units dropped below each layer, the same at all words", at_least=0, below=1
    )


@dataclass(frozen=True)
class WordBagSettings(TextSettings):
    """Of xmr.train.encoders.WordBag."""

    name: str = setting("bag", "the mean of the word vectors, in whatever order the words come")
    pooling: Literal["mean", "sum", "idf"] = setting(
        "mean", "of the word vectors; idf: a mean that rarer words weigh in"
    )
    hidden: int = setting(0, "units of a layer between the mean and the projection; 0: none", at_least=0)
    word_dropout: float = setting(0.0, WORD_DROPOUT, at_least=0, below=1)


TEXT_SETTINGS: dict[str, type[Any]] = {
    "words": WordConvSettings,
    "slots": WordSlotsSettings,
    "gru": WordGRUSettings,
    "bilstm": WordBiLSTMSettings,
    "sru": WordSRUSettings,
    "bag": WordBagSettings,
}
