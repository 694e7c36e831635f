"""Records of JSON, JSON lines, CSV and Parquet files, and what is wrong with them said by file and number."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from xmr.engine.errors import XmrError
from xmr.train.datasets.parquet import parquet_records

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
EXACT = 1 << 53  # up to here a float is exactly the whole number
CHUNK = 1 << 20  # characters of a JSON list that are read at a time
KINDS = {str: "a string", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
DECODER = json.JSONDecoder()

Value = TypeVar("Value")
Record = dict[str, Any]


def read_json(path: Path) -> Record:
    """The object that a JSON file holds."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise XmrError(f"{path}: not valid JSON ({error}); mend the file or fetch it again") from None
    return object_of(value, str(path))


def json_list(path: Path) -> Iterator[tuple[str, Record]]:
    """The objects in the list that a JSON file holds, each after its file and number from 1.

    They are parsed one by one: the region descriptions of Visual Genome would fill gigabytes as a whole.
    """
    number = 1
    try:
        for value in _values(path):
            where = f"{path}, record {number}"
            yield where, object_of(value, where)
            number += 1
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise XmrError(f"{path}, record {number}: not valid JSON ({reason}); mend the file or fetch it again") from None
    except OSError as error:
        raise unreadable(path, error) from None


def table_records(path: Path, cache: Path | None = None) -> Iterator[tuple[str, Record]]:
    """The records of a table by its suffix, one of TABLES, each after its file and number.

    Media inside a Parquet file are unpacked below `cache` and given as Paths.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from parquet_records(path, cache)
        else:
            yield from _csv_records(path) if suffix in (".csv", ".tsv") else _json_lines(path)
    except OSError as error:
        raise unreadable(path, error) from None


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file without their ends, each after its file and number."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        yield f"{path}, line {number}", line.rstrip("\r")


def read_text(path: Path) -> str:
    """A UTF-8 file; bytes that are none are replaced."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise unreadable(path, error) from None


def object_of(value: object, where: str) -> Record:
    """The value, which has to be an object."""
    if not isinstance(value, dict):
        raise XmrError(f"{where}: {type(value).__name__} found, an object expected")
    return value


def value_of(record: Record, key: str, kind: type[Value], where: str) -> Value:
    """The record's value of that kind; a whole number is a number too."""
    value = record.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < EXACT:
        value = float(value)
    if (
        not isinstance(value, kind)
        or isinstance(value, bool)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        found = "missing" if key not in record else f"{type(value).__name__} {str(value)[:40]!r}"
        raise XmrError(f"{where}: {key} is {found}, {KINDS[kind]} expected; mend the file or fetch it again")
    return value


def objects_of(record: Record, key: str, where: str) -> Iterator[tuple[str, Record]]:
    """The objects of the list at `key`, each after its file and number from 1."""
    for number, value in enumerate(value_of(record, key, list, where), start=1):
        here = f"{where}, {key} {number}"
        yield here, object_of(value, here)


def name_of(record: Record, key: str, where: str) -> str:
    """A string or a whole number that names something."""
    value = record.get(key)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value_of(record, key, str, where)


def optional_name(record: Record, key: str) -> str | None:
    """What the record names, or None where it names nothing."""
    value = record.get(key)
    return None if value is None or value == "" else str(value)


def captions_of(record: Record, keys: Iterable[str], where: str) -> tuple[str, ...]:
    """A string, or a list of strings, at the first of these keys that has a value; none where there is none."""
    value: object = next((record[key] for key in keys if record.get(key)), [])
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise XmrError(f"{where}: captions are a string or a list of strings; mend the record")
    return without_blanks(captions)


def without_blanks(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts without white space around them; one that is nothing else is left out."""
    return tuple(filter(None, (text.strip() for text in texts)))


def unreadable(path: Path, error: OSError) -> XmrError:
    return XmrError(f"{path}: cannot be read ({error.strerror or error}); check the path")


def _values(path: Path) -> Iterator[object]:
    """The values of a JSON list, from as much of the file as each needs."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        text = _Text(file.read)
        if text.next_letter() != "[":
            raise XmrError(f"{path}: a JSON list expected, {text.next_letter() or 'nothing'} found; give another file")
        text.place += 1
        while text.next_letter() != "]":
            yield text.value()
            if text.next_letter() not in (",", "]"):
                raise ValueError("a comma or ] is missing")
            text.place += text.next_letter() == ","
        text.place += 1
        if text.next_letter():
            raise ValueError("something follows the list")


class _Text:
    """A place in a text that is read on as it is needed."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self.read, self.text, self.place = read, "", 0

    def next_letter(self) -> str:
        """The letter after white space, which becomes the place; empty at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._read_on(CHUNK):
                return ""

    def value(self) -> object:
        """The value at the place, which moves behind it."""
        self.next_letter()
        n_more = CHUNK
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.place)
            except ValueError:
                if not self._read_on(n_more):
                    raise
                n_more *= 2  # so that a long value is not tried too often
                continue
            if end == len(self.text) and self._read_on(n_more):  # a number may go on
                continue
            self.place = end
            return value

    def _read_on(self, n: int) -> bool:
        more = self.read(n)
        self.text, self.place = self.text[self.place :] + more, 0
        return bool(more)


def _json_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """The objects of a file with one a line; blank lines are passed over."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, object_of(_parsed(line, where), where)


def _parsed(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise XmrError(f"{where}: not valid JSON ({error}); mend the line") from None


def _csv_records(path: Path) -> Iterator[tuple[str, Record]]:
    """A header, then a record a line; an empty cell is no value. `captions` may be a JSON list."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if None in cells:
                    raise XmrError(f"{where}: more cells than the header has; put cells with commas in quotes")
                record: Record = {key: cell for key, cell in cells.items() if cell}
                if record.get("captions", "").startswith("["):
                    record["captions"] = _parsed(record["captions"], where)
                yield where, record
        except csv.Error as error:
            raise XmrError(f"{path}, line {reader.reader.line_num}: not valid CSV ({error}); mend the line") from None
