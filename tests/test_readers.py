"""Readers beside a writer see whole versions, one process writes, and what was deleted is gone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sentences
from sentences import add, answers, queries, write

from xmr.engine.corpus import scan
from xmr.engine.embed import EmbeddedFile
from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.index import writer as index_writer

N_QUERIES = 16  # that readers ask in turn
K = 10


class Size(NamedTuple):
    """How much happens at once."""

    readers: int
    queries: int  # of each reader, at least
    appends: int
    compactions: int


SIZES = [Size(2, 150, 20, 4), pytest.param(Size(4, 2000, 100, 20), marks=pytest.mark.long)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmr.engine.embed.embed_files", sentences.embed_files)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with closing(Index.create(tmp_path / "index", sentences.model())) as opened:
        yield opened


def lines_of(version: int) -> list[sentences.Line]:
    """What an index holds in a version: each brings a file, and every fourth takes one away."""
    gone = {number for number in range(1, version + 1) if number % 4 == 1 and number + 2 <= version}
    return [
        (f"{number}.txt", line, f"{number} says {line}")
        for number in range(1, version + 1)
        if number not in gone
        for line in (1, 2, 3)
    ]


def best(version: int, query: Any) -> list[sentences.Line]:
    lines = lines_of(version)
    scores = {line: float(sentences.vector_of(line[2]).astype(np.float64) @ query) for line in lines}
    return sorted(lines, key=lambda line: -scores[line])[:K]


def read(
    folder: Path, n_queries: int, begun: "Synchronized[int]", done: "Synchronized[int]", last: int, wrong: Any
) -> None:
    """Ask until the writer is done, and compare each answer with the versions that there were meanwhile."""
    expected: dict[tuple[int, int], list[sentences.Line]] = {}
    asked = queries(N_QUERIES)
    opened = Index.open(folder)
    n_asked = 0
    try:
        while n_asked < n_queries or done.value < last:
            number = n_asked % N_QUERIES
            if n_asked % 10 == 9:  # others come and go
                opened.close()
                opened = Index.open(folder)
            first = done.value
            hits = opened.search(asked[number], K)
            found = [(Path(hit.path).name, hit.line, hit.text) for hit in hits]
            versions = range(first, begun.value + 1)
            for version in versions:
                if (version, number) not in expected:
                    expected[version, number] = best(version, asked[number])
            if all(found != expected[version, number] for version in versions):
                possible = [expected[version, number] for version in versions]
                wrong.put(f"query {number} in versions {versions}: {found}, not one of {possible}")
            n_asked += 1
    except BaseException as error:
        wrong.put(repr(error))
    wrong.put(None)


def change(index: Index, corpus: Path, version: int) -> None:
    """Commit a version: a file more, and where one goes, that is left without a sentence in the same transaction."""
    names = [f"{version}.txt"]
    write(corpus, {names[0]: [f"{version} says {line}" for line in (1, 2, 3)]})
    if version > 2 and (version - 2) % 4 == 1:
        names.append(f"{version - 2}.txt")
        write(corpus, {names[1]: [""]})
    index.add(scan([corpus / name for name in names], {"text"}), sentences.model())


@pytest.mark.parametrize("size", SIZES)
def test_every_answer_is_a_brute_force_over_one_version(
    size: Size, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_writer, "FAN_IN", 8)
    context = multiprocessing.get_context("spawn")
    begun, done, wrong = context.Value("i", 0), context.Value("i", 0), context.Queue()
    n_versions = size.appends
    arguments = (index.folder, size.queries, begun, done, n_versions, wrong)
    change(index, tmp_path / "corpus", 1)
    begun.value = done.value = 1
    readers = [context.Process(target=read, args=arguments) for _ in range(size.readers)]
    for reader in readers:
        reader.start()
    time.sleep(1)  # until they ask
    for version in range(2, n_versions + 1):
        begun.value = version
        change(index, tmp_path / "corpus", version)
        done.value = version
        if version % (size.appends // size.compactions) == 0:
            index.compact()
    told = [wrong.get(timeout=300) for _ in readers]
    while None in told and len([one for one in told if one is None]) < len(readers):
        told.append(wrong.get(timeout=300))
    for reader in readers:
        reader.join(60)
        assert reader.exitcode == 0
    assert [one for one in told if one is not None] == []
    assert answers(index) == set(lines_of(n_versions))
    assert index.verify().faults == []


# one writer


def hold(folder: Path, corpus: Path, is_held: Any) -> None:
    """Begin to add, and stay there."""

    def endless(*_: Any, **__: Any) -> Iterator[EmbeddedFile]:
        is_held.set()
        time.sleep(600)
        yield from ()

    sentences.embed_files = endless
    sentences.without_network()
    with closing(Index.open(folder)) as index:
        add(index, corpus)


def test_a_second_writer_is_refused_and_the_lock_of_a_dead_one_is_free(index: Index, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write(corpus, {"a.txt": ["a says so"]})
    add(index, corpus)
    write(corpus, {"b.txt": ["b says so"]})
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    holder = context.Process(target=hold, args=(index.folder, corpus, is_held))
    holder.start()
    try:
        assert is_held.wait(60)
        for work in (lambda: add(index, corpus), lambda: index.delete(ids=[1]), index.compact):
            with pytest.raises(
                XmrError, match="another process is writing to this index, or verifies it; wait until it is done"
            ):
                work()
        assert len(answers(index)) == 1
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(holder.pid or 0), signal.SIGKILL)
        holder.join(60)
    assert add(index, corpus).n_embedded == 1
    assert len(answers(index)) == 2


# deleted means gone


@pytest.mark.parametrize(
    ("n_files", "n_deleted", "n_queries"), [(6, 100, 500), pytest.param(60, 1000, 10_000, marks=pytest.mark.long)]
)
def test_what_was_deleted_is_in_no_answer_and_in_no_file(
    n_files: int, n_deleted: int, n_queries: int, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.index.COMMIT_ITEMS", 200)
    corpus = tmp_path / "corpus"
    write(
        corpus, {f"{number}.txt": [f"file {number} says {line:04d}" for line in range(50)] for number in range(n_files)}
    )
    add(index, corpus)
    ids = np.array(sorted({hit.id for hit in index.search(queries(1), sentences.ALL)}))
    gone = {int(item) for item in np.random.default_rng(0).choice(ids, n_deleted, replace=False)}
    said = {str(index.found([item])[item].text) for item in gone}
    assert index.delete(ids=gone) == n_deleted

    def check(opened: Index) -> None:
        for start in range(0, n_queries, 100):
            rows = np.random.default_rng(start).standard_normal((100, sentences.DIM)).astype(np.float32)
            hits = opened.search(rows / np.linalg.norm(rows, axis=1, keepdims=True), 50)
            assert len(hits) == 100 * 50
            assert gone.isdisjoint(hit.id for hit in hits)
            assert said.isdisjoint(str(hit.text) for hit in hits)
        assert len(answers(opened)) == len(opened) == len(ids) - n_deleted
        assert opened.found(sorted(gone)) == {}
        assert gone.isdisjoint(entry.id for block in opened.items() for entry in block.entries)
        with pytest.raises(XmrError, match="no item"):
            opened.vectors([min(gone)])

    check(index)
    index.compact()
    check(index)
    index.close()
    with closing(Index.open(index.folder)) as opened:
        check(opened)
        assert opened.verify().faults == []
        opened.close()
    content = (index.folder / "catalog.db").read_bytes()
    assert not [text for text in said if text.encode() in content]
    rows = np.concatenate([np.load(path) for path in (index.folder / "segments").glob("*.f32.npy")])
    assert len(rows) == len(ids) - n_deleted
    assert add_nothing(index.folder, corpus) == len(ids) - n_deleted


def add_nothing(folder: Path, corpus: Path) -> int:
    """Items after the same corpus was indexed again: its files are as they were, so nothing comes back."""
    with closing(Index.open(folder)) as opened:
        add(opened, corpus)
        return len(opened)


# of one model


@pytest.mark.parametrize(
    ("dim", "preprocessing", "said"),
    [
        (sentences.DIM + 1, {}, f"with {sentences.DIM + 1} numbers an embedding instead of {sentences.DIM}"),
        (sentences.DIM, {"max_words": 5}, "with another preprocessing of text"),
        (sentences.DIM, {}, "with other weights"),
    ],
)
def test_an_index_of_another_model_is_refused_by_what_differs(
    dim: int, preprocessing: dict[str, Any], said: str, index: Index, tmp_path: Path
) -> None:
    other = sentences.model(dim, "fedcba9876543210")
    other.config["modalities"]["text"]["preprocessing"] = preprocessing
    write(tmp_path / "corpus", {"a.txt": ["a says so"]})
    with pytest.raises(XmrError, match=said):
        index.add(scan([tmp_path / "corpus"], {"text"}), other)
    assert len(index) == 0
