"""Checkpoint -> exported model folder: an ONNX file per encoder and one for the head, checked against torch."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.media import MODALITIES
from xmr.engine.media.decode import Task, decode
from xmr.engine.model import (
    CARD_NAME,
    CLASS_PROBABILITIES,
    CONFIG_NAME,
    FORMAT,
    UNIT_EMBEDDING,
    Model,
    read_config,
)
from xmr.engine.runtime import Network
from xmr.engine.search import top_k
from xmr.train.checkpoint import Checkpoint, model_tensors, restore_model
from xmr.train.config import stage_configs
from xmr.train.datasets import Row, read_rows, select, with_captions
from xmr.train.encoders import Encoder
from xmr.train.model import AlignedModel, Head
from xmr.train.objective import comparison_of
from xmr.train.onnx_network import to_onnx
from xmr.train.places import SHARES, Places, UnitShares, places_of, steps_s

GATE = 0.9999  # smallest cosine between what torch and the exported network make of one item
PARITY_ITEMS = 64  # of each modality
PLANS = "plans"  # folder of the TensorRT plans, which are built for the networks and go with them
WEIGHTS_NAME = "model.safetensors"
FEATURES = "features"  # output of an encoder, input of the head
MAP = "map"  # output of the networks that give maps


@dataclass(frozen=True)
class Parity:
    """How alike torch and the exported model embed the same items of one modality."""

    modality: str
    n_items: int
    min_cosine: float
    top10_overlap: float  # percent of the ten nearest items that both find
    min_map_cosine: float | None = None  # of the maps of an item, where there are maps


def export(
    checkpoint: Checkpoint, folder: Path, name: str, *, note: Callable[[str], None] = lambda sentence: None
) -> list[Parity]:
    """Write the exported model folder, replacing one that is there; nothing is written if the parity gate is missed."""
    model = restore_model(checkpoint).eval()
    comparison = comparison_of(stage_configs(checkpoint.config))
    if comparison != "dot":
        trained = "as order embeddings" if comparison == "order" else f"by {comparison} of maps"
        note(f"trained {trained}, but what is exported is ranked by cosine; expect lower recalls than at eval")
    items = _parity_items(model, checkpoint)
    places = {name: of for name in model.modalities if (of := places_of(model, name)) is not None}
    for modality in model.modalities:
        if modality not in places and MODALITIES[modality].medium != "text":
            note(f"the encoder of {modality} keeps no places apart, so no map of it is exported to localize with")
    with _replaced(folder) as unborn:
        (unborn / "onnx").mkdir()
        note(f"exporting {', '.join([*model.modalities, 'head'])}")
        _write_networks(model, items, unborn)
        maps = {name: _served_map(model, name, of) for name, of in places.items()}
        _write_maps(maps, items, unborn)
        _write_words(model, unborn)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, unborn / WEIGHTS_NAME)
        card = _model_card(name, checkpoint, model)
        (unborn / CARD_NAME).write_text(card, encoding="utf-8")
        config = _config(name, checkpoint, model, unborn)
        for modality, of in places.items():
            config["modalities"][modality]["maps"] = _map_config(model.encoder(modality), modality, of)
        (unborn / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return _check_parity(model, maps, unborn, items)


def _write_networks(model: AlignedModel, items: dict[str, list[NDArray[Any]]], folder: Path) -> None:
    for modality in model.modalities:
        batch = MODALITIES[modality].batch(items[modality][:2])
        path = folder / _file_of(modality)
        axes = _dynamic_axes(modality)
        to_onnx(model.encoder(modality), batch, path, input_name=modality, output_names=[FEATURES], dynamic_axes=axes)
        _check_second_shape(model.encoder(modality), path, _second_batch(modality, items[modality]))
    outputs = [UNIT_EMBEDDING, *([CLASS_PROBABILITIES] if model.head.classes is not None else [])]
    features = np.random.default_rng(0).standard_normal((2, model.head.width)).astype(np.float32)
    path = folder / _file_of("head")
    to_onnx(ServedHead(model.head), features, path, input_name=FEATURES, output_names=outputs, dynamic_axes=[0])


def _write_maps(maps: Mapping[str, nn.Module], items: dict[str, list[NDArray[Any]]], folder: Path) -> None:
    """A network of its own for each: as a second output, a map would be computed for every embedding."""
    for modality, network in maps.items():
        batch = MODALITIES[modality].batch((items[modality] * 2)[:2])
        path = folder / _map_file_of(modality)
        # the time is fixed: windows are filled before they are mapped
        to_onnx(network, batch, path, input_name=modality, output_names=[MAP], dynamic_axes=[0])


def _served_map(model: AlignedModel, modality: str, places: Places) -> nn.Module:
    """What is exported: a sound may have more windows than one, whose shares are held against each other."""
    if places.gives == SHARES and MODALITIES[modality].medium == "audio":
        return UnitShares(places, model.encoder(modality)).eval()
    return places


class ServedHead(nn.Module):
    """The head as it is served: unit embeddings, and probabilities instead of logits."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        embeddings, logits, *_ = self.head(features)
        return (embeddings,) if logits is None else (embeddings, logits.softmax(dim=1))


def _check_second_shape(network: nn.Module, path: Path, batch: NDArray[Any]) -> None:
    """Run a batch of a shape that was never traced."""
    exported = Network(path, "cpu").run(batch)[FEATURES]
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(exported, expected, rtol=1e-3, atol=1e-3, err_msg=f"{path.name}: {batch.shape}")


def _second_batch(modality: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Three items, shorter in time than the traced ones where the modality has a time axis."""
    batch = MODALITIES[modality].batch((arrays * 3)[:3])
    return batch[:, : batch.shape[1] * 3 // 4 or 1] if 1 in _dynamic_axes(modality) else batch


def _dynamic_axes(modality: str) -> list[int]:
    """Batch, and time where there is one."""
    return [0] if MODALITIES[modality].medium == "image" else [0, 1]


def _check_parity(
    model: AlignedModel, maps: Mapping[str, nn.Module], folder: Path, items: dict[str, list[NDArray[Any]]]
) -> list[Parity]:
    served = Model.open(folder, device="cpu")
    results = []
    for modality, arrays in items.items():
        ours = served.embed_arrays(modality, arrays)  # as one batch, where torch has one item at a time
        with torch.inference_mode():
            theirs = np.concatenate(
                [model(modality, torch.from_numpy(MODALITIES[modality].batch([array])))[0].numpy() for array in arrays]
            )
        cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
        k = min(10, len(arrays))
        overlap = [
            len(set(a) & set(b)) / k
            for a, b in zip(top_k(ours, ours, k)[1].tolist(), top_k(theirs, theirs, k)[1].tolist(), strict=True)
        ]
        map_cosine = _map_cosine(served, maps[modality], modality, arrays) if modality in maps else None
        results.append(Parity(modality, len(arrays), float(cosines.min()), 100 * float(np.mean(overlap)), map_cosine))
    if failed := [result for result in results if not result.min_cosine >= GATE]:
        raise XmrError(
            f"{failed[0].modality}: the exported network is off, smallest cosine to torch {failed[0].min_cosine:.6f}, "
            f"{GATE} is asked for; nothing was written, report this with the recipe"
        )
    if strayed := [
        result for result in results if result.min_map_cosine is not None and not result.min_map_cosine >= GATE
    ]:
        raise XmrError(
            f"{strayed[0].modality}: the exported maps are off, smallest cosine to torch "
            f"{strayed[0].min_map_cosine:.6f}, {GATE} is asked for; nothing was written, report this with the recipe"
        )
    return results


def _map_cosine(served: Model, network: nn.Module, modality: str, arrays: list[NDArray[Any]]) -> float:
    """The smallest, over items, between what torch and the exported network make of all places of one; NaN counts."""
    cosines = []
    for array in arrays:
        ours = served.map_arrays(modality, [array])
        with torch.inference_mode():
            theirs = network(torch.from_numpy(MODALITIES[modality].batch([array]))).numpy()
        assert ours.shape == theirs.shape, f"{modality}: {ours.shape} exported, {theirs.shape} in torch"
        lengths = float(np.linalg.norm(ours)) * float(np.linalg.norm(theirs))
        is_nothing = not ours.any() and not theirs.any()
        cosines.append(1.0 if is_nothing else float((ours * theirs).sum()) / max(lengths, 1e-30))
    return float(np.min(cosines))


def _parity_items(model: AlignedModel, checkpoint: Checkpoint) -> dict[str, list[NDArray[Any]]]:
    """Real items of every modality, of the val rows where there are any."""
    rows = [with_captions(row, checkpoint.config.captions) for row in read_rows(checkpoint.config.data)]
    paired = select(rows, "val", model.modalities) or select(rows, "train", model.modalities)
    items = {modality: _arrays(model.encoder(modality), modality, paired) for modality in model.modalities}
    if empty := [modality for modality, arrays in items.items() if not arrays]:
        raise XmrError(
            f"{', '.join(checkpoint.config.data)}: no {empty[0]} to check the export with; add val rows of it"
        )
    return items


def _arrays(encoder: Encoder, modality: str, rows: Sequence[Row]) -> list[NDArray[Any]]:
    if modality == "text":
        from xmr.engine.media import text

        sentences = [caption for row in rows for caption in row.captions[:1]]
        encoded = [text.encode(sentence, encoder.preprocessing) for sentence in sentences]
        return [ids for ids in encoded if len(ids)][:PARITY_ITEMS]
    paths = dict.fromkeys(row.files[modality] for row in rows if modality in row.files)
    arrays: list[NDArray[Any]] = []
    for path in paths:
        if len(arrays) == PARITY_ITEMS:
            break
        with suppress(XmrError):  # training has said so and gone on without the file
            arrays.append(decode(Task(path, modality), encoder.preprocessing).pieces[0].array)
    return arrays


def _write_words(model: AlignedModel, folder: Path) -> None:
    if "text" in model.modalities:
        vocabulary = model.encoder("text").preprocessing.vocabulary
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")


def _config(name: str, checkpoint: Checkpoint, model: AlignedModel, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    head_outputs = {"embedding": UNIT_EMBEDDING}
    if model.head.classes is not None:
        head_outputs["classes"] = CLASS_PROBABILITIES
    return {
        "format": FORMAT,
        "xmr_version": version("xmr"),
        "name": name,
        "dim": model.dim,
        "modalities": {modality: _modality_config(model.encoder(modality), modality) for modality in model.modalities},
        "head": {"file": _file_of("head"), "input": FEATURES, "outputs": head_outputs},
        "sha256": {str(path.relative_to(folder)): sha256_of(path) for path in files},
        "recipe": checkpoint.config.recipe,
        "metrics": checkpoint.state.get("metrics"),
    }


def _modality_config(encoder: Encoder, modality: str) -> dict[str, Any]:
    preprocessing = asdict(encoder.preprocessing)
    if "vocabulary" in preprocessing:
        preprocessing["vocabulary"] = "vocab.txt"
    image_shape = ["batch", preprocessing.get("size"), preprocessing.get("size"), 3]
    shapes = {
        "image": (image_shape, "uint8"),
        "audio": (["batch", "time"], "float32"),
        "text": (["batch", "time"], "int64"),
    }
    shape, dtype = shapes[MODALITIES[modality].medium]
    return {
        "medium": MODALITIES[modality].medium,
        "file": _file_of(modality),
        "input": {"name": modality, "shape": shape, "dtype": dtype},
        "preprocessing": preprocessing,
    }


def _map_config(encoder: Encoder, modality: str, places: Places) -> dict[str, Any]:
    config = {"file": _map_file_of(modality), "output": MAP, "gives": places.gives}
    if MODALITIES[modality].medium != "audio":
        return config
    first_s, step_s = steps_s(encoder)
    return config | {"first_s": first_s, "step_s": step_s}


def _model_card(name: str, checkpoint: Checkpoint, model: AlignedModel) -> str:
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

## Limits

It knows what its training data shows, sounds and says. Scores of different modalities are not calibrated against each
other. Words outside vocab.txt are not read.
"""


def _file_of(network: str) -> str:
    return f"onnx/{network}.onnx"


def _map_file_of(modality: str) -> str:
    return f"onnx/{modality}.map.onnx"


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when all went well, and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if foreign := _foreign_files(folder):
        raise XmrError(f"{foreign[0]}: no part of an exported model, as would be replaced; give another --model folder")
    unborn = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    shutil.rmtree(unborn, ignore_errors=True)
    unborn.mkdir()
    try:
        yield unborn
        if folder.exists():
            folder.rename(old)
        unborn.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left_over in (unborn, old):
            shutil.rmtree(left_over, ignore_errors=True)


def _foreign_files(folder: Path) -> list[Path]:
    """What lies at the place of an exported model and is no part of one."""
    if not folder.is_dir():
        return [folder] if folder.exists() else []
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    try:
        config = read_config(folder)
        names = config["sha256"]
    except XmrError:
        if not (folder / _file_of("head")).is_file():
            return files
        # an export that was damaged may be replaced as well
        names = [
            CARD_NAME,
            "vocab.txt",
            WEIGHTS_NAME,
            *map(_file_of, [*MODALITIES, "head"]),
            *map(_map_file_of, MODALITIES),
        ]
    own = {folder / name for name in (CONFIG_NAME, *names)}
    return [path for path in files if path not in own and folder / PLANS not in path.parents]


def default_name(checkpoint: Checkpoint) -> str:
    """Recipe and a digest of the weights, so that two trainings have two names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model_tensors(checkpoint).items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return f"{checkpoint.config.recipe}-{digest.hexdigest()[:8]}"
