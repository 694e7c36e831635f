"""`xmr embed`: a corpus as one matrix of unit rows and the list of what they are."""

import json
import multiprocessing
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import must_run, run_xmr

from xmr.engine import extract as module
from xmr.engine.corpus import Scan, scan
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.extract import Rows, extract
from xmr.engine.media import Reading, decode
from xmr.engine.model import Model

MEDIA = ("image", "audio", "text")
FIELDS = ["path", "modality", "start_s", "end_s", "line", "text", "metadata"]


@pytest.fixture
def model(exported: Path) -> Model:
    return Model.open(exported, "cpu")


@pytest.fixture
def corpus(finished_world: Path, tmp_path: Path) -> Path:
    """Two images, two sounds, one of which is three windows long, and a text of three lines, one of them empty."""
    import soundfile

    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("images/bell-1.jpg", "images/dog-1.jpg", "sounds/rain-1.wav"):
        shutil.copy(finished_world / "corpus" / name, folder)
    samples, rate_hz = soundfile.read(folder / "rain-1.wav", dtype="float32")
    soundfile.write(folder / "long.wav", np.tile(samples, 3), rate_hz)
    (folder / "notes.txt").write_text("a red bell\n\na small dog\n")
    return folder


def items_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def found(corpus: Path, media: tuple[str, ...] = MEDIA) -> Scan:
    return scan([corpus], media)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_row_is_what_the_model_makes_of_its_item_alone(model: Model, corpus: Path, tmp_path: Path) -> None:
    extract(model, found(corpus), tmp_path / "f.npy")
    rows, items = np.load(tmp_path / "f.npy", allow_pickle=False), items_of(tmp_path / "f.jsonl")
    assert (rows.dtype, rows.shape, rows.flags.c_contiguous) == (np.float32, (len(items), model.dim), True)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    for row, item in zip(rows, items, strict=True):
        task = decode.Task(Path(item["path"]), item["modality"])
        loaded = decode.decode(task, model.preprocessing[item["modality"]], Reading())
        [piece] = [of for of in loaded.pieces if (of.start_s, of.line) == (item["start_s"], item["line"])]
        np.testing.assert_allclose(row, model.embed_arrays(item["modality"], [piece.array])[0], atol=1e-5)


def test_the_list_says_of_each_row_what_it_is(model: Model, corpus: Path, tmp_path: Path) -> None:
    extract(model, found(corpus), tmp_path / "f.npy")
    items = items_of(tmp_path / "f.jsonl")
    assert all(list(item) == FIELDS for item in items)
    of_file: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        of_file.setdefault(Path(item["path"]).name, []).append(item)
    assert list(of_file) == ["bell-1.jpg", "dog-1.jpg", "long.wav", "notes.txt", "rain-1.wav"]
    assert of_file["bell-1.jpg"] == [
        dict.fromkeys(FIELDS) | {"path": str(corpus / "bell-1.jpg"), "modality": "image", "metadata": {}},
    ]
    assert [(item["line"], item["text"]) for item in of_file["notes.txt"]] == [(1, "a red bell"), (3, "a small dog")]
    windows = [(item["start_s"], item["end_s"]) for item in of_file["long.wav"]]
    assert len(windows) >= 3
    assert windows[0][0] == 0
    assert windows == sorted(windows)
    assert {item["modality"] for item in of_file["long.wav"]} == {"sound"}


@pytest.mark.parametrize("modality", ["image", "sound", "text"])
def test_one_modality_runs_no_other_network(modality: str, model: Model, corpus: Path, tmp_path: Path) -> None:
    summary = extract(model, found(corpus), tmp_path / "f.npy", modality=modality)
    assert set(summary.n_items) == {modality}
    assert set(model._networks) == {modality}
    assert summary.fingerprint == model.fingerprint


def test_files_of_media_that_are_not_asked_for_count_as_ignored(model: Model, corpus: Path, tmp_path: Path) -> None:
    (corpus / "table.csv").write_text("1, 2")
    done: list[tuple[int, int]] = []
    summary = extract(
        model, found(corpus), tmp_path / "f.npy", modality="image", progress=lambda *counts: done.append(counts)
    )
    assert (summary.n_files, summary.n_ignored, summary.skipped) == (2, 4, [])
    assert done == [(1, 2), (2, 2)]


def test_parquet_holds_the_same_list(model: Model, corpus: Path, tmp_path: Path) -> None:
    if find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed, which a list in parquet needs")
    from pyarrow import parquet

    extract(model, found(corpus), tmp_path / "a.npy")
    extract(model, found(corpus), tmp_path / "b.npy", list_format="parquet")
    rows = parquet.read_table(tmp_path / "b.parquet").to_pylist()
    assert [row | {"metadata": json.loads(row["metadata"])} for row in rows] == items_of(tmp_path / "a.jsonl")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_a_parquet_list_is_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed, which a list in parquet needs")
    from pyarrow import parquet

    monkeypatch.setattr(module, "ITEMS_AT_ONCE", 4)
    facts = {"modality": "image", "metadata": {}}
    entries = [dict.fromkeys(FIELDS) | {"path": f"{number}.jpg"} | facts for number in range(10)]
    with (tmp_path / "list").open("wb") as file:
        made = module.Parquet(file)
        for start in range(0, 10, 3):
            made.add(entries[start : start + 3])
        made.close()
    assert parquet.ParquetFile(tmp_path / "list").num_row_groups == 2
    written = parquet.read_table(tmp_path / "list").to_pylist()
    assert written == [entry | {"metadata": "{}"} for entry in entries]


@pytest.mark.parametrize("sizes", [[], [1], [3, 0, 8], [7] * 200])
def test_rows_that_come_in_parts_are_read_as_one_matrix(sizes: list[int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((size, 5)).astype(np.float32) for size in sizes]
    with (tmp_path / "rows.npy").open("wb") as file:
        rows = Rows(file, 5)
        for part in parts:
            rows.add(part)
        rows.close()
    read = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(read, np.concatenate([np.zeros((0, 5), np.float32), *parts]))


def test_a_bad_file_is_skipped_with_its_reason(model: Model, corpus: Path, tmp_path: Path) -> None:
    (corpus / "bad.jpg").write_bytes(b"no picture")
    said: list[str] = []
    summary = extract(model, found(corpus), tmp_path / "f.npy", note=said.append)
    assert said == [f"skipped: {summary.skipped[0]}"]
    assert "bad.jpg: no image that Pillow can read" in said[0]
    assert summary.n_files == 5
    assert len(np.load(tmp_path / "f.npy")) == sum(summary.n_items.values()) == len(items_of(tmp_path / "f.jsonl"))


def test_nothing_is_written_where_nothing_can_be_embedded(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(XmrError, match="none of the 1 files found could be embedded"):
        extract(model, found(tmp_path), tmp_path / "f.npy")
    assert listing(tmp_path) == ["bad.jpg"]


@pytest.mark.parametrize("exception", [OSError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_what_was_there(
    exception: type[BaseException], model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise exception

    extract(model, found(corpus), tmp_path / "f.npy", modality="text")
    before = {name: (tmp_path / name).read_bytes() for name in ("f.npy", "f.jsonl")}
    monkeypatch.setattr(Rows, "close", stop)
    for out in ("f.npy", "new.npy"):
        with pytest.raises(exception):
            extract(model, found(corpus), tmp_path / out, overwrite=True)
    assert listing(tmp_path) == ["corpus", "f.jsonl", "f.npy"]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def threads_of_a_run() -> set[threading.Thread]:
    """All but those that an open network keeps for its next batch."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("stream")}


def test_nothing_runs_on_when_the_rows_cannot_be_written(
    model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    before = threads_of_a_run()
    monkeypatch.setattr(Rows, "add", fail)
    for number in range(60):
        shutil.copy(corpus / "bell-1.jpg", corpus / f"{number}.jpg")
    with pytest.raises(OSError, match="the disk is full") as caught:
        extract(model, found(corpus), tmp_path / "f.npy", workers=1, batch_size=1)
    assert multiprocessing.active_children() == []
    assert threads_of_a_run() == before
    assert caught.tb is not None  # which still holds what ran


def test_a_long_text_comes_in_parts_and_counts_once(model: Model, tmp_path: Path) -> None:
    lines = [f"a {word}" for word in ("bell", "dog") for _ in range(4500)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "long.txt").write_text("\n".join(lines))
    done: list[tuple[int, int]] = []
    summary = extract(model, found(tmp_path / "corpus"), tmp_path / "f.npy", progress=lambda *n: done.append(n))
    items = items_of(tmp_path / "f.jsonl")
    assert [item["text"] for item in items] == lines
    assert np.load(tmp_path / "f.npy").shape == (9000, model.dim)
    assert (summary.n_files, summary.n_items, done[-1]) == (1, {"text": 9000}, (1, 1))


def test_a_long_text_that_cannot_be_read_to_its_end_is_skipped_with_the_items_before_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crashing(decode.Decoding):
        def __next__(self) -> decode.Decoded:
            decoded = super().__next__()
            return decode.Decoded(decoded.task, None, "its decoder crashed") if decoded.is_last else decoded

    monkeypatch.setattr("xmr.engine.embed.pipeline.Decoding", Crashing)
    (tmp_path / "long.txt").write_text("a red bell\n" * 9000)
    summary = extract(model, found(tmp_path), tmp_path / "f.npy", note=lambda sentence: None)
    assert (summary.n_files, summary.skipped) == (0, ["its decoder crashed"])
    n_kept = len(items_of(tmp_path / "f.jsonl"))
    assert 0 < n_kept < 9000
    assert (np.load(tmp_path / "f.npy").shape, summary.n_items) == ((n_kept, model.dim), {"text": n_kept})


def test_rows_are_never_beside_a_list_that_is_not_theirs(
    model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(model, found(corpus), tmp_path / "f.npy")
    before = items_of(tmp_path / "f.jsonl")
    names = iter(["f.jsonl"])

    def replace_once(self: Path, target: Path) -> Path:
        assert not (tmp_path / "f.npy").exists()
        if target.name == next(names, None):
            return Path(shutil.move(self, target))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_once)
    with pytest.raises(KeyboardInterrupt):
        extract(model, found(corpus), tmp_path / "f.npy", modality="image", overwrite=True)
    [hidden] = tmp_path.glob(".f.npy.*")
    assert listing(tmp_path) == [hidden.name, "corpus", "f.jsonl"]
    # what was worked for is not lost
    items = items_of(tmp_path / "f.jsonl")
    assert 0 < len(items) < len(before)
    assert np.load(hidden, allow_pickle=False).shape == (len(items), model.dim)


def test_old_rows_and_lists_stay_where_the_new_list_gets_no_name(
    model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError("the disk is gone")

    extract(model, found(corpus), tmp_path / "f.npy")
    (tmp_path / "f.parquet").write_text("the list of an older run")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        extract(model, found(corpus), tmp_path / "f.npy", modality="image", overwrite=True)
    hidden = sorted(path.name for path in tmp_path.glob(".f.*"))
    assert len(hidden) == 2
    assert listing(tmp_path) == [*hidden, "corpus", "f.jsonl", "f.parquet"]


def test_files_that_are_there_are_replaced_on_request_only(model: Model, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_text("the list of an older run")
    with pytest.raises(XmrError, match=r"f\.parquet: exists already; replace it with --overwrite"):
        extract(model, found(corpus), tmp_path / "f.npy")
    extract(model, found(corpus), tmp_path / "f.npy", overwrite=True)
    assert listing(tmp_path) == ["corpus", "f.jsonl", "f.npy"]
    with pytest.raises(XmrError, match=r"f\.npy: exists already"):
        extract(model, found(corpus), tmp_path / "f.npy")


def test_what_cannot_be_written_is_refused_before_any_work(
    model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = found(corpus)
    (tmp_path / "f.jsonl").mkdir()
    for out, error, says in (
        ("f.bin", UsageError, r"become an \.npy file"),
        ("f.npy", XmrError, "a folder has the name"),
        ("nowhere/f.npy", XmrError, "no such folder; make it"),
    ):
        with pytest.raises(error, match=says):
            extract(model, files, tmp_path / out)
    with pytest.raises(UsageError, match="--list csv is unknown; one of jsonl, parquet"):
        extract(model, files, tmp_path / "g.npy", list_format="csv")
    with pytest.raises(UsageError, match="--modality smell is unknown"):
        extract(model, files, tmp_path / "g.npy", modality="smell")
    with pytest.raises(XmrError, match="has no encoder for speech"):
        extract(model, files, tmp_path / "g.npy", modality="speech")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(XmrError, match="pyarrow is not installed"):
        extract(model, files, tmp_path / "g.npy", list_format="parquet")
    assert not model._networks
    assert listing(tmp_path) == ["corpus", "f.jsonl"]


def test_the_command_writes_rows_and_list_and_tells_of_both(finished_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    [told] = map(json.loads, must_run("embed", "corpus", "--out", out, "--json", cwd=finished_world).splitlines())
    assert told["n_items"] == {"image": 12, "sound": 12, "text": 8}
    assert np.load(out).shape == (32, told["dim"])
    assert len(items_of(Path(told["items"]))) == 32
    assert "Example: xmr embed" in must_run("embed", "--help", cwd=finished_world)
    refused = run_xmr("embed", "corpus", "--out", out, cwd=finished_world)
    assert (refused.returncode, "exists already" in refused.stderr) == (1, True)


def test_the_command_exits_3_where_files_were_skipped(finished_world: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    (tmp_path / "notes.txt").write_text("a red bell\n")
    done = run_xmr("embed", tmp_path, "--out", tmp_path / "f.npy", cwd=finished_world)
    assert done.returncode == 3
    assert "skipped:" in done.stderr
    assert "1 text" in done.stdout
    strict = run_xmr("embed", tmp_path, "--out", tmp_path / "f.npy", "--overwrite", "--strict", cwd=finished_world)
    assert strict.returncode == 1


def test_the_command_says_what_is_wrong_in_a_sentence(finished_world: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "f.npy")
    for arguments, code, says in (
        (("nowhere", *out), 1, "no such file or folder"),
        (("corpus", "--out", tmp_path / "f.txt"), 2, "become an .npy file"),
        (("corpus", *out, "--list", "csv"), 2, "--list csv is unknown"),
        (("corpus", *out, "--modality", "smell"), 2, "--modality smell is unknown"),
        (("corpus", *out, "--modality", "speech"), 1, "no encoder for speech"),
        (("corpus/notes.txt", *out, "--modality", "image"), 1, "nothing to embed, found 1 .txt"),
        (("corpus",), 2, "Missing option '--out'"),
    ):
        done = run_xmr("embed", *arguments, cwd=finished_world)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert says in " ".join(done.stderr.split()), done.stderr
    assert listing(tmp_path) == []
