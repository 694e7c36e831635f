"""The networks of an exported model: encoders, the head, maps, and encoder and head as one in every precision."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.model import CLASS_PROBABILITIES, UNIT_EMBEDDING
from xmr.engine.runtime import Network, is_installed
from xmr.train.export import graphs
from xmr.train.export.gates import COSINES
from xmr.train.export.graphs import fused, run
from xmr.train.export.half import in_half
from xmr.train.export.int8 import CPU, TENSORRT, in_int8
from xmr.train.model import AlignedModel, Head
from xmr.train.onnx_network import to_onnx
from xmr.train.places import SHARES, Places, UnitShares

FEATURES = "features"  # output of an encoder, input of the head
MAP = "map"  # output of the networks that give maps
BATCH = 16  # items that are run at once to calibrate
SEED = 0  # of the order of batches to calibrate on
# smallest cosine that layers are left out for: above what is asked, for it is asked on items that are not seen here
INT8_GOAL = 0.993
SHAPE_LENGTH = 1e-3  # share by which features of a shape that was never traced may be longer or shorter

Items = Mapping[str, list[NDArray[Any]]]  # by modality: decoded
Note = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """The precisions besides float32, and whether TensorRT is to have its own forms of them."""

    float16: bool = False
    bfloat16: bool = False
    int8: bool = False
    tensorrt: bool = False

    @property
    def needs_calibration(self) -> bool:
        return self.float16 or self.int8


class ServedHead(nn.Module):
    """The head as it is served: unit embeddings, and probabilities instead of logits."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        embeddings, logits, *_ = self.head(features)
        return (embeddings,) if logits is None else (embeddings, logits.softmax(dim=1))


def write_networks(model: AlignedModel, items: Items, folder: Path) -> None:
    """Each encoder and the head, which whoever wants features runs apart."""
    for modality in model.modalities:
        batch = MODALITIES[modality].batch((items[modality] * 2)[:2])
        path = folder / file_of(modality)
        axes = dynamic_axes(modality)
        to_onnx(model.encoder(modality), batch, path, input_name=modality, output_names=[FEATURES], dynamic_axes=axes)
        _check_second_shape(model.encoder(modality), path, _second_batch(modality, items[modality]))
    outputs = [UNIT_EMBEDDING, *([CLASS_PROBABILITIES] if model.head.classes is not None else [])]
    features = np.random.default_rng(0).standard_normal((2, model.head.width)).astype(np.float32)
    path = folder / file_of("head")
    to_onnx(ServedHead(model.head), features, path, input_name=FEATURES, output_names=outputs, dynamic_axes=[0])


def write_maps(maps: Mapping[str, nn.Module], items: Items, folder: Path) -> None:
    """A network of its own for each: as a second output, a map would be computed for every embedding."""
    for modality, network in maps.items():
        batch = MODALITIES[modality].batch((items[modality] * 2)[:2])
        path = folder / map_file_of(modality)
        # the time is fixed: windows are filled before they are mapped
        to_onnx(network, batch, path, input_name=modality, output_names=[MAP], dynamic_axes=[0])


def write_served(
    modalities: Sequence[str], calibration: Items, choice: Items, folder: Path, wishes: Wishes, note: Note
) -> dict[str, dict[str, Any]]:
    """Encoder and head as one network in each precision; by modality, `served` of config.json.

    int8 has steps for the values of the calibration items, and layers by the items of choice.
    """
    head = onnx.load(folder / file_of("head"))
    return {
        modality: _write_precisions(
            modality,
            fused(onnx.load(folder / file_of(modality)), head),
            _batches(modality, calibration.get(modality, [])),
            _batches(modality, choice.get(modality, [])),
            folder,
            wishes,
            note,
        )
        for modality in modalities
    }


def _write_precisions(
    modality: str,
    network: ModelProto,
    calibration: list[NDArray[Any]],
    choice: list[NDArray[Any]],
    folder: Path,
    wishes: Wishes,
    note: Note,
) -> dict[str, Any]:
    served = {"float32": _written(network, modality, "float32", folder, ["onnxruntime", "openvino", "tensorrt"])}
    if wishes.float16:
        half = in_half(network, "float16", calibration)
        served["float16"] = _written(half, modality, "float16", folder, ["onnxruntime", "openvino", "tensorrt"])
    if wishes.bfloat16:
        served["bfloat16"] = _bfloat16(network, modality, folder, wishes)
    for form, runtimes in _forms(wishes).items():
        made = _int8(network, modality, form, calibration, choice, folder, note)
        if made is not None:
            served[form] = _written(made, modality, form, folder, runtimes)
    return served


def _forms(wishes: Wishes) -> dict[str, list[str]]:
    """Those of int8 that are asked for, and who opens them.

    OpenVINO merges what is int8 as it likes and can be far off where ONNX Runtime is not: no offer without a trial.
    """
    forms = {CPU: ["onnxruntime", *(of for of in ["openvino"] if is_installed(of))], TENSORRT: ["tensorrt"]}
    return {form: of for form, of in forms.items() if wishes.int8 and (form == CPU or wishes.tensorrt)}


def _bfloat16(network: ModelProto, modality: str, folder: Path, wishes: Wishes) -> dict[str, Any]:
    """OpenVINO multiplies the float32 network in bfloat16 when told to; a file of its own is for TensorRT."""
    if not wishes.tensorrt:
        return {"file": served_file_of(modality, "float32"), "runtimes": ["openvino"]}
    return _written(in_half(network, "bfloat16", []), modality, "bfloat16", folder, ["openvino", "tensorrt"])


def _int8(
    network: ModelProto,
    modality: str,
    form: str,
    calibration: list[NDArray[Any]],
    choice: list[NDArray[Any]],
    folder: Path,
    note: Note,
) -> ModelProto | None:
    """As many int8 layers as leave the embeddings of the items of choice alike; None where nothing can be int8."""
    expected = list(_embeddings(network, choice))

    def is_near(made: Iterable[NDArray[np.float64]]) -> bool:
        """Nothing is run behind the first batch that is off."""
        return all(cosines(*pair).min() >= INT8_GOAL for pair in zip(made, expected, strict=True))

    def is_alike(candidate: ModelProto) -> bool:
        if not is_near(_embeddings(candidate, choice)):
            return False
        if form == CPU and is_installed("openvino"):
            with suppress(XmrError):  # what it does not run is withdrawn from it at the gate
                return is_near(_by_openvino(candidate, choice, folder))
        return True

    made = in_int8(network, form, calibration, is_alike)
    if not made.n_layers:
        note(f"{modality}: nothing in it can be {form}, so it is served in float32")
        return None
    n_all = made.n_layers + made.n_left_out
    note(f"{modality} in {form}: {made.n_layers} of {n_all} layers, the others stay float32")
    return made.model


def _embeddings(network: ModelProto, batches: Sequence[NDArray[Any]]) -> Iterator[NDArray[np.float64]]:
    """(n, dim) of each batch, run when it is asked for."""
    place = [output.name for output in network.graph.output].index(UNIT_EMBEDDING)
    return (outputs[place].astype(np.float64) for outputs in run(network, batches))


def _by_openvino(network: ModelProto, batches: Sequence[NDArray[Any]], folder: Path) -> Iterator[NDArray[np.float64]]:
    """(n, dim) of each batch, as OpenVINO adds what is int8, which is not as ONNX Runtime does."""
    path = folder / "candidate.onnx"
    graphs.write(network, path)
    opened = Network(path, "cpu", "openvino", precision=CPU)
    path.unlink()
    for batch in batches:
        yield opened.run(batch)[UNIT_EMBEDDING].astype(np.float64)


def cosines(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) of the rows of two (n, dim); -1 for a row that is no number or has no direction in one of them alone."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    is_nothing = ~ours.any(axis=1) & ~theirs.any(axis=1)
    found = np.divide((ours * theirs).sum(axis=1), lengths, out=np.full(len(ours), -1.0), where=lengths > 0)
    return np.where(is_nothing, 1.0, np.where(np.isfinite(found), found, -1.0))


def _written(network: ModelProto, modality: str, precision: str, folder: Path, runtimes: list[str]) -> dict[str, Any]:
    file = served_file_of(modality, precision)
    graphs.write(network, folder / file)
    return {"file": file, "runtimes": runtimes}


def _batches(modality: str, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Full ones, but for one. Sentences of like length together, for PADs are no words to calibrate on; no order."""
    ordered = sorted(arrays, key=len) if MODALITIES[modality].medium == "text" else arrays
    parts = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    return [MODALITIES[modality].batch(parts[place]) for place in np.random.default_rng(SEED).permutation(len(parts))]


def served_map(model: AlignedModel, modality: str, places: Places) -> nn.Module:
    """What is exported: a sound may have more windows than one, whose shares are held against each other."""
    if places.gives == SHARES and MODALITIES[modality].medium == "audio":
        return UnitShares(places, model.encoder(modality)).eval()
    return places


def _check_second_shape(network: nn.Module, path: Path, batch: NDArray[Any]) -> None:
    """Run a batch of a shape that was never traced."""
    [[exported]] = run(onnx.load(path), [batch])
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    ours, theirs = exported.astype(np.float64), expected.astype(np.float64)
    cosine = cosines(ours, theirs).min()
    lengths = np.linalg.norm(ours) / np.linalg.norm(theirs)  # a sum over time may have been divided by the traced time
    if not (cosine >= COSINES["float32"] and abs(lengths - 1) <= SHAPE_LENGTH):
        raise XmrError(
            f"{path.stem}: on an input of shape {batch.shape} the exported features are off, smallest cosine to torch "
            f"{cosine:.6f} and {lengths:.4f} times its length; nothing was written, report this with the recipe"
        )


def _second_batch(modality: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Three items, shorter in time than the traced ones where the modality has a time axis."""
    batch = MODALITIES[modality].batch((arrays * 3)[:3])
    return batch[:, : batch.shape[1] * 3 // 4 or 1] if 1 in dynamic_axes(modality) else batch


def dynamic_axes(modality: str) -> list[int]:
    """Batch, and time where there is one."""
    return [0] if MODALITIES[modality].medium == "image" else [0, 1]


def file_of(network: str) -> str:
    return f"onnx/{network}.onnx"


def map_file_of(modality: str) -> str:
    return f"onnx/{modality}.map.onnx"


def served_file_of(modality: str, precision: str) -> str:
    return f"onnx/{modality}.{precision}.onnx"
