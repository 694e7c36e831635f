"""Decoding ahead: every file's result in order, and a file that is bad, stuck or deadly costs itself only."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import Content, image, sound, text
from xmr.engine.media import decode as decode_module
from xmr.engine.media.decode import (
    AHEAD,
    PART_BYTES,
    PIECE_BYTES,
    Decoded,
    Decoding,
    Task,
    decode,
    decode_ahead,
)

PREPROCESSING = {
    "image": image.Preprocessing(size=4),
    "sound": sound.Preprocessing(8000, 1.0, 1.0),
    "text": text.Preprocessing(vocabulary=("dog", *map(str, range(150)))),
}
LINES_A_PART = PART_BYTES // (8 + PIECE_BYTES)  # of one word


@dataclass(frozen=True)
class Deadly:
    """Preprocessing that kills the process which reads it, as a crash in a native decoder does."""

    @property
    def size(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


@dataclass(frozen=True)
class Hungry:
    """Preprocessing that asks for more memory than a worker may take."""

    @property
    def size(self) -> int:
        return len(bytearray(2 * decode_module.MEMORY_BYTES))


@dataclass(frozen=True)
class Late:
    """Preprocessing that keeps the process which reads it until a file is there."""

    awaited: Path
    resize: str = "squash"
    margin: float = 0.0

    @property
    def size(self) -> int:
        while not self.awaited.exists():
            time.sleep(0.01)
        return 4


def write_image(path: Path, grey: int = 0) -> Path:
    Image.new("L", (4, 4), grey).save(path)
    return path


def grey_of(decoded: Decoded) -> int:
    assert decoded.loaded is not None, decoded.error
    return int(decoded.loaded.pieces[0].array[0, 0, 0])


def write_number(folder: Path, number: int) -> Task:
    """A text that says a number, to be read."""
    path = folder / f"{number}.txt"
    path.write_text(f"{number}\n")
    return Task(path, "text")


def number_of(decoded: Decoded) -> int:
    assert decoded.loaded is not None, decoded.error
    return int(decoded.loaded.pieces[0].text or "")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int, tmp_path: Path) -> None:
    tasks = [Task(write_image(tmp_path / f"{grey}.png", grey), "image") for grey in range(100)]  # more than fly at once
    decoded = list(decode_ahead(tasks, PREPROCESSING, workers=workers))
    assert [result.task for result in decoded] == tasks
    assert [grey_of(result) for result in decoded] == list(range(100))


def test_a_worker_reads_as_this_process_does(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 9)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 12_000), 8000)
    (tmp_path / "a.txt").write_text("dog\ncat\n")
    tasks = [Task(tmp_path / name, modality) for name, modality in (("a.png", "image"), ("a.wav", "sound"))]
    tasks.append(Task(tmp_path / "a.txt", "text"))
    for result in decode_ahead(tasks, PREPROCESSING, workers=1):
        here = decode(result.task, PREPROCESSING[result.task.modality])
        assert result.loaded is not None
        assert result.loaded.notes == here.notes
        for piece, expected in zip(result.loaded.pieces, here.pieces, strict=True):
            np.testing.assert_array_equal(piece.array, expected.array)
            assert (piece.start_s, piece.end_s, piece.line) == (expected.start_s, expected.end_s, expected.line)


def test_a_bad_file_costs_itself_only(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths = [write_image(tmp_path / "a.png", 1), tmp_path / "bad.png", tmp_path / "none.png"]
    paths.append(write_image(tmp_path / "b.png", 2))
    first, bad, missing, last = decode_ahead([Task(path, "image") for path in paths], PREPROCESSING, workers=1)
    assert (grey_of(first), grey_of(last)) == (1, 2)
    assert bad.error == f"{tmp_path}/bad.png: no image that Pillow can read; convert it to JPEG or PNG"
    assert missing.error == f"{tmp_path}/none.png: cannot be read (No such file or directory); check the path"


def test_a_decoder_that_crashes_costs_its_file_only(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 7)
    (tmp_path / "a.txt").write_text("dog")
    good = Task(tmp_path / "a.txt", "text")
    preprocessing = PREPROCESSING | {"image": Deadly()}
    before, crashed, after = decode_ahead([good, Task(path, "image"), good], preprocessing, workers=1)
    assert crashed.error == f"{path}: its decoder crashed (exit code -9); replace the file"
    for result in (before, after):
        assert result.loaded is not None
        assert [piece.text for piece in result.loaded.pieces] == ["dog"]


def test_a_file_that_is_never_read_to_its_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "TIMEOUT_S", 3.0)
    good, late = write_number(tmp_path, 5), Task(write_image(tmp_path / "stuck.png"), "image")
    preprocessing = PREPROCESSING | {"image": Late(tmp_path / "never")}
    before, stuck, after = decode_ahead([good, late, good], preprocessing, workers=1)
    assert (number_of(before), number_of(after)) == (5, 5)
    assert stuck.error == f"{tmp_path}/stuck.png: not decoded within 3 s; convert or remove it"


def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    tasks = [Task(write_image(tmp_path / "a.png"), "image"), write_number(tmp_path, 3)]
    large, good = decode_ahead(tasks, PREPROCESSING | {"image": Hungry()}, workers=1)
    assert large.error == f"{tmp_path}/a.png: needs more memory than a worker may take; make it smaller"
    assert number_of(good) == 3


def test_no_worker_is_left_when_the_results_are_no_longer_wanted(tmp_path: Path) -> None:
    results = decode_ahead([Task(write_image(tmp_path / "a.png"), "image")] * 50, PREPROCESSING, workers=1)
    next(results)
    assert len(multiprocessing.active_children()) == 1
    results.close()
    assert multiprocessing.active_children() == []


def test_nothing_to_decode_starts_no_worker() -> None:
    assert list(decode_ahead([], PREPROCESSING)) == []


def test_a_damaged_file_is_an_error_of_one_sentence_whatever_the_decoder_raises(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"a\.png: damaged \(AttributeError: .*size.*\); replace the file"):
        decode(Task(write_image(tmp_path / "a.png"), "image"), object())


def test_the_number_of_workers_can_change_while_they_run(tmp_path: Path) -> None:
    tasks = [Task(write_image(tmp_path / f"{grey}.png", grey), "image") for grey in range(60)]
    decoding = Decoding(tasks, PREPROCESSING, workers=1)
    found = [grey_of(next(decoding)) for _ in range(10)]
    assert len(multiprocessing.active_children()) == 1
    decoding.workers = 2
    found += [grey_of(next(decoding)) for _ in range(20)]
    assert len(multiprocessing.active_children()) == 2
    decoding.workers = 1
    found += map(grey_of, decoding)
    decoding.close()
    assert found == list(range(60))
    assert multiprocessing.active_children() == []


def test_another_thread_can_end_the_wait_for_a_file(tmp_path: Path) -> None:
    late = PREPROCESSING | {"image": Late(tmp_path / "never")}
    decoding = Decoding([Task(write_image(tmp_path / "stuck.png"), "image")], late, workers=1)
    threading.Timer(0.5, decoding.stop).start()
    assert list(decoding) == []
    decoding.close()
    assert multiprocessing.active_children() == []


def test_what_nobody_has_asked_for_yet_stays_with_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "HELD_BYTES", 1)  # no result but the next one is fetched
    large = sound.Preprocessing(8000, 100.0, 100.0)  # more than a pipe takes
    tasks = [Task(write_image(tmp_path / "late.png", 7), "image")]
    for level in range(20):
        soundfile.write(tmp_path / f"{level}.wav", np.full(8000, level / 32), 8000)
        tasks.append(Task(tmp_path / f"{level}.wav", "sound"))
    decoding = Decoding(tasks, {"image": Late(tmp_path / "now"), "sound": large}, workers=2)
    threading.Timer(2, (tmp_path / "now").touch).start()
    assert grey_of(next(decoding)) == 7
    assert len(decoding._ready) <= 1
    levels = [decoded.loaded.pieces[0].array[0] for decoded in decoding if decoded.loaded is not None]
    assert levels == [level / 32 for level in range(20)]
    decoding.close()


def test_the_files_given_to_a_worker_that_crashes_are_read_by_another(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog")
    good = Task(tmp_path / "a.txt", "text")
    deadly = Task(write_image(tmp_path / "a.png"), "image")
    preprocessing = PREPROCESSING | {"image": Deadly()}
    tasks = [good, deadly, good, deadly, deadly, good, good]
    errors = [decoded.error for decoded in decode_ahead(tasks, preprocessing, workers=1)]
    assert [error is None for error in errors] == [task is good for task in tasks]


def test_a_result_says_what_time_its_worker_needed(tmp_path: Path) -> None:
    [decoded] = decode_ahead([Task(write_image(tmp_path / "a.png"), "image")], PREPROCESSING, workers=1)
    assert decoded.cpu_s > 0


def test_files_of_a_crashed_worker_are_read_however_far_the_others_are_ahead(tmp_path: Path) -> None:
    tasks = [Task(write_image(tmp_path / "stuck.png"), "image")]
    tasks += [write_number(tmp_path, number) for number in range(150)]
    decoding = Decoding(tasks, PREPROCESSING | {"image": Late(tmp_path / "never")}, workers=2)

    def crash() -> None:
        while len(decoding._ready) <= AHEAD or not all(worker.is_ready for worker in decoding._workers):
            time.sleep(0.01)
        decoding.workers = 1
        [stuck] = [worker for worker in decoding._workers if worker.given and worker.given[0][0] == 0]
        stuck._process.kill()

    thread = threading.Thread(target=crash)
    thread.start()
    first, *others = decoding
    thread.join()
    decoding.close()
    assert first.error == f"{tmp_path}/stuck.png: its decoder crashed (exit code -9); replace the file"
    assert list(map(number_of, others)) == list(range(150))


def test_a_process_that_does_not_begin_is_no_fault_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "START_S", 0.0)
    with pytest.raises(XmrError, match="a process that decodes did not begin within 0 s, the machine has too much"):
        list(decode_ahead([Task(write_image(tmp_path / "a.png"), "image")], PREPROCESSING, workers=1))
    assert multiprocessing.active_children() == []


STUCK = """
import multiprocessing, sys, time
from pathlib import Path
from xmr.engine.media import decode
decode.TIMEOUT_S = 1.0
class Stuck:
    @property
    def size(self):
        time.sleep(600)
if __name__ == "__main__":
    task = decode.Task(Path(sys.argv[1]), "image")
    decoding = decode.Decoding([task], {"image": Stuck()}, workers=1)
    decoding._feed()
    decoding._listen()
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.read()
"""


def test_a_stuck_decoder_ends_even_if_the_process_that_started_it_was_killed(tmp_path: Path) -> None:
    write_image(tmp_path / "stuck.png")
    (tmp_path / "stuck.py").write_text(STUCK)
    command = [sys.executable, "stuck.py", "stuck.png"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    deadline_s = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_a_long_text_comes_in_parts_that_together_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("dog\n" * 3 * LINES_A_PART + "cat\n")
    task = Task(path, "text")
    whole = decode(task, PREPROCESSING["text"])
    decoding = Decoding([task, task], PREPROCESSING, workers=1)
    parts = list(decoding)
    decoding.close()
    sizes = [len(part.loaded.pieces) for part in parts if part.loaded is not None]
    assert len(sizes) == 2 * 3
    assert max(sizes) <= LINES_A_PART + 1
    assert [part.is_last for part in parts] == 2 * [False, False, True]
    [joined] = decode_ahead([task], PREPROCESSING, workers=1)
    assert joined.loaded is not None
    assert [piece.line for piece in joined.loaded.pieces] == [piece.line for piece in whole.pieces]
    assert joined.loaded.notes == whole.notes
    assert len(whole.notes) == 1


def test_what_surrounds_an_array_counts_as_held(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog\n" * 1000)
    tasks = [Task(write_image(tmp_path / "a.png"), "image"), Task(tmp_path / "a.txt", "text")]
    decoding = Decoding(tasks, PREPROCESSING, workers=1)
    next(decoding)
    while not decoding._ready:
        decoding._listen()
    assert decoding._held_bytes == 1000 * (8 + PIECE_BYTES)
    next(decoding)
    assert decoding._held_bytes == 0
    decoding.close()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    for modality, name in (("image", "a.png"), ("sound", "a.wav"), ("text", "a.txt")):
        make(tmp_path / name)
        with pytest.raises(XmrError, match=rf"{name}: no file but a folder, pipe, socket or device; take it out"):
            decode(Task(tmp_path / name, modality), PREPROCESSING[modality])


def test_a_member_of_an_archive_is_read_in_place(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 9)
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.25), 8000)
    (tmp_path / "a.txt").write_text("dog\n5\n")
    names = {"image": "a.png", "sound": "a.wav", "text": "a.txt"}
    archive, parts = tmp_path / "a.tar", {name: (tmp_path / name).read_bytes() for name in names.values()}
    archive.write_bytes(b"".join(parts.values()))
    start = 0
    tasks = []
    for modality, name in names.items():
        content = Content(archive / name, archive, start, len(parts[name]))
        tasks.append(Task(content, modality))
        start += len(parts[name])
    seen, heard, said = decode_ahead(tasks, PREPROCESSING, workers=1)
    assert grey_of(seen) == 9
    assert heard.loaded is not None
    assert (heard.loaded.pieces[0].array == 0.25).all()
    assert said.loaded is not None
    assert [piece.text for piece in said.loaded.pieces] == ["dog", "5"]


def test_what_takes_long_comes_in_parts_before_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "PART_S", -1.0)
    (tmp_path / "a.txt").write_text("dog\n" * 5)
    task = Task(tmp_path / "a.txt", "text")
    parts = list(decode_module._parts(task, PREPROCESSING["text"], None))
    assert [(len(part.pieces), is_last) for part, is_last in parts] == [(1, False)] * 4 + [(1, True)]
