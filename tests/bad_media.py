"""Every kind of bad file that a corpus may hold, written on the spot: what each is, and what must be said of it."""

import gzip
import io
import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from PIL import Image

Outcome = Literal["skipped", "noted", "left out", "good"]
RATE_HZ = 8000
GIGABYTE = 1_000_000_000
LETTERS = b"<!doctype html><html><head><title>404</title></head><body>Not found, sorry.</body></html>"
NOISE = random.Random(0).randbytes(5000)


@dataclass(frozen=True)
class Bad:
    """A kind of file. Said is part of the sentence of what is skipped or noted."""

    name: str
    write: Callable[[Path], object]
    said: str = ""
    outcome: Outcome = "skipped"
    needs: str | None = None  # a package without which it cannot be made


def of_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def sparse(n_bytes: int, head: bytes = b"") -> Callable[[Path], object]:
    """A file that takes no room on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(head)
        os.truncate(path, n_bytes)

    return write


# images


def picture(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def image_bytes(kind: str, image: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, kind)
    return buffer.getvalue()


def cut_image(kind: str, share: float = 0.5) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        content = image_bytes(kind)
        path.write_bytes(content[: int(len(content) * share)])

    return write


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, color: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def real_png(width: int, height: int) -> bytes:
    """Of zeros, whole: a few kilobytes that are many megabytes once decoded."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(width + 1)) for _ in range(height)]
    return png(width, height, chunk(b"IDAT", b"".join(rows) + packer.flush()))


def jpeg_that_claims(width: int, height: int) -> bytes:
    content = bytearray(image_bytes("JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def webp_that_claims(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sizes + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_that_claims(width: int, height: int) -> bytes:
    content = bytearray(image_bytes("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def tiff_that_claims(side: int) -> bytes:
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, side), (279, 4, 100)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
NO_IMAGE = "no image that Pillow can read"
DAMAGED = "damaged image"
IMAGES = [
    *(Bad(f"cut.{kind.lower()}", cut_image(kind), "image") for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP")),
    Bad("cut.tif", cut_image("TIFF"), "image"),
    Bad("cut.avif", cut_image("AVIF"), "image"),
    Bad("nearly_whole.jpg", cut_image("JPEG", 0.98), DAMAGED),
    Bad("nearly_whole.png", cut_image("PNG", 0.98), DAMAGED),
    Bad("empty.jpg", of_bytes(b""), NO_IMAGE),
    Bad("one_byte.png", of_bytes(b"\x89"), NO_IMAGE),
    Bad("zeros.jpg", of_bytes(bytes(65_536)), NO_IMAGE),
    Bad("noise.jpg", of_bytes(NOISE), NO_IMAGE),
    Bad("html.jpg", of_bytes(LETTERS), NO_IMAGE),
    Bad("drawing.png", of_bytes(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), NO_IMAGE),
    Bad("document.jpg", of_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"), NO_IMAGE),
    Bad("program.png", of_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"), NO_IMAGE),
    Bad("layers.tif", of_bytes(b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3)), NO_IMAGE),
    Bad("sound.png", lambda path: write_sound(path, tone(), format="WAV"), NO_IMAGE),
    Bad("only_a_start.jpg", of_bytes(b"\xff\xd8\xff"), "image"),
    Bad("only_a_signature.png", of_bytes(b"\x89PNG\r\n\x1a\n"), "image"),
    Bad("only_a_signature.gif", of_bytes(b"GIF89a"), "image"),
    Bad("no_pixels.png", of_bytes(png(8, 8)), DAMAGED),
    Bad("no_width.png", of_bytes(png(0, 8, chunk(b"IDAT", zlib.compress(b"")))), "image"),
    Bad("broken_pixels.png", of_bytes(png(8, 8, chunk(b"IDAT", NOISE))), DAMAGED),
    Bad("few_pixels.png", of_bytes(png(64, 64, chunk(b"IDAT", zlib.compress(bytes(100))))), DAMAGED),
    Bad("broken_checksum.png", of_bytes(image_bytes("PNG").replace(b"IDAT", b"IDAt", 1)), "image"),
    Bad("bomb_8000.png", lambda path: path.write_bytes(real_png(8000, 8000)), "8000x8000 pixels found"),
    Bad("bomb_30000.png", of_bytes(png(30_000, 30_000)), "pixels"),
    Bad("bomb_text.png", of_bytes(png(8, 8, TEXT_BOMB)), "image"),
    Bad("bomb.jpg", of_bytes(jpeg_that_claims(65_500, 65_500)), "pixels"),
    Bad("bomb_64.jpg", of_bytes(jpeg_that_claims(8000, 8000)), "8000x8000 pixels found"),
    Bad("bomb.gif", of_bytes(b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";"), "image"),
    Bad("bomb.webp", of_bytes(webp_that_claims(16_384, 16_384)), "image"),
    Bad("bomb.bmp", of_bytes(bmp_that_claims(100_000, 100_000)), "pixels"),
    Bad("bomb.tiff", of_bytes(tiff_that_claims(60_000)), "pixels"),
    Bad("sparse.png", sparse(5 * GIGABYTE), "5000 MB found"),
    Bad("noise.heic", of_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + NOISE), "HEIC is read by pillow-heif|image"),
    Bad("good_cmyk.jpg", of_bytes(image_bytes("JPEG", picture().convert("CMYK"))), outcome="good"),
    Bad(
        "good_16_bits.png",
        of_bytes(image_bytes("PNG", Image.fromarray(np.full((8, 8), 999, np.uint16)))),
        outcome="good",
    ),
    Bad("good_named.png", of_bytes(image_bytes("JPEG")), outcome="good"),
]


# sounds


def tone(duration_s: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(np.arange(round(duration_s * RATE_HZ)) / 3)).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, **options: str) -> None:
    soundfile.write(path, samples, rate_hz, **options)


def of_samples(samples: np.ndarray) -> Callable[[Path], object]:
    return lambda path: write_sound(path, samples.astype(np.float32), subtype="FLOAT")


def wav(rate_hz: int = RATE_HZ, channels: int = 1, bits: int = 16, code: int = 1, promised: int | None = None) -> bytes:
    """A second of silence under any header."""
    content = bytes(2 * RATE_HZ)
    block = channels * bits // 8 & 0xFFFF
    fields = struct.pack("<HHIIHH", code, channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block, bits)
    size = struct.pack("<I", len(content) if promised is None else promised)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(content))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fields
        + b"data"
        + size
        + content
    )


def cut_sound(share: float, duration_s: float = 1.0) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        write_sound(path, tone(duration_s))
        os.truncate(path, int(path.stat().st_size * share))

    return write


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
SCRIPT = b"ffconcat version 1.0\nfile /etc/passwd\n"
NO_SOUND = "no sound that can be decoded|a sound without samples|nothing that can be decoded"
SOUNDS = [
    Bad("empty.wav", of_bytes(b""), NO_SOUND),
    Bad("html.wav", of_bytes(LETTERS), NO_SOUND),
    Bad("noise.wav", of_bytes(NOISE), NO_SOUND),
    Bad("no_samples.wav", of_samples(np.zeros(0)), "a sound without samples"),
    Bad("nan.wav", of_samples(np.full(100, np.nan)), "no finite samples"),
    Bad("infinite.wav", of_samples(np.array([0, np.inf, 0])), "no finite samples"),
    Bad("late_nan.wav", of_samples(np.append(np.zeros(3_000_000), np.nan)), "no finite samples"),
    Bad("rate_0.wav", of_bytes(wav(rate_hz=0)), NO_SOUND),
    Bad("channels_0.wav", of_bytes(wav(channels=0)), NO_SOUND),
    Bad("channels_66.wav", of_samples(np.zeros((9, 66))), "66 channels found"),
    Bad("channels_60000.wav", of_bytes(wav(channels=60_000)), "channels found|no sound"),
    Bad("bits_13.wav", of_bytes(wav(bits=13, code=77)), NO_SOUND),
    Bad("promises_4_gb.wav", of_bytes(wav(promised=4_000_000_000)), "cut short", "noted"),
    Bad("cut.wav", cut_sound(0.5), "cut short", "noted"),
    Bad("cut.mp3", cut_sound(0.5, 3), "cut short", "noted"),
    Bad("cut.flac", cut_sound(0.3), NO_SOUND),
    Bad("only_a_start.flac", of_bytes(b"fLaC" + bytes(60)), NO_SOUND),
    Bad("garbage.ogg", of_bytes(b"OggS" + NOISE), NO_SOUND),
    Bad("text.opus", of_bytes(LETTERS), NO_SOUND),
    Bad("zeros.mp3", of_bytes(bytes(50_000)), NO_SOUND),
    Bad("garbage.aiff", of_bytes(b"FORM\0\0\x10\0AIFF" + NOISE), NO_SOUND),
    Bad("half_an_hour.flac", lambda path: write_sound(path, np.zeros(1860 * 1000, np.float32), 1000), "1860 s found"),
    Bad("sparse.wav", sparse(5 * GIGABYTE), NO_SOUND),
    Bad("sparse_silence.wav", sparse(3 * GIGABYTE, wav(promised=2_900_000_000)), "s found, up to 1800 s are read"),
    Bad("garbage.m4a", of_bytes(b"\0\0\0\x18ftypM4A " + NOISE), NO_SOUND, needs="av"),
    Bad("garbage.aac", of_bytes(NOISE[:999]), NO_SOUND + "|no sound in it", needs="av"),
    Bad("playlist.aac", of_bytes(PLAYLIST), "nothing that can be decoded", needs="av"),
    Bad("garbage.wma", of_bytes(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + NOISE), NO_SOUND, needs="av"),
    Bad("pictures_alone.m4a", lambda path: write_video(path, sound=False, kind="mp4"), "no sound in it", needs="av"),
]


# videos


def write_video(
    path: Path, n_frames: int = 50, *, sound: bool = True, kind: str | None = None, codec: str = "mpeg4"
) -> None:
    """Two seconds of grey that grows lighter, and a tone."""
    import av

    with av.open(str(path), "w", format=kind) as file:
        track = file.add_stream(codec, rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        heard = file.add_stream("mp3" if path.suffix == ".avi" else "aac", rate=16_000) if sound else None
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(track.encode(frame))
        file.mux(track.encode())
        if n_frames == 0:
            file.start_encoding()
        elif heard is not None:
            write_tone(file, heard, n_frames / 25)


def write_tone(file: object, track: object, duration_s: float) -> None:
    import av

    samples = np.resize(tone(), round(duration_s * 16_000))[None]
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
        file.mux(track.encode(frame))  # type: ignore[attr-defined]
    file.mux(track.encode())  # type: ignore[attr-defined]


def changed_video(change: Callable[[bytes], bytes], **options: object) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        write_video(path, **options)  # type: ignore[arg-type]
        path.write_bytes(change(path.read_bytes()))

    return write


def large_frames(content: bytes) -> bytes:
    """JPEGs in a video that say that they are 20,000 pixels wide and high."""
    return content.replace(struct.pack(">HBHH", 17, 8, 48, 64), struct.pack(">HBHH", 17, 8, 20_000, 20_000))


NO_VIDEO = "nothing that can be decoded"
VIDEOS = [
    Bad("empty.mp4", of_bytes(b""), NO_VIDEO, needs="av"),
    Bad("html.mp4", of_bytes(LETTERS), NO_VIDEO, needs="av"),
    Bad("noise.webm", of_bytes(b"\x1a\x45\xdf\xa3" + NOISE), NO_VIDEO, needs="av"),
    Bad("zeros.avi", of_bytes(bytes(9999)), NO_VIDEO, needs="av"),
    Bad("noise.mpg", of_bytes(NOISE), NO_VIDEO + "|neither pictures nor sound", needs="av"),
    Bad("playlist.mkv", of_bytes(PLAYLIST), NO_VIDEO, needs="av"),
    Bad("script.mov", of_bytes(SCRIPT), NO_VIDEO, needs="av"),
    Bad("no_frames.mp4", lambda path: write_video(path, 0, sound=False), "nothing|neither|no picture", needs="av"),
    Bad("no_index.mp4", changed_video(lambda content: content[: content.index(b"moov") - 4]), NO_VIDEO, needs="av"),
    Bad("broken_index.mp4", changed_video(lambda old: old.replace(b"moov", b"m\xffov")), NO_VIDEO, needs="av"),
    Bad("broken_pictures.avi", changed_video(lambda old: old.replace(b"00dc", b"00dc\0\0\0\0")), "", needs="av"),
    Bad(
        "large_frames.avi",
        changed_video(large_frames, codec="mjpeg"),
        "no picture in it that can be decoded",
        needs="av",
    ),
    Bad("cut.mkv", changed_video(lambda old: old[: len(old) // 2], n_frames=100), "cut short", "noted", needs="av"),
    Bad("cut.avi", changed_video(lambda old: old[: len(old) // 2], n_frames=100), "cut short", "noted", needs="av"),
    Bad("good_silent.mp4", lambda path: write_video(path, sound=False), outcome="good", needs="av"),
]


# texts


def write_garbage_table(path: Path) -> None:
    path.write_bytes(b"PAR1" + NOISE + b"PAR1")


def write_parquet_bomb(path: Path) -> None:
    """Sixty megabytes of one letter in a cell, a few kilobytes on the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a" * 60_000_000]}), path, compression="zstd")


SUBTITLES = b"1\n00:00:01,000 --> 00:00:02,000\na dog\n\n2\n00:00:09,000 --> 00:00:03,000\na bell\n"
NOTHING = "nothing in it that the model can embed"
TEXTS = [
    Bad("empty.txt", of_bytes(b""), NOTHING),
    Bad("blank.txt", of_bytes(b"\n \n\t\n"), NOTHING),
    Bad("unknown.txt", of_bytes(b"qqq zzz\n"), NOTHING),
    Bad("packed.txt", of_bytes(gzip.compress(b"a dog barks\n" * 1000)), "no text in UTF-8"),
    Bad("noise.txt", of_bytes(NOISE), "no text in UTF-8"),
    Bad("nul.txt", of_bytes(b"a dog\0\nbarks\n"), "no text in UTF-8"),
    Bad("unmarked_utf16.txt", of_bytes("a dog barks".encode("utf-16-le")), "no text in UTF-8"),
    Bad("gbk.txt", of_bytes("狗在叫而钟在响".encode("gbk")), "no text in UTF-8"),
    Bad("latin_1.txt", of_bytes("a dog à la carte\n".encode("latin-1")), "not all UTF-8", "noted"),
    Bad("long_line.txt", of_bytes(b"a dog " * 1_000_000), "1 lines of more than 10,000 characters", "noted"),
    Bad("sparse.txt", sparse(5 * GIGABYTE), "5000 MB found"),
    Bad("binary.md", of_bytes(image_bytes("PNG")), "no text in UTF-8"),
    Bad("no_times.srt", of_bytes(b"1\na dog\n\n2\na bell\n"), "no times of subtitles"),
    Bad("bad_times.srt", of_bytes(SUBTITLES), "1 subtitles whose times cannot be read", "noted"),
    Bad("html.vtt", of_bytes(LETTERS), "no times of subtitles"),
    Bad("no_text.csv", of_bytes(b"height,width\n1,2\n3,4\n"), "text"),
    Bad("nul.csv", of_bytes(b"text,n\na dog\0,1\n"), ""),
    Bad("columns.csv", of_bytes(b",".join(b"c%d" % n for n in range(5000)) + b"\n"), "names"),
    Bad("broken_line.jsonl", of_bytes(b'{"text": "a dog"}\n{"text": \n{"text": "a bell"}\n'), "line 2", "noted"),
    Bad("long_line.jsonl", sparse(100_000_000, b'{"text": "'), ""),
    Bad("nested.jsonl", of_bytes(b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n"), ""),
    Bad("list.jsonl", of_bytes(json.dumps([1, 2]).encode()), ""),
    Bad("garbage.parquet", write_garbage_table, "", needs="pyarrow"),
    Bad("bomb.parquet", write_parquet_bomb, "", needs="pyarrow"),
]


# what is no file, or has a name that few have


def write_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(path.parent, os.O_RDONLY)  # the name of a socket is short, whatever the folder's is
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def write_good(path: Path) -> None:
    path.write_bytes(image_bytes("PNG", picture(8)))


def write_circle(path: Path) -> None:
    path.symlink_to(path.name + ".again.jpg")
    path.with_name(path.name + ".again.jpg").symlink_to(path.name)


OTHERS = [
    Bad("pipe.jpg", os.mkfifo, outcome="left out"),
    Bad("socket.wav", write_socket, outcome="left out"),
    Bad("folder.jpg", Path.mkdir, outcome="left out"),
    Bad("dangling.png", lambda path: path.symlink_to("nowhere.png"), outcome="left out"),
    Bad("circle.jpg", write_circle, outcome="left out"),
    Bad("endless.wav", lambda path: path.symlink_to("/dev/zero"), outcome="left out"),
    Bad("outside.txt", lambda path: path.symlink_to("/etc/passwd"), outcome="left out"),
    Bad(os.fsdecode(b"caf\xe9.png"), write_good, outcome="left out"),
    Bad("new\nline.png", write_good, outcome="good"),
    Bad("control\x07\x1b[31m.png", write_good, outcome="good"),
    Bad("quotes'\"; -- DROP TABLE items.png", write_good, outcome="good"),
    Bad("%s{0}$HOME`id`.png", write_good, outcome="good"),
    Bad("-k 9.png", write_good, outcome="good"),
    Bad("n" * 251 + ".png", write_good, outcome="good"),
]

KINDS = [*IMAGES, *SOUNDS, *VIDEOS, *TEXTS, *OTHERS]


def write_good_files(folder: Path, n_files: int) -> None:
    """Small pictures, sounds and notes."""
    rng = np.random.default_rng(0)
    for number in range(n_files):
        path = folder / f"good_{number:04d}"
        if number % 4 == 0:
            write_sound(path.with_suffix(".wav"), tone(0.1))
        elif number % 4 == 1:
            path.with_suffix(".txt").write_text(f"a dog and a bell\n{number}\n")
        else:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path.with_suffix(".png"))
