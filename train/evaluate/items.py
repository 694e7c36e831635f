"""What is asked and what is ranked: the items of two modalities, and which are right answers to which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xmr.train.datasets import LABEL, Row


@dataclass(frozen=True)
class Items:
    """What is asked or ranked: files or sentences, and for each the key that its right answers share."""

    contents: list[Any]
    keys: list[str]
    ids: Sequence[str] = ()  # of the row that each was first met in
    n_unmatched: int = 0  # others of the modality, left out because nobody knows what they are right answers to

    def at(self, places: Iterable[int]) -> "Items":
        """Those at these places."""
        chosen = list(places)
        contents, keys = ([of[place] for place in chosen] for of in (self.contents, self.keys))
        return Items(contents, keys, [self.ids[place] for place in chosen] if self.ids else (), self.n_unmatched)

    def among(self, keys: set[str]) -> "Items":
        """Those of these keys; the others are counted as unmatched."""
        kept = self.at(place for place, key in enumerate(self.keys) if key in keys)
        return Items(kept.contents, kept.keys, kept.ids, self.n_unmatched + len(self.keys) - len(kept.keys))


def matched_items(rows: Sequence[Row], a: str, b: str) -> tuple[Items, Items]:
    """The items of two modalities that can be held against each other, each file or sentence of a key once.

    Where rows pair the two, those rows decide: their label, else their id. Where none does, they are matched through
    what they share with a third modality: a label of the row itself, or of a row with the same id. Then what has no
    label is left out where labels match, because nobody knows what it would be a right answer to.
    """
    direct = [row for row in rows if {a, b} <= set(row.modalities)]
    label_of_id = {row.id: row.key for row in rows if row.label is not None}
    of_a, of_b = (
        _unique(
            row_items for row in direct or rows for row_items in _items(row, modality, {} if direct else label_of_id)
        )
        for modality in (a, b)
    )
    kinds = {is_label(key) for key in set(of_a.keys) & set(of_b.keys)}
    comparable = {key for key in (*of_a.keys, *of_b.keys) if is_label(key) in kinds}
    return of_a.among(comparable), of_b.among(comparable)


def is_label(key: str) -> bool:
    """Whether a key is a label, and no id."""
    return key.startswith(LABEL)


def row_contents(row: Row, modality: str) -> Sequence[Any]:
    """The file of a modality, or the captions; nothing where the row has none."""
    if modality == "text":
        return row.captions
    return [row.files[modality]] if modality in row.files else []


def _items(row: Row, modality: str, label_of_id: dict[str, str]) -> list[tuple[Any, str, str]]:
    key = row.key if row.label is not None else label_of_id.get(row.id, row.key)
    return [(content, key, row.id) for content in row_contents(row, modality)]


def _unique(items: Iterable[tuple[Any, str, str]]) -> Items:
    """Each content of a key once: a sentence said of two images stays two items, a sound paired twice is one."""
    first_id: dict[tuple[Any, str], str] = {}
    for content, key, id_ in items:
        first_id.setdefault((content, key), id_)
    return Items([content for content, _ in first_id], [key for _, key in first_id], list(first_id.values()))
