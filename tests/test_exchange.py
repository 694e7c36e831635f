"""Rows of an index written for other programs, read by these, and taken back in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentences import DIM, model

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange import read_blocks
from xmr.engine.exchange.columns import MAX_KEYS
from xmr.engine.exchange.export import Exported, Form, export
from xmr.engine.exchange.rows import EXACT_WITHIN, Block, Entry
from xmr.engine.index import Index

NAMES = {"npy": "out", "parquet": "out.parquet", "faiss": "out", "fvecs": "out", "hdf5": "out.hdf5"}
NEEDS = {"npy": "pyarrow", "parquet": "pyarrow", "hdf5": "h5py"}
FORMATS = list(NAMES)
SAID = ("Zeile {}, „ü“", '["no", "list", {}]', "{}")
Vectors = NDArray[np.float32]


def needs(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package)


def vectors(n_rows: int, dim: int = DIM, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def entries() -> dict[str, list[Entry]]:
    """Of three modalities, with metadata of every kind, under every sort of name."""
    about: dict[str, Any] = {"title": "a", "list": [1, {"a": None}], "path": "elsewhere", "ok": True, "split": "train"}
    odd = [about | {"cls": 1, "width": 1.5}, about | {"cls": "x", "width": 2, "big": 2**60}, {}]
    images = [Entry(f"/c/{row}.jpg", "image", metadata=odd[row % 3], id=row + 1) for row in range(30)]
    sounds = [Entry("/c/a.wav", "sound", row / 2, row / 2 + 1, id=100 + row) for row in range(12)]
    texts = [Entry("/c/t.txt", "text", line=row, text=SAID[row % 3].format(row), id=200 + row) for row in range(1, 21)]
    return {"image": images, "sound": sounds, "text": texts}


def blocks() -> Iterator[Block]:
    """By modality, a few rows at once, as an index gives them."""
    for seed, of_modality in enumerate(entries().values()):
        rows = vectors(len(of_modality), seed=seed)
        for start in range(0, len(rows), 8):
            yield Block(rows[start : start + 8], of_modality[start : start + 8])


def of(items: Iterator[Block]) -> dict[tuple[object, ...], tuple[Any, Vectors]]:
    """Metadata and vector of each item, by what and where it is."""
    found = {}
    for block in items:
        for entry, vector in zip(block.entries, block.vectors, strict=True):
            key = (entry.path, entry.modality, entry.start_s, entry.end_s, entry.line, entry.text)
            found[key] = (dict(entry.metadata), vector)
    return found


def check_same(found: Iterator[Block], within: float = 0.0) -> None:
    got, expected = of(found), of(blocks())
    assert got.keys() == expected.keys()
    for key, (metadata, vector) in got.items():
        assert metadata == expected[key][0]
        np.testing.assert_allclose(vector, expected[key][1], atol=within, rtol=0)
        assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=EXACT_WITHIN)


def written(folder: Path, form: str, **options: Any) -> Path:
    needs(*([NEEDS[form]] if form in NEEDS else []))
    export(blocks, folder / NAMES[form], Form(form, **options))
    return folder / NAMES[form]


def files_of(out: Path) -> dict[str, bytes]:
    paths = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_comes_back_the_same(form: str, tmp_path: Path) -> None:
    check_same(read_blocks(written(tmp_path, form), dim=DIM))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[form]]


def test_float16_comes_back_within_its_rounding_and_of_unit_length(tmp_path: Path) -> None:
    out = written(tmp_path, "npy", dtype="float16", rows_per_file=7)
    assert np.load(out / "image_emb" / "image_emb_0.npy").dtype == np.float16
    check_same(read_blocks(out), within=1e-3)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_rows_give_the_same_bytes(form: str, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert files_of(written(tmp_path, form)) == files_of(written(tmp_path / "again", form))


def test_matrices_are_laid_out_as_clip_retrieval_reads_them(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = written(tmp_path, "npy", rows_per_file=3)  # ten files of images: their numbers have two digits, as sorted
    names = sorted(path.name for path in (out / "image_emb").iterdir())
    assert names == [f"image_emb_{number:02d}.npy" for number in range(10)]
    rows = np.concatenate([np.load(out / "image_emb" / name) for name in names])
    table = [row for path in sorted((out / "metadata").iterdir()) for row in parquet.read_table(path).to_pylist()]
    np.testing.assert_array_equal(rows, vectors(30, seed=0))
    assert [row["image_path"] for row in table] == [f"/c/{row}.jpg" for row in range(30)]
    captions = [
        row for path in sorted((out / "text" / "metadata").iterdir()) for row in parquet.read_table(path)["caption"]
    ]
    assert str(captions[2]) == "Zeile 3, „ü“"


def test_texts_alone_stand_at_the_top_of_their_folder(tmp_path: Path) -> None:
    needs("pyarrow")
    export(lambda: (block for block in blocks() if block.entries[0].modality == "text"), tmp_path / "out", Form("npy"))
    assert list(files_of(tmp_path / "out")) == ["metadata/metadata_0.parquet", "text_emb/text_emb_0.npy"]


def test_embedding_reader_reads_the_matrices_with_their_table(tmp_path: Path) -> None:
    reader = pytest.importorskip("embedding_reader")
    out = written(tmp_path, "npy", rows_per_file=7)
    folders = (str(out / "image_emb"), str(out / "metadata"))
    opened = reader.EmbeddingReader(
        folders[0], metadata_folder=folders[1], file_format="parquet_npy", meta_columns=["image_path"]
    )
    [(rows, table)] = opened(batch_size=100, show_progress=False)
    np.testing.assert_array_equal(rows, vectors(30, seed=0))
    assert list(table["image_path"]) == [f"/c/{row}.jpg" for row in range(30)]


def test_pairs_that_clip_retrieval_wrote_come_in_as_images_and_texts(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, seed in (("img_emb", 0), ("text_emb", 1)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}_0.npy", vectors(2, seed=seed).astype(np.float16))
    (tmp_path / "metadata").mkdir()
    table = tmp_path / "metadata" / "metadata_0.parquet"
    parquet.write_table(pyarrow.table({"image_path": ["/c/0.jpg", "/c/1.jpg"], "caption": ["a", "b"]}), table)
    found = [entry for block in read_blocks(tmp_path) for entry in block.entries]
    assert [(entry.path, entry.modality, entry.line) for entry in found] == [
        ("/c/0.jpg", "image", None),
        ("/c/1.jpg", "image", None),
        (str(table), "text", 1),
        (str(table), "text", 2),
    ]
    assert [entry.text for entry in found[2:]] == ["a", "b"]


def test_faiss_finds_the_same_items_by_our_ids(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    out = written(tmp_path, "faiss")
    opened = faiss.read_index(str(out / "vectors.index"))
    rows = np.concatenate([block.vectors for block in blocks()])
    ids = np.array([entry.id for block in blocks() for entry in block.entries])
    _, found = opened.search(rows[:5], 10)
    np.testing.assert_array_equal(found, ids[np.argsort(-(rows[:5] @ rows.T), axis=1)[:, :10]])
    faiss.write_index(opened, str(tmp_path / "again.index"))
    assert (tmp_path / "again.index").read_bytes() == (out / "vectors.index").read_bytes()


@pytest.mark.parametrize("kind", ["IndexFlatIP", "IndexFlatL2"])
def test_flat_indexes_that_faiss_wrote_come_in(kind: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    flat = getattr(faiss, kind)(DIM)
    flat.add(vectors(3))
    faiss.write_index(flat, str(tmp_path / "flat.faiss"))
    [block] = read_blocks(tmp_path / "flat.faiss", modality="image")
    np.testing.assert_array_equal(block.vectors, vectors(3))
    assert [(entry.path, entry.line) for entry in block.entries] == [
        (str(tmp_path / "flat.faiss"), row) for row in (1, 2, 3)
    ]


def test_other_kinds_of_faiss_index_are_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    faiss.write_index(faiss.IndexHNSWFlat(DIM, 8), str(tmp_path / "graph.index"))
    with pytest.raises(XmrError, match=r"graph.index: a faiss index of the kind IHNf found, an IndexFlat expected"):
        list(read_blocks(tmp_path / "graph.index", modality="image"))


def test_fvecs_are_rows_of_a_dim_and_so_many_numbers_with_their_ids_beside(tmp_path: Path) -> None:
    out = written(tmp_path, "fvecs")
    raw = np.fromfile(out / "vectors.fvecs", dtype="<i4").reshape(-1, DIM + 1)
    assert set(raw[:, 0].tolist()) == {DIM}
    rows = np.ascontiguousarray(raw[:, 1:]).view("<f4")
    np.testing.assert_array_equal(rows, np.concatenate([block.vectors for block in blocks()]))
    assert np.load(out / "ids.npy").tolist() == [entry.id for block in blocks() for entry in block.entries]


@pytest.mark.parametrize("of_a_file", [False, True])
def test_the_neighbors_for_ann_benchmarks_are_those_of_a_brute_force(of_a_file: bool, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    np.save(tmp_path / "asked.npy", vectors(4, seed=9))
    chosen = {"queries": tmp_path / "asked.npy"} if of_a_file else {"n_queries": 5}
    with h5py.File(written(tmp_path, "hdf5", **chosen)) as file:
        train, test = file["train"][:].astype(np.float64), file["test"][:].astype(np.float64)
        cosines = test @ train.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :100]
        np.testing.assert_array_equal(file["neighbors"][:], nearest)
        np.testing.assert_allclose(file["distances"][:], 1 - np.take_along_axis(cosines, nearest, axis=1), atol=1e-6)
        assert (len(train), len(test)) == ((62, 4) if of_a_file else (57, 5))
        facts = {"type": "dense", "distance": "angular", "dimension": DIM, "point_type": "float"}
        assert dict(file.attrs) == facts


def test_so_many_keys_that_no_table_has_columns_for_them_come_back(tmp_path: Path) -> None:
    needs("pyarrow")
    said = [{f"key{row}-{number}": number for number in range(300)} for row in range(3)]
    assert sum(map(len, said)) > MAX_KEYS
    items = [Entry(f"/c/{row}.jpg", "image", metadata=said[row]) for row in range(3)]
    export(lambda: iter([Block(vectors(3), items)]), tmp_path / "out.parquet", Form("parquet"))
    [block] = read_blocks(tmp_path / "out.parquet")
    assert [dict(entry.metadata) for entry in block.entries] == said


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_replaced_unless_asked_for(form: str, tmp_path: Path) -> None:
    before = files_of(written(tmp_path, form))
    with pytest.raises(XmrError, match="exists already; replace it with --overwrite"):
        written(tmp_path, form)
    assert files_of(tmp_path / NAMES[form]) == before
    fewer = lambda: (block for block in blocks() if block.entries[0].modality == "text")  # noqa: E731
    export(fewer, tmp_path / NAMES[form], Form(form), overwrite=True)
    assert len(of(read_blocks(tmp_path / NAMES[form]))) == 20
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[form]]


def test_a_folder_with_other_files_is_spared(tmp_path: Path) -> None:
    out = written(tmp_path, "fvecs")
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(XmrError, match=r"out: holds other files \(thesis.tex\), which --overwrite spares"):
        export(blocks, out, Form("fvecs"), overwrite=True)
    assert (out / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("form", FORMATS)
def test_what_fails_leaves_nothing_and_spares_what_was_there(form: str, tmp_path: Path) -> None:
    before = files_of(written(tmp_path, form))
    n_passes = 0

    def failing() -> Iterator[Block]:
        nonlocal n_passes
        n_passes += 1
        for number, block in enumerate(blocks()):
            if n_passes == 2 and number == 3:
                raise KeyboardInterrupt
            yield block

    with pytest.raises(KeyboardInterrupt):
        export(failing, tmp_path / NAMES[form], Form(form), overwrite=True)
    assert files_of(tmp_path / NAMES[form]) == before
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[form]]


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_told_and_nothing_is_left(form: str, tmp_path: Path) -> None:
    needs(*([NEEDS[form]] if form in NEEDS else []))
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_exchange import Form, blocks, export; from xmr.engine.errors import XmrError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try: export(blocks, Path(sys.argv[2]), Form(sys.argv[3]))\n"
        "except (OSError, XmrError) as error: print('told', error)\n"
    )
    arguments = [str(Path(__file__).parent), str(tmp_path / NAMES[form]), form]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("told"), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("change", [-1, 1])
def test_an_index_that_changes_meanwhile_is_told(form: str, change: int, tmp_path: Path) -> None:
    needs(*([NEEDS[form]] if form in NEEDS else []))
    passes = [list(blocks()), list(blocks())[:-1]][::change]
    with pytest.raises(XmrError, match="the index changed while it was written out"):
        export(lambda: iter(passes.pop(0)), tmp_path / NAMES[form], Form(form))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("later", [{"b": 1}, {"a": "text"}])
def test_metadata_that_changes_meanwhile_is_told(form: str, later: dict[str, object], tmp_path: Path) -> None:
    needs("pyarrow")
    passes = [[Block(vectors(1), [Entry("/c/0.jpg", "image", metadata=said)])] for said in ({"a": 1}, later)]
    with pytest.raises(XmrError, match="the index changed while it was written out"):
        export(lambda: iter(passes.pop(0)), tmp_path / NAMES[form], Form(form))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "name", "said"),
    [
        (Form("csv"), "out", "--format csv is unknown; one of npy, parquet, faiss, fvecs, hdf5"),
        (Form("npy", dtype="int8"), "out", "--dtype int8 is unknown; one of float32, float16"),
        (Form("fvecs", dtype="float16"), "out", "--dtype belongs to --format npy, not to fvecs; leave it out"),
        (Form("npy", n_queries=5), "out", "--n-queries belongs to --format hdf5, not to npy; leave it out"),
        (Form("parquet"), "out.csv", "this format is one file; name it so, as out.parquet"),
    ],
)
def test_an_option_that_nothing_answers_to_is_refused(form: Form, name: str, said: str, tmp_path: Path) -> None:
    needs("pyarrow")
    with pytest.raises(UsageError, match=said):
        export(blocks, tmp_path / name, form)


def test_an_empty_index_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match="there is nothing to export; index something, or change --to and --where"):
        export(lambda: iter(()), tmp_path / "out", Form("fvecs"))
    assert not list(tmp_path.iterdir())


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def _claiming(path: Path, at: int, number: int, n_bytes: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + n_bytes] = number.to_bytes(n_bytes, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("form", "name", "spoil", "said"),
    [
        ("fvecs", "vectors.fvecs", _cut, "whole rows of 24 numbers"),
        ("fvecs", "vectors.fvecs", lambda path: _claiming(path, 0, 2**31 - 1, 4), "claims 2147483647 numbers"),
        ("fvecs", "vectors.fvecs", lambda path: _claiming(path, 100, 23, 4), "row 2: 23 numbers found, 24 expected"),
        ("fvecs", "vectors.fvecs", lambda path: path.write_bytes(b""), "no .fvecs file"),
        ("faiss", "vectors.index", _cut, "no faiss index, or one cut short"),
        ("faiss", "vectors.index", lambda path: path.write_bytes(b"IxM2"), "no faiss index, or one cut short"),
        ("faiss", "vectors.index", lambda path: _claiming(path, 8, 2**40, 8), "no faiss index, or one cut short"),
        ("faiss", "vectors.index", lambda path: _claiming(path, 4, 2**30, 4), "1073741824 numbers found"),
        ("faiss", "items.jsonl", lambda path: path.write_text("{}\n"), "1 lines found for the 62 rows"),
        ("npy", "image_emb/image_emb_0.npy", _cut, "no .npy file of numbers"),
        ("npy", "image_emb/image_emb_0.npy", lambda path: np.save(path, np.array([{}])), "no .npy file of numbers"),
        ("npy", "image_emb/image_emb_0.npy", lambda path: np.save(path, vectors(30, 8)), "24 expected"),
        ("parquet", "", _cut, "no parquet table"),
        ("hdf5", "", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "no HDF5 file"),
    ],
)
def test_rubbish_is_refused_with_its_name(
    form: str, name: str, spoil: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    out = written(tmp_path, form)
    spoil(out / name)
    with pytest.raises(XmrError, match=said):
        list(read_blocks(out, dim=DIM))


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_bytes_are_read_or_refused_and_never_crash(form: str, tmp_path: Path) -> None:
    out, damage = written(tmp_path, form), np.random.default_rng(5)
    paths = sorted(path for path in [out, *out.rglob("*")] if path.is_file())
    for _ in range(60):
        path = paths[damage.integers(len(paths))]
        whole = path.read_bytes()
        spoilt = bytearray(whole[: damage.integers(1, len(whole) + 1)] if damage.random() < 0.3 else whole)
        spoilt[damage.integers(min(len(spoilt), damage.choice([200, len(spoilt)])))] = damage.integers(256)
        path.write_bytes(spoilt)
        with suppress(XmrError):
            assert all(np.isfinite(block.vectors).all() for block in read_blocks(out, dim=DIM))
        path.write_bytes(whole)


@pytest.mark.parametrize("trick", ["claims", "external", "soft link", "shape", "ints", "no train"])
def test_hdf5_that_claims_or_reaches_too_far_is_refused(trick: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bomb.hdf5", "w") as file:
        if trick == "claims":
            file.create_dataset("train", (2**31, 4096), dtype="f4", chunks=(1024, 4096), compression="gzip")
        elif trick == "external":
            file.create_dataset("train", (2, DIM), dtype="f4", external=[("/etc/passwd", 0, 2 * DIM * 4)])
        elif trick == "soft link":
            file["train"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/train")
        elif trick == "shape":
            file["train"] = np.zeros(3, dtype=np.float32)
        elif trick == "ints":
            file["train"] = np.zeros((3, DIM), dtype=np.int32)
    with pytest.raises(XmrError, match="train"):
        list(read_blocks(tmp_path / "bomb.hdf5", modality="image"))


def test_rows_of_no_known_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.bin").write_bytes(b"x")
    for path, said in (
        ("rows.bin", "rows of no known form"),
        ("", "no rows found in this folder"),
        ("x", "no such file"),
    ):
        with pytest.raises(XmrError, match=said):
            read_blocks(tmp_path / path)


@pytest.mark.parametrize("form", FORMATS)
def test_an_index_goes_out_and_into_another_one(form: str, tmp_path: Path) -> None:
    needs(*([NEEDS[form]] if form in NEEDS else []))
    with closing(Index.create(tmp_path / "index", model())) as index:
        index.append(blocks())
        done = export(lambda: index.items(), tmp_path / NAMES[form], Form(form))
    assert isinstance(done, Exported)
    assert done.n_items == {"image": 30, "sound": 12, "text": 20}
    with closing(Index.create(tmp_path / "other", model())) as other:
        other.append(read_blocks(tmp_path / NAMES[form], dim=DIM))
        check_same(other.items())


def test_the_command_writes_what_a_condition_holds_of(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from xmr.engine.cli import app

    with closing(Index.create(tmp_path / "index", model())) as index:
        index.append(blocks())
    options = ["--format", "fvecs", "--to", "image,text,image", "--where", "line > 15 OR split = 'train'", "--json"]
    done = CliRunner().invoke(
        app, ["export-index", str(tmp_path / "out"), *options, "--index", str(tmp_path / "index")]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n_items"] == {"image": 20, "text": 5}
    again = CliRunner().invoke(
        app, ["export-index", str(tmp_path / "out"), *options, "--index", str(tmp_path / "index")]
    )
    assert (again.exit_code, "exists already" in again.output) == (1, True)
