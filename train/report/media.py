"""Files as they stand in the page itself: a small picture or a few seconds of sound, in a data URI."""

import base64
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import image

THUMBNAIL = 96  # pixels, the longer side
CLIP_S, CLIP_HZ = 5.0, 16000  # of a sound that is heard
N_PEAKS = 48  # bars of a drawn sound


@dataclass(frozen=True)
class Thumbnail:
    """A picture of at most THUMBNAIL pixels a side."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Clip:
    """The first CLIP_S seconds of a sound."""

    uri: str
    duration_s: float  # of the clip
    is_cut: bool  # whether the sound goes on
    peaks: tuple[float, ...]  # (N_PEAKS,) in [0, 1], the loudest sample of each part


@lru_cache(maxsize=4096)
def thumbnail(path: Path, side: int = THUMBNAIL) -> Thumbnail:
    """The whole picture, upright, made small; XmrError where it cannot be read."""
    try:
        loaded = image.load(path, image.Preprocessing(size=side, resize="squash"))
        width, height = image.upright_size(path)
    except OSError as error:
        raise XmrError(f"{path}: cannot be read ({error.strerror or error})") from None
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = Image.fromarray(loaded.pieces[0].array).resize(size, Image.Resampling.BICUBIC)
    buffer = BytesIO()
    shown.save(buffer, "WEBP", quality=75)
    return Thumbnail(_uri("image/webp", buffer), *size)


@lru_cache(maxsize=1024)
def clip(path: Path) -> Clip:
    """A sound's beginning as it is heard, in Ogg Vorbis, or WAV where this soundfile writes no Ogg; else XmrError."""
    try:
        with soundfile.SoundFile(path) as file:
            n_wanted = round(CLIP_S * file.samplerate)
            samples = file.read(n_wanted, dtype="float32", always_2d=True).clip(-1, 1).mean(axis=1)
            is_cut, native_hz = file.frames > n_wanted, file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise XmrError(f"{path}: no sound that can be decoded ({error})") from None
    if not len(samples) or not np.isfinite(samples).all():
        raise XmrError(f"{path}: no finite samples found")
    heard = np.asarray(soxr.resample(samples, native_hz, CLIP_HZ), dtype=np.float32)
    buffer = BytesIO()
    kind, subtype = ("OGG", "VORBIS") if "OGG" in soundfile.available_formats() else ("WAV", "PCM_16")
    soundfile.write(buffer, heard, CLIP_HZ, format=kind, subtype=subtype)
    return Clip(_uri(f"audio/{kind.lower()}", buffer), len(samples) / native_hz, is_cut, _peaks(samples))


def _peaks(samples: NDArray[np.float32]) -> tuple[float, ...]:
    loudest = np.array([np.abs(part).max(initial=0) for part in np.array_split(samples, N_PEAKS)])
    return tuple((loudest / (loudest.max() or 1)).round(3).tolist())


def _uri(kind: str, buffer: BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
