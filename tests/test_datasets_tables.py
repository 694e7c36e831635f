"""Pairs as CSV and Parquet, media inside Parquet tables, and folders as Hugging Face lays them out."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from xmr.engine.errors import XmrError
from xmr.train.datasets import DATASETS, Row, read_rows
from xmr.train.datasets.records import json_list

PNG, WAV = b"\x89PNG a picture", b"RIFF....WAVE a sound"


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def write_metadata(folder: Path, *records: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    for record in records:
        (folder / record["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / record["file_name"]).touch()


def is_val(key: str) -> bool:
    return int(sha256(key.encode()).hexdigest()[:16], 16) % 20 == 0


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_a_line_of_csv_is_a_row(tmp_path: Path, suffix: str, comma: str) -> None:
    lines = [
        ["image", "sound", "caption", "captions", "split", "label", "id"],
        ["a.png", "", "a dog", "", "valid", "", "7"],
        ["b.png", "b.wav", "", '"[""a, cat"", ""it""]"', "", "cat", ""],
        ["c.png", "", "", "one caption", "", "", ""],
    ]
    path = tmp_path / f"pairs{suffix}"
    path.write_text("\ufeff" + "".join(comma.join(line) + "\r\n" for line in lines), encoding="utf-8")
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    assert DATASETS["pairs"](tmp_path) == [
        Row("7", "val", files={"image": a}, captions=("a dog",)),
        Row(str(b), "train", "cat", {"image": b, "sound": tmp_path / "b.wav"}, ("a, cat", "it")),
        Row(str(c), "train", files={"image": c}, captions=("one caption",)),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("image,caption\na.png\n", "line 2: image found, a pair expected"),
        ("image,caption\na.png,a dog, it\n", "line 2: more cells than the header has; put cells with commas in quotes"),
        ('image,caption\na.png,"a dog" x\n', "line 2: not valid CSV ("),
        ("image,captions\na.png,[1\n", "line 2: not valid JSON ("),
        ("image;caption\na.png;a dog\n", "line 2: nothing found, a pair expected"),
        ("image,caption\n", ": no rows in it"),
    ],
)
def test_a_bad_line_of_csv_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(XmrError) as error:
        DATASETS["pairs"](tmp_path / "pairs.csv")
    assert f"{tmp_path}/pairs.csv{'' if sentence.startswith(':') else ', '}{sentence}" in str(error.value)


def test_another_suffix_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "pairs.xlsx").touch()
    with pytest.raises(XmrError, match=r"pairs.xlsx: pairs are read from .jsonl, .csv, .tsv, .parquet; rename it"):
        DATASETS["pairs"](tmp_path / "pairs.xlsx")


def test_a_record_of_parquet_is_a_row(tmp_path: Path) -> None:
    columns = {
        "image": ["a.png", "b.png"],
        "captions": [["a dog", "it"], None],
        "sound": [None, "b.wav"],
        "id": [1, 2],
        "vector": [[0.5, 1.0], [2.0, 3.0]],
    }
    path = write_parquet(tmp_path / "pairs.parquet", columns)
    assert DATASETS["pairs"](path) == [
        Row("1", "train", files={"image": tmp_path / "a.png"}, captions=("a dog", "it")),
        Row("2", "train", files={"image": tmp_path / "b.png", "sound": tmp_path / "b.wav"}),
    ]


def test_media_inside_parquet_become_files_of_the_cache(tmp_path: Path) -> None:
    columns = {
        "image": [{"bytes": PNG, "path": "x.jpg"}, {"bytes": PNG, "path": None}, {"bytes": None, "path": "c.png"}],
        "sound": [WAV, WAV, None],
        "caption": ["a", "b", "c"],
    }
    path = write_parquet(tmp_path / "pairs.parquet", columns)
    first, second, third = DATASETS["pairs"](path, tmp_path / "cache")
    assert [row.files["image"].suffix for row in (first, second)] == [".jpg", ".png"]
    assert [row.files["image"].read_bytes() for row in (first, second)] == [PNG, PNG]
    assert [row.files["sound"].read_bytes() for row in (first, second)] == [WAV, WAV]
    assert third.files == {"image": tmp_path / "c.png"}
    assert first.files["image"].is_relative_to(tmp_path / "cache")


def test_a_table_may_hold_nothing_but_media(tmp_path: Path) -> None:
    write_parquet(tmp_path / "pairs.parquet", {"image": [PNG, PNG], "sound": [WAV, None]})
    with pytest.raises(XmrError, match=r"pairs.parquet, record 2: image found, a pair expected"):
        DATASETS["pairs"](tmp_path, tmp_path / "cache")
    write_parquet(tmp_path / "pairs.parquet", {"image": [PNG, PNG], "sound": [WAV, WAV]})
    rows = DATASETS["pairs"](tmp_path, tmp_path / "cache")
    assert [row.modalities for row in rows] == [["image", "sound"]] * 2


def test_media_are_unpacked_once_and_again_when_one_is_gone_or_the_table_changes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", {"image": [PNG], "caption": ["a"]})
    read = lambda: DATASETS["pairs"](path, tmp_path / "cache")[0].files["image"]  # noqa: E731
    file = read()
    file.write_bytes(b"seen")
    assert read().read_bytes() == b"seen"
    file.unlink()
    assert read().read_bytes() == PNG
    write_parquet(path, {"image": [PNG + b"!"], "caption": ["a"]})
    assert read() != file
    assert read().read_bytes() == PNG + b"!"


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", {"image": [PNG, PNG + b"!"], "caption": ["a", "b"]})
    write_bytes = Path.write_bytes

    def stop_at_the_second(file: Path, content: bytes) -> int:
        if content != PNG:
            raise OSError(28, "No space left on device")
        return write_bytes(file, content)

    monkeypatch.setattr(Path, "write_bytes", stop_at_the_second)
    with pytest.raises(XmrError, match=r"pairs.parquet: cannot be unpacked into .* \(No space left on device\)"):
        DATASETS["pairs"](path, tmp_path / "cache")
    assert list((tmp_path / "cache" / "unpacked").iterdir()) == []


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(b"no table")
    with pytest.raises(XmrError, match=r"pairs.parquet: no Parquet table that can be read \(.*\); fetch it again"):
        DATASETS["pairs"](tmp_path)


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", {"image": ["a.png"], "caption": ["a"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(XmrError, match=r"read with pyarrow, which is not installed; pip install 'xmr\[train\]'"):
        DATASETS["pairs"](path)


def test_metadata_tell_what_the_files_beside_them_show(tmp_path: Path) -> None:
    write_metadata(
        tmp_path / "train",
        {"file_name": "a.png", "text": "a dog", "label": 3},
        {"file_name": "b.wav", "image_file_name": "b.png", "caption": "it barks"},
        {"file_name": "c.wav", "image_file_name": "c.png", "transcription": "hello", "speaker_id": 4},
    )
    write_metadata(tmp_path / "validation", {"file_name": "sub/d.png", "captions": ["one", "two"]})
    train, val = tmp_path / "train", tmp_path / "validation"
    assert DATASETS["huggingface"](tmp_path) == [
        Row(str(train / "a.png"), "train", files={"image": train / "a.png"}, captions=("a dog",), category="3"),
        Row(str(train / "b.png"), "train", None, {"sound": train / "b.wav", "image": train / "b.png"}, ("it barks",)),
        Row(
            str(train / "c.png"),
            "train",
            files={"speech": train / "c.wav", "image": train / "c.png"},
            captions=("hello",),
            speaker="4",
        ),
        Row(str(val / "sub/d.png"), "val", files={"image": val / "sub/d.png"}, captions=("one", "two")),
    ]


def test_metadata_may_name_files_in_the_folders_of_splits(tmp_path: Path) -> None:
    write_metadata(tmp_path, {"file_name": "train/a.png", "text": "a"}, {"file_name": "test/b.png", "text": "b"})
    assert [row.split for row in read_rows([str(tmp_path)])] == ["train", "test"]


def test_without_named_splits_every_twentieth_item_is_val(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(100)]
    write_metadata(tmp_path, *({"file_name": name, "text": name} for name in names))
    rows = read_rows([str(tmp_path)])
    assert [row.split == "val" for row in rows] == [is_val(name) for name in names]
    assert 0 < sum(map(is_val, names)) < 12


def test_the_tables_of_a_dataset_hold_its_media(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        columns = {"image": [{"bytes": PNG, "path": "a.png"}], "text": [name], "label": [2]}
        write_parquet(tmp_path / "data" / f"{name}.parquet", columns)
    rows = read_rows([str(tmp_path)], tmp_path / "cache")
    assert [(row.split, row.captions[0][:5], row.category) for row in rows] == [
        ("train", "train", "2"),
        ("val", "valid", "2"),
    ]
    assert [row.files["image"].read_bytes() for row in rows] == [PNG, PNG]


def test_a_missing_file_of_metadata_is_counted(tmp_path: Path) -> None:
    write_metadata(tmp_path, {"file_name": "a.png", "text": "a"}, {"file_name": "b.png", "text": "b"})
    (tmp_path / "b.png").unlink()
    notes: list[str] = []
    assert len(read_rows([str(tmp_path)], note=notes.append)) == 1
    assert notes == [f"huggingface: 1 of 2 files is missing, such as {tmp_path}/b.png; their rows are left out"]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"file_name": "a.png", "image_file_name": "b.png"}, "line 1: two files of image, a.png and b.png; keep one"),
        ({"file_name": "a.png", "captions": [1]}, "line 1: captions are a string or a list of strings"),
        ({"file_name": "a\0.png", "text": "a"}, "line 1: a path that no file can have (embedded null byte)"),
        ([1], "line 1: list found, an object expected"),
    ],
)
def test_bad_metadata_are_named(tmp_path: Path, record: object, sentence: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps(record))
    with pytest.raises(XmrError) as error:
        DATASETS["huggingface"](tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/metadata.jsonl, {sentence}")


def test_a_folder_of_images_alone_pairs_nothing(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.png").touch()
    with pytest.raises(XmrError, match=r"no metadata.jsonl, .*metadata.parquet and no Parquet table in it"):
        DATASETS["huggingface"](tmp_path)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 20])
def test_a_json_list_is_read_a_piece_at_a_time(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmr.train.datasets.records.CHUNK", chunk)
    records = [{"id": 12345, "text": 'a ] "dog" \\', "list": [1.5, {"x": None}]}, {}, {"é": True}]
    (tmp_path / "a.json").write_text("\ufeff " + json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")
    assert [record for _, record in json_list(tmp_path / "a.json")] == records


@pytest.mark.parametrize("content", ["[]", " [ ] \n"])
def test_an_empty_json_list_has_no_records(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert list(json_list(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", ": a JSON list expected, nothing found"),
        ('{"images": []}', ": a JSON list expected, { found"),
        ("[{}, 3]", ", record 2: int found, an object expected"),
        ("[{}, {", ", record 2: not valid JSON (Expecting property name enclosed in double quotes)"),
        ("[{}", ", record 2: not valid JSON (a comma or ] is missing)"),
        ("[{} {}]", ", record 2: not valid JSON (a comma or ] is missing)"),
        ("[{}] x", ", record 2: not valid JSON (something follows the list)"),
        ("[" * 100_000, ", record 1: not valid JSON (maximum recursion depth exceeded"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_json_list_is_named_by_file_and_record(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(XmrError) as error:
        list(json_list(tmp_path / "a.json"))
    assert str(error.value).startswith(f"{tmp_path}/a.json{sentence}")
