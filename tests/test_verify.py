"""`xmr verify` finds whatever is wrong in any file of an index and names the file; nothing that is wrong crashes it, or
a search."""

import json
import os
import shutil
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentences
from conftest import run_xmr
from sentences import add, write

from xmr.engine.errors import XmrError
from xmr.engine.index import Index

CATALOG, SEAL = "catalog.db", "catalog.seal"
KINDS = ("f32.npy", "ids.npy", "i8.json", "i8.codes.npy", "i8.blocks.npy", "i8.bounds.npy", "i8.mean.npy")
FILES = (CATALOG, SEAL, *KINDS)


def counts(few: int, many: int) -> list[Any]:
    return [few, pytest.param(many, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments of sentences whose vectors lie about a mean; and a second index of other ones, beside it."""
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xmr.engine.embed.embed_files", sentences.embed_files)
        patch.setattr(sentences, "vector_of", off_center)
        for name in ("index", "other"):
            with closing(Index.create(folder / name, sentences.model())) as index:
                for part in range(2):
                    corpus = folder / f"{name}-{part}"
                    write(corpus, {f"{number}.txt": said(name, part, number) for number in range(3)})
                    add(index, corpus)
                index.delete(ids=[5, 6])
    return folder


def said(name: str, part: int, number: int) -> list[str]:
    return [f"{name} {part} {number} says {line}" for line in range(80)]


def off_center(sentence: str, of: Callable[[str], Any] = sentences.vector_of) -> Any:
    row = of(sentence) + 2  # so that coding them subtracts their mean
    return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.fixture
def index(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / "index", tmp_path / "index"))


def file_of(index: Path, kind: str) -> Path:
    """The catalog, its seal, or a file of the first segment."""
    if kind in (CATALOG, SEAL):
        return index / kind
    return next(path for path in sorted((index / "segments").iterdir()) if path.name.partition(".")[2] == kind)


def verified(index: Path) -> list[str]:
    """A sentence for all that is wrong; what refuses to be opened says it itself."""
    try:
        with closing(Index.open(index)) as opened:
            return [str(fault) for fault in opened.verify().faults]
    except XmrError as error:
        return [str(error)]


def searched(index: Path) -> None:
    """Ask for everything; only a refusal in words is allowed."""
    try:
        with closing(Index.open(index)) as opened:
            opened.search(sentences.queries(), sentences.ALL)
            list(opened.items())
    except XmrError:
        return


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """What it found, or how its process was ended: a search that crashes must not take the tests along."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = work()
        except BaseException:
            found = [traceback.format_exc()]
        with os.fdopen(writable, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    return [f"ended by signal {os.WTERMSIG(status)}"] if os.WIFSIGNALED(status) else list(json.loads(content))


def unnoticed(index: Path, path: Path, damages: list[tuple[str, bytes]]) -> list[str]:
    """The damages of a file that verify does not find or name."""
    before = {file: file.read_bytes() for file in index.rglob("*") if file.is_file()}

    def tell() -> list[str]:
        missed = []
        for name, content in damages:
            path.write_bytes(content)
            faults = verified(index)
            if not any(path.name in fault for fault in faults):
                missed.append(f"{path.name}, {name}: {faults}")
            searched(index)
            for file in [file for file in index.rglob("*") if file.is_file() and file not in before]:
                file.unlink()  # what SQLite keeps beside a catalog
            for file, was in before.items():
                if not file.exists() or file.read_bytes() != was:
                    file.write_bytes(was)
        return missed

    return in_child(tell)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_an_index_as_it_was_written_has_no_fault(index: Path) -> None:
    assert verified(index) == []
    assert {path.name.partition(".")[2] for path in (index / "segments").iterdir()} == set(KINDS)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("n_flips", counts(20, 200))
def test_every_flipped_bit_is_found(n_flips: int, kind: str, index: Path) -> None:
    path = file_of(index, kind)
    content = path.read_bytes()
    bits = np.random.default_rng(n_flips).choice(8 * len(content), n_flips, replace=False)
    assert unnoticed(index, path, [(f"bit {bit}", flipped(content, int(bit))) for bit in bits]) == []


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("n_cuts", counts(10, 50))
def test_every_cut_is_found(n_cuts: int, kind: str, index: Path) -> None:
    path = file_of(index, kind)
    content = path.read_bytes()
    sizes = {0, len(content) - 1, *np.random.default_rng(n_cuts).integers(0, len(content), n_cuts - 2).tolist()}
    assert unnoticed(index, path, [(f"{size} bytes", content[:size]) for size in sorted(sizes)]) == []


@pytest.mark.parametrize("kind", FILES)
def test_bytes_that_were_added_are_found(kind: str, index: Path) -> None:
    path = file_of(index, kind)
    content = path.read_bytes()
    added = [("a byte", content + b"\0"), ("a page", content + bytes(4096)), ("twice", content + content)]
    assert unnoticed(index, path, added) == []


@pytest.mark.parametrize("kind", FILES)
def test_the_command_names_the_file_and_fails(kind: str, index: Path, tmp_path: Path) -> None:
    path = file_of(index, kind)
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * (len(content) // 2)))
    done = run_xmr("verify", "--index", index, cwd=tmp_path)
    assert done.returncode == 1
    assert path.name in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_that_all_is_well(index: Path, tmp_path: Path) -> None:
    done = run_xmr("verify", "--index", index, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != SEAL])
def test_a_missing_file_is_named(kind: str, index: Path) -> None:
    path = file_of(index, kind)
    path.unlink()
    searched(index)
    [*faults] = verified(index)
    assert any(path.name in fault or kind == CATALOG for fault in faults)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_two_segments_that_changed_places_are_named(kind: str, index: Path) -> None:
    one, other = (path for path in sorted((index / "segments").iterdir()) if path.name.partition(".")[2] == kind)
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        pytest.skip(f"{kind} is the same of both segments")
    one.write_bytes(second)
    other.write_bytes(first)
    searched(index)
    faults = verified(index)
    assert all(any(path.name in fault for fault in faults) for path in (one, other))


def test_a_whole_segment_in_the_place_of_another_is_named(index: Path) -> None:
    names = [sorted(path.name for path in (index / "segments").glob(f"{number:06d}.*")) for number in (1, 2)]
    for one, other in zip(*names, strict=True):
        (index / "segments" / one).write_bytes((index / "segments" / other).read_bytes())
    searched(index)
    faults = verified(index)
    assert all(any(name in fault for fault in faults) for name in names[0] if not name.endswith("mean.npy"))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_another_index_is_named(kind: str, index: Path, pristine: Path) -> None:
    foreign = file_of(pristine / "other", kind).read_bytes()
    path = file_of(index, kind)
    if foreign == path.read_bytes():
        pytest.skip(f"{kind} is the same in both indexes")
    path.write_bytes(foreign)
    searched(index)
    assert any(path.name in fault for fault in verified(index)) or kind in (CATALOG, SEAL)
    assert verified(index)


def test_the_catalog_of_another_index_with_its_seal_is_found(index: Path, pristine: Path) -> None:
    for name in (CATALOG, SEAL):
        shutil.copy(pristine / "other" / name, index / name)
    searched(index)
    assert verified(index)


def test_a_catalog_without_its_seal_is_checked_as_far_as_sqlite_can(index: Path) -> None:
    (index / SEAL).unlink()
    assert verified(index) == []
    content = bytearray((index / CATALOG).read_bytes())
    content[4096 : 2 * 4096] = bytes(4096)
    (index / CATALOG).write_bytes(content)
    searched(index)
    assert any(CATALOG in fault for fault in verified(index))
