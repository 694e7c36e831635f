"""A bad file costs itself only: every kind alone, and all of them among good files."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from bad_media import IMAGES, KINDS, NOTHING, OTHERS, SOUNDS, TEXTS, VIDEOS, Bad, write_good_files
from conftest import XMR

from xmr.engine.errors import XmrError
from xmr.engine.media import Reading, image, medium_of, modalities_of, sound, text
from xmr.engine.media.decode import Task, decode

PREPROCESSING = {
    "image": image.Preprocessing(size=16),
    "sound": sound.Preprocessing(8000, 1.0, 1.0),
    "text": text.Preprocessing(vocabulary=("dog", "bell")),
}
MAX_BYTES = 1_000_000_000  # of memory, of all processes together
READABLE = [bad for bad in (*IMAGES, *SOUNDS, *VIDEOS, *TEXTS) if bad.needs is None or find_spec(bad.needs)]
WRITABLE = [*READABLE, *OTHERS]


@dataclass
class Ran:
    """A run of the command, and the most memory that its processes took together."""

    code: int
    out: str
    said: str
    peak_bytes: int


def test_there_are_enough_kinds() -> None:
    assert len({bad.name for bad in KINDS if bad.outcome in ("skipped", "noted")}) >= 100


@pytest.mark.parametrize("bad", [bad for bad in KINDS if bad not in OTHERS], ids=lambda bad: bad.name)
def test_each_kind_is_read_as_far_as_it_goes_or_refused_with_the_reason(bad: Bad, tmp_path: Path) -> None:
    if bad.needs is not None:
        pytest.importorskip(bad.needs)
    path = tmp_path / bad.name
    bad.write(path)
    outcome, sentences = read(path)
    assert outcome == bad.outcome
    assert re.search(bad.said, " ".join(sentences)), sentences
    assert all(sentence.startswith(str(path)) for sentence in sentences if sentence != NOTHING)


def read(path: Path) -> tuple[str, list[str]]:
    """What became of a file, and what was said of it."""
    n_pieces, notes = 0, []
    for modality in modalities_of(PREPROCESSING, medium_of(path) or ""):
        try:
            loaded = decode(Task(path, modality), PREPROCESSING[modality], Reading())
        except XmrError as error:
            return "skipped", [str(error)]
        n_pieces += len(loaded.pieces)
        notes += loaded.notes
    if not n_pieces:
        return "skipped", [*notes, NOTHING]
    return "noted" if notes else "good", notes


@pytest.mark.parametrize("n_good", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_bad_files_among_good_ones_are_listed_and_the_good_ones_indexed(
    n_good: int, exported: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_good_files(corpus, n_good)
    for bad in WRITABLE:
        bad.write(corpus / bad.name)
    ran = run_and_watch("index", corpus, "--model", exported, "--errors", "errors.jsonl", "--json", cwd=tmp_path)
    assert ran.code == 3, ran.said
    assert "Traceback" not in ran.said
    summary = json.loads(ran.out)
    errors = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    skipped = {Path(error["path"]).name: error["reason"] for error in errors}
    by_outcome = {outcome: {bad.name for bad in WRITABLE if bad.outcome == outcome} for outcome in ("good", "noted")}
    assert summary["n_embedded"] == n_good + len(by_outcome["good"]) + len(by_outcome["noted"])
    expected = {bad.name for bad in WRITABLE if bad.outcome == "skipped"}
    assert expected - set(skipped) == {"no_text.csv"}  # in a folder a whole table of numbers is none of the corpus
    assert not set(skipped) & (by_outcome["good"] | by_outcome["noted"])
    assert not [name for name in skipped if name.startswith("good_0")]
    assert not [reason for reason in skipped.values() if "not decoded within" in reason or "crashed" in reason]
    for name in by_outcome["noted"]:
        assert any(name in note for note in summary["notes"]), name
    assert ran.peak_bytes < MAX_BYTES


def test_strict_fails_where_a_file_is_bad(exported: Path, tmp_path: Path) -> None:
    write_good_files(tmp_path, 3)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    ran = run_and_watch("index", tmp_path, "--model", exported, "--index", "index", "--strict", cwd=tmp_path)
    assert ran.code == 1
    assert "bad.png: no image that Pillow can read" in ran.said


def run_and_watch(*arguments: object, cwd: Path) -> Ran:
    """The command, while a thread adds up the memory of its processes."""
    command = [str(XMR), *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    peaks = [0]

    def watch() -> None:
        while process.poll() is None:
            peaks.append(resident_bytes(process.pid) if sys.platform.startswith("linux") else 0)
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    out, said = process.communicate(timeout=900)
    thread.join()
    return Ran(process.returncode, out, said, max(peaks))


def resident_bytes(session: int) -> int:
    """Of all processes of a session; what several share is counted once."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getsid(int(folder.name)) == session:
                told = (folder / "smaps_rollup").read_text()
                total += 1024 * int(re.search(r"^Pss: +(\d+) kB", told, re.MULTILINE)[1])  # type: ignore[index]
        except (OSError, TypeError):  # it has ended
            continue
    return total
