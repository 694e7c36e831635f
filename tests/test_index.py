"""The index on disk: what it holds after an add, what it finds, and that no interruption or fault damages it."""

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import must_run
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.codes import Codes
from xmr.engine.corpus import scan
from xmr.engine.errors import XmrError
from xmr.engine.index import AddSummary, Index
from xmr.engine.index.segments import SegmentStore
from xmr.engine.index.writer import Begun, Writer
from xmr.engine.media import MODALITIES, Reading
from xmr.engine.model import Model

MEDIA = ("image", "audio", "text")
WORDS = ["a", "the", "red", "bell", "dog", "barks", "rain", "large", "siren"]
Vector = NDArray[np.float32]
Key = tuple[str, str, float | None, str | None]  # modality, file name, start_s, text


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return Model.open(exported)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    """Two pictures, a sound of four overlapping windows and a note of two lines, beside an index of them."""
    folder = tmp_path_factory.mktemp("room")
    (folder / "corpus").mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        write_image(folder / "corpus" / name, seed)
    write_sound(folder / "corpus" / "c.wav", 5.0)
    (folder / "corpus" / "d.txt").write_text("a red bell\n\nthe dog barks in the rain\n")
    shutil.copytree(folder / "corpus", folder / "pristine")
    with closing(Index.create(folder / "index", model)) as index:
        add(index, model, folder / "corpus")
    return folder


@pytest.fixture
def corpus(room: Path) -> Path:
    """The files of the room as they were, for a test to change; the index knows their place and times."""
    shutil.rmtree(room / "corpus")
    return Path(shutil.copytree(room / "pristine", room / "corpus"))


@pytest.fixture
def index(tmp_path: Path, model: Model) -> Iterator[Index]:
    """An empty index."""
    with closing(Index.create(tmp_path / "empty", model)) as opened:
        yield opened


@pytest.fixture
def filled(room: Path, tmp_path: Path) -> Iterator[Index]:
    """An index of the corpus."""
    with closing(Index.open(shutil.copytree(room / "index", tmp_path / "filled"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Index:
    """An index of several segments a modality, some of whose files have been changed or removed since."""
    folder = tmp_path_factory.mktemp("grown")
    grown = Index.create(folder / "index", model)
    (folder / "corpus").mkdir()
    for step in range(3):
        for seed in range(5 * step, 5 * step + 5):
            write_image(folder / "corpus" / f"{seed}.png", seed)
        write_sound(folder / "corpus" / f"{step}.wav", 5.0, seed=step)
        (folder / "corpus" / f"{step}.txt").write_text("a red bell\nthe dog barks\nrain\na large siren\n")
        if step == 2:
            write_image(folder / "corpus" / "1.png", 99)
            (folder / "corpus" / "0.wav").unlink()
        add(grown, model, folder / "corpus", prune=True)
    return grown


def write_image(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def write_sound(path: Path, duration_s: float, seed: int = 0) -> None:
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * 22050)), 22050)


def add(index: Index, model: Model, corpus: Path, **options: Any) -> AddSummary:
    return index.add(scan([corpus], MEDIA), model, workers=1, **options)


def contents(folder: Path) -> dict[Key, Vector]:
    """Every item that can be found, with its vector, read by hand from the catalog and the segments."""
    with closing(sqlite3.connect(folder / "catalog.db")) as catalog:
        items = catalog.execute(
            "SELECT items.id, modality, path, start_s, text FROM items JOIN files ON files.id = items.file"
        ).fetchall()
        names = catalog.execute("SELECT name FROM segment_files WHERE name LIKE '%.ids.npy'").fetchall()
    vectors = {}
    for (name,) in names:
        rows = np.load(folder / "segments" / name.replace("ids", "f32"))
        vectors |= dict(zip(np.load(folder / "segments" / name).tolist(), rows, strict=True))
    found = {(modality, Path(path).name, *place): vectors[item] for item, modality, path, *place in items}
    assert len(found) == len(items), "an item is there twice"
    return found


def assert_same(found: dict[Key, Vector], expected: dict[Key, Vector]) -> None:
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5, err_msg=str(key))


def embedded(model: Model, corpus: Path) -> dict[Key, Vector]:
    """What an index of these files has to hold, embedded file by file."""
    found = {}
    for file in scan([corpus], MEDIA).files:
        [modality] = [name for name in model.modalities if MODALITIES[name].medium == file.medium]
        for piece in MODALITIES[modality].load(file.content, model.preprocessing[modality], Reading()).pieces:
            [vector] = model.embed_arrays(modality, [piece.array])
            found[modality, file.path.name, piece.start_s, piece.text] = vector
    return found


# what is held


def test_every_piece_of_every_file_is_held_with_its_vector(index: Index, model: Model, corpus: Path) -> None:
    summary = add(index, model, corpus)
    assert (summary.n_embedded, summary.n_items, summary.skipped) == (4, 8, [])
    assert len(index) == 8
    assert index.counts() == {"image": 2, "sound": 4, "text": 2}
    assert_same(contents(index.folder), embedded(model, corpus))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_size_changes_nothing(batch_size: int, index: Index, model: Model, corpus: Path) -> None:
    add(index, model, corpus, batch_size=batch_size)
    assert_same(contents(index.folder), embedded(model, corpus))


def test_a_second_run_embeds_nothing(filled: Index, model: Model, corpus: Path) -> None:
    before = {path: path.read_bytes() for path in (filled.folder / "segments").iterdir()}
    summary = add(filled, model, corpus)
    assert (summary.n_embedded, summary.n_items, summary.n_unchanged, summary.n_removed) == (0, 0, 4, 0)
    assert {path: path.read_bytes() for path in (filled.folder / "segments").iterdir()} == before


def test_changed_added_and_vanished_files_are_noticed(filled: Index, model: Model, corpus: Path) -> None:
    write_image(corpus / "a.png", seed=50)
    write_image(corpus / "new.png", seed=51)
    (corpus / "c.wav").unlink()
    (corpus / "d.txt").write_text("a siren\nthe dog barks in the rain\na bell\n")
    summary = add(filled, model, corpus, prune=True)
    assert (summary.n_embedded, summary.n_unchanged, summary.n_removed) == (3, 1, 1)
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_a_file_that_was_only_touched_is_not_embedded_again(filled: Index, model: Model, corpus: Path) -> None:
    os.utime(corpus / "a.png", (1, 1))
    for _ in range(2):
        summary = add(filled, model, corpus)
        assert (summary.n_embedded, summary.n_unchanged) == (0, 4)


def test_a_change_that_keeps_the_size_is_noticed(filled: Index, model: Model, corpus: Path) -> None:
    (corpus / "d.txt").write_text("a red dogs\n\nthe dog barks in the rain\n")
    os.utime(corpus / "d.txt", (1, 1))
    assert add(filled, model, corpus).n_embedded == 1
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_only_files_under_the_scanned_path_can_vanish(index: Index, model: Model, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_image(other / "z.png", seed=8)
    add(index, model, corpus)
    (corpus / "a.png").unlink()
    assert add(index, model, other, prune=True).n_removed == 0
    assert index.counts()["image"] == 3


def test_a_vanished_file_is_noted_and_found_until_it_is_pruned(filled: Index, model: Model, corpus: Path) -> None:
    (corpus / "a.png").unlink()
    for _ in range(2):
        assert add(filled, model, corpus).n_missing == 1
        assert (filled.n_missing(), filled.counts()["image"]) == (1, 2)
    write_image(corpus / "a.png", seed=0)
    assert add(filled, model, corpus).n_missing == filled.n_missing() == 0
    (corpus / "a.png").unlink()
    assert add(filled, model, corpus, prune=True).n_removed == 1
    assert (filled.n_missing(), filled.counts()["image"]) == (0, 1)


def test_a_renamed_file_keeps_its_embeddings(
    filled: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {hit.id for hit in filled.search(np.eye(1, filled.dim, dtype=np.float32), 10)}
    (corpus / "c.wav").rename(corpus / "bell.wav")
    (corpus / "further").mkdir()
    (corpus / "a.png").rename(corpus / "further" / "a.png")
    monkeypatch.setattr(Model, "embed_arrays", None)
    summary = add(filled, model, corpus)
    assert (summary.n_renamed, summary.n_embedded, summary.n_missing, summary.n_removed) == (2, 0, 0, 0)
    hits = filled.search(np.eye(1, filled.dim, dtype=np.float32), 10)
    assert {hit.id for hit in hits} == before
    assert {Path(hit.path).name for hit in hits} == {"a.png", "b.png", "bell.wav", "d.txt"}


def test_a_file_that_takes_the_name_of_another_keeps_its_embeddings(filled: Index, model: Model, corpus: Path) -> None:
    (corpus / "b.png").rename(corpus / "c.png")
    (corpus / "a.png").rename(corpus / "b.png")
    summary = add(filled, model, corpus)
    assert (summary.n_renamed, summary.n_embedded) == (1, 1)  # what was under b.png is forgotten, so c.png is new
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_a_copy_is_no_rename(filled: Index, model: Model, corpus: Path) -> None:
    shutil.copy(corpus / "a.png", corpus / "copy.png")
    summary = add(filled, model, corpus)
    assert (summary.n_renamed, summary.n_embedded) == (0, 1)
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_what_is_said_of_a_file_changes_without_embedding_it(
    filled: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "metadata.csv").write_text("file_name,camera\na.png,X100\n")
    monkeypatch.setattr(Model, "embed_arrays", None)
    assert add(filled, model, corpus).n_unchanged == 4
    told = {Path(hit.path).name: hit.metadata for hit in filled.search(np.eye(1, filled.dim, dtype=np.float32), 9)}
    assert told["a.png"] == {"camera": "X100"}
    assert told["b.png"] == {}


def test_a_bad_file_is_listed_and_the_others_embedded(index: Index, model: Model, corpus: Path) -> None:
    (corpus / "bad.png").write_bytes(b"no picture")
    (corpus / "bad.txt").write_text("qwertz\n")
    summary = add(index, model, corpus)
    assert (summary.n_embedded, len(summary.skipped)) == (4, 2)
    assert {Path(path).name: reason.split(": ")[1] for path, reason in index.skipped().items()} == {
        "bad.png": "no image that Pillow can read; convert it to JPEG or PNG",
        "bad.txt": "nothing in it that the model can embed; remove it or put something in",
    }
    (corpus / "bad.png").unlink()
    assert_same(contents(index.folder), embedded(model, corpus))


def test_an_embedding_without_direction_costs_its_item_only(
    index: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed_arrays(self: Model, modality: str, arrays: list[Any]) -> Any:
        rows = embed(self, modality, arrays)
        return rows * (np.arange(len(rows)) > 0)[:, None] if modality == "image" else rows

    embed = Model.embed_arrays
    monkeypatch.setattr(Model, "embed_arrays", embed_arrays)
    summary = add(index, model, corpus)
    assert (len(summary.skipped), len(summary.notes)) == (1, 1)
    assert "no usable embedding" in summary.notes[0]
    assert index.counts()["image"] == 1


def test_a_file_that_turned_bad_is_no_longer_found_and_one_that_was_mended_is(
    filled: Index, model: Model, corpus: Path
) -> None:
    (corpus / "a.png").write_bytes(b"no picture")
    assert len(add(filled, model, corpus).skipped) == 1
    assert filled.counts()["image"] == 1
    write_image(corpus / "a.png", seed=0)
    assert add(filled, model, corpus).skipped == []
    assert filled.skipped() == {}
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_a_bad_file_that_is_gone_is_no_longer_listed(index: Index, model: Model, corpus: Path) -> None:
    (corpus / "bad.png").write_bytes(b"no picture")
    add(index, model, corpus)
    (corpus / "bad.png").unlink()
    add(index, model, corpus)
    assert index.skipped() == {}


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: write_image(path, seed=77)])
def test_a_file_that_changes_while_it_is_embedded_costs_itself_only(
    change: Any, index: Index, model: Model, corpus: Path
) -> None:
    def meddle(done: int, total: int) -> None:
        if done == 1:
            change(corpus / "a.png")
            change(corpus / "b.png")

    summary = add(index, model, corpus, batch_size=1, progress=meddle)
    assert summary.n_embedded + len(summary.skipped) == 4
    assert index.counts()["sound"] == 4
    add(index, model, corpus, prune=True)
    assert_same(contents(index.folder), embedded(model, corpus))


def test_what_was_added_is_there_when_the_index_is_opened_again(filled: Index, model: Model, corpus: Path) -> None:
    with closing(Index.open(filled.folder)) as opened:
        assert (len(opened), opened.dim, opened.meta["fingerprint"]) == (8, model.dim, model.fingerprint)


LONG = 9000  # lines of a text that comes in parts


def write_long_text(path: Path, n_lines: int = LONG) -> None:
    path.write_text("".join(f"a {WORDS[number % len(WORDS)]}\n" for number in range(n_lines)))


def visible(folder: Path) -> int:
    """Items that another process finds."""
    with closing(sqlite3.connect(folder / "catalog.db")) as catalog:
        return int(catalog.execute("SELECT count(*) FROM items").fetchone()[0])


def test_a_long_file_is_written_in_several_segments_and_found_at_once(
    index: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def write_segment(self: SegmentStore, *arguments: Any) -> Any:
        seen.append(visible(index.folder))
        return write(self, *arguments)

    write = SegmentStore.write
    write_long_text(corpus / "c.txt")
    monkeypatch.setattr(SegmentStore, "write", write_segment)
    assert add(index, model, corpus).n_items == 8 + LONG
    # the pictures come first, then the text in its parts, then what follows it
    assert seen == [0, *[2] * (len(seen) - 3), 2 + LONG, 2 + LONG]
    assert len(seen) >= 5
    with closing(sqlite3.connect(index.folder / "catalog.db")) as catalog:
        rows = catalog.execute(
            "SELECT line FROM items JOIN files ON files.id = file WHERE path LIKE '%/c.txt' ORDER BY items.id"
        ).fetchall()
    assert [line for (line,) in rows] == list(range(1, LONG + 1))
    assert add(index, model, corpus).n_unchanged == 5


def test_a_long_file_that_fails_in_the_end_leaves_nothing(
    index: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_long_text(corpus / "c.txt", n_lines=3)
    add(index, model, corpus)
    write_long_text(corpus / "c.txt")
    with monkeypatch.context() as patch:
        patch.setattr("xmr.engine.index.writer._has_changed", lambda file: file.path.name == "c.txt")
        summary = add(index, model, corpus)
    assert summary.skipped == [f"{corpus}/c.txt: changed while it was embedded; run the same command again"]
    assert (summary.n_embedded, summary.n_items) == (0, 0)
    assert {name for _, name, *_ in contents(index.folder)} == {"a.png", "b.png", "c.wav", "d.txt"}
    assert add(index, model, corpus).n_items == LONG
    assert index.counts()["text"] == 2 + LONG


def test_an_interruption_within_a_long_file_keeps_the_others(
    index: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Writer, files: Sequence[Any], begun: dict[Path, Begun]) -> None:
        append(self, files, begun)
        if files and files[0].part == 1:
            raise KeyboardInterrupt

    append = Writer._append
    write_long_text(corpus / "c.txt")
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_append", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add(index, model, corpus)
    assert {name for _, name, *_ in contents(index.folder)} == {"a.png", "b.png"}
    assert add(index, model, corpus).n_items == 6 + LONG
    assert visible(index.folder) == 8 + LONG


def test_the_same_files_give_the_same_segments_with_one_worker_or_two(
    model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.index.COMMIT_ITEMS", 3)
    for seed in range(7):
        write_image(corpus / f"{seed}.png", seed)
    files = []
    for workers in (1, 2):
        with closing(Index.create(tmp_path / str(workers), model)) as index:
            index.add(scan([corpus], MEDIA), model, workers=workers)
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(workers) / "segments").iterdir()})
    assert files[0] == files[1]
    assert sum(name.endswith(".f32.npy") for name in files[0]) > 3


# what is found


def expected_hits(index: Index, query: Vector, to: tuple[str, ...], k: int, min_score: float) -> dict[Key, float]:
    scores = {key: float(vector @ query) for key, vector in contents(index.folder).items() if key[0] in to}
    best = sorted(scores, key=lambda key: -scores[key])[:k]
    return {key: scores[key] for key in best if scores[key] >= min_score}


@pytest.mark.parametrize("to", [("image",), ("sound", "text"), ("image", "sound", "text")])
@pytest.mark.parametrize("k", [1, 4, 1000])
@pytest.mark.parametrize("min_score", [-1, 0.1])
def test_search_is_a_brute_force_over_every_segment(
    to: tuple[str, ...], k: int, min_score: float, grown: Index
) -> None:
    queries = np.random.default_rng(0).standard_normal((3, grown.dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    hits = grown.search(queries, k, to=to, min_score=min_score)
    for number, query in enumerate(queries):
        found = [hit for hit in hits if hit.query == number]
        expected = expected_hits(grown, query, to, k, min_score)
        assert [hit.rank for hit in found] == list(range(1, len(expected) + 1))
        np.testing.assert_allclose([hit.score for hit in found], list(expected.values()), atol=1e-6)
        assert {(hit.modality, Path(hit.path).name, hit.start_s, hit.text) for hit in found} == expected.keys()


def test_items_enough_to_be_left_out_by_their_codes_are_a_brute_force_too(
    index: Index, model: Model, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        lines = [" ".join(rng.choice(WORDS, 6)) for _ in range(150)]
        (tmp_path / "corpus" / f"{number}.txt").write_text("\n".join(lines))
        add(index, model, tmp_path / "corpus")
    queries = rng.standard_normal((40, index.dim)).astype(np.float32)
    vectors = np.concatenate([np.load(path) for path in sorted((index.folder / "segments").glob("*.f32.npy"))])
    hits = index.search(queries, 5)
    best = -np.sort(-(queries.astype(np.float64) @ vectors.T), axis=1)[:, :5]
    assert len(vectors) == 450
    np.testing.assert_allclose(np.reshape([hit.score for hit in hits], (40, 5)), best, atol=1e-6)


def test_every_modality_is_searched_unless_some_are_named(grown: Index) -> None:
    query = np.eye(1, grown.dim, dtype=np.float32)
    assert grown.search(query, 1000) == grown.search(query, 1000, to=("image", "sound", "text"))
    assert len(grown.search(query, 1000)) == len(grown)
    assert {hit.modality for hit in grown.search(query, 1000, to="sound")} == {"sound"}


def test_equal_scores_come_in_the_order_of_indexing(grown: Index, model: Model) -> None:
    hits = grown.search(model.embed("text", ["a red bell"]), 3, to="text")  # the same line stands in three files
    assert [Path(hit.path).name for hit in hits] == ["0.txt", "1.txt", "2.txt"]
    assert [(hit.line, hit.text) for hit in hits] == [(1, "a red bell")] * 3
    assert len({hit.score for hit in hits}) == 1
    assert [hit.id for hit in hits] == sorted(hit.id for hit in hits)


def test_a_hit_tells_the_seconds_of_its_window(grown: Index) -> None:
    hits = grown.search(np.eye(1, grown.dim, dtype=np.float32), 10, to="sound")
    times = sorted((Path(hit.path).name, hit.start_s, hit.end_s) for hit in hits)
    assert times == [(name, start, start + 2) for name in ("1.wav", "2.wav") for start in (0, 1, 2, 3)]


def test_what_was_removed_or_replaced_is_never_found(filled: Index, model: Model, corpus: Path) -> None:
    old, gone = model.embed("image", [corpus / "a.png", corpus / "b.png"])
    write_image(corpus / "a.png", seed=60)
    (corpus / "b.png").unlink()
    add(filled, model, corpus, prune=True)
    hits = filled.search(np.stack([old, gone]), 1000)
    assert len(hits) == 2 * 7
    assert "b.png" not in {Path(hit.path).name for hit in hits}
    assert all(hit.score < 0.9999 for hit in hits if hit.query == 0 and hit.modality == "image")


def test_a_file_finds_itself_first(grown: Index, model: Model) -> None:
    paths = sorted({hit.path for hit in grown.search(np.eye(1, grown.dim, dtype=np.float32), 1000, to="image")})
    hits = grown.search(model.embed("image", paths), 1, to="image")
    assert [hit.path for hit in hits] == paths
    assert [hit.query for hit in hits] == list(range(len(paths)))


def test_one_query_needs_no_second_axis(grown: Index) -> None:
    query = np.eye(1, grown.dim, dtype=np.float32)
    assert grown.search(query[0], 3) == grown.search(query, 3)


def test_an_empty_index_finds_nothing(index: Index) -> None:
    assert index.search(np.eye(1, index.dim, dtype=np.float32), 10) == []
    assert (len(index), index.counts()) == (0, {})


# what is refused


def test_a_modality_that_is_not_there_is_refused(grown: Index) -> None:
    with pytest.raises(XmrError, match="no speech in this index, it holds image, sound, text"):
        grown.search(np.eye(1, grown.dim, dtype=np.float32), 1, to="speech")


def test_a_query_of_another_dim_is_refused(grown: Index) -> None:
    with pytest.raises(ValueError, match=f"queries have {grown.dim + 1} columns, the gallery has {grown.dim}"):
        grown.search(np.zeros((1, grown.dim + 1), dtype=np.float32), 1)


def test_another_model_is_refused_by_both_names(index: Index, exported: Path, corpus: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"squash"', '"crop"'))
    other = Model.open(folder)
    own, others = index.meta["fingerprint"], other.fingerprint
    with pytest.raises(XmrError, match=rf"made with model \S+ \({own}\), the model at \S+ is \S+ \({others}\)"):
        add(index, other, corpus)
    assert len(index) == 0


def test_a_second_writer_is_refused_until_the_first_is_done(index: Index, model: Model, corpus: Path) -> None:
    with (index.folder / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(XmrError, match="another process is writing to this index"):
            add(index, model, corpus)
        assert index.search(np.eye(1, index.dim, dtype=np.float32), 1) == []
    assert add(index, model, corpus).n_embedded == 4


def test_what_is_no_index_is_refused(index: Index, model: Model, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match="no index there; make one with `xmr index PATH`"):
        Index.open(tmp_path)
    with pytest.raises(XmrError, match="an index is there already"):
        Index.create(index.folder, model)


def test_an_index_is_not_made_among_other_files(model: Model, corpus: Path) -> None:
    with pytest.raises(XmrError, match=r"corpus: holds other files \(a\.png\), and no index; choose another folder"):
        Index.create(corpus, model)
    assert sorted(path.name for path in corpus.iterdir()) == ["a.png", "b.png", "c.wav", "d.txt"]


def test_an_index_whose_making_was_cut_off_is_made_again(model: Model, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "index" / "segments").mkdir(parents=True)
    (tmp_path / "index" / ".catalog.db.123").write_bytes(b"half")
    with closing(Index.create(tmp_path / "index", model)) as index:
        assert add(index, model, corpus).n_embedded == 4
    assert {path.name for path in (tmp_path / "index").iterdir()} == {
        "catalog.db",
        "catalog.seal",
        "segments",
        "writer.lock",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no catalog of an index; choose another folder"),
        (b"no catalog at all" * 1000, "again into another folder"),
    ],
)
def test_a_damaged_catalog_is_refused(content: bytes, said: str, index: Index) -> None:
    index.close()
    (index.folder / "catalog.db").write_bytes(content)
    with pytest.raises(XmrError, match=said):
        Index.open(index.folder)


def test_another_format_is_refused(index: Index) -> None:
    with closing(sqlite3.connect(index.folder / "catalog.db")) as catalog, catalog:
        catalog.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(XmrError, match="index format 99 found, this version reads 3"):
        Index.open(index.folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\x80" + path.read_bytes()[1:]),
        lambda path: np.save(path, np.load(path)[:-1]),
        lambda path: np.save(path, np.load(path).astype(np.float64)),
    ],
    ids=["missing", "empty", "cut short", "no array", "other rows", "other numbers"],
)
def test_a_damaged_segment_is_named(damage: Any, filled: Index, model: Model, corpus: Path) -> None:
    [damaged, *_] = sorted((filled.folder / "segments").iterdir())
    damage(damaged)
    with pytest.raises(XmrError, match=f"{damaged.name}: (a segment of the index cannot be read|missing)"):
        filled.search(np.eye(1, filled.dim, dtype=np.float32), 1)


def codes_of_segments(index: Index) -> list[str]:
    """Their file names without what `Codes` adds."""
    return sorted(path.name.removesuffix(".json") for path in (index.folder / "segments").glob("*.i8.json"))


def test_every_segment_has_codes_of_its_rows(filled: Index) -> None:
    segments = filled.folder / "segments"
    assert len(codes_of_segments(filled)) == 3
    for name in codes_of_segments(filled):
        rows = segments / name.replace(".i8", ".f32.npy")
        assert len(Codes.open(segments / name, np.load(rows)).blocks) == -(-len(np.load(rows)) // 16)


def test_codes_of_another_segment_are_refused(filled: Index) -> None:
    first, *_, last = codes_of_segments(filled)
    for part in ("json", "codes.npy", "blocks.npy", "bounds.npy"):
        shutil.copy(filled.folder / "segments" / f"{last}.{part}", filled.folder / "segments" / f"{first}.{part}")
    with pytest.raises(XmrError, match=f"{first}.json: no codes of its segment can be read from it"):
        filled.search(np.eye(1, filled.dim, dtype=np.float32), 1)


@pytest.mark.parametrize("part", ["codes", "blocks", "bounds"])
def test_codes_of_another_size_are_refused(part: str, filled: Index) -> None:
    path = filled.folder / "segments" / f"{codes_of_segments(filled)[0]}.{part}.npy"
    array = np.load(path)
    np.save(path, np.concatenate([array, array]))
    with pytest.raises(XmrError, match=r"no codes of its segment can be read from it \(.*\d+.*\d+\)"):
        filled.search(np.eye(1, filled.dim, dtype=np.float32), 1)


@pytest.mark.parametrize("part", ["json", "codes.npy", "blocks.npy", "bounds.npy"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
    ],
    ids=["missing", "empty", "cut short"],
)
def test_damaged_codes_are_named(damage: Any, part: str, filled: Index) -> None:
    name = codes_of_segments(filled)[0]
    damage(filled.folder / "segments" / f"{name}.{part}")
    with pytest.raises(XmrError, match=rf"{name}\.json: no codes .*; `xmr index` with any path makes them anew$"):
        filled.search(np.eye(1, filled.dim, dtype=np.float32), 1)


def test_damaged_codes_are_made_anew_when_files_are_added(filled: Index, model: Model, corpus: Path) -> None:
    query = np.eye(1, filled.dim, dtype=np.float32)
    expected = filled.search(query, 5)
    before = {path: path.read_bytes() for path in (filled.folder / "segments").iterdir()}
    name, other, *_ = codes_of_segments(filled)
    (filled.folder / "segments" / f"{name}.codes.npy").unlink()
    (filled.folder / "segments" / f"{other}.json").write_text("{}")
    filled.add(scan([corpus], MEDIA), model)
    assert {path: path.read_bytes() for path in (filled.folder / "segments").iterdir()} == before
    with closing(Index.open(filled.folder)) as opened:
        assert opened.search(query, 5) == expected


# faults and interruptions


class Failing(sqlite3.Connection):
    """A connection on which a statement that begins so fails, as it does where the disk is full."""

    statement = "none"

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(self._checked(sql), *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().executemany(self._checked(sql), *parameters)

    def _checked(self, sql: str) -> str:
        if sql.startswith(self.statement):
            raise sqlite3.OperationalError("database or disk is full")
        return sql


def fail_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Let the given call of a function, counted from 1, fail with a full disk."""
    real, calls = getattr(owner, name), iter(range(1, 1000))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


def test_a_segment_that_cannot_be_written_leaves_the_index_as_it_was(
    filled: Index, model: Model, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(filled.folder)
    write_image(corpus / "a.png", seed=70)
    (corpus / "d.txt").write_text("a siren\n")
    calls = [(np, "save"), (os, "fsync"), (os, "replace")]
    for owner, name, number in [(*call, number) for call in calls for number in (1, 2)]:
        with monkeypatch.context() as patch:
            fail_call(patch, owner, name, number)
            with pytest.raises(OSError, match="No space left"):
                add(filled, model, corpus)
        assert_same(contents(filled.folder), before)
    add(filled, model, corpus)
    assert_same(contents(filled.folder), embedded(model, corpus))


def test_a_transaction_that_fails_leaves_the_index_as_it_was(
    room: Path, model: Model, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Failing))
    shutil.copytree(room / "index", tmp_path / "index")
    with closing(Index.open(tmp_path / "index")) as index:
        before = contents(index.folder)
        write_image(corpus / "a.png", seed=70)
        for statement in ("BEGIN IMMEDIATE", "DELETE FROM items", "INSERT INTO items", "COMMIT"):
            with monkeypatch.context() as patch:
                patch.setattr(Failing, "statement", statement)
                with pytest.raises(XmrError, match=r"could not be written .*disk is full"):
                    add(index, model, corpus)
            assert_same(contents(index.folder), before)
            assert len(index.search(np.eye(1, index.dim, dtype=np.float32), 100)) == 8
        add(index, model, corpus)
        assert_same(contents(index.folder), embedded(model, corpus))


def test_files_that_a_dead_writer_left_are_dropped(filled: Index, model: Model, corpus: Path) -> None:
    kept = sorted((filled.folder / "segments").iterdir())
    for name in ("000099.f32.npy", ".000100.f32.npy.123"):
        (filled.folder / "segments" / name).write_bytes(b"half")
    add(filled, model, corpus)
    assert sorted((filled.folder / "segments").iterdir()) == kept


@pytest.mark.parametrize("n_done", [1, 3, 4])
def test_an_interruption_keeps_what_was_done(n_done: int, index: Index, model: Model, corpus: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == n_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add(index, model, corpus, batch_size=1, progress=interrupt)
    assert len({name for _, name, _, _ in contents(index.folder)}) == n_done
    assert add(index, model, corpus).n_unchanged == n_done
    assert_same(contents(index.folder), embedded(model, corpus))


# `xmr index` with a commit every other item instead of every few thousand
COMMIT_OFTEN = """
import faulthandler, sys
from xmr.engine import index
from xmr.engine.cli import app
faulthandler.enable()
index.COMMIT_ITEMS = 2
if __name__ == "__main__":
    app(["index", "corpus", "--index", sys.argv[1], "--workers", "1", "--batch-size", "2"])
"""


def start_indexing(world: Path, folder: Path) -> "subprocess.Popen[str]":
    """In a process group of its own, so that a signal reaches the workers as Ctrl-C does."""
    (world / "commit_often.py").write_text(COMMIT_OFTEN)
    command = [sys.executable, "commit_often.py", str(folder)]
    return subprocess.Popen(command, cwd=world, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_items(process: "subprocess.Popen[str]", folder: Path, n_items: int) -> None:
    """Until the index holds so many items; -1: until its folder is there. A run that ended without them says why."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        has_ended = process.poll() is not None
        if n_items < 0 and folder.exists():
            return
        if n_items >= 0 and (folder / "catalog.db").exists():
            with closing(sqlite3.connect(folder / "catalog.db", timeout=60)) as catalog:
                if catalog.execute("SELECT count(*) FROM items").fetchone()[0] >= n_items:
                    return
        if has_ended:
            raise AssertionError(f"{folder}: {n_items} items never came: {process.communicate()[1]}")
        time.sleep(0.005)
    process.send_signal(signal.SIGABRT)  # faulthandler tells where it is
    raise AssertionError(f"{folder}: {n_items} items did not come in a minute: {process.communicate()[1]}")


@pytest.mark.parametrize("n_items", [-1, 0, 3, 20])
def test_a_killed_run_is_completed_by_the_next(n_items: int, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    process = start_indexing(world, folder)
    wait_for_items(process, folder, n_items)
    time.sleep(float(np.random.default_rng(n_items + 1).uniform(0, 0.05)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    must_run("index", "corpus", "--index", folder, cwd=world)
    assert_same(contents(folder), contents(world / ".xmr" / "index"))


@pytest.mark.parametrize(("n_items", "delay_s"), [(0, 0.5), (4, 0)])
def test_ctrl_c_ends_a_run_in_one_sentence(n_items: int, delay_s: float, world: Path, tmp_path: Path) -> None:
    process = start_indexing(world, tmp_path / "index")
    wait_for_items(process, tmp_path / "index", n_items)
    time.sleep(delay_s)  # with no item yet: while the workers start
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "xmr: interrupted"
    assert "Traceback" not in said
    assert len(contents(tmp_path / "index")) >= n_items
    must_run("index", "corpus", "--index", tmp_path / "index", cwd=world)
    assert_same(contents(tmp_path / "index"), contents(world / ".xmr" / "index"))
