"""Which items a condition holds for: an SQL expression over what the catalog knows of an item.

A condition is one expression, no statement: columns, values, operators and the functions of `FUNCTIONS`, without a
SELECT inside. It is read by three walls, each of which would do: its tokens are counted before SQLite sees it, an
authorizer lets SQLite read two tables and call those functions and nothing else, and the connection cannot write.
What it may cost is bounded too: its length, the values it makes, and its time.
"""

import difflib
import math
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UnreadableError, XmrError

# what a condition may name, and what it stands for; a key of the metadata is a column too
COLUMNS = {
    "id": "items.id",
    "path": "files.path",
    "modality": "items.modality",
    "medium": "files.medium",
    "start_s": "items.start_s",
    "end_s": "items.end_s",
    "line": "items.line",
    "text": "items.text",
    "size": "files.size",  # bytes
    "mtime": "files.mtime / 1e9",  # Unix seconds; nanoseconds in the catalog
    "missing": "files.missing",  # 1: the file was not there any more when its folder was last looked through
    "metadata": (
        "iif(items.metadata IS NULL, files.metadata, json_patch(files.metadata, items.metadata))"  # JSON
    ),
}
# fmt: off
# none whose time or result can be many times that of what it is given
FUNCTIONS = frozenset((
    "abs", "coalesce", "date", "datetime", "glob", "ifnull", "iif", "instr", "json_array_length", "json_extract",
    "json_type", "julianday", "length", "like", "lower", "max", "min", "nullif", "round",
    "strftime", "substr", "substring", "time", "typeof", "unixepoch", "upper", "->", "->>",
))
# fmt: on
OF_THE_QUERY = frozenset(("group_concat", "json_patch", "name_of"))  # no condition gains anything by them
TABLES = frozenset(("items", "files", "roots"))
ROWS = "FROM items LEFT JOIN files ON files.id = items.file"
ROOTS = " LEFT JOIN roots ON roots.id = files.root"
# below its root; the name alone of a file that has none
BELOW_ROOT = (
    "iif(substr(files.path, 1, length(roots.path) + 1) = roots.path || '/', "
    "substr(files.path, length(roots.path) + 2), name_of(files.path))"
)
NO_CONDITION = frozenset(("select", "with", "values", "raise"))  # keywords of statements
ROW_NUMBERS = frozenset(("rowid", "oid", "_rowid_"))  # every table has them, what is asked here has not

TIME_LIMIT_S = 5.0
MAX_CHARACTERS = 20_000
MAX_NESTED = 50  # parentheses
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 32_000_000,  # bytes of a value, among them the ids of a block
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 300,  # a row of 10,000 characters takes 6 ms at most
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10 * MAX_CHARACTERS,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
STEPS_BETWEEN_LOOKS = 200  # of SQLite's machine, between two looks at the clock
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)  # no condition is at fault
IDS_OF_A_BLOCK = 1_000_000  # read at once, at most 20 bytes each

TOKEN = re.compile(
    r"""(?P<space>[ \t\n\f\r]+)|(?P<string>'[^']*')|(?P<quoted>"(?:[^"]|"")*")|(?P<comment>--|/\*)
    |(?P<name>[^\W\d]\w*)|(?P<number>(?:\d\w*(?:\.\w*)?|\.\d\w*)(?:(?<=[eE])[+-]\d+)?)
    |(?P<open>\()|(?P<close>\))|(?P<operator>[-+*/%<>=!~&|,])""",
    re.VERBOSE,
)

Ids = NDArray[np.int64]


def matching(
    connection: sqlite3.Connection, condition: str, *, below_roots: bool = False, time_limit_s: float = TIME_LIMIT_S
) -> Ids:
    """Ids of the items that a condition holds for, ascending; XmrError for one that is none, or takes too long.

    The connection is one to a catalog, and may be in a transaction: then what is found is of the version that it
    reads. While the condition is evaluated, the connection can do nothing else; afterwards it is as it was.
    `below_roots`: a path is one without the folder that was indexed.
    """
    names = _named(condition)
    keys = _columns_of_keys(connection, condition)
    known = [*COLUMNS, *keys]
    _refuse_unknown(condition, names, known)
    blocks = _blocks(connection)
    sql = _sql(condition, keys, below_roots=below_roots)
    if below_roots:
        connection.create_function("name_of", 1, _name_of, deterministic=True)
    try:
        with _locked_in(connection, time_limit_s):
            found = [connection.execute(sql, block).fetchone()[0] for block in blocks]
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in DAMAGE:
            raise UnreadableError(f"damaged catalog ({error}); `xmr verify` tells more") from None
        raise XmrError(_told(condition, error, known, time_limit_s)) from None
    ids = np.concatenate([_parsed(text) for text in found]) if found else np.zeros(0, dtype=np.int64)
    return ids if (ids[1:] > ids[:-1]).all() else np.sort(ids)


def _named(condition: str) -> list[str]:
    """The names that SQLite would not miss; XmrError for what is no single expression."""
    if len(condition) > MAX_CHARACTERS:
        raise XmrError(
            f"condition of {len(condition):,} characters found, at most {MAX_CHARACTERS:,} are read; shorten it"
        )
    if not condition.strip():
        raise XmrError("empty condition found; write one as \"modality = 'image'\"")
    if not condition.isprintable() and not re.fullmatch(r"[^\x00-\x08\x0e-\x1f\ud800-\udfff]*", condition):
        raise XmrError(f"{_shown(condition)}: a character that is no text; write the condition in UTF-8")
    named, n_open, at = [], 0, 0
    while at < len(condition):
        token = TOKEN.match(condition, at)
        if token is None:
            raise _no_expression(condition, _unread(condition[at]))
        kind, text, at = token.lastgroup, token.group(), token.end()
        if kind == "comment":
            raise _no_expression(condition, f"a comment ({text})")
        if kind == "name" and text.lower() in NO_CONDITION:
            raise _no_expression(condition, text)
        n_open += (kind == "open") - (kind == "close")
        if n_open < 0 or n_open > MAX_NESTED:
            raise _no_expression(condition, f"more than {MAX_NESTED} open (" if n_open > 0 else "a ) too many")
        if kind == "quoted" or text.lower() in ROW_NUMBERS:
            named.append(text.strip('"').replace('""', '"'))
    if n_open:
        raise _no_expression(condition, "a ( that is not closed")
    return named


def _no_expression(condition: str, found: str) -> XmrError:
    return XmrError(f"{_shown(condition)}: {found} found; write one expression over an item's columns, nothing else")


def _unread(character: str) -> str:
    return f"a {character} that is not closed" if character in "'\"" else f"the character {character!r}"


def _refuse_unknown(condition: str, named: Sequence[str], known: Sequence[str]) -> None:
    """SQLite takes a name in double quotes that it does not know for a string, and finds nothing."""
    folded = {name.lower() for name in known}
    for name in named:
        if name.lower() not in folded:
            meant = f"; write a text as '{name}'" if f'"{name}"' in condition else ""
            raise XmrError(f"{_shown(condition)}: {_no_column(name, known)}{meant}")


def _columns_of_keys(connection: sqlite3.Connection, condition: str) -> list[str]:
    """The keys of the metadata that can be named as columns, those of which the condition may speak first.

    A key that has a column's name, or is like another one but for capitals, is reached as metadata ->> '$.name'.
    """
    names = [str(name) for (name,) in _read(connection, "SELECT name FROM keys ORDER BY name")]
    taken: dict[str, int] = dict.fromkeys(COLUMNS, 1)
    for name in names:
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
    return [name for name in names if taken[name.lower()] == 1 and name.isprintable() and not {'"', "\\"} & set(name)]


def _name_of(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]


def _sql(condition: str, keys: Sequence[str], *, below_roots: bool) -> str:
    """The ids of a block, joined by commas: so a million of them are no objects of Python's.

    A LEFT JOIN is left out by SQLite where nothing is asked of the file, and is an ordinary one where something is.
    """
    folded = condition.lower()
    meant = COLUMNS | ({"path": BELOW_ROOT} if below_roots else {})
    columns = [f"{meaning} AS {name}" for name, meaning in meant.items()]
    columns += [f'{_of_metadata(key)} AS "{key}"' for key in keys if key.lower() in folded]
    return (
        f"SELECT group_concat(id) FROM (SELECT {', '.join(columns)} {ROWS}{ROOTS if below_roots else ''}) "
        f"WHERE id BETWEEN ? AND ? AND (\n{condition}\n)"
    )


def _of_metadata(key: str) -> str:
    """A value of the metadata: the item's own, or its file's where the item has none."""
    path = "'$.\"" + key.replace("'", "''") + "\"'"
    return f"coalesce(json_extract(items.metadata, {path}), json_extract(files.metadata, {path}))"


def _blocks(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Ranges of ids that together are all, first and last."""
    # apart, each is one look at an end
    [(first, last)] = _read(connection, "SELECT (SELECT min(id) FROM items), (SELECT max(id) FROM items)")
    if first is None:
        return []
    return [(start, min(start + IDS_OF_A_BLOCK - 1, last)) for start in range(first, last + 1, IDS_OF_A_BLOCK)]


def _read(connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.DatabaseError as error:
        raise UnreadableError(f"damaged catalog ({error}); `xmr verify` tells more") from None


def _parsed(joined: str | None) -> Ids:
    """The ids of '1,2,3'; None: of nothing."""
    return np.fromstring(joined, dtype=np.int64, sep=",") if joined else np.zeros(0, dtype=np.int64)


@contextmanager
def _locked_in(connection: sqlite3.Connection, time_limit_s: float) -> Iterator[None]:
    """Inside, the connection reads two tables and calls some functions, and stops when its time is over."""
    if not (time_limit_s > 0 and math.isfinite(time_limit_s)):
        raise ValueError(f"time_limit_s is {time_limit_s}, more than 0 expected")
    end = time.monotonic() + time_limit_s
    [(was_query_only,)] = connection.execute("PRAGMA query_only").fetchall()
    before = {limit: connection.getlimit(limit) for limit in LIMITS}
    try:
        connection.execute("PRAGMA query_only = ON")
        for limit, value in LIMITS.items():
            connection.setlimit(limit, min(value, before[limit]))
        connection.set_progress_handler(lambda: time.monotonic() > end, STEPS_BETWEEN_LOOKS)
        connection.set_authorizer(_authorized)
        yield
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
        for limit, value in before.items():
            connection.setlimit(limit, value)
        connection.execute(f"PRAGMA query_only = {was_query_only}")


def _authorized(action: int, first: str | None, second: str | None, _: str | None, __: str | None) -> int:
    """SQLite's question while it compiles: may this be done?"""
    if action == sqlite3.SQLITE_SELECT:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and first in TABLES:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS | OF_THE_QUERY:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _told(condition: str, error: sqlite3.Error, known: Sequence[str], time_limit_s: float) -> str:
    """One sentence of what SQLite says."""
    said, shown = str(error), _shown(condition)
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return f"{shown}: not done after {time_limit_s:g} s; ask for something simpler"
    if name := re.fullmatch(r"no such column: (.*)", said):
        return f"{shown}: {_no_column(name[1], known)}"
    if name := re.search(r"(?:not authorized to use function|no such function): (.*)", said):
        allowed = ", ".join(sorted(function for function in FUNCTIONS if function[0] != "-"))
        return f"{shown}: no function {name[1]} here; there are {allowed}"
    return f"{shown}: {said}; write one expression over an item's columns, as \"modality = 'image' AND size < 1000\""


def _no_column(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [column.lower() for column in known], 1)
    meant = f"did you mean {near[0]}; " if near else ""
    some = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
    return f"no column {name} found; {meant}there are {some}"


def _shown(condition: str) -> str:
    short = condition if len(condition) <= 60 else f"{condition[:57]}..."
    return f"condition {short!r}"
