"""Every command of README.md runs: those of the demo by `make demo`, the others here."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, XMR, must_run, write_tiny_world

from xmr.train.config import recipe_names

TINY_TIMM = ("model=test_resnet", "weights=random", "size=32")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str = "") -> list[str]:
    """The fenced blocks of one section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [content for name, content in fenced if name == language]


def commands(block: str) -> list[str]:
    """Its xmr lines, without the comments."""
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.startswith("xmr ")]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A user's own folder: photos/, clips/, notes.txt and pairs."""
    write_tiny_world(tmp_path)
    shutil.move(tmp_path / "corpus" / "images", tmp_path / "photos")
    shutil.move(tmp_path / "corpus" / "sounds", tmp_path / "clips")
    shutil.move(tmp_path / "corpus" / "notes.txt", tmp_path / "notes.txt")
    shutil.copy(tmp_path / "query" / "dog.wav", tmp_path / "clips" / "bark.wav")
    return tmp_path


def test_the_demo_of_the_readme_is_that_of_make() -> None:
    target = (ROOT / "Makefile").read_text().split("\ndemo: install\n")[1].split("\n\n")[0]
    made = re.findall(r"^\t(?:cd demo && )?(xmr .*)", target, re.MULTILINE)
    assert made == commands(blocks("Try it")[1])
    [shown] = re.findall(r"^\$ (xmr .*)$", README.split("\n## ")[0], re.MULTILINE)
    assert shown in made


def test_the_demo_ends_by_telling_how_to_open_the_page() -> None:
    makefile = (ROOT / "Makefile").read_text()
    last = makefile.split("\ndemo: install\n")[1].split("\n\n")[0].splitlines()[-1]
    [told] = re.findall(r'@echo ".*?: (.*)"', last)
    assert f"`{told.replace('$(BIN)', '.venv/bin')}`" in README


def test_the_commands_for_own_media_run(media: Path) -> None:
    init, *others = commands(blocks("Your own media")[0])
    (media / "new").mkdir()
    must_run(*shlex.split(init)[1:], cwd=media / "new")
    for command in others:
        extra = [part for setting in TINY for part in ("--set", setting)] if " --set " in command else []
        # the command's own settings come last, so that they win
        name, *arguments = shlex.split(command)[1:]
        must_run(name, *extra, *arguments, cwd=media)


def test_the_commands_for_an_index_run(finished_world: Path, tmp_path: Path) -> None:
    world = media_beside_a_model(finished_world, tmp_path)
    for heading in ("Index anything", "Ask anything"):
        for command in commands(blocks(heading)[0]):
            must_run(*shlex.split(command)[1:], cwd=world)
    [piped] = [line.split("  #")[0] for line in blocks("Ask anything")[1].splitlines()]
    question, asks = piped.removeprefix("echo ").split(" | xmr ")
    done = subprocess.run(
        ["xmr", *shlex.split(asks)],
        cwd=world,
        input=shlex.split(question)[0],
        text=True,
        capture_output=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 3


def media_beside_a_model(finished_world: Path, folder: Path) -> Path:
    """A workspace with an exported model, photos/, clips/ and notes.txt."""
    world = Path(shutil.copytree(finished_world, folder / "world"))
    shutil.rmtree(world / ".xmr" / "index")
    (world / "corpus" / "images").rename(world / "photos")
    (world / "corpus" / "sounds").rename(world / "clips")
    (world / "corpus" / "notes.txt").rename(world / "notes.txt")
    return world


def write_flickr8k(folder: Path, images: list[Path]) -> None:
    """Some pictures as Flickr8k is published."""
    (folder / "Flicker8k_Dataset").mkdir(parents=True)
    names = [shutil.copy(image, folder / "Flicker8k_Dataset") for image in images]
    lines = [f"{Path(name).name}#{k}\ta picture of {Path(name).stem} {k}\n" for name in names for k in range(5)]
    (folder / "Flickr8k.token.txt").write_text("".join(lines))
    for split, of in (("train", names[:-4]), ("dev", names[-4:-2]), ("test", names[-2:])):
        (folder / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{Path(name).name}\n" for name in of))


@pytest.mark.parametrize("needs_voice", [False, True])
def test_the_commands_for_published_systems_run(media: Path, needs_voice: bool) -> None:
    if needs_voice and not any(map(shutil.which, ("flite", "espeak-ng"))):
        pytest.skip("neither flite nor espeak-ng is here")
    write_flickr8k(media / "data" / "flickr8k", sorted((media / "photos").rglob("*.*"))[:40])
    small = ["stages=[]", "epochs=1", "batch_size=4", "words.min_count=1"]
    small += [f"encoders.image.{of}" for of in TINY_TIMM]
    for command in commands(blocks("Published systems")[0]):
        name, *arguments = shlex.split(command)[1:]
        if needs_voice == ("spoken" in arguments):
            is_training = name == "train" and "--list" not in arguments
            extra = [part for setting in small for part in ("--set", setting)] if is_training else []
            must_run(name, *arguments, *extra, cwd=media)


def test_the_commands_that_judge_and_locate_run(world: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(world / ".xmr" / "checkpoint", world / "runs" / name)
    for target in ("photos/1.jpg", "vg/VG_100K/1.jpg", "clips/long.wav"):
        (world / target).parent.mkdir(parents=True)
        shutil.copy(world / "query" / f"dog{Path(target).suffix}", world / target)
    region = {"phrase": "a dog", "x": 0, "y": 0, "width": 50, "height": 50}
    (world / "vg" / "region_descriptions.json").write_text(json.dumps([{"id": 1, "regions": [region]}]))
    judging, locating = (
        blocks(heading)[0] for heading in ("How good is it?", "Where is it, and what are its features?")
    )
    for command in [*commands(judging), *commands(locating)]:
        must_run(*shlex.split(command)[1:], *(("--split", "train") if "--pointing" in command else ()), cwd=world)
    for made in ("report/index.html", "1.jpg.heat.png", "long.wav.heat.png", "features.npy", "features.jsonl"):
        assert (world / made).stat().st_size > 100


def test_the_commands_that_serve_run(finished_world: Path, tmp_path: Path) -> None:
    world = media_beside_a_model(finished_world, tmp_path)
    must_run("index", "photos", "clips", cwd=world)
    (world / "token").write_text("a-long-secret\n")
    block = blocks("Serve it, and look at it")[0]
    asks = [line for line in block.splitlines() if line.startswith("curl ")]
    for command in commands(block):
        with served(command.replace("--port 8000", "--port 0"), world) as address:
            for ask in asks if "--port 8000" in command else ():
                answered = curl(ask.replace("localhost:8000", address), world)
                assert answered["hits"], ask
    assert asks


@contextlib.contextmanager
def served(command: str, world: Path) -> Iterator[str]:
    """Host and port of a server that is started by a command, and told to end."""
    environment = os.environ | {"BROWSER": "true", "OMP_NUM_THREADS": "1"}  # a browser that opens nothing
    free = command if "--port" in command or command.startswith("xmr open") else f"{command} --port 0"
    server = subprocess.Popen(
        [str(XMR), *shlex.split(free)[1:]], cwd=world, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert "serving at http://" in line, line + server.stderr.read()
        yield line.split("http://")[1].split("/")[0]
        server.terminate()
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.communicate()


def curl(line: str, world: Path) -> dict[str, Any]:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing, by which the README asks the server")
    done = subprocess.run(
        ["curl", "-sS", *shlex.split(line)[1:]], cwd=world, capture_output=True, text=True, check=True
    )
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def test_the_table_of_the_readme_has_every_recipe_but_the_demo() -> None:
    section = README.split("\n## Published systems\n")[1].split("\n## ")[0]
    table = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([\w-]+)`", table)) == set(recipe_names()) - {"quick"}


def test_the_python_of_the_readme_runs(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = blocks("From Python", "python")
    monkeypatch.chdir(finished_world)
    rng = np.random.default_rng(0)
    names = {"queries": rng.random((2, 8), np.float32), "vectors": rng.random((20, 8), np.float32)}
    exec(code, names)
    assert names["rows"].shape == (2, 10)


def test_every_heading_of_make_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make (\w+)", blocks("Try it")[0], re.MULTILINE))
