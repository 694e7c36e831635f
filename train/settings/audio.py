"""Settings of the encoders of sound and speech."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xmr.train.settings.field import setting
from xmr.train.settings.projection import ProjectionSettings


@dataclass(frozen=True)
class SoundNetSettings(ProjectionSettings):
    """Of xmr.train.encoders.SoundNet."""

    medium: ClassVar[str] = "audio"  # of the modalities it is for

    name: str = setting("soundnet", "SoundNet's convolutions, frozen, and a layer on top")
    weights: str = setting("", "safetensors file with its weights; random: none")
    layers: tuple[int, ...] = setting((5, 6), "convolutions whose pooled outputs are used", at_least=1)
    window_s: float = setting(5.0, "seconds of a window", at_least=0.1)
    hidden: int = setting(0, "units of a layer between SoundNet and the projection; 0: none", at_least=0)


@dataclass(frozen=True)
class SpectrogramSettings:
    """Of xmr.train.encoders.Spectrogram."""

    medium: ClassVar[str] = "audio"  # of the modalities it is for

    name: str = setting("spectrogram", "a log spectrogram and convolutions over time, trained from scratch")
    rate_hz: int = setting(22050, "samples a second", at_least=1000)
    window_s: float = setting(2.0, "seconds of a window", at_least=0.1)
    bands: Literal["mel", "linear"] = setting("mel", "of the spectrogram: n_mels of them, or every frequency there is")
    n_mels: int = setting(64, "mel bands of the spectrogram", at_least=1)
    n_fft: int = setting(1024, "samples of a frame; n_fft / 2 + 1 linear bands, so that 512 gives 257", at_least=2)
    hop: int = setting(441, "samples from one frame to the next", at_least=1)
    channels: tuple[int, ...] = setting(
        (64, 64, 128, 128), "of each convolution; the first three halve the time", at_least=1
    )
    kernel: int = setting(5, "frames a convolution sees", at_least=1)


@dataclass(frozen=True)
class SpeechSettings(ProjectionSettings):
    """What the encoders of speech share; their convolutions make one step of sixteen frames."""

    medium: ClassVar[str] = "audio"  # of the modalities it is for

    window_s: float = setting(20.48, "seconds of a window, 100 frames each", at_least=0.1)
    pooling: Literal["gru", "mean", "max"] = setting("gru", "of the steps: a bidirectional GRU, their mean or maximum")
    hidden: int = setting(1024, "units of the GRU in each direction", at_least=1)
    norm: Literal["channels", "time", "none"] = setting(
        "channels", "length the GRU's input is divided by: of each step, or of each channel over time (as published)"
    )
    reading: Literal["ends", "last"] = setting(
        "ends", "of the GRU: each direction's end, or both directions at the last step (as published)"
    )
    padding: Literal["ignored", "heard"] = setting("ignored", "what fills the window; heard as if it were the clip's")
    pad_db: float = setting(-80.0, "level of what fills the window, if it is heard; 0: as published", at_least=-80)


@dataclass(frozen=True)
class DavenetSettings(SpeechSettings):
    """Of xmr.train.encoders.DavenetSpeech."""

    name: str = setting("davenet", "five convolutions over a log-mel spectrogram, trained from scratch")
    widths: tuple[int, ...] = setting((128, 256, 512, 512, 1024), "channels of each convolution", at_least=1)
    time_pool: Literal["avg", "max"] = setting("avg", "behind the convolutions; avg: as in VASE, max: as in DAVEnet")


@dataclass(frozen=True)
class ResDavenetSettings(SpeechSettings):
    """Of xmr.train.encoders.ResDavenetSpeech."""

    name: str = setting("resdavenet", "residual convolutions over a log-mel spectrogram, trained from scratch")
    widths: tuple[int, ...] = setting(
        (128, 128, 256, 512, 1024), "channels of the first convolution and of each stage", at_least=1
    )


AUDIO_SETTINGS: dict[str, type[Any]] = {
    "soundnet": SoundNetSettings,
    "spectrogram": SpectrogramSettings,
    "davenet": DavenetSettings,
    "resdavenet": ResDavenetSettings,
}
