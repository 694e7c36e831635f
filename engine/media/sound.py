"""Sounds and speech: sound files -> mono windows of float32 samples in [-1, 1] at the model's rate.

A clip shorter than the window is repeated until it fills it, or followed by silence; a longer one becomes several
windows with their times. A file is read block by block, so that a long one needs no more memory than a short one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.piece import Loaded, Piece, Stream
from xmr.engine.media.reading import Reading

if TYPE_CHECKING:  # a query in words starts without it
    import soundfile

BY_PYAV = frozenset({".m4a", ".aac", ".mka", ".wma"})
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"}) | BY_PYAV
MAX_DURATION_S = 1800.0
MAX_CHANNELS = 65
BLOCK_BYTES = 4_000_000  # of samples that are read at once
# libsndfile shortens a wav or aiff to what is there and says so in its log only: bytes promised, bytes found
CUT_SHORT = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_BYTES = 2**32 - 1  # what a program promises that streams a wav
UNKNOWN_FRAMES = 2**62  # and more: libsndfile of a flac that was streamed
UNKNOWN_TO_SOUNDFILE = (1, 4)  # its codes of a format and of an encoding that it does not read, but PyAV may

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """How a sound becomes windows of samples."""

    rate_hz: int = 22050
    window_s: float = 5.0
    hop_s: float = 5.0  # from the start of one window to that of the next, where nobody chose an overlap
    fill: Literal["repeat", "silence"] = "repeat"  # what follows a clip that is shorter than the window


def load(content: Content | Path, preprocessing: Preprocessing, reading: Reading | None = None) -> Loaded:
    """One piece per window, all at once. An empty, overlong or unreadable file raises XmrError."""
    return stream(Content.of(content), preprocessing, reading).read()


def stream(content: Content, preprocessing: Preprocessing, reading: Reading | None = None) -> Stream:
    """One piece per window, read while they are drawn, when an empty, overlong or unreadable file raises XmrError."""
    notes: list[str] = []
    return Stream(_pieces(content, preprocessing, reading, notes), notes)


def _pieces(
    content: Content, preprocessing: Preprocessing, reading: Reading | None, notes: list[str]
) -> Iterator[Piece]:
    from xmr.engine.media.container import sound_of_file

    try:
        native_hz, blocks = (sound_of_file if content.suffix in BY_PYAV else _opened)(content, notes)
    except _UnknownError as unknown:
        try:
            native_hz, blocks = sound_of_file(content, notes)
        except XmrError:
            raise unknown from None
    yield from windows(mono(blocks, native_hz, preprocessing.rate_hz, content), preprocessing, reading)


def windows(
    chunks: Iterable[Samples], preprocessing: Preprocessing, reading: Reading | None = None, first_s: float = 0.0
) -> Iterator[Piece]:
    """Pieces of mono samples at the model's rate, the first of which is heard at `first_s`.

    Windows every hop; the last one ends with the sound, so that each is full and nothing is left out.
    """
    rate, n_window = preprocessing.rate_hz, round(preprocessing.window_s * preprocessing.rate_hz)
    n_hop = max(1, round(hop_s(preprocessing, reading) * rate))
    held, held_from, start = np.zeros(0, dtype=np.float32), 0, 0  # samples, number of the first, start of a window

    def piece(window_start: int) -> Piece:
        window = held[window_start - held_from :][:n_window]
        start_s, end_s = (round(max(0.0, first_s + at / rate), 3) for at in (window_start, window_start + len(window)))
        return Piece(_filled(window, n_window, preprocessing.fill), start_s, end_s)

    for chunk in chunks:
        held = np.concatenate([held, chunk])
        while start + n_window <= held_from + len(held):
            yield piece(start)
            start += n_hop
        # the last window may begin before the next one would
        n_told = max(0, min(start - held_from, len(held) - n_window))
        held, held_from = held[n_told:], held_from + n_told
    n_samples = held_from + len(held)
    if n_samples and (start == 0 or start - n_hop + n_window < n_samples):
        yield piece(max(0, n_samples - n_window))


def hop_s(preprocessing: Preprocessing, reading: Reading | None) -> float:
    """From the start of one window of a long sound to that of the next."""
    return preprocessing.hop_s if reading is None else preprocessing.window_s * (1 - reading.overlap)


def mono(blocks: Iterable[NDArray[Any]], native_hz: int, rate_hz: int, name: object) -> Iterator[Samples]:
    """Blocks (t, channels) of float samples -> the mean of their channels at another rate; `name` is for errors."""
    import soxr

    resampler = None if native_hz == rate_hz else soxr.ResampleStream(native_hz, rate_hz, 1, dtype="float32")
    n_samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise XmrError(f"{name}: no finite samples found; replace the file")
        mixed = block.clip(-1, 1).mean(axis=1, dtype=np.float32)
        samples = mixed if resampler is None else resampler.resample_chunk(mixed)
        n_samples += len(samples)
        yield samples
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        n_samples += len(rest)
        yield rest
    if n_samples == 0:
        raise XmrError(f"{name}: shorter than one sample at {rate_hz} Hz; replace the file")


def check_duration(duration_s: float, name: object) -> None:
    if duration_s > MAX_DURATION_S:
        raise XmrError(f"{name}: {duration_s:.0f} s found, up to {MAX_DURATION_S:.0f} s are read; cut it")


def check_channels(n_channels: int, name: object) -> None:
    if n_channels > MAX_CHANNELS:
        raise XmrError(f"{name}: {n_channels} channels found, up to {MAX_CHANNELS} are read; downmix it")


def _filled(clip: Samples, n_window: int, fill: str) -> Samples:
    if fill == "repeat":
        return np.resize(clip, n_window)
    return np.pad(clip, (0, n_window - len(clip)))


class _UnknownError(XmrError):
    """A kind of sound that soundfile does not read, and another library may."""


def _opened(content: Content, notes: list[str]) -> tuple[int, Iterator[NDArray[Any]]]:
    """By soundfile: its samples a second, and blocks (t, channels) of float32 samples."""
    blocks = _blocks(content, notes)
    native_hz, first = next(blocks)
    return native_hz, (block for _, block in chain([(native_hz, first)], blocks))


def _blocks(content: Content, notes: list[str]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Each after its samples a second; a note says where the file ends before its header says so."""
    import soundfile

    try:
        with content.open() as bytes_of_file, soundfile.SoundFile(bytes_of_file) as file:
            _check(file, content)
            n_read, n_block = 0, max(1, BLOCK_BYTES // (4 * file.channels))
            while len(block := file.read(n_block, dtype="float32", always_2d=True)):
                n_read += len(block)
                check_duration(n_read / file.samplerate, content)
                yield file.samplerate, block
            n_promised, rate_hz = _promised_frames(file), file.samplerate
    except soundfile.SoundFileError as error:
        said = str(getattr(error, "error_string", error)).rstrip(".")  # without the name of the open file
        kind = _UnknownError if getattr(error, "code", None) in UNKNOWN_TO_SOUNDFILE else XmrError
        raise kind(f"{content}: no sound that can be decoded ({said}); convert it to wav or flac") from None
    if n_read == 0:
        raise XmrError(f"{content}: a sound without samples; replace the file")
    if n_read < n_promised < UNKNOWN_FRAMES:
        there, promised = n_read / rate_hz, n_promised / rate_hz
        notes.append(f"{content}: cut short, {there:.1f} of {promised:.1f} s are there")


def _check(file: "soundfile.SoundFile", content: Content) -> None:
    """What its header says is refused before it is decoded."""
    if file.frames <= 0 or file.samplerate <= 0:
        raise XmrError(f"{content}: a sound without samples; replace the file")
    check_channels(file.channels, content)
    if file.frames < UNKNOWN_FRAMES:
        check_duration(file.frames / file.samplerate, content)


def _promised_frames(file: "soundfile.SoundFile") -> int:
    """How many frames the file's header says there are."""
    cut = CUT_SHORT.search(file.extra_info)
    if cut is None or int(cut[1]) == UNKNOWN_BYTES:
        return int(file.frames)
    return round(int(file.frames) * int(cut[1]) / max(1, int(cut[2])))
