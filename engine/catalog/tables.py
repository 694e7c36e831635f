"""The tables of a catalog, and what a row of each says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, root INTEGER REFERENCES roots, medium TEXT NOT NULL,
    archive TEXT, start INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, sha256 TEXT NOT NULL,
    metadata TEXT NOT NULL, missing INTEGER NOT NULL DEFAULT 0);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files, modality TEXT NOT NULL,
    start_s REAL, end_s REAL, line INTEGER, text TEXT, metadata TEXT);
CREATE INDEX items_of_file ON items (file);
CREATE TABLE deleted (item INTEGER PRIMARY KEY, modality TEXT NOT NULL);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, modality TEXT NOT NULL, rows INTEGER NOT NULL, first_item INTEGER NOT NULL,
    last_item INTEGER NOT NULL);
CREATE TABLE segment_files (
    segment INTEGER NOT NULL REFERENCES segments, name TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (segment, name)) WITHOUT ROWID;
CREATE TABLE skipped (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
THINNED = "CREATE TABLE IF NOT EXISTS thinned (file INTEGER PRIMARY KEY)"  # which older indexes lack until it is needed


class Segment(NamedTuple):
    """Rows of one modality in files of their own; `first_item` and `last_item` are the ids of the outer ones."""

    id: int
    modality: str
    rows: int
    first_item: int
    last_item: int


class SegmentFile(NamedTuple):
    """A file of a segment, and what is in it."""

    name: str
    bytes: int
    sha256: str


class File(NamedTuple):
    """A file as it was when it was embedded."""

    path: str
    root: str | None  # that it was found under
    medium: str
    archive: str | None  # that it is a member of
    start: int  # the first of its bytes there
    size: int  # bytes
    mtime: int  # ns
    sha256: str
    metadata: str  # JSON


class Item(NamedTuple):
    """One thing that can be found. Its id is never given to another one."""

    id: int
    file: int
    modality: str
    start_s: float | None
    end_s: float | None
    line: int | None
    text: str | None
    metadata: str | None  # JSON; of a table's row


@dataclass(frozen=True)
class Found:
    """An item with what is known of its file."""

    id: int
    path: str
    modality: str
    medium: str
    start_s: float | None
    end_s: float | None
    line: int | None
    text: str | None
    size: int
    mtime: int
    metadata: Mapping[str, Any] = field(default_factory=dict)  # of its file and its own
