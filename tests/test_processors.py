"""How many processors there are for this process: those it may run on, and a container's share of them."""

import os
from pathlib import Path

import pytest

from xmr.engine import processors


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The group of this process, inside another one, on a machine of eight."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(processors, "OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/outer/inner\n")
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1), ("9900000 100000", 8)],
)
@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_the_share_of_a_container_counts(place: str, quota: str, expected: int, group: Path) -> None:
    (group / place / "cpu.max").write_text(f"{quota}\n")
    assert processors.cpus() == expected


def test_without_groups_every_processor_counts_that_the_process_may_run_on(group: Path) -> None:
    assert processors.cpus() == 8
    processors.OWN_GROUP.unlink()
    assert processors.cpus() == 8


def test_damaged_limits_are_none(group: Path) -> None:
    (group / "cpu.max").write_text("many\n")
    assert processors.cpus() == 8
