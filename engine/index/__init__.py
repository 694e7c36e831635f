"""An index on disk: segments of unit-length embeddings beside a SQLite catalog of the files and items.

A segment is written whole, renamed into place, then made visible by one transaction: a reader sees the index as it was
before or as it is after, and an interrupted `xmr index` can be repeated. One process writes, any number read.

    Index.add ─► embed.embed_files ─► writer.Writer ─► segments.SegmentStore, catalog.Catalog
    Reader.search ─► view.View ─► search.top_k
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from xmr.engine.catalog import Catalog
from xmr.engine.corpus import Scan
from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.files import make_folder, sync_folder
from xmr.engine.index.lock import LOCK_NAME, SEAL_NAME, Seal, writer_lock
from xmr.engine.index.reader import CATALOG_NAME, SEGMENTS_NAME, Hit, Reader, embeds
from xmr.engine.index.writer import AddSummary, Writer
from xmr.engine.media.reading import Reading
from xmr.engine.model import BATCH_SIZE, Model

if TYPE_CHECKING:  # a query starts without the pipeline
    from xmr.engine.embed import EmbeddedFile, Stages
    from xmr.engine.exchange.rows import Block

__all__ = ["CATALOG_NAME", "AddSummary", "Hit", "Index"]

COMMIT_ITEMS = 2048  # a commit is made at the end of the file with which there are so many: a kill costs no more


class Index(Reader):
    """An open index. What changes it takes the lock of the one writer; the rest is `Reader`'s."""

    def __init__(self, folder: Path, *, below_roots: bool = False) -> None:
        super().__init__(folder, below_roots=below_roots)
        self._writer = Writer(self._store, self._catalog)

    @classmethod
    def open(cls, folder: Path | str, *, below_roots: bool = False) -> "Index":
        """Open an index that exists; XmrError where there is none or another version wrote it.

        `below_roots`: conditions name paths without the folder that was indexed, as a server tells them.
        """
        folder = Path(folder)
        if not (folder / CATALOG_NAME).is_file():
            raise UnreadableError(f"{folder}: no index there; make one with `xmr index PATH`")
        return cls(folder, below_roots=below_roots)

    @classmethod
    def create(cls, folder: Path | str, model: Model, reading: Reading | None = None) -> "Index":
        """A new, empty index for the embeddings of one model."""
        folder = Path(folder)
        _refuse_other_files(folder)
        make_folder(folder / SEGMENTS_NAME)
        with writer_lock(folder):
            if (folder / CATALOG_NAME).exists():
                raise XmrError(f"{folder}: an index is there already; open it or choose another folder")
            meta: dict[str, object] = {"model": model.name, "fingerprint": model.fingerprint, "dim": model.dim}
            meta["embeds"] = json.dumps(embeds(model), sort_keys=True)
            meta["reading"] = json.dumps(asdict(reading or Reading()))
            Catalog.create(folder / CATALOG_NAME, meta).close()
            sync_folder(folder)
        return cls(folder)

    def add(
        self,
        corpus: Scan,
        model: Model,
        *,
        workers: int = 0,
        batch_size: int = BATCH_SIZE,
        prune: bool = False,
        whole: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stages: "Stages | None" = None,
    ) -> AddSummary:
        """Embed the new and changed files of a scan; note those that have vanished, or with `prune` take them out.

        A file that was only renamed keeps its embeddings, and what was deleted of one that has not changed stays so,
        unless `whole`: then the file is embedded again. While a segment is written, the next files are decoded and
        embedded; `stages` tells what took how long. Interrupted, it keeps what was committed; the next run goes on from
        there. Files are decoded in processes of their own, so a script that calls this needs the usual `if __name__ ==
        "__main__":`.
        """
        from xmr.engine.embed import embed_files
        from xmr.engine.index.compare import compare

        self.check_model(model)
        summary = AddSummary(n_ignored=corpus.n_ignored)
        summary.errors = {str(path): reason for path, reason in corpus.unreadable.items()}
        with self._writing():
            self._writer.mend_codes()
            fresh = compare(self._catalog, corpus, summary, prune=prune, whole=whole)
            results = embed_files(
                model, fresh, workers=workers, batch_size=batch_size, stages=stages, reading=self.reading
            )
            with closing(results):
                self._take(results, summary, lambda n_done: progress(n_done, len(fresh)), len(fresh))
            self._writer.merge_small()
        return summary

    def append(self, blocks: "Iterable[Block]", *, progress: Callable[[int], None] = lambda n_rows: None) -> AddSummary:
        """Take embeddings that were made elsewhere, by this index's model: unit rows, with what they are of.

        A block is visible at once. What the index held of a file is replaced by what is given of it.
        """
        summary = AddSummary()
        begun: dict[str, int] = {}
        with self._writing():
            for block in blocks:
                self._writer.append_block(block, begun)
                summary.n_items += len(block.entries)
                self._writer.merge_small()
                progress(summary.n_items)
        summary.n_embedded = len(begun)
        return summary

    def delete(
        self,
        ids: Iterable[int] = (),
        paths: Iterable[Path | str] = (),
        where: str | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Items, those of files or of all files in folders, and those of which a condition holds; how many they were.

        They can no longer be found. XmrError where an id or a path is not in the index; then nothing is deleted.
        """
        if dry_run:
            with self._catalog.snapshot():
                return len(self._named(ids, paths, where))
        with self._writing():
            chosen = self._named(ids, paths, where)
            with self._catalog.transaction():
                self._catalog.delete(chosen)
            return len(chosen)

    def compact(self, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Write the index anew in as few segments as can be, without what was deleted; how many rows are gone."""
        with self._writing():
            n_rows = sum(segment.rows for segment in self._catalog.segments())
            self._writer.mend_all_codes()
            self._writer.compact(progress)
            self._catalog.shrink()
            return n_rows - sum(segment.rows for segment in self._catalog.segments())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The lock is held; afterwards the catalog is sealed, whatever happened inside."""
        seal = Seal(self._catalog.path)
        with writer_lock(self.folder):
            self._store.remove_others(self._catalog.segments())
            seal.break_()
            try:
                yield
            finally:
                with suppress(XmrError, OSError):  # what was written is there without a seal too
                    if self._catalog.seal():
                        seal.make()

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
                    self._writer.merge_small()
        except KeyboardInterrupt:
            self._writer.commit([pending], summary)
            raise


def _refuse_other_files(folder: Path) -> None:
    """XmrError where an index would be made among a user's own files."""
    own = (CATALOG_NAME, f".{CATALOG_NAME}", SEGMENTS_NAME, LOCK_NAME, SEAL_NAME, f".{SEAL_NAME}")
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if not path.name.startswith(own):
            raise XmrError(f"{folder}: holds other files ({path.name}), and no index; choose another folder")


def _to_its_end(first: "EmbeddedFile", results: "Iterator[EmbeddedFile]") -> "Iterator[list[EmbeddedFile]]":
    """The parts of a long file, each alone."""
    part = first
    yield [part]
    while not part.is_last:
        part = next(results)
        yield [part]
