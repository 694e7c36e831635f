"""What an exported model says of itself: config.json for the engine, and the model card for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xmr.engine.files import sha256_of
from xmr.engine.media import MODALITIES
from xmr.engine.model import CLASS_PROBABILITIES, FORMAT, UNIT_EMBEDDING
from xmr.engine.trt import PLANS
from xmr.train.checkpoint import Checkpoint
from xmr.train.encoders import Encoder
from xmr.train.export.folder import WORDS_NAME
from xmr.train.export.networks import FEATURES, MAP, file_of, map_file_of
from xmr.train.export.parity import ROUNDED, Parity
from xmr.train.model import AlignedModel
from xmr.train.places import Places, steps_s

BATCHES = (1, 32, 256)  # fewest, usual and most items that TensorRT runs at once


def config_of(
    name: str, checkpoint: Checkpoint, model: AlignedModel, places: Mapping[str, Places], served: Mapping[str, Any]
) -> dict[str, Any]:
    """config.json, without the sums of files that are still to be written."""
    head_outputs = {"embedding": UNIT_EMBEDDING}
    if model.head.classes is not None:
        head_outputs["classes"] = CLASS_PROBABILITIES
    modalities = {}
    for modality in model.modalities:
        modalities[modality] = _modality_config(model.encoder(modality), modality) | {"served": served[modality]}
        if modality in places:
            modalities[modality]["maps"] = _map_config(model.encoder(modality), modality, places[modality])
    return {
        "format": FORMAT,
        "xmr_version": version("xmr"),
        "name": name,
        "dim": model.dim,
        "modalities": modalities,
        "head": {"file": file_of("head"), "input": FEATURES, "outputs": head_outputs},
        "recipe": checkpoint.config.recipe,
        "metrics": checkpoint.state.get("metrics"),
    }


def sums_of(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, by its name in it; plans have facts beside them, and are built at will."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and folder / PLANS not in path.parents)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _modality_config(encoder: Encoder, modality: str) -> dict[str, Any]:
    preprocessing = asdict(encoder.preprocessing)
    if "vocabulary" in preprocessing:
        preprocessing["vocabulary"] = WORDS_NAME
    image_shape = ["batch", preprocessing.get("size"), preprocessing.get("size"), 3]
    shapes = {
        "image": (image_shape, "uint8"),
        "audio": (["batch", "time"], "float32"),
        "text": (["batch", "time"], "int64"),
    }
    shape, dtype = shapes[MODALITIES[modality].medium]
    return {
        "medium": MODALITIES[modality].medium,
        "file": file_of(modality),
        "input": {"name": modality, "shape": shape, "dtype": dtype},
        "preprocessing": preprocessing,
        "profile": {"batch": list(BATCHES)} | _times(encoder, modality),
    }


def _times(encoder: Encoder, modality: str) -> dict[str, list[int]]:
    """How long inputs of TensorRT may be: words from one to all that are read, samples as many as fill a window."""
    medium, preprocessing = MODALITIES[modality].medium, encoder.preprocessing
    if medium == "text":
        most = int(preprocessing.max_words)
        return {"time": [1, min(16, most), most]}
    if medium == "audio":
        return {"time": [round(preprocessing.window_s * preprocessing.rate_hz)] * 3}
    return {}


def _map_config(encoder: Encoder, modality: str, places: Places) -> dict[str, Any]:
    config = {"file": map_file_of(modality), "output": MAP, "gives": places.gives}
    if MODALITIES[modality].medium != "audio":
        return config
    first_s, step_s = steps_s(encoder)
    return config | {"first_s": first_s, "step_s": step_s}


def model_card(name: str, checkpoint: Checkpoint, model: AlignedModel, results: Sequence[Parity]) -> str:
    metrics = (checkpoint.state.get("metrics") or {}).get("val", [])
    lines = [
        f"- {record['query']} to {record['gallery']}: R@10 {record['R@10']:.1f} %, median rank "
        f"{record['median_rank']:.0f} of {record['n_gallery']}, mAP {record['mAP']:.1f} % "
        f"(a random ranking: {record['random']['mAP']:.1f} %)"
        for record in metrics
    ]
    sources = "\n".join(f"- {Path(source).name}" for source in checkpoint.config.data)
    return f"""# {name}

A cross-modal retrieval model: {", ".join(model.modalities)} in one space of {model.dim} dimensions, compared by cosine.
Trained by xmr {version("xmr")} with the recipe `{checkpoint.config.recipe}`; open it with `xmr index` and `xmr query`.

## Data

{sources}

## Licence

That of the data and of the pretrained weights it was trained from; neither is changed by training.

## Metrics on the val rows

{chr(10).join(lines) or "No val rows were there."}

## Precisions

Smallest cosine to what the trained network makes of the same items, and how many of the ten nearest others both find.
Nothing was calibrated on these items. `{ROUNDED}` is the network as a GPU computes it, every half number rounded; a
runtime by which a precision is off is not offered it.

{_precisions(results)}

## Limits

It knows what its training data shows, sounds and says. Scores of different modalities are not calibrated against each
other. Words outside vocab.txt are not read.
"""


def _precisions(results: Sequence[Parity]) -> str:
    """A table; four digits, so that exports on one machine differ by no rounding."""
    head = "| modality | precision | runtime | items | cosine | top 10 |\n| --- | --- | --- | --- | --- | --- |"
    rows = [
        f"| {of.modality} | {of.precision} | {of.runtime}{', not offered' if of.missed else ''} "
        f"| {of.n_items} {of.split} | {of.min_cosine:.4f} | {_percent(of.top10_overlap)} |"
        for of in results
    ]
    return "\n".join([head, *rows])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1f} %"
