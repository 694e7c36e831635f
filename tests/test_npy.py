"""Embeddings made elsewhere: matrices and tables come in as blocks of unit rows, and what is wrong is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmr.engine.errors import XmrError
from xmr.engine.exchange import rows as rows_module
from xmr.engine.exchange.npy import read_npy
from xmr.engine.exchange.vector_table import read_parquet


def unit(n_rows: int, dim: int = 8) -> Any:
    rows = np.random.default_rng(0).standard_normal((n_rows, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def saved(folder: Path, rows: Any, *listed: dict[str, object]) -> Path:
    np.save(folder / "rows.npy", rows)
    if listed:
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return folder / "rows.npy"


def test_rows_come_as_they_are_in_blocks_with_their_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 3 * 8 * 4)
    listed = [{"path": f"/m/{n}.jpg", "modality": "image", "n": n} for n in range(7)]
    blocks = list(read_npy(saved(tmp_path, rows := unit(7), *listed), dim=8))
    assert [len(block.entries) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), rows)
    assert [(entry.path, entry.metadata) for block in blocks for entry in block.entries] == [
        (f"/m/{n}.jpg", {"n": n}) for n in range(7)
    ]


def test_entries_have_all_that_a_list_says(tmp_path: Path) -> None:
    said = {"path": "b.mp4", "modality": "sound", "start_s": 1.5, "end_s": 2, "line": None, "text": None, "id": 9}
    text = {"image_path": "/c.csv", "modality": "text", "line": 4, "caption": "x", "metadata": {"a": 1}, "b": 2}
    (block,) = read_npy(saved(tmp_path, unit(2), said, text))
    video, line = block.entries
    assert (video.path, video.start_s, video.end_s) == (str(tmp_path / "b.mp4"), 1.5, 2.0)
    assert (video.metadata, video.id) == ({}, None)
    assert (line.path, line.line, line.text, line.metadata) == ("/c.csv", 4, "x", {"a": 1, "b": 2})


def test_rows_of_which_nothing_is_said_are_lines_of_the_matrix(tmp_path: Path) -> None:
    (block,) = read_npy(saved(tmp_path, unit(2)), modality="image")
    assert [(entry.path, entry.line) for entry in block.entries] == [(str(tmp_path / "rows.npy"), n) for n in (1, 2)]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_all_floats_become_unit_float32(dtype: str, tmp_path: Path) -> None:
    (block,) = read_npy(saved(tmp_path, np.asfortranarray(unit(5)).astype(dtype)), modality="image")
    assert block.vectors.dtype == np.float32
    assert block.vectors.flags.c_contiguous
    np.testing.assert_allclose(block.vectors, unit(5), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(block.vectors.astype(np.float64), axis=1), 1, atol=1e-5)


def test_other_lengths_are_divided_only_when_asked(tmp_path: Path) -> None:
    path = saved(tmp_path, unit(3) * np.array([[1], [2], [1]], dtype=np.float32))
    with pytest.raises(XmrError, match=r"row 2: length 2 found, 1 expected; pass --normalize"):
        list(read_npy(path, modality="image"))
    (block,) = read_npy(path, modality="image", normalize=True)
    np.testing.assert_allclose(block.vectors, unit(3), atol=1e-6)


@pytest.mark.parametrize(
    ("number", "said"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0, "all zeros")]
)
def test_rows_without_direction_are_named(number: float, said: str, tmp_path: Path) -> None:
    rows = unit(3)
    rows[1] = number
    with pytest.raises(XmrError, match=f"row 2: {said}"):
        list(read_npy(saved(tmp_path, rows), modality="image", normalize=True))


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.zeros(4), r"\(4,\) found, \(rows, dim\) expected"),
        (np.zeros((0, 8)), r"\(0, 8\) found"),
        (np.zeros((2, 8), dtype=np.int64), "int64 found, float16"),
        (np.zeros((2, 4)), "rows of 4 numbers found, 8 expected"),
        (np.array([[{}]], dtype=object), "no .npy file of numbers"),
    ],
)
def test_what_is_no_matrix_is_told_before_it_is_read(matrix: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=said):
        next(read_npy(saved(tmp_path, matrix), dim=8, modality="image"))


def test_a_matrix_cut_short_or_claiming_more_than_the_file_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, unit(100))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(XmrError, match=r"no \.npy file of numbers"):
        next(read_npy(path, modality="image"))


@pytest.mark.parametrize("n_listed", [1, 3])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_list_of_another_length_is_refused(n_listed: int, suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, unit(2))
    row = '{"path": "a.jpg"}\n' if suffix == ".jsonl" else "a.jpg,1\n"
    path.with_suffix(suffix).write_text(("" if suffix == ".jsonl" else "path,n\n") + row * n_listed)
    with pytest.raises(XmrError, match="lines found for the 2 rows of"):
        list(read_npy(path, modality="image"))


@pytest.mark.parametrize(
    ("row", "modality", "said"),
    [
        ({"path": "a"}, None, "row 1: what it is of is not said; pass --modality"),
        ({"path": "a", "modality": "smell"}, None, "row 1: modality smell is unknown; one of image"),
        ({"path": "a", "start_s": "x"}, "image", "row 1: start_s 'x' found, a number"),
    ],
)
def test_entries_that_make_no_sense_are_named(row: dict[str, object], modality: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=said):
        list(read_npy(saved(tmp_path, unit(1), row), modality=modality))


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_vectors_of_a_parquet_table_come_with_its_other_columns(kind: str, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    vectors = arrow.array(list(unit(50)), type=arrow.list_(arrow.float32(), 8 if kind == "fixed" else -1))
    columns = {"image_path": [f"/{n}.jpg" for n in range(50)], "vector": vectors, "n": list(range(50))}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet", row_group_size=20)
    blocks = list(read_parquet(tmp_path / "a.parquet", modality="image", dim=8))
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), unit(50))
    entries = [entry for block in blocks for entry in block.entries]
    assert [(entry.path, entry.metadata) for entry in entries] == [(f"/{n}.jpg", {"n": n}) for n in range(50)]


@pytest.mark.parametrize(
    ("columns", "column", "said"),
    [
        ({"vector": [[1.0, 0.0], [1.0]]}, None, "3 numbers in 2 rows of vector"),
        ({"vector": [[1.0, 0.0], None]}, None, "vectors of one length expected"),
        ({"vector": [[1.0, 0.0]]}, "other", "no column other of vectors, found vector"),
        ({"n": [1]}, None, "which column holds the vectors is not clear, found none"),
        ({"vector": [[1.0, 0.0, 0.0]]}, None, "rows of 3 numbers found, 2 expected"),
        ({"vector": [[1.0, None]]}, None, "lacks a number"),
        ({"vector": [[1.0, 0.0], [1.0, 0.0, 0.0], [1.0]]}, None, "row 2: no vector of 2 numbers"),
    ],
)
def test_what_is_no_column_of_vectors_is_told(columns: Any, column: str, said: str, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(XmrError, match=said):
        list(read_parquet(tmp_path / "a.parquet", vector_column=column, modality="image", dim=2))
