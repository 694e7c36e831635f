"""Files that PyAV opens: sound and pictures in mp4, mkv and the like.

Their bytes come from Content and from nowhere else: a playlist in a file of another suffix would have FFmpeg open what
it names, so only demuxers that read one file are let near it.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.sound import check_channels, check_duration

DEMUXERS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,aac,ogg,mp3,wav,w64,flac,aiff,caf,amr,ac3,eac3,flv,au"
OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "none", "probesize": "20000000"}
CUT_S = 1.0  # a file whose sound or pictures end so much before its header says was cut short
FULL_SCALE = {"u8": (128, 128.0), "s16": (0, 2.0**15), "s32": (0, 2.0**31), "s64": (0, 2.0**63)}  # zero, largest

Block = NDArray[np.float32]


@contextmanager
def opened(content: Content) -> Iterator[Any]:
    """The file as PyAV's container; what it raises here and inside becomes XmrError."""
    try:
        import av
    except ModuleNotFoundError:
        raise XmrError(f'{content}: PyAV reads it and is missing; run `pip install "xmr[video]"`') from None
    try:
        with content.open() as file, av.open(file, options=OPTIONS, metadata_errors="ignore") as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        # a damaged file has FFmpeg seek to where no file has bytes, which Python does not do
        if isinstance(error, av.FFmpegError) or error.errno == errno.EINVAL:
            said = error.strerror
            raise XmrError(f"{content}: nothing that can be decoded ({said}); convert or replace it") from None
        raise


def sound_of_file(content: Content, notes: list[str]) -> tuple[int, Iterator[Block]]:
    """Its samples a second, and its sound in blocks (t, channels); XmrError where there is none, or too much."""
    blocks = _checked(content, notes)
    native_hz, first = next(blocks, (0, np.zeros((0, 1), dtype=np.float32)))
    if native_hz <= 0:
        raise XmrError(f"{content}: a sound without samples; replace the file")

    def all_blocks() -> Iterator[Block]:
        yield first
        for rate_hz, block in blocks:
            if rate_hz != native_hz:
                raise XmrError(f"{content}: changes from {native_hz} to {rate_hz} Hz; convert it to wav or flac")
            yield block

    return native_hz, all_blocks()


def _checked(content: Content, notes: list[str]) -> Iterator[tuple[int, Block]]:
    """Rates and blocks of a file that is sound alone, as long as a sound may be."""
    with opened(content) as container:
        if not container.streams.audio:
            raise XmrError(f"{content}: no sound in it; replace the file")
        promised_s = duration_s(container, container.streams.audio[0])
        check_duration(promised_s, content)
        there_s = 0.0
        for frame in decoded(container, container.streams.audio[0]):
            there_s += frame.samples / max(1, frame.sample_rate)
            check_duration(there_s, content)
            check_channels(len(frame.layout.channels), content)
            yield frame.sample_rate, samples_of(frame)
    if there_s and there_s < promised_s - CUT_S:
        notes.append(f"{content}: cut short, {there_s:.1f} of {promised_s:.1f} s are there")


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream, with what is damaged left out."""
    import av

    stream.codec_context.thread_count = 1  # there is a process a processor already
    try:
        for packet in container.demux(stream):
            try:
                yield from stream.codec_context.decode(packet if packet.size else None)
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
    except (av.error.InvalidDataError, av.error.EOFError):
        return


def duration_s(container: Any, stream: Any) -> float:
    """What its header says of a stream, or of the file; 0 where it says nothing."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def lacks_bytes(content: Content) -> bool:
    """Whether an AVI is shorter than it says."""
    with content.open() as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"AVI " and int.from_bytes(head[4:8], "little") + 8 > content.n_bytes


def samples_of(frame: Any) -> Block:
    """(t, channels) in [-1, 1] of a frame of sound, whatever its numbers are."""
    n_channels = len(frame.layout.channels)
    samples: NDArray[Any] = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, n_channels)
    zero, largest = FULL_SCALE.get(frame.format.packed.name, (0, 1.0))
    return np.asarray((samples.astype(np.float32) - zero) / largest, dtype=np.float32)
