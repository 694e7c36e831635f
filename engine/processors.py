"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")  # of Linux, version 2: a folder a group, in that of the group around it
OWN_GROUP = Path("/proc/self/cgroup")


def cpus() -> int:
    """Processors that this process may run on, at least 1; a container's share of them counts, rounded up."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([there, *_quotas()])


def _quotas() -> list[int]:
    """What the groups of this process are allowed, of those that are limited (cpu.max: microseconds of a period)."""
    found = []
    for group in _groups():
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            found.append(max(1, math.ceil(int(quota) / int(period))))
    return found


def _groups() -> list[Path]:
    """From the own group to the outermost."""
    try:
        [own] = [line.removeprefix("0::/") for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::/")]
    except (OSError, ValueError):
        return []
    return [GROUPS / own, *(GROUPS / around for around in Path(own).parents)]
