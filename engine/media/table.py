"""Tables: rows of .csv, .tsv, .jsonl and .parquet, read one after the other, so that a table need not fit in memory.

A row is a mapping from column to JSON values. Texts are in the columns that datasets usually have them in; what else a
row says is metadata. Empty cells and nulls are left out. Parquet needs pyarrow.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
TEXT_COLUMNS = (
    "text",
    "caption",
    "captions",
    "sentence",
    "sentences",
    "transcript",
    "description",
    "title",
)  # the first that a row has is its text
NUMBERED = re.compile(r"(text|caption|sentence)_?\d+")  # caption_1, caption_2, …: all of them, where no other one is
MAX_ROW = 4_000_000  # characters of a line
MAX_COLUMNS = 1000  # names in one table
MAX_ROWS = 50_000_000
MAX_BROKEN = 100  # rows that cannot be read, before the table is given up
MAX_NAME = 200  # characters of a column's name
MAX_VALUE = 10_000  # characters of a value as JSON, where it is metadata
MAX_DEPTH = 20  # of nested metadata
DELIMITERS = ",;\t|"
TOO_LONG = f"more than {MAX_ROW:,} characters; split the line"
NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,17})?([eE][+-]?\d{1,3})?")  # 007 and a telephone number are text
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
REPLACED = "\ufffd"

Row = dict[str, object]
Note = Callable[[str], None]


def rows_of(content: Content | Path, note: Note | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their number from 1: of .csv, .tsv and .jsonl the line where the row begins.

    The first line of .csv and .tsv names the columns; a cell of other than text columns that is written as a number is
    one. Bytes that are no UTF-8 (or UTF-16 with its mark) become U+FFFD, and `note` is told how many. A row that cannot
    be read raises XmrError with file and line; where `note` is given it is told that sentence, and the row left out.
    """
    content = Content.of(content)
    broken = _Broken(note)
    if content.suffix == ".parquet":
        from xmr.engine.media.parquet import rows_of_parquet  # few tables are

        rows = rows_of_parquet(content)
    elif content.suffix == ".jsonl":
        rows = _rows_of_json_lines(content, broken)
    elif content.suffix in SUFFIXES:
        rows = _rows_of_csv(content, broken)
    else:
        raise XmrError(f"{content}: no table; {' '.join(sorted(SUFFIXES))} are read")
    names: set[str] = set()
    for n_rows, (number, row) in enumerate(rows, start=1):
        names.update(row)
        if len(names) > MAX_COLUMNS or n_rows > MAX_ROWS:
            raise XmrError(
                f"{content}: line {number}: more than {MAX_COLUMNS} columns or {MAX_ROWS:,} rows; split the table"
            )
        yield number, row


def text_of(row: Mapping[str, object], column: str | None = None) -> list[str]:
    """The texts of a row: of the given column, else of the first there of TEXT_COLUMNS; a list gives several."""
    return [text for name in text_columns(row, column) for text in _texts(row[name])]


def text_columns(row: Mapping[str, object], column: str | None = None) -> list[str]:
    """The columns that hold a row's texts, as they are named in it."""
    if column is not None:
        return [column] if column in row else []
    by_name = {name.strip().lower(): name for name in row}
    for wanted in TEXT_COLUMNS:
        if wanted in by_name and _texts(row[by_name[wanted]]):
            return [by_name[wanted]]
    return [name for plain, name in by_name.items() if NUMBERED.fullmatch(plain) and _texts(row[name])]


def metadata_of(row: Mapping[str, object], column: str | None = None, note: Note | None = None) -> Row:
    """What a row says beside its texts, as SQLite's JSON can hold it; what is too long is cut off, `note` told so.

    Numbers stay numbers, dates become ISO strings, NaN and what no JSON can hold is left out.
    """
    texts = set(text_columns(row, column))
    kept: Row = {}
    for name, value in row.items():
        plain = _plain(value)
        if name in texts or plain is None or not name.strip():
            continue
        kept[name] = _short(plain)
        if note is not None and kept[name] != plain:
            note(f"column {name}: more than {MAX_VALUE:,} characters, cut off")
    return kept


class _Broken:
    """Rows that cannot be read: told, or raised where nobody listens or where they are too many."""

    def __init__(self, note: Note | None) -> None:
        self._note, self._n = note, 0

    def __call__(self, content: Content, number: int, reason: str) -> None:
        sentence = f"{content}: line {number}: {reason}"
        self._n += 1
        if self._note is None:
            raise XmrError(sentence)
        if self._n > MAX_BROKEN:
            raise XmrError(f"{sentence}; more than {MAX_BROKEN} lines cannot be read, so the rest is left out")
        self._note(sentence)

    def mended(self, sentence: str) -> None:
        """Rows that can be read, but not as they were meant."""
        if self._note is not None:
            self._note(sentence)


def _lines(content: Content, broken: _Broken) -> Iterator[tuple[int, str | None]]:
    """The lines with their number from 1; None for one that is too long to be held."""
    with content.open() as raw:
        mark = raw.read(2)
        raw.seek(0)
        encoding = BYTE_ORDER_MARKS.get(mark, "utf-8-sig")
        with io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="") as file:
            number, n_replaced = 0, 0
            while line := file.readline(MAX_ROW + 1):
                number += 1
                n_replaced += line.count(REPLACED)
                is_whole = len(line) <= MAX_ROW
                while len(line) > MAX_ROW and not line.endswith(("\n", "\r")):
                    line = file.readline(MAX_ROW + 1)
                yield number, line if is_whole else None
    if n_replaced:
        broken.mended(f"{content}: not all UTF-8, {n_replaced} characters replaced; save it as UTF-8")


def _rows_of_json_lines(content: Content, broken: _Broken) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(content, broken):
        if line is None:
            broken(content, number, TOO_LONG)
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: numbers of thousands of digits too
            reason = "nested too deeply" if isinstance(error, RecursionError) else "no JSON"
            broken(content, number, f"{reason} found, a JSON object expected; mend the line")
            continue
        if not isinstance(row, dict):
            broken(content, number, f"{type(row).__name__} found, a JSON object expected; mend the line")
        elif any(len(name) > MAX_NAME for name in row):
            broken(content, number, f"a name of more than {MAX_NAME} characters; shorten it")
        else:
            yield number, {name: value for name, value in row.items() if value is not None}


def _rows_of_csv(content: Content, broken: _Broken) -> Iterator[tuple[int, Row]]:
    reader = _CsvReader(content, broken)
    _, header = next(reader, (1, []))
    columns = [name.strip() for name in header]
    _check_header(content, columns)
    is_text = [name.lower() in TEXT_COLUMNS or NUMBERED.fullmatch(name.lower()) is not None for name in columns]
    for number, cells in reader:
        if isinstance(cells, str):
            broken(content, number, cells)
        elif len(cells) > len(columns):
            broken(content, number, f"{len(cells)} cells found, {len(columns)} expected; quote the cells with commas")
        else:
            yield (
                number,
                {
                    name: cell if keep else _number(cell)
                    for name, cell, keep in zip(columns, cells, is_text, strict=False)
                    if name and cell.strip()
                },
            )


class _CsvReader(Iterator[tuple[int, "list[str] | str"]]):
    """The cells of each row with the line where it begins; of one that cannot be read the reason instead."""

    def __init__(self, content: Content, broken: _Broken) -> None:
        self._lines = _short_lines(content, broken)
        first = next(self._lines, "")
        self._tabs = content.suffix == ".tsv"
        delimiter = "\t" if self._tabs else max(DELIMITERS, key=first.count)
        # in .tsv a quotation mark is one: captions begin with it, and no cell holds a tab or a newline
        self._reader = csv.reader(
            self._with(first),
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if self._tabs else csv.QUOTE_MINIMAL,
            skipinitialspace=True,
        )

    def _with(self, first: str) -> Iterator[str]:
        yield first
        yield from self._lines

    def __next__(self) -> "tuple[int, list[str] | str]":
        while True:
            number = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except csv.Error as error:
                return number, f"{error}; mend the line"
            if any("\0" in cell for cell in cells):
                return number, "a NUL found, text expected; save the table as UTF-8"
            if cells:
                return number, [_unquoted(cell) for cell in cells] if self._tabs else cells


def _short_lines(content: Content, broken: _Broken) -> Iterator[str]:
    """The lines of .csv and .tsv: where one is too long to be held, nobody knows where the next row begins."""
    for number, line in _lines(content, broken):
        if line is None:
            raise XmrError(f"{content}: line {number}: {TOO_LONG}")
        yield line


def _check_header(content: Content, columns: "list[str]") -> None:
    found = [name for name in columns if name]
    if not found:
        raise XmrError(f"{content}: line 1: no column is named; the first line names the columns")
    if len(found) > MAX_COLUMNS or any(len(name) > MAX_NAME for name in found):
        raise XmrError(f"{content}: line 1: more than {MAX_COLUMNS} names, or longer than {MAX_NAME}; leave some out")
    twice = next((name for place, name in enumerate(found) if name in found[:place]), None)
    if twice is not None:
        raise XmrError(f"{content}: line 1: two columns are named {twice}; rename one")


def _unquoted(cell: str) -> str:
    """A cell of .tsv without the marks that some programs put around it."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _number(cell: str) -> object:
    cell = cell.strip()
    match = NUMBER.fullmatch(cell)
    if match is None:
        return cell
    return float(cell) if match[2] or match[3] else int(cell)


def _texts(value: object) -> list[str]:
    """One text, or the texts of a list; a list may be written as JSON in a cell."""
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [str(value)]
    if isinstance(value, (list, tuple)):
        return [text for text in value if isinstance(text, str) and text.strip()]
    if value is None or isinstance(value, (dict, bool)):
        return []
    return [str(value)] if str(value).strip() else []


def _plain(value: object, depth: int = 0) -> object:
    """The value as JSON has it; None for what JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) >= 2**63:  # SQLite's integers end there
        return float(value) if abs(value) < 2**1000 else None
    if value is None or isinstance(value, (int, bool)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode()  # JSON can spell half of a surrogate pair
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _plain(float(value))
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(_plain(str(name))): _plain(inner, depth + 1) for name, inner in value.items()}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    return None


def _short(value: object) -> object:
    if isinstance(value, (int, float)):
        return value
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(written) <= MAX_VALUE else written[:MAX_VALUE]
