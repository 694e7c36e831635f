"""How does an index grow: what do 10 thousand, 100 thousand and a million rows cost to take, open, hold and verify?

    python benchmarks/index.py [--rows 10000,100000,1000000] [--dim 512] [--rounds 3] [--folder FOLDER]

Random unit rows are taken as embeddings that were made elsewhere. Each figure is measured in a process of its own:
rows a second taken; the time until an index is open and until it has answered its first query; the memory that the
process holds after 100 queries of 10 hits beyond what it held before it opened the index, in bytes for each number
of each row; megabytes a second of `verify` beside those of hashing the same files one after the other, which is the
floor. The files are in the system's cache. Prints a Markdown table, medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUERIES, K = 100, 10
BLOCK_ROWS = 65_536
GOALS = {"append": 20_000.0, "open": 0.2, "memory": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where the indexes are made; default a temporary folder.")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.folder, int(options.rows), options.dim)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print_table([measured(Path(folder), int(rows), options) for rows in options.rows.split(",")], options)


def measured(folder: Path, n_rows: int, options: argparse.Namespace) -> dict[str, float]:
    """Every figure of one size."""
    facts: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        subprocess.run(["rm", "-rf", str(folder / "index")], check=True)
        for measure in MEASURES:
            command = [sys.executable, __file__, "--measure", measure, "--folder", str(folder / "index")]
            done = subprocess.run(
                [*command, "--rows", str(n_rows), "--dim", str(options.dim)], check=True, stdout=subprocess.PIPE
            )
            for name, value in json.loads(done.stdout).items():
                facts.setdefault(name, []).append(value)
    return {"rows": n_rows} | {name: statistics.median(values) for name, values in facts.items()}


def measure_append(folder: Path, n_rows: int, dim: int) -> dict[str, float]:
    """Rows a second, the making of the rows not counted."""
    from xmr.engine.index import Index

    index = Index.create(folder, stand_in(dim))
    making_s = 0.0

    def blocks() -> Iterator[Any]:
        nonlocal making_s
        for start in range(0, n_rows, BLOCK_ROWS):
            start_s = time.perf_counter()
            block = block_of(start, min(BLOCK_ROWS, n_rows - start), dim)
            making_s += time.perf_counter() - start_s
            yield block

    start_s = time.perf_counter()
    index.append(blocks())
    seconds = time.perf_counter() - start_s - making_s
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"append": n_rows / seconds, "bytes": n_bytes / (n_rows * dim)}


def measure_queries(folder: Path, n_rows: int, dim: int) -> dict[str, float]:
    """Seconds until it is open and until the first answer, milliseconds a query, bytes held a number."""
    from xmr.engine.index import Index

    queries = unit_rows(QUERIES, dim, seed=1)
    before = resident_bytes()
    start_s = time.perf_counter()
    index = Index.open(folder)
    open_s = time.perf_counter() - start_s
    index.search(queries[0], K)
    first_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    for query in queries:
        index.search(query, K)
    query_s = (time.perf_counter() - start_s) / len(queries)
    held = resident_bytes() - before
    return {"open": open_s, "first": first_s, "query_ms": 1000 * query_s, "memory": held / (n_rows * dim)}


def measure_verify(folder: Path, n_rows: int, dim: int) -> dict[str, float]:
    """Megabytes a second, beside those of hashing alone."""
    from xmr.engine.files import sha256_of
    from xmr.engine.index import Index

    paths = [path for path in folder.rglob("*") if path.is_file()]
    start_s = time.perf_counter()
    for path in paths:
        sha256_of(path)
    hash_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    verified = Index.open(folder).verify()
    verify_s = time.perf_counter() - start_s
    if verified.faults or verified.n_items != n_rows:
        raise SystemExit(f"{folder}: {verified.n_items} of {n_rows} items found, {verified.faults}")
    n_bytes = sum(path.stat().st_size for path in paths)
    return {"verify": n_bytes / verify_s / 1e6, "hash": n_bytes / hash_s / 1e6, "verify_s": verify_s}


MEASURES = {"append": measure_append, "queries": measure_queries, "verify": measure_verify}


def stand_in(dim: int) -> Any:
    """What an index asks of the model that its rows are of."""
    from types import SimpleNamespace

    config = {"modalities": {"image": {"preprocessing": {}}}}
    return SimpleNamespace(name="random", fingerprint="0" * 16, dim=dim, config=config, folder=Path("random"))


def block_of(start: int, n_rows: int, dim: int) -> Any:
    from xmr.engine.exchange.rows import Block, Entry

    entries = [
        Entry(f"/corpus/{number // 1000:04d}/{number:08d}.jpg", "image") for number in range(start, start + n_rows)
    ]
    return Block(unit_rows(n_rows, dim, seed=start), entries)


def unit_rows(n_rows: int, dim: int, *, seed: int) -> Any:
    import numpy as np

    rows = np.random.default_rng((7, seed)).standard_normal((n_rows, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def resident_bytes() -> int:
    """Of this process, pages of mapped files among them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def print_table(found: list[dict[str, float]], options: argparse.Namespace) -> None:
    print(f"Rows of {options.dim}, medians of {options.rounds}; {os.cpu_count()} CPUs.\n")
    names = {
        "append": "taken, rows/s",
        "open": "open, s",
        "first": "first answer, s",
        "query_ms": "a query, ms",
        "memory": "held, bytes/number",
        "bytes": "on disk, bytes/number",
        "verify": "verify, MB/s",
        "hash": "hashing alone, MB/s",
        "verify_s": "verify, s",
    }
    digits = {"append": 0, "open": 4, "first": 3, "query_ms": 1, "memory": 2, "bytes": 2, "verify": 0, "hash": 0}
    print(f"| rows | {' | '.join(names.values())} |\n| --- |{' --- |' * len(names)}")
    for facts in found:
        cells = [f"{facts[name]:,.{digits.get(name, 2)}f}" for name in names]
        print(f"| {int(facts['rows']):,} | {' | '.join(cells)} |")
    last = found[-1]
    met = {"append": last["append"] >= GOALS["append"]} | {
        name: last[name] <= GOALS[name] for name in ("open", "memory")
    }
    for name, is_met in met.items():
        print(f"\n{names[name]}: goal {GOALS[name]:g} {'met' if is_met else 'MISSED'}")


if __name__ == "__main__":
    main()
