"""A tiny sample world, trained, exported and indexed once a session through the real command."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import browser, page, server  # noqa: F401, the fixtures of the page

# a shell that starts the tests in the background lets them ignore Ctrl-C, and the processes that they start too
signal.signal(signal.SIGINT, signal.default_int_handler)

XMR = Path(sys.executable).with_name("xmr")
CONCEPTS = ("bell", "dog", "rain", "siren")
TINY = (
    "epochs=2",
    "batch_size=8",
    "width=32",
    "head.hidden=[32]",
    "words.dim=16",
    "words.epochs=2",
    "encoders.image.size=32",
    "encoders.image.channels=[8, 16]",
    "encoders.sound.channels=[16, 16]",
    "encoders.sound.n_mels=16",
    "encoders.text.channels=[16]",
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run_xmr(*arguments: object, cwd: Path, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
    """The console script, as a user calls it."""
    environment = os.environ | {"COLUMNS": "100", "OMP_NUM_THREADS": "2"}
    command = [str(XMR), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s)


def must_run(*arguments: object, cwd: Path) -> str:
    """What the command printed on stdout; it has to succeed."""
    done = run_xmr(*arguments, cwd=cwd)
    assert done.returncode == 0, f"xmr {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_tiny_world(folder: Path) -> None:
    """Four concepts in media and pairs, and an xmr.toml."""
    from xmr.train.sample import SampleSizes, write_sample

    write_sample(folder, sizes=SampleSizes(6, 2, 6, 2), concepts=CONCEPTS)
    must_run("init", folder, cwd=folder)


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after train, export and index; shared, so never written to."""
    folder = tmp_path_factory.mktemp("finished") / "world"
    folder.mkdir()
    write_tiny_world(folder)
    must_run("train", *[part for setting in TINY for part in ("--set", setting)], cwd=folder)
    must_run("export", cwd=folder)
    must_run("index", "corpus", cwd=folder)
    return folder


@pytest.fixture
def world(finished_world: Path, tmp_path: Path) -> Path:
    """A workspace after train, export and index, for this test alone."""
    return Path(shutil.copytree(finished_world, tmp_path / "world"))


@pytest.fixture(scope="session")
def exported(finished_world: Path) -> Path:
    """An exported model folder."""
    return finished_world / ".xmr" / "model"
