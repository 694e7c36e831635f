"""Baselines in every direction, on the features, the splits and the protocol of the model that they stand beside.

Random; linear regression of the gallery's features on the query's; canonical correlations, plain and normalised (Gong
et al. 2014, section 3.3). All rank by cosine. Modalities that no training row pairs meet through a third, as texts and
sounds do in See, Hear, and Read (Aytar, Vondrick, Torralba 2017): a regression on to it and from there on; and, of
canonical correlations, what either side says of the third modality's features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.baselines import Array
from xmr.train.batches import Progress, load_store
from xmr.train.checkpoint import Checkpoint
from xmr.train.config import stage_configs
from xmr.train.datasets import read_rows, select, with_captions
from xmr.train.evaluate.directions import ALL_AGAINST_ALL
from xmr.train.evaluate.figures import mean_figures, summary
from xmr.train.evaluate.fitted import (
    LINEAR,
    POWERS,
    Correlated,
    Linear,
    Matched,
    PairFit,
    Part,
    Rows,
    fit_pair,
    matched,
)
from xmr.train.evaluate.held_out import HeldOut
from xmr.train.evaluate.plain import Bag, PlainFeatures
from xmr.train.evaluate.protocol import Protocol, parts

KIND = "baseline"
RANDOM, MODEL = "random", "model"
METHODS = (LINEAR, *POWERS)
# what a record has in common with the model's
SAME = ("query", "gallery", "n_queries", "n_gallery", "folds", "fold_size", "galleries", "gallery_size", "seed")
CHOSEN_ON = "val"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RegressedThrough:
    """Two regressions, each chosen for its own pair: the second goes on from the features the first predicts."""

    first: Linear  # of the query and the modality in between
    second: Linear  # of that and the gallery

    def spaces(self, features: Mapping[str, Rows]) -> dict[str, Array]:
        query, gallery, standard = self.first.query, self.second.gallery, self.second.map.b
        return {query: standard(self.predicted(features[query])), gallery: standard(features[gallery])}

    def predicted(self, features: Rows) -> Array:
        """(n, d) of the query -> (n, d') of the gallery."""
        return self.second.predicted(self.first.predicted(features))

    @property
    def chosen(self) -> list[dict[str, float]]:
        return [*self.first.chosen, *self.second.chosen]


@dataclass(frozen=True)
class CorrelatedThrough:
    """Two sets of canonical correlations, each chosen for its own pair, that meet in the modality in between.

    A text's canonical variables stand for those of its image, a sound's for those of its own: either set is expanded to
    the features of an image, standardised, where the two can be held against each other.
    """

    query: str
    gallery: str
    first: Correlated  # of the query and the modality in between
    second: Correlated  # of that and the gallery

    def spaces(self, features: Mapping[str, Rows]) -> dict[str, Array]:
        ends = ((self.query, self.first), (self.gallery, self.second))
        return {modality: correlated.across(modality, features[modality]) for modality, correlated in ends}

    @property
    def chosen(self) -> list[dict[str, float]]:
        return [*self.first.chosen, *self.second.chosen]


Regressed = Linear | RegressedThrough


@dataclass(frozen=True)
class Baselines:
    """What was fitted for every two modalities, why nothing was for the others, and on which rows it is shown."""

    modalities: Sequence[str]
    train: Part
    asked: Part
    fits: Mapping[frozenset[str], PairFit]
    reasons: Mapping[frozenset[str], str]

    def way(self, query: str, gallery: str) -> tuple[str, ...]:
        """From one modality to the other where rows pair them, else through the first that is paired with both."""
        ways = [(query, gallery), *((query, other, gallery) for other in self.modalities)]
        return next((way for way in ways if all(frozenset(step) in self.fits for step in pairwise(way))), ())

    def regressed(self, query: str, gallery: str) -> Regressed | None:
        steps = [self.fits[frozenset(step)].linear[step] for step in pairwise(self.way(query, gallery))]
        return RegressedThrough(*steps) if len(steps) == 2 else steps[0] if steps else None

    def correlated(self, name: str, query: str, gallery: str) -> Correlated | CorrelatedThrough | None:
        steps = [self.fits[frozenset(step)].correlated[name] for step in pairwise(self.way(query, gallery))]
        return CorrelatedThrough(query, gallery, *steps) if len(steps) == 2 else steps[0] if steps else None

    def method(self, name: str, query: str, gallery: str) -> Regressed | Correlated | CorrelatedThrough | None:
        """How a method compares two modalities; None where it can't."""
        return self.regressed(query, gallery) if name == LINEAR else self.correlated(name, query, gallery)


def load_baselines(
    held_out: HeldOut,
    checkpoint: Checkpoint,
    sources: Sequence[str],
    split: str,
    cache: Path,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> Baselines:
    """Baselines of the train rows of the sources, chosen on their val rows, to be shown on `held_out`, rows of `split`.

    XmrError where the sources have no train rows. Files that cannot be read are left out with a sentence to `note`.
    """
    model = held_out.model
    rows = [with_captions(row, checkpoint.config.captions) for row in read_rows(sources, cache, lambda _: None)]
    wanted = {name: select(rows, name, model.modalities) for name in ("train", CHOSEN_ON)}
    if not wanted["train"]:
        raise XmrError(f"{', '.join(sources)}: no train rows to fit baselines on; add --data that has some")
    both = [row for of_split in wanted.values() for row in of_split]
    finetuned = {modality for stage in stage_configs(checkpoint.config) for modality in stage.finetune}
    # with the views of frozen trunks that were made for training, so that no trunk runs again
    store, readable, errors = load_store(model, both, cache, held_out.device, progress, with_views=not finetuned)
    for sentence in errors:
        note(f"skipped: {sentence}")
    bag = Bag.of(caption for row in wanted["train"] for caption in row.captions)
    features = PlainFeatures.of(model, store, bag, finetuned)
    train, val = (Part(name, [row for row in readable if row.split == name], features) for name in wanted)
    asked = Part(split, held_out.rows, PlainFeatures.of(model, held_out.store, bag, finetuned))
    return fit_baselines(model.modalities, train, val, asked, progress)


def fit_baselines(
    modalities: Sequence[str], train: Part, val: Part, asked: Part, progress: Progress = terminal.progress_bar
) -> Baselines:
    """The baselines of every two modalities."""
    pairs = list(combinations(modalities, 2))
    found: dict[frozenset[str], PairFit | str] = {}
    with progress("baselines") as show:
        for n_done, (a, b) in enumerate(pairs, start=1):
            found[frozenset((a, b))] = fit_pair(train, val, a, b)
            show(n_done, len(pairs))
    fits = {pair: fit for pair, fit in found.items() if isinstance(fit, PairFit)}
    return Baselines(modalities, train, asked, fits, {pair: why for pair, why in found.items() if isinstance(why, str)})


def baseline_records(
    baselines: Baselines, records: Sequence[Record], protocol: Protocol = ALL_AGAINST_ALL
) -> list[dict[str, Any]]:
    """Beside each direction of the model's records: random, the baselines and the model, one record a method.

    A record has the figures; the strength and dimension `chosen`, and the split they were `chosen_on`; the modality
    `through` which two meet; `gain`, the method's median rank divided by the model's. Figures that can't be computed
    have their reason in `missing`.
    """
    return [made for record in records if "kind" not in record for made in _of_direction(baselines, record, protocol)]


def _of_direction(baselines: Baselines, record: Record, protocol: Protocol) -> Iterator[dict[str, Any]]:
    query, gallery = record["query"], record["gallery"]
    known = {"kind": KIND} | {name: record[name] for name in SAME if name in record} | {"split": baselines.asked.split}
    items = matched(baselines.asked, *(name for name in baselines.modalities if name in (query, gallery)))
    assert items is not None, "the model has ranked these"
    yield {**known, "method": RANDOM, **_with_gain(record["random"], record)}
    for name in METHODS:
        yield {**known, "method": name, **_of_method(baselines, name, items, record, protocol)}
    yield {**known, "method": MODEL, **_with_gain({name: record[name] for name in record["random"]}, record)}


def _of_method(baselines: Baselines, name: str, items: Matched, record: Record, protocol: Protocol) -> dict[str, Any]:
    query, gallery = record["query"], record["gallery"]
    method, way = baselines.method(name, query, gallery), baselines.way(query, gallery)
    if method is None:
        return {"missing": dict.fromkeys(record["random"], baselines.reasons[frozenset((query, gallery))])}
    figures = _figures(items, query, method.spaces(items.features), protocol)
    n_pairs = [baselines.fits[frozenset(step)].n_pairs for step in pairwise(way)]
    return {
        **_with_gain(figures, record),
        **({"through": way[1]} if len(way) == 3 else {}),
        "n_pairs": n_pairs,
        "features": {modality: baselines.asked.features.named(modality) for modality in way},
        "chosen": method.chosen,
        "chosen_on": CHOSEN_ON,
    }


def _with_gain(figures: Record, record: Record) -> dict[str, Any]:
    """With the median rank divided by the model's: how many times better the model is."""
    return {**figures, "gain": round(figures["median_rank"] / record["median_rank"], 4)}


def _figures(items: Matched, query: str, spaces: Mapping[str, Array], protocol: Protocol) -> dict[str, float]:
    """The figures of a direction under the protocol, means over its parts."""
    pair = items.pair(spaces).with_means(protocol.averaged)
    (a, b), gallery, found = pair.items, pair.other(query), []
    for part in parts(a, b, pair.items, protocol)[0]:
        asked = pair.asked(query, part[query], part[gallery])
        if len(asked):
            outcomes = pair.outcomes(query, asked, part[gallery])
            found.append((len(asked), summary(outcomes, pair.keys(query, asked), len(part[gallery]))))
    weights = [part[0] for part in found] if protocol.keep_tail else None
    figures: dict[str, float] = mean_figures([part[1] for part in found], weights)
    return figures
