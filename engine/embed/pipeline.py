"""The stages of embedding a corpus, each on its own thread or processes, with bounded queues between them."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import NamedTuple

from xmr.engine.corpus import CorpusFile
from xmr.engine.embed.batches import Batch, Batches
from xmr.engine.embed.channel import Channel, Stopped
from xmr.engine.embed.division import Division
from xmr.engine.embed.items import EmbeddedFile, EmbeddedItem
from xmr.engine.embed.stages import Stages
from xmr.engine.embed.worker import EmbeddingWorker
from xmr.engine.media import Piece, modalities_of
from xmr.engine.media.decode import PIECE_BYTES, Decoded, Decoding, Task
from xmr.engine.model import Embeddings
from xmr.engine.processors import cpus

ROOM_BYTES = 64_000_000  # of batches that wait for the network
ROOM_ITEMS = 1024  # embedded ones that wait for who writes them
PART_ITEMS = 2048  # from which a file comes out in parts

IN_FLIGHT = 2  # batches in the network: while one ends on some of its streams, the others have the next

ItemBatch = Batch[EmbeddedItem]
Clocks = tuple[float, float]  # seconds of the wall, and of the processors for this process


class Flight(NamedTuple):
    """A batch that is in the network."""

    batch: ItemBatch
    opens: bool  # whether a network is opened for it, which tells nothing of what a batch needs
    started: Clocks
    landed: "Future[tuple[Embeddings, Clocks]]"


class Pipeline:
    """An iterator over embedded files; `close` ends its threads and processes."""

    def __init__(
        self,
        worker: EmbeddingWorker,
        files: Sequence[CorpusFile],
        *,
        workers: int,
        batch_size: int,
        stages: Stages | None,
    ) -> None:
        self.stages = stages or Stages()
        self._worker = worker
        self._files = files
        self._batch_size = batch_size
        self._division = Division(cpus(), workers)
        self._decoding = Decoding(
            self._tasks(), worker.model.preprocessing, workers=self._division.workers, reading=worker.reading
        )
        self._to_network: Channel[ItemBatch | EmbeddedFile | None] = Channel(ROOM_BYTES)
        self._to_writer: Channel[EmbeddedFile | BaseException | None] = Channel(ROOM_ITEMS)
        self._n_handed_on = 0  # files
        self._network = ThreadPoolExecutor(IN_FLIGHT, "batch")
        self._landed: Clocks = (0.0, 0.0)  # at the end of the last batch
        self._blocked_s = 0.0  # that had been waited for the writer by then
        self._opened: set[str] = set()  # modalities whose network has run; the first run opens it, and tells nothing
        self._is_on_cpu = worker.model.device == "cpu"  # elsewhere the number of threads changes nothing
        self.stages.workers, self.stages.threads = self._division.workers, self._division.threads
        self._threads = [Thread(target=run, daemon=True) for run in (self._batch_up, self._run_network)]

    def __iter__(self) -> Iterator[EmbeddedFile]:
        self.stages.begin()
        for thread in self._threads:
            thread.start()
        while (result := self._to_writer.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            start_s = time.monotonic()
            yield result
            self.stages.write_s += time.monotonic() - start_s
        self.stages.end()

    def close(self) -> None:
        """End whatever still runs; a batch that is in the network is waited for."""
        self._to_network.stop()
        self._to_writer.stop()
        self._decoding.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._network.shutdown(cancel_futures=True)
        self._decoding.close()

    def _tasks(self) -> Iterator[Task]:
        for file in self._files:
            for modality in modalities_of(self._worker.model.modalities, file.medium):
                yield Task(file.content, modality)

    def _batch_up(self) -> None:
        """The thread that takes what was decoded, and hands on batches, and each file after its last item."""
        try:
            self._hand_on_batches()
            self._to_network.put(None)
        except Stopped:
            return
        except BaseException as error:
            self._fail(error)

    def _hand_on_batches(self) -> None:
        batches: Batches[EmbeddedItem] = Batches(self._batch_size)
        for file in self._files:
            result = EmbeddedFile(file)
            for decoded in self._decoded(file):
                for pieces in _rooms(decoded, len(result.items)):
                    if len(result.items) >= PART_ITEMS:
                        result = self._cut(result)
                    items = result.take(decoded.task.modality, pieces)
                    entries = [(item, piece.array) for item, piece in zip(items, pieces, strict=True)]
                    for batch in batches.add(decoded.task.modality, entries):
                        self._to_network.put(batch, size=batch.n_bytes)
                result.end(decoded)
            self._to_network.put(result, size=PIECE_BYTES)
            self._decoding.workers = self.stages.workers = self._division.workers
        for batch in batches.flush():
            self._to_network.put(batch, size=batch.n_bytes)

    def _decoded(self, file: CorpusFile) -> Iterator[Decoded]:
        """All parts of a file, as one modality after the other."""
        for _ in modalities_of(self._worker.model.modalities, file.medium):
            is_last = False
            while not is_last:
                decoded = next(self._decoding, None)
                if decoded is None:  # after `close` nobody hears of it
                    raise RuntimeError(f"decoding ended before {file.path} had come")
                is_last = decoded.is_last
                self.stages.n_decoded += is_last
                self.stages.decode_cpu_s += decoded.cpu_s
                self._division.decoding.add(decoded.cpu_s, len(decoded.loaded.pieces) if decoded.loaded else 0)
                yield decoded

    def _cut(self, result: EmbeddedFile) -> EmbeddedFile:
        following = result.cut()
        self._to_network.put(result, size=PIECE_BYTES)
        return following

    def _run_network(self) -> None:
        """The thread that has batches embedded, and hands on each file whose items are all embedded, in order."""
        self._landed = _clocks()
        files: deque[EmbeddedFile] = deque()
        flights: deque[Flight] = deque()
        try:
            while (received := self._to_network.get()) is not None:
                if isinstance(received, EmbeddedFile):
                    files.append(received)
                else:
                    flights.append(self._start(received))
                if len(flights) == IN_FLIGHT:
                    self._land(flights.popleft())
                while files and files[0].is_embedded:
                    self._hand_on(files.popleft())
            while flights:
                self._land(flights.popleft())
            while files:
                self._hand_on(files.popleft())
            self._to_writer.put(None)
        except Stopped:
            return
        except BaseException as error:
            self._fail(error)

    def _start(self, batch: ItemBatch) -> Flight:
        opens = batch.modality not in self._opened
        self._opened.add(batch.modality)
        return Flight(batch, opens, _clocks(), self._network.submit(self._embed, batch))

    def _embed(self, batch: ItemBatch) -> tuple[Embeddings, Clocks]:
        return self._worker.embed(batch.modality, batch.arrays), _clocks()

    def _land(self, flight: Flight) -> None:
        batch, (vectors, ended) = flight.batch, flight.landed.result()
        for item, vector in zip(batch.keys, vectors, strict=True):
            item.vector = vector
        # of the time that two batches are in the network together, each has what passes until it lands
        last_s, _ = self._landed
        start_s, start_cpu_s = max(flight.started, self._landed)
        self._landed = end_s, end_cpu_s = max(ended, self._landed)
        self.stages.network_s += max(0.0, end_s - start_s)
        self.stages.starved_s += max(0.0, start_s - last_s - (self.stages.blocked_s - self._blocked_s))
        self._blocked_s = self.stages.blocked_s
        self.stages.n_batches += 1
        self.stages.n_items += len(batch.keys)
        self.stages.n_numbers += batch.n_numbers
        self.stages.n_padding += batch.n_padding
        if not flight.opens:
            self._division.network.add(max(0.0, end_cpu_s - start_cpu_s), len(batch.keys))
            self._divide()

    def _divide(self) -> None:
        """Give the network the threads that were measured to be its share, where enough is left to be embedded."""
        done = max(1, self._n_handed_on)
        self._division.look(self.stages.network_s / done * (len(self._files) - done))
        if self._is_on_cpu and self._division.threads != self.stages.threads:
            self.stages.threads = self._division.threads
            self._worker.set_threads(self.stages.threads)
            self._opened.clear()

    def _hand_on(self, result: EmbeddedFile) -> None:
        result.finish()
        self._n_handed_on += result.is_last
        self._to_writer.put(result, size=max(1, len(result.items)))
        self.stages.blocked_s = self._to_writer.put_waited_s

    def _fail(self, error: BaseException) -> None:
        """Let the one who takes the files have the error, after those that are done."""
        try:
            self._to_writer.put(error, size=0)
        except Stopped:
            return
        self._to_network.stop()


def _rooms(decoded: Decoded, n_items: int) -> Iterator[list[Piece]]:
    """The pieces, so that each part of a file that has `n_items` is filled: it depends on no timing where it ends."""
    pieces = decoded.loaded.pieces if decoded.loaded is not None else []
    n_first = PART_ITEMS - n_items or PART_ITEMS
    ends = range(n_first, len(pieces) + PART_ITEMS, PART_ITEMS)
    yield from (pieces[max(0, end - PART_ITEMS) : end] for end in ends if pieces[max(0, end - PART_ITEMS) : end])


def _clocks() -> Clocks:
    return time.monotonic(), time.process_time()
