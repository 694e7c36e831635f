"""How held-out rows are asked: all against all, in folds of so many ids, or in random galleries of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.train.evaluate.items import Items, is_label

Part = Mapping[str, NDArray[np.int64]]  # by modality, the items that one part of a protocol is about


class UnrankedError(XmrError):
    """Two modalities that cannot be ranked in the way that was asked for."""


@dataclass(frozen=True)
class Protocol:
    """The way of asking; as it stands, every query is ranked against everything."""

    fold_size: int | None = None  # ids of a fold, in the order of the rows; 1,000 are the 1K of COCO
    keep_tail: bool = False  # the ids that fill no fold are a smaller one, which counts as much as its queries are
    gallery_size: int | None = None  # pairs drawn at random for a gallery (See, Hear, and Read: 1,000)
    repeats: int = 5  # galleries that are drawn
    seed: int = 0
    averaged: tuple[str, ...] = ()  # modalities whose items of one id are averaged to one
    faithful: bool = False  # also the figures as published systems computed them


def parts(a: str, b: str, items: Mapping[str, Items], protocol: Protocol) -> tuple[list[Part], dict[str, Any]]:
    """The parts whose figures are averaged, and what a record says of them; UnrankedError where there is none."""
    if protocol.fold_size is not None:
        return _folds(a, b, items, protocol.fold_size, keep_tail=protocol.keep_tail)
    if protocol.gallery_size is not None:
        return _galleries(a, b, items, protocol.gallery_size, protocol.repeats, protocol.seed)
    return [{modality: np.arange(len(of.keys)) for modality, of in items.items()}], {}


def pair_places(items_a: Items, items_b: Items, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n, 2): places of items that belong together, one to one, in random order; no item is in two of them.

    An id gives one pair, drawn among its items. What is left over and has a label is paired at random within it.
    """
    by_id = _drawn(items_a.ids, items_b.ids, rng, 1)
    used_a, used_b = ({pair[side] for pair in by_id} for side in (0, 1))
    labels_a, labels_b = (
        ["" if place in used or not is_label(key) else key for place, key in enumerate(items.keys)]
        for items, used in ((items_a, used_a), (items_b, used_b))
    )
    pairs = by_id + _drawn(labels_a, labels_b, rng, None)
    return rng.permutation(np.array(pairs, dtype=np.int64).reshape(-1, 2))


def _folds(
    a: str, b: str, items: Mapping[str, Items], size: int, *, keep_tail: bool
) -> tuple[list[Part], dict[str, Any]]:
    if not set(items[a].ids) & set(items[b].ids):
        raise UnrankedError(f"{a} and {b} share no id, only labels, so that no fold can be cut; draw galleries instead")
    ids = list(dict.fromkeys(chain(items[a].ids, items[b].ids)))
    if len(ids) < size:
        raise UnrankedError(f"a fold of {size} ids was asked for, {a} and {b} have {len(ids)}; give at most that")
    n_whole, n_left = divmod(len(ids), size)
    n_folds = n_whole + (1 if keep_tail and n_left else 0)
    fold_of_id = {id_: place // size for place, id_ in enumerate(ids)}
    fold_of = {modality: np.array([fold_of_id[id_] for id_ in of.ids]) for modality, of in items.items()}
    folds: list[Part] = [
        {modality: np.flatnonzero(of == fold) for modality, of in fold_of.items()} for fold in range(n_folds)
    ]
    return folds, {"folds": n_folds, "fold_size": size, "n_ids_left_out": 0 if keep_tail else n_left}


def _galleries(
    a: str, b: str, items: Mapping[str, Items], size: int, repeats: int, seed: int
) -> tuple[list[Part], dict[str, Any]]:
    drawn: list[Part] = []
    for repeat in range(repeats):
        pairs = pair_places(items[a], items[b], np.random.default_rng([seed, repeat]))
        if len(pairs) < size:
            raise UnrankedError(
                f"galleries of {size} pairs were asked for, {a} and {b} have {len(pairs)}; give at most that"
            )
        drawn.append({a: pairs[:size, 0], b: pairs[:size, 1]})
    return drawn, {"galleries": repeats, "gallery_size": size, "seed": seed}


def _drawn(
    of_a: Sequence[str], of_b: Sequence[str], rng: np.random.Generator, n_most: int | None
) -> list[tuple[int, int]]:
    """Pairs of places that have the same name, at random, of each name at most so many; an empty name pairs nothing."""
    places: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in of_a if name}
    for side, names in enumerate((of_a, of_b)):
        for place, name in enumerate(names):
            if name in places:
                places[name][side].append(place)
    pairs: list[tuple[int, int]] = []
    for in_a, in_b in places.values():
        n = min(len(in_a), len(in_b), n_most or len(in_a))
        pairs.extend(zip(rng.permutation(in_a)[:n].tolist(), rng.permutation(in_b)[:n].tolist(), strict=True))
    return pairs
