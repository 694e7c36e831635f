"""The real items that exported networks are calibrated on and checked with: no item serves two of these ends."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.decode import Task, decode
from xmr.train.checkpoint import Checkpoint
from xmr.train.datasets import Row, read_rows, select, with_captions
from xmr.train.encoders import Encoder
from xmr.train.export.networks import Items
from xmr.train.model import AlignedModel

PARITY_ITEMS = 64  # of each modality
CALIBRATION_ITEMS = 256
CHOICE_ITEMS = 96  # held out of the calibration, to choose the layers of int8 by
SEED = 0  # of the order of train rows

Sources = Mapping[
    str | bytes, Path | NDArray[Any]
]  # by what tells one from another: a file, or the words of a sentence


@dataclass(frozen=True)
class Drawn:
    """Items of every modality."""

    checked: Items  # with which torch and what is exported are compared
    split: str  # of which rows these are
    calibration: Items  # whose values int8 has steps for
    choice: Items  # which the layers that are int8 have to embed alike


def draw_items(model: AlignedModel, checkpoint: Checkpoint, *, is_calibrated: bool) -> Drawn:
    """Items to check with, of the val rows where there are any; of the train rows others to calibrate on."""
    rows = [with_captions(row, checkpoint.config.captions) for row in read_rows(checkpoint.config.data)]
    train = _shuffled(select(rows, "train", model.modalities))
    val = select(rows, "val", model.modalities)
    checked: dict[str, list[NDArray[Any]]] = {}
    calibration: dict[str, list[NDArray[Any]]] = {}
    choice: dict[str, list[NDArray[Any]]] = {}
    for modality in model.modalities:
        encoder, others = model.encoder(modality), sources_of(model.encoder(modality), modality, train)
        if val:
            candidates, n_most = sources_of(encoder, modality, val), PARITY_ITEMS
        else:  # at most a third, where the rest is calibrated on
            candidates, n_most = others, min(PARITY_ITEMS, -(-len(others) // 3)) if is_calibrated else PARITY_ITEMS
        found = _decoded(encoder, modality, candidates, n_most)
        checked[modality] = list(found.values())
        if is_calibrated:
            unseen = {key: source for key, source in others.items() if key not in found}
            more = list(_decoded(encoder, modality, unseen, CALIBRATION_ITEMS + CHOICE_ITEMS).values())
            n_chosen_by = min(CHOICE_ITEMS, -(-len(more) // 3))
            choice[modality], calibration[modality] = more[:n_chosen_by], more[n_chosen_by:]
    _check(checkpoint, checked, calibration)
    return Drawn(checked, "val" if val else "train", calibration, choice)


def _check(checkpoint: Checkpoint, checked: Items, calibration: Items) -> None:
    data = ", ".join(checkpoint.config.data)
    if empty := [modality for modality, arrays in checked.items() if not arrays]:
        raise XmrError(f"{data}: no {empty[0]} to check the export with; add val rows of it")
    if empty := [modality for modality, arrays in calibration.items() if not arrays]:
        raise XmrError(f"{data}: no train rows of {empty[0]} to calibrate on; add some, or export float32 alone")


def _shuffled(rows: Sequence[Row]) -> list[Row]:
    return [rows[place] for place in np.random.default_rng(SEED).permutation(len(rows))]


def sources_of(encoder: Encoder, modality: str, rows: Sequence[Row]) -> Sources:
    """Each file of a modality once, or each sentence as the ids of its words, of which it has to have any."""
    if modality != "text":
        return {str(row.files[modality]): row.files[modality] for row in rows if modality in row.files}
    from xmr.engine.media import text

    sentences = [text.encode(caption, encoder.preprocessing) for row in rows for caption in row.captions[:1]]
    return {ids.tobytes(): ids for ids in sentences if len(ids)}


def _decoded(encoder: Encoder, modality: str, sources: Sources, n_most: int) -> dict[str | bytes, NDArray[Any]]:
    """What is in the first sources that can be read, at most so many."""
    arrays: dict[str | bytes, NDArray[Any]] = {}
    for key, source in sources.items():
        if len(arrays) == n_most:
            break
        if isinstance(source, np.ndarray):
            arrays[key] = source
            continue
        with suppress(XmrError):  # training has said so and gone on without the file
            arrays[key] = decode(Task(source, modality), encoder.preprocessing).pieces[0].array
    return arrays
