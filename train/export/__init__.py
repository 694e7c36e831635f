"""Checkpoint -> exported model folder: ONNX networks in the precisions asked for, checked against torch.

graphs, half and int8 make one precision of another, networks writes them all, parity holds them against torch.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.model import CARD_NAME, CONFIG_NAME
from xmr.train.checkpoint import Checkpoint, model_tensors, restore_model
from xmr.train.config import stage_configs
from xmr.train.export.card import config_of, model_card, sums_of
from xmr.train.export.folder import WEIGHTS_NAME, WORDS_NAME, replaced
from xmr.train.export.gates import FEWEST_ITEMS
from xmr.train.export.items import Drawn, draw_items
from xmr.train.export.networks import Note, ServedHead, Wishes, served_map, write_maps, write_networks, write_served
from xmr.train.export.parity import Parity, check_apart, parity_of, parity_of_plans, refuse, untried
from xmr.train.model import AlignedModel
from xmr.train.objective import comparison_of
from xmr.train.places import Places, places_of

__all__ = ["Parity", "ServedHead", "Wishes", "default_name", "export"]

FLOAT32_ALONE = Wishes()
GPU = "cuda:0"

Report = Callable[[Sequence[Parity]], None]


def export(
    checkpoint: Checkpoint,
    folder: Path,
    name: str,
    wishes: Wishes = FLOAT32_ALONE,
    *,
    note: Note = lambda sentence: None,
    report: Report = lambda results: None,
) -> list[Parity]:
    """Write the exported model folder, replacing one that is there.

    `report` gets what was compared before it is judged; XmrError where a precision misses its gate by every runtime
    that it is for, or a plan cannot be built, and then nothing is written.
    """
    model = restore_model(checkpoint).eval()
    places = {name: of for name in model.modalities if (of := places_of(model, name)) is not None}
    _tell(model, places, checkpoint, note)
    with replaced(folder) as unborn:
        items = draw_items(model, checkpoint, is_calibrated=wishes.needs_calibration)
        _tell_items(items, note)
        note(f"exporting {', '.join([*model.modalities, 'head'])}")
        served = _write_all(model, places, items, unborn, wishes, note)
        config = config_of(name, checkpoint, model, places, served)
        _write_config(config, unborn)
        maps = {name: served_map(model, name, of) for name, of in places.items()}
        results = parity_of(model, maps, unborn, config, items.checked, items.split)
        report(results)
        _judge(config, results, note)
        check_apart(model, unborn, items.checked)
        if wishes.tensorrt:
            results += _add_plans(model, unborn, config, items, results, note, report)
        if missing := untried(config, results):
            note(f"not tried, as nothing here can run it: {', '.join(missing)}")
        card = model_card(name, checkpoint, model, results)
        (unborn / CARD_NAME).write_text(card, encoding="utf-8")
        _write_config(config, unborn)
        return results


def _tell(model: AlignedModel, places: Mapping[str, Places], checkpoint: Checkpoint, note: Note) -> None:
    comparison = comparison_of(stage_configs(checkpoint.config))
    if comparison != "dot":
        trained = "as order embeddings" if comparison == "order" else f"by {comparison} of maps"
        note(f"trained {trained}, but what is exported is ranked by cosine; expect lower recalls than at eval")
    for modality in model.modalities:
        if modality not in places and MODALITIES[modality].medium != "text":
            note(f"the encoder of {modality} keeps no places apart, so no map of it is exported to localize with")


def _tell_items(items: Drawn, note: Note) -> None:
    if items.split != "val":
        note("no val rows are there, so the export is checked on train rows, of which none is calibrated on")
    for modality, arrays in items.checked.items():
        if len(arrays) < FEWEST_ITEMS:
            note(f"{modality}: checked on {len(arrays)} items only, {FEWEST_ITEMS} tell more; add {items.split} rows")


def _write_all(
    model: AlignedModel, places: Mapping[str, Places], items: Drawn, folder: Path, wishes: Wishes, note: Note
) -> dict[str, dict[str, Any]]:
    """Networks, words and weights; by modality, what serves it."""
    (folder / "onnx").mkdir()
    write_networks(model, items.checked, folder)
    write_maps({name: served_map(model, name, of) for name, of in places.items()}, items.checked, folder)
    if "text" in model.modalities:
        vocabulary = model.encoder("text").preprocessing.vocabulary
        (folder / WORDS_NAME).write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / WEIGHTS_NAME)
    return write_served(model.modalities, items.calibration, items.choice, folder, wishes, note)


def _write_config(config: dict[str, Any], folder: Path) -> None:
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    whole = config | {"sha256": sums_of(folder)}
    (folder / CONFIG_NAME).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def _judge(config: dict[str, Any], results: Sequence[Parity], note: Note) -> None:
    """Withdraw a precision from the runtimes by which it is off; XmrError where none is left by which it is alike."""

    def network_of(of: Parity) -> tuple[str, str]:
        return of.modality, of.precision

    for (modality, precision), group in groupby(sorted(results, key=network_of), key=network_of):
        of = list(group)
        missed = [result for result in of if result.missed]
        off = {runtime for result in missed for runtime in result.stands_for}
        alike = {runtime for result in of for runtime in result.stands_for} - off
        # float32 by ONNX Runtime is what an exported model always has, and what gives its maps
        if not alike or (precision == "float32" and "onnxruntime" in off):
            refuse(missed[0])
        way = config["modalities"][modality]["served"][precision]
        for result in missed:
            if withdrawn := [runtime for runtime in way["runtimes"] if runtime in result.stands_for]:
                note(f"{modality}: {precision} is not offered to {' and '.join(withdrawn)}, for {result.missed}")
                way["runtimes"] = [runtime for runtime in way["runtimes"] if runtime not in withdrawn]


def _add_plans(
    model: AlignedModel,
    folder: Path,
    config: dict[str, Any],
    items: Drawn,
    results: Sequence[Parity],
    note: Note,
    report: Report,
) -> list[Parity]:
    """Build the plans of what is offered to TensorRT; compare them too, where there is a GPU."""
    from xmr.engine.trt import PLANS, make_plans
    from xmr.engine.trt.build import compute_capability

    _write_config(config, folder)
    make_plans(folder, json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")), note=note)
    if compute_capability() is None:
        return []
    of_plans = parity_of_plans(model, folder, config, items.checked, items.split, GPU)
    report(of_plans)
    _judge(config, [*results, *of_plans], note)
    _check_offered(config)
    for of in of_plans:
        if of.missed:
            for path in (folder / PLANS).glob(f"{of.modality}.{of.precision}.*"):
                path.unlink()
    return of_plans


def _check_offered(config: Mapping[str, Any]) -> None:
    """XmrError for a modality that TensorRT serves in no precision, though that was asked for."""
    for modality, part in config["modalities"].items():
        if not any("tensorrt" in way["runtimes"] for way in part["served"].values()):
            raise XmrError(f"{modality}: no plan of it is like torch; nothing was written, export without --trt")


def default_name(checkpoint: Checkpoint) -> str:
    """Recipe and a digest of the weights, so that two trainings have two names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model_tensors(checkpoint).items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return f"{checkpoint.config.recipe}-{digest.hexdigest()[:8]}"
