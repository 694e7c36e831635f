"""The codes of a segment: that they mean what topk.h says, that its bound holds, and that damage is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import ALL_KINDS, WAYS, coded, mean_of_way, normal, queries_and_rows, rows_of_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xmr.engine import _topk
from xmr.engine.codes import MAX_DIM, Codes
from xmr.engine.errors import XmrError
from xmr.engine.search import Gallery, kernels, top_k

Floats = NDArray[np.float32]
Exact = NDArray[np.object_]  # of Fraction

BLOCK_ROWS, GROUP_DIMS, CODES_TAIL = 16, 4, 1024
SLACK = Fraction(1, 2**33)
EXACT_DIMS = [1, *range(4, 8), *range(16, 32)]  # in which the rotation is a matrix of whole numbers over a power of two


# the codes as topk.h describes them, read by hand


def whole_codes(codes: Codes, dim: int) -> NDArray[np.int64]:
    """The code of every row and dimension for which there is room."""
    n_blocks, n_groups = len(codes.blocks), -(-dim // GROUP_DIMS)
    groups = codes.codes[:-CODES_TAIL].reshape(n_blocks, n_groups, BLOCK_ROWS, GROUP_DIMS)
    by_row = groups.transpose(0, 2, 1, 3).reshape(n_blocks * BLOCK_ROWS, n_groups * GROUP_DIMS)
    return by_row.astype(np.int64) - 128


def decoded(codes: Codes, rows: int, dim: int) -> NDArray[np.float64]:
    """s c of every row, (rows, dim): exact, the product of 24 bits and 7."""
    scales = np.repeat(codes.blocks[:, 0].astype(np.float64), BLOCK_ROWS)
    return (scales[:, None] * whole_codes(codes, dim))[:rows, :dim]


def sign_of(place: int) -> int:
    """By the finaliser of splitmix64."""
    bits = (place + 1) * 0x9E3779B97F4A7C15 % 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return 1 if (bits ^ (bits >> 31)) & 1 else -1


def rotation(dim: int) -> NDArray[np.float64]:
    """R: signs and a Hadamard transform of the first dimensions, as many as a power of two, then of the last."""
    n = 1 << (dim.bit_length() - 1)
    transform = np.ones((1, 1))
    while len(transform) < n:
        transform = np.block([[transform, transform], [transform, -transform]])
    matrix = np.eye(dim)
    for step, first in enumerate([0] if n == dim else [0, dim - n]):
        signs = np.array([[sign_of(2 * d + step)] for d in range(n)])
        matrix[first : first + n] = transform @ (signs * matrix[first : first + n]) / math.sqrt(n)
    return matrix


def exact(array: NDArray[Any]) -> Exact:
    found = np.array([Fraction(float(value)) for value in array.ravel()], dtype=object)
    return found.reshape(array.shape)


def squared(rows: Exact) -> Exact:
    """Their squared norms."""
    return (rows * rows).sum(axis=1)


def turned(rows: Exact, codes: Codes) -> Exact:
    return rows @ exact(rotation(rows.shape[1])).T if codes.is_rotated else rows


def shifted(rows: Exact, codes: Codes) -> Exact:
    return rows if codes.mean is None else rows - exact(codes.mean)


def finite_bounds(codes: Codes, rows: int) -> tuple[Exact, Exact]:
    """e and n; what is infinite bounds everything, and is left as the largest double."""
    bounds = np.nan_to_num(codes.bounds[:rows].astype(np.float64), posinf=1e300)
    return exact(bounds[:, 0]), exact(bounds[:, 1])


@pytest.mark.parametrize("dim", [1, 2, 3, 64, 100, 300])
def test_the_rotation_keeps_inner_products(dim: int) -> None:
    np.testing.assert_allclose(rotation(dim) @ rotation(dim).T, np.eye(dim), atol=1e-12)


@pytest.mark.parametrize("isa", kernels())
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 31, 64, 100, 513])
def test_rotated_codes_are_of_the_rotated_rows(dim: int, isa: str) -> None:
    rows = normal(40, dim)
    codes = Codes(*_topk.encode(rows, None, True, 1, isa), None, True)
    expected = rows.astype(np.float64) @ rotation(dim).T
    error = np.abs(decoded(codes, 40, dim) - expected)
    assert (error <= codes.blocks[:, :1].repeat(BLOCK_ROWS, axis=0)[:40] * 0.50001).all()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 20),
    dim=st.sampled_from(EXACT_DIMS),
)
def test_stored_norms_are_never_too_small(kind: str, way: str, seed: int, rows: int, dim: int) -> None:
    """In exact arithmetic; where rows are shifted or rotated in double, within the slack that topk.h grants that."""
    rng = np.random.default_rng(seed)
    _, gallery = queries_and_rows(kind, rng, 2, rows, dim)
    codes = coded(way, gallery, rng)
    residuals, norms = finite_bounds(codes, rows)
    moved = shifted(exact(gallery), codes)
    slack = 0 if codes.mean is None and not codes.is_rotated else SLACK * norms
    assert ((norms + slack) ** 2 >= squared(moved)).all()
    assert ((residuals + slack) ** 2 >= squared(turned(moved, codes) - exact(decoded(codes, rows, dim)))).all()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 20),
    dim=st.sampled_from(EXACT_DIMS),
)
def test_every_score_is_within_its_bounds(kind: str, way: str, seed: int, rows: int, dim: int) -> None:
    """In exact arithmetic: |<q, x> - <q, m> - ts <a, c>| <= N e + E n, with the slack of topk.h."""
    rng = np.random.default_rng(seed)
    queries, gallery = queries_and_rows(kind, rng, 1, rows, dim)
    codes = coded(way, gallery, rng)
    residuals, norms = finite_bounds(codes, rows)
    mean = exact(np.zeros(dim) if codes.mean is None else codes.mean)
    query = exact(queries)[0]
    z = turned(query[None], codes)[0]
    scale = max(abs(z)) / 127 or Fraction(1)
    near = scale * np.array([round(value / scale) for value in z], dtype=object)
    distance = exact(gallery) @ query - mean @ query - exact(decoded(codes, rows, dim)) @ near
    near_norm, far_norm, query_norm, mean_norm = map(
        rounded_up_root, (near @ near, (z - near) @ (z - near), query @ query, mean @ mean)
    )
    width = near_norm * residuals + far_norm * norms + SLACK * query_norm * (norms + mean_norm)
    assert (abs(distance) <= width).all()


def rounded_up_root(value: Fraction) -> Fraction:
    return Fraction(math.sqrt(value)) * (1 + Fraction(1, 2**50))


def test_the_bound_of_some_rows_is_their_score() -> None:
    """So the tests that search them would notice the smallest bound that is too small."""
    rng = np.random.default_rng(0)
    queries, rows = queries_and_rows("rows at their bounds", rng, 1, 64, 24)
    codes = coded("plain", rows, rng)
    query, own = queries[0].astype(np.float64), decoded(codes, 64, 24)
    assert (codes.blocks[:, 0] == 1).all()
    width = np.linalg.norm(query) * codes.bounds[:64, 0]
    missed = own @ query + width - rows.astype(np.float64) @ query
    is_parallel = (rows - own) @ query > 1
    assert is_parallel.sum() > 20
    assert (np.abs(missed) <= 1e-5 * width)[is_parallel].all()


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 100),
    dim=st.integers(1, 100),
)
def test_codes_are_near_and_what_does_not_exist_is_zero(kind: str, way: str, seed: int, rows: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    _, gallery = queries_and_rows(kind, rng, 1, rows, dim)
    codes = coded(way, gallery, rng)
    whole, bounds = whole_codes(codes, dim), codes.bounds.reshape(-1, BLOCK_ROWS, 2)
    assert len(codes.blocks) == -(-rows // BLOCK_ROWS)
    assert np.abs(whole).max(initial=0) <= 127
    assert not whole[rows:].any()
    assert not whole[:, dim:].any()
    assert not codes.bounds[rows:].any()
    assert (codes.codes[-CODES_TAIL:] == 128).all()
    np.testing.assert_array_equal(codes.blocks[:, 1:3], bounds.max(axis=1))
    is_coded = codes.blocks[:, 0] > 0
    half_a_step = codes.blocks[:, 0] * 0.50001 * math.sqrt(dim)
    assert (codes.blocks[:, 1] <= half_a_step * 1.0001)[is_coded].all()
    np.testing.assert_array_equal(bounds[~is_coded, :, 0], bounds[~is_coded, :, 1])


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(ALL_KINDS),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 3000),
    dim=st.integers(1, 100),
)
def test_every_instruction_set_and_number_of_threads_writes_the_same_bytes(
    kind: str, way: str, seed: int, rows: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    _, gallery = queries_and_rows(kind, rng, 1, rows, dim)
    arguments = gallery, mean_of_way(way, gallery, rng), "rotated" in way
    expected = bytes_of(_topk.encode(*arguments, 1, "plain"))
    for isa in ["auto", *kernels()]:
        for threads in (1, 7):
            assert bytes_of(_topk.encode(*arguments, threads, isa)) == expected, (isa, threads)


def bytes_of(arrays: tuple[NDArray[Any], ...]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("is_rotated", [False, True])
@pytest.mark.parametrize("kind", ["normal", "sparse", "denormal", "up to the largest float"])
@pytest.mark.parametrize("magnitude", [1e-80, 1e-45, 1e-20, 1, 1e20, 1e38, 1e80])
def test_whatever_is_subtracted_the_search_is_exact(magnitude: float, kind: str, is_rotated: bool) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        queries, rows = queries_and_rows(kind, rng, 5, 300, 30 + seed)
        mean = magnitude * rng.standard_normal(30 + seed)
        gallery = Gallery([rows], [Codes(*_topk.encode(rows, mean, is_rotated), mean, is_rotated)])
        expected = top_k(queries, gallery, 5, isa="plain")
        for isa in kernels()[1:]:
            for one, other in zip(top_k(queries, gallery, 5, isa=isa), expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=isa)


@pytest.mark.parametrize("value", [1e-200, -1e-92, 1e92, np.inf, np.nan])
def test_a_mean_whose_squares_leave_the_range_of_double_is_refused(value: float) -> None:
    mean = np.array([1.0, 0.0, value])
    with pytest.raises(ValueError, match=r"dimension 2 of the mean is .*, 0 or a magnitude between"):
        _topk.encode(normal(20, 3), mean)


def test_rows_of_no_dimension_or_too_many_are_not_coded() -> None:
    for dim in (0, MAX_DIM + 1):
        with pytest.raises(ValueError, match=f"the gallery has {dim} columns, 1 to {MAX_DIM} can be coded"):
            _topk.encode(np.zeros((2, dim), dtype=np.float32))


# which way is chosen


def unit_rows(kind: str, rows: int, dim: int) -> Floats:
    found = rows_of_kind(kind, np.random.default_rng(0), rows, dim)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_gaussian_rows_are_coded_as_they_stand() -> None:
    codes = Codes.encode(unit_rows("normal", 5000, 64))
    assert (codes.mean, codes.is_rotated) == (None, False)


def test_a_cone_is_coded_around_its_mean() -> None:
    rows = unit_rows("wide cone", 5000, 64)
    codes = Codes.encode(rows)
    assert codes.mean is not None
    assert not codes.is_rotated
    np.testing.assert_allclose(codes.mean, rows.mean(axis=0), atol=0.01)


def test_rows_with_an_outlier_dimension_are_rotated() -> None:
    assert Codes.encode(unit_rows("outlier dimension", 5000, 64)).is_rotated


@pytest.mark.parametrize("rows", [0, 1, 39, 41])
def test_a_few_rows_can_be_coded(rows: int) -> None:
    gallery = Gallery.encode(normal(rows, 9))
    assert top_k(normal(1, 9), gallery, 100)[1].shape == (1, rows)


# on disk


@pytest.fixture(params=["plain", "mean rotated"])
def codes(request: pytest.FixtureRequest) -> Codes:
    return coded(request.param, normal(200, 20), np.random.default_rng(0))


def test_codes_are_opened_as_they_were_saved(codes: Codes, tmp_path: Path) -> None:
    codes.save(tmp_path / "a.i8")
    opened = Codes.open(tmp_path / "a.i8", normal(200, 20))
    assert opened.is_rotated == codes.is_rotated
    for name in ("codes", "blocks", "bounds", "mean"):
        one, other = getattr(opened, name), getattr(codes, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert isinstance(one, np.memmap)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("isa", kernels())
def test_opened_codes_are_searched_as_new_ones(codes: Codes, isa: str, tmp_path: Path) -> None:
    queries, rows = normal(4, 20, seed=2), normal(200, 20)
    codes.save(tmp_path / "a.i8")
    opened = top_k(queries, Gallery([rows], [Codes.open(tmp_path / "a.i8", normal(200, 20))]), 7, isa=isa)
    for one, other in zip(opened, top_k(queries, Gallery([rows], [codes]), 7, isa=isa), strict=True):
        np.testing.assert_array_equal(one, other)


def test_saving_leaves_no_other_file(codes: Codes, tmp_path: Path) -> None:
    codes.save(tmp_path / "a.i8")
    arrays = ["codes", "blocks", "bounds"] + ["mean"] * (codes.mean is not None)
    expected = {"a.i8.json"} | {f"a.i8.{name}.npy" for name in arrays}
    assert {path.name for path in tmp_path.iterdir()} == expected


def rewrite_meta(path: Path, **changes: object) -> None:
    meta = json.loads((path / "a.i8.json").read_text())
    (path / "a.i8.json").write_text(json.dumps(meta | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a.i8.json").unlink(),
        lambda folder: (folder / "a.i8.json").write_text(""),
        lambda folder: (folder / "a.i8.json").write_text("[]"),
        lambda folder: (folder / "a.i8.json").write_text("{}"),
        lambda folder: (folder / "a.i8.json").write_bytes(b"\xff\xfe"),
        lambda folder: rewrite_meta(folder, format=99),
        lambda folder: rewrite_meta(folder, is_rotated=None),
        lambda folder: rewrite_meta(folder, arrays=["codes", "blocks"]),
        lambda folder: rewrite_meta(folder, arrays=["codes", "blocks", "bounds", "more"]),
        lambda folder: rewrite_meta(folder, arrays=5),
    ],
    ids=["missing", "empty", "a list", "no key", "no text", "format", "no rotation", "fewer", "more", "no list"],
)
def test_a_damaged_description_is_refused_in_one_sentence(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    Codes.encode(normal(50, 20)).save(tmp_path / "a.i8")
    damage(tmp_path)
    assert_refused(tmp_path)


@pytest.mark.parametrize("name", ["codes", "blocks", "bounds", "mean"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(b"\x80" + path.read_bytes()[1:]),
        lambda path: np.save(path, np.array([None])),
    ],
    ids=["missing", "empty", "cut short", "cut in its head", "no array", "objects"],
)
def test_a_damaged_array_is_refused_in_one_sentence(name: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    coded("mean", normal(50, 20), np.random.default_rng(0)).save(tmp_path / "a.i8")
    damage(tmp_path / f"a.i8.{name}.npy")
    assert_refused(tmp_path)


def assert_refused(folder: Path) -> None:
    with pytest.raises(XmrError, match=r"a\.i8\.json: no codes of its segment can be read from it \(.+\)$") as error:
        Codes.open(folder / "a.i8", normal(50, 20))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", [0, 100, 199])
def test_codes_of_other_rows_are_refused(row: int, codes: Codes, tmp_path: Path) -> None:
    codes.save(tmp_path / "a.i8")
    rows = normal(200, 20)
    rows[row] = -rows[row]
    with pytest.raises(XmrError, match=f"rows {row // 16 * 16} and following have other codes"):
        Codes.open(tmp_path / "a.i8", rows)


# codes and rows that do not belong together


@pytest.mark.parametrize(
    ("rows", "dim", "said"),
    [
        (100, 20, f"the codes have {4 * 16 * 20 + 1024} bytes, the rows ask for {7 * 16 * 20 + 1024}"),
        (50, 24, f"the codes have {4 * 16 * 20 + 1024} bytes, the rows ask for {4 * 16 * 24 + 1024}"),
        (0, 20, f"the codes have {4 * 16 * 20 + 1024} bytes, the rows ask for 1024"),
        (80, 16, "the codes have 16 numbers of their blocks, the rows ask for 20"),
    ],
)
def test_a_gallery_refuses_codes_of_another_size_by_both(rows: int, dim: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Gallery([normal(rows, dim)], [Codes.encode(normal(50, 20))])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": np.zeros((3, 4), np.float32)}, "the codes have 12 numbers of their blocks, the rows ask for 16"),
        ({"bounds": np.zeros((50, 2), np.float32)}, "the codes have 100 norms of their rows, the rows ask for 128"),
        ({"mean": np.zeros(19)}, "the codes have 19 dimensions of their mean, the rows ask for 20"),
    ],
)
def test_a_gallery_refuses_arrays_of_another_size_by_both(change: dict[str, Any], said: str) -> None:
    rows = normal(50, 20)
    with pytest.raises(ValueError, match=said):
        Gallery([rows], [replace(Codes.encode(rows), **change)])


@pytest.mark.parametrize("name", ["codes", "blocks", "bounds", "mean"])
def test_a_gallery_refuses_arrays_of_other_numbers(name: str) -> None:
    rows = normal(50, 20)
    codes = coded("mean", rows, np.random.default_rng(0))
    changed = replace(codes, **{name: getattr(codes, name).astype(np.float16)})
    with pytest.raises(ValueError, match="float16"):
        Gallery([rows], [changed])


def test_a_gallery_has_codes_for_every_segment() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Gallery([normal(5, 4), normal(5, 4)], [None])
