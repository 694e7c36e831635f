"""From files to arrays: what is read of good files, and what is said of bad ones."""

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Reading, image, medium_of, sound, text

AS_IS = image.Preprocessing(size=8)
RATE_HZ = 8000
SECOND = sound.Preprocessing(rate_hz=RATE_HZ, window_s=1.0, hop_s=1.0)
WORDS = text.Preprocessing(max_words=4, vocabulary=("dog", "barks", "don't", "été"))


def pixels(path: Path, preprocessing: image.Preprocessing = AS_IS) -> NDArray[np.uint8]:
    [piece] = image.load(path, preprocessing).pieces
    assert piece.array.dtype == np.uint8
    return piece.array


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


def plain(color: object, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (8, 8), color)


def noise_picture(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def bare_png(width: int, height: int) -> bytes:
    """A grey PNG of the given size whose pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)), struct.pack(">I", 9) + b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# images


def test_a_picture_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    picture = noise_picture(8)
    np.testing.assert_array_equal(pixels(saved(picture, tmp_path / "a.png")), np.asarray(picture))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda array: array),
        (2, np.fliplr),
        (3, lambda array: np.rot90(array, 2)),
        (4, np.flipud),
        (6, lambda array: np.rot90(array, -1)),
        (8, np.rot90),
    ],
)
def test_a_picture_is_turned_upright_as_its_exif_says(
    orientation: int, upright: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], tmp_path: Path
) -> None:
    picture, exif = noise_picture(8), Image.Exif()
    exif[0x0112] = orientation
    path = saved(picture, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels(path), upright(np.asarray(picture)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_upper_eight(suffix: str, tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    path = saved(Image.fromarray(deep), tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels(path), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (plain((200, 0, 0, 0), "RGBA"), (255, 255, 255)),
        (plain((200, 0, 0, 255), "RGBA"), (200, 0, 0)),
        (plain((0, 0, 0, 128), "RGBA"), (127, 127, 127)),
        (plain((50, 0), "LA"), (255, 255, 255)),
        (plain((50, 255), "LA"), (50, 50, 50)),
        (plain(90, "L"), (90, 90, 90)),
        (plain(1, "1"), (255, 255, 255)),
        (plain((10, 20, 30)).quantize(4), (10, 20, 30)),
    ],
    ids=["clear", "opaque", "half clear", "clear grey", "opaque grey", "grey", "black and white", "palette"],
)
def test_every_colour_mode_becomes_rgb_over_white(
    picture: Image.Image, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    found = pixels(saved(picture, tmp_path / "a.png"))
    np.testing.assert_array_equal(found, np.broadcast_to(np.uint8(expected), (8, 8, 3)))


def test_a_clear_colour_of_a_palette_becomes_white(tmp_path: Path) -> None:
    picture = plain((10, 20, 30)).quantize(4)
    path = saved(picture, tmp_path / "a.png", transparency=picture.getpixel((0, 0)))
    assert (pixels(path) == 255).all()


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = saved(plain((0, 255, 255, 0), "CMYK"), tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels(path).astype(int), np.broadcast_to((255, 0, 0), (8, 8, 3)), atol=3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_is_read(suffix: str, tmp_path: Path) -> None:
    frames = [plain("red"), plain("lime"), plain("blue")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_allclose(pixels(path).astype(int), np.broadcast_to((255, 0, 0), (8, 8, 3)), atol=1)


def test_squash_takes_the_whole_picture_and_crop_its_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 255
    path = saved(Image.fromarray(wide), tmp_path / "a.png")
    assert (pixels(path, image.Preprocessing(8, "crop")) == 255).all()
    squashed = pixels(path, image.Preprocessing(8, "squash"))
    assert (squashed[:, 0] == 0).all()
    assert (squashed[:, -1] == 0).all()
    assert (squashed[:, 3:5] > 200).all()


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (64, 64)])
def test_a_margin_is_cut_off_every_side_of_the_centre_square(width: int, height: int, tmp_path: Path) -> None:
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - 64) // 2 + 4, (width - 64) // 2 + 4  # 4 of 64: 1 / 16
    picture[top : top + 56, left : left + 56] = 255
    path = saved(Image.fromarray(picture), tmp_path / "a.png")
    assert (pixels(path, image.Preprocessing(56, "crop", margin=0.0625)) == 255).all()
    assert (pixels(path, image.Preprocessing(56, "crop", margin=0.05))[0] < 255).all()
    assert (pixels(path, image.Preprocessing(56, "crop"))[0] < 128).all()


def test_a_margin_is_what_a_centre_crop_leaves_out_after_resizing(tmp_path: Path) -> None:
    smooth = noise_picture(12).resize((96, 80), Image.Resampling.BICUBIC)
    path = saved(smooth, tmp_path / "a.png")
    resized = smooth.resize((round(96 * 32 / 80), 32), Image.Resampling.BICUBIC)  # the shorter side to 32
    expected = np.asarray(resized)[2:30, 5:33].astype(int)  # of which the centre 28
    # resized once and not twice over, so that pixels fall a little beside those of the crop
    assert np.abs(pixels(path, image.Preprocessing(28, "crop", margin=0.0625)).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_picture_cut_short_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = saved(noise_picture(), tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(XmrError, match=r"a\.\w+: (damaged image|no image)"):
        image.load(path, AS_IS)


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (20_000, 20_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bare_png(width, height))  # decoding it would say that it is cut short
    with pytest.raises(XmrError, match=r"pixels"):
        image.load(path, AS_IS)


def test_avif_is_read(tmp_path: Path) -> None:
    path = saved(plain((200, 30, 30)), tmp_path / "a.avif", quality=100)
    np.testing.assert_allclose(pixels(path).astype(int), np.broadcast_to((200, 30, 30), (8, 8, 3)), atol=3)


def test_heic_is_read_where_its_library_is_there(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    path = saved(Image.new("RGB", (64, 64), (200, 30, 30)), tmp_path / "a.heic")
    np.testing.assert_allclose(pixels(path).astype(int), np.broadcast_to((200, 30, 30), (8, 8, 3)), atol=5)


def test_heic_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(XmrError, match=r'pillow-heif, which is missing; run `pip install "xmr\[heic\]"` or convert it'):
        image.load(tmp_path / "a.heic", AS_IS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
def test_a_large_picture_is_made_rgb_as_a_small_one(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise_picture()
    if mode == "I;16":
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 65_536, (64, 64)).astype(np.uint16))
    elif mode == "RGBA":
        picture.putalpha(noise_picture().convert("L"))
    else:
        picture = picture.convert(mode)
    path = saved(picture, tmp_path / "a.tif")
    whole = pixels(path)
    monkeypatch.setattr(image, "BAND_PIXELS", 200)  # three rows
    np.testing.assert_array_equal(pixels(path), whole)


def test_a_picture_of_many_bytes_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(image.MAX_BYTES + 1_000_000)
    with pytest.raises(XmrError, match="65 MB found, images up to 64 MB are read"):
        image.load(path, AS_IS)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a" + b"\xff" * 99]
)
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(XmrError, match=r"a\.png: (no image that Pillow can read|damaged image)"):
        image.load(path, AS_IS)


# sounds


def write_sound(path: Path, samples: NDArray[np.float32], rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


def sine(frequency_hz: float, duration_s: float, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def loudest_hz(samples: NDArray[np.float32], rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


def windows(path: Path, preprocessing: sound.Preprocessing = SECOND) -> list[NDArray[np.float32]]:
    return [piece.array for piece in sound.load(path, preprocessing).pieces]


def test_channels_are_mixed_by_their_mean(tmp_path: Path) -> None:
    left, right = sine(440, 1), sine(1000, 1)
    [window] = windows(write_sound(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    assert window.dtype == np.float32
    np.testing.assert_allclose(window, (left + right) / 2, atol=1e-7)


def test_samples_beyond_full_scale_are_clipped_before_mixing(tmp_path: Path) -> None:
    loud = np.tile(np.float32([3, -0.5]), (RATE_HZ, 1))
    [window] = windows(write_sound(tmp_path / "a.wav", loud, subtype="FLOAT"))
    np.testing.assert_array_equal(window, np.full(RATE_HZ, 0.25, dtype=np.float32))


@pytest.mark.parametrize("native_hz", [4000, 11025, 22050, 44100, 96000])
def test_resampling_keeps_a_sine_where_and_as_loud_as_it_was(native_hz: int, tmp_path: Path) -> None:
    [window] = windows(write_sound(tmp_path / "a.wav", sine(440, 1, native_hz), native_hz, "FLOAT"))
    assert len(window) == RATE_HZ
    assert loudest_hz(window, RATE_HZ) == pytest.approx(440, abs=1)
    assert np.abs(window[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_every_kind_of_sound_file_is_read(suffix: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / f"a.{suffix}", sine(440, 1, 22050), 22050)
    assert loudest_hz(windows(path)[0], RATE_HZ) == pytest.approx(440, abs=1)
    assert medium_of(path) == "audio"


@pytest.mark.parametrize("n_samples", [1, 3000, 7999])
def test_a_short_clip_is_repeated_until_it_fills_the_window(n_samples: int, tmp_path: Path) -> None:
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, n_samples).astype(np.float32)
    [piece] = sound.load(write_sound(tmp_path / "a.wav", clip, subtype="FLOAT"), SECOND).pieces
    np.testing.assert_array_equal(piece.array, np.tile(clip, RATE_HZ)[:RATE_HZ])
    assert (piece.start_s, piece.end_s) == (0, round(n_samples / RATE_HZ, 3))


@pytest.mark.parametrize("n_samples", [1, 3000, 7999, 8000])
def test_a_short_clip_is_followed_by_silence_where_asked_to(n_samples: int, tmp_path: Path) -> None:
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, n_samples).astype(np.float32)
    preprocessing = sound.Preprocessing(RATE_HZ, 1.0, 1.0, fill="silence")
    [piece] = sound.load(write_sound(tmp_path / "a.wav", clip, subtype="FLOAT"), preprocessing).pieces
    np.testing.assert_array_equal(piece.array, np.append(clip, np.zeros(RATE_HZ - n_samples)))
    assert piece.array.dtype == np.float32
    assert (piece.start_s, piece.end_s) == (0, round(n_samples / RATE_HZ, 3))


@pytest.mark.parametrize(
    ("duration_s", "hop_s", "starts_s"),
    [
        (1.0, 1.0, [0]),
        (2.0, 1.0, [0, 1]),
        (2.3, 1.0, [0, 1, 1.3]),
        (2.3, 0.5, [0, 0.5, 1, 1.3]),
        (1.001, 1.0, [0, 0.001]),
        (3.0, 2.0, [0, 2]),
    ],
)
def test_a_long_sound_becomes_windows_the_last_of_which_ends_with_it(
    duration_s: float, hop_s: float, starts_s: list[float], tmp_path: Path
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * RATE_HZ)).astype(np.float32)
    path = write_sound(tmp_path / "a.wav", samples, subtype="FLOAT")
    pieces = sound.load(path, sound.Preprocessing(RATE_HZ, 1.0, hop_s)).pieces
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [(start, round(start + 1, 3)) for start in starts_s]
    for piece, start in zip(pieces, starts_s, strict=True):
        first = round(start * RATE_HZ)
        np.testing.assert_array_equal(piece.array, samples[first : first + RATE_HZ])


@pytest.mark.parametrize(("overlap", "hop_s"), [(0.0, 1.0), (0.5, 0.5), (0.75, 0.25)])
def test_windows_overlap_as_the_reading_says(overlap: float, hop_s: float, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(440, 3))
    pieces = sound.load(path, SECOND, Reading(overlap=overlap)).pieces
    assert [piece.start_s for piece in pieces] == list(np.arange(0, 2 + hop_s, hop_s))


@pytest.mark.parametrize("native_hz", [8000, 11_025, 44_100])
def test_a_sound_read_in_blocks_is_the_same_as_at_once(
    native_hz: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(3.3 * native_hz), 2)).astype(np.float32)
    path = write_sound(tmp_path / "a.wav", samples, native_hz, "FLOAT")
    whole = windows(path)
    monkeypatch.setattr(sound, "BLOCK_BYTES", 8000)
    np.testing.assert_array_equal(windows(path), whole)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "said"),
    [
        (np.zeros(0), RATE_HZ, "a sound without samples"),
        (np.full(100, np.nan), RATE_HZ, "no finite samples"),
        (np.array([0, 0.1, np.inf]), RATE_HZ, "no finite samples"),
        (np.zeros(1801), 1, "1801 s found, up to 1800 s are read"),
        (np.zeros((10, 66)), RATE_HZ, "66 channels found, up to 65 are read"),
        (np.zeros(1), 1_000_000, "shorter than one sample at 8000 Hz"),
    ],
    ids=["empty", "NaN", "infinite", "long", "channels", "short"],
)
def test_a_sound_that_cannot_be_used_is_refused(
    samples: NDArray[np.float64], rate_hz: int, said: str, tmp_path: Path
) -> None:
    path = write_sound(tmp_path / "a.wav", samples.astype(np.float32), rate_hz, "FLOAT")
    with pytest.raises(XmrError, match=rf"a\.wav: .*{said}"):
        sound.load(path, SECOND)


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC" + b"\0" * 60])
def test_what_is_no_sound_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(XmrError, match=r"a\.wav: (no sound that can be decoded|a sound without samples)"):
        sound.load(path, SECOND)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "mp3"])
def test_a_sound_cut_short_is_used_as_far_as_it_reads_and_says_so(suffix: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / f"a.{suffix}", sine(440, 3, 22050), 22050)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loaded = sound.load(path, SECOND)
    assert loudest_hz(loaded.pieces[0].array, RATE_HZ) == pytest.approx(440, abs=2)
    [note] = loaded.notes
    assert f"a.{suffix}: cut short, 1." in note
    assert "of 3.0 s are there" in note


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_a_sound_cut_before_its_first_block_ends_is_refused(suffix: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / f"a.{suffix}", sine(440, 3, 22050), 22050)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(XmrError, match=rf"a\.{suffix}: (no sound that can be decoded|a sound without samples)"):
        sound.load(path, SECOND)


def test_a_whole_sound_and_one_of_unknown_length_carry_no_note(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(440, 1))
    assert sound.load(path, SECOND).notes == []
    content = path.read_bytes()
    sizes_start = content.index(b"data") + 4
    streamed = content[:4] + b"\xff" * 4 + content[8:sizes_start] + b"\xff" * 4 + content[sizes_start + 4 :]
    path.write_bytes(streamed)  # as a program writes it that does not know yet how much will follow
    assert sound.load(path, SECOND).notes == []


# text


def lines(path: Path, content: bytes) -> tuple[list[tuple[int | None, str | None, list[int]]], list[str]]:
    path.write_bytes(content)
    loaded = text.load(path, WORDS)
    return [(piece.line, piece.text, piece.array.tolist()) for piece in loaded.pieces], loaded.notes


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A dog barks.", ["a", "dog", "barks"]),
        ("DON'T stop!", ["don't", "stop"]),
        ("snake_case, two-part", ["snake", "case", "two", "part"]),
        ("Été 2024", ["été", "2024"]),
        ("'quoted'", ["quoted"]),
        ("  ... --- ", []),
    ],
)
def test_words_are_lower_case_without_punctuation(sentence: str, expected: list[str]) -> None:
    assert text.words(sentence) == expected


def test_unknown_words_are_left_out_and_known_ones_count_from_one() -> None:
    ids = text.encode("the Dog never barks, don't ask in été", WORDS)
    assert ids.tolist() == [1, 2, 3, 4]
    assert ids.dtype == np.int64


def test_only_the_first_known_words_are_kept() -> None:
    assert text.encode("x dog y barks dog dog barks barks", WORDS).tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("marks", "max_words", "sentence", "expected"),
    [
        (("<unk>",), 4, "the dog never barks", [3, 1, 3, 2]),
        (("<unk>",), 3, "the dog never barks", [3, 1, 3]),
        (("<start>", "<end>"), 6, "the dog never barks", [3, 1, 2, 4]),
        (("<start>", "<end>"), 3, "dog barks dog", [3, 1, 4]),
        (("<start>", "<end>", "<unk>"), 6, "a dog barks", [3, 5, 1, 2, 4]),
        (("<start>",), 6, "dog barks", [3, 1, 2]),
        (("<end>",), 2, "dog barks", [1, 3]),
        (("<start>", "<end>"), 2, "dog barks", []),  # no room for a word
        (("<start>", "<end>", "<unk>"), 6, "a cat", []),
        (("<start>", "<end>", "<unk>"), 6, "<start> <unk>", []),
        (("<start>", "<end>", "<unk>"), 6, "...", []),
        (("<unk>",), 3, "no known word before barks", []),
    ],
)
def test_marks_are_ids_where_the_vocabulary_has_them(
    marks: tuple[str, ...], max_words: int, sentence: str, expected: list[int]
) -> None:
    preprocessing = text.Preprocessing(max_words, ("dog", "barks", *marks))
    ids = text.encode(sentence, preprocessing)
    assert ids.tolist() == expected
    assert ids.dtype == np.int64


def test_a_line_is_an_item_with_its_number_and_empty_lines_are_none(tmp_path: Path) -> None:
    found, notes = lines(tmp_path / "a.txt", "\ufeffdog\n\n   \n  barks dog \r\nété".encode())
    assert found == [(1, "dog", [1]), (4, "barks dog", [2, 1]), (5, "été", [4])]
    assert notes == []


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    found, _ = lines(tmp_path / "a.txt", "dog\x0c\u2028\x85barks\rdog\r\nbarks\n".encode())
    assert [line for line, _, _ in found] == [1, 2, 3]


def test_lines_without_a_known_word_are_left_out_and_counted(tmp_path: Path) -> None:
    found, notes = lines(tmp_path / "a.txt", b"cat\ndog\nmouse and cat\n")
    assert found == [(2, "dog", [1])]
    assert notes == [f"{tmp_path / 'a.txt'}: 2 lines left out, of whose words the model knows none"]


def test_bytes_that_are_no_utf8_are_replaced_and_noted(tmp_path: Path) -> None:
    found, notes = lines(tmp_path / "a.txt", b"dog \xff\xfe barks")
    assert found == [(1, "dog \ufffd\ufffd barks", [1, 2])]
    assert notes == [f"{tmp_path / 'a.txt'}: not all UTF-8, 2 characters replaced"]


def test_an_endless_line_is_read_up_to_its_limit(tmp_path: Path) -> None:
    [(_, line, _)], _ = lines(tmp_path / "a.txt", b"a " + b" dog" * 10_000)
    assert line is not None
    assert len(line) == text.MAX_LINE


def test_a_text_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(text.MAX_BYTES + 1_000_000)
    with pytest.raises(XmrError, match="257 MB found, texts up to 256 MB are read"):
        text.load(tmp_path / "a.txt", WORDS)


def test_sentences_of_a_batch_are_padded_at_the_end() -> None:
    padded = text.pad([np.array([3, 4]), np.array([1]), np.array([2, 2, 2])])
    assert padded.tolist() == [[3, 4, text.PAD], [1, text.PAD, text.PAD], [2, 2, 2]]
    assert padded.dtype == np.int64


# the table


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        ("a.jpg", "image"),
        ("b.JPEG", "image"),
        ("c.tar.Flac", "audio"),
        ("d.txt", "text"),
        ("g.mkv", "video"),
        ("e.exe", None),
        ("f", None),
    ],
)
def test_the_suffix_tells_the_medium(name: str, medium: str | None) -> None:
    assert medium_of(Path(name)) == medium


def test_sound_and_speech_are_the_same_files_read_alike(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(440, 2.5))
    heard, spoken = (MODALITIES[name].load(path, SECOND).pieces for name in ("sound", "speech"))
    assert [piece.array.tobytes() for piece in heard] == [piece.array.tobytes() for piece in spoken]
