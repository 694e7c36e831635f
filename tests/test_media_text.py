"""Texts of every kind: what becomes an item, where it stands, and what is left of its marks."""

from pathlib import Path

import pytest

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.media import Piece, Reading, text

WORDS = text.Preprocessing(vocabulary=("dog", "bell", "barks", "rings", "red"))


def pieces(path: Path, content: str | bytes, column: str | None = None) -> list[Piece]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    loaded = text.load(path, WORDS, Reading(text_column=column))
    assert loaded.notes == []
    return loaded.pieces


MARKDOWN = """---
title: a dog
---
# The *red* dog #

> - [ ] a **dog** that _barks_, see [the bell](https://example.org/bell "rings")
1. ![a bell](bell.png) rings<br> `dog_bell`

| dog | bell |
|-----|------|

```python
dog = "**bell**"  # rings
```
<!-- a dog -->
[bell]: https://example.org
snake_dog_case 2 * 3 * dog \\*bell\\*
====
"""


def test_markdown_is_read_without_its_marks_and_code_as_it_is(tmp_path: Path) -> None:
    found = [(piece.line, piece.text) for piece in pieces(tmp_path / "a.md", MARKDOWN)]
    assert found == [
        (4, "The red dog"),
        (6, "a dog that barks, see the bell"),
        (7, "a bell rings dog_bell"),
        (9, "dog bell"),
        (13, 'dog = "**bell**"  # rings'),
        (17, "snake_dog_case 2 * 3 * dog *bell*"),
    ]


SRT = """1
00:00:01,500 --> 00:00:02,750
<i>a dog</i>
{\\an8}barks &amp; barks

2
01:02:03,004 --> 01:02:04,000 X1:1
a bell
"""
VTT = """WEBVTT - of a dog

NOTE a dog
that barks

STYLE
::cue { color: red }

opening
00:01.500 --> 00:02.750 align:start
<v Ann>a <c.red>dog</c> <00:02.000>barks

01:02:03.004 --> 01:02:04.000
a bell
"""


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("b.vtt", VTT), ("c.srt", SRT.replace("\n", "\r\n"))])
def test_a_subtitle_is_an_item_with_its_times(name: str, content: str, tmp_path: Path) -> None:
    first, second = pieces(tmp_path / name, content)
    assert (first.start_s, first.end_s) == (1.5, 2.75)
    assert first.text in ("a dog barks & barks", "a dog barks")
    assert (second.text, second.start_s, second.end_s) == ("a bell", 3723.004, 3724)
    assert second.line is not None
    assert "-->" in content.splitlines()[second.line - 1]


def test_subtitles_whose_times_cannot_be_read_are_kept_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("00:00:05,000 --> 00:00:01,000\na dog\n\nsoon --> later\na bell\n")
    loaded = text.load(path, WORDS)
    assert [(piece.text, piece.start_s) for piece in loaded.pieces] == [("a dog", None), ("a bell", None)]
    assert loaded.notes == [f"{path}: 2 subtitles whose times cannot be read stand without them"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(encoding: str, tmp_path: Path) -> None:
    found = pieces(tmp_path / "a.txt", "a dog\na bell\n".encode(encoding))
    assert [(piece.line, piece.text) for piece in found] == [(1, "a dog"), (2, "a bell")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'caption,height\n"a dog, red",3\na bell,4\n'),
        ("b.tsv", "caption\theight\na dog, red\t3\na bell\t4\n"),
        ("c.jsonl", '{"caption": "a dog, red", "height": 3}\n\n{"caption": "a bell", "height": 4}\n'),
    ],
)
def test_the_text_of_a_row_is_an_item_and_its_other_columns_are_metadata(
    name: str, content: str, tmp_path: Path
) -> None:
    found = pieces(tmp_path / name, content)
    assert [piece.text for piece in found] == ["a dog, red", "a bell"]
    assert [piece.metadata for piece in found] == [{"height": 3}, {"height": 4}]
    assert [piece.line for piece in found] == ([1, 3] if name == "c.jsonl" else [2, 3])


def test_the_rows_of_parquet_are_items(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"caption": ["a dog", "a bell"], "n": [1, 2]}), tmp_path / "a.parquet")
    found = text.load(tmp_path / "a.parquet", WORDS).pieces
    assert [(piece.text, piece.line, piece.metadata) for piece in found] == [
        ("a dog", 1, {"n": 1}),
        ("a bell", 2, {"n": 2}),
    ]


def test_the_column_of_texts_may_be_named(tmp_path: Path) -> None:
    [piece] = pieces(tmp_path / "a.csv", "caption,said\na dog,a bell\n", "said")
    assert (piece.text, piece.metadata) == ("a bell", {"caption": "a dog"})
    with pytest.raises(XmrError, match=r"a\.csv: no column heard with anything in it; name the column"):
        text.load(tmp_path / "a.csv", WORDS, Reading(text_column="heard"))


def test_several_captions_of_a_row_are_items_of_their_own(tmp_path: Path) -> None:
    found = pieces(tmp_path / "a.jsonl", '{"captions": ["a dog", "a bell"], "split": "val"}\n')
    assert [(piece.text, piece.line, piece.metadata) for piece in found] == [
        ("a dog", 1, {"split": "val"}),
        ("a bell", 1, {"split": "val"}),
    ]


def test_lines_come_before_the_file_is_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a dog\n" * 50_000 + b"\xff")
    stream = text.stream(text.Content(tmp_path / "a.txt"), WORDS)
    assert next(stream.pieces).line == 1
    assert stream.notes == []
    assert sum(1 for _ in stream.pieces) == 49_999
    assert stream.notes[0].endswith("not all UTF-8, 1 characters replaced")


@pytest.mark.parametrize(
    "settings",
    [{"frame_s": 0}, {"frame_s": float("nan")}, {"frame_s": float("inf")}, {"overlap": 1}, {"overlap": -0.1}],
)
def test_a_reading_that_makes_no_sense_is_a_mistake_of_the_command_line(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Reading(**settings)  # type: ignore[arg-type]
