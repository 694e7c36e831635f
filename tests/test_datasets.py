"""Rows of pairs.jsonl, of several sources and of sources without names; and what is said where they are wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from xmr.engine.errors import XmrError
from xmr.train.datasets import DATASETS, Row, read_pairs, read_rows, select, split_source

GOOD = {"image": "a.png", "captions": ["a dog"]}


def write_lines(folder: Path, *lines: object) -> Path:
    path = folder / "pairs.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def read_one(folder: Path, line: object) -> Row:
    [row] = read_pairs(write_lines(folder, line))
    return row


def test_a_full_row_is_read_whole(tmp_path: Path) -> None:
    line = {"id": 7, "label": "dog", "split": "val", "image": "a.png", "sound": "/b.wav", "captions": ["a dog", "it"]}
    assert read_one(tmp_path, line | {"category": "pet", "speaker": 3}) == Row(
        id="7",
        split="val",
        label="dog",
        files={"image": tmp_path / "a.png", "sound": Path("/b.wav")},
        captions=("a dog", "it"),
        category="pet",
        speaker="3",
    )


def test_a_row_without_a_split_is_a_train_row_with_its_image_as_id(tmp_path: Path) -> None:
    row = read_one(tmp_path, {"sound": "b.wav", "image": "sub/../a.png"})
    assert (row.split, row.id, row.label) == ("train", str(tmp_path / "a.png"), None)


def test_without_an_image_the_first_file_is_the_id(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"speech": "b.wav", "captions": ["a dog"]}).id == str(tmp_path / "b.wav")


@pytest.mark.parametrize(
    ("line", "key"),
    [(GOOD | {"id": "x"}, "x"), (GOOD | {"id": "x", "label": "dog"}, "label:dog"), (GOOD | {"label": 0}, "label:0")],
)
def test_the_label_decides_what_is_a_right_answer_else_the_id(tmp_path: Path, line: dict[str, Any], key: str) -> None:
    assert read_one(tmp_path, line).key == key


@pytest.mark.parametrize(
    ("line", "modalities"),
    [
        ({"image": "a.png", "sound": "b.wav"}, ["image", "sound"]),
        ({"image": "a.png", "sound": None, "caption": "a dog"}, ["image", "text"]),
        ({"speech": "b.wav", "captions": ["a", "b"], "note": 3}, ["speech", "text"]),
        ({"image": "a.png", "sound": "b.wav", "captions": []}, ["image", "sound"]),
    ],
)
def test_a_row_has_the_modalities_that_its_line_names(
    tmp_path: Path, line: dict[str, Any], modalities: list[str]
) -> None:
    assert read_one(tmp_path, line).modalities == modalities


@pytest.mark.parametrize(
    ("line", "captions"),
    [
        ({"captions": [" a dog\n", "", " \t", "it runs"]}, ("a dog", "it runs")),
        ({"captions": "a dog"}, ("a dog",)),
        ({"captions": [], "caption": "a dog "}, ("a dog",)),
        ({"captions": ["it runs"], "caption": "a dog"}, ("it runs",)),
    ],
)
def test_captions_are_a_string_or_several_without_the_blank_ones(
    tmp_path: Path, line: dict[str, Any], captions: tuple[str, ...]
) -> None:
    assert read_one(tmp_path, line | {"image": "a.png"}).captions == captions


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    assert len(read_pairs(write_lines(tmp_path, GOOD, "", "   ", GOOD))) == 2


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path, GOOD)
    assert read_pairs(tmp_path) == read_pairs(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"image": "a.png", ', "not valid JSON (Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "not valid JSON (maximum recursion depth exceeded"),
        ([1, 2], "list found, an object expected"),
        ("null", "NoneType found, an object expected"),
        ({}, "nothing found, a pair expected"),
        ({"captions": ["a dog"]}, "captions found, a pair expected"),
        ({"caption": "a dog"}, "captions found, a pair expected"),
        ({"image": "a.png"}, "image found, a pair expected"),
        ({"image": "a.png", "captions": []}, "image found, a pair expected"),
        ({"image": "a.png", "captions": [" "]}, "image found, a pair expected"),
        ({"image": "a.png", "captions": ["a dog", 3]}, "captions are a string or a list of strings; mend the record"),
        ({"image": "a.png", "caption": {"en": "a dog"}}, "captions are a string or a list of strings"),
        ({"image": 3, "captions": ["a dog"]}, "strings expected as paths; mend the line"),
        ({"image": ["a.png"], "sound": "b.wav"}, "strings expected as paths"),
        ({"image": "a\0.png", "sound": "b.wav"}, "a path that no file can have (embedded null byte); mend the line"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: object, sentence: str) -> None:
    path = write_lines(tmp_path, GOOD, "", line)
    with pytest.raises(XmrError) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}, line 3: {sentence}")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(XmrError, match=r"pairs.jsonl: no rows in it; write one JSON object a line"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("name", ["other.jsonl", "no-folder", "."])
def test_a_missing_source_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(XmrError, match=r"no such file; give --data a pairs.jsonl or a folder that holds one"):
        read_pairs(tmp_path / name)


def test_the_rows_of_several_sources_follow_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
        write_lines(folder, {"id": folder.name, "image": "../a.png", "caption": "a dog"})
    assert [row.id for row in read_rows([str(first), str(second)])] == ["first", "second"]


def read_noting(source: object) -> tuple[list[Row], list[str]]:
    notes: list[str] = []
    return read_rows([str(source)], note=notes.append), notes


def test_rows_whose_media_are_missing_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_lines(tmp_path, GOOD, {"image": "b.png", "sound": "c.wav"})
    rows, notes = read_noting(tmp_path)
    assert [row.id for row in rows] == [str(tmp_path / "a.png")]
    assert notes == [f"pairs: 2 of 3 files are missing, such as {tmp_path}/b.png; their rows are left out"]


def test_a_row_goes_on_without_a_missing_file_where_it_still_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_lines(tmp_path, GOOD | {"sound": "b.wav"}, {"image": "a.png", "sound": "c.wav"}, GOOD)
    rows, notes = read_noting(tmp_path)
    assert [(list(row.files), row.captions) for row in rows] == [(["image"], ("a dog",))] * 2
    assert notes == [
        f"pairs: 2 of 3 files are missing, such as {tmp_path}/b.wav; their rows go on without them, but for 1 left out"
    ]


def test_rows_of_a_split_that_nobody_knows_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_lines(tmp_path, GOOD, GOOD | {"split": "vall"}, GOOD | {"split": "vall"})
    _, notes = read_noting(tmp_path)
    assert notes == ["pairs: 2 of 3 rows are of the split 'vall', and are not used; splits are train, val, test"]


def test_files_that_are_all_there_are_no_news(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_lines(tmp_path, GOOD)
    assert read_noting(tmp_path)[1] == []


def test_a_source_of_which_nothing_is_there_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path, GOOD, {"image": "b.png", "sound": "c.wav"})
    with pytest.raises(XmrError) as error:
        read_rows([str(tmp_path)])
    assert str(error.value) == f"{tmp_path}: 3 of 3 files are missing, such as {tmp_path}/a.png; mend --data"


def test_a_folder_and_a_broken_link_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    write_lines(tmp_path, *({"image": f"{name}.png", "caption": "a"} for name in ("folder", "link", "broken")))
    assert [row.files["image"].name for row in read_noting(tmp_path)[0]] == ["link.png"]


def test_many_files_of_a_folder_are_looked_up_in_one_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number}.png").touch()
    write_lines(tmp_path, *({"image": f"{number}.png", "caption": "a"} for number in range(50)))
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    monkeypatch.setattr(Path, "is_file", lambda path: path.name == "pairs.jsonl")
    assert len(read_noting(f"pairs:{tmp_path}")[0]) == 50
    assert listed == [str(tmp_path)]


def test_a_split_is_made_of_rows_that_pair_two_of_the_modalities(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path,
        {"id": 1, "image": "a.png", "caption": "a dog"},
        {"id": 2, "image": "a.png", "sound": "b.wav"},
        {"id": 3, "image": "a.png", "sound": "b.wav", "caption": "a dog", "split": "val"},
        {"id": 4, "image": "a.png", "sound": "b.wav", "caption": "a dog"},
    )
    selected = select(read_pairs(path), "train", ["image", "text", "speech"])
    assert [row.id for row in selected] == ["1", "4"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("validation", "val"), ("Valid", "val"), ("dev", "val"), ("testing", "test"), ("training", "train"), ("x", "x")],
)
def test_splits_get_the_names_that_we_use(tmp_path: Path, name: str, split: str) -> None:
    assert read_one(tmp_path, GOOD | {"split": name}).split == split


def test_the_sound_of_spoken_pairs_is_speech(tmp_path: Path) -> None:
    path = write_lines(tmp_path, {"image": "a.png", "sound": "b.wav", "caption": "a dog", "speaker": "x"})
    [row] = DATASETS["spoken-pairs"](path)
    assert row.files == {"image": tmp_path / "a.png", "speech": tmp_path / "b.wav"}
    assert (row.captions, row.speaker) == (("a dog",), "x")


def test_spoken_pairs_have_no_sound_beside_their_speech(tmp_path: Path) -> None:
    path = write_lines(tmp_path, {"image": "a.png", "sound": "b.wav", "speech": "c.wav"})
    with pytest.raises(XmrError, match=r"a.png has sound and speech; in spoken pairs the sound is the speech"):
        DATASETS["spoken-pairs"](path)


@pytest.mark.parametrize(
    ("source", "name", "path"),
    [
        ("/data/pairs.jsonl", None, "/data/pairs.jsonl"),
        ("flickr8k:/data/Flickr8k", "flickr8k", "/data/Flickr8k"),
        ("flickr8k:a:b", "flickr8k", "a:b"),
        ("pairs:rows.jsonl", "pairs", "rows.jsonl"),
        ("C:\\data", None, "C:\\data"),
        ("flikr8k:/data", None, "flikr8k:/data"),
        ("/a/flickr8k:b", None, "/a/flickr8k:b"),
    ],
)
def test_a_source_may_begin_with_the_name_of_a_dataset(source: str, name: str | None, path: str) -> None:
    assert split_source(source) == (name, Path(path))


def test_a_colon_may_be_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "flikr8k:").mkdir()
    (tmp_path / "flikr8k:" / "a.png").touch()
    write_lines(tmp_path / "flikr8k:", GOOD)
    assert len(read_noting(tmp_path / "flikr8k:")[0]) == 1


@pytest.mark.parametrize("source", ["flikr8k:/nowhere", "/data/flikr8k:x"])
def test_an_unknown_name_is_answered_with_the_known_ones(source: str) -> None:
    with pytest.raises(XmrError) as error:
        read_rows([source])
    start, names = str(error.value).split("; there are ")
    assert start == f"{source}: dataset 'flikr8k' is unknown"
    assert names.split(", ")[0] == "flickr8k"
    assert sorted(names.split(", ")) == sorted(DATASETS)


@pytest.mark.parametrize("source", ["nowhere", "flickr8k:nowhere", "no\0where", "x" * 300])
def test_a_source_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(XmrError, match=r": no such file or folder; give --data a pairs.jsonl, a folder that holds one"):
        read_rows([source])


def test_a_folder_that_says_nothing_is_answered_with_the_known_names(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(XmrError, match=rf"{tmp_path}: no dataset that is known; write name:path with a name of pairs,"):
        read_rows([str(tmp_path)])


@pytest.mark.parametrize("name", DATASETS)
def test_every_reader_refuses_what_it_cannot_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no dataset")
    for source in ("empty", "notes.txt"):
        with pytest.raises(XmrError, match=r"(empty|notes.txt).*; \w+"):
            read_rows([f"{name}:{tmp_path / source}"], tmp_path / "cache", lambda sentence: None)


def test_rows_that_never_paired_anything_are_counted_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    lines = [{"file_name": "a.png", "text": "a dog"}, {"file_name": "b.png"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, notes = read_noting(tmp_path)
    assert [row.captions for row in rows] == [("a dog",)]
    assert notes == [f"huggingface: 1 of 2 rows pair nothing, such as {tmp_path}/b.png; they are left out"]
