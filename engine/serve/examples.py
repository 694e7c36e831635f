"""What a newcomer can begin with: items and sentences of the index itself."""

from typing import Any

from xmr.engine.index import Index
from xmr.engine.serve.place import shown_path

N_ITEMS = 4  # of each modality
N_LOOKED_AT = 64  # of the texts
N_SENTENCES = 4
MAX_SENTENCE = 80  # characters


class Examples:
    """Drawn anew once the index has changed; asked by the one thread that looks items up."""

    def __init__(self) -> None:
        self._version = ""
        self._drawn: dict[str, Any] = {}

    def of(self, index: Index) -> dict[str, Any]:
        if (version := index.version()) != self._version:
            self._drawn, self._version = drawn(index), version
        return self._drawn


def drawn(index: Index) -> dict[str, Any]:
    """`items` with id, modality, path and text, a few of each modality; and `sentences`, if texts are indexed."""
    ids = [item for modality in index.counts() for item in index.some_items(modality, N_ITEMS)]
    found, files = index.found(ids), index.files_of(ids)
    items = [
        {"id": item, "modality": found[item].modality, "path": shown_path(files[item]), "text": found[item].text}
        for item in ids
        if item in found and item in files and files[item].root is not None  # there is something to show of it
    ]
    return {"items": items, "sentences": _sentences(index)}


def _sentences(index: Index) -> list[str]:
    texts = [known.text or "" for known in index.found(index.some_items("text", N_LOOKED_AT)).values()]
    return list(dict.fromkeys(text for text in texts if 0 < len(text) <= MAX_SENTENCE))[:N_SENTENCES]
