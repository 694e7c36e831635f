"""Image, sound, speech and text encoders: arrays as `xmr.engine.media` loads them -> (n, width) for the head."""

from typing import Any

from xmr.train.encoders.encoder import Encoder, Projection, UnitLength, load_weights
from xmr.train.encoders.image import (
    IMAGE_ENCODERS,
    AlexNet,
    ConvImage,
    LastMap,
    RandomShift,
    ScalePixels,
    TimmImage,
    TimmMap,
)
from xmr.train.encoders.maps import MaxOverTime, MeanAndMax, WeldonPool, max_over_time, weldon_pool
from xmr.train.encoders.recurrent import GRU, LSTM, SRU
from xmr.train.encoders.sound import SOUND_ENCODERS, LogMel, LogSpectrogram, SoundNet, SoundNetTrunk, Spectrogram
from xmr.train.encoders.speech import (
    SPEECH_ENCODERS,
    Davenet,
    DavenetSpeech,
    ResDavenet,
    ResDavenetSpeech,
    SpeechFrontEnd,
)
from xmr.train.encoders.text import (
    TEXT_ENCODERS,
    SlotConvolutions,
    WordBag,
    WordBiLSTM,
    WordConv,
    WordConvolutions,
    WordGRU,
    WordSlots,
    WordSRU,
)

__all__ = [
    "ENCODERS",
    "GRU",
    "LSTM",
    "SRU",
    "AlexNet",
    "ConvImage",
    "Davenet",
    "DavenetSpeech",
    "Encoder",
    "LastMap",
    "LogMel",
    "LogSpectrogram",
    "MaxOverTime",
    "MeanAndMax",
    "Projection",
    "RandomShift",
    "ResDavenet",
    "ResDavenetSpeech",
    "ScalePixels",
    "SlotConvolutions",
    "SoundNet",
    "SoundNetTrunk",
    "Spectrogram",
    "SpeechFrontEnd",
    "TimmImage",
    "TimmMap",
    "UnitLength",
    "WeldonPool",
    "WordBag",
    "WordBiLSTM",
    "WordConv",
    "WordConvolutions",
    "WordGRU",
    "WordSRU",
    "WordSlots",
    "load_weights",
    "max_over_time",
    "weldon_pool",
]

ENCODERS: dict[str, type[Any]] = {**IMAGE_ENCODERS, **SOUND_ENCODERS, **SPEECH_ENCODERS, **TEXT_ENCODERS}
