"""An index loses nothing: whatever fails, fills up or is killed, a reader sees the old or the new one, and the next run
of the same command ends as if nothing had been.

Faults are made below Python, numpy and SQLite by tests/faults/shim.c; tests/faults/driver.py says what is compared.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentences
from conftest import XMR, must_run, run_xmr
from numpy.typing import NDArray
from sentences import add, answers, write

from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.index import writer as index_writer

FAULTS = Path(__file__).with_name("faults")
OPERATIONS = ("create", "add", "change", "prune", "delete", "compact", "merge", "commits", "mend")
SOME = 7  # faults of each operation: one of each kind
FULL = 3  # of the modes of the shim

Contents = dict[tuple[Any, ...], NDArray[np.float32]]


def counted(few: int, many: int) -> list[Any]:
    """Numbers from 0: the first few are always tested, the others in the long run."""
    return [pytest.param(number, marks=[pytest.mark.long] if number >= few else []) for number in range(many)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmr.engine.embed.embed_files", sentences.embed_files)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail, or a skip that says what is missing."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("no C compiler for Linux: faults below the C library are not tested")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, FAULTS / "shim.c", "-ldl"], check=True)
    return library


def drive(shim: Path, folder: Path, operation: str, n_faults: int) -> list[dict[str, Any]]:
    """What the driver tells: the calls that the operation makes, then a record a fault."""
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "PYTHONPATH": f"{FAULTS.parent}{os.pathsep}{FAULTS}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, FAULTS / "driver.py", folder, operation, str(n_faults)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(records: list[dict[str, Any]]) -> str:
    return "\n".join(f"{one['fault']} at {one['at']}, {one['call']}: {one['wrong']}" for one in records)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_a_fault_the_index_is_the_old_or_the_new_one(operation: str, shim: Path, tmp_path: Path) -> None:
    _, *records = drive(shim, tmp_path, operation, SOME)
    assert len(records) == SOME
    assert not (wrong := [record for record in records if record["wrong"]]), told(wrong)


@pytest.mark.long
@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_every_fault_the_index_is_the_old_or_the_new_one(operation: str, shim: Path, tmp_path: Path) -> None:
    first, *records = drive(shim, tmp_path, operation, 0)
    assert len(records) == 7 * len(first["calls"]) + 2  # kinds of fault; power can be cut after the last call, too
    assert not (wrong := [record for record in records if record["wrong"]]), told(wrong)


def test_the_faults_reach_what_sqlite_numpy_and_python_write(shim: Path, tmp_path: Path) -> None:
    [first] = drive(shim, tmp_path, "merge", 1)[:1]
    calls = {tuple(call.split(" ", 1)) for call in first["calls"]}
    kinds = {(kind, name.rpartition(".")[2] if name.startswith("catalog.db") else "") for kind, name in calls}
    assert {("pwrite64", "db-wal"), ("fdatasync", "db-wal"), ("pwrite64", "db")} <= kinds
    assert {"write", "fsync", "rename", "unlink", "open64"} <= {kind for kind, _ in calls}
    assert any(name.endswith(".f32.npy") for kind, name in calls if kind == "rename")


# a disk that is full, a folder that may not be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk in memory, mounted with some options, or with others from then on."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        remount = "remount," if place.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", place]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small disk: full and read-only ones are not tested")
        return place

    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("size_k", [116, 132, 148, 164, 196, 260])
def test_a_full_disk_costs_nothing_that_was_there(
    size_k: int, small_disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_writer, "FAN_IN", 4)
    disk, corpus = small_disk("size=4m"), tmp_path / "corpus"
    write(corpus, {"a.txt": [f"a says {number}" for number in range(50)]})
    with closing(Index.create(disk / "index", sentences.model())) as index:
        add(index, corpus)
        states = [answers(index)]
    small_disk(f"size={size_k}k")
    write(corpus, {f"{name}.txt": [f"{name} says {number}" for number in range(50)] for name in "bcd"})
    with suppress(XmrError, OSError), closing(Index.open(disk / "index")) as index:
        for name in "bcd":
            states.append(states[-1] | {(f"{name}.txt", n + 1, f"{name} says {n}") for n in range(50)})
            index.add(sentences.scan([corpus / f"{name}.txt"], {"text"}), sentences.model())
            assert answers(index) == states[-1]
    small_disk("size=4m")
    assert sentences.answers_of(disk / "index") in states[-2:]
    with closing(Index.open(disk / "index")) as index:
        assert index.verify().faults == []
        add(index, corpus)
        assert len(answers(index)) == 200
        assert index.verify().faults == []


def test_a_full_disk_is_told_in_one_sentence(shim: Path, finished_world: Path, tmp_path: Path) -> None:
    environment = os.environ | {"LD_PRELOAD": str(shim), "FAULT_FOLDER": str(tmp_path / "index")}
    environment |= {"FAULT_MODE": str(FULL), "OMP_NUM_THREADS": "1"}
    command = [XMR, "index", "corpus", "--index", tmp_path / "index", "--workers", "1"]
    for at in ("5", "130"):
        done = subprocess.run(
            command, cwd=finished_world, env=environment | {"FAULT_AT": at}, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert done.stderr.splitlines()[-1].startswith("xmr: ")
        assert "full" in done.stderr.splitlines()[-1] or "No space left" in done.stderr.splitlines()[-1]
    must_run("index", "corpus", "--index", tmp_path / "index", cwd=finished_world)
    same(contents(tmp_path / "index"), contents(finished_world / ".xmr" / "index"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_an_index_that_cannot_be_written_is_searched(
    is_interrupted: bool, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    disk, corpus = small_disk("size=4m"), tmp_path / "corpus"
    write(corpus, {"a.txt": ["a says so"], "b.txt": ["b says so"]})
    with closing(Index.create(tmp_path / "index", sentences.model())) as index:
        add(index, corpus)
        if not is_interrupted:
            index.close()
        shutil.copytree(tmp_path / "index", disk / "index")
    small_disk("ro")
    with closing(Index.open(disk / "index")) as index:
        assert len(answers(index)) == 2
        assert index.verify().faults == []
        for change in (lambda: add(index, corpus), lambda: index.delete(ids=[1]), index.compact):
            with pytest.raises((XmrError, OSError), match=r"(?i)read-only|cannot be written"):
                change()
        assert len(answers(index)) == 2


def test_writing_to_a_read_only_index_is_one_sentence(
    small_disk: Callable[[str], Path], finished_world: Path, tmp_path: Path
) -> None:
    disk = small_disk("size=64m")
    shutil.copytree(finished_world / ".xmr" / "index", disk / "index")
    small_disk("ro")
    done = run_xmr("index", "corpus", "--index", disk / "index", cwd=finished_world)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert done.stderr.splitlines()[-1].startswith("xmr: ")
    asked = run_xmr("query", "--text", "a red bell", "--index", disk / "index", cwd=finished_world)
    assert asked.returncode == 0, asked.stderr


# the command, killed

# commits every few items, and notes how many the network was given
COMMANDS = """
import sys
from pathlib import Path
from xmr.engine import index
from xmr.engine.cli import app
from xmr.engine.embed import pipeline
from xmr.engine.model import Model

def embed_arrays(self, modality, arrays):
    rows = embed(self, modality, arrays)
    with Path(sys.argv[2]).open("a") as log:
        log.write(f"{len(arrays)}\\n")
    return rows

embed, Model.embed_arrays = Model.embed_arrays, embed_arrays
index.COMMIT_ITEMS, pipeline.ROOM_ITEMS = 4, 4
if __name__ == "__main__":
    app(["index", "corpus", "--index", sys.argv[1], "--workers", "1", "--batch-size", "2"])
"""
TWICE = 4 + 4 + 2 * 2 + 4  # items of a commit, those that wait for it, two batches in the network, a file beyond


class Run:
    """`xmr index` of a corpus, in a process group of its own."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.world, self.index, self.log = world, folder / "index", folder / "log"
        self.script = folder / "index_often.py"
        self.script.write_text(COMMANDS)

    def start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, self.script, self.index, self.log]
        return subprocess.Popen(command, cwd=self.world, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def finish(self) -> str:
        process = self.start()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def n_embedded(self) -> int:
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


@pytest.fixture(scope="module")
def whole(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Contents, int]:
    """An uninterrupted run: its seconds, what it made, and the items that it embedded."""
    run = Run(finished_world, tmp_path_factory.mktemp("whole"))
    start_s = time.monotonic()
    run.finish()
    return time.monotonic() - start_s, contents(run.index), run.n_embedded()


def contents(folder: Path) -> Contents:
    """Every item with its vector, by what it is."""
    found: Contents = {}
    with closing(Index.open(folder)) as index:
        for block in index.items():
            for entry, vector in zip(block.entries, np.array(block.vectors), strict=True):
                key = (entry.modality, str(entry.path), entry.start_s, entry.line, entry.text)
                assert key not in found, "an item is there twice"
                found[key] = vector
    return found


def same(found: Contents, expected: Contents) -> None:
    assert found.keys() == expected.keys()
    for key, vector in expected.items():  # in other batches a network rounds otherwise
        np.testing.assert_allclose(found[key], vector, atol=1e-5, err_msg=str(key))


def check_completed(run: Run, whole: tuple[float, Contents, int]) -> None:
    """The next run completes the index, and embeds little of it again."""
    run.finish()
    same(contents(run.index), whole[1])
    assert run.n_embedded() - whole[2] <= TWICE
    with closing(Index.open(run.index)) as index:
        assert index.verify().faults == []


def moment(number: int, whole_s: float) -> float:
    """Seconds after the start; a run that is loading its model is killed less often than one that writes."""
    return float(np.random.default_rng(number).uniform(0.2, 1.0)) * whole_s


def wait_until_gone(group: int) -> None:
    deadline_s = time.monotonic() + 30
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline_s:
            os.killpg(group, 0)
            time.sleep(0.05)
        raise AssertionError(f"processes of {group} still run half a minute after it was killed")


@pytest.mark.parametrize("number", counted(6, 50))
def test_a_run_killed_at_any_moment_is_completed_by_the_next(
    number: int, finished_world: Path, tmp_path: Path, whole: tuple[float, Contents, int]
) -> None:
    run = Run(finished_world, tmp_path)
    process = run.start()
    time.sleep(moment(number, whole[0]))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    check_completed(run, whole)
    wait_until_gone(process.pid)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("number", counted(2, 10))
def test_a_run_that_is_told_to_end_says_so_and_keeps_what_was_embedded(
    number: int, name: str, finished_world: Path, tmp_path: Path, whole: tuple[float, Contents, int]
) -> None:
    run = Run(finished_world, tmp_path)
    process = run.start()
    while not (run.index / "catalog.db").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment(number, whole[0]) / 2)
    if name == "SIGINT":  # Ctrl-C reaches the workers, too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been done before
        assert process.returncode in (130, 143)
        assert said.splitlines()[-1].startswith(("xmr: interrupted", "xmr: terminated"))
    assert "Traceback" not in said
    wait_until_gone(process.pid)
    check_completed(run, whole)


def test_the_same_corpus_gives_the_same_bytes_with_one_worker_or_two(finished_world: Path, tmp_path: Path) -> None:
    made = []
    for name, workers in (("first", 1), ("second", 1), ("third", 2)):
        must_run("index", "corpus", "--index", tmp_path / name, "--workers", workers, cwd=finished_world)
        files = {path.name: path.read_bytes() for path in (tmp_path / name / "segments").iterdir()}
        with closing(Index.open(tmp_path / name)) as index:
            items = [entry for block in index.items() for entry in block.entries]
        made.append((files, items))
    assert made[0] == made[1] == made[2]
    assert len(made[0][0]) >= 3
