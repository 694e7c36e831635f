"""The pipeline: files come out in order, in batches that no timing changes, with bounded queues and no leftovers."""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.corpus import CorpusFile, scan
from xmr.engine.embed import EmbeddedFile, EmbeddingWorker, Stages, embed_files
from xmr.engine.embed.batches import GROUP, PATIENCE, Batches
from xmr.engine.embed.channel import Channel, Stopped
from xmr.engine.embed.division import MAX_CHANGES, Division
from xmr.engine.embed.pipeline import PART_ITEMS
from xmr.engine.errors import UsageError
from xmr.engine.media import Reading, image, text
from xmr.engine.media.decode import PART_BYTES, PIECE_BYTES, Decoded, Decoding, Task
from xmr.engine.model import Model

VOCABULARY = ("a", "red", "bell", "dog", "barks")


@dataclass
class Colours:
    """A model in numpy: a picture is its mean colour, a sentence the sum of its words' ids."""

    device: str = "cpu"
    modalities: tuple[str, ...] = ("image", "text")
    preprocessing: dict[str, Any] = field(
        default_factory=lambda: {"image": image.Preprocessing(size=8), "text": text.Preprocessing(8, VOCABULARY)}
    )
    runs: list[tuple[str, int]] = field(default_factory=list)

    def embed_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.runs.append((modality, len(arrays)))
        rows = [
            [*array.reshape(-1, 3).mean(axis=0)] if modality == "image" else [array.sum(), 1, 0] for array in arrays
        ]
        return (np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Broken(Colours):
    def embed_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        raise RuntimeError("the network is broken")


def write_image(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(1, 256, (12, 12, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def corpus(tmp_path: Path) -> list[CorpusFile]:
    """Forty pictures and ten notes, by turns."""
    rng = np.random.default_rng(0)
    for number in range(50):
        if number % 5:
            write_image(tmp_path / f"{number:02d}.png", number)
            continue
        lines = [" ".join(rng.choice(VOCABULARY, rng.integers(1, 8))) for _ in range(7)]
        (tmp_path / f"{number:02d}.txt").write_text("\n".join(lines))
    return scan([tmp_path], {"image", "text"}).files


def run(files: Sequence[CorpusFile], model: Any = None, **options: Any) -> list[EmbeddedFile]:
    return list(embed_files(model or Colours(), files, **options))


def vectors(results: Sequence[EmbeddedFile]) -> NDArray[np.float32]:
    return np.stack([item.vector for result in results for item in result.items if item.vector is not None])


def test_files_come_out_in_the_order_they_went_in_with_the_vectors_of_their_items(corpus: list[CorpusFile]) -> None:
    model = Colours()
    results = run(corpus, model, workers=1, batch_size=4)
    assert [result.file for result in results] == corpus
    alone = EmbeddingWorker(Colours())  # type: ignore[arg-type]
    for result in results:
        modality = "text" if result.file.path.suffix == ".txt" else "image"
        loaded = alone.load(Task(result.file.path, modality)).loaded
        assert loaded is not None
        assert [item.text for item in result.items] == [piece.text for piece in loaded.pieces]
        np.testing.assert_allclose(
            vectors([result]), alone.embed(modality, [p.array for p in loaded.pieces]), atol=1e-6
        )


def test_items_keep_the_times_of_a_video_and_the_columns_of_a_table(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "a.csv").write_text("caption,height\na red bell,3\n")
    with av.open(str(tmp_path / "b.mkv"), "w") as file:
        track = file.add_stream("mpeg4", rate=2)
        track.width, track.height, track.pix_fmt = 32, 32, "yuv420p"
        for level in (40, 80, 120, 160):
            file.mux(track.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")))
        file.mux(track.encode())
    files = scan([tmp_path], {"text", "video"}).files
    table, video = embed_files(Colours(), files, workers=1, reading=Reading(frame_s=0.5))  # type: ignore[arg-type]
    assert [(item.text, item.metadata) for item in table.items] == [("a red bell", {"height": 3})]
    times = [(item.modality, item.start_s, item.end_s) for item in video.items]
    assert times == [("image", start, start + 0.5) for start in (0.0, 0.5, 1.0, 1.5)]


def test_one_worker_or_two_run_the_same_batches_and_give_the_same_bytes(corpus: list[CorpusFile]) -> None:
    models = [Colours(), Colours()]
    one, two = (run(corpus, model, workers=n, batch_size=4) for n, model in enumerate(models, start=1))
    assert models[0].runs == models[1].runs
    assert vectors(one).tobytes() == vectors(two).tobytes()


def test_the_threads_of_the_network_change_no_byte(
    exported: Path, corpus: list[CorpusFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.runtime.streams.PART_BYTES", 1)
    model = Model.open(exported, "cpu")
    worker = EmbeddingWorker(model)
    pictures = [file for file in corpus if file.medium == "image"][:24]
    arrays = [p.array for file in pictures for p in worker.load(Task(file.path, "image")).loaded.pieces]  # type: ignore[union-attr]
    rows = []
    for threads in (1, 2):
        worker.set_threads(threads)
        assert worker.model.threads == threads
        rows.append(worker.embed("image", arrays).tobytes())
    assert rows[0] == rows[1]
    assert model.threads == 0


def test_a_bad_file_costs_itself_only(corpus: list[CorpusFile]) -> None:
    bad = corpus[7].path
    bad.write_bytes(b"no picture")
    results = run(corpus, batch_size=4)
    assert [result.file.path for result in results if result.error is not None] == [bad]
    assert len(vectors(results)) == 39 + 70


def test_an_error_of_the_network_reaches_who_asked_and_leaves_nothing_running(corpus: list[CorpusFile]) -> None:
    n_threads = threading.active_count()
    with pytest.raises(RuntimeError, match="the network is broken"):
        run(corpus, Broken(), workers=1, batch_size=4)
    assert multiprocessing.active_children() == []
    assert threading.active_count() == n_threads


def test_nothing_is_left_running_when_the_files_are_no_longer_wanted(corpus: list[CorpusFile]) -> None:
    n_threads = threading.active_count()
    results = embed_files(Colours(), corpus, workers=2, batch_size=2)  # type: ignore[arg-type]
    next(results)
    results.close()
    assert multiprocessing.active_children() == []
    assert threading.active_count() == n_threads


def test_who_is_slow_to_take_the_files_stops_the_decoding(
    corpus: list[CorpusFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    met_no_room = threading.Event()

    class Watched(Channel[Any]):
        def put(self, thing: Any, *, size: int = 1) -> None:
            if thing is None or (self._n_held and self._n_held + size > self._room):
                met_no_room.set()
            super().put(thing, size=size)
            assert self._n_held == size or self._n_held <= self._room

    stages = Stages()
    monkeypatch.setattr("xmr.engine.embed.pipeline.Channel", Watched)
    monkeypatch.setattr("xmr.engine.embed.pipeline.ROOM_ITEMS", 2)
    monkeypatch.setattr("xmr.engine.embed.pipeline.ROOM_BYTES", 2)
    results = embed_files(Colours(), corpus, workers=1, batch_size=1, stages=stages)  # type: ignore[arg-type]
    next(results)
    assert met_no_room.wait(timeout=60)
    assert stages.n_decoded < 20
    assert len(list(results)) == 49


def test_a_long_file_comes_out_in_parts_so_that_few_of_its_items_are_held(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog barks\n" * 20_000)
    write_image(tmp_path / "b.png", 0)
    *parts, last, picture = run(scan([tmp_path], {"image", "text"}).files, workers=1)
    assert [part.part for part in [*parts, last]] == list(range(len(parts) + 1))
    assert {(part.file.path.name, part.is_last) for part in parts} == {("a.txt", False)}
    assert (last.is_last, picture.is_last, picture.part) == (True, True, 0)
    assert max(len(part.items) for part in parts) < PART_ITEMS + PART_BYTES // PIECE_BYTES
    assert [item.line for part in [*parts, last] for item in part.items] == list(range(1, 20_001))


def test_a_long_file_that_cannot_be_read_to_its_end_says_so_in_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a dog barks\n" * 10_000)

    class Crashing(Decoding):
        def __next__(self) -> Decoded:
            decoded = super().__next__()
            return Decoded(decoded.task, None, "its decoder crashed") if decoded.is_last else decoded

    monkeypatch.setattr("xmr.engine.embed.pipeline.Decoding", Crashing)
    first, *_, last = run(scan([tmp_path], {"text"}).files, workers=1)
    assert (first.error, len(first.items) > 0, last.error, last.is_last) == (None, True, "its decoder crashed", True)


def test_decoding_that_ends_early_is_an_error_and_no_endless_wait(
    corpus: list[CorpusFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(Decoding):
        def __next__(self) -> Decoded:
            if self._next == 3:
                raise StopIteration
            return super().__next__()

    n_threads = threading.active_count()
    monkeypatch.setattr("xmr.engine.embed.pipeline.Decoding", Short)
    with pytest.raises(RuntimeError, match=r"decoding ended before .*03\.png had come"):
        run(corpus, workers=1)
    assert threading.active_count() == n_threads


def test_more_workers_than_a_machine_can_hold_are_refused(corpus: list[CorpusFile]) -> None:
    with pytest.raises(UsageError, match="--workers 5000: up to 256 processes decode at once; pass fewer, or 0"):
        run(corpus, workers=5000)


@pytest.mark.parametrize("batch_size", [2, 16])  # a batch in one part, or in two
def test_a_run_is_divided_while_it_runs_and_gives_the_same_bytes(
    batch_size: int, exported: Path, corpus: list[CorpusFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    set_threads = EmbeddingWorker.set_threads

    def noted(self: EmbeddingWorker, threads: int) -> None:
        opened.append(threads)
        set_threads(self, threads)

    monkeypatch.setattr("xmr.engine.runtime.streams.PART_BYTES", 1)
    model = Model.open(exported, "cpu")
    undivided = run(corpus, model, workers=1, batch_size=batch_size)
    monkeypatch.setattr(EmbeddingWorker, "set_threads", noted)
    monkeypatch.setattr("xmr.engine.embed.pipeline.cpus", lambda: 2)
    monkeypatch.setattr("xmr.engine.embed.division.MIN_CPU_S", 0.0)
    monkeypatch.setattr("xmr.engine.embed.division.WORTH_S", -1.0)
    monkeypatch.setattr(Division, "_shares", lambda self: (1.5, 0.5))
    stages = Stages()
    divided = run(corpus, model, batch_size=batch_size, stages=stages)
    assert (opened, stages.threads) == ([1], 1)
    assert stages.workers == 2 or batch_size > 2  # all may have been decoded when the first large batch is embedded
    assert vectors(divided).tobytes() == vectors(undivided).tobytes()


def test_no_file_is_an_empty_run() -> None:
    assert run([]) == []


def test_the_stages_add_up(corpus: list[CorpusFile]) -> None:
    stages = Stages()
    run(corpus, workers=1, batch_size=4, stages=stages)
    assert (stages.n_decoded, stages.n_items, stages.workers) == (50, 110, 1)
    assert stages.starved_s + stages.network_s + stages.blocked_s <= stages.total_s
    rows = {row["stage"]: row for row in stages.table()}
    assert rows["network"]["items"] == 110
    assert rows["decode"]["items"] == 50
    assert 0 < stages.n_padding < stages.n_numbers


def arrays_of(*lengths: int) -> list[tuple[int, NDArray[Any]]]:
    """Words of these lengths, each with its number."""
    return [(number, np.zeros(length, dtype=np.int64)) for number, length in enumerate(lengths)]


def test_texts_of_similar_length_run_together() -> None:
    batches: Batches[int] = Batches(2)
    assert list(batches.add("text", arrays_of(9, 1, 8, 2, 1))) == []
    found = list(batches.flush())
    assert [batch.keys for batch in found] == [[1, 4], [3, 2], [0]]
    assert [batch.n_padding for batch in found] == [0, 6, 0]
    assert [batch.n_numbers for batch in found] == [2, 16, 9]


def test_arrays_of_one_length_keep_their_order_and_go_as_soon_as_a_batch_of_large_ones_is_full() -> None:
    pictures = [(number, np.zeros((1000, 1000, 3), dtype=np.uint8)) for number in range(5)]
    batches: Batches[int] = Batches(2)
    assert [batch.keys for batch in batches.add("image", pictures)] == [[0, 1], [2, 3]]
    assert [batch.keys for batch in batches.flush()] == [[4]]


def test_small_arrays_go_when_enough_batches_of_them_wait() -> None:
    batches: Batches[int] = Batches(2)
    found = list(batches.add("text", arrays_of(*[1] * (2 * GROUP + 1))))
    assert [len(batch.keys) for batch in found] == [2] * GROUP


def test_an_item_does_not_wait_for_ever_for_others_of_its_modality() -> None:
    batches: Batches[int] = Batches(2)
    found = list(batches.add("image", arrays_of(1)))
    for number in range(2 * PATIENCE):
        found += batches.add("text", [(number, np.zeros(1, dtype=np.int64))])
    assert [batch.modality for batch in found].count("image") == 1
    assert [batch.modality for batch in found][-1] == "image"


def test_a_channel_keeps_the_order_and_lets_who_is_ahead_wait() -> None:
    channel: Channel[int] = Channel(2)
    putting = threading.Thread(target=lambda: [channel.put(number) for number in range(5)], daemon=True)
    putting.start()
    time.sleep(0.1)
    assert putting.is_alive()
    assert [channel.get() for _ in range(5)] == list(range(5))
    putting.join()
    assert channel.put_waited_s > 0


def test_something_larger_than_the_channel_comes_in_alone() -> None:
    channel: Channel[str] = Channel(2)
    channel.put("large", size=9)
    assert channel.get() == "large"


def test_a_stopped_channel_ends_who_waits_on_it() -> None:
    channel: Channel[int] = Channel(1)
    ended: list[str] = []

    def wait() -> None:
        try:
            channel.get()
        except Stopped:
            ended.append("get")

    waiting = threading.Thread(target=wait)
    waiting.start()
    channel.stop()
    waiting.join()
    assert ended == ["get"]
    with pytest.raises(Stopped):
        channel.put(1)


def division(cpus: int, decode_s: float, network_s: float, **options: Any) -> Division:
    """Of a run in which a hundred items needed so much CPU time in each stage."""
    made = Division(cpus, **options)
    made.decoding.add(decode_s, 100)
    made.network.add(network_s, 100)
    return made


@pytest.mark.parametrize(
    ("cpus", "decode_s", "network_s", "expected"),
    [
        (2, 1.0, 20.0, (1, 2)),  # the network needs nearly both, decoding a little of one
        (2, 1.0, 1.0, (1, 1)),
        (2, 20.0, 1.0, (2, 1)),
        (1, 1.0, 1.0, (1, 1)),
        (16, 3.0, 1.0, (12, 4)),
        (16, 0.0, 2.0, (1, 16)),
        (4, 0.3, 0.3, (2, 4)),  # too little to be believed
    ],
)
def test_the_processors_are_divided_as_the_stages_need_them(
    cpus: int, decode_s: float, network_s: float, expected: tuple[int, int]
) -> None:
    made = division(cpus, decode_s, network_s)
    made.look(1000)
    assert (made.workers, made.threads) == expected


def test_what_was_decoded_ahead_weighs_no_more_than_what_was_embedded() -> None:
    made = division(4, 1.0, 1.0)
    made.decoding.add(3.0, 300)
    made.look(1000)
    assert (made.workers, made.threads) == (2, 2)


def test_a_network_is_not_opened_again_for_little_work_and_workers_stay_as_the_user_wishes() -> None:
    made = division(4, 3.0, 1.0, fixed_workers=5)
    made.look(left_s=1)
    assert (made.workers, made.threads) == (5, 4)
    made.look(left_s=100)
    assert (made.workers, made.threads) == (5, 1)


@pytest.mark.parametrize("cpus", [2, 16, 64])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.51, 0.8])
def test_noise_opens_no_network_again(cpus: int, share: float) -> None:
    rng, made, seen = np.random.default_rng(0), Division(cpus), []
    for _ in range(2000):
        made.decoding.add(share * rng.normal(1, 0.3), 10)
        made.network.add((1 - share) * rng.normal(1, 0.3), 10)
        made.look(1000)
        seen.append(made.threads)
    assert sum(before != after for before, after in pairwise(seen)) <= 1
    assert abs(made.threads - cpus * (1 - share)) <= max(1, 0.25 * cpus)


def test_a_corpus_that_keeps_changing_opens_a_network_again_a_few_times_only() -> None:
    made, n_changes = Division(16), 0
    for turn in range(1, 200):
        made.decoding.add(1.0 if turn % 2 else 10.0**turn, 1)
        made.network.add(10.0**turn if turn % 2 else 1.0, 1)
        before = made.threads
        made.look(1000)
        n_changes += made.threads != before
    assert n_changes == MAX_CHANGES


def test_the_clock_of_the_stages_starts_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("xmr.engine.embed.stages.time.monotonic", lambda: now[0])
    stages = Stages()
    now[0] = 5.0
    assert stages.total_s == 0
    stages.begin()
    stages.n_items = 30
    now[0] = 7.0
    assert stages.total_s == 2
    assert stages.status() == "files, 15 items/s, waits for decoding"


def test_a_run_waits_for_the_stage_that_took_longest_since_it_was_asked() -> None:
    stages = Stages()
    stages.starved_s, stages.network_s = 2.0, 1.0
    assert stages.waits_for() == "decoding"
    stages.network_s = 3.0
    assert stages.waits_for() == "network"
    assert stages.waits_for() == "network"
    stages.blocked_s = 9.0
    assert stages.waits_for() == "writing"
