"""Decoding ahead: every file's result in order, and a file that is bad, stuck or deadly costs itself only."""

import multiprocessing
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import decode as decode_module
from xmr.engine.media import image, sound, text
from xmr.engine.media.decode import Decoded, Task, decode, decode_ahead

PREPROCESSING = {
    "image": image.Preprocessing(size=4),
    "sound": sound.Preprocessing(8000, 1.0, 1.0),
    "text": text.Preprocessing(vocabulary=("dog",)),
}


@dataclass(frozen=True)
class Deadly:
    """Preprocessing that kills the process which reads it, as a crash in a native decoder does."""

    @property
    def size(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


def write_image(path: Path, grey: int = 0) -> Path:
    Image.new("L", (4, 4), grey).save(path)
    return path


def grey_of(decoded: Decoded) -> int:
    assert decoded.loaded is not None, decoded.error
    return int(decoded.loaded.pieces[0].array[0, 0, 0])


def write_endless_sound(path: Path) -> Path:
    """Half an hour of silence in 64 channels: 1 GB of nothing on disk, 4.1 GB of samples."""
    rate_hz, n_channels, n_bytes = 9000, 64, 9000 * 64 * 1799
    fields = struct.pack("<IHHIIHH", 16, 1, n_channels, rate_hz, rate_hz * n_channels, n_channels, 8)
    head = b"RIFF" + struct.pack("<I", 36 + n_bytes) + b"WAVEfmt " + fields + b"data" + struct.pack("<I", n_bytes)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + n_bytes)
    return path


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
    os.mkfifo(tmp_path / "stuck.png")  # nobody writes into it, so that opening it never ends
    good = Task(write_image(tmp_path / "a.png", 5), "image")
    before, stuck, after = decode_ahead([good, Task(tmp_path / "stuck.png", "image"), good], PREPROCESSING, workers=1)
    assert (grey_of(before), grey_of(after)) == (5, 5)
    assert stuck.error == f"{tmp_path}/stuck.png: not decoded within 3 s; convert or remove it"


def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    tasks = [Task(write_endless_sound(tmp_path / "a.wav"), "sound"), Task(write_image(tmp_path / "a.png", 3), "image")]
    large, good = decode_ahead(tasks, PREPROCESSING, workers=1)
    assert large.error == f"{tmp_path}/a.wav: needs more memory than a worker may take; make it smaller"
    assert grey_of(good) == 3


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
