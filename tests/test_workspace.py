"""The workspace is the nearest folder upwards that holds xmr.toml or .xmr/."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xmr.engine import workspace


@pytest.mark.parametrize(("mark", "make"), [("xmr.toml", Path.touch), (".xmr", Path.mkdir)])
def test_the_root_is_found_from_below(mark: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / mark)
    below = tmp_path / "corpus" / "images"
    below.mkdir(parents=True)
    assert workspace.find_root(below) == workspace.find_root(tmp_path) == tmp_path


def test_the_nearest_root_wins(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    (inner / "c").mkdir(parents=True)
    (tmp_path / "xmr.toml").touch()
    (inner / "xmr.toml").touch()
    assert workspace.find_root(inner / "c") == inner
    assert workspace.find_root(tmp_path / "a") == tmp_path


def test_without_a_workspace_the_folder_itself_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "xmr.toml").mkdir()  # a folder of that name is no workspace
    (tmp_path / ".xmr").touch()
    assert workspace.find_root(tmp_path) == tmp_path
    (tmp_path / "a").mkdir()
    assert workspace.find_root(tmp_path / "a") == tmp_path / "a"


def test_defaults_lie_under_the_root_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xmr.toml").touch()
    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path / "corpus")
    assert workspace.config_path() == tmp_path / "xmr.toml"
    assert workspace.default_folder("index") == tmp_path / ".xmr" / "index"
