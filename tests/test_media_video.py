"""Videos: which pictures are taken and for how long each stands, what is heard when, and how little is decoded."""

import gc
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Content, Piece, Reading, image, media_of, modalities_of, sound, video

av = pytest.importorskip("av")

SMALL = image.Preprocessing(size=16)
SECOND = sound.Preprocessing(rate_hz=8000, window_s=1.0, hop_s=1.0)
FPS = 25
KINDS = {
    "a.mp4": ("libx264", "aac"),
    "b.mov": ("mpeg4", "aac"),
    "c.mkv": ("libx264", "aac"),
    "d.webm": ("libvpx-vp9", "libopus"),
    "e.avi": ("mpeg4", "libmp3lame"),
    "f.mpg": ("mpeg2video", "mp2"),
    "g.mkv": ("libx265", "aac"),
}


def grey(level: int) -> NDArray[np.uint8]:
    return np.full((48, 64, 3), level, dtype=np.uint8)


def write_video(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    codec: str = "libx264",
    *,
    times: Sequence[float] | None = None,
    sounds: Sequence[tuple[float, NDArray[np.float32]]] = (),
    sound_codec: str = "aac",
) -> Path:
    """Pictures of 64x48, a keyframe a second, and stretches of mono sound at 16 kHz after their first seconds."""
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no encoder {codec} here")
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=FPS)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        track.codec_context.gop_size = FPS
        heard = file.add_stream(sound_codec, rate=16_000, layout="mono") if sounds else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (number / FPS if times is None else times[number]))
            file.mux(track.encode(frame))
        file.mux(track.encode())
        for first_s, samples in sounds:
            for start in range(0, len(samples), 1024):
                block = np.ascontiguousarray(samples[None, start : start + 1024])
                heard_now = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                heard_now.sample_rate, heard_now.time_base = 16_000, Fraction(1, 16_000)
                heard_now.pts = round(first_s * 16_000) + start
                file.mux(heard.encode(heard_now))
        if heard is not None:
            file.mux(heard.encode())
    return path


def sine(duration_s: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(duration_s * 16_000)) / 16_000)).astype(np.float32)


def seen(path: Path, frame_s: float = 1.0) -> list[Piece]:
    return video.frames(Content(path), SMALL, Reading(frame_s=frame_s)).read().pieces


def told(pieces: list[Piece]) -> list[tuple[float | None, float | None, int]]:
    """From when, until when, and the level of grey."""
    return [(piece.start_s, piece.end_s, round(float(piece.array.mean()))) for piece in pieces]


def all_frames(path: Path) -> list[tuple[float, float]]:
    """Time and level of every frame, decoded one after the other."""
    with av.open(str(path)) as file:
        track = file.streams.video[0]
        zero_s = float((track.start_time or 0) * track.time_base)
        return [(frame.time - zero_s, frame.to_ndarray(format="rgb24").mean()) for frame in file.decode(video=0)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("frame_s", [0.3, 1.0, 1.7, 10.0])
def test_the_picture_on_the_screen_is_taken_as_if_all_were_decoded(name: str, frame_s: float, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, map(grey, range(10, 200, 2)), KINDS[name][0])
    frames = all_frames(path)
    pieces = seen(path, frame_s)
    assert len(pieces) == np.ceil(frames[-1][0] / frame_s)
    for piece in pieces:
        assert piece.start_s is not None
        level = [level for time_s, level in frames if time_s <= piece.start_s + 1e-6][-1]
        assert abs(piece.array.mean() - level) < 1
    assert [piece.end_s for piece in pieces[:-1]] == [piece.start_s for piece in pieces[1:]]


@pytest.mark.parametrize("name", KINDS)
def test_the_picture_at_a_second_is_what_is_on_the_screen_then(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, map(grey, range(10, 200, 2)), KINDS[name][0])
    frames = all_frames(path)
    for second in (0.0, 0.5, 1.0, 2.345, 3.0, frames[-1][0], 1000.0):
        level = [level for time_s, level in frames if time_s <= second + 1e-3][-1]
        assert abs(np.asarray(video.picture_at(Content(path), second)).mean() - level) < 1, second


def test_of_a_sound_there_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=16_000, layout="mono")
        heard = av.AudioFrame.from_ndarray(sine(1.0)[None, :1024], "fltp", "mono")
        heard.sample_rate = 16_000
        file.mux(track.encode(heard))
        file.mux(track.encode())
    with pytest.raises(XmrError, match="sound alone; choose a video with pictures"):
        video.picture_at(Content(path), 0.0)


def test_a_picture_that_stays_is_one_piece_with_all_its_time(tmp_path: Path) -> None:
    times = [0, 0.04, 2.5, 2.54, 7.2, 7.24]
    path = write_video(tmp_path / "a.mkv", map(grey, (0, 40, 80, 120, 160, 200)), times=times)
    levels = told(seen(path))
    assert [(start, end) for start, end, _ in levels[:3]] == [(0, 1), (1, 3), (3, 7.28)]
    np.testing.assert_allclose([level for *_, level in levels], [0, 40, 120], atol=3)


def test_stretches_without_a_wanted_picture_are_not_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(number % 200) for number in range(20 * FPS)])
    with av.open(str(path)) as file:
        track = file.streams.video[0]
        n_decoded = sum(1 for _ in video._Wanted(file, track, 10.0, 0.0).decoded())
    assert n_decoded < 3 * FPS
    assert len(seen(path, 10.0)) == 2


def test_pictures_come_before_the_video_is_at_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(grey, range(200)))
    stream = video.frames(Content(path), SMALL, Reading(frame_s=0.1))
    first = next(stream.pieces)
    assert (first.start_s, first.end_s) == (0, 0.1)
    stream.pieces.close()  # type: ignore[attr-defined]


def test_no_picture_outlives_its_turn(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(grey, range(3 * FPS)))

    def n_held() -> int:
        return sum(isinstance(held, av.VideoFrame) for held in gc.get_objects())

    gc.collect()
    gc.disable()  # what only the collector frees would wait for it, each picture with its pixels
    try:
        before = n_held()
        n_while = [n_held() for _ in video.frames(Content(path), SMALL, Reading(frame_s=0.1)).pieces]
    finally:
        gc.enable()
    assert len(n_while) > 25
    assert max(n_while) <= before + 5  # the one before, the one that follows, and those that the decoder has ready
    assert n_while[-1] <= n_while[0]


MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda array: array),
    "a quarter to the right": ((0, 1, -1, 0), lambda array: np.rot90(array, -1)),
    "a quarter to the left": ((0, -1, 1, 0), np.rot90),
    "on its head": ((-1, 0, 0, -1), lambda array: np.rot90(array, 2)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_a_video_is_turned_upright_as_its_matrix_says(turn: str, tmp_path: Path) -> None:
    (a, b, c, d), upright = MATRICES[turn]
    corner = grey(0)
    corner[:24, :32] = 255
    path = write_video(tmp_path / "a.mp4", [corner] * 5)
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:at] + matrix + content[at + 36 :])
    [piece] = seen(path)
    expected = squared(upright(corner))
    assert np.abs(piece.array.astype(int) - expected).mean() < 8


def squared(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    from PIL import Image

    return image.squared(Image.fromarray(np.ascontiguousarray(pixels)), SMALL).astype(np.int64)


@pytest.mark.parametrize("name", ["a.mp4", "d.webm", "e.avi", "f.mpg"])
def test_the_sound_track_becomes_windows_with_their_times(name: str, tmp_path: Path) -> None:
    codec, sound_codec = KINDS[name]
    if sound_codec not in av.codecs_available:
        pytest.skip(f"PyAV has no encoder {sound_codec} here")
    path = write_video(tmp_path / name, [grey(9)] * 3 * FPS, codec, sounds=[(0.0, sine(3.0))], sound_codec=sound_codec)
    pieces = video.sounds(Content(path), SECOND, Reading(overlap=0.5)).read().pieces
    starts = [piece.start_s or 0.0 for piece in pieces]
    np.testing.assert_allclose(starts[:5], [0, 0.5, 1, 1.5, 2], atol=0.06)
    assert all(len(piece.array) == 8000 for piece in pieces)
    assert np.abs(pieces[2].array).max() == pytest.approx(0.5, abs=0.1)


def test_windows_begin_anew_after_a_gap_in_the_sound_track(tmp_path: Path) -> None:
    sounds = [(0.0, sine(1.024)), (5.0, sine(1.024))]
    path = write_video(tmp_path / "a.mkv", [grey(9)] * 7 * FPS, sounds=sounds, sound_codec="pcm_s16le")
    pieces = video.sounds(Content(path), SECOND).read().pieces
    starts = [round(piece.start_s or 0.0, 1) for piece in pieces]
    assert starts == [0.0, 0.0, 5.0, 5.0]


def test_a_silent_video_has_no_sound_and_a_sound_no_pictures_and_neither_is_an_error(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "a.mp4", [grey(9)] * FPS)
    assert video.sounds(Content(silent), SECOND).read().pieces == []
    blind = tmp_path / "b.mp4"
    with av.open(str(blind), "w") as file:
        track = file.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(sine(1.0)[None, :1024], "fltp", "mono")
        frame.sample_rate = 16_000
        file.mux(track.encode(frame))
        file.mux(track.encode())
    assert seen(blind) == []
    assert len(video.sounds(Content(blind), SECOND).read().pieces) == 1


def test_a_video_is_read_in_an_archive(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(grey, range(100)))
    content, archive = path.read_bytes(), tmp_path / "a.tar"
    archive.write_bytes(b"x" * 512 + content + b"y" * 999)
    member = Content(archive / "a.mp4", archive, 512, len(content))
    inside = MODALITIES["image"].load(member, SMALL)
    assert told(inside.pieces) == told(seen(path))


def test_what_pyav_reads_is_mixed_as_what_soundfile_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stereo = (rng.integers(-20_000, 20_000, (16_000, 2))).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", stereo, 16_000)
    with av.open(str(tmp_path / "a.mka"), "w") as file:
        track = file.add_stream("flac", rate=16_000, layout="stereo")
        for start in range(0, 16_000, 4000):
            block = np.ascontiguousarray(stereo[start : start + 4000].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, "s16", "stereo")
            frame.sample_rate, frame.pts = 16_000, start
            file.mux(track.encode(frame))
        file.mux(track.encode())
    [theirs], [ours] = (sound.load(tmp_path / name, SECOND).pieces for name in ("a.mka", "a.wav"))
    np.testing.assert_array_equal(theirs.array, ours.array)


@pytest.mark.parametrize(("suffix", "kind"), [("m4a", "mp4"), ("aac", "adts")])
def test_sounds_that_soundfile_does_not_read_are_read(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w", format=kind) as file:
        track = file.add_stream("aac", rate=16_000)
        samples = sine(2.048)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            file.mux(track.encode(frame))
        file.mux(track.encode())
    window = sound.load(path, SECOND).pieces[1].array
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window))))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


def test_a_video_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    path = write_video(tmp_path / "a.mp4", [grey(9)] * 3)
    with pytest.raises(XmrError, match=r"a\.mp4: 64x48 pixels found, videos up to .* make it smaller"):
        seen(path)


def test_videos_are_read_as_what_is_seen_and_what_is_heard() -> None:
    assert media_of(["image"]) == {"image", "video"}
    assert media_of(["sound", "text"]) == {"audio", "video", "text"}
    assert modalities_of(["image", "sound", "text"], "video") == ["image", "sound"]
    assert modalities_of(["text"], "video") == []


def unit(vector: NDArray[Any]) -> NDArray[Any]:
    return vector / np.linalg.norm(vector)


def test_a_video_is_embedded_as_the_mean_of_its_pictures(exported: Path, tmp_path: Path) -> None:
    from xmr.engine.model import Model

    model = Model.open(exported, "cpu")
    path = write_video(tmp_path / "a.mp4", map(grey, range(0, 200, 2)))
    pieces = MODALITIES["image"].load(path, model.preprocessing["image"], Reading(frame_s=0.5)).pieces
    rows = model.embed_arrays("image", [piece.array for piece in pieces])
    np.testing.assert_allclose(model.embed_video(path, Reading(frame_s=0.5)), unit(rows.mean(axis=0)), atol=1e-5)
