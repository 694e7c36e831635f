"""What single units of the shared layers answer to: the images, sounds and sentences that make each the strongest."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmr.train.evaluate.held_out import HeldOut
from xmr.train.report.items import shown, tag
from xmr.train.report.page import NotDrawnError, missing
from xmr.train.report.space import Sample, samples

MAX_ITEMS = 1000  # of a modality that are looked at
MAX_UNITS = 9  # in the page, of all layers
N_STRONGEST = 4  # items of a modality that are shown of a unit
BATCH_SIZE = 256
NOTHING_STANDS_OUT = "no unit of this layer stands out in every modality"

Activations = NDArray[np.float32]  # (n, width) of one layer


def hidden_units(held_out: HeldOut, seed: int = 0) -> str:
    """Units of each shared layer with the items of every modality that make them strongest."""
    found = samples(held_out, MAX_ITEMS, seed)
    if len(found) < 2:
        raise NotDrawnError("these rows have items of fewer than two modalities")
    of_modality = {sample.modality: layers(held_out, sample.modality, sample.contents) for sample in found}
    names = list(next(iter(of_modality.values())))
    n_each = max(1, MAX_UNITS // len(names))
    made = []
    for name in names:
        active = {modality: by_layer[name] for modality, by_layer in of_modality.items()}
        chosen = selective(active, n_each, N_STRONGEST)
        drawn = "".join(_unit(unit, active, found) for unit in chosen)
        made.append(f"<h3>{escape(name.capitalize())}</h3>{drawn or missing(NOTHING_STANDS_OUT)}")
    return "".join(made)


def layers(held_out: HeldOut, modality: str, contents: Sequence[Any]) -> dict[str, Activations]:
    """(n, width) of each shared layer by its name, in the order in which an item goes through them."""
    model, parts = held_out.model, []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(contents), BATCH_SIZE):
            batch = held_out.store.inputs(modality, contents[start : start + BATCH_SIZE]).to(held_out.device)
            outputs = model.embed_features(modality, model.features(modality, batch))
            parts.append([layer.float().cpu().numpy() for layer in (*outputs.layers, outputs.embeddings)])
    made = [np.concatenate(of_layer) for of_layer in zip(*parts, strict=True)]
    return dict(zip(_names(len(made) - 1, held_out), made, strict=True))


def selective(active: Mapping[str, Activations], n_units: int, n_strongest: int) -> list[int]:
    """The units whose strongest items stand out most in every modality: the least of them decides.

    An item stands out by its deviations from the unit's mean over the modality. A unit whose strongest items are, in
    any modality, mostly those of one that was chosen before it is passed over.
    """
    heights, strongest = [], {}
    for modality, rows in active.items():
        deviations = (rows - rows.mean(axis=0)) / np.where(rows.std(axis=0) > 0, rows.std(axis=0), np.inf)
        order = np.argsort(-deviations, axis=0, kind="stable")[:n_strongest]  # (n_strongest, width)
        strongest[modality] = order
        heights.append(np.take_along_axis(deviations, order, axis=0).mean(axis=0))
    least = np.min(heights, axis=0)
    chosen: list[int] = []
    for unit in np.argsort(-least, kind="stable").tolist():
        if least[unit] <= 0 or len(chosen) == n_units:
            break
        if not any(_are_alike(strongest, unit, other) for other in chosen):
            chosen.append(unit)
    return chosen


def _are_alike(strongest: Mapping[str, NDArray[np.int64]], unit: int, other: int) -> bool:
    return any(2 * len(set(order[:, unit]) & set(order[:, other])) > len(order) for order in strongest.values())


def _names(n_below: int, held_out: HeldOut) -> list[str]:
    head = held_out.model.head
    has_classes = head.classes is not None and head.embedding != "classes"
    n_hidden = n_below - has_classes
    hidden = [f"shared layer {number} of {len(head.layers)}" for number in range(1, n_hidden + 1)]
    return [*hidden, *(["class softmax"] if has_classes else []), "embedding"]


def _unit(unit: int, active: Mapping[str, Activations], found: Sequence[Sample]) -> str:
    columns = []
    for sample in found:
        values = active[sample.modality][:, unit]
        order = np.argsort(-values, kind="stable")[:N_STRONGEST].tolist()
        items = "".join(
            f"<li>{shown(sample.modality, sample.contents[place], sample.keys[place])}</li>" for place in order
        )
        columns.append(f'<div>{tag(sample.modality)}<ul class="strongest {sample.modality}">{items}</ul></div>')
    return f'<article class="unit"><h4>Unit {unit}</h4><div class="columns">{"".join(columns)}</div></article>'
