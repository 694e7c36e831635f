"""Datasets whose pairs are made when they are read: by class, from tar shards, from videos."""

import io
import json
import os
import sys
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.train.datasets import DATASETS, Row, read_rows

RATE_HZ = 8000
FPS = 10


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_lines(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def noted(source: object, cache: Path) -> tuple[list[Row], list[str]]:
    notes: list[str] = []
    return read_rows([str(source)], cache, notes.append), notes


def hash_of(key: str) -> int:
    return int(sha256(key.encode()).hexdigest()[:16], 16)


def test_images_and_sounds_are_paired_by_class_inside_a_split(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "images.jsonl",
        {"image": "1.png", "label": "dog", "split": "train", "captions": ["a dog"]},
        {"image": "2.png", "label": "dog", "split": "valid"},
        {"image": "3.png", "label": "cat", "split": "train"},
    )
    (tmp_path / "sounds.csv").write_text(
        "file_name,category,split\nx.wav,dog,train\ny.wav,dog,train\nz.wav,dog,val\nw.wav,rain,train\n"
    )
    touch(tmp_path, "1.png", "2.png", "3.png", "x.wav", "y.wav", "z.wav", "w.wav")
    rows, notes = noted(tmp_path, tmp_path / "cache")
    first, second = sorted(("x.wav", "y.wav"), key=hash_of)
    dog, val_dog = tmp_path / "1.png", tmp_path / "2.png"
    assert rows == [
        Row(str(dog), "train", "dog", {"image": dog, "sound": tmp_path / first}, ("a dog",)),
        Row(str(dog), "train", "dog", {"image": dog, "sound": tmp_path / second}, ("a dog",)),
        Row(str(val_dog), "val", "dog", {"image": val_dog, "sound": tmp_path / "z.wav"}),
    ]
    assert notes == ["class-pairs: classes that pair nothing in a split: 2, such as cat in train"]


def test_every_image_and_every_sound_is_in_a_pair(tmp_path: Path) -> None:
    for medium, suffix, n in (("images", "png", 7), ("sounds", "wav", 3)):
        touch(tmp_path / medium / "train" / "dog", *(f"{number}.{suffix}" for number in range(n)))
    rows = read_rows([str(tmp_path)])
    assert rows == read_rows([str(tmp_path)])
    assert (len(rows), len({row.files["image"] for row in rows}), len({row.files["sound"] for row in rows})) == (
        7,
        7,
        3,
    )


def test_folders_are_classes_and_those_above_are_splits(tmp_path: Path) -> None:
    touch(tmp_path / "images", "dev/train/a.png", "test/train/b.png", "test/train/notes.txt", "c.png")
    touch(tmp_path / "audio", "dev/train/a.wav", "test/train/sub/b.wav")
    rows = read_rows([str(tmp_path)])
    assert [(row.split, row.label, row.files["sound"].name) for row in rows] == [
        ("test", "train", "b.wav"),
        ("val", "train", "a.wav"),
    ]


def test_the_last_folds_of_esc50_are_val_and_test(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    lines = [f"{fold}-1-A-0.wav,{fold},0,dog,True,1,A" for fold in range(1, 6)]
    (tmp_path / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n" + "\n".join(lines)
    )
    touch(tmp_path / "audio", *(f"{fold}-1-A-0.wav" for fold in range(1, 6)))
    touch(tmp_path / "images", *(f"{split}/dog/{split}.png" for split in ("train", "val", "test")))
    rows = read_rows([str(tmp_path)])
    assert {row.files["sound"].name[0]: (row.split, row.files["image"].stem) for row in rows} == {
        "1": ("train", "train"),
        "2": ("train", "train"),
        "3": ("train", "train"),
        "4": ("val", "val"),
        "5": ("test", "test"),
    }


def test_without_named_splits_every_twentieth_file_of_a_class_is_val(tmp_path: Path) -> None:
    images = [f"dog/{number}.png" for number in range(60)]
    touch(tmp_path / "images", *images)
    touch(tmp_path / "sounds", *(image.replace("png", "wav") for image in images))
    rows = DATASETS["class-pairs"](tmp_path)
    of_val = {str(row.files["image"].relative_to(tmp_path / "images")) for row in rows if row.split == "val"}
    assert of_val == {image for image in images if hash_of(image) % 20 == 0}
    assert of_val


def test_a_missing_sound_costs_its_pairs(tmp_path: Path) -> None:
    touch(tmp_path / "images", "train/dog/a.png")
    write_lines(
        tmp_path / "sounds.jsonl", *({"sound": f"{name}.wav", "label": "dog", "split": "train"} for name in "ab")
    )
    touch(tmp_path, "b.wav")
    rows, notes = noted(tmp_path, tmp_path / "cache")
    assert [row.files["sound"].name for row in rows] == ["b.wav"]
    assert notes == [f"class-pairs: 1 of 3 files is missing, such as {tmp_path}/a.wav; their rows are left out"]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"sound": "a.wav"}, "line 1: no label or category or class in it; mend the line"),
        ({"label": "dog"}, "line 1: no sound or file_name or filename or file or path in it; mend the line"),
        ({"sound": "a\0.wav", "label": "dog"}, "line 1: a path that no file can have (embedded null byte)"),
        ({"sound": "a.wav", "label": "dog", "captions": 3}, "line 1: captions are a string or a list of strings"),
        (3, "line 1: int found, an object expected"),
    ],
)
def test_a_bad_line_of_a_list_is_named(tmp_path: Path, record: object, sentence: str) -> None:
    touch(tmp_path / "images", "dog/a.png")
    path = write_lines(tmp_path / "sounds.jsonl", record)
    with pytest.raises(XmrError) as error:
        DATASETS["class-pairs"](tmp_path)
    assert str(error.value).startswith(f"{path}, {sentence}")


def test_classes_need_images_and_sounds_of_the_same_name(tmp_path: Path) -> None:
    touch(tmp_path / "images", "train/dog/a.png")
    with pytest.raises(XmrError, match=r"neither sounds.jsonl nor sounds/<class>/ in it"):
        DATASETS["class-pairs"](tmp_path)
    touch(tmp_path / "sounds", "train/hound/a.wav")
    with pytest.raises(XmrError, match=r"no class has images and sounds in the same split; name their classes alike"):
        DATASETS["class-pairs"](tmp_path)


def write_tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def contents(row: Row) -> dict[str, bytes]:
    return {modality: path.read_bytes() for modality, path in row.files.items()}


def test_the_files_of_a_key_are_a_row(tmp_path: Path) -> None:
    first = write_tar(
        tmp_path / "shards" / "train-000.tar",
        ("001.jpg", b"one"),
        ("001.txt", b"a dog\nit runs\n"),
        ("001.cls", b"7"),
        ("002.PNG", b"two"),
        ("002.flac", b"bark"),
        ("002.json", json.dumps({"caption": "it barks", "speaker": 3, "split": "test"}).encode()),
        ("sub/002.depth.png", b"far"),
        ("sub/002.jpg", b"three"),
        ("sub/002.speech.wav", b"hello"),
        ("sub/002.xyz", b"?"),
    )
    second = write_tar(
        tmp_path / "shards" / "val" / "000.tar", ("001.jpg", b"four"), ("001.json", b'{"text": "a cat"}')
    )
    cache = tmp_path / "cache"
    rows = read_rows([str(tmp_path / "shards")], cache)
    assert [(row.id, row.split, row.captions, row.category, row.speaker) for row in rows] == [
        (f"{first}:001", "train", ("a dog", "it runs"), "7", None),
        (f"{first}:002", "test", ("it barks",), None, "3"),
        (f"{first}:sub/002", "train", (), None, None),
        (f"{second}:001", "val", ("a cat",), None, None),
    ]
    assert list(map(contents, rows)) == [
        {"image": b"one"},
        {"image": b"two", "sound": b"bark"},
        {"image": b"three", "speech": b"hello"},
        {"image": b"four"},
    ]
    assert all(path.is_relative_to(cache) for row in rows for path in row.files.values())


def test_shards_without_a_split_in_their_name_are_split_by_key(tmp_path: Path) -> None:
    keys = [f"{number:04d}" for number in range(100)]
    members = [(f"{key}.{suffix}", key.encode()) for key in keys for suffix in ("jpg", "txt")]
    rows = read_rows([str(write_tar(tmp_path / "00000.tar", *members))], tmp_path / "cache")
    assert [row.split == "val" for row in rows] == [hash_of(key) % 20 == 0 for key in keys]
    assert "val" in {row.split for row in rows}


def test_nothing_of_a_tar_gets_out_of_the_cache(tmp_path: Path) -> None:
    link, hard = tarfile.TarInfo("a/link.jpg"), tarfile.TarInfo("a/hard.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../secret"
    members = [
        ("../../out.jpg", b"1"),
        ("../../out.txt", b"one"),
        ("/tmp/root.jpg", b"2"),
        ("/tmp/root.txt", b"two"),
        (".hidden.jpg", b"3"),
        ("a/x\n\x1b[2J.jpg", b"4"),
        ("a/x\n\x1b[2J.txt", b"four"),
    ]
    shard = write_tar(tmp_path / "in" / "x.tar", *members, link, hard)
    before = set(tmp_path.rglob("*"))
    rows, notes = noted(shard, tmp_path / "cache")
    assert {path.name for path in set(tmp_path.rglob("*")) - before if path.is_relative_to(tmp_path / "in")} == set()
    assert [row.captions for row in rows] == [("one",), ("two",), ("four",)]
    made = [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".jpg"]
    assert sorted(path.read_bytes() for path in made) == [b"1", b"2", b"4"]
    assert all(path.name.replace("-", "").replace("_", "").replace(".", "").isalnum() for path in made)
    assert not any(path.is_symlink() for path in made)
    assert notes == [f"webdataset: {shard}: links or too large members: 2, such as a/link.jpg; they are left out"]


def test_a_member_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "x.tar", ("a.jpg", b"1"), ("a.json", b" " * 1_000_001), ("a.txt", b"one"), ("b.txt", b"two")
    )
    rows, notes = noted(shard, tmp_path / "cache")
    assert [row.captions for row in rows] == [("one",)]
    assert notes == [
        f"webdataset: {shard}: links or too large members: 1, such as a.json; they are left out",
        f"webdataset: 1 of 2 rows pair nothing, such as {shard}:b; they are left out",
    ]


def test_of_a_shard_that_is_cut_short_the_beginning_is_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", ("a.jpg", b"1"), ("a.txt", b"one"), ("b.jpg", bytes(9000)), ("b.txt", b"two"))
    shard.write_bytes(shard.read_bytes()[:5000])
    rows, notes = noted(shard, tmp_path / "cache")
    assert [row.captions for row in rows] == [("one",)]
    assert notes == [
        f"webdataset: {shard}: cut short after 1 samples (unexpected end of data); fetch it again for the rest"
    ]
    assert read_rows([str(shard)], tmp_path / "cache", lambda sentence: None) == rows


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([("a.json", b"{")], ", member a.json: not valid JSON ("),
        ([("a.json", b"[]")], ", member a.json: list found, an object expected"),
        ([("a.json", b'{"captions": [1]}')], ", member a.json: captions are a string or a list of strings"),
        ([("a.txt", b"a dog"), ("a.png", b"2")], ", member a.png: a second image of its sample; it is left out"),
    ],
)
def test_a_bad_member_is_left_out_and_named(tmp_path: Path, members: list[tuple[str, bytes]], sentence: str) -> None:
    shard = write_tar(tmp_path / "x.tar", ("a.jpg", b"1"), *members, ("b.jpg", b"1"), ("b.txt", b"a dog"))
    notes: list[str] = []
    rows = DATASETS["webdataset"](shard, tmp_path / "cache", notes.append)
    assert [len(row.files) for row in rows] == [1, 1]
    assert [note.startswith(f"webdataset: {shard}{sentence}") for note in notes] == [True]


@pytest.mark.parametrize("content", [b"", b"no tar" * 200])
def test_a_file_that_is_no_tar_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(XmrError, match=r"x.tar: no tar archive that can be read \(.*\); fetch it again"):
        DATASETS["webdataset"](tmp_path, tmp_path / "cache")
    (tmp_path / "x.tar").unlink()
    with pytest.raises(XmrError, match=r"no .tar in it; give the folder of the shards"):
        DATASETS["webdataset"](tmp_path, tmp_path / "cache")


def noise(duration_s: float, channels: int = 1) -> NDArray[np.int16]:
    """(channels, samples)"""
    rng = np.random.default_rng(0)
    return rng.integers(-20_000, 20_000, (channels, round(duration_s * RATE_HZ))).astype(np.int16)


def write_video(
    path: Path,
    duration_s: float,
    sound: NDArray[np.int16] | None,
    *,
    sound_from_s: float = 0,
    starts_s: float = 0,
    left_is_black: bool = False,
) -> Path:
    """Grey pictures, each a level brighter than the one before, beside lossless sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture: Any = container.add_stream("mpeg4", rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        layout = "stereo" if sound is not None and len(sound) == 2 else "mono"
        audio: Any = None if sound is None else container.add_stream("pcm_s16le", rate=RATE_HZ, layout=layout)
        for number in range(round(duration_s * FPS)):
            pixels = np.full((48, 64, 3), level(number), np.uint8)
            pixels[:, :32] *= not left_is_black
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number + round(starts_s * FPS)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        if sound is not None:
            for start in range(0, sound.shape[1], 1000):
                packed = np.ascontiguousarray(sound[:, start : start + 1000].T.reshape(1, -1))
                chunk = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
                chunk.sample_rate, chunk.pts = RATE_HZ, start + round((sound_from_s + starts_s) * RATE_HZ)
                container.mux(audio.encode(chunk))
            container.mux(audio.encode())
    return path


def level(number: int) -> int:
    return 20 + 2 * number % 200


def grey_of(row: Row) -> float:
    return float(np.asarray(Image.open(row.files["image"]), np.float32).mean())


def levels_of(row: Row) -> NDArray[np.int16]:
    samples, rate_hz = soundfile.read(row.files["sound"], dtype="int16")
    assert rate_hz == RATE_HZ
    return np.asarray(samples)


def windows_of(sound: NDArray[np.int16], starts_s: Sequence[float]) -> list[NDArray[np.int16]]:
    return [sound[round(start_s * RATE_HZ) : round((start_s + 5) * RATE_HZ)] for start_s in starts_s]


def test_a_window_of_a_video_is_its_middle_picture_and_its_sound(tmp_path: Path) -> None:
    sound = noise(12)
    path = write_video(tmp_path / "films" / "a.mkv", 12, sound)
    rows, notes = noted(tmp_path / "films", tmp_path / "cache")
    assert [(row.id, row.split, row.captions) for row in rows] == [
        (f"{path}#0s", "train", ()),
        (f"{path}#5s", "train", ()),
    ]
    assert [grey_of(row) for row in rows] == pytest.approx([level(25), level(75)], abs=2)
    for row, window in zip(rows, windows_of(sound[0], [0, 5]), strict=True):
        np.testing.assert_array_equal(levels_of(row), window)
    assert notes == []


def test_channels_are_averaged(tmp_path: Path) -> None:
    sound = noise(5, channels=2)
    [row] = read_rows([str(write_video(tmp_path / "a.mkv", 5, sound))], tmp_path / "cache")
    np.testing.assert_allclose(levels_of(row), sound.astype(np.float64).mean(axis=0), atol=1)


def test_sound_that_begins_later_stays_with_its_pictures(tmp_path: Path) -> None:
    sound = noise(9)
    path = write_video(tmp_path / "a.mkv", 10, sound, sound_from_s=1, starts_s=3)
    rows = read_rows([str(path)], tmp_path / "cache")
    heard = np.concatenate([np.zeros(RATE_HZ, np.int16), sound[0]])
    assert [grey_of(row) for row in rows] == pytest.approx([level(25), level(75)], abs=2)
    for row, window in zip(rows, windows_of(heard, [0, 5]), strict=True):
        np.testing.assert_array_equal(levels_of(row), window)


def test_a_video_shorter_than_a_window_is_one(tmp_path: Path) -> None:
    sound = noise(2)
    [row] = read_rows([str(write_video(tmp_path / "a.mkv", 2, sound))], tmp_path / "cache")
    np.testing.assert_array_equal(levels_of(row), sound[0])
    assert grey_of(row) == pytest.approx(level(10), abs=2)


def test_windows_end_with_the_pictures(tmp_path: Path) -> None:
    rows = read_rows([str(write_video(tmp_path / "a.mkv", 6, noise(20)))], tmp_path / "cache")
    assert [row.id.split("#")[1] for row in rows] == ["0s"]
    assert len(list(rows[0].files["sound"].parent.glob("*.wav"))) == 1


def test_a_picture_is_turned_as_the_phone_was(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", 5, noise(5), left_is_black=True)
    upright = np.array([0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000], ">i4").tobytes()
    # QuickTime: x' = -y, y' = x, so that what was left is above
    turned = np.array([0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000], ">i4").tobytes()
    content = path.read_bytes()
    at = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    [row] = read_rows([str(path)], tmp_path / "cache")
    pixels = np.asarray(Image.open(row.files["image"]).convert("L"))
    assert pixels.shape == (64, 48)
    assert pixels[:28].max() < 10
    assert pixels[36:].min() > 50


def test_videos_without_sound_are_counted_and_broken_ones_named(tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_video(films / "good.mkv", 5, noise(5))
    write_video(films / "silent.mkv", 5, None)
    (films / "broken.mp4").write_bytes(b"no video")
    (films / "gone.mp4").symlink_to("nowhere.mp4")
    (films / "list.mp4").write_text("#EXTM3U\n#EXTINF:5,\ngood.mkv\n")
    rows, notes = noted(films, tmp_path / "cache")
    assert [row.id for row in rows] == [f"{films}/good.mkv#0s"]
    broken, listed, silent = notes
    assert broken.startswith(f"videos: {films}/broken.mp4: cannot be decoded (")
    assert listed.startswith(f"videos: {films}/list.mp4: cannot be decoded (")
    assert silent == f"videos: 1 of 4 have no sound track, such as {films}/silent.mkv; they pair nothing"


def test_a_video_is_decoded_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", 5, noise(5))
    rows = read_rows([str(path)], tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "av", None)
    assert read_rows([str(path)], tmp_path / "cache") == rows
    os.utime(path, (0, 0))
    with pytest.raises(XmrError, match=r"read with av, which is not installed; pip install 'xmr\[video\]'"):
        read_rows([str(path)], tmp_path / "cache")


def test_all_windows_of_a_video_are_in_the_split_of_its_name(tmp_path: Path) -> None:
    name = next(name for name in (f"{number}.mkv" for number in range(999)) if hash_of(name) % 20 == 0)
    write_video(tmp_path / name, 10, noise(10))
    assert [row.split for row in read_rows([str(tmp_path)], tmp_path / "cache")] == ["val", "val"]


def test_videos_in_folders_named_for_splits_are_of_those(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_video(tmp_path / split / "a.mkv", 5, noise(5))
    assert [row.split for row in read_rows([str(tmp_path)], tmp_path / "cache")] == ["test", "train"]


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"no video in it; there are .3gp .avi"):
        DATASETS["videos"](tmp_path, tmp_path / "cache")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(XmrError, match=r"no rows in it; read as videos"):
        noted(tmp_path, tmp_path / "cache")
