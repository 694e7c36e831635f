"""An index on disk: segments of unit-length embeddings beside a SQLite catalog of the items.

A segment is written whole, renamed into place, then made visible by one transaction, so an interrupted `xmr index`
can be repeated. What goes into it depends on the files alone, never on the time that they take.
"""

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmr.engine.catalog import Catalog, Segment
from xmr.engine.codes import Codes
from xmr.engine.corpus import CorpusFile, Scan
from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of, sync_folder
from xmr.engine.index.writer import ROWS_SUFFIX, AddSummary, Writer, codes_name
from xmr.engine.model import BATCH_SIZE, Model
from xmr.engine.search import Gallery, top_k

if TYPE_CHECKING:  # a query starts without the pipeline
    from xmr.engine.embed import EmbeddedFile, Stages

CATALOG_NAME = "catalog.db"
SEGMENTS_NAME = "segments"
LOCK_NAME = "writer.lock"
COMMIT_ITEMS = 2048  # a commit is made at the end of the file with which there are so many: a kill costs no more


@dataclass(frozen=True)
class Hit:
    """One answer to a query."""

    query: int  # which of the queries
    rank: int  # from 1
    score: float  # cosine
    modality: str
    path: str
    start_s: float | None
    end_s: float | None
    text: str | None
    id: int
    line: int | None = None  # of a text file


@dataclass(frozen=True)
class View:
    """Segments that are searched as one gallery."""

    segments: list[Segment]
    gallery: Gallery
    live: NDArray[np.bool_] | None  # which rows can be found; None: all

    def item_of(self, row: int) -> int:
        """The id of the item of a row of the gallery."""
        for segment in self.segments:
            if row < segment.rows:
                return segment.first_item + row
            row -= segment.rows
        raise IndexError(row)


class Index:
    """An open index. Readers may be many; `add` takes the lock of the one writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._catalog = Catalog(folder / CATALOG_NAME)
        self._writer = Writer(folder / SEGMENTS_NAME, self._catalog)
        self.meta = self._catalog.meta
        self._open_segments: dict[Segment, tuple[NDArray[np.float32], Codes]] = {}
        self._version: tuple[int, int] | None = None  # of the catalog, when these were read:
        self._present: list[str] = []
        self._views: dict[tuple[str, ...], View] = {}

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open an index that exists; XmrError where there is none or another version wrote it."""
        folder = Path(folder)
        if not (folder / CATALOG_NAME).is_file():
            raise XmrError(f"{folder}: no index there; make one with `xmr index PATH`")
        return cls(folder)

    @classmethod
    def create(cls, folder: Path | str, model: Model) -> "Index":
        """A new, empty index for the embeddings of one model."""
        folder = Path(folder)
        _refuse_other_files(folder)
        (folder / SEGMENTS_NAME).mkdir(parents=True, exist_ok=True)
        with _writer_lock(folder):
            if (folder / CATALOG_NAME).exists():
                raise XmrError(f"{folder}: an index is there already; open it or choose another folder")
            meta = {"model": model.name, "fingerprint": model.fingerprint, "dim": model.dim}
            Catalog.create(folder / CATALOG_NAME, meta).close()
            sync_folder(folder)
        return cls(folder)

    def __len__(self) -> int:
        """Items that can be found."""
        return sum(self.counts().values())

    def close(self) -> None:
        self._catalog.close()

    @property
    def dim(self) -> int:
        return int(self.meta["dim"])

    def counts(self) -> dict[str, int]:
        """Items that can be found, by modality."""
        return self._catalog.counts()

    def skipped(self) -> dict[str, str]:
        """The files that could not be embedded, with the reason."""
        return self._catalog.skipped()

    def check_model(self, model: Model) -> None:
        """XmrError unless this index holds embeddings of exactly this model."""
        if self.meta["fingerprint"] != model.fingerprint:
            raise XmrError(
                f"{self.folder}: made with model {self.meta['model']} ({self.meta['fingerprint']}), the model at "
                f"{model.folder} is {model.name} ({model.fingerprint}); pass the right --model, or another --index"
            )

    def search(
        self,
        query_vectors: NDArray[np.float32],
        k: int,
        to: Sequence[str] | str | None = None,
        *,
        min_score: float | None = None,
    ) -> list[Hit]:
        """The k best items of each query, best first, the first query's hits first; `hit.query` says whose it is.

        query_vectors (n_queries, dim) or (dim,) unit rows; `to` limits the modalities. Equal scores: the item that
        was indexed first. XmrError for a modality that the index lacks.
        """
        queries = np.atleast_2d(query_vectors)
        with self._catalog.snapshot():
            self._forget_old_views()
            view = self._view(self._modalities(to))
            if not view.segments:
                return []
            scores, rows = top_k(queries, view.gallery, k, allow=view.live)
            return [
                self._hit(query, place + 1, float(scores[query, place]), view.item_of(int(row)))
                for (query, place), row in np.ndenumerate(rows)
                if row >= 0 and (min_score is None or scores[query, place] >= min_score)
            ]

    def add(
        self,
        corpus: Scan,
        model: Model,
        *,
        workers: int = 0,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stages: "Stages | None" = None,
    ) -> AddSummary:
        """Embed the new and changed files of a scan; forget those that have vanished from its roots.

        While a segment is written, the next files are decoded and embedded; `stages` tells what took how long.
        Interrupted, it keeps what was committed; the next run goes on from there. Files are decoded in processes of
        their own, so a script that calls this needs the usual `if __name__ == "__main__":`.
        """
        from xmr.engine.embed import embed_files

        self.check_model(model)
        summary = AddSummary(n_ignored=corpus.n_ignored, skipped=list(corpus.unreadable.values()))
        with _writer_lock(self.folder):
            self._drop_orphans()
            self._mend_codes()
            summary.n_removed = self._remove_vanished(corpus)
            fresh = self._changed_files(corpus.files)
            summary.n_unchanged = len(corpus.files) - len(fresh)
            results = embed_files(model, fresh, workers=workers, batch_size=batch_size, stages=stages)
            with closing(results):
                self._take(results, summary, lambda n_done: progress(n_done, len(fresh)), len(fresh))
        return summary

    def _take(
        self, results: "Iterator[EmbeddedFile]", summary: AddSummary, progress: Callable[[int], None], n_files: int
    ) -> None:
        """Commit what comes, so many items at a time; a long file, which comes in parts, alone."""
        pending: list[EmbeddedFile] = []
        n_done = n_pending = 0
        try:
            for result in results:
                if result.is_last:
                    pending.append(result)
                    n_pending += max(1, len(result.items))
                else:
                    self._writer.commit([pending], summary)
                    pending, n_pending = [], 0
                    self._writer.commit(_to_its_end(result, results), summary)
                n_done += 1
                progress(n_done)
                if n_pending >= COMMIT_ITEMS or n_done == n_files:
                    self._writer.commit([pending], summary)
                    pending, n_pending = [], 0
        except KeyboardInterrupt:
            self._writer.commit([pending], summary)
            raise

    def _changed_files(self, files: Sequence[CorpusFile]) -> list[CorpusFile]:
        """Files the index does not hold as they are now; one that was only touched gets its new time noted."""
        known = self._catalog.files()
        changed = []
        with self._catalog.transaction():
            for file in files:
                size, mtime, digest = known.get(str(file.path), (None, None, None))
                if (size, mtime) == (file.size_bytes, file.mtime_ns):
                    continue
                if size == file.size_bytes and file.path.is_file() and sha256_of(file.path) == digest:
                    self._catalog.touch(str(file.path), file.mtime_ns)
                    continue
                changed.append(file)
        return changed

    def _remove_vanished(self, corpus: Scan) -> int:
        present = {str(file.path) for file in corpus.files}
        vanished = [
            path
            for path in self._catalog.files().keys() | self._catalog.skipped().keys()
            if path not in present
            and any(Path(path).is_relative_to(root) for root in corpus.roots)
            and not any(Path(path).is_relative_to(hidden) for hidden in corpus.unreadable)
        ]
        with self._catalog.transaction():
            for path in vanished:
                self._catalog.forget(path)
        return len(vanished)

    def _drop_orphans(self) -> None:
        """Segment files that an interrupted writer left without making them visible."""
        known = {segment.file.removesuffix(ROWS_SUFFIX) for segment in self._catalog.segments()}
        for path in (self.folder / SEGMENTS_NAME).iterdir():
            if path.name.split(".")[0] not in known:
                path.unlink()

    def _forget_old_views(self) -> None:
        version = self._catalog.version()
        if version != self._version:
            self._version, self._present, self._views = version, self._held_modalities(), {}

    def _held_modalities(self) -> list[str]:
        """Of the items that can be found, as `counts` has them, but without reading every item."""
        n_deleted = Counter(segment for segment, _ in self._catalog.deleted_rows())
        segments = self._catalog.segments()
        return sorted({segment.modality for segment in segments if segment.rows > n_deleted[segment.id]})

    def _modalities(self, to: Sequence[str] | str | None) -> list[str]:
        wanted = [to] if isinstance(to, str) else list(to or self._present)
        for modality in wanted:
            if modality not in self._present:
                held = ", ".join(self._present) or "nothing yet"
                raise XmrError(
                    f"{self.folder}: no {modality} in this index, it holds {held}; index some or change --to"
                )
        return wanted

    def _view(self, modalities: Sequence[str]) -> "View":
        """What a search in these modalities reads; the same one as long as the catalog stays as it is."""
        key = tuple(sorted(modalities))
        if key not in self._views:
            segments = self._catalog.segments(modalities)
            rows, codes = zip(*map(self._open_segment, segments), strict=True) if segments else ((), ())
            self._views[key] = View(segments, Gallery(rows, codes), self._live_rows(segments))
        return self._views[key]

    def _live_rows(self, segments: Sequence[Segment]) -> NDArray[np.bool_] | None:
        """Which rows of these segments can be found; None: all."""
        live = {segment.id: np.ones(segment.rows, dtype=np.bool_) for segment in segments}
        for segment_id, row in self._catalog.deleted_rows():
            if segment_id in live:
                live[segment_id][row] = False
        all_live = np.concatenate(list(live.values())) if live else np.ones(0, dtype=np.bool_)
        return None if all_live.all() else all_live

    def _open_segment(self, segment: Segment) -> tuple[NDArray[np.float32], Codes]:
        """Rows and codes, memory-mapped; opened once, as a segment never changes."""
        if segment not in self._open_segments:
            rows = self._open_rows(segment)
            try:
                codes = Codes.open(self.folder / SEGMENTS_NAME / codes_name(segment.file), rows)
            except XmrError as error:
                raise XmrError(f"{error}; `xmr index` with any path makes them anew") from None
            self._open_segments[segment] = rows, codes
        return self._open_segments[segment]

    def _open_rows(self, segment: Segment) -> NDArray[np.float32]:
        path = self.folder / SEGMENTS_NAME / segment.file
        try:
            rows: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
            if rows.shape != (segment.rows, self.dim) or rows.dtype != np.float32:
                raise ValueError(f"{rows.shape} {rows.dtype} found, {(segment.rows, self.dim)} float32 expected")
        except (OSError, EOFError, ValueError) as error:
            raise XmrError(f"{path}: a segment of the index cannot be read ({error}); index again elsewhere") from None
        return rows

    def _mend_codes(self) -> None:
        """Code the rows again where the codes of a segment are missing or damaged: nothing is lost with them."""
        for segment in self._catalog.segments():
            rows = self._open_rows(segment)
            try:
                Codes.open(self.folder / SEGMENTS_NAME / codes_name(segment.file), rows)
            except XmrError:
                self._writer.write_codes(segment.file, rows)

    def _hit(self, query: int, rank: int, score: float, item_id: int) -> Hit:
        item = self._catalog.item(item_id)
        line = json.loads(item.metadata).get("line")
        place = (item.modality, item.path, item.start_s, item.end_s, item.text)
        return Hit(query, rank, score, *place, id=item_id, line=line)


def _refuse_other_files(folder: Path) -> None:
    """XmrError where an index would be made among a user's own files."""
    own = (CATALOG_NAME, f".{CATALOG_NAME}", SEGMENTS_NAME, LOCK_NAME)
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if not path.name.startswith(own):
            raise XmrError(f"{folder}: holds other files ({path.name}), and no index; choose another folder")


@contextmanager
def _writer_lock(folder: Path) -> Iterator[None]:
    """Held by the one writer; the lock of a dead process is free."""
    with (folder / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise XmrError(f"{folder}: another process is writing to this index; wait until it is done") from None
        yield


def _to_its_end(first: "EmbeddedFile", results: "Iterator[EmbeddedFile]") -> "Iterator[list[EmbeddedFile]]":
    """The parts of a long file, each alone."""
    part = first
    yield [part]
    while not part.is_last:
        part = next(results)
        yield [part]
