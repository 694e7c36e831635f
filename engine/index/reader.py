"""An index that is read: what is in it, and what is nearest to a query; all of one committed version at a time."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.catalog import Catalog, File, Found
from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.index.segments import Ids, SegmentStore
from xmr.engine.index.view import View
from xmr.engine.media.reading import Reading
from xmr.engine.model import Model

if TYPE_CHECKING:  # a query starts without them
    from xmr.engine.exchange.rows import Block
    from xmr.engine.index.verify import Verified

CATALOG_NAME, SEGMENTS_NAME = "catalog.db", "segments"
TRIES = 5  # to read a version of the index before a writer replaces its segments


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
    metadata: dict[str, Any] = field(default_factory=dict)


class Reader:
    """What `Index` does without changing anything; readers may be many, beside the one writer."""

    def __init__(self, folder: Path, *, below_roots: bool = False) -> None:
        """`below_roots`: conditions name paths without the folder that was indexed, as a server tells them."""
        self.folder, self._below_roots = folder, below_roots
        self._catalog = Catalog(folder / CATALOG_NAME)
        self.meta = self._catalog.meta
        try:
            self.dim, self.reading = int(self.meta["dim"]), Reading(**json.loads(self.meta["reading"]))
        except (KeyError, ValueError, TypeError) as error:
            self._catalog.close()
            raise UnreadableError(f"{self._catalog.path}: damaged catalog ({error}); index again elsewhere") from None
        self._store = SegmentStore(folder / SEGMENTS_NAME, self.dim)
        self._version: tuple[int, int, int] | None = None  # of the catalog, when these were read:
        self._present: list[str] = []
        self._views: dict[tuple[str, ...], View] = {}

    def __len__(self) -> int:
        """Items that can be found."""
        return sum(self.counts().values())

    def close(self) -> None:
        self._catalog.close()

    def counts(self) -> dict[str, int]:
        """Items that can be found, by modality."""
        return self._catalog.counts()

    def modalities(self) -> list[str]:
        """Of the items that can be found."""
        self._forget_old_views()
        return self._present

    def n_segments(self) -> int:
        return len(self._catalog.segments())

    def n_missing(self) -> int:
        """Files that were not there any more when their folder was last looked through."""
        return self._catalog.n_missing()

    def skipped(self) -> dict[str, str]:
        """The files that could not be embedded, with the reason."""
        return self._catalog.skipped()

    def check_model(self, model: Model) -> None:
        """XmrError unless this index holds embeddings of exactly this model."""
        if self.meta["fingerprint"] != model.fingerprint:
            raise XmrError(
                f"{self.folder}: made with model {self.meta['model']} ({self.meta['fingerprint']}), the model at "
                f"{model.folder} is {model.name} ({model.fingerprint}), {self._difference(model)}; pass the right "
                "--model, or another --index"
            )

    def search(
        self,
        query_vectors: NDArray[np.float32],
        k: int,
        to: Sequence[str] | str | None = None,
        where: str | None = None,
        min_score: float | None = None,
        offset: int = 0,
    ) -> list[Hit]:
        """The k best items of each query, best first, the first query's hits first; `hit.query` says whose it is.

        query_vectors (n_queries, dim) or (dim,) unit rows; `to` limits the modalities, `where` is a condition in SQL
        (see `where.py`); of the k the first `offset` are passed over. Equal scores: by modality, then the item that was
        indexed first. XmrError for a modality that the index lacks.
        """
        queries = np.atleast_2d(query_vectors)
        with self.snapshot(to):
            view = self._view(self._modalities(to))
            if not view.segments:
                return []
            allow = view.allowed(self._matching(where))
            scores, rows = view.top_k(queries, k, allow)
            return self._hits(view, scores, rows, min_score, offset)

    def nearest(self, query_vectors: NDArray[np.float32], k: int, to: str) -> tuple[NDArray[np.float32], Ids]:
        """Scores and ids of the k best items of one modality, both (n_queries, k or as many as there are), best first.

        As `search` ranks them, without what else is known of them.
        """
        with self.snapshot(to):
            view = self._view(self._modalities(to))
            scores, rows = view.top_k(np.atleast_2d(query_vectors), k, view.live)
            is_found = (rows >= 0).all(axis=0)  # deleted items leave places without a row, at the end
            return scores[:, is_found], view.ids_of(rows[:, is_found].ravel()).reshape(len(rows), -1)

    @contextmanager
    def snapshot(self, to: Sequence[str] | str | None = None) -> Iterator[None]:
        """Everything read inside is of one committed version, whose segments of these modalities are open.

        A writer may merge and delete segments between the reading of their names and the opening of their files: then
        it is the next version. What is damaged still is after some tries.
        """
        if self._catalog.connection.in_transaction:  # one is open already, with all segments
            yield
            return
        for attempt in range(TRIES):
            with self._catalog.snapshot():
                self._forget_old_views()
                try:
                    for segment in self._catalog.segments([to] if isinstance(to, str) else to):
                        self._store.open(segment)
                except XmrError:
                    if attempt == TRIES - 1:
                        raise
                    continue
                yield
                return

    def vectors(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(n, dim) embeddings of items; XmrError for an id that is not there."""
        with self.snapshot():
            view = self._view(sorted(set(self._known(ids).values())))
            return view.vectors_of(np.array(ids, dtype=np.int64))

    def found(self, ids: Sequence[int]) -> dict[int, Found]:
        """What is known of items, by id; those that are not there are left out."""
        return self._catalog.found(ids)

    def files_of(self, ids: Sequence[int]) -> dict[int, File]:
        """The files of items, by the items' ids; those that are not there are left out."""
        return self._catalog.files_of(ids)

    def some_items(self, modality: str, n: int) -> list[int]:
        """Ids of up to `n` items of a modality, spread over all of them; the same every time."""
        return self._catalog.some_items(modality, n)

    def version(self) -> str:
        """The same for all who have this state of the index open, another one after every change of it."""
        return f"{self._catalog.inode:x}-{self._catalog.n_changes()}"

    def items_of(self, path: str) -> list[int]:
        """Ids of the items of an indexed file."""
        return self._catalog.items_of(path)

    def ids(self, modality: str) -> Ids:
        """(n,) of the items of a modality that can be found; ascending."""
        return np.array(self._catalog.item_ids(modality), dtype=np.int64)

    def paths(self) -> list[str]:
        """Of every file that has items, in order."""
        return self._catalog.paths()

    def items(self, to: Sequence[str] | str | None = None, where: str | None = None) -> "Iterator[Block]":
        """All items that can be found, by modality and then id, in blocks; as the index is when the first is drawn."""
        from xmr.engine.index.blocks import blocks_of

        with closing(Reader(self.folder, below_roots=self._below_roots)) as reader, reader.snapshot(to):
            matching = reader._matching(where)
            for modality in reader._modalities(to):
                yield from blocks_of(reader._catalog, reader._view([modality]), matching)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> "Verified":
        """Read every byte of the index and compare it with the checksums, and the catalog with the segments."""
        from xmr.engine.index.verify import verify

        return verify(self.folder, self._catalog, self._store, progress)

    def _named(self, ids: Iterable[int], paths: Iterable[Path | str], where: str | None) -> set[int]:
        """Items by id, those of files or of all files in folders, and those of which a condition holds."""
        named = set(self._known(ids))
        for path in paths:
            named.update(self._items_under(str(path)))
        if (matching := self._matching(where)) is not None:
            named.update(matching.tolist())
        return named

    def _known(self, ids: Iterable[int]) -> dict[int, str]:
        """The modality of each of these items; XmrError for an id that is not there."""
        asked = list(ids)
        known = self._catalog.known(asked)
        if lost := [item for item in asked if item not in known]:
            raise XmrError(f"{self.folder}: no item {lost[0]} in this index; ask for the ids that a query prints")
        return known

    def _items_under(self, path: str) -> list[int]:
        # as it is written, and as a corpus is looked through: from the place that links lead to
        for place in dict.fromkeys((path, str(Path(path).absolute()), os.path.realpath(path))):
            if items := self._catalog.items_under(place):
                return items
        raise XmrError(f"{path}: nothing of it is in the index; `xmr query` prints the paths that are")

    def _forget_old_views(self) -> None:
        version = self._catalog.version()
        if version != self._version:
            self._version, self._present, self._views = version, list(self._catalog.counts()), {}
            self._store.keep_only(self._catalog.segments())

    def _modalities(self, to: Sequence[str] | str | None) -> list[str]:
        wanted = [to] if isinstance(to, str) else list(dict.fromkeys(to or self._present))
        for modality in wanted:
            if modality not in self._present:
                held = ", ".join(self._present) or "nothing yet"
                raise XmrError(
                    f"{self.folder}: no {modality} in this index, it holds {held}; index some or change --to"
                )
        return wanted

    def _view(self, modalities: Sequence[str]) -> View:
        """What a search in these modalities reads; the same one as long as the catalog stays as it is."""
        key = tuple(sorted(modalities))
        if key not in self._views:
            segments = [self._store.open(segment) for segment in self._catalog.segments(key)]
            self._views[key] = View.of(segments, self._catalog.deleted(key))
        return self._views[key]

    def _matching(self, where: str | None) -> Ids | None:
        """Ids, ascending, of the items that a condition holds of; None where there is no condition."""
        if where is None:
            return None
        from xmr.engine.where import matching

        return matching(self._catalog.connection, where, below_roots=self._below_roots)

    def _hits(
        self, view: View, scores: NDArray[np.float32], rows: NDArray[np.int64], min_score: float | None, offset: int
    ) -> list[Hit]:
        places = [
            (query, place)
            for query in range(len(rows))
            for place in range(offset, rows.shape[1])
            if rows[query, place] >= 0 and (min_score is None or scores[query, place] >= min_score)
        ]
        ids = view.ids_of(np.array([rows[place] for place in places], dtype=np.int64)).tolist()
        known = self._catalog.found(ids)
        if len(known) < len(set(ids)):
            raise UnreadableError(
                f"{self.folder}: rows of items that the catalog does not know; `xmr verify` tells more"
            )
        return [
            _hit(query, place + 1, float(scores[query, place]), known[item])
            for (query, place), item in zip(places, ids, strict=True)
        ]

    def _difference(self, model: Model) -> str:
        """In what the model differs from that of this index."""
        ours, theirs = json.loads(self.meta["embeds"]), json.loads(json.dumps(embeds(model)))
        if ours["dim"] != theirs["dim"]:
            return f"with {theirs['dim']} numbers an embedding instead of {ours['dim']}"
        other = [name for name, how in ours["preprocessing"].items() if theirs["preprocessing"].get(name, how) != how]
        if other:
            return f"with another preprocessing of {', '.join(other)}"
        return "with other weights"


def embeds(model: Model) -> dict[str, Any]:
    """What an embedding depends on, but for the weights, in words of config.json."""
    parts = model.config["modalities"]
    return {"dim": model.dim, "preprocessing": {name: part["preprocessing"] for name, part in parts.items()}}


def _hit(query: int, rank: int, score: float, found: Found) -> Hit:
    place = (found.modality, found.path, found.start_s, found.end_s, found.text)
    return Hit(query, rank, score, *place, id=found.id, line=found.line, metadata=dict(found.metadata))
