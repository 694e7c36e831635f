"""Videos as pairs: every five seconds the picture in the middle and the sound around it, as Aytar et al. 2017 do it.

A video is decoded once, on a worker process of its own, and what came of it stays in the cache.
"""

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as VideoTimeout
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media.decode import MEMORY_BYTES
from xmr.engine.media.image import MAX_PIXELS
from xmr.train.datasets.layout import files_under
from xmr.train.datasets.packages import need
from xmr.train.datasets.rows import Note, Row, named_or_hashed, split_of_folder
from xmr.train.datasets.unpacked import contents_of, folder_of, unpacked

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".3gp", ".ogv"})
WINDOW_S = 5.0
STILL_S = 1.0  # a video's last picture is taken to stand for so long
RESYNC_S = 0.05  # times of sound that are off by less are rounding
TIMEOUT_S = 3600.0  # for one video
JPEG_QUALITY = 92
# files only, and no lists of other files: what a video names is not opened
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,ogg,asf",
}
SILENT = "no sound track"

Samples = NDArray[np.float32]


def read_videos(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row a window of five seconds: its middle picture and its sound, decoded below `cache`.

    What is left over at the end of a video is left out; a shorter one is one window. All windows of a video are in one
    split: that of a first folder named for one, else every 20th video is val. Videos without sound pair nothing.
    """
    root = source.resolve()
    paths = [root] if root.is_file() else [path for path in files_under(root) if _is_video(path)]
    if not paths:
        raise XmrError(f"{source}: no video in it; there are {' '.join(sorted(SUFFIXES))}")
    failed = _decode_all([path for path in paths if contents_of(folder_of(path, cache, _unpack)) is None], cache)
    keys = [path.relative_to(root) for path in paths] if root.is_dir() else [Path(root.name)]
    splits = named_or_hashed([split_of_folder(key) for key in keys], [key.as_posix() for key in keys])
    rows, silent = [], []
    for path, split in zip(paths, splits, strict=True):
        folder, found = (path, failed[path]) if path in failed else unpacked(path, cache, _unpack)
        if found["problem"] == SILENT:
            silent.append(path)
        elif found["problem"]:
            note(f"videos: {path}: {found['problem']}; it is left out")
        rows += [_row(path, folder, start_s, split) for start_s in found["starts_s"]]
    if silent:
        note(f"videos: {len(silent)} of {len(paths)} have no sound track, such as {silent[0]}; they pair nothing")
    return rows


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _row(path: Path, folder: Path, start_s: float, split: str) -> Row:
    stem = _stem(start_s)
    return Row(f"{path}#{start_s:g}s", split, files={"image": folder / f"{stem}.jpg", "sound": folder / f"{stem}.wav"})


def _stem(start_s: float) -> str:
    """The name of a window's files: its start in milliseconds."""
    return f"{round(1000 * start_s):010d}"


def _decode_all(paths: Sequence[Path], cache: Path | None) -> dict[Path, dict[str, Any]]:
    """Unpack the videos on worker processes; what is to be said of those whose worker died or took too long."""
    if not paths:
        return {}
    need("av", "video", paths[0])
    failed: dict[Path, dict[str, Any]] = {}
    n_workers = max(1, (os.cpu_count() or 2) - 1)
    # spawn: a forked worker would inherit the locks of the parent's runtime threads
    pool = ProcessPool(n_workers, initializer=_start_worker, context=multiprocessing.get_context("spawn"))
    try:
        with terminal.progress_bar("videos") as show:
            futures = [pool.schedule(_decode_one, args=(path, cache), timeout=TIMEOUT_S) for path in paths]
            for number, (path, future) in enumerate(zip(paths, futures, strict=True), start=1):
                if problem := _problem_of(future):
                    failed[path] = {"starts_s": [], "problem": problem}
                show(number, len(paths))
        pool.close()  # type: ignore[no-untyped-call]
    except BaseException:
        pool.stop()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.join()
    return failed


def _problem_of(future: Any) -> str | None:
    """What kept a worker from unpacking its video; an XmrError, of a full disk, goes on up."""
    try:
        future.result()
    except VideoTimeout:
        return f"not decoded within {TIMEOUT_S:.0f} s"
    except ProcessExpired as error:
        return f"its decoder crashed (exit code {error.exitcode})"
    return None


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _decode_one(path: Path, cache: Path | None) -> None:
    unpacked(path, cache, _unpack)


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Write picture and sound of every window; their starts, or why there are none."""
    try:
        return {"starts_s": _write_windows(path, folder), "problem": None}
    except XmrError as error:
        problem = str(error)
    except OSError as error:
        if not type(error).__module__.startswith("av"):  # the disk's fault, not the video's
            raise
        problem = f"cannot be decoded ({error.strerror})"
    except MemoryError:  # another time there may be room
        raise
    except Exception as error:  # decoders meet damaged files with any exception at all
        problem = f"cannot be decoded ({type(error).__name__}: {error})"
    for left_over in folder.iterdir():
        left_over.unlink()
    return {"starts_s": [], "problem": problem}


def _write_windows(path: Path, folder: Path) -> list[float]:
    import av

    with av.open(str(path), options=OPTIONS) as container:
        if not container.streams.video:
            raise XmrError("no pictures")
        if not container.streams.audio:
            raise XmrError(SILENT)
        picture = container.streams.video[0]
        if picture.width * picture.height >= MAX_PIXELS:
            raise XmrError(f"{picture.width}x{picture.height} pixels, less than {MAX_PIXELS / 1e6:.0f} Mpx are read")
        zero_s = float((picture.start_time or 0) * (picture.time_base or 0))
        durations_s = _write_sounds(container, zero_s, folder)
    if not durations_s:
        raise XmrError(SILENT)
    middles_s = [number * WINDOW_S + duration_s / 2 for number, duration_s in enumerate(durations_s)]
    with av.open(str(path), options=OPTIONS) as container:
        n_pictures = _write_pictures(container, zero_s, middles_s, folder)
    if n_pictures == 0:
        raise XmrError("no picture that stands beside its sound")
    for number in range(n_pictures, len(durations_s)):
        (folder / f"{_stem(number * WINDOW_S)}.wav").unlink()
    return [number * WINDOW_S for number in range(n_pictures)]


def _write_sounds(container: Any, zero_s: float, folder: Path) -> list[float]:
    """Mono 16-bit wavs of the windows, at the track's own rate; their durations in seconds."""
    rate_hz = container.streams.audio[0].rate
    durations_s: list[float] = []
    for window in _windows(_in_time(container, rate_hz, zero_s), round(WINDOW_S * rate_hz)):
        path = folder / f"{_stem(len(durations_s) * WINDOW_S)}.wav"
        levels = np.round(window * 32768).clip(-32768, 32767).astype(np.int16)
        soundfile.write(path, levels, rate_hz, subtype="PCM_16")
        durations_s.append(len(window) / rate_hz)
    return durations_s


def _windows(chunks: Iterator[Samples], n_window: int) -> Iterator[Samples]:
    """Full windows of a stream of samples; what there is of the first one, where it is not full."""
    pending = np.zeros(0, dtype=np.float32)
    is_first = True
    for chunk in chunks:
        pending = np.concatenate([pending, chunk])
        while len(pending) >= n_window:
            yield pending[:n_window]
            pending, is_first = pending[n_window:], False
    if is_first and len(pending):
        yield pending


def _in_time(container: Any, rate_hz: int, zero_s: float) -> Iterator[Samples]:
    """The samples from the first picture on: silence where the track has a gap, nothing twice where it overlaps."""
    n_given = 0
    for frame in _planes(container):
        samples = frame.to_ndarray().mean(axis=0, dtype=np.float32)
        place = n_given if frame.time is None else round((frame.time - zero_s) * rate_hz)
        if abs(place - n_given) <= RESYNC_S * rate_hz:
            place = n_given
        samples = samples[max(0, n_given - place) :]
        if len(samples):
            silence = np.zeros(max(0, place - n_given), dtype=np.float32)
            yield np.concatenate([silence, samples])
            n_given += len(silence) + len(samples)


def _planes(container: Any) -> Iterator[Any]:
    """The sound's frames as planes of float, with all channels: the resampler's own downmix is too loud."""
    import av

    resampler = av.AudioResampler(format="fltp")
    for frame in container.decode(audio=0):
        yield from resampler.resample(frame)


def _write_pictures(container: Any, zero_s: float, middles_s: Sequence[float], folder: Path) -> int:
    """A JPEG of what is shown in the middle of each window; the number of those that the video has."""
    shown, shown_s, n_written = None, 0.0, 0
    for frame in container.decode(video=0):
        if frame.time is None:
            continue
        frame_s = frame.time - zero_s
        while n_written < len(middles_s) and middles_s[n_written] < frame_s:
            _save(shown or frame, folder, n_written)
            n_written += 1
        if n_written == len(middles_s):
            return n_written
        shown, shown_s = frame, frame_s
    if shown is not None and middles_s[n_written] <= shown_s + STILL_S:
        _save(shown, folder, n_written)
        n_written += 1
    return n_written


def _save(frame: Any, folder: Path, number: int) -> None:
    """Upright: phones write how the picture is to be turned."""
    picture = frame.to_image(threads=1)
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    picture.save(folder / f"{_stem(number * WINDOW_S)}.jpg", quality=JPEG_QUALITY)
