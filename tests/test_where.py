"""Conditions in SQL: which items they hold for, and that nothing else can be made of them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from xmr.engine.catalog import SCHEMA
from xmr.engine.errors import XmrError
from xmr.engine.where import matching

FILES = [
    ("/c/a.jpg", "image", 100, 1_700_000_000_500_000_000, {"label": "dog", "year": 2001, "tags": ["x", "y"]}, 0),
    ("/c/b's.wav", "audio", 200, 1_600_000_000_000_000_000, {"label": "cat", "größe": 3, "size": "large"}, 1),
    ("/c/t.csv", "text", 300, 1_700_000_001_000_000_000, {"label": "rain", "Kind": 1, "kind": 2, "a b": True}, 0),
]
ITEMS = [  # file, modality, start_s, end_s, line, text, metadata
    (1, "image", None, None, None, None, None),
    (2, "sound", 0.0, 5.0, None, None, None),
    (2, "sound", 2.5, 7.5, None, None, None),
    (3, "text", None, None, 1, "a dog", {"label": "dog"}),
    (3, "text", None, None, 2, "100% wet", None),
]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Three files and their items, 1 to 5; the connection can write."""
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(SCHEMA)
        for path, medium, size, mtime, metadata, missing in FILES:
            written = json.dumps(metadata, ensure_ascii=False)
            connection.execute(
                "INSERT INTO files (path, medium, start, size, mtime, sha256, metadata, missing) "
                "VALUES (?, ?, 0, ?, ?, '', ?, ?)",
                (path, medium, size, mtime, written, missing),
            )
            connection.executemany("INSERT OR IGNORE INTO keys VALUES (?)", [(name,) for name in metadata])
        for *item, metadata in ITEMS:
            connection.execute(
                "INSERT INTO items (file, modality, start_s, end_s, line, text, metadata) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*item, metadata and json.dumps(metadata)),
            )
        yield connection


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("modality = 'image'", [1]),
        ("medium = 'audio' AND start_s >= 2.5", [3]),
        ("id IN (5, 1, 99)", [1, 5]),
        ("path LIKE '%.csv' AND line = 2", [5]),
        ("path = '/c/b''s.wav'", [2, 3]),
        ("text LIKE '%!%%' ESCAPE '!'", [5]),
        ("size BETWEEN 100 AND 200", [1, 2, 3]),
        ("mtime > 1700000000.4 AND mtime < 1700000000.6", [1]),
        ("datetime(mtime, 'unixepoch') < '2021'", [2, 3]),
        ("missing", [2, 3]),
        ("label = 'dog'", [1, 4]),  # the item's own label comes before that of its file
        ("year > 2000", [1]),
        ("year IS NULL", [2, 3, 4, 5]),
        ("größe = 3", [2, 3]),
        ('"a b"', [4, 5]),
        ("tags ->> '$[1]' = 'y'", [1]),
        ("metadata ->> '$.size' = 'large'", [2, 3]),  # a column is called so too
        ("metadata ->> '$.Kind' = 1 AND metadata ->> '$.kind' = 2", [4, 5]),  # and these differ by capitals alone
        ("metadata ->> '$.label' = 'dog'", [1, 4]),
        ("'/* -- ; (' = '/* -- ; (' AND id < 2.5e+0", [1, 2]),
        ("CASE modality WHEN 'text' THEN line = 1 ELSE 0 END", [4]),
        ("0", []),
        ("1", [1, 2, 3, 4, 5]),
    ],
)
def test_a_condition_holds_for_these_items(catalog: sqlite3.Connection, condition: str, ids: list[int]) -> None:
    found = matching(catalog, condition)
    assert found.dtype == np.int64
    assert found.tolist() == ids


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("1) UNION SELECT sql FROM sqlite_master --", r"a \) too many"),
        ("1 OR id IN (SELECT id FROM items)", "SELECT found"),
        ("id IN (WITH RECURSIVE t(x) AS (VALUES (1)) SELECT x FROM t)", "WITH found"),
        ("id IN (VALUES (1))", "VALUES found"),
        ("1; DROP TABLE items", "';' found"),
        ("1 -- all of them", "a comment"),
        ("1 /* all of them */", "a comment"),
        ("((1)", "a \\( that is not closed"),
        ("text = 'a", "a ' that is not closed"),
        ('"label = 1', 'a " that is not closed'),
        ("id = ?", r"'\?' found"),
        ("id = :id", "':' found"),
        ("[id] = 1", r"'\[' found"),
        ("items.id = 1", "'.' found"),
        ("1\0", "no text"),
        ("text = '\udcff'", "no text"),
        ("", "empty condition"),
        ("(" * 1_000_000 + "1" + ")" * 1_000_000, "2,000,001 characters found"),
        ("(" * 5000 + "1" + ")" * 5000, r"more than 50 open \("),
        ("id = 1 OR " * 1500 + "1", "too large"),
        ("path LIKE '" + "%a" * 5000 + "'", "too complex"),
        ("path GLOB '" + "*a" * 5000 + "'", "too complex"),
        ("text REGEXP 'a'", "no function REGEXP"),
        ("text MATCH 'a'", "no function MATCH"),
        ("load_extension('x')", "no function load_extension here; there are abs, coalesce"),
        ("writefile('/tmp/x', 'y')", "no function writefile"),
        ("randomblob(1000000000) IS NULL", "no function randomblob"),
        ("trim(path, text) = ''", "no function trim"),
        ("printf('%1000000000d', 1) = ''", "no function printf"),
        ("replace(path, 'a', path) = ''", "no function replace"),
        ("count(*) > 1", "no function count"),
        ("max(id) = id", "misuse of aggregate"),
        ("group_concat(id) = ''", "misuse of aggregate"),
        ("row_number() OVER () = 1", "no function row_number"),
        ("1 IN sqlite_master", "prohibited"),
        ("'x' IN skipped", "prohibited"),
        ("1 IN json_each", "json_each"),
        ("modality = 'image' ORDER BY 1", "syntax error"),
        ("1 LIMIT 1", "syntax error"),
        ("lable = 'dog'", "no column lable found; did you mean label; there are id, path, .*, year$"),
        ('"lable" = 1', "no column lable found"),
        ('label = "dog"', "no column dog found.*write a text as 'dog'$"),
        ("rowid = 1", "no column rowid found"),
        ("kind = 1", "no column kind found"),
        ("json_extract(text, '$.a') = 1", "malformed JSON"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_sentence(
    catalog: sqlite3.Connection, condition: str, says: str
) -> None:
    before = catalog.execute("SELECT * FROM items, files").fetchall()
    with pytest.raises(XmrError, match=says) as raised:
        matching(catalog, condition)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    assert catalog.execute("SELECT * FROM items, files").fetchall() == before


def test_every_action_but_reading_is_denied_even_if_the_tokens_were_not_counted() -> None:
    from xmr.engine import where

    actions = {name: value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and name.isupper()}
    for name in ("ATTACH", "PRAGMA", "INSERT", "UPDATE", "DELETE", "DROP_TABLE", "CREATE_TEMP_TABLE", "RECURSIVE"):
        assert where._authorized(actions[f"SQLITE_{name}"], "items", None, "main", None) == sqlite3.SQLITE_DENY
    assert where._authorized(sqlite3.SQLITE_READ, "sqlite_master", "sql", "main", None) == sqlite3.SQLITE_DENY
    assert where._authorized(sqlite3.SQLITE_FUNCTION, None, "load_extension", None, None) == sqlite3.SQLITE_DENY


def test_a_condition_without_end_is_stopped(catalog: sqlite3.Connection) -> None:
    catalog.execute("BEGIN")
    catalog.executemany(
        "INSERT INTO items (file, modality, text) VALUES (3, 'text', ?)", [("a" * 10_000,) for _ in range(3000)]
    )
    catalog.execute("COMMIT")
    with pytest.raises(XmrError, match=r"not done after 0\.2 s"):
        matching(catalog, " AND ".join(["NOT text LIKE '" + "%" + "a" * 290 + "b'"] * 20), time_limit_s=0.2)


def test_the_connection_is_afterwards_as_it_was(catalog: sqlite3.Connection) -> None:
    limits = [catalog.getlimit(limit) for limit in range(12)]
    with pytest.raises(XmrError):
        matching(catalog, "nothing = 1")
    assert [catalog.getlimit(limit) for limit in range(12)] == limits
    assert catalog.execute("PRAGMA query_only").fetchone() == (0,)
    catalog.execute("DELETE FROM items WHERE hex(id) = '31'")
    assert matching(catalog, "1").tolist() == [2, 3, 4, 5]


def test_in_a_snapshot_its_own_version_is_asked(catalog: sqlite3.Connection, tmp_path: Path) -> None:
    catalog.execute("PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as writer:
        catalog.execute("BEGIN")
        catalog.execute("SELECT count(*) FROM items").fetchone()
        writer.execute("DELETE FROM items")
        assert matching(catalog, "modality = 'text'").tolist() == [4, 5]
        catalog.execute("COMMIT")
    assert matching(catalog, "modality = 'text'").tolist() == []


def test_many_items_come_in_blocks(catalog: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmr.engine.where.IDS_OF_A_BLOCK", 2)
    assert matching(catalog, "id <> 3").tolist() == [1, 2, 4, 5]


def test_a_damaged_catalog_is_told(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"no catalog" * 1000)
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection, pytest.raises(XmrError, match="damaged"):
        matching(connection, "1")
