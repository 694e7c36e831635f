"""Everything that can be set, with its default, its meaning and its limits. No torch: settings are read before it is.

From the meanings `xmr init` writes an xmr.toml that explains itself.
"""

from typing import Any

from xmr.train.settings.audio import (
    AUDIO_SETTINGS,
    DavenetSettings,
    ResDavenetSettings,
    SoundNetSettings,
    SpectrogramSettings,
    SpeechSettings,
)
from xmr.train.settings.field import PRETRAINED, RANDOM, WEIGHT_FILES, setting
from xmr.train.settings.image import (
    IMAGE_SETTINGS,
    AlexNetSettings,
    ConvnetSettings,
    PictureSettings,
    TimmMapSettings,
    TimmSettings,
)
from xmr.train.settings.losses import LOSS_SETTINGS, LossSettings
from xmr.train.settings.projection import ProjectionSettings
from xmr.train.settings.text import (
    TEXT_SETTINGS,
    WordBagSettings,
    WordBiLSTMSettings,
    WordConvSettings,
    WordGRUSettings,
    WordSlotsSettings,
    WordSRUSettings,
)
from xmr.train.settings.training import STAGE_KEYS, HeadSettings, TrainConfig, WordSettings

__all__ = [
    "ENCODER_SETTINGS",
    "LOSS_SETTINGS",
    "PRETRAINED",
    "RANDOM",
    "STAGE_KEYS",
    "WEIGHT_FILES",
    "AlexNetSettings",
    "ConvnetSettings",
    "DavenetSettings",
    "HeadSettings",
    "LossSettings",
    "PictureSettings",
    "ProjectionSettings",
    "ResDavenetSettings",
    "SoundNetSettings",
    "SpectrogramSettings",
    "SpeechSettings",
    "TimmMapSettings",
    "TimmSettings",
    "TrainConfig",
    "WordBagSettings",
    "WordBiLSTMSettings",
    "WordConvSettings",
    "WordGRUSettings",
    "WordSRUSettings",
    "WordSettings",
    "WordSlotsSettings",
    "setting",
]

ENCODER_SETTINGS: dict[str, type[Any]] = {**IMAGE_SETTINGS, **AUDIO_SETTINGS, **TEXT_SETTINGS}
