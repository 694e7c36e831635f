"""The one thread that owns the index and the model: questions that wait are answered together.

While a batch is answered the next one gathers. Its sentences go through the encoder in one run, and questions that
search the same items through the kernel in one.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmr.engine.answer import Answer, Wanted, answer
from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.model import Embeddings, Model
from xmr.engine.question import Asker, Part
from xmr.engine.serve.place import shown_path
from xmr.engine.serve.refusals import busy, no_item

WINDOW_S = 0.003  # that a batch waits for as many questions as the last one had
MAX_BATCH = 64  # questions
MAX_SHARED = 1000  # hits of a search that several questions share

Windows = list[NDArray[np.generic]]  # what a file was decoded to


@dataclass
class Asked:
    """A question whose files are decoded. A part's `content` is a sentence, an id, or a key of one of the two."""

    parts: list[Part]
    wanted: Wanted
    decoded: dict[str, tuple[str, Windows]] = field(default_factory=dict)  # modality and arrays, by content
    vectors: dict[str, Embeddings] = field(default_factory=dict)  # (dim,) unit, by content
    items: dict[str, int] = field(default_factory=dict)  # ids, by content


@dataclass(frozen=True)
class Answered:
    """Hits of one version of the index, and where their files are said to be."""

    answers: list[Answer]
    paths: dict[int, str]  # by item, relative to its root
    version: str


@dataclass
class _Job:
    """Something to do, and who waits for it."""

    task: "Asked | tuple[str, list[str | Windows]]"
    future: "Future[Answered | Embeddings]" = field(default_factory=Future)


class _Ready(Asker):
    """Takes what was embedded for the whole batch."""

    def __init__(self, index: Index, model: Model) -> None:
        super().__init__(index, lambda: model)
        self.embedded: dict[tuple[str, str], Embeddings] = {}

    def _embedding(self, part: Part) -> Embeddings:
        if (ready := self.embedded.get((part.kind, part.content))) is not None:
            return ready
        return super()._embedding(part)


class Batcher:
    """`start`, then `search` and `embed` from the event loop, then `stop`, which answers what waits."""

    def __init__(
        self,
        index_folder: Path,
        open_model: Callable[[], Model],
        *,
        max_waiting: int,
        answer_s: float,
        told: Callable[[int], None] = lambda n_batch: None,
    ) -> None:
        self._folder, self._open_model, self._answer_s, self._told = index_folder, open_model, answer_s, told
        self._waiting: queue.Queue[_Job | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._work, name="xmr answers", daemon=True)
        self._opened: Future[Model] = Future()
        self._n_last = 1  # questions of the last batch: so many may come again

    @property
    def n_waiting(self) -> int:
        return self._waiting.qsize()

    @property
    def is_ready(self) -> bool:
        return self._opened.done() and self._opened.exception() is None and self._thread.is_alive()

    async def start(self) -> Model:
        """Opens index and model; XmrError where they do not fit each other."""
        self._thread.start()
        return await asyncio.wrap_future(self._opened)

    async def search(self, asked: Asked) -> Answered:
        found = await self._put(_Job(asked))
        assert isinstance(found, Answered)
        return found

    async def embed(self, modality: str, inputs: "list[str | Windows]") -> Embeddings:
        """(n, dim) unit rows of sentences, or of decoded files."""
        rows = await self._put(_Job((modality, inputs)))
        assert isinstance(rows, np.ndarray)
        return rows

    async def stop(self) -> None:
        if self._thread.is_alive():
            await asyncio.to_thread(self._waiting.put, None)
            await asyncio.to_thread(self._thread.join)

    async def _put(self, job: _Job) -> "Answered | Embeddings":
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise busy() from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), self._answer_s)
        except TimeoutError:
            raise busy(f"no answer within {self._answer_s:g} s; ask for something simpler, or again later") from None

    def _work(self) -> None:
        try:
            index = Index.open(self._folder)
            model = self._open_model()
            index.check_model(model)
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(model)
        is_open = True
        while is_open:
            jobs, is_open = self._gathered()
            self._told(len(jobs))
            self._do([job for job in jobs if job.future.set_running_or_notify_cancel()], index, model)
        index.close()

    def _gathered(self) -> tuple[list[_Job], bool]:
        """The next batch, and whether there may be another one."""
        jobs: list[_Job] = []
        until_s = None
        while len(jobs) < MAX_BATCH:
            try:
                job = self._waiting.get(timeout=None if until_s is None else max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
            if self._waiting.empty() and len(jobs) >= self._n_last:
                break
            until_s = until_s or time.monotonic() + WINDOW_S
        self._n_last = len(jobs)
        return jobs, True

    def _do(self, jobs: Sequence[_Job], index: Index, model: Model) -> None:
        questions = [(job, job.task) for job in jobs if isinstance(job.task, Asked)]
        for job in jobs:
            if not isinstance(job.task, Asked):
                modality, inputs = job.task
                _settle(job, partial(_embed, model, modality, inputs))
        if questions:
            _search(questions, index, model)


def _settle(job: _Job, work: "Callable[[], Answered | Embeddings]") -> None:
    """Whatever goes wrong belongs to who asked."""
    try:
        job.future.set_result(work())
    except BaseException as error:
        job.future.set_exception(error)


def _embed(model: Model, modality: str, inputs: "list[str | Windows]") -> Embeddings:
    model.check_modality(modality)
    if modality == "text":
        return model.embed("text", [item for item in inputs if isinstance(item, str)])
    return model.embed_windows(modality, [item for item in inputs if not isinstance(item, str)])


def _search(questions: "list[tuple[_Job, Asked]]", index: Index, model: Model) -> None:
    ready = _Ready(index, model)
    ready.embedded = _embedded([asked for _, asked in questions], model)
    try:
        with index.snapshot():
            _answer_all(questions, index, ready)
    except XmrError as error:  # the index itself cannot be read
        for job, _ in questions:
            if not job.future.done():
                job.future.set_exception(error)


def _embedded(questions: Sequence[Asked], model: Model) -> dict[tuple[str, str], Embeddings]:
    """Of all parts that are no items; what fails is left out, and fails once more for who asked it."""
    by_modality: dict[str, dict[str, str | Windows]] = {}
    for asked in questions:
        for part in asked.parts:
            if part.kind == "text":
                by_modality.setdefault("text", {})[part.content] = part.content
        for content, (modality, windows) in asked.decoded.items():
            by_modality.setdefault(modality, {})[content] = windows
    found = {}
    for modality, inputs in by_modality.items():
        try:
            rows = _embed(model, modality, list(inputs.values()))
        except XmrError:
            continue
        found.update({(modality, content): row for content, row in zip(inputs, rows, strict=True)})
    return found


def _answer_all(questions: "list[tuple[_Job, Asked]]", index: Index, ready: _Ready) -> None:
    """Those that want the same of the same items by one search, the others each by its own."""
    alike: dict[Wanted, list[tuple[_Job, Asked, Embeddings]]] = {}
    for job, asked in questions:
        try:
            vector = _vector(asked, ready)
        except Exception as error:
            job.future.set_exception(error)
            continue
        alike.setdefault(asked.wanted, []).append((job, asked, vector))
    version = index.version()
    for wanted, group in alike.items():
        is_plain = wanted.group is None and wanted.fold is None and wanted.offset + wanted.k <= MAX_SHARED
        if is_plain and len(group) > 1:
            _answer_together(wanted, group, index, version)
            continue
        for job, _, vector in group:
            _settle(job, partial(_answered_alone, vector, wanted, index, version))


def _vector(asked: Asked, ready: _Ready) -> Embeddings:
    for part in asked.parts:
        if part.content in asked.items:
            ready.embedded[part.kind, part.content] = _of_item(asked.items[part.content], ready.index)
        elif part.content in asked.vectors:
            ready.embedded[part.kind, part.content] = asked.vectors[part.content]
        elif part.content in asked.decoded and (part.kind, part.content) not in ready.embedded:
            modality, windows = asked.decoded[part.content]
            row = ready.embedded.get((modality, part.content))
            opened = ready._opened()
            ready.embedded[part.kind, part.content] = _embed(opened, modality, [windows])[0] if row is None else row
    return ready.vector(asked.parts)


def _answered_alone(vector: Embeddings, wanted: Wanted, index: Index, version: str) -> Answered:
    return _answered(answer(index, vector, wanted), index, version)


def _of_item(item: int, index: Index) -> Embeddings:
    if item not in index.found([item]):
        raise no_item(item)
    vector: Embeddings = index.vectors([item])[0]
    return vector


def _answer_together(wanted: Wanted, group: "list[tuple[_Job, Asked, Embeddings]]", index: Index, version: str) -> None:
    try:
        vectors = np.stack([vector for _, _, vector in group])
        n_read = wanted.offset + wanted.k
        hits = index.search(vectors, n_read, to=wanted.to, where=wanted.where, min_score=wanted.min_score)
    except XmrError as error:
        for job, _, _ in group:
            job.future.set_exception(error)
        return
    for number, (job, _, _) in enumerate(group):
        page = [Answer(hit.rank, hit) for hit in hits if hit.query == number and hit.rank > wanted.offset]
        _settle(job, partial(_answered, page, index, version))


def _answered(answers: list[Answer], index: Index, version: str) -> Answered:
    files = index.files_of([one.hit.id for one in answers])
    return Answered(answers, {item: shown_path(file) for item, file in files.items()}, version)
