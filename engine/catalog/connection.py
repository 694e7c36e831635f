"""The connection to a catalog: how its file is opened, and how SQLite's errors are told."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmr.engine.errors import UnreadableError, XmrError

BUSY_S = 30.0  # how long to wait for another process that holds the catalog


def stamp_of(path: Path) -> tuple[int, int, bool] | None:
    """What is another one once somebody has written to a catalog that is read as if nobody would; else None."""
    if os.access(path.parent, os.W_OK):
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size, path.with_name(f"{path.name}-wal").exists()


def connect(path: Path) -> sqlite3.Connection:
    """Open to write, or from a folder where nothing can be written as a file that does not change."""
    try:
        if os.access(path.parent, os.W_OK):
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        else:
            connection = _connect_to_read(path)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # what is deleted is not left in the file
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection
    except sqlite3.OperationalError as error:
        raise UnreadableError(f"{path}: cannot be opened ({error}); mend that and run again") from None
    except sqlite3.DatabaseError as error:
        raise UnreadableError(
            f"{path}: no catalog that SQLite can read ({error}); index again into another folder"
        ) from None


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """As others do who may write, if they have it open; else as a file that does not change."""
    log, shared = (path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm"))
    if log.exists() and shared.exists():
        connection = _connect_by_uri(path, "mode=ro")
        if _can_read(connection):
            return connection
        connection.close()
    if log.exists() and log.stat().st_size:
        raise UnreadableError(
            f"{path}: its writer was interrupted; make the folder writable and ask once, which mends it"
        )
    return _connect_by_uri(path, "mode=ro&immutable=1")


def _connect_by_uri(path: Path, options: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, timeout=BUSY_S, uri=True, isolation_level=None)


def _can_read(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except sqlite3.OperationalError:
        return False
    return True


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """SQLite's errors inside as XmrError that name the catalog."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise XmrError(f"{path}: could not be written ({error}); mend that and run again") from error
