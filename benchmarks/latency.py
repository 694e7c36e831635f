"""How long does one query take from the shell: a new process, an index of 100,000 rows, and what its time goes into?

    python benchmarks/latency.py --model MODEL --image IMAGE [--text "a dog runs"] [--rows 100000] [--rounds 9]

The index is made first, by the ordinary way in: files of sentences of the model's own words, but with random unit
vectors in place of the network's, as a search takes the same time whatever they say. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

LINES_OF_A_FILE = 4000
WORDS_OF_A_LINE = 9
GOALS_MS = {"text": 600, "image": 800}  # of the command, from the shell
IMPORTS_GOAL_MS = 250
XMR = Path(sys.executable).with_name("xmr")

# one query as the command makes it, with a clock between its steps; argv: model, index, modality, content
STEPS = """
import json, os, sys, time
with open('/proc/self/stat') as stat:
    ticks = int(stat.read().rpartition(')')[2].split()[19])
with open('/proc/uptime') as uptime:
    age_s = float(uptime.read().split()[0]) - ticks / os.sysconf('SC_CLK_TCK')
marks = [('python starts', age_s)]
start = time.perf_counter()
def mark(name):
    global start
    now = time.perf_counter()
    marks.append((name, now - start))
    start = now
from pathlib import Path
import xmr.engine.cli
from xmr.engine import terminal
from xmr.engine.index import Index
from xmr.engine.model import Model
mark('imports')
model_folder, index_folder, modality, content = sys.argv[1:]
index = Index.open(Path(index_folder))
mark('index opens')
model = Model.open(Path(model_folder), 'cpu', purpose='query')
index.check_model(model)
mark('model opens')
arrays = model._arrays(modality, Path(content) if modality != 'text' else content)
mark('query is read')
network = model._network(modality)
mark('network opens')
vectors = model.embed_windows(modality, [arrays])
mark('network runs')
hits = index.search(vectors, 10)
mark('search')
terminal.print_table(('rank', 'path'), [(hit.rank, hit.path) for hit in hits])
mark('print')
print(json.dumps(marks), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--text", default="a dog runs through the grass")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="Where the index is kept; default a folder that is removed.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        index = folder / "index"
        if not index.exists():
            make_index(options.model, folder, options.rows)
        check_rows(index, options.rows)
        queries = {"text": options.text, "image": str(options.image)}
        walls, steps = measure(options.model, index, queries, options.rounds)
    print_tables(walls, steps)
    print(f"\nThe networks run by {way_of(options.model)}.")


def make_index(model_folder: Path, folder: Path, n_rows: int) -> None:
    """An index of sentences, without running the network for each."""
    import numpy as np

    from xmr.engine.corpus import scan
    from xmr.engine.index import Index
    from xmr.engine.model import Model

    class RandomVectors(Model):
        def embed_arrays(self, modality: str, arrays: Sequence[Any]) -> Any:
            rows = rng.standard_normal((len(arrays), self.dim), dtype=np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    model = RandomVectors.open(model_folder, "cpu")
    vocabulary = [word for word in model.preprocessing["text"].vocabulary if word.isalpha()]
    (folder / "corpus").mkdir(parents=True)
    for start in range(0, n_rows, LINES_OF_A_FILE):
        chosen = rng.choice(len(vocabulary), (min(LINES_OF_A_FILE, n_rows - start), WORDS_OF_A_LINE))
        lines = [" ".join(vocabulary[word] for word in line) for line in chosen]
        (folder / "corpus" / f"{start:07d}.txt").write_text("\n".join(lines) + "\n")
    print(f"making an index of {n_rows} rows", file=sys.stderr)
    Index.create(folder / "index", model).add(scan([folder / "corpus"], {"text"}), model)


def way_of(model_folder: Path) -> str:
    from xmr.engine.model import Model

    model = Model.open(model_folder, "cpu", purpose="query")
    return ", ".join(f"{modality}: {model.choice(modality)}" for modality in GOALS_MS)


def check_rows(folder: Path, n_rows: int) -> None:
    """An index that was kept may have been made with other rows, or not to its end."""
    from xmr.engine.index import Index

    with closing(Index.open(folder)) as index:
        if len(index) != n_rows:
            raise SystemExit(f"{folder}: {len(index)} rows, not {n_rows}; remove the folder, it is made anew")


def measure(
    model: Path, index: Path, queries: dict[str, str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[dict[str, float]]]]:
    """Wall seconds of the command, and of each step of one in a process of its own; interleaved, the first thrown away.

    The files are in the system's cache, as those of a service in use are, and the modules are compiled once, as those
    of an installed package are, whatever PYTHONDONTWRITEBYTECODE says.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    walls: dict[str, list[float]] = {name: [] for name in queries}
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in queries}
    for _ in range(rounds + 1):
        for name, content in queries.items():
            command = [XMR, "query", f"--{name}", content, "--index", index, "--model", model, "--device", "cpu"]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            walls[name].append(time.perf_counter() - start)
            stepped = [sys.executable, "-c", STEPS, model, index, name, content]
            done = subprocess.run(stepped, check=True, capture_output=True, text=True, env=environment)
            steps[name].append(dict(json.loads(done.stderr.splitlines()[-1])))
    return {name: seconds[1:] for name, seconds in walls.items()}, {name: of[1:] for name, of in steps.items()}


def print_tables(walls: dict[str, list[float]], steps: dict[str, list[dict[str, float]]]) -> None:
    names = list(walls)
    rounds = len(next(iter(walls.values())))
    print(f"\nMilliseconds, medians of {rounds}; {os.cpu_count()} CPUs.\n")
    print(f"| step | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for step in steps[names[0]][0]:
        medians = [statistics.median(seconds[step] for seconds in steps[name]) for name in names]
        print(f"| {step} | {' | '.join(f'{1000 * median:.0f}' for median in medians)} |")
    totals = [statistics.median(walls[name]) for name in names]
    known = [sum(statistics.median(run[step] for run in steps[name]) for step in steps[name][0]) for name in names]
    rest = [f"{1000 * (total - part):.0f}" for total, part in zip(totals, known, strict=True)]
    print(f"| reading the command line, and leaving | {' | '.join(rest)} |")
    print(f"| `xmr query`, wall | {' | '.join(f'{1000 * total:.0f}' for total in totals)} |")
    for name, total in zip(names, totals, strict=True):
        print(f"\n{name}: goal {GOALS_MS[name]} ms, {'met' if 1000 * total < GOALS_MS[name] else 'missed'}; ", end="")
        imports = 1000 * statistics.median(run["imports"] for run in steps[name])
        print(f"imports: goal {IMPORTS_GOAL_MS} ms, {'met' if imports < IMPORTS_GOAL_MS else 'missed'}.")


if __name__ == "__main__":
    main()
