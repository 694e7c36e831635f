"""Lists of what the rows of a matrix are: .jsonl, .parquet, .csv or .tsv, a line a row, as `xmr embed` writes them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.exchange.columns import Row, restorer
from xmr.engine.exchange.rows import Entry
from xmr.engine.media import MODALITIES
from xmr.engine.media.content import Content
from xmr.engine.media.parquet import open_parquet
from xmr.engine.media.table import MAX_ROW, SUFFIXES, metadata_of, rows_of, text_of

PATH_COLUMNS = (
    *("path", "image_path", "sound_path", "audio_path", "file_name", "filepath", "file"),
    *("image", "sound", "speech", "audio", "video"),
)  # the first that a row has is its file
OWN_COLUMNS = {"id", "modality", "start_s", "end_s", "line", "text", "metadata"}


@dataclass(frozen=True)
class Naming:
    """How rows become entries: what they are where the list does not say."""

    source: Path  # the rows; a row without a path is named by it and its number
    modality: str | None = None  # of rows without one
    vectors: str | None = None  # the column that is the row itself

    def __post_init__(self) -> None:
        if self.modality is not None:
            self._check(self.modality, str(self.source))

    def entry(self, number: int, row: Mapping[str, object], base: Path) -> Entry:
        """Of the row with this number from 1; relative paths begin at `base`. XmrError for what cannot be one."""
        place = f"{self.source}: row {number}"
        column = next((name for name in PATH_COLUMNS if isinstance(row.get(name), str)), None)
        modality = row.get("modality", self.modality)
        text = row["text"] if isinstance(row.get("text"), str) else next(iter(text_of(row)), None)
        own = OWN_COLUMNS | {column, self.vectors}
        said = metadata_of({name: value for name, value in row.items() if name not in own})
        inner = _parsed(row.get("metadata"))
        return Entry(
            path=str(self.source) if column is None else _absolute(str(row[column]), base),
            modality=self._check(modality, place),
            start_s=_seconds(row, "start_s", place),
            end_s=_seconds(row, "end_s", place),
            line=number if column is None else _line(row, place),
            text=None if text is None else str(text),
            metadata=said | (metadata_of(inner, "") if isinstance(inner, dict) else {}),
        )

    def _check(self, modality: object, place: str) -> str:
        if modality is None:
            raise XmrError(f"{place}: what it is of is not said; pass --modality, or a list with the column modality")
        if modality not in MODALITIES:
            raise XmrError(f"{place}: modality {modality} is unknown; one of {', '.join(MODALITIES)}")
        return str(modality)


def list_beside(rows: Path) -> Path | None:
    """The list that belongs to a matrix: of the same name, another suffix."""
    names = (rows.with_suffix(suffix) for suffix in (".jsonl", ".parquet", ".csv", ".tsv"))
    return next((path for path in names if path.is_file()), None)


def entries_of(listed: Path, n_rows: int, naming: Naming) -> Iterator[Entry]:
    """The entries of `n_rows` rows; XmrError before the first one unless the list has as many."""
    n_listed = _n_rows(listed)
    if n_listed is not None and n_listed != n_rows:
        raise XmrError(f"{listed}: {n_listed} lines found for the {n_rows} rows of {naming.source}; pass its own list")
    number = 0
    restore = _restorer(listed)
    for number, (_, row) in enumerate(rows_of(listed), start=1):
        if number > n_rows:
            break
        yield naming.entry(number, restore(row), listed.parent)
    if number != n_rows:
        raise XmrError(f"{listed}: {number} lines found for the {n_rows} rows of {naming.source}; pass its own list")


def _restorer(listed: Path) -> Callable[[Row], Row]:
    """What a row of the list says; of a parquet table that we wrote, its items as they were."""
    if listed.suffix.lower() != ".parquet":
        return lambda row: row
    return restorer(open_parquet(Content(listed)).schema_arrow) or (lambda row: row)


def unlisted(n_rows: int, naming: Naming) -> Iterator[Entry]:
    """The entries of rows of which nothing is said."""
    return (naming.entry(number, {}, naming.source.parent) for number in range(1, n_rows + 1))


def _n_rows(listed: Path) -> int | None:
    """How many rows a list has, without reading what is in them; None where a row may take several lines."""
    if listed.suffix.lower() not in SUFFIXES:
        raise XmrError(f"{listed}: no list; {' '.join(sorted(SUFFIXES))} are read")
    if listed.suffix.lower() == ".parquet":
        return int(open_parquet(Content(listed)).metadata.num_rows)
    if listed.suffix.lower() != ".jsonl":
        return None
    with listed.open("rb") as file:
        return sum(1 for line in iter(lambda: file.readline(MAX_ROW), b"") if line.strip())


def _parsed(metadata: object) -> object:
    """Of a table whose cells hold no more than text, what that says as JSON."""
    try:
        return json.loads(metadata) if isinstance(metadata, str) else metadata
    except ValueError:
        return None


def _absolute(path: str, base: Path) -> str:
    """An address stays one."""
    return path if "://" in path else os.path.normpath(base.absolute() / path)


def _seconds(row: Mapping[str, object], column: str, place: str) -> float | None:
    value = row.get(column)
    return None if value is None else float(_number(value, column, place))


def _line(row: Mapping[str, object], place: str) -> int | None:
    value = row.get("line")
    return None if value is None else int(_number(value, "line", place))


def _number(value: object, column: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise XmrError(f"{place}: {column} {value!r} found, a number from 0 expected; mend the list")
    return value
