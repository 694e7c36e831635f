"""The catalog of an index: a SQLite file that says which items there are, and in which segment and row each stands.

Every change is one transaction, and a snapshot sees one committed version: what is not in here does not exist.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError

FORMAT = 2
BUSY_S = 30.0  # how long to wait for another process that holds the catalog

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL, modality TEXT NOT NULL, rows INTEGER NOT NULL, sha256 TEXT NOT NULL,
    first_item INTEGER NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segments, row INTEGER NOT NULL,
    modality TEXT NOT NULL, path TEXT NOT NULL, start_s REAL, end_s REAL, text TEXT,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}', deleted INTEGER NOT NULL DEFAULT 0, UNIQUE (segment, row));
CREATE INDEX items_of_path ON items (path) WHERE NOT deleted;
CREATE INDEX deleted_items ON items (segment, row) WHERE deleted;
CREATE TABLE skipped (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Segment:
    """One file of embeddings, all of one modality."""

    id: int
    file: str
    modality: str
    rows: int
    sha256: str
    first_item: int  # id of the item of row 0; those of the other rows follow


@dataclass(frozen=True)
class Item:
    """One thing that can be found, and where its embedding is."""

    segment: int
    row: int
    modality: str
    path: str
    start_s: float | None
    end_s: float | None
    text: str | None
    sha256: str  # of the file it is from, as are size and mtime (ns)
    size: int
    mtime: int
    metadata: str  # JSON


SEGMENT_COLUMNS = ", ".join(column.name for column in fields(Segment))
ITEM_COLUMNS = ", ".join(column.name for column in fields(Item))


class Catalog:
    """An open catalog. SQLite's errors come out as XmrError that name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _connect(path)
        try:
            self.meta = {str(key): str(value) for key, value in self._query("SELECT key, value FROM meta")}
        except XmrError:
            self.close()
            raise
        if self.meta.get("format") != str(FORMAT):
            self.close()
            found = self.meta.get("format")
            raise XmrError(
                f"{path}: index format {found} found, this version reads {FORMAT}; index again into another folder"
            )

    @classmethod
    def create(cls, path: Path, meta: dict[str, object]) -> "Catalog":
        """A new catalog without items; there as a whole, or not."""
        for left_over in path.parent.glob(f".{path.name}.*"):
            left_over.unlink()
        unborn = path.with_name(f".{path.name}.{os.getpid()}")
        with closing(_connect(unborn)) as connection:
            connection.executescript(f"BEGIN;{SCHEMA}COMMIT;")
            rows = [(key, str(value)) for key, value in ({"format": FORMAT} | meta).items()]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        unborn.replace(path)
        return cls(path)

    def close(self) -> None:
        self._connection.close()

    def counts(self) -> dict[str, int]:
        """Items that can be found, by modality."""
        return dict(self._query("SELECT modality, count(*) FROM items WHERE NOT deleted GROUP BY 1 ORDER BY 1"))

    def skipped(self) -> dict[str, str]:
        """The files that could not be embedded, with the reason."""
        return dict(self._query("SELECT path, reason FROM skipped ORDER BY path"))

    def version(self) -> tuple[int, int]:
        """Another one after every change, whoever made it."""
        self._query("SELECT 1 FROM meta")  # opens the snapshot that the next line is asked about
        return self._query("PRAGMA data_version")[0][0], self._connection.total_changes

    def segments(self, modalities: Sequence[str] | None = None) -> list[Segment]:
        """All segments, or those of some modalities, oldest first."""
        rows = self._query(f"SELECT {SEGMENT_COLUMNS} FROM segments ORDER BY id")
        return [Segment(*row) for row in rows if modalities is None or row[2] in modalities]

    def deleted_rows(self) -> list[tuple[int, int]]:
        """(segment, row) of the items that can no longer be found."""
        return self._query("SELECT segment, row FROM items WHERE deleted")

    def item(self, item_id: int) -> Item:
        [row] = self._query(f"SELECT {ITEM_COLUMNS} FROM items WHERE id = ?", (item_id,))
        return Item(*row)

    def files(self) -> dict[str, tuple[int, int, str]]:
        """Size, mtime and sha256 of every file that has items, by path."""
        rows = self._query("SELECT DISTINCT path, size, mtime, sha256 FROM items WHERE NOT deleted")
        return {path: (size, mtime, digest) for path, size, mtime, digest in rows}

    def next_segment(self) -> int:
        return int(self._query("SELECT coalesce(max(id), 0) + 1 FROM segments")[0][0])

    def next_item(self) -> int:
        return int(self._query("SELECT coalesce(max(id), 0) + 1 FROM items")[0][0])

    def add(self, segments: Iterable[Segment], items: Iterable[Item]) -> None:
        """The items of a segment come together, in the order of its rows, which is that of their ids."""
        self._insert("segments", SEGMENT_COLUMNS, segments)
        self._insert("items", ITEM_COLUMNS, items)

    def skip(self, path: str, reason: str) -> None:
        self._connection.execute("INSERT INTO skipped VALUES (?, ?)", (path, reason))

    def touch(self, path: str, mtime_ns: int) -> None:
        self._connection.execute("UPDATE items SET mtime = ? WHERE path = ? AND NOT deleted", (mtime_ns, path))

    def forget(self, path: str) -> None:
        """The file's items can no longer be found."""
        self._connection.execute("UPDATE items SET deleted = 1 WHERE path = ? AND NOT deleted", (path,))
        self._connection.execute("DELETE FROM skipped WHERE path = ?", (path,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made inside, or none."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._roll_back()
            raise XmrError(f"{self.path}: could not be written ({error}); mend that and run again") from error
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one committed version."""
        self._query("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def _insert(self, table: str, columns: str, rows: Iterable[Segment] | Iterable[Item]) -> None:
        marks = ", ".join("?" * (columns.count(",") + 1))
        self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", map(astuple, rows))

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite itself rolls back after some errors
            self._connection.execute("ROLLBACK")

    def _query(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise XmrError(f"{self.path}: damaged catalog ({error}); index again into another folder") from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise XmrError(f"{path}: no catalog that SQLite can read ({error}); index again into another folder") from None
    return connection
