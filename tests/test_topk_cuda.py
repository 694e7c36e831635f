"""The CUDA kernels without a GPU: compiled by g++ under tests/cuda/emulation.h, they answer as a float64 brute force.

A warp's lanes and a block's threads take turns in an order drawn from a seed, shared memory starts poisoned, and the
sanitizers look on. What they are there to catch is planted and has to be caught. What nvcc makes of the kernels is
looked at where its tools are.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

ROOT = Path(__file__).parents[1]
CODINGS = ["int8", "float16"]


def normal(rows: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def compile_driver(folder: Path, *flags: str, csrc: Path = ROOT / "csrc") -> Path:
    """The emulated search as a program, or a skip that says what is missing."""
    if not shutil.which("g++"):
        pytest.skip("g++ is missing: the CUDA kernels are not tested")
    cuda, driver = ROOT / "tests" / "cuda", folder / "driver"
    sources = ["-x", "c++", str(cuda / "driver.cpp"), str(csrc / "topk_cuda.cu")]
    options = ["-std=c++20", "-fno-strict-aliasing", "-pthread", "-I", str(csrc), "-include", str(cuda / "emulation.h")]
    subprocess.run(["g++", *options, *flags, *sources, "-o", str(driver)], check=True)
    return driver


@pytest.fixture(scope="session")
def plain_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # nvcc, too, turns products and sums into fused ones
    fused = ["-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else [])]
    return compile_driver(tmp_path_factory.mktemp("plain"), "-O2", *fused)


@pytest.fixture(scope="session")
def address_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("address"), "-O1", "-fsanitize=address")


@pytest.fixture(scope="session")
def thread_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("thread"), "-O1", "-fsanitize=thread", "-DXMR_EMULATED_THREADS")


@dataclass(frozen=True)
class Case:
    """One search; the places for candidates are few, so that small galleries fill them."""

    segments: list[Floats]
    queries: Floats
    k: int
    allow: NDArray[np.bool_] | None = None
    coding: str = "int8"
    n_candidates: int = 512
    n_devices: int = 1
    seed: int = 0
    free_bytes: int = 1 << 40
    is_full_at_first: bool = False  # a first search finds no memory, a second one does
    skipped_line: int = 0  # a barrier in topk_cuda.cuh that the threads from skipped_from on leave out
    skipped_from: int = 0

    def run(self, *command: str | Path, timeout_s: float = 120) -> "subprocess.CompletedProcess[bytes]":
        numbers: list[int | str] = [self.seed, self.skipped_line, self.skipped_from, self.n_devices, self.free_bytes]
        numbers += [int(self.is_full_at_first), self.coding]
        numbers += [self.n_candidates, self.n_places, *self.queries.shape, int(self.allow is not None)]
        numbers += map(len, self.segments)
        arrays = [*self.segments, self.queries] + ([] if self.allow is None else [self.allow])
        given = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        started = [*map(str, command), *map(str, numbers)]
        return subprocess.run(started, input=given, capture_output=True, timeout=timeout_s)

    @property
    def n_places(self) -> int:
        return min(self.k, sum(map(len, self.segments)))

    def search(self, *command: str | Path) -> tuple[Floats, Rows]:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr.decode()
        shape = (len(self.queries), self.n_places)
        n_scores = shape[0] * shape[1]
        scores = np.frombuffer(done.stdout, np.float32, n_scores)
        return scores.reshape(shape), np.frombuffer(done.stdout, np.int64, n_scores, 4 * n_scores).reshape(shape)

    def brute_force(self) -> tuple[Floats, Rows]:
        """Every score as topk.h defines it: 32 sums in double, then halved."""
        gallery = np.concatenate(self.segments).astype(np.float64)
        queries = self.queries.astype(np.float64)
        sums = np.zeros((len(queries), len(gallery), 32))
        for first in range(0, queries.shape[1], 32):
            products = queries[:, None, first : first + 32] * gallery[None, :, first : first + 32]
            sums[:, :, : products.shape[2]] += products
        while sums.shape[2] > 1:
            half = sums.shape[2] // 2
            sums = sums[:, :, :half] + sums[:, :, half:]
        scores = sums[:, :, 0]
        if self.allow is not None:
            scores[:, ~self.allow] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        best = np.take_along_axis(scores, rows, axis=1)
        with np.errstate(over="ignore"):
            return best.astype(np.float32), np.where(best == -np.inf, -1, rows)

    def is_answer(self, stdout: bytes) -> bool:
        return stdout == b"".join(array.tobytes() for array in self.brute_force())


def assert_is_brute_force(case: Case, *command: str | Path) -> None:
    scores, rows = case.search(*command)
    expected_scores, expected_rows = case.brute_force()
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("n_queries", "rows", "dim", "k"),
    [
        (1, 1, 1, 1),
        (3, 5, 0, 3),
        (1, 7, 3, 9),
        (1, 1000, 33, 10),
        (2, 129, 300, 5),
        (8, 700, 64, 40),
        (8, 130, 4096, 3),  # the queries do not fit into shared memory
        (9, 129, 65, 7),
        (129, 257, 40, 1),
        (20, 2100, 16, 10),
        (1, 2500, 8, 2048),
        (9, 2100, 4, 2048),
    ],
)
def test_the_kernels_answer_as_the_brute_force(
    plain_driver: Path, coding: str, n_queries: int, rows: int, dim: int, k: int
) -> None:
    case = Case([normal(rows, dim, seed=2)], normal(n_queries, dim, seed=1), k, coding=coding)
    assert_is_brute_force(case, plain_driver)


def one_outlier_dimension() -> Floats:
    gallery = normal(1500, 24)
    gallery[:, 5] *= 60
    return gallery


def a_cone(rows: int = 1500) -> Floats:
    return (np.ones(24) + 1e-7 * normal(rows, 24)).astype(np.float32)


def duplicates() -> Floats:
    return np.tile(normal(7, 24), (215, 1))[:1500]


def whole_numbers() -> Floats:
    return np.random.default_rng(0).integers(-2, 3, (1500, 24)).astype(np.float32)


def worst_first() -> Floats:
    gallery = normal(1500, 24)
    return np.ascontiguousarray(gallery[np.argsort(gallery @ normal(1, 24, seed=1)[0])])


def denormals() -> Floats:
    return (normal(700, 24).astype(np.float64) * 1e-40).astype(np.float32)


def huge_norms() -> Floats:
    return normal(700, 24) * np.float32(1e30)


def norms_of_all_sizes() -> Floats:
    exponents = np.random.default_rng(3).uniform(-37, 37, (1500, 1))
    return (normal(1500, 24).astype(np.float64) * 10**exponents).astype(np.float32)


def zeros() -> Floats:
    return np.zeros((700, 24), np.float32)


GALLERIES = [
    one_outlier_dimension,
    a_cone,
    duplicates,
    whole_numbers,
    worst_first,
    denormals,
    huge_norms,
    norms_of_all_sizes,
    zeros,
]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("n_queries", [1, 9])
@pytest.mark.parametrize("make", GALLERIES, ids=lambda make: make.__name__)
def test_the_rows_may_be_anything(plain_driver: Path, make: Callable[[], Floats], n_queries: int, coding: str) -> None:
    assert_is_brute_force(Case([make()], normal(n_queries, 24, seed=1), 20, coding=coding), plain_driver)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("factor", [0, 1e-42, 1e-30, 1e30])
def test_the_queries_may_have_any_length(plain_driver: Path, factor: float, coding: str) -> None:
    queries = (normal(3, 24, seed=1).astype(np.float64) * factor).astype(np.float32)
    assert_is_brute_force(Case([normal(700, 24)], queries, 20, coding=coding), plain_driver)


@pytest.mark.parametrize("n_allowed", [0, 5, 700])
def test_queries_of_zeros_find_the_first_rows(plain_driver: Path, n_allowed: int) -> None:
    queries = normal(12, 24, seed=1)
    queries[[0, 4, 5, 11]] = 0
    allow = np.zeros(700, np.bool_)
    allow[np.random.default_rng(3).permutation(700)[:n_allowed]] = True
    assert_is_brute_force(Case([normal(700, 24)], queries, 20, allow, n_devices=2), plain_driver)


@pytest.mark.parametrize("n_queries", [2, 9])
@pytest.mark.parametrize("n_allowed", [0, 5, 999])
def test_rows_that_are_not_allowed_are_never_found(plain_driver: Path, n_queries: int, n_allowed: int) -> None:
    allow = np.zeros(1000, np.bool_)
    allow[np.random.default_rng(3).permutation(1000)[:n_allowed]] = True
    assert_is_brute_force(Case([normal(1000, 10)], normal(n_queries, 10, seed=1), 20, allow), plain_driver)


@pytest.mark.parametrize("n_queries", [2, 9])
@pytest.mark.parametrize("n_devices", [1, 3])
def test_segments_are_numbered_through_and_spread_over_the_gpus(
    plain_driver: Path, n_devices: int, n_queries: int
) -> None:
    segments = [normal(rows, 12, seed=rows) for rows in (1, 300, 0, 77, 500)]
    segments[4][:77] = segments[3]
    allow = np.arange(878) % 3 > 0
    case = Case(segments, normal(n_queries, 12), 50, allow, n_devices=n_devices)
    assert_is_brute_force(case, plain_driver)


def test_more_gpus_than_rows(plain_driver: Path) -> None:
    assert_is_brute_force(Case([normal(2, 4)], normal(1, 4, seed=1), 2, n_devices=5), plain_driver)


# buffers overflow, several stages of a tile, more candidates than `sort` has places for
BUSY = [
    Case([worst_first()], normal(2, 24, seed=1), 20),
    Case([normal(700, 200)], normal(9, 200, seed=1), 20, np.arange(700) % 5 > 0),
    Case([a_cone(4000)], normal(1, 24, seed=1), 20, coding="float16", n_candidates=8192),
]
BUSY_NAMES = ["scan", "tiles", "cone"]


@pytest.mark.parametrize("case", BUSY, ids=BUSY_NAMES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_threads_changes_no_bit(plain_driver: Path, case: Case, seed: int) -> None:
    assert replace(case, seed=seed).run(plain_driver).stdout == case.run(plain_driver).stdout


@pytest.mark.parametrize("case", BUSY[:2], ids=BUSY_NAMES[:2])
def test_no_access_is_out_of_bounds(address_driver: Path, case: Case) -> None:
    assert_is_brute_force(case, address_driver)


@pytest.mark.parametrize("n_queries", [2, 9])
@pytest.mark.parametrize("coding", CODINGS)
def test_no_access_is_out_of_bounds_at_odd_sizes(address_driver: Path, coding: str, n_queries: int) -> None:
    segments = [normal(200, 19, seed=2), normal(141, 19, seed=3)]
    allow = np.arange(341) % 7 > 0
    case = Case(segments, normal(n_queries, 19, seed=1), 100, allow, coding=coding, n_devices=2)
    assert_is_brute_force(case, address_driver)


def threads() -> list[str]:
    """How to start a program under ThreadSanitizer, which needs the addresses where it expects them."""
    return ["setarch", "-R"] if shutil.which("setarch") else []


@pytest.mark.parametrize("n_queries", [1, 9])
def test_no_two_threads_race(thread_driver: Path, n_queries: int) -> None:
    case = Case([normal(140, 9)], normal(n_queries, 9, seed=1), 20, np.arange(140) % 5 > 0)
    done = case.run(*threads(), thread_driver)
    if b"unexpected memory mapping" in done.stderr or b"setarch: failed" in done.stderr:
        pytest.skip(f"ThreadSanitizer does not start here: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr.decode()
    assert case.is_answer(done.stdout)


KERNELS = (ROOT / "csrc" / "topk_cuda.cuh").read_text()
BARRIERS = [number for number, line in enumerate(KERNELS.splitlines(), 1) if "__syncthreads();" in line]


@pytest.mark.parametrize("line", BARRIERS)
def test_every_barrier_is_needed(plain_driver: Path, line: int) -> None:
    for case, seed in product(BUSY, range(5)):
        try:
            done = replace(case, seed=seed, skipped_line=line).run(plain_driver, timeout_s=1)
        except subprocess.TimeoutExpired:
            return
        if done.returncode or not case.is_answer(done.stdout):
            return
    pytest.fail(f"line {line}: without the barrier the answers are the same")


@pytest.mark.parametrize("line", BARRIERS)
def test_a_barrier_that_half_of_a_block_reaches_is_reported(plain_driver: Path, line: int) -> None:
    answers = (replace(case, skipped_line=line, skipped_from=128).run(plain_driver) for case in BUSY)
    assert any(b"barrier divergence" in done.stderr for done in answers)


@pytest.fixture(scope="session")
def unguarded_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neither the capacity of a buffer nor the size of the shared memory is looked at."""
    folder = tmp_path_factory.mktemp("unguarded")
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    guards = {"topk_cuda.cuh": " && place < search.capacity", "topk_cuda.cu": " && query_bytes <= SHARED_BYTES"}
    for name, guard in guards.items():
        source = folder / "csrc" / name
        assert source.read_text().count(guard) == 1
        source.write_text(source.read_text().replace(guard, ""))
    return compile_driver(folder, "-O1", "-fsanitize=address", csrc=folder / "csrc")


def test_a_write_out_of_bounds_is_reported(unguarded_driver: Path) -> None:
    case = replace(BUSY[0], queries=BUSY[0].queries[:1])
    assert b"heap-buffer-overflow" in case.run(unguarded_driver).stderr


def test_a_launch_with_too_much_shared_memory_is_refused(unguarded_driver: Path) -> None:
    done = Case([normal(3, 4096)], normal(8, 4096), 1, coding="float16").run(unguarded_driver)
    assert done.returncode == 1
    assert done.stderr.decode() == "CUDA: invalid argument\n"


def test_a_machine_without_a_gpu_says_so(plain_driver: Path) -> None:
    done = Case([normal(3, 4)], normal(1, 4), 1, n_devices=0).run(plain_driver)
    assert done.returncode == 1
    assert done.stderr.decode() == "no usable NVIDIA GPU found: no CUDA-capable device is detected\n"


def test_a_gallery_that_does_not_fit_says_how_much_is_missing(plain_driver: Path) -> None:
    done = Case([normal(1000, 1024)], normal(1, 1024), 1, free_bytes=1 << 22).run(plain_driver)
    assert done.returncode == 1
    expected = "the gallery needs 4.9 MiB, with its searches 153.6 MiB, GPU 0 has 4.0 MiB free\n"
    assert done.stderr.decode() == expected


def test_a_gallery_that_fits_leaves_room_for_its_searches(plain_driver: Path) -> None:
    case = Case([normal(200, 24)], normal(64, 24, seed=1), 5, np.ones(200, np.bool_), n_candidates=1 << 22)
    needed = re.search(r"with its searches (\d+)", replace(case, free_bytes=0).run(plain_driver).stderr.decode())
    assert needed
    assert_is_brute_force(replace(case, free_bytes=int(needed[1]) + 1 << 20), plain_driver)


def test_a_search_after_one_that_found_no_memory_answers(plain_driver: Path) -> None:
    case = Case([normal(700, 24)], normal(2, 24, seed=1), 20, is_full_at_first=True)
    done = case.run(plain_driver)
    assert done.stderr.decode() == "CUDA: out of memory\n"
    assert case.is_answer(done.stdout)


ARCHITECTURES = [75, 80, 90, 120]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the kernels compiled for every architecture, and what ptxas says about them."""
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is missing: what it makes of the kernels is not looked at")
    folder = tmp_path_factory.mktemp("nvcc")
    options = ["-std=c++20", "-O3", "-fatbin", "-Xptxas=-v", "-keep", "-keep-dir", str(folder)]
    options += ["-o", str(folder / "topk.fatbin")]
    # the source knows two kinds of GPU; ptxas makes its own of each
    options += ["-gencode=arch=compute_75,code=sm_75", "-gencode=arch=compute_80,code=[sm_80,sm_90,sm_120]"]
    source = str(ROOT / "csrc" / "topk_cuda.cu")
    done = subprocess.run(["nvcc", *options, source], capture_output=True, text=True)
    if "Unsupported gpu architecture" in done.stderr:
        pytest.skip(f"nvcc does not know every architecture: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_registers(compiled: tuple[Path, str], architecture: int) -> None:
    said = re.findall(
        rf"Compiling entry function '(\w+)' for 'sm_{architecture}'"
        r".*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        compiled[1],
        re.DOTALL,
    )
    assert len(said) == 14
    assert {tuple(memory) for _, *memory in said} == {("0", "0", "0")}


# a matrix of queries times one of rows: the largest that the tensor cores of the architecture take
TENSOR_CORES = {75: ("IMMA.8816", "HMMA.1688")} | dict.fromkeys([80, 90, 120], ("IMMA.16832", "HMMA.16816"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scan_loads_16_bytes_and_the_tiles_use_tensor_cores(compiled: tuple[Path, str], architecture: int) -> None:
    if not shutil.which("nvdisasm"):
        pytest.skip("nvdisasm is missing: the machine code is not looked at")
    (cubin,) = (path for path in compiled[0].glob("*.cubin") if path.stem.endswith(f"_{architecture}"))
    done = subprocess.run(["nvdisasm", str(cubin)], capture_output=True, text=True, check=True)
    code = dict(re.findall(r"\.section\s+\.text\.(\w+)(.*?)(?=\.section\s)", done.stdout, re.DOTALL))
    scans = [text for name, text in code.items() if re.search(r"\d+scanI", name)]
    tiles = {name: text for name, text in code.items() if "multiply_tile" in name}
    assert (len(scans), len(tiles)) == (4, 2)
    assert all("LDG.E.128" in text for text in [*scans, *tiles.values()])
    for name, text in tiles.items():
        assert TENSOR_CORES[architecture]["Float16" in name] in text


def test_too_many_columns_are_refused_before_a_gpu_is_looked_for() -> None:
    module = pytest.importorskip("xmr.engine._topk_cuda", reason="_topk_cuda was not built: there was no nvcc")
    with pytest.raises(ValueError, match="the gallery has 65537 columns, at most 65536 expected"):
        module.Gallery([np.zeros((1, 65537), np.float32)])
