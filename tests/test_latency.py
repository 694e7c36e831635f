"""What a query starts with: the command imports what it needs to answer, and nothing of what it does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import json, sys
from xmr.engine.cli import app
try:
    app(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
NEVER = ("torch", "onnx", "openvino", "rich", "pydantic", "pebble", "multiprocessing", "xmr.engine.embed")
PICTURES, SOUNDS = ("PIL",), ("soundfile", "soxr", "av")


def modules_of(*arguments: object, cwd: Path) -> set[str]:
    """Names of those that a command has imported when it has answered."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("query", "absent"),
    [
        (("--text", "a red bell"), PICTURES + SOUNDS),
        (("--image", "corpus/images/bell-1.jpg"), SOUNDS),
        (("--sound", "corpus/sounds/bell-1.wav"), PICTURES),
    ],
)
def test_a_query_imports_nothing_that_it_does_not_need(
    query: tuple[str, ...], absent: tuple[str, ...], finished_world: Path
) -> None:
    loaded = modules_of("query", *query, "--device", "cpu", cwd=finished_world)
    assert {"numpy", "onnxruntime", "xmr.engine.search"} <= loaded
    assert not {*NEVER, *absent} & loaded


def test_the_pipeline_starts_without_what_runs_a_network() -> None:
    script = "import sys, xmr.engine.embed; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "openvino", "onnxruntime"} & set(done.stdout.split())
