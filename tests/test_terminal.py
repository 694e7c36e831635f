"""What the commands print: aligned tables, JSON lines, paths as one types them, and nothing that moves the cursor."""

import json
import sys
from pathlib import Path

import pytest

from xmr.engine import terminal


def test_numbers_stand_to_the_right_and_words_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("rank", "score", "path"), [(1, "0.9000", "a.jpg"), (10, "-0.1000", "longer.jpg")])
    assert capsys.readouterr().out.splitlines() == [
        "rank    score  path",
        "   1   0.9000  a.jpg",
        "  10  -0.1000  longer.jpg",
    ]


def test_a_missing_value_is_an_empty_cell(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("a", "b"), [(None, "x"), (3, None)])
    assert capsys.readouterr().out.splitlines() == ["a  b", "   x", "3"]


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("rank", "path"), [])
    assert capsys.readouterr().out == "rank  path\n"


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\rb", "a\nb", "a\u202eb"])
def test_a_name_from_a_file_cannot_move_the_cursor(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("path",), [(name,)])
    _, row = capsys.readouterr().out.splitlines()
    assert row.isprintable()
    assert (row[0], row[-1]) == ("a", "b")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"path": "été.jpg", "score": 0.5}, {"path": "a\nb", "score": None}]
    terminal.print_json(records)
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in printed] == records
    assert "été" in printed[0]


def test_a_note_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.note("3 files found")
    assert capsys.readouterr() == ("", "3 files found\n")


def test_no_bar_is_drawn_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress_bar("embedding") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_path_is_shown_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert terminal.shown_path(tmp_path / "corpus" / "a.jpg") == "corpus/a.jpg"
    assert terminal.shown_path("/elsewhere/a.jpg") == "/elsewhere/a.jpg"


def test_a_bar_shows_what_the_work_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with terminal.progress_bar("embedding", lambda: "31 items/s, waits for network") as progress:
        progress(1, 2)
    drawn = capsys.readouterr().err
    assert "embedding" in drawn
    assert "1/2" in drawn
    assert "31 items/s, waits for network" in drawn


def test_a_bar_without_anything_to_say_shows_its_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.progress_bar("embedding") as progress:
        progress(2, 2)
    assert "2/2" in capsys.readouterr().err
