"""Captioned images as they are published, most of them by the files of one paper."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.train.datasets import DATASETS, Row, read_rows
from xmr.train.datasets.cub import ALPHABET

TOKENS = """a.jpg#0\tA dog .
a.jpg#1\tIt runs .
b.jpg#0\tA cat .
b.jpg#1\tIt sleeps .
c.jpg#0\tA bird .
2258277193_586949ec62.jpg.1#0\tNo such picture .
"""
KARPATHY = {
    "dataset": "flickr8k",
    "images": [
        {"filename": "a.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "A dog ."}, {"raw": " It runs . "}]},
        {"filename": "b.jpg", "imgid": 1, "split": "val", "sentences": [{"raw": "A cat ."}, {"raw": "It sleeps ."}]},
    ],
}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_flickr8k(root: Path) -> Path:
    """Two images in the splits and one outside; returns the folder of the images."""
    touch(root / "Flicker8k_Dataset", "a.jpg", "b.jpg", "c.jpg")
    text = root / "Flickr8k_text"
    text.mkdir()
    (text / "Flickr8k.token.txt").write_text(TOKENS)
    (text / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (text / "Flickr_8k.devImages.txt").write_text("b.jpg\n\n")
    return root / "Flicker8k_Dataset"


def write_speech(root: Path) -> Path:
    audio = root / "flickr_audio"
    touch(audio / "wavs", "a_0.wav", "a_1.wav", "b_0.wav", "c_0.wav")
    for wav in ("a_0", "b_0", "c_0"):
        (audio / "wavs" / f"{wav}.wav").write_bytes(bytes(46))
    (audio / "wavs" / "a_1.wav").write_bytes(bytes(44))
    lines = "a_0.wav a.jpg #0\na_1.wav a.jpg #1\nb_0.wav b.jpg #0\nb_1.wav b.jpg #1\nc_0.wav c.jpg #0\n"
    (audio / "wav2capt.txt").write_text(lines)
    (audio / "wav2spk.txt").write_text("a_0.wav 7\nb_0.wav 12\n")
    return audio / "wavs"


def refusal(name: str, source: Path) -> str:
    with pytest.raises(XmrError) as error:
        DATASETS[name](source)
    return str(error.value)


def noted(source: object) -> tuple[list[Row], list[str]]:
    notes: list[str] = []
    return read_rows([str(source)], note=notes.append), notes


def test_flickr8k_has_a_row_an_image_of_its_splits(tmp_path: Path) -> None:
    images = write_flickr8k(tmp_path)
    assert read_rows([str(tmp_path)]) == [
        Row(str(images / "a.jpg"), "train", files={"image": images / "a.jpg"}, captions=("A dog .", "It runs .")),
        Row(str(images / "b.jpg"), "val", files={"image": images / "b.jpg"}, captions=("A cat .", "It sleeps .")),
    ]


def test_flickr8k_takes_splits_and_text_from_karpathy_where_it_must(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset_flickr8k.json", KARPATHY)
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    rows = DATASETS["flickr8k"](tmp_path)
    assert [(row.split, row.captions) for row in rows] == [
        ("train", ("A dog .", "It runs .")),
        ("val", ("A cat .", "It sleeps .")),
    ]
    (tmp_path / "Flickr8k.token.txt").write_text(TOKENS.replace("A dog", "A hound"))
    assert DATASETS["flickr8k"](tmp_path)[0].captions == ("A hound .", "It runs .")


def test_flickr8k_leaves_out_images_that_are_missing(tmp_path: Path) -> None:
    images = write_flickr8k(tmp_path)
    (images / "b.jpg").unlink()
    rows, notes = noted(tmp_path)
    assert [row.split for row in rows] == ["train"]
    assert notes == [f"flickr8k: 1 of 2 files is missing, such as {images}/b.jpg; their rows are left out"]


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ("a.jpg#0 A dog .", "line 1: 'a.jpg#0 A dog .' found, <image>#<number>, a tab and a caption expected"),
        ("a.jpg#0\tA dog .\n\nb.jpg\tA cat .", "line 3: 'b.jpg\\tA cat .' found"),
        ("a.jpg#x\tA dog .", "line 1: 'a.jpg#x\\tA dog .' found"),
    ],
)
def test_a_bad_line_of_flickr8k_is_named(tmp_path: Path, tokens: str, sentence: str) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text(tokens)
    assert refusal("flickr8k", tmp_path).startswith(f"{tmp_path}/Flickr8k.token.txt, {sentence}")


def test_flickr8k_needs_its_text_and_its_splits(tmp_path: Path) -> None:
    assert "neither Flickr8k.token.txt nor dataset_flickr8k.json in it" in refusal("flickr8k", tmp_path)
    (tmp_path / "Flickr8k.token.txt").write_text(TOKENS)
    assert "no splits in it; put Flickr_8k.trainImages.txt" in refusal("flickr8k", tmp_path)


def test_spoken_flickr8k_has_a_row_a_spoken_caption(tmp_path: Path) -> None:
    images, wavs = write_flickr8k(tmp_path), write_speech(tmp_path)
    (wavs / "b_1.wav").write_bytes(bytes(46))
    notes: list[str] = []
    rows = read_rows([str(tmp_path)], note=notes.append)
    a, b = images / "a.jpg", images / "b.jpg"
    assert rows == [
        Row(str(a), "train", None, {"image": a, "speech": wavs / "a_0.wav"}, ("A dog .",), speaker="7"),
        Row(str(a), "train", None, {"image": a}, ("It runs .",)),
        Row(str(b), "val", None, {"image": b, "speech": wavs / "b_0.wav"}, ("A cat .",), speaker="12"),
        Row(str(b), "val", None, {"image": b, "speech": wavs / "b_1.wav"}, ("It sleeps .",)),
    ]
    assert notes == ["flickr8k-spoken: wavs without samples: 1, such as a_1.wav; their rows go on without them"]


def test_spoken_flickr8k_goes_on_without_a_missing_wav(tmp_path: Path) -> None:
    write_flickr8k(tmp_path)
    wavs = write_speech(tmp_path)
    rows, notes = noted(f"flickr8k-spoken:{tmp_path}")
    assert [list(row.files) for row in rows] == [["image", "speech"], ["image"], ["image", "speech"], ["image"]]
    assert notes[1].startswith(f"flickr8k-spoken: 1 of 5 files is missing, such as {wavs}/b_1.wav; their rows go on")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("wav2capt.txt", "a_0.wav a.jpg 0", "line 1: 'a_0.wav a.jpg 0' found, <wav> <image> #<number> expected"),
        ("wav2capt.txt", "a_0.wav #0", "line 1: 'a_0.wav #0' found"),
        ("wav2spk.txt", "a_0.wav 7\na_1.wav", "line 2: 'a_1.wav' found, <wav> <speaker> expected"),
    ],
)
def test_a_bad_line_of_the_speech_is_named(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    write_flickr8k(tmp_path)
    write_speech(tmp_path)
    (tmp_path / "flickr_audio" / name).write_text(content)
    assert refusal("flickr8k-spoken", tmp_path).startswith(f"{tmp_path}/flickr_audio/{name}, {sentence}")


def test_spoken_flickr8k_needs_its_list(tmp_path: Path) -> None:
    write_flickr8k(tmp_path)
    assert "no wav2capt.txt or flickr_audio/wav2capt.txt in it" in refusal("flickr8k-spoken", tmp_path)


def places(**more: object) -> dict[str, Any]:
    utterances = [
        {"wav": "wavs/1.wav", "image": "a/abbey/1.jpg", "asr_text": "an abbey", "speaker": "S1", "uttid": "u1"},
        {"wav": "wavs/2.wav", "image": "b/beach/2.jpg"},
    ]
    return {"image_base_path": "/lab/images/", "audio_base_path": "/lab/audio/", "data": utterances, **more}


def test_places_audio_has_a_row_an_utterance(tmp_path: Path) -> None:
    images, distro = tmp_path / "images", tmp_path / "distro"
    touch(images, "a/abbey/1.jpg", "b/beach/2.jpg")
    touch(distro, "wavs/1.wav", "wavs/2.wav")
    write_json(distro / "metadata" / "train.json", places(image_base_path=str(images)))
    write_json(distro / "metadata" / "dev_seen_2020.json", places(image_base_path=str(images)))
    first, second = images / "a/abbey/1.jpg", images / "b/beach/2.jpg"
    rows = read_rows([str(distro)])
    assert [row.split for row in rows] == ["val", "val", "train", "train"]
    assert rows[2:] == [
        Row(
            str(first),
            "train",
            files={"image": first, "speech": distro / "wavs/1.wav"},
            captions=("an abbey",),
            speaker="S1",
        ),
        Row(str(second), "train", files={"image": second, "speech": distro / "wavs/2.wav"}),
    ]


def test_places_lie_beside_their_metadata_where_the_base_path_is_of_another_machine(tmp_path: Path) -> None:
    touch(tmp_path, "audio/wavs/1.wav", "audio/wavs/2.wav", "images/a/abbey/1.jpg", "images/b/beach/2.jpg")
    write_json(tmp_path / "metadata" / "val.json", places())
    rows, notes = noted(tmp_path)
    assert [row.files["image"] for row in rows] == [
        tmp_path / "images" / name for name in ("a/abbey/1.jpg", "b/beach/2.jpg")
    ]
    assert rows[0].files["speech"] == tmp_path / "audio/wavs/1.wav"
    assert not notes


def test_places_fall_back_to_the_folder_of_the_json(tmp_path: Path) -> None:
    touch(tmp_path, "wavs/1.wav", "wavs/2.wav", "a/abbey/1.jpg")
    write_json(tmp_path / "val.json", places())
    rows, notes = noted(tmp_path / "val.json")
    assert [row.files["image"] for row in rows] == [tmp_path / "a/abbey/1.jpg"]
    assert notes == [
        f"places-audio: 1 of 4 files is missing, such as {tmp_path}/b/beach/2.jpg; their rows are left out"
    ]


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ([], ": list found, an object expected"),
        ({}, ": data is missing, a list expected; mend the file or fetch it again"),
        (places(data=[{"wav": "a.wav"}]), ", data 1: image is missing, a string expected"),
        (places(data=[{"wav": "a.wav", "image": 3}]), ", data 1: image is int '3', a string expected"),
        (places(data=[3]), ", data 1: int found, an object expected"),
    ],
)
def test_bad_places_are_named(tmp_path: Path, metadata: object, sentence: str) -> None:
    path = write_json(tmp_path / "train.json", metadata)
    assert refusal("places-audio", path).startswith(f"{path}{sentence}")
    assert "no train.json, val.json or others with a split's name" in refusal("places-audio", tmp_path / "nothing")


def test_karpathy_has_a_row_an_image(tmp_path: Path) -> None:
    touch(tmp_path / "flickr30k-images", "a.jpg", "b.jpg")
    write_json(tmp_path / "dataset_flickr30k.json", KARPATHY)
    a, b = (tmp_path / "flickr30k-images" / name for name in ("a.jpg", "b.jpg"))
    assert read_rows([str(tmp_path)]) == [
        Row(str(a), "train", files={"image": a}, captions=("A dog .", "It runs .")),
        Row(str(b), "val", files={"image": b}, captions=("A cat .", "It sleeps .")),
    ]


def test_restval_of_coco_is_train(tmp_path: Path) -> None:
    images = [
        {"filepath": "train2014", "filename": "a.jpg", "cocoid": 9, "split": "train", "sentences": [{"raw": "a"}]},
        {"filepath": "val2014", "filename": "b.jpg", "cocoid": 5, "split": "restval", "sentences": [{"raw": "b"}]},
    ]
    touch(tmp_path / "images", "train2014/a.jpg", "val2014/b.jpg")
    path = write_json(tmp_path / "data" / "dataset.json", {"images": images})
    rows = read_rows([str(path)])
    assert [(row.id, row.split) for row in rows] == [("coco:9", "train"), ("coco:5", "train")]
    assert rows[1].files == {"image": tmp_path / "images/val2014/b.jpg"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", ": not valid JSON (Expecting value: line 1 column 1 (char 0)); mend the file or fetch it again"),
        ("[1]", ": list found, an object expected"),
        ("{}", ": images is missing, a list expected"),
        ('{"images": {}}', ": images is dict '{}', a list expected"),
        ('{"images": [{}]}', ", images 1: split is missing, a string expected"),
        ('{"images": [{"split": "val", "filename": "a"}]}', ", images 1: sentences is missing, a list expected"),
        (
            '{"images": [{"split": "val", "filename": "a", "sentences": [{"raw": "x"}, {}]}]}',
            ", images 1, sentences 2: raw is missing, a string expected",
        ),
    ],
)
def test_a_bad_dataset_of_karpathy_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "dataset_coco.json"
    path.write_text(content)
    assert refusal("karpathy", path).startswith(f"{path}{sentence}")


def test_one_dataset_of_karpathy_is_read_at_a_time(tmp_path: Path) -> None:
    assert (
        "one of dataset.json, dataset_flickr*.json, dataset_coco*.json expected, none found; name the file"
        in refusal("karpathy", tmp_path)
    )
    touch(tmp_path, "dataset_coco.json", "dataset_flickr30k.json")
    assert "dataset_coco.json, dataset_flickr30k.json found; name the file" in refusal("karpathy", tmp_path)


def coco(*captions: tuple[int, str]) -> dict[str, Any]:
    annotations = [{"id": 1, "image_id": image, "caption": caption} for image, caption in captions]
    return {"images": [{"id": 5, "file_name": "5.jpg", "height": 4, "width": 4}], "annotations": annotations}


@pytest.mark.parametrize(("year", "images"), [(2014, "images/val2014"), (2017, "val2017")])
def test_coco_has_a_row_an_image(tmp_path: Path, year: int, images: str) -> None:
    touch(tmp_path / images, "5.jpg")
    write_json(tmp_path / "annotations" / f"captions_val{year}.json", coco((5, "A dog."), (5, "It runs. ")))
    write_json(tmp_path / "annotations" / f"captions_train{year}.json", coco())
    row = Row("coco:5", "val", files={"image": tmp_path / images / "5.jpg"}, captions=("A dog.", "It runs."))
    assert read_rows([str(tmp_path / "annotations" / f"captions_val{year}.json")]) == [row]
    notes: list[str] = []
    assert read_rows([str(tmp_path)], note=notes.append) == [row]
    assert len(notes) == 2


def test_the_years_of_coco_are_not_mixed(tmp_path: Path) -> None:
    for name in ("captions_train2017", "captions_val2014"):
        write_json(tmp_path / "annotations" / f"{name}.json", coco())
    assert "captions_train2017.json, captions_val2014.json share images across their splits" in refusal(
        "coco", tmp_path
    )
    assert "no captions_*.json in it or in annotations/" in refusal("coco", tmp_path / "annotations" / "x")


def test_a_missing_image_of_coco_is_counted(tmp_path: Path) -> None:
    annotated = coco((5, "A dog."), (6, "A cat."))
    annotated["images"].append({"id": 6, "file_name": "6.jpg"})
    path = write_json(tmp_path / "captions_val2014.json", annotated)
    touch(tmp_path / "val2014", "6.jpg")
    rows, notes = noted(path)
    assert [row.id for row in rows] == ["coco:6"]
    assert notes == [f"coco: 1 of 2 files is missing, such as {tmp_path}/val2014/5.jpg; their rows are left out"]


@pytest.mark.parametrize(
    ("annotated", "sentence"),
    [
        ([], ": list found, an object expected"),
        ({"images": []}, ": annotations is missing, a list expected"),
        ({"images": [{"id": 5}], "annotations": []}, ", images 1: file_name is missing, a string expected"),
        (coco((7, "x")), ": an annotation is of image 7, which is not among images; fetch the file again"),
        ({"images": [], "annotations": [{"image_id": 5}]}, ", annotations 1: caption is missing, a string expected"),
        (
            {"images": [], "annotations": [{"image_id": [5]}]},
            ", annotations 1: image_id is list '[5]', a string expected",
        ),
    ],
)
def test_bad_captions_of_coco_are_named(tmp_path: Path, annotated: object, sentence: str) -> None:
    path = write_json(tmp_path / "captions_val2014.json", annotated)
    assert refusal("coco", path).startswith(f"{path}{sentence}")


def region(phrase: str, x: float = 1, **more: object) -> dict[str, Any]:
    return {"region_id": 4, "image_id": 1, "phrase": phrase, "x": x, "y": 2, "width": 30, "height": 4.5, **more}


def test_visual_genome_has_a_row_an_image_with_the_boxes_of_its_phrases(tmp_path: Path) -> None:
    touch(tmp_path, "VG_100K/2.jpg", "VG_100K_2/1.jpg")
    regions = [{"id": 1, "regions": [region("a dog"), region(" "), region("its tail ", x=7)]}, {"id": 2, "regions": []}]
    write_json(tmp_path / "region_descriptions.json", [*regions, {"id": 2, "regions": [region("a cat")]}])
    write_json(tmp_path / "image_data.json", [{"image_id": 1, "coco_id": 391895}, {"image_id": 2, "coco_id": None}])
    cat = tmp_path / "VG_100K/2.jpg"
    assert read_rows([str(tmp_path)]) == [
        Row(
            "coco:391895",
            "train",
            files={"image": tmp_path / "VG_100K_2/1.jpg"},
            captions=("a dog", "its tail"),
            boxes=((1.0, 2.0, 30.0, 4.5), (7.0, 2.0, 30.0, 4.5)),
        ),
        Row(str(cat), "train", files={"image": cat}, captions=("a cat",), boxes=((1.0, 2.0, 30.0, 4.5),)),
    ]


def test_visual_genome_tells_the_size_that_its_boxes_are_in_pixels_of(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    write_json(tmp_path / "region_descriptions.json", [{"id": n, "regions": [region("a dog")]} for n in (1, 2)])
    path = write_json(tmp_path / "image_data.json", [{"image_id": 2, "coco_id": None, "width": 800, "height": 600}])
    assert [row.size for row in read_rows([f"visual-genome:{tmp_path}"])] == [None, (800, 600)]
    write_json(path, [{"image_id": 2, "width": 0, "height": 600}])
    assert refusal("visual-genome", tmp_path).startswith(f"{path}, record 1: 0x600 pixels found")


@pytest.mark.parametrize("name", ["captions_val2014.json", "annotations/instances_val2014.json"])
def test_images_of_visual_genome_that_are_in_val2014_of_coco_are_val(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *(f"VG_100K/{n}.jpg" for n in range(1, 41)), name)
    images = [{"id": n, "regions": [region("a dog")]} for n in range(1, 41)]
    write_json(tmp_path / "region_descriptions.json", images)
    write_json(
        tmp_path / "image_data.json", [{"image_id": n, "coco_id": 100 + n if n < 4 else None} for n in range(1, 41)]
    )
    write_json(tmp_path / name, {"images": [{"id": 102}, {"id": 103}, {"id": 2}]})
    of_val = [row.files["image"].stem for row in read_rows([f"visual-genome:{tmp_path}"]) if row.split == "val"]
    assert of_val == ["2", "3"]


def test_a_missing_image_of_visual_genome_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    write_json(tmp_path / "region_descriptions.json", [{"id": n, "regions": [region("a dog")]} for n in (1, 2)])
    rows, notes = noted(tmp_path)
    assert [row.files["image"].name for row in rows] == ["1.jpg"]
    assert len(notes) == 1
    assert notes[0].startswith("visual-genome: 1 of 2 files is missing, such as ")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ({}, ": a JSON list expected, { found"),
        ([{"id": 1}], ", record 1: regions is missing, a list expected"),
        ([{"regions": []}], ", record 1: id is missing, a string expected"),
        ([{"id": 1, "regions": [{"phrase": "x"}]}], ", record 1, regions 1: x is missing, a number expected"),
        (
            [{"id": 1, "regions": [region("x", x=float("nan"))]}],
            ", record 1, regions 1: x is float 'nan', a number expe",
        ),
    ],
)
def test_bad_regions_are_named(tmp_path: Path, images: object, sentence: str) -> None:
    path = write_json(tmp_path / "region_descriptions.json", images)
    assert refusal("visual-genome", tmp_path).startswith(f"{path}{sentence}")


def person(number: int, split: str, *captions: str) -> dict[str, Any]:
    return {"split": split, "captions": [*captions], "file_path": f"CUHK01/{number}.png", "id": number // 2}


def test_the_label_of_pedes_is_the_person(tmp_path: Path) -> None:
    touch(tmp_path / "imgs", "CUHK01/2.png", "CUHK01/3.png")
    write_json(tmp_path / "reid_raw.json", [person(2, "train", "A man", "He "), person(3, "test", "A man")])
    rows = read_rows([str(tmp_path)])
    image = tmp_path / "imgs/CUHK01/2.png"
    assert rows[0] == Row(str(image), "train", "person 1", {"image": image}, ("A man", "He"))
    assert (rows[1].label, rows[1].split) == ("person 1", "test")
    assert rows[0].key == rows[1].key


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({}, ": a JSON list expected, { found"),
        ([person(1, "val"), {}], ", record 2: file_path is missing, a string expected"),
        ([{**person(1, "val"), "captions": [1]}], ", record 1: captions are a string or a list of strings"),
        ([{**person(1, "val"), "id": None}], ", record 1: id is NoneType 'None', a string expected"),
    ],
)
def test_bad_people_are_named(tmp_path: Path, records: object, sentence: str) -> None:
    path = write_json(tmp_path / "reid_raw.json", records)
    assert refusal("cuhk-pedes", tmp_path).startswith(f"{path}{sentence}")


def test_a_missing_photograph_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "imgs", "CUHK01/2.png")
    write_json(tmp_path / "reid_raw.json", [person(2, "train", "A man"), person(3, "train", "A man")])
    rows, notes = noted(tmp_path)
    assert len(rows) == 1
    assert notes == [
        f"cuhk-pedes: 1 of 2 files is missing, such as {tmp_path}/imgs/CUHK01/3.png; their rows are left out"
    ]
    assert "no reid_raw.json in it; name the file" in refusal("cuhk-pedes", tmp_path / "imgs")


def t7_string(text: bytes) -> bytes:
    return struct.pack("<i", len(text)) + text


def t7_tensor(index: int, kind: bytes, array: NDArray[Any], stride: int = 0) -> bytes:
    """A tensor and its storage, as Torch 7 writes them: objects are numbered, sizes are long, offsets from 1."""
    strides = [stride or step // array.itemsize for step in array.strides]
    head = struct.pack("<ii", 4, index) + t7_string(b"V 1") + t7_string(b"torch." + kind + b"Tensor")
    shape = struct.pack(f"<i{2 * array.ndim + 1}q", array.ndim, *array.shape, *strides, 1)
    storage = struct.pack("<ii", 4, index + 1) + t7_string(b"V 1") + t7_string(b"torch." + kind + b"Storage")
    return head + shape + storage + struct.pack("<q", array.size) + array.tobytes()


def t7_captions(sentences: list[str], **other: bytes) -> bytes:
    """A caption table with `char` as the first and `txt` as the last of its values."""
    letters = np.zeros((201, len(sentences)), np.uint8)
    for column, sentence in enumerate(sentences):
        letters[: len(sentence), column] = [ALPHABET.index(letter) + 1 for letter in sentence]
    values = {
        "char": t7_tensor(2, b"Byte", letters),
        "img": struct.pack("<i", 2) + t7_string(b"001.Albatross/a.jpg"),
        "word": t7_tensor(4, b"Byte", np.zeros((30, len(sentences)), np.uint8)),
        "txt": t7_tensor(6, b"Float", np.zeros((len(sentences), 4), np.float32)),
        **other,
    }
    return t7_table(values)


def t7_table(values: dict[str, bytes]) -> bytes:
    body = b"".join(struct.pack("<i", 2) + t7_string(key.encode()) + value for key, value in values.items())
    return struct.pack("<iii", 3, 1, len(values)) + body


SENTENCES = [f"a bird with {number} long-ish wings; it's grey (70%)." for number in range(10)]


def write_cub(root: Path) -> Path:
    """Two classes with an image each, and manifests as published: no newline at the end."""
    for name, stem in (("001.Albatross", "a"), ("101.Pelican", "b")):
        touch(root / "images" / name, f"{stem}.jpg")
        (root / "cub_icml" / name).mkdir(parents=True)
        (root / "cub_icml" / name / f"{stem}.t7").write_bytes(t7_captions(SENTENCES))
    (root / "train.txt").write_text("1 001.Albatross")
    (root / "val.txt").write_text("101 101.Pelican\n\n102 102.Beyond")
    (root / "train_val.txt").write_text("1 001.Albatross\n101 101.Pelican")
    return root


def test_cub_has_a_row_an_image_with_ten_sentences_and_its_species(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "CUB_200_2011")
    a, b = root / "images/001.Albatross/a.jpg", root / "images/101.Pelican/b.jpg"
    assert read_rows([str(tmp_path)]) == [
        Row(str(a), "train", files={"image": a}, captions=tuple(SENTENCES), category="001.Albatross"),
        Row(str(b), "val", files={"image": b}, captions=tuple(SENTENCES), category="101.Pelican"),
    ]


def test_every_letter_of_the_alphabet_is_read(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    assert (len(ALPHABET), ALPHABET[:3], ALPHABET[36], ALPHABET[59], ALPHABET[69]) == (70, "abc", "-", "-", " ")
    letters = np.zeros((201, 2), np.uint8)
    letters[:70, 0] = range(1, 71)
    letters[:, 1] = 1  # a sentence that fills its column
    content = t7_captions(SENTENCES, char=t7_tensor(2, b"Byte", letters))
    (root / "cub_icml/001.Albatross/a.t7").write_bytes(content)
    assert DATASETS["cub"](root)[0].captions == (ALPHABET.strip(), "a" * 201)


def test_images_without_captions_and_captions_without_image_are_named(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    touch(root / "images/001.Albatross", "lonely.jpg")
    (root / "images/101.Pelican/b.jpg").unlink()
    rows, notes = noted(root)
    assert [row.category for row in rows] == ["001.Albatross"]
    assert notes == [
        f"cub: images without a .t7 of captions: 1, such as {root}/images/001.Albatross/lonely.jpg; they are left out",
        f"cub: 1 of 2 files is missing, such as {root}/images/101.Pelican/b.jpg; their rows are left out",
    ]


def test_train_val_stands_for_a_missing_train(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    (root / "train.txt").unlink()
    (root / "val.txt").unlink()
    assert [row.split for row in DATASETS["cub"](root)] == ["train", "train"]


NINE_LETTERS = t7_tensor(2, b"Byte", np.ones((9, 1), np.uint8))


def with_char(value: bytes) -> Callable[[bytes], bytes]:
    return lambda content: t7_captions(SENTENCES, char=value)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: b"", "no Torch 7 table that can be read"),
        (lambda content: b"\xff" * 100, "no Torch 7 table that can be read"),
        (lambda content: t7_table({"char": NINE_LETTERS})[:-5], "`char` is cut short"),
        (lambda content: content[:1500], "no Torch 7 table that can be read"),
        (
            with_char(struct.pack("<i", 2) + t7_string(b"no tensor")),
            "no ByteTensor `char` of letters and sentences in it",
        ),
        (with_char(t7_tensor(2, b"Float", np.ones((3, 1), np.float32))), "no ByteTensor `char`"),
        (with_char(t7_tensor(2, b"Byte", np.full((3, 1), 71, np.uint8))), "letter 71 found, there are 70"),
        (with_char(t7_tensor(2, b"Byte", np.ones((3, 1), np.uint8), stride=1 << 40)), "`char` is cut short"),
    ],
    ids=[
        "empty",
        "noise",
        "cut at the end",
        "cut in the letters",
        "a string",
        "floats",
        "letter",
        "beyond its storage",
    ],
)
def test_a_damaged_caption_table_is_left_out_and_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    path = write_cub(tmp_path) / "cub_icml/001.Albatross/a.t7"
    n_whole = len(read_rows([str(tmp_path)]))
    path.write_bytes(damage(path.read_bytes()))
    rows, notes = noted(tmp_path)
    assert len(rows) == n_whole - 1
    assert notes[0].startswith(f"cub: tables of captions that are left out: 1, such as {path}: {sentence}")
    for other in path.parent.parent.rglob("*.t7"):
        other.write_bytes(path.read_bytes())
    assert "/cub_icml/" in refusal("cub", tmp_path)


@pytest.mark.parametrize(
    ("name", "manifest", "sentence"),
    [
        ("train.txt", "001.Albatross", "train.txt, line 1: '001.Albatross' found, <id> <class folder> expected"),
        ("train.txt", "1 ../001.Albatross", "train.txt, line 1: '1 ../001.Albatross' found"),
        (
            "val.txt",
            "9 9.Owl\n1 001.Albatross",
            "val.txt, line 2: 001.Albatross is in train as well; a class belongs to",
        ),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, name: str, manifest: str, sentence: str) -> None:
    (write_cub(tmp_path) / name).write_text(manifest)
    assert refusal("cub", tmp_path).startswith(f"{tmp_path}/{sentence}")


def test_cub_needs_captions_and_manifests(tmp_path: Path) -> None:
    assert "no cub_icml/ with captions in it" in refusal("cub", tmp_path)
    (tmp_path / "cub_icml").mkdir()
    assert "no classes in train.txt, val.txt or test.txt" in refusal("cub", tmp_path)
