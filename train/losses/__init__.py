"""Losses of pairs, of class logits and of reconstructions. Rows are used as given: the caller normalises.

`ids` say what belongs together: rows of equal id are never negatives of one another. None: every row is its own, and
duplicates in a batch are negatives, as in most published code. Each loss is a sum or a mean as in its source.
"""

from collections.abc import Callable
from typing import Any

from xmr.train.losses.contrastive import info_nce, sigmoid
from xmr.train.losses.margins import Diagonal, hardest_negative, ranking, sampled_impostors, semi_hard
from xmr.train.losses.matchmaps import MatchKind, matchmap, matchmap_similarity
from xmr.train.losses.projection import CMPM_EPS, SQUARED_NORM_FLOOR, cmpc, cmpm
from xmr.train.losses.rebuilding import LEAK, RECONSTRUCTION_EPS, WeightAxis, reconstruction
from xmr.train.losses.scores import BLOCK_ELEMENTS, Similarity, similarities
from xmr.train.losses.transfer import kl_transfer

__all__ = [
    "BLOCK_ELEMENTS",
    "CMPM_EPS",
    "LEAK",
    "LOSSES",
    "RECONSTRUCTION_EPS",
    "SQUARED_NORM_FLOOR",
    "Diagonal",
    "MatchKind",
    "Similarity",
    "WeightAxis",
    "cmpc",
    "cmpm",
    "hardest_negative",
    "info_nce",
    "kl_transfer",
    "matchmap",
    "matchmap_similarity",
    "ranking",
    "reconstruction",
    "sampled_impostors",
    "semi_hard",
    "sigmoid",
    "similarities",
]

# cmpm and cmpc give two losses, one for each direction
LOSSES: dict[str, Callable[..., Any]] = {
    "ranking": ranking,
    "hardest_negative": hardest_negative,
    "semi_hard": semi_hard,
    "sampled_impostors": sampled_impostors,
    "info_nce": info_nce,
    "sigmoid": sigmoid,
    "cmpm": cmpm,
    "cmpc": cmpc,
    "kl_transfer": kl_transfer,
    "reconstruction": reconstruction,
}
