"""The items of an index in order, with their embeddings: what is written out."""

from collections.abc import Iterator

import numpy as np

from xmr.engine.catalog import Catalog, Found
from xmr.engine.errors import XmrError
from xmr.engine.exchange.rows import Block, Entry, rows_in_block
from xmr.engine.index.segments import Ids
from xmr.engine.index.view import View


def blocks_of(catalog: Catalog, view: View, matching: Ids | None) -> Iterator[Block]:
    """The rows of a view that may be found, in the order of their ids where it is of one modality."""
    allow = view.allowed(matching)
    rows = np.arange(len(view.gallery)) if allow is None else np.flatnonzero(allow)
    n_rows = rows_in_block(view.gallery.dim or 1)
    for start in range(0, len(rows), n_rows):
        ids = view.ids_of(rows[start : start + n_rows])
        vectors, known = view.vectors_of(ids), catalog.found(ids.tolist())
        if len(known) < len(ids):
            raise XmrError(f"{catalog.path}: rows of items that it does not know; `xmr verify` tells more")
        yield Block(vectors, [_entry(known[item]) for item in ids.tolist()])


def _entry(found: Found) -> Entry:
    place = (found.start_s, found.end_s, found.line, found.text)
    return Entry(found.path, found.modality, *place, metadata=found.metadata, id=found.id)
