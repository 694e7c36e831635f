"""Exact top-k against its peers, in one run: how many milliseconds, how near the memory's own speed, the same ids?

python benchmarks/topk.py --data gaussian,clustered,real --model MODEL --images FOLDER --captions FILE --json topk.json

Needs threadpoolctl. Peers: pip install faiss-cpu usearch numkong torch; one that is missing is left out with a note.
They run in processes of their own, since faiss and numpy want different environments, but only one computes at a time:
each round asks every peer for one timed run, and the tables show medians over the rounds. CPU time is that of the whole
process, all threads. Before anything is timed, xmr's ids must equal those of a float64 brute force. Run it on a quiet
machine: on 2 threads OpenMP spins, and a neighbour on a core makes some peers many times slower. The table says so.

faiss is measured as pip ships it and tuned: from 2 queries on by matrix products instead of one scan a query, and with
OPENBLAS_CORETYPE=SkylakeX, since its OpenBLAS may not know the processor. All peers but hnsw and ivf are exact in
float32 (numkong: in double). numpy, torch, usearch and numkong rank rows in memory, xmr a memory-mapped file.
"""

import argparse
import inspect
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Search = Callable[[Floats, int, int], Rows]  # queries (n, dim), k, threads: ids (n, k)

CHECKED_QUERIES = 8  # compared with the float64 brute force
RECALL_QUERIES = 64  # compared with xmr
LEAST_RECALL = 0.99  # of an exact peer
SAME_SCORE = 1e-6  # float32 sums may swap rows as near as this
SETTLE_S = 0.1  # between two runs: idle threads of OpenBLAS and OpenMP keep a core for up to 50 ms
SCORES_AT_ONCE = 1 << 24  # of numpy and torch, so that 1,024 queries against 1M rows need no 4 GB
NUMKONG_SCORES_AT_ONCE = 1 << 20  # it writes doubles, faster while they stay in the cache
BLAS_FROM_QUERIES = 20  # faiss's own former default; 1.15 multiplies matrices from n_queries * dim >= 128,000 on only
USEARCH_QUERIES_AT_ONCE = 64  # it keeps the distance of every row
FLOOR_BYTES = 512 << 20  # far larger than any cache
FLOOR_COLUMNS = 4096  # floats: a product reads several rows at once, each a stream of its own
QUIET = 0.03  # share of the cores that other processes may take unmentioned
N_CENTRES = 1000
CLUSTER_NOISE = 0.5  # length of the noise around a centre of length 1
REPEAT_NOISE = 0.05  # of a real row's length, when it is repeated
BLOCK_ROWS = 1 << 14
BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = ("xmr", "numpy", "faiss-cpu", "torch", "usearch", "numkong", "threadpoolctl")
APPROXIMATE = ("hnsw", "ivf")


@dataclass(frozen=True)
class Process:
    """Peers that share a process, and what they need of it."""

    peers: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    copies_rows: bool = False  # into memory; otherwise the peers get the mapped file


PROCESSES = {
    "floor": Process(()),
    "xmr": Process(("xmr", "xmr-plain")),
    "arrays": Process(("torch", "numpy", "usearch", "numkong"), copies_rows=True),
    "faiss-tuned": Process(("faiss-tuned", *APPROXIMATE), {"OPENBLAS_CORETYPE": "SkylakeX"}),
    "faiss": Process(("faiss",)),
}
DEFAULT_PEERS = "xmr,faiss-tuned,faiss,torch,numpy,usearch,numkong,hnsw,ivf"


@dataclass
class Measured:
    """One dataset at one size: every single measurement."""

    data: str
    rows: int
    dim: int
    runs: list[dict[str, Any]] = field(
        default_factory=list
    )  # peer, threads, k, batch, round, wall_ms, cpu_ms, others_ms
    encode: list[dict[str, Any]] = field(default_factory=list)  # threads, seconds, gb_per_s
    floor: list[dict[str, Any]] = field(default_factory=list)  # threads, GB/s of each reader
    recall: dict[str, float] = field(default_factory=dict)  # of each peer against xmr
    peak_gb: dict[str, float] = field(default_factory=dict)  # of each process, mapped pages included

    def peers(self) -> list[str]:
        return list(dict.fromkeys(run["peer"] for run in self.runs))

    def times(self, unit: str, **which: Any) -> list[float]:
        return [run[unit] for run in self.runs if which.items() <= run.items()]

    def floor_gb_per_s(self, threads: int) -> float:
        """The fastest reader of each round; the median round."""
        rounds = [found["gb_per_s"].values() for found in self.floor if found["threads"] == threads]
        return statistics.median(max(speeds) for speeds in rounds)


def main() -> None:
    options = parse()
    results: list[Measured] = []
    for name in sources(options):
        if name.startswith("real: "):
            real_files(name, options)  # a wrong path is found before an hour has gone
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        exact = [peer for peer in options.peers if peer not in APPROXIMATE]
        plan = [(name, options.rows, exact) for name in sources(options)]
        if options.approximate_rows and len(exact) < len(options.peers):
            plan += [(name, options.approximate_rows, options.peers) for name in sources(options)]
        for name, n_rows, peers in plan:
            results.append(measure(name, n_rows, peers, options, Path(scratch)))
            print_tables(results[-1])
            write_json(results, options)
    print_against_gaussian(results)


def parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512, help="of gaussian and clustered rows")
    parser.add_argument("--batches", type=numbers, default=[1, 8, 64, 1024], help="queries asked at once")
    parser.add_argument("--ks", type=numbers, default=[10, 100])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--data", default="gaussian,clustered,real")
    embeddings_help = (
        "unit rows (n, dim): the gallery, and what asks it; without the second, held-out rows of the first"
    )
    parser.add_argument("--real-embeddings", type=Path, nargs="+", action="append", default=[], help=embeddings_help)
    parser.add_argument("--model", type=Path, help="an exported model; its images are asked by its captions")
    parser.add_argument("--images", type=Path, help="a folder of .jpg files")
    parser.add_argument("--captions", type=Path, help="one a line, or JSON lines with a list `captions`")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-s", type=float, default=60, help="a run that takes longer is not repeated")
    largest_help = "as usearch=64,numkong=64: a peer is left out of larger batches"
    parser.add_argument("--largest", type=largest_batches, default={}, help=largest_help)
    parser.add_argument("--approximate-rows", type=int, default=100_000, help="for hnsw and ivf; 0 leaves them out")
    parser.add_argument("--peers", default=DEFAULT_PEERS, help=f"of {DEFAULT_PEERS},xmr-plain")
    parser.add_argument("--folder", type=Path, help="for the rows (2 GB) and embeddings made by the model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_options(options, parser)
    return options


def largest_batches(text: str) -> dict[str, int]:
    return {peer: int(batch) for peer, _, batch in (part.partition("=") for part in text.split(","))}


def check_options(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Splits the lists and refuses what can't be measured."""
    options.data, options.peers = options.data.split(","), options.peers.split(",")
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    if unknown := set(options.peers) - {*DEFAULT_PEERS.split(","), "xmr-plain"}:
        parser.error(f"--peers: {', '.join(unknown)} unknown")
    if "xmr" not in options.peers:
        parser.error("--peers: xmr missing, the others are compared with it")
    if unknown := set(options.data) - {"gaussian", "clustered", "real"}:
        parser.error(f"--data: {', '.join(unknown)} unknown")
    if "real" in options.data and not options.real_embeddings and not options.model:
        parser.error("--data real needs --real-embeddings, or --model with --images and --captions")
    if options.model and not (options.images and options.captions):
        parser.error("--model needs --images and --captions")
    if options.real_embeddings and max(map(len, options.real_embeddings)) > 2:
        parser.error("--real-embeddings takes one or two files; repeat the option for another space")


# Data


def sources(options: argparse.Namespace) -> list[str]:
    """The datasets by name; the real ones are called after their files."""
    names = [name for name in options.data if name != "real"]
    if "real" in options.data:
        names += [f"real: {options.model.name}"] if options.model else []
        names += [f"real: {' '.join(path.stem for path in paths)}" for paths in options.real_embeddings]
    return names


def write_rows(name: str, n_rows: int, options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """rows.npy and queries.npy, unit rows of a dataset."""
    rng = np.random.default_rng(0)
    n_queries = 2 * max(*options.batches, RECALL_QUERIES)
    if name.startswith("real: "):
        draw, queries = real_rows(real_files(name, options), n_queries, rng)
    else:
        draw = gaussian_rows(options.dim, rng) if name == "gaussian" else clustered_rows(options.dim, rng)
        queries = draw(np.arange(n_queries))
    paths = folder / "rows.npy", folder / "queries.npy"
    rows = np.lib.format.open_memmap(paths[0], "w+", np.float32, (n_rows, queries.shape[1]))
    for start in range(0, n_rows, BLOCK_ROWS):
        block = draw(np.arange(start, min(start + BLOCK_ROWS, n_rows)))
        rows[start : start + len(block)] = unit(block)
    rows.flush()
    np.save(paths[1], unit(queries))
    return paths


def gaussian_rows(dim: int, rng: np.random.Generator) -> Callable[[Rows], Floats]:
    return lambda which: rng.standard_normal((len(which), dim), dtype=np.float32)


def clustered_rows(dim: int, rng: np.random.Generator) -> Callable[[Rows], Floats]:
    centres = unit(rng.standard_normal((N_CENTRES, dim), dtype=np.float32))

    def draw(which: Rows) -> Floats:
        noise = rng.standard_normal((len(which), dim), dtype=np.float32) * (CLUSTER_NOISE / math.sqrt(dim))
        return centres[rng.integers(N_CENTRES, size=len(which))] + noise

    return draw


def real_rows(files: list[Path], n_queries: int, rng: np.random.Generator) -> tuple[Callable[[Rows], Floats], Floats]:
    """The gallery's rows, repeated with noise where there are too few, and queries, repeated as they are."""
    gallery = np.load(files[0]).astype(np.float32)
    if len(files) == 2:
        asking = rng.permutation(np.load(files[1]).astype(np.float32))
    else:
        shuffled = rng.permutation(gallery)
        n_held_out = min(n_queries, len(gallery) // 10)
        asking, gallery = shuffled[:n_held_out], shuffled[n_held_out:]
    dim = gallery.shape[1]

    def draw(which: Rows) -> Floats:
        noise = rng.standard_normal((len(which), dim), dtype=np.float32) * (REPEAT_NOISE / math.sqrt(dim))
        return gallery[which % len(gallery)] + noise * (which >= len(gallery))[:, None].astype(np.float32)

    return draw, asking[np.arange(n_queries) % len(asking)]


def real_files(name: str, options: argparse.Namespace) -> list[Path]:
    if options.model and name == f"real: {options.model.name}":
        return embedded(options)
    files = next(paths for paths in options.real_embeddings if name == f"real: {' '.join(path.stem for path in paths)}")
    if missing := [str(path) for path in files if not path.is_file()]:
        sys.exit(f"{', '.join(missing)}: no such file")
    return files


def embedded(options: argparse.Namespace) -> list[Path]:
    """Images and captions through the exported model; kept in --folder for the next run."""
    from xmr.engine.errors import XmrError
    from xmr.engine.model import Model

    model = Model.open(options.model)
    folder = options.folder or Path(tempfile.gettempdir())
    paths = [folder / f"{model.fingerprint}-{modality}.npy" for modality in ("image", "text")]
    if not paths[0].exists():
        images = sorted(options.images.rglob("*.jpg"))
        if not images:
            sys.exit(f"{options.images}: no .jpg files in it")
        note(f"embedding {len(images)} images")
        batches = [images[start : start + 256] for start in range(0, len(images), 256)]
        np.save(paths[0], np.concatenate([model.embed("image", batch) for batch in batches]))
    if not paths[1].exists():
        embeddings = []
        for caption in captions(options.captions):
            try:
                embeddings.append(model.embed("text", [caption]))
            except XmrError as error:  # a caption of unknown words is no query
                note(str(error))
        np.save(paths[1], np.concatenate(embeddings))
    return paths


def captions(path: Path, n_wanted: int = 10_000) -> list[str]:
    """At most n_wanted, taken evenly from the whole file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".jsonl":
        lines = [caption for line in lines for caption in json.loads(line)["captions"]]
    return lines[:: math.ceil(len(lines) / n_wanted)]


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# The peers: each opener takes (rows, dim) and returns one search or several, by name. They run in the processes.


def open_xmr(rows: Floats) -> dict[str, Search]:
    """The best instruction set by the name xmr, the others but the plain one beside it."""
    from xmr.engine.search import Gallery, kernels

    gallery = Gallery.encode(rows)
    if kernels() == ["plain"]:
        note("xmr has only its plain kernel here: expect it to be slow")
    others = {f"xmr {isa}": xmr_search(gallery, isa) for isa in reversed(kernels()[1:-1])}
    return {"xmr": xmr_search(gallery, "auto"), **others}


def open_xmr_plain(rows: Floats) -> dict[str, Search]:
    from xmr.engine.search import Gallery

    return {"xmr plain": xmr_search(Gallery.encode(rows), "plain")}


def xmr_search(gallery: Any, isa: str) -> Search:
    from xmr.engine.search import top_k

    return lambda queries, k, threads: top_k(queries, gallery, k, threads=threads, isa=isa)[1]


def open_faiss(rows: Floats) -> dict[str, Search]:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return {"faiss as shipped": faiss_search(index)}


def open_faiss_tuned(rows: Floats) -> dict[str, Search]:
    import faiss

    search = open_faiss(rows)["faiss as shipped"]
    shipped = faiss.cvar.distance_compute_blas_threshold

    def tuned(queries: Floats, k: int, threads: int) -> Rows:
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES if len(queries) > 1 else shipped
        return search(queries, k, threads)

    return {"faiss tuned": tuned}


def open_hnsw(rows: Floats) -> dict[str, Search]:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    return {f"hnsw ef {ef}": faiss_search(index, lambda ef=ef: setattr(index.hnsw, "efSearch", ef)) for ef in (64, 256)}


def open_ivf(rows: Floats) -> dict[str, Search]:
    import faiss

    n_lists = 1 << round(math.log2(4 * math.sqrt(len(rows))))
    quantizer = faiss.IndexFlatIP(rows.shape[1])
    index = faiss.IndexIVFFlat(quantizer, rows.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    probes = [probe for probe in (8, 64) if probe < n_lists]
    return {f"ivf probe {n}": faiss_search(index, lambda n=n: setattr(index, "nprobe", n)) for n in probes}


def faiss_search(index: Any, prepare: Callable[[], None] = lambda: None) -> Search:
    import faiss

    def search(queries: Floats, k: int, threads: int) -> Rows:
        faiss.omp_set_num_threads(threads)
        prepare()
        return index.search(queries, k)[1]

    return search


def open_torch(rows: Floats) -> dict[str, Search]:
    import torch

    gallery = torch.from_numpy(rows)

    def search(queries: Floats, k: int, threads: int) -> Rows:
        torch.set_num_threads(threads)
        asked, scores, ids = torch.from_numpy(queries), [], []
        for part in chunks(len(rows), SCORES_AT_ONCE // len(queries)):
            best = torch.topk(asked @ gallery[part].T, min(k, part.stop - part.start), dim=1)
            scores.append(best.values)
            ids.append(best.indices + part.start)
        order = torch.topk(torch.cat(scores, dim=1), k, dim=1).indices
        return torch.cat(ids, dim=1).gather(1, order).numpy()

    return {"torch": search}


def open_numpy(rows: Floats) -> dict[str, Search]:
    controller = ThreadpoolController()

    def search(queries: Floats, k: int, threads: int) -> Rows:
        with controller.limit(limits=threads, user_api="blas"):
            parts = chunks(len(rows), SCORES_AT_ONCE // len(queries))
            return merged(((queries @ rows[part].T, part.start) for part in parts), k)

    return {"numpy": search}


def open_usearch(rows: Floats) -> dict[str, Search]:
    from usearch.index import MetricKind
    from usearch.index import search as usearch_search

    def search(queries: Floats, k: int, threads: int) -> Rows:
        ids = [
            usearch_search(rows, queries[part], k, MetricKind.IP, exact=True, threads=threads).keys.reshape(-1, k)
            for part in chunks(len(queries), USEARCH_QUERIES_AT_ONCE)
        ]
        return np.concatenate(ids).astype(np.int64)

    return {"usearch": search}


def open_numkong(rows: Floats) -> dict[str, Search]:
    import numkong

    def search(queries: Floats, k: int, threads: int) -> Rows:
        packed = numkong.dots_pack(queries)
        buffers: dict[int, Any] = {}

        def scores() -> Iterator[tuple[NDArray[Any], int]]:
            for part in chunks(len(rows), max(1024, NUMKONG_SCORES_AT_ONCE // len(queries))):
                n_rows = part.stop - part.start
                if n_rows not in buffers:
                    buffers[n_rows] = numkong.empty((n_rows, len(queries)), dtype="float64")
                numkong.dots_packed(rows[part], packed, out=buffers[n_rows], threads=threads)
                yield np.ascontiguousarray(np.asarray(buffers[n_rows]).T), part.start

        return merged(scores(), k)

    return {"numkong": search}


def chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def merged(parts: Iterable[tuple[NDArray[Any], int]], k: int) -> Rows:
    """The k best ids from scores (n_queries, some rows) and the row where they start."""
    best_scores, best_ids = [], []
    for scores, start in parts:
        ids = best_of(scores, k)
        best_scores.append(np.take_along_axis(scores, ids, axis=1))
        best_ids.append(ids + start)
    scores, ids = np.concatenate(best_scores, axis=1), np.concatenate(best_ids, axis=1)
    kept = best_of(scores, k)
    order = np.take_along_axis(kept, np.argsort(-np.take_along_axis(scores, kept, axis=1), axis=1), axis=1)
    return np.take_along_axis(ids, order, axis=1)


def best_of(scores: NDArray[Any], k: int) -> Rows:
    """Where the k largest of each row stand, in no order."""
    if k >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, -k, axis=1)[:, -k:]


OPENERS: dict[str, Callable[[Floats], dict[str, Search]]] = {
    "xmr": open_xmr,
    "xmr-plain": open_xmr_plain,
    "faiss-tuned": open_faiss_tuned,
    "faiss": open_faiss,
    "torch": open_torch,
    "numpy": open_numpy,
    "usearch": open_usearch,
    "numkong": open_numkong,
    "hnsw": open_hnsw,
    "ivf": open_ivf,
}


# A process of peers


class Worker:
    """Lives in a process of its own and answers what the parent asks of its peers."""

    def __init__(self, peers: list[str], copies_rows: bool, rows_path: Path, queries_path: Path) -> None:
        self.rows = np.load(rows_path, mmap_mode="r")
        self.queries = np.load(queries_path)
        self.searches: dict[str, Search] = {}
        if copies_rows and peers:
            self.rows = np.array(self.rows)
        for peer in peers:
            try:
                self.searches |= OPENERS[peer](self.rows)
            except ImportError as error:
                note(f"{peer} left out: {error}")

    def names(self) -> list[str]:
        return list(self.searches)

    def ids(self, peer: str, n_queries: int, k: int) -> Rows:
        return np.asarray(self.searches[peer](self.queries[:n_queries], k, os.cpu_count() or 1))

    def time(self, peer: str, first: int, batch: int, k: int, threads: int) -> dict[str, float]:
        queries = self.queries[first : first + batch].copy()
        busy, wall, cpu = machine_busy_ms(), time.perf_counter(), time.process_time()
        self.searches[peer](queries, k, threads)
        cpu_ms, wall_ms = (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
        return {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "others_ms": machine_busy_ms() - busy - cpu_ms}

    def encode(self, threads: int) -> dict[str, float]:
        from xmr.engine.search import Gallery

        if "threads" not in inspect.signature(Gallery.encode).parameters:
            return {}
        start = time.perf_counter()
        Gallery.encode(self.rows, threads=threads)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "gb_per_s": self.rows.nbytes / 1e9 / seconds}

    def floor(self, threads: int) -> dict[str, float]:
        """GB/s of the fastest ways to read memory from Python, by name."""
        if not hasattr(self, "_memory"):
            # numpy asks for huge pages for an array of this size
            self._memory = np.ones(FLOOR_BYTES // 4, dtype=np.float32)
        tall, wide = self._memory.reshape(-1, FLOOR_COLUMNS), self._memory.reshape(-1, 4 * FLOOR_COLUMNS)
        column, row = np.ones(tall.shape[1], dtype=np.float32), np.ones(len(wide), dtype=np.float32)
        readers: dict[str, Callable[[], object]] = {
            "numpy matrix @ vector": lambda: tall @ column,
            "numpy vector @ matrix": lambda: row @ wide,
        }
        try:
            import torch

            torch.set_num_threads(threads)
            matrix, vector = torch.from_numpy(tall), torch.from_numpy(column)
            readers["torch matrix @ vector"] = lambda: matrix @ vector
        except ImportError:
            pass
        with ThreadpoolController().limit(limits=threads, user_api="blas"):
            return {name: FLOOR_BYTES / 1e9 / min(seconds(read) for _ in range(3)) for name, read in readers.items()}

    def peak_gb(self) -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def machine_busy_ms() -> float:
    """CPU time of all cores since boot, in steps of 10 ms; what the host took from a virtual machine is in it."""
    if not Path("/proc/stat").exists():
        return time.process_time() * 1e3  # so that nothing is left for the others
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, *rest = fields
    return sum((user, nice, system, *rest)) * 1e3 / os.sysconf("SC_CLK_TCK")


def serve(pipe: Any, *arguments: Any) -> None:
    worker = Worker(*arguments)
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(worker, method)(*given))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Peers:
    """The processes of one dataset; close them to have their memory back."""

    def __init__(self, wanted: list[str], rows_path: Path, queries_path: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Any] = {}
        self._processes: list[Any] = []
        self._home: dict[str, str] = {}  # process of each peer
        for name, settings in PROCESSES.items():
            peers = [peer for peer in wanted if peer in settings.peers]
            if settings.peers and not peers:
                continue
            self._pipes[name], theirs = spawn.Pipe()
            arguments = (theirs, peers, settings.copies_rows, rows_path, queries_path)
            process = spawn.Process(target=serve, args=arguments, daemon=True)
            with environment(settings.environment):
                process.start()
            theirs.close()
            self._processes.append(process)
            self._home |= dict.fromkeys(self.ask(name, "names"), name)  # waits: they open one after the other

    @property
    def names(self) -> list[str]:
        """xmr first, then faiss, as in the tables."""
        return sorted(self._home, key=lambda peer: (not peer.startswith("xmr"), not peer.startswith("faiss")))

    def ask(self, process: str, method: str, *arguments: Any) -> Any:
        self._pipes[process].send((method, arguments))
        return self._pipes[process].recv()

    def ask_peer(self, peer: str, method: str, *arguments: Any) -> Any:
        return self.ask(self._home[peer], method, peer, *arguments)

    def peak_gb(self) -> dict[str, float]:
        return {name: self.ask(name, "peak_gb") for name in self._pipes}

    def close(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        for process in self._processes:
            process.join()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """For a process that starts within: these variables, and none of the others that steer BLAS and threads."""
    before = dict(os.environ)
    for name in (*BLAS_VARIABLES, *THREAD_VARIABLES):
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# Measuring


def measure(name: str, n_rows: int, wanted: list[str], options: argparse.Namespace, folder: Path) -> Measured:
    note(f"\n{name}: writing {n_rows:,} rows")
    paths = write_rows(name, n_rows, options, folder)
    rows, queries = np.load(paths[0], mmap_mode="r"), np.load(paths[1])
    measured = Measured(name, n_rows, rows.shape[1])
    note(f"{name}: opening {', '.join(wanted)}")
    peers = Peers(wanted, *paths)
    try:
        check(peers, rows, queries, max(options.ks))
        measured.recall = recalls(peers, rows, queries, min(options.ks))
        for threads in options.threads:
            for k in options.ks:
                for batch in options.batches:
                    time_peers(peers, measured, batch, k, threads, options)
            for _ in range(options.repeats):
                if not (encoded := peers.ask("xmr", "encode", threads)):
                    note("Gallery.encode takes no threads: its speed is left out")
                    break
                measured.encode.append({"threads": threads, **encoded})
        measured.peak_gb = peers.peak_gb()
    finally:
        peers.close()
        for path in paths:
            path.unlink()
    return measured


def time_peers(peers: Peers, measured: Measured, batch: int, k: int, threads: int, options: argparse.Namespace) -> None:
    """One run of every peer in each round, so that a slower minute of the machine meets all of them."""
    asked = [peer for peer in peers.names if batch <= options.largest.get(peer, batch)]
    for peer in asked:
        peers.ask_peer(peer, "time", 0, min(batch, 8), k, threads)  # threads and buffers are made once
    n_queries = 2 * max(*options.batches, RECALL_QUERIES)
    slow: set[str] = set()
    for round_ in range(options.repeats):
        time.sleep(SETTLE_S)
        floor = peers.ask("floor", "floor", threads)
        measured.floor.append({"threads": threads, "gb_per_s": floor})
        for peer in asked:
            if peer in slow:
                continue
            first = round_ * batch % (n_queries - batch + 1)
            time.sleep(SETTLE_S)
            found = peers.ask_peer(peer, "time", first, batch, k, threads)
            case = {"peer": peer, "threads": threads, "k": k, "batch": batch, "round": round_}
            measured.runs.append({**case, **found})
            if found["wall_ms"] > options.slow_s * 1e3 and options.repeats > 1:
                slow.add(peer)
                note(
                    f"{peer}, batch {batch}, k {k}, threads {threads}: {found['wall_ms'] / 1e3:.0f} s, so one run only"
                )
    case = {"threads": threads, "k": k, "batch": batch}
    medians = {peer: statistics.median(measured.times("wall_ms", peer=peer, **case)) for peer in asked}
    report = ", ".join(f"{peer} {shown(ms)}" for peer, ms in medians.items())
    note(f"{measured.data}, threads {threads}, k {k}, batch {batch}, ms: {report}")


def check(peers: Peers, rows: Floats, queries: Floats, k: int) -> None:
    """xmr's ids must be those of the brute force, on every instruction set."""
    expected = brute_force(queries[:CHECKED_QUERIES], rows, k)
    for peer in peers.names:
        if peer.startswith("xmr") and not np.array_equal(peers.ask_peer(peer, "ids", CHECKED_QUERIES, k), expected):
            sys.exit(f"{peer}: its ids are not those of a float64 brute force")


def brute_force(queries: Floats, rows: Floats, k: int) -> Rows:
    """(n, k) ids by float64 products; the order among the best by their exact sums, equal ones by the smaller row."""
    wide = queries.astype(np.float64)
    scores = np.concatenate([wide @ rows[part].astype(np.float64).T for part in chunks(len(rows), BLOCK_ROWS)], axis=1)
    ids = []
    for query, row_scores in zip(wide, scores, strict=True):
        kth = np.partition(row_scores, -k)[-k]
        best = np.flatnonzero(row_scores >= kth - 1e-9)  # far more than the rounding of the sums
        exact = np.array([math.fsum(query * rows[row].astype(np.float64)) for row in best])
        ids.append(best[np.lexsort((best, -exact))[:k]])
    return np.array(ids)


def recalls(peers: Peers, rows: Floats, queries: Floats, k: int) -> dict[str, float]:
    """Share of the ids of each peer that score as xmr's k-th or better. An exact peer must find nearly all."""
    asked = queries[:RECALL_QUERIES, None, :].astype(np.float64)
    kth = (asked * rows[peers.ask_peer("xmr", "ids", RECALL_QUERIES, k)]).sum(axis=2).min(axis=1)
    recall = {}
    for peer in peers.names:
        ids = peers.ask_peer(peer, "ids", RECALL_QUERIES, k)
        scores = (asked * rows[ids]).sum(axis=2)
        recall[peer] = float(((scores >= kth[:, None] - SAME_SCORE) & (ids >= 0)).mean())
        if not peer.startswith(APPROXIMATE) and recall[peer] < LEAST_RECALL:
            sys.exit(f"{peer}: only {recall[peer]:.1%} of its ids are among the {k} best, though it is exact")
    return recall


# Tables


def print_tables(measured: Measured) -> None:
    for threads in dict.fromkeys(run["threads"] for run in measured.runs):
        unit_, what = ("cpu_ms", "CPU time") if threads == 1 else ("wall_ms", "wall time")
        size = f"{measured.rows:,} x {measured.dim}"
        print(f"\n### {measured.data}, {size}, {threads} thread{'s' * (threads > 1)}, ms of {what}\n")
        print_table(measured, threads, unit_)
        gb_per_s = measured.floor_gb_per_s(threads)
        floor_ms = measured.rows * measured.dim / gb_per_s / 1e6
        print(f"\nMemory is read at {gb_per_s:.1f} GB/s: the codes, a byte a dimension, in {floor_ms:.1f} ms.")
        if speeds := [encoded["gb_per_s"] for encoded in measured.encode if encoded["threads"] == threads]:
            print(f"Encoding: {statistics.median(speeds):.2f} GB/s of float32.")
        runs = [run for run in measured.runs if run["threads"] == threads]
        others = sum(run["others_ms"] for run in runs) / sum(run["wall_ms"] for run in runs) / (os.cpu_count() or 1)
        if others > QUIET:
            print(f"The machine was not quiet: others took {others:.0%} of its cores during the runs.")
        if threads > 1:
            continue
        if approximate := [peer for peer in measured.peers() if peer.startswith(APPROXIMATE)]:
            print("Recall: " + ", ".join(f"{peer} {measured.recall[peer]:.1%}" for peer in approximate) + ".")
    sys.stdout.flush()


def print_table(measured: Measured, threads: int, unit: str) -> None:
    peers = measured.peers()
    ours = [peer for peer in peers if peer.startswith("xmr")] if "faiss tuned" in peers else []
    print_row(["batch", "k", *peers, *(f"faiss tuned / {peer}" for peer in ours), "of the floor"])
    print_row(["---"] * (3 + len(peers) + len(ours)))
    has_single_runs = False
    for k, batch in dict.fromkeys((run["k"], run["batch"]) for run in measured.runs):
        times = {peer: measured.times(unit, peer=peer, threads=threads, k=k, batch=batch) for peer in peers}
        ms = {peer: statistics.median(found) for peer, found in times.items() if found}
        most = max(map(len, times.values()))
        cells = [shown(ms[peer]) + "*" * (len(times[peer]) < most) if peer in ms else "" for peer in peers]
        has_single_runs |= any(cell.endswith("*") for cell in cells)
        floor_ms = measured.rows * measured.dim / measured.floor_gb_per_s(threads) / 1e6
        ratios = [f"{ms['faiss tuned'] / ms[peer]:.1f}x" if {peer, "faiss tuned"} <= ms.keys() else "" for peer in ours]
        share = f"{floor_ms / ms['xmr']:.0%}" if batch <= 8 else ""
        print_row([str(batch), str(k), *cells, *ratios, share])
    if has_single_runs:
        print("\n\\* one run; the others: medians.")


def print_against_gaussian(results: list[Measured]) -> None:
    """xmr on other data of the same size, as a multiple of its time on Gaussian rows."""
    for gaussian in (measured for measured in results if measured.data == "gaussian"):
        shape = gaussian.rows, gaussian.dim
        others = [found for found in results if found.data != "gaussian" and (found.rows, found.dim) == shape]
        if not others:
            continue
        print(f"\n### xmr, {gaussian.rows:,} x {gaussian.dim}: wall time as a multiple of that on Gaussian rows\n")
        print_row(["threads", "batch", "k", *(found.data for found in others)])
        print_row(["---"] * (3 + len(others)))
        for threads, k, batch in dict.fromkeys((run["threads"], run["k"], run["batch"]) for run in gaussian.runs):
            case = {"peer": "xmr", "threads": threads, "k": k, "batch": batch}
            base, *ms = (statistics.median(found.times("wall_ms", **case)) for found in (gaussian, *others))
            print_row([str(threads), str(batch), str(k), *(f"{value / base:.2f}" for value in ms)])


def print_row(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |")


def shown(ms: float) -> str:
    return f"{ms:,.1f}" if ms < 100 else f"{ms:,.0f}"


def write_json(results: list[Measured], options: argparse.Namespace) -> None:
    if options.json:
        report = {"machine": machine(), "options": vars(options), "results": [asdict(found) for found in results]}
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


def machine() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
