"""Changes an index again and again, each time with another fault, and tells what a reader and the next run find.

    LD_PRELOAD=shim.so python driver.py FOLDER OPERATION FAULTS

Each of the calls that the operation makes to change files fails in turn, writes half, finds the disk full, or is the
last one of its process or of its machine. FAULTS: so many of them, evenly spread; 0 for all. Prints a line of JSON for
the calls, and one a fault.
"""

import ctypes
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sentences
from power import Disk
from sentences import Line, add, answers_of, model, write

from xmr.engine import index as index_module
from xmr.engine.errors import XmrError
from xmr.engine.index import Index, writer

# of the shim, in its order; a cut is a kill after which only what was synced is there
COUNT, FAIL, HALF, FULL, KILL, KILL_HALF = range(6)
FAULTS = {"fail": FAIL, "half": HALF, "full": FULL, "kill": KILL, "torn": KILL_HALF, "cut": KILL, "names": KILL}
SHIM = ctypes.CDLL(None)
SHIM.fault_names.restype = ctypes.c_char_p

State = set[Line] | None
Change = Callable[[Path, Path], None]  # of the index in one folder, by the corpus in the other


@dataclass(frozen=True)
class Operation:
    """What is done to the index that `before` made of the first corpus, once the corpus is as `after` has it."""

    change: Change
    before: list[dict[str, list[str] | None]] = field(default_factory=list)  # added one after the other
    after: dict[str, list[str] | None] = field(default_factory=dict)
    is_whole: bool = True  # one commit, so that a reader sees the old or the new index; else each file whole
    damage: Callable[[Path], None] = lambda index: None


def add_corpus(index: Path, corpus: Path) -> None:
    if not (index / "catalog.db").exists():
        Index.create(index, model()).close()
    with closing(Index.open(index)) as opened:
        add(opened, corpus)


def add_and_prune(index: Path, corpus: Path) -> None:
    with closing(Index.open(index)) as opened:
        add(opened, corpus, prune=True)


def create(index: Path, corpus: Path) -> None:
    if not (index / "catalog.db").exists():
        Index.create(index, model()).close()


def delete_some(index: Path, corpus: Path) -> None:
    with closing(Index.open(index)) as opened:
        opened.delete(ids=opened.found([2, 3, 6]))  # repeated, they may be gone


def compact(index: Path, corpus: Path) -> None:
    with closing(Index.open(index)) as opened:
        opened.compact()


def damage_codes(index: Path) -> None:
    path = sorted((index / "segments").glob("*.i8.codes.npy"))[0]
    path.write_bytes(path.read_bytes()[:-100])


def lines(name: str, n: int = 3) -> list[str]:
    return [f"{name} says {number}" for number in range(n)]


OLD: dict[str, list[str] | None] = {f"{name}.txt": lines(name) for name in "abc"}
NEW: dict[str, list[str] | None] = {"a.txt": lines("another a", 2), "b.txt": None, "d.txt": lines("d")}
ONE_BY_ONE: list[dict[str, list[str] | None]] = [{f"{number}.txt": lines(str(number), 2)} for number in range(6)]
OPERATIONS = {
    "create": Operation(create),
    "add": Operation(add_corpus, [{"a.txt": []}], OLD),
    "change": Operation(add_corpus, [OLD], NEW, is_whole=False),
    "prune": Operation(add_and_prune, [OLD], {"b.txt": None}),
    "delete": Operation(delete_some, [OLD, {"d.txt": lines("d")}]),
    "compact": Operation(compact, [OLD, NEW, {"e.txt": lines("e")}]),
    "merge": Operation(add_corpus, ONE_BY_ONE[:3], ONE_BY_ONE[3]),
    "commits": Operation(
        add_corpus, [{"a.txt": []}], dict(kv for one in ONE_BY_ONE for kv in one.items()), is_whole=False
    ),
    "mend": Operation(add_corpus, [OLD], damage=damage_codes),
}


def main(folder: Path, name: str, n_faults: int) -> None:
    sentences.without_network()
    writer.FAN_IN = 4
    index_module.COMMIT_ITEMS = 4 if name == "commits" else 2048
    SHIM.fault_arm(os.fsencode(folder), b"", COUNT, 0)  # so that nothing waits for a disk
    trial = Trial(folder, OPERATIONS[name])
    print(json.dumps({"calls": trial.calls}), flush=True)
    for fault, at in spread(trial.faults(), n_faults):
        wrong = trial.run(fault, at)
        print(json.dumps({"fault": fault, "at": at, "call": trial.call(at), "wrong": wrong}), flush=True)


def spread(faults: list[tuple[str, int]], n_faults: int) -> list[tuple[str, int]]:
    n = n_faults or len(faults)
    return [faults[place * len(faults) // n] for place in range(n)]


class Trial:
    """An operation, what the index was before and is after it, and the calls it makes when nothing fails."""

    def __init__(self, folder: Path, operation: Operation) -> None:
        self.operation = operation
        self.corpus, self.start, self.here = folder / "corpus", folder / "start", folder / "here"
        self.start.mkdir()
        self.corpus.mkdir()
        for files in operation.before:
            write(self.corpus, files)
            must(add_corpus, self.start / "index", self.corpus)
        with suppress(FileNotFoundError):
            operation.damage(self.start / "index")
        write(self.corpus, operation.after)
        self.old = state_of(self.start / "index")
        self.calls = self.count()
        self.new = state_of(self.here / "index")
        self.names = names_in(self.here)

    def count(self) -> list[str]:
        self.copy()

        def counted() -> list[str]:
            self.arm(COUNT, 0)
            self.operation.change(self.here / "index", self.corpus)
            return str(SHIM.fault_names().decode()).splitlines()

        calls: list[str] = must(counted)
        return calls

    def faults(self) -> list[tuple[str, int]]:
        """A machine can also lose its power after all of it; a process cannot."""
        n = len(self.calls)
        return [(fault, at) for fault in FAULTS for at in range(1, n + 1 + (fault in ("cut", "names")))]

    def call(self, at: int) -> str:
        return self.calls[at - 1] if at <= len(self.calls) else "after the last"

    def copy(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.start, self.here)

    def arm(self, fault: int, at: int, shadow: bytes = b"") -> None:
        SHIM.fault_arm(os.fsencode(self.here), shadow, fault, at)

    def run(self, fault: str, at: int) -> str | None:
        """What is wrong after one fault, or None."""
        self.copy()
        disk = Disk(self.here) if fault in ("cut", "names") else None
        ended = in_child(partial(self.change, fault, at, disk))
        if disk is not None:
            disk.cut(keep_names=fault == "names")
        if ended.failed:
            return f"the operation crashed: {ended.failed}"
        is_done = ended.result == "done" or at > len(self.calls)
        seen = in_child(partial(self.look, is_done))
        if seen.failed or seen.result:
            return f"{ended}; then {seen.failed or seen.result}"
        again = in_child(self.repeat)
        return f"{ended}; repeated: {again.failed or again.result}" if again.failed or again.result else None

    def change(self, fault: str, at: int, disk: Disk | None) -> str:
        self.arm(FAULTS[fault], at, os.fsencode(disk.shadow) if disk else b"")
        try:
            self.operation.change(self.here / "index", self.corpus)
        except (XmrError, OSError) as error:
            return f"refused: {error}"
        if at > len(self.calls):
            os.kill(os.getpid(), 9)
        return "done"

    def look(self, is_done: bool) -> str | None:
        """As a reader who comes after the fault."""
        seen = state_of(self.here / "index")
        if is_done and seen != self.new:
            return f"it was done, and {told(seen)} is found, not {told(self.new)}"
        if not self.is_version(seen):
            return f"{told(seen)} is found, neither {told(self.old)} nor {told(self.new)}"
        if seen is not None and seen != "unreadable" and (faults := verify(self.here / "index")):
            return f"verify: {faults}"
        return None

    def is_version(self, seen: Any) -> bool:
        if seen in (self.old, self.new):
            return True
        if self.operation.is_whole or not isinstance(seen, set) or self.old is None:
            return False
        old, new = by_file(self.old), by_file(self.new)
        return all(of in (old.get(name, set()), new.get(name, set())) for name, of in by_file(seen, old, new).items())

    def repeat(self) -> str | None:
        """The same operation again, undisturbed, as the next run of a command."""
        self.operation.change(self.here / "index", self.corpus)
        if (seen := state_of(self.here / "index")) != self.new:
            return f"{told(seen)} is found, not {told(self.new)}"
        if faults := verify(self.here / "index"):
            return f"verify: {faults}"
        if other := names_in(self.here) ^ self.names:
            return f"files differ: {sorted(other)}"
        return None


def state_of(index: Path) -> Any:
    """What can be found; None without an index, "unreadable" where a search is refused."""
    try:
        return answers_of(index)
    except XmrError:
        return "unreadable"


def verify(index: Path) -> list[str]:
    with closing(Index.open(index)) as opened:
        return [f"{fault}" for fault in opened.verify().faults]


def names_in(folder: Path) -> set[str]:
    """Of the files, without those that SQLite keeps while a catalog is open."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {path for path in paths if not path.endswith(("-wal", "-shm"))}


def by_file(state: set[Line] | None, *others: dict[str, set[Line]]) -> dict[str, set[Line]]:
    files: dict[str, set[Line]] = {name: set() for other in others for name in other}
    for line in state or ():
        files.setdefault(line[0], set()).add(line)
    return files


def told(state: Any) -> str:
    return str(state) if not isinstance(state, set) else " ".join(f"{name}:{line}" for name, line, _ in sorted(state))


@dataclass(frozen=True)
class Ended:
    """How a child ended: with a result, by a crash, or (neither) by a signal."""

    result: Any = None
    failed: str = ""

    def __str__(self) -> str:
        return str(self.result or "killed")


def in_child(work: Callable[[], Any]) -> Ended:
    """Run in a process of its own, so that what it leaves behind is on the disk alone."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        try:
            told = {"result": as_json(work())}
        except BaseException:
            told = {"failed": traceback.format_exc()}
        os.write(writable, json.dumps(told).encode()[:60_000])
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != 9:
        return Ended(failed=f"signal {os.WTERMSIG(status)}")
    return Ended(**json.loads(content)) if content else Ended()


def as_json(value: Any) -> Any:
    return value if value is None or isinstance(value, str | list) else str(value)


def must(work: Callable[..., Any], *arguments: Any) -> Any:
    ended = in_child(partial(work, *arguments))
    if ended.failed:
        raise SystemExit(f"without a fault: {ended.failed}")
    return ended.result


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
