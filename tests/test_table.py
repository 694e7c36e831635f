"""Tables: rows of csv, tsv, jsonl and parquet, their texts and metadata, and what is no table or a bomb."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.table import MAX_ROW, metadata_of, rows_of, text_of


def table(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rows_of_csv_have_the_line_where_they_begin(tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", 'image,caption,year\n1.jpg,"a ""dog""\nruns",2000\n\n2.jpg,x,\n')
    assert list(rows_of(path)) == [
        (2, {"image": "1.jpg", "caption": 'a "dog"\nruns', "year": 2000}),
        (5, {"image": "2.jpg", "caption": "x"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " | "])
def test_the_header_tells_the_delimiter_of_csv(delimiter: str, tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", f"file{delimiter}caption\nb.jpg{delimiter}a dog\n")
    assert [{name: str(cell).strip() for name, cell in row.items()} for _, row in rows_of(path)] == [
        {"file": "b.jpg", "caption": "a dog"}
    ]


def test_quotation_marks_in_tsv_are_text_unless_around_the_cell(tmp_path: Path) -> None:
    path = table(tmp_path, "a.tsv", 'file\tcaption\na.jpg\t"Yes", he said\nb.jpg\t"a ""b"""\n')
    assert [row["caption"] for _, row in rows_of(path)] == ['"Yes", he said', 'a "b"']


def test_cells_written_as_numbers_are_numbers_but_for_texts_and_leading_zeros(tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", "caption,zip,n,x,big\n42,007,-3,1.50,12345678901234567890123\n")
    row = {"caption": "42", "zip": "007", "n": -3, "x": 1.5, "big": "12345678901234567890123"}
    assert list(rows_of(path)) == [(2, row)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(encoding: str, tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", "caption,n\nä,1\n".encode(encoding))
    assert list(rows_of(path)) == [(2, {"caption": "ä", "n": 1})]


def test_lines_of_json_that_cannot_be_read_are_told_and_left_out(tmp_path: Path) -> None:
    lines = ['{"a": 1}', '{"a":', "[1]", "[" * 100_000, "", '{"a": ' + "1" * 5000 + "}", '{"b": null, "c": 2}']
    told: list[str] = []
    assert list(rows_of(table(tmp_path, "a.jsonl", "\n".join(lines)), told.append)) == [(1, {"a": 1}), (7, {"c": 2})]
    assert [sentence.split(": ")[1] for sentence in told] == ["line 2", "line 3", "line 4", "line 6"]


def test_without_a_listener_the_first_broken_row_is_an_error(tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", "a,b\n1,2\n1,2,3\n")
    with pytest.raises(XmrError, match=r"a.csv: line 3: 3 cells found, 2 expected"):
        list(rows_of(path))


def test_a_line_too_long_to_be_held_costs_itself_only(tmp_path: Path) -> None:
    path = table(tmp_path, "a.jsonl", '{"a": "' + "x" * 3 * MAX_ROW + '"}\n{"a": 1}\n')
    told: list[str] = []
    assert list(rows_of(path, told.append)) == [(2, {"a": 1})]
    assert "line 1: more than 4,000,000 characters" in told[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "no column is named"),
        ("a.csv", "a,b,a\n1,2,3\n", "two columns are named a"),
        ("a.csv", ",".join(f"c{n}" for n in range(2000)), "more than 1000 names"),
        ("a.csv", "a,b\nx\0,2\n", "line 2: a NUL found"),
        ("a.csv", "a,b\n" + '"' * 3 + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("a.jsonl", "{}\n" * 5 + "no\n" * 200, "line 6: no JSON found"),
        ("a.jsonl", "\n".join(json.dumps({f"k{n}": 1}) for n in range(2000)), "more than 1000 columns"),
        ("a.parquet", b"PAR1 rubbish PAR1", "no parquet table"),
        ("a.txt", "a", "no table"),
    ],
)
def test_what_is_no_table_is_told_in_a_sentence(name: str, content: str | bytes, said: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(XmrError, match=said):
        list(rows_of(table(tmp_path, name, content)))


def test_a_table_with_too_many_broken_lines_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match="more than 100 lines cannot be read"):
        list(rows_of(table(tmp_path, "a.jsonl", "no\n" * 200), lambda sentence: None))


def test_rows_in_an_archive_are_read_in_place(tmp_path: Path) -> None:
    path = table(tmp_path, "a.tar", "x" * 10 + '{"a": 1}\n' + "y" * 10)
    assert list(rows_of(Content(path / "b.jsonl", path, 10, 9))) == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"caption": "a", "text": "b"}, ["b"]),
        ({"text": " ", "captions": ["a", "", "b"]}, ["a", "b"]),
        ({"Caption ": "a"}, ["a"]),
        ({"sentences": '["a", "b"]'}, ["a", "b"]),
        ({"caption": "[laughs]"}, ["[laughs]"]),
        ({"caption_1": "a", "caption_2": "b", "n": 1}, ["a", "b"]),
        ({"label": "a"}, []),
    ],
)
def test_texts_are_in_the_first_column_that_has_some(row: dict[str, object], texts: list[str]) -> None:
    assert text_of(row) == texts


def test_a_named_column_is_the_text_and_all_others_are_metadata() -> None:
    row = {"caption": "a", "note": "b", "n": 1}
    assert text_of(row, "note") == ["b"]
    assert metadata_of(row, "note") == {"caption": "a", "n": 1}
    assert text_of(row, "none") == []


def test_metadata_is_what_json_and_sqlite_can_hold() -> None:
    row = {
        "caption": "a",
        "when": datetime.datetime(2020, 1, 2, 3, 4),
        "nan": float("nan"),
        "nested": {"a": [1, float("inf")], "b": datetime.date(2020, 1, 2)},
        "flag": True,
        "huge": 10**400,
        "half": "\ud800",
        "bytes": b"x",
    }
    kept = {"when": "2020-01-02T03:04:00", "nested": {"a": [1, None], "b": "2020-01-02"}, "flag": True, "half": "?"}
    assert metadata_of(row) == kept


def test_metadata_that_is_too_long_is_cut_off_and_told() -> None:
    told: list[str] = []
    assert metadata_of({"a": "x" * 20_000, "b": 1}, note=told.append) == {"a": "x" * 10_000, "b": 1}
    assert told == ["column a: more than 10,000 characters, cut off"]


def test_rows_of_parquet_come_without_bytes_and_embeddings(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n_rows = 3000
    columns = {
        "captions": [["x", "y"]] * n_rows,
        "n": list(range(n_rows)),
        "when": [datetime.date(2020, 1, 2)] * n_rows,
        "label": arrow.array(["dog"] * n_rows).dictionary_encode(),
        "nested": [{"a": 1.5}] * n_rows,
        "embedding": [[0.0] * 512] * n_rows,
        "image": [{"bytes": b"abc", "path": "x.jpg"}] * n_rows,
    }
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet", row_group_size=1000)
    rows = list(rows_of(tmp_path / "a.parquet"))
    assert [number for number, _ in rows] == list(range(1, n_rows + 1))
    assert text_of(rows[-1][1]) == ["x", "y"]
    assert metadata_of(rows[-1][1]) == {"n": n_rows - 1, "when": "2020-01-02", "label": "dog", "nested": {"a": 1.5}}


def test_a_parquet_table_whose_texts_repeat_without_end_is_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    words = arrow.DictionaryArray.from_arrays(arrow.array([0] * 100_000), arrow.array(["x" * 1_000_000]))
    parquet.write_table(arrow.table({"caption": words}), tmp_path / "a.parquet", compression="zstd")
    script = f"""if True:
        import resource
        from pathlib import Path
        from xmr.engine.errors import XmrError
        from xmr.engine.media.table import rows_of
        import pyarrow.parquet
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            list(rows_of(Path({str(tmp_path / "a.parquet")!r})))
        except XmrError as error:
            print(error)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "its texts unpack to more than 1000 times its size" in told
    assert int(told.splitlines()[-1]) < 200  # MB


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_what_is_no_utf_8_is_replaced_and_told(name: str, tmp_path: Path) -> None:
    content = '{"caption": "Zoë"}\n' if name.endswith("jsonl") else "caption\nZoë\n"
    (path := tmp_path / name).write_bytes(content.encode("latin-1"))
    notes: list[str] = []
    [(_, row)] = rows_of(path, notes.append)
    assert row == {"caption": "Zo\ufffd"}
    assert notes == [f"{path}: not all UTF-8, 1 characters replaced; save it as UTF-8"]
