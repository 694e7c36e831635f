"""Rows read from pairs.jsonl, and every way in which a line can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from xmr.engine.errors import XmrError
from xmr.train.datasets import Row, read_pairs, read_rows, select

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
    assert read_one(tmp_path, line) == Row(
        id="7",
        split="val",
        label="dog",
        files={"image": tmp_path / "a.png", "sound": Path("/b.wav")},
        captions=("a dog", "it"),
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
        ({"image": "a.png", "captions": "a dog"}, "strings expected as paths and captions"),
        ({"image": "a.png", "captions": ["a dog", 3]}, "strings expected as paths and captions"),
        ({"image": "a.png", "caption": {"en": "a dog"}}, "strings expected as paths and captions"),
        ({"image": 3, "captions": ["a dog"]}, "strings expected as paths and captions"),
        ({"image": ["a.png"], "sound": "b.wav"}, "strings expected as paths and captions"),
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


def test_missing_media_are_named_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_lines(tmp_path, GOOD, {"image": "b.png", "sound": "c.wav"})
    with pytest.raises(XmrError, match=r"b.png: named by a row but missing, as are 1 more; mend --data"):
        read_rows([str(tmp_path)])


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
