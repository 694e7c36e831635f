"""What keeps an index in shape: rows given from elsewhere, deletion, merging, compaction, verification, conditions."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xmr.engine import codes
from xmr.engine.catalog import Segment
from xmr.engine.errors import XmrError
from xmr.engine.exchange.rows import Block, Entry
from xmr.engine.index import Index
from xmr.engine.index.lock import writer_lock
from xmr.engine.index.writer import FAN_IN, FULL_ROWS, mergeable

DIM = 16
Rows = NDArray[np.float32]


def stand_in(dim: int = DIM, fingerprint: str = "0" * 16, **preprocessing: Any) -> Any:
    """What an index asks of the model that its rows are of."""
    config = {"modalities": {"image": {"preprocessing": preprocessing}}}
    return SimpleNamespace(name="random", fingerprint=fingerprint, dim=dim, config=config, folder=Path("random"))


def unit_rows(n: int, seed: int = 0) -> Rows:
    rows = np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def block(paths: Sequence[str], seed: int = 0, modality: str = "image", **facts: Any) -> Block:
    return Block(unit_rows(len(paths), seed), [Entry(path, modality, **facts) for path in paths])


def names(start: int, stop: int) -> list[str]:
    return [f"/corpus/{number:04d}.jpg" for number in range(start, stop)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with closing(Index.create(tmp_path / "index", stand_in())) as opened:
        yield opened


def held(index: Index) -> dict[int, Rows]:
    """Every item with its vector."""
    return {
        entry.id: vector for block in index.items() for entry, vector in zip(block.entries, block.vectors, strict=True)
    }


def assert_exact(index: Index, where: str | None = None) -> None:
    """The index finds what scoring every row of `held` finds."""
    rows = {entry.id: v for b in index.items(where=where) for entry, v in zip(b.entries, b.vectors, strict=True)}
    queries = unit_rows(5, seed=99)
    hits = index.search(queries, 7, where=where)
    ids, vectors = np.array(list(rows)), np.array(list(rows.values()), dtype=np.float64).reshape(-1, DIM)
    for number, query in enumerate(queries):
        order = np.argsort(-(vectors @ query.astype(np.float64)), kind="stable")[:7]
        assert [hit.id for hit in hits if hit.query == number] == ids[order].tolist()


# rows from elsewhere


def test_rows_that_are_given_are_found_with_what_is_said_of_them(index: Index) -> None:
    given = block(["/a.jpg", "/b.jpg"], text="a dog", start_s=1.5, end_s=2.5, metadata={"year": 2020})
    summary = index.append([given])
    assert (summary.n_items, summary.n_embedded) == (2, 2)
    [hit] = index.search(given.vectors[1], 1)
    assert (hit.path, hit.text, hit.start_s, hit.end_s, hit.metadata) == ("/b.jpg", "a dog", 1.5, 2.5, {"year": 2020})
    assert hit.score == pytest.approx(1)


def test_blocks_may_mix_modalities_and_files_may_span_blocks(index: Index) -> None:
    first = Block(unit_rows(3), [Entry("/v.mp4", "image"), Entry("/v.mp4", "sound"), Entry("/a.txt", "text", line=1)])
    second = Block(unit_rows(2, 1), [Entry("/v.mp4", "image"), Entry("/a.txt", "text", line=2)])
    assert index.append([first, second]).n_embedded == 2
    assert index.counts() == {"image": 2, "sound": 1, "text": 2}
    items = index.items_of("/v.mp4")
    assert len(items) == 3
    assert {file.medium for file in index.files_of(items).values()} == {"video"}  # whatever is seen or heard in it
    [nameless] = [index.append([block(["no-ending"], modality="sound")]) and index.items_of("no-ending")]
    assert index.files_of(nameless)[nameless[0]].medium == "audio"


def test_rows_given_again_take_the_place_of_those_before(index: Index) -> None:
    index.append([block(names(0, 10))])
    index.append([block(names(5, 12), seed=1)])
    assert len(index) == 12
    assert max(held(index)) == 17
    assert_exact(index)


# deletion


def test_deleted_items_are_never_found(index: Index) -> None:
    index.append([block(names(0, 50))])
    assert index.delete(ids=[3, 4], paths=["/corpus/0010.jpg"], where="id BETWEEN 20 AND 29") == 13
    gone = {3, 4, 11, *range(20, 30)}
    assert held(index).keys() == set(range(1, 51)) - gone
    assert not gone & {hit.id for hit in index.search(unit_rows(20, 5), 50)}
    assert_exact(index)


def test_a_folder_is_deleted_with_all_that_is_in_it_and_nothing_beside(index: Index) -> None:
    index.append([block(["/c/a/1.jpg", "/c/a/b/2.jpg", "/c/a_b/3.jpg", "/c/a.jpg", "/c/a%/4.jpg", "/c/A/5.jpg"])])
    assert index.delete(paths=["/c/a/"]) == 2
    assert {found.path for found in index.found(list(held(index))).values()} == {
        "/c/a_b/3.jpg",
        "/c/a.jpg",
        "/c/a%/4.jpg",
        "/c/A/5.jpg",
    }


@pytest.mark.parametrize("named", ["link", "link/0001.jpg", "corpus/../corpus/0001.jpg", "corpus"])
def test_a_path_is_deleted_however_it_is_written(
    named: str, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    Path("link").symlink_to("corpus")
    index.append([block([f"{tmp_path}/corpus/0001.jpg", f"{tmp_path}/corpus.jpg"])])
    assert index.delete(paths=[named]) == 1
    assert index.paths() == [f"{tmp_path}/corpus.jpg"]


def test_a_folder_that_something_else_made_among_the_segments_is_left_alone(index: Index) -> None:
    (index.folder / "segments" / "@thumbnails").mkdir()
    index.append([block(names(0, 5))])
    assert index.verify().notes == []


def test_a_dry_run_deletes_nothing(index: Index) -> None:
    index.append([block(names(0, 5))])
    with writer_lock(index.folder):  # beside a writer, too
        assert index.delete(where="id > 2", dry_run=True) == 3
    assert len(index) == 5


@pytest.mark.parametrize(
    "asked",
    [
        {"ids": [1, 99]},
        {"ids": [10**30]},
        {"paths": ["/corpus/0001.jpg", "/elsewhere"]},
        {"paths": ["/corpus/\udcff.jpg"]},
        {"ids": [1], "where": "nowhere = 1"},
    ],
)
def test_where_one_wish_cannot_be_met_nothing_is_deleted(asked: dict[str, Any], index: Index) -> None:
    index.append([block(names(0, 5))])
    with pytest.raises(XmrError, match=r"no item (99|10{30})|it is in the index|no index holds|no column nowhere"):
        index.delete(**asked)
    assert len(index) == 5


def test_ids_are_never_given_twice(index: Index) -> None:
    index.append([block(names(0, 5))])
    index.delete(ids=[4, 5])
    index.compact()
    index.append([block(names(10, 12))])
    assert sorted(held(index)) == [1, 2, 3, 6, 7]


# merging and compaction


def test_small_segments_are_merged_while_an_index_grows(index: Index) -> None:
    for number in range(3 * FAN_IN):
        index.append([block(names(3 * number, 3 * number + 3), seed=number)])
    assert index.n_segments() < FAN_IN
    assert len(index) == 9 * FAN_IN
    assert_exact(index)
    assert index.verify().faults == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 5000), st.integers(1, FULL_ROWS)), max_size=80))
def test_merging_ends_and_leaves_few_segments_of_bounded_size(sizes: list[int]) -> None:
    segments: list[Segment] = []
    for number, n_rows in enumerate(sizes):
        segments.append(Segment(number, "image", n_rows, number, number))
        while len(run := mergeable(segments)) > 1:
            start = segments.index(run[0])
            assert segments[start : start + len(run)] == run
            merged = Segment(number, "image", sum(one.rows for one in run), run[0].first_item, run[-1].last_item)
            segments[start : start + len(run)] = [merged]
    assert sum(one.rows for one in segments) == sum(sizes)
    assert max((one.rows for one in segments), default=0) <= FULL_ROWS
    n_levels = 5  # 16 ** 4.5 rows are a full one
    assert len(segments) <= n_levels * FAN_IN + 2 * sum(sizes) // (FULL_ROWS // 2)


def test_compaction_drops_deleted_rows_and_keeps_the_rest(index: Index) -> None:
    for number in range(5):
        index.append([block(names(10 * number, 10 * number + 10), seed=number)])
        index.append([block([f"/corpus/{number}.wav"], seed=50 + number, modality="sound")])
    before = held(index)
    index.delete(ids=[1, 2, 30, 55])
    with closing(Index.open(index.folder)) as reader:  # beside a reader that has the old segments open
        assert len(reader.search(unit_rows(1), 100)) == 51
        assert index.compact() == 4
        assert len(reader.search(unit_rows(1), 100)) == 51
    assert index.n_segments() == 2
    after = held(index)
    assert after.keys() == before.keys() - {1, 2, 30, 55}
    assert all(np.array_equal(after[item], before[item]) for item in after)
    assert_exact(index)
    assert index.verify().faults == []
    assert index.compact() == 0


@pytest.mark.parametrize("part", ["i8.codes.npy", "i8.bounds.npy", "i8.json"])
def test_codes_with_a_bit_flipped_are_made_anew_by_compaction(part: str, index: Index) -> None:
    index.append([block(names(0, 100))])
    path = index.folder / "segments" / f"000001.{part}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    assert [fault.path for fault in index.verify().faults] == [str(path)]
    assert index.compact() == 0
    assert index.verify().faults == []
    assert path.read_bytes() == whole


def test_a_segment_that_goes_while_it_is_opened_is_searched_as_it_is_then(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        index.append([block(names(10 * number, 10 * number + 10), seed=number)])
    mapped, is_merged = codes._mapped, []

    def merged_meanwhile(path: Path) -> Any:
        if not is_merged:
            is_merged.append(True)
            index.compact()
        return mapped(path)

    with closing(Index.open(index.folder)) as reader:
        monkeypatch.setattr(codes, "_mapped", merged_meanwhile)
        assert len(reader.search(unit_rows(1), 100)) == 30
    assert is_merged


def test_a_reader_in_the_way_keeps_the_catalog_from_being_sealed_and_nothing_else(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.catalog.SEAL_S", 0.01)
    index.append([block(names(0, 10))])
    with closing(Index.open(index.folder)) as reader, reader.snapshot():
        index.delete(ids=[1])
        index.compact()
        assert (len(reader), len(index)) == (10, 9)
        verified = index.verify()
        assert (verified.faults, len(verified.notes)) == ([], 1)
    index.delete(ids=[2])
    assert index.verify().notes == []


def test_a_modality_of_which_all_was_deleted_is_gone_after_compaction(index: Index) -> None:
    index.append([block(names(0, 5)), block(["/a.wav"], modality="sound")])
    index.delete(paths=["/a.wav"])
    assert index.counts() == {"image": 5}
    index.compact()
    assert index.n_segments() == 1
    with pytest.raises(XmrError, match="no sound in this index, it holds image"):
        index.search(unit_rows(1), 1, to="sound")


def test_what_was_deleted_is_not_left_in_the_files(index: Index) -> None:
    index.append([block([f"/corpus/{'secret' * 20}.jpg", "/corpus/other.jpg"], text="hidden" * 20)])
    index.delete(paths=[f"/corpus/{'secret' * 20}.jpg", "/corpus/other.jpg"])
    index.compact()
    index.close()
    content = b"".join(path.read_bytes() for path in index.folder.rglob("*") if path.is_file())
    assert b"secret" not in content
    assert b"hidden" not in content


# conditions


@pytest.mark.parametrize("where", ["id % 3 = 0", "id > 40", "path LIKE '%7.jpg'", "id < 0", "year = 2001 OR id = 1"])
def test_a_search_under_a_condition_is_exact(where: str, index: Index) -> None:
    index.append([block(names(0, 30)), block(names(30, 60), seed=1, metadata={"year": 2001})])
    index.delete(ids=[9, 33, 47])
    assert_exact(index, where)


# verification


def test_what_was_written_is_verified(index: Index) -> None:
    index.append([block(names(0, 30)), block(["/a.wav"], modality="sound")])
    verified = index.verify()
    assert (verified.n_items, verified.n_segments, verified.faults, verified.notes) == (31, 2, [], [])
    on_disk = sum(path.stat().st_size for path in index.folder.rglob("*") if path.suffix in (".npy", ".json", ".db"))
    assert verified.n_bytes == on_disk


def test_damage_is_named_with_what_to_do(index: Index) -> None:
    index.append([block(names(0, 30))])
    index.close()
    coded, rows = index.folder / "segments" / "000001.i8.codes.npy", index.folder / "segments" / "000001.f32.npy"
    for path in (coded, rows):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with closing(Index.open(index.folder)) as damaged:
        faults = damaged.verify().faults
    assert {(fault.path, fault.found) for fault in faults} == {
        (str(path), "has other bytes than were written") for path in (coded, rows)
    }
    assert {fault.remedy.split(",")[0] for fault in faults} == {
        "run `xmr compact`",
        "restore the index from a backup",
    }


def test_a_row_without_an_item_is_a_fault(index: Index) -> None:
    index.append([block(names(0, 30))])
    with index._catalog.transaction():
        index._catalog.connection.execute("DELETE FROM items WHERE id = 7")
    (index.folder / "catalog.seal").unlink()
    assert [fault.found for fault in index.verify().faults] == ["0 image items without a row, 1 rows without an item"]


def test_an_index_that_was_not_sealed_is_told_and_sealed_by_the_next_writer(index: Index) -> None:
    index.append([block(names(0, 3))])
    (index.folder / "catalog.seal").unlink()
    verified = index.verify()
    assert verified.faults == []
    assert "not sealed" in verified.notes[0]
    index.append([block(names(3, 4))])
    assert index.verify().notes == []


# wrong pairings


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (stand_in(dim=32, fingerprint="1" * 16), "with 32 numbers an embedding instead of 16"),
        (stand_in(fingerprint="1" * 16, size=224), "with another preprocessing of image"),
        (stand_in(fingerprint="1" * 16), "with other weights"),
    ],
)
def test_another_model_is_refused_with_what_is_other(other: Any, said: str, tmp_path: Path) -> None:
    own = stand_in(size=160) if "preprocessing" in said else stand_in()
    with closing(Index.create(tmp_path / "other", own)) as index, pytest.raises(XmrError, match=said):
        index.check_model(other)


# a folder in which nothing can be written


def test_an_index_can_be_searched_where_nothing_can_be_written(index: Index, tmp_path: Path) -> None:
    given = block(names(0, 10))
    index.append([given])
    index.close()
    place = tmp_path / "mounted"
    place.mkdir()
    if os.system(f"mount --bind {index.folder} {place} 2>/dev/null") != 0:
        pytest.skip("no file system can be mounted here")
    try:
        if os.system(f"mount -o remount,ro,bind {place}") != 0:
            pytest.skip("no file system can be made read-only here")
        with closing(Index.open(place)) as opened:
            assert opened.search(given.vectors[3], 1)[0].id == 4
            assert opened.verify().faults == []
            with pytest.raises(OSError, match="Read-only"):
                opened.append([block(names(20, 21))])
    finally:
        os.system(f"umount -l {place}")  # what is mapped may still be open


def test_who_may_not_write_reads_beside_the_writer(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.append([block(names(0, 10))])
    with index._catalog.transaction():
        index._catalog.delete([1])  # is in the log alone
    monkeypatch.setattr("xmr.engine.catalog.connection.os.access", lambda *_: False)
    with closing(Index.open(index.folder)) as reader:
        assert len(reader.search(unit_rows(1), 100)) == 9
        index.delete(ids=[2])
        assert len(reader.search(unit_rows(1), 100)) == 8


def test_a_log_that_was_left_by_a_removed_catalog_is_not_taken_for_that_of_the_next(
    index: Index, tmp_path: Path
) -> None:
    index.append([block(names(0, 10))])
    with index._catalog.transaction():
        index._catalog.delete([1])
    copy = Path(shutil.copytree(index.folder, tmp_path / "copy"))  # as it stands where a writer was killed
    (copy / "catalog.db").unlink()
    with closing(Index.create(copy, stand_in(DIM, "1" * 16))) as anew:
        assert (len(anew), anew.meta["fingerprint"]) == (0, "1" * 16)
        anew.append([block(names(0, 3))])
        assert len(anew) == 3
        assert anew.verify().faults == []


def test_a_reader_without_the_right_to_write_sees_what_others_write(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = block(names(0, 10)), block(names(10, 20), seed=1)
    index.append([first])
    with monkeypatch.context() as patch:
        patch.setattr("xmr.engine.catalog.connection.os.access", lambda *_: False)
        with closing(Index.open(index.folder)) as reader:
            assert len(reader.search(first.vectors[0], 100)) == 10
            index.append([second])
            index.compact()
            assert reader.search(second.vectors[3], 1)[0].path == "/corpus/0013.jpg"
            assert len(reader.search(first.vectors[0], 100)) == 20


def test_the_work_of_an_interrupted_writer_is_found_by_the_next_reader(index: Index, tmp_path: Path) -> None:
    index.append([block(names(0, 10))])
    with index._catalog.transaction():
        index._catalog.delete([1])
    copy = Path(shutil.copytree(index.folder, tmp_path / "copy"))  # as it stands while a writer is at work
    assert (copy / "catalog.db-wal").stat().st_size > 0
    with closing(Index.open(copy)) as opened:
        assert len(opened) == 9
