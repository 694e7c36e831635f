"""`xmr index` and `xmr embed` refuse before any work what cannot be done, or would change nothing."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from bad_media import write_good_files
from conftest import XMR, run_xmr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((".", "--list", "rows.jsonl"), 2, "--list: it is for rows that --from takes"),
        ((".", "--modality", "image"), 2, "--modality: it is for rows that --from takes"),
        (("--from", "rows.npy", "--prune"), 2, "--prune: it is for files, and --from takes rows"),
        (("--from", "rows.npy", "--frame-s", "0"), 2, "--frame-s: it is for files"),
        (("--from", "rows.npy", "--modality", "image"), 1, "rows of 3 numbers found"),
        ((".", "--frame-s", "0"), 2, "a frame every 0 s found"),
        ((".", "--frame-s", "inf"), 2, "a frame every inf s found"),
        ((".", "--errors", "none/errors.jsonl"), 1, "none: no such folder; make it, or choose another --errors"),
        ((".", "--errors", "folder"), 1, "folder: a folder has the name of a file to write"),
    ],
)
def test_index_refuses_and_makes_no_index(
    arguments: tuple[str, ...], code: int, says: str, exported: Path, tmp_path: Path
) -> None:
    write_good_files(tmp_path, 1)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "rows.npy", np.eye(3, dtype=np.float32))
    ran = run_xmr("index", *arguments, "--model", exported, "--index", "index", cwd=tmp_path)
    assert (ran.returncode, says in ran.stderr) == (code, True), ran.stderr
    assert not (tmp_path / "index").exists()


def test_an_embed_that_is_asked_to_end_leaves_nothing_behind(exported: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_good_files(corpus, 4)
    (corpus / "long.txt").write_text("a dog\n" * 500_000)
    command = [str(XMR), "embed", str(corpus), "--model", str(exported), "--out", "rows.npy"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob(".rows.npy.*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]
