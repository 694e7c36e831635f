"""The catalog of an index: a SQLite file that says which files and items there are, and which segments hold them.

Every change is one transaction, and a snapshot sees one committed version: what is not in here does not exist.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from xmr.engine.catalog.connection import BUSY_S, connect, stamp_of, told_of
from xmr.engine.catalog.tables import SCHEMA, THINNED, File, Found, Item, Segment, SegmentFile
from xmr.engine.errors import UnreadableError, XmrError

__all__ = ["Catalog", "File", "Found", "Item", "Segment", "SegmentFile"]

FORMAT = 3
AT_ONCE = 500  # ids that one statement is asked about
MAX_ID = 2**63 - 1
SEAL_S = 1.0  # how long to wait for readers that are in the way of sealing
SEGMENT_COLUMNS, ITEM_COLUMNS = ", ".join(Segment._fields), ", ".join(Item._fields)
COUNTS = """
SELECT modality, sum(n) FROM (
    SELECT modality, rows AS n FROM segments UNION ALL SELECT modality, -count(*) FROM deleted GROUP BY modality)
GROUP BY modality HAVING sum(n) > 0 ORDER BY modality"""
FOUND = """
SELECT items.id, path, modality, medium, start_s, end_s, line, text, size, mtime, files.metadata, items.metadata
FROM items JOIN files ON files.id = items.file"""

COUNT_CHANGE = "INSERT INTO meta VALUES ('changes', '1') ON CONFLICT (key) DO UPDATE SET value = value + 1"


class Catalog:
    """An open catalog. SQLite's errors come out as XmrError that name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._n_opened = 0
        self._open()
        try:
            self.meta = self._read_meta()
        except XmrError:
            self.close()
            raise

    def _open(self) -> None:
        self.connection, self._stamp = connect(self.path), stamp_of(self.path)
        self.inode = self.path.stat().st_ino
        self._n_opened += 1

    @classmethod
    def create(cls, path: Path, meta: dict[str, object]) -> "Catalog":
        """A new catalog without items; there as a whole, or not."""
        left_overs = f".{path.name}.*"
        # the log of a catalog that was removed would be taken for that of the new one
        for left_over in [*path.parent.glob(left_overs), *path.parent.glob(f"{path.name}-*")]:
            left_over.unlink()
        unborn = path.with_name(f".{path.name}.{os.getpid()}")
        with closing(connect(unborn)) as connection, told_of(path):
            connection.executescript(f"BEGIN;{SCHEMA}")
            rows = [(key, str(value)) for key, value in ({"format": FORMAT, "next_segment": 1} | meta).items()]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            connection.execute("COMMIT")
            # last: all is in the one file that gets its name
            [(mode,)] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise XmrError(f"{path}: SQLite keeps no log in this folder; make the index on a local disk with room")
        unborn.replace(path)
        for left_over in path.parent.glob(left_overs):  # of SQLite
            left_over.unlink()
        return cls(path)

    def close(self) -> None:
        self.connection.close()

    def counts(self) -> dict[str, int]:
        """Items that can be found, by modality."""
        return dict(self._query(COUNTS))  # one statement, so of one version

    def n_missing(self) -> int:
        """Files that were not there any more when their folder was last looked through."""
        return int(self._query("SELECT count(*) FROM files WHERE missing")[0][0])

    def skipped(self) -> dict[str, str]:
        """The files that could not be embedded, with the reason."""
        return dict(self._query("SELECT path, reason FROM skipped ORDER BY path"))

    def n_changes(self) -> int:
        """Transactions that have changed something, since the catalog is."""
        found = self._query("SELECT value FROM meta WHERE key = 'changes'")
        return int(found[0][0]) if found else 0

    def version(self) -> tuple[int, int, int]:
        """Another one after every change, whoever made it, but of this connection alone."""
        self._query("SELECT 1 FROM meta")  # opens the snapshot that the next line is asked about
        return self._n_opened, self._query("PRAGMA data_version")[0][0], self.connection.total_changes

    def segments(self, modalities: Sequence[str] | None = None) -> list[Segment]:
        """All segments, or those of some modalities, by modality and then in the order of their items."""
        rows = self._query(f"SELECT {SEGMENT_COLUMNS} FROM segments ORDER BY modality, first_item")
        return [Segment(*row) for row in rows if modalities is None or row[1] in modalities]

    def segment_files(self) -> dict[str, tuple[int, SegmentFile]]:
        """Every file of a segment by its name, and whose it is."""
        rows = self._query("SELECT segment, name, bytes, sha256 FROM segment_files ORDER BY segment, name")
        return {name: (segment, SegmentFile(name, n_bytes, digest)) for segment, name, n_bytes, digest in rows}

    def deleted(self, modalities: Sequence[str] | None = None) -> list[int]:
        """Ids of items that can no longer be found, though a segment still has their rows; ascending."""
        rows = self._query("SELECT item, modality FROM deleted ORDER BY item")
        return [item for item, modality in rows if modalities is None or modality in modalities]

    def item_ids(self, modality: str) -> list[int]:
        """Of the items of a modality that can be found; ascending."""
        return [item for (item,) in self._query("SELECT id FROM items WHERE modality = ? ORDER BY id", (modality,))]

    def found(self, ids: Sequence[int]) -> dict[int, Found]:
        """What is known of some items, by their ids; those that are not there are left out."""
        known = {}
        ids = [item for item in ids if 0 < item <= MAX_ID]  # SQLite takes no larger numbers
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            for row in self._query(f"{FOUND} WHERE items.id IN ({', '.join('?' * len(some))})", some):
                *facts, of_file, of_item = row
                facts.append(_merged(of_file, of_item))
                known[row[0]] = Found(*facts)
        return known

    def known(self, ids: Sequence[int]) -> dict[int, str]:
        """The modality of some items, by their ids; those that are not there are left out."""
        known: dict[int, str] = {}
        ids = [item for item in ids if 0 < item <= MAX_ID]
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            known |= dict(
                self._query(f"SELECT id, modality FROM items WHERE id IN ({', '.join('?' * len(some))})", some)
            )
        return known

    def items_of(self, path: str) -> list[int]:
        """Ids of the items of a file; ascending."""
        sql = "SELECT items.id FROM items JOIN files ON files.id = items.file WHERE path = ? ORDER BY items.id"
        return [item for (item,) in self._query(sql, (path,))]

    def items_under(self, path: str) -> list[int]:
        """Ids of the items of a file, of all files in a folder, or of all members of an archive; ascending."""
        # not LIKE, in which letters of the path would be wildcards: all that begins with it and a slash
        sql = (
            "SELECT items.id FROM items JOIN files ON files.id = items.file "
            "WHERE path = ?1 OR (path > ?1 || '/' AND path < ?1 || '0') ORDER BY items.id"
        )
        return [item for (item,) in self._query(sql, (path.rstrip("/"),))]

    def files(self) -> dict[str, File]:
        """Every file that has been embedded, by path."""
        rows = self._query(
            "SELECT files.path, roots.path, medium, archive, start, size, mtime, sha256, metadata "
            "FROM files LEFT JOIN roots ON roots.id = root ORDER BY files.path"
        )
        return {row[0]: File(*row) for row in rows}

    def files_of(self, ids: Sequence[int]) -> dict[int, File]:
        """The files of some items, by the items' ids; those that are not there are left out."""
        files: dict[int, File] = {}
        ids = [item for item in ids if 0 < item <= MAX_ID]
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            rows = self._query(
                "SELECT items.id, files.path, roots.path, medium, archive, start, size, mtime, sha256, files.metadata "
                "FROM items JOIN files ON files.id = items.file LEFT JOIN roots ON roots.id = root "
                f"WHERE items.id IN ({', '.join('?' * len(some))})",
                some,
            )
            files |= {row[0]: File(*row[1:]) for row in rows}
        return files

    def some_items(self, modality: str, n: int) -> list[int]:
        """Ids of up to `n` items of a modality that can be found, spread over all of them; the same every time."""
        segments = self.segments([modality])
        n_rows = sum(segment.rows for segment in segments)
        found: dict[int, None] = {}  # in their order, each once
        n_drawn = min(n, n_rows)
        for row in (place * n_rows // n_drawn for place in range(n_drawn)):
            for segment in segments:
                if row < segment.rows:
                    break
                row -= segment.rows
            about = segment.first_item + (segment.last_item - segment.first_item + 1) * row // segment.rows
            found |= dict.fromkeys(self._item_from(modality, about, segment.last_item))
        return list(found)

    def _item_from(self, modality: str, first: int, last: int) -> list[int]:
        rows = self._query(
            "SELECT id FROM items WHERE id BETWEEN ? AND ? AND modality = ? AND id NOT IN (SELECT item FROM deleted) "
            "ORDER BY id LIMIT 1",
            (first, last, modality),
        )
        return [row[0] for row in rows]

    def held(self, paths: Sequence[str]) -> list[str]:
        """Those of some paths that the catalog has, embedded or skipped."""
        held = []
        for start in range(0, len(paths), AT_ONCE):
            some = paths[start : start + AT_ONCE]
            marks = ", ".join("?" * len(some))
            for table in ("files", "skipped"):
                held += [path for (path,) in self._query(f"SELECT path FROM {table} WHERE path IN ({marks})", some)]
        return held

    def paths(self) -> list[str]:
        """Of every file that has been embedded, in order."""
        return [path for (path,) in self._query("SELECT path FROM files ORDER BY path")]

    def missing(self) -> set[str]:
        """The files that were noted as missing."""
        return {path for (path,) in self._query("SELECT path FROM files WHERE missing")}

    def thinned(self) -> set[str]:
        """The files of which some items were deleted, and not all."""
        self.connection.execute(THINNED)
        return {path for (path,) in self._query("SELECT path FROM files JOIN thinned ON thinned.file = files.id")}

    def next_segment(self) -> int:
        """A number that no segment of this catalog has had."""
        return int(self._query("SELECT value FROM meta WHERE key = 'next_segment'")[0][0])

    def next_item(self) -> int:
        rows = self._query("SELECT seq FROM sqlite_sequence WHERE name = 'items'")
        return int(rows[0][0]) + 1 if rows else 1

    def add_segment(self, segment: Segment, files: Iterable[SegmentFile]) -> None:
        """Make the rows of a segment whose files are in place visible; its items come with `add_items`."""
        self.connection.execute(f"INSERT INTO segments ({SEGMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?)", segment)
        self.set_segment_files(segment.id, files)
        self.connection.execute("UPDATE meta SET value = ? WHERE key = 'next_segment'", (str(segment.id + 1),))

    def set_segment_files(self, segment: int, files: Iterable[SegmentFile]) -> None:
        rows = [(segment, *file) for file in files]
        self.connection.execute("DELETE FROM segment_files WHERE segment = ?", (segment,))
        self.connection.executemany("INSERT INTO segment_files VALUES (?, ?, ?, ?)", rows)

    def drop_segments(self, segments: Iterable[Segment]) -> None:
        """Their items are in other segments now, or deleted for good."""
        for segment in segments:
            self.connection.execute("DELETE FROM segment_files WHERE segment = ?", (segment.id,))
            self.connection.execute("DELETE FROM segments WHERE id = ?", (segment.id,))
            self.connection.execute(
                "DELETE FROM deleted WHERE modality = ? AND item BETWEEN ? AND ?",
                (segment.modality, segment.first_item, segment.last_item),
            )

    def add_files(self, files: Sequence[File]) -> list[int]:
        """The ids of files that are new, or take the places of such as were forgotten."""
        first = int(self._query("SELECT coalesce(max(id), 0) + 1 FROM files")[0][0])
        roots = {root: self._root(root) for root in {file.root for file in files}}
        ids = list(range(first, first + len(files)))
        rows = [(i, file.path, roots[file.root], *file[2:]) for i, file in zip(ids, files, strict=True)]
        self.connection.executemany(
            "INSERT INTO files (id, path, root, medium, archive, start, size, mtime, sha256, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        self.connection.executemany("DELETE FROM skipped WHERE path = ?", ((file.path,) for file in files))
        self._note_keys({file.metadata for file in files})
        return ids

    def add_items(self, items: Sequence[Item]) -> None:
        marks = ", ".join("?" * len(Item._fields))
        self.connection.executemany(f"INSERT INTO items ({ITEM_COLUMNS}) VALUES ({marks})", items)
        self._note_keys({item.metadata for item in items if item.metadata is not None})

    def skip(self, path: str, reason: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO skipped VALUES (?, ?)", (path, reason))

    def change(self, path: str, file: File) -> None:
        """The file at this path is found as `file` now, with the same content: its items stay."""
        self.connection.execute(
            "UPDATE files SET path = ?, root = ?, archive = ?, start = ?, mtime = ?, metadata = ?, missing = 0 "
            "WHERE path = ?",
            (file.path, self._root(file.root), file.archive, file.start, file.mtime, file.metadata, path),
        )
        self.connection.execute("DELETE FROM skipped WHERE path = ?", (file.path,))
        self._note_keys([file.metadata])

    def set_missing(self, paths: Iterable[str]) -> None:
        self.connection.executemany("UPDATE files SET missing = 1 WHERE path = ?", ((path,) for path in paths))

    def forget(self, path: str) -> int:
        """The file's items can no longer be found; how many there were."""
        n_items = self.delete(self.items_of(path))
        self.connection.execute("DELETE FROM files WHERE path = ?", (path,))  # also one that has no items
        self.connection.execute("DELETE FROM skipped WHERE path = ?", (path,))
        return n_items

    def delete(self, ids: Iterable[int]) -> int:
        """These items can no longer be found, nor a file that has no other one; how many were there."""
        execute = self.connection.execute
        execute("CREATE TEMP TABLE IF NOT EXISTS chosen (item INTEGER PRIMARY KEY)")
        execute("DELETE FROM chosen")
        self.connection.executemany("INSERT OR IGNORE INTO chosen VALUES (?)", ((int(item),) for item in ids))
        execute("INSERT INTO deleted SELECT id, modality FROM items WHERE id IN chosen")
        execute("CREATE TEMP TABLE IF NOT EXISTS emptied (file INTEGER PRIMARY KEY)")
        execute("DELETE FROM emptied")
        execute("INSERT OR IGNORE INTO emptied SELECT file FROM items WHERE id IN chosen")
        n_items = execute("DELETE FROM items WHERE id IN chosen").rowcount
        execute("DELETE FROM files WHERE id IN emptied AND id NOT IN (SELECT file FROM items WHERE file IN emptied)")
        execute(THINNED)
        execute("INSERT OR IGNORE INTO thinned SELECT id FROM files WHERE id IN emptied")
        execute("DELETE FROM thinned WHERE file NOT IN (SELECT id FROM files)")
        return int(n_items)

    def faults(self) -> list[str]:
        """What SQLite finds wrong with the file, and where its tables contradict each other."""
        found = [str(row[0]) for row in self._query("PRAGMA integrity_check(20)")]
        lost = {row[0] for row in self._query("PRAGMA foreign_key_check")}
        found += [f"table {table} refers to what is not there" for table in sorted(lost)]
        return [sentence for sentence in found if sentence != "ok"]

    def seal(self) -> bool:
        """Move everything into the one file; False where a reader is in the way, which changes nothing else."""
        with told_of(self.path):
            self.connection.execute(f"PRAGMA busy_timeout = {1000 * SEAL_S:.0f}")
            try:
                [(is_busy, _, _)] = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}")
        return not is_busy

    def shrink(self) -> None:
        """Give back the space of what is not there any more, and with it the last of that."""
        with told_of(self.path):
            self.connection.execute("VACUUM")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made inside, or none."""
        try:
            with told_of(self.path):
                self.connection.execute("BEGIN IMMEDIATE")
                n_before = self.connection.total_changes
                yield
                if self.connection.total_changes > n_before:
                    self.connection.execute(COUNT_CHANGE)
                self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one committed version."""
        if stamp_of(self.path) != self._stamp:
            self.close()
            self._open()
        self._query("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def _read_meta(self) -> dict[str, str]:
        """What stands about the index as a whole; XmrError where it is none of this version."""
        if not self._query("SELECT 1 FROM sqlite_schema WHERE name = 'meta'"):
            raise UnreadableError(f"{self.path}: a SQLite file, but no catalog of an index; choose another folder")
        meta = {str(key): str(value) for key, value in self._query("SELECT key, value FROM meta")}
        found = meta.get("format")
        if found != str(FORMAT):
            raise UnreadableError(
                f"{self.path}: index format {found} found, this version reads {FORMAT}; index again into another folder"
            )
        return meta

    def _root(self, path: str | None) -> int | None:
        if path is None:
            return None
        self.connection.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", (path,))
        return int(self._query("SELECT id FROM roots WHERE path = ?", (path,))[0][0])

    def _note_keys(self, metadata: Iterable[str]) -> None:
        names = {name for text in metadata if text != "{}" for name in json.loads(text)}
        self.connection.executemany("INSERT OR IGNORE INTO keys VALUES (?)", ((name,) for name in sorted(names)))

    def _roll_back(self) -> None:
        if self.connection.in_transaction:  # SQLite itself rolls back after some errors
            self.connection.execute("ROLLBACK")

    def _query(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            return self.connection.execute(sql, parameters).fetchall()
        except UnicodeEncodeError as error:  # a path that no file of an index has
            raise XmrError(f"{error.object!a}: not a name in UTF-8, which no index holds; rename it") from None
        except sqlite3.OperationalError as error:  # of the disk, or a table that is not there
            raise UnreadableError(f"{self.path}: cannot be read ({error}); mend that, or ask `xmr verify`") from None
        except sqlite3.DatabaseError as error:
            raise UnreadableError(
                f"{self.path}: damaged catalog ({error}); `xmr verify` tells more, or index again into another folder"
            ) from None


def _merged(of_file: str, of_item: str | None) -> dict[str, Any]:
    return {**json.loads(of_file), **(json.loads(of_item) if of_item else {})}
