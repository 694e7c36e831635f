"""Sounds and speech: any file soundfile reads -> mono windows of float32 samples in [-1, 1] at the model's rate.

A clip shorter than the window is repeated until it fills it, or followed by silence; a longer one becomes several
windows with their times.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.piece import Loaded, Piece

if TYPE_CHECKING:  # a query in words starts without it
    import soundfile

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
MAX_DURATION_S = 1800.0
MAX_CHANNELS = 65
# libsndfile shortens a wav or aiff to what is there and says so in its log only: bytes promised, bytes found
CUT_SHORT = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_BYTES = 2**32 - 1  # what a program promises that streams a wav

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """How a sound becomes windows of samples."""

    rate_hz: int = 22050
    window_s: float = 5.0
    hop_s: float = 5.0  # from the start of one window to that of the next
    fill: Literal["repeat", "silence"] = "repeat"  # what follows a clip that is shorter than the window


def load(path: Path, preprocessing: Preprocessing) -> Loaded:
    """One piece per window. An empty, overlong or unreadable file raises XmrError."""
    samples, notes = _read_mono(path, preprocessing.rate_hz)
    rate = preprocessing.rate_hz
    n_window = round(preprocessing.window_s * rate)
    starts = _window_starts(len(samples), n_window, round(preprocessing.hop_s * rate))
    pieces = []
    for start in starts:
        window = samples[start : start + n_window]
        end = start + len(window)
        filled = _filled(window, n_window, preprocessing.fill)
        pieces.append(Piece(filled, start_s=round(start / rate, 3), end_s=round(end / rate, 3)))
    return Loaded(pieces, notes)


def _filled(clip: Samples, n_window: int, fill: str) -> Samples:
    if fill == "repeat":
        return np.resize(clip, n_window)
    return np.pad(clip, (0, n_window - len(clip)))


def _read_mono(path: Path, rate_hz: int) -> tuple[Samples, list[str]]:
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames <= 0 or file.samplerate <= 0:
                raise XmrError(f"{path}: a sound without samples; replace the file")
            if file.channels > MAX_CHANNELS:
                raise XmrError(f"{path}: {file.channels} channels found, up to {MAX_CHANNELS} are read; downmix it")
            duration_s = file.frames / file.samplerate
            if duration_s > MAX_DURATION_S:
                raise XmrError(f"{path}: {duration_s:.0f} s found, up to {MAX_DURATION_S:.0f} s are read; cut it")
            channels = file.read(dtype="float32", always_2d=True)
            native_hz, n_promised = file.samplerate, _promised_frames(file)
    except soundfile.SoundFileError as error:
        raise XmrError(f"{path}: no sound that can be decoded ({error}); convert it to wav or flac") from None
    if len(channels) == 0 or not np.isfinite(channels).all():
        raise XmrError(f"{path}: no finite samples found; replace the file")
    notes = []
    if len(channels) < n_promised:
        notes.append(f"{path}: cut short, {len(channels) / native_hz:.1f} of {n_promised / native_hz:.1f} s are there")
    mono = channels.clip(-1, 1).mean(axis=1)
    if native_hz != rate_hz:
        mono = soxr.resample(mono, native_hz, rate_hz)
    if len(mono) == 0:
        raise XmrError(f"{path}: shorter than one sample at {rate_hz} Hz; replace the file")
    return np.ascontiguousarray(mono, dtype=np.float32), notes


def _promised_frames(file: "soundfile.SoundFile") -> int:
    """How many frames the file's header says there are."""
    cut = CUT_SHORT.search(file.extra_info)
    if cut is None or int(cut[1]) == UNKNOWN_BYTES:
        return int(file.frames)
    return round(int(file.frames) * int(cut[1]) / max(1, int(cut[2])))


def _window_starts(n_samples: int, n_window: int, n_hop: int) -> list[int]:
    """Windows every hop; the last one ends with the sound, so that each is full and nothing is left out."""
    if n_samples <= n_window:
        return [0]
    starts = list(range(0, n_samples - n_window + 1, n_hop))
    if starts[-1] + n_window < n_samples:
        starts.append(n_samples - n_window)
    return starts
