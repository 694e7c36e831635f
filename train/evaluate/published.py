"""Figures as published systems computed them, beside which ours stand corrected.

`vsepp` (VSE++, and VASE after it) and `dsve` sort by score and read the sorting backwards, so that of equal scores the
larger row is placed first; DSVE reports the median rank counted from 0. `cmpl` counts the precision of a hit without
the hit itself, and leaves out images that have one caption only. `jc`, the public code of See, Hear, and Read, tells
which of the 64 texts of a batch an image is nearest to. In random galleries `see-hear-read`, the paper, takes the
query's own partner alone for right.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.metrics import Places, first_correct, in_order, median_rank, recall_at_k
from xmr.train.evaluate.figures import BEST, RECALLS, Outcomes, score_outcomes
from xmr.train.evaluate.pair import Pair
from xmr.train.evaluate.protocol import Part, Protocol, pair_places

JC_BATCH_SIZE = 64
CMPL_FIGURES = (*(f"R@{k}" for k in RECALLS), "mAP", "AP@50")


def published_figures(pair: Pair, query: str, part: Part, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """The figures of one direction and one part, by system."""
    asked = pair.asked(query, part[query], part[pair.other(query)])
    outcomes = pair.outcomes(query, asked, part[pair.other(query)], judge_vsepp)
    figures: dict[str, dict[str, Any]] = {"vsepp": vsepp_figures(outcomes), "dsve": dsve_figures(outcomes)}
    figures["cmpl"] = _cmpl(pair, query, part)
    if query == "image" and pair.other(query) == "text":
        figures["jc"] = _jc(pair, part, protocol.seed)
    if protocol.gallery_size is not None:
        figures["see-hear-read"] = _shr(pair, query, part)
    return figures


def judge_vsepp(scores: NDArray[Any], rows: NDArray[np.int64], correct: NDArray[np.bool_]) -> Outcomes:
    """The rank of each query's best-placed right answer, from 1, the larger row first among equal scores."""
    return {"rank": first_correct(in_order(scores, correct, "larger row", rows))}


def vsepp_figures(outcomes: Outcomes) -> dict[str, float]:
    """The median rank is a whole number: the median of the ranks counted from 0 is rounded down, then 1 is added."""
    found = outcomes["rank"]
    figures = {f"R@{k}": recall_at_k(found, k) for k in RECALLS}
    figures |= {"median_rank": float(np.floor(median_rank(found - 1)) + 1), "mean_rank": float(np.mean(found))}
    return _rounded(figures)


def dsve_figures(outcomes: Outcomes) -> dict[str, float]:
    """Recalls as VSE++ has them, and the median rank counted from 0."""
    found = outcomes["rank"]
    return _rounded({f"R@{k}": recall_at_k(found, k) for k in RECALLS} | {"median_rank": median_rank(found - 1)})


def judge_cmpl(scores: NDArray[Any], rows: NDArray[np.int64], correct: NDArray[np.bool_]) -> Outcomes:
    """Rank, average precision and the same within the best 50; among equal scores the smaller row first."""
    places = in_order(scores, correct, "smaller row", rows)
    precision = cmpl_precision(places)
    n_right = places.sum(axis=1)
    outcomes = {"rank": first_correct(places), "precision": precision.sum(axis=1) / n_right}
    return outcomes | {"at_50": precision[:, :BEST].sum(axis=1) / n_right}


def cmpl_precision(places: Places) -> NDArray[np.float64]:
    """(n_queries, k): of a hit at place p from 0, the hits among the max(1, p) places before it, over p + 1; else 0.

    A single right answer so has the average precision 1 at rank 1 and 0 anywhere else.
    """
    n_before: NDArray[np.int64] = np.cumsum(places, axis=1) - places
    n_before[:, 0] = places[:, 0]
    return np.asarray(places * n_before / np.arange(1, places.shape[1] + 1), dtype=np.float64)


def cmpl_figures(outcomes: Outcomes, n_unanswered: int) -> dict[str, float]:
    """Queries without a right answer are misses of the recalls, and have no average precision."""
    found = np.concatenate([outcomes["rank"], np.full(n_unanswered, np.iinfo(np.int64).max)])
    figures = {f"R@{k}": recall_at_k(found, k) for k in RECALLS}
    means = {"mAP": outcomes["precision"], "AP@50": outcomes["at_50"]}
    return _rounded(figures | {name: 100 * float(np.mean(values)) for name, values in means.items()})


def _cmpl(pair: Pair, query: str, part: Part) -> dict[str, Any]:
    """Sentences whose image is left out are still asked, and miss."""
    places = dict(part)
    if set(places) == {"image", "text"}:
        n_captions = Counter(pair.items["text"].ids)
        ids = pair.items["image"].ids
        places["image"] = np.array([place for place in places["image"] if n_captions[ids[place]] > 1], dtype=np.int64)
    gallery = pair.other(query)
    asked = pair.asked(query, places[query], places[gallery])
    if not len(asked):
        return {"missing": dict.fromkeys(CMPL_FIGURES, "no image has a second caption")}
    outcomes = pair.outcomes(query, asked, places[gallery], judge_cmpl)
    return cmpl_figures(outcomes, len(places[query]) - len(asked))


def _shr(pair: Pair, query: str, part: Part) -> dict[str, float]:
    """In a gallery of pairs only the query's own partner is right, whatever else has its label."""
    asked, ranked = part[query], part[pair.other(query)]
    numbers = np.arange(len(asked))
    outcomes = score_outcomes(lambda places: pair.similarities(query, asked[places], ranked), numbers, numbers, numbers)
    found = outcomes["rank"]
    figures = {f"R@{k}": recall_at_k(found, k) for k in RECALLS}
    return _rounded(figures | {"median_rank": median_rank(found), "mean_rank": float(np.mean(found))})


def _jc(pair: Pair, part: Part, seed: int) -> dict[str, Any]:
    """Percent of the pairs whose image is nearest to its own text among the 64 of its batch, drawn one to one.

    The pairs that fill no batch are not asked, but counted, as the published code does.
    """
    images, texts = (pair.items[name].at(part[name]) for name in ("image", "text"))
    places = pair_places(images, texts, np.random.default_rng(seed))
    n_asked = len(places) // JC_BATCH_SIZE * JC_BATCH_SIZE
    if not n_asked:
        return {"missing": {"top-1": f"{len(places)} pairs are there, batches have {JC_BATCH_SIZE}"}}
    n_right = 0
    for start in range(0, n_asked, JC_BATCH_SIZE):
        batch = slice(start, start + JC_BATCH_SIZE)
        nearest = pair.similarities("image", part["image"][places[batch, 0]], part["text"][places[batch, 1]]).argmax(
            axis=1
        )
        n_right += int((nearest == np.arange(JC_BATCH_SIZE)).sum())
    return {"top-1": round(100 * n_right / len(places), 4)}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}
