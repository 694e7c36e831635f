"""How good a model is on held-out rows: retrieval in every direction, and what the published systems asked."""

from xmr.train.evaluate.against import Baselines, baseline_records, load_baselines
from xmr.train.evaluate.directions import (
    both_ways,
    evaluate,
    evaluate_held_out,
    score_of,
)
from xmr.train.evaluate.embeddings import embed_contents
from xmr.train.evaluate.figures import retrieval
from xmr.train.evaluate.held_out import HeldOut, load_held_out, open_held_out, read_split
from xmr.train.evaluate.items import Items, matched_items
from xmr.train.evaluate.localisation import pointing_game, segmentation
from xmr.train.evaluate.looking import point_checkpoint, segment_checkpoint
from xmr.train.evaluate.pair import Pair, make_pair
from xmr.train.evaluate.protocol import Protocol
from xmr.train.evaluate.transfer import classifier_transfer, transfer_records

__all__ = [
    "Baselines",
    "HeldOut",
    "Items",
    "Pair",
    "Protocol",
    "baseline_records",
    "both_ways",
    "classifier_transfer",
    "embed_contents",
    "evaluate",
    "evaluate_held_out",
    "load_baselines",
    "load_held_out",
    "make_pair",
    "matched_items",
    "open_held_out",
    "point_checkpoint",
    "pointing_game",
    "read_split",
    "retrieval",
    "score_of",
    "segment_checkpoint",
    "segmentation",
    "transfer_records",
]
