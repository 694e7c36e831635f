"""Whether the exported networks embed real items as torch does: every precision, by every runtime that is here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.model import BATCH_SIZE, CLASS_PROBABILITIES, UNIT_EMBEDDING, Model
from xmr.engine.runtime import Network, is_installed, open_network
from xmr.engine.runtime.open_vino import has_bfloat16
from xmr.engine.search import top_k
from xmr.train.export import graphs
from xmr.train.export.gates import CLASSES, COSINES, LENGTH, NEIGHBOURS
from xmr.train.export.half import TYPES, rounded
from xmr.train.export.networks import Items, cosines, file_of
from xmr.train.model import AlignedModel

ON_CPU = ("onnxruntime", "openvino")  # runtimes that embed here; a TensorRT plan wants a GPU
ROUNDED = "rounded"  # a half network as a GPU computes it, by ONNX Runtime

Config = Mapping[str, Any]


class Way(NamedTuple):
    """One way to run a network of a modality, and the runtimes that may open the network if it is alike this way."""

    runtime: str
    precision: str
    stands_for: tuple[str, ...]


class Rows(NamedTuple):
    """What a network makes of items."""

    embeddings: NDArray[np.float32]  # (n, dim)
    classes: NDArray[np.float32] | None  # (n, classes) probabilities, where the head has classes


@dataclass(frozen=True)
class Parity:
    """How alike torch and the exported model embed the same items of one modality."""

    modality: str
    n_items: int
    min_cosine: float
    top10_overlap: float | None = None  # percent of the ten nearest other items that both find; None of too few items
    min_map_cosine: float | None = None  # of the maps of an item, where there are maps
    length_error: float = 0.0  # largest difference of a unit embedding's length
    class_error: float | None = None  # largest difference of a probability, where there are classes
    precision: str = "float32"
    runtime: str = "onnxruntime"  # or rounded
    stands_for: tuple[str, ...] = ("onnxruntime",)  # the runtimes that are offered the network if it is alike
    split: str = "val"  # of the rows that the items are of
    error: str | None = None  # why it was not run

    @property
    def missed(self) -> str | None:
        """What of it is off, and how far; None where it is within its gates."""
        if self.error:
            return f"it was not run ({self.error})"
        gate, classes = COSINES[self.precision], CLASSES[self.precision]
        for what, cosine in (("network is", self.min_cosine), ("maps are", self.min_map_cosine)):
            if cosine is not None and not cosine >= gate:
                return f"the exported {what} off, smallest cosine to torch {cosine:.6f}, {gate} is asked for"
        if not self.length_error <= LENGTH:
            return f"the lengths of embeddings are off by {self.length_error:.6f}, at most {LENGTH} is asked for"
        if self.class_error is not None and not self.class_error <= classes:
            return f"the classes' probabilities are off by {self.class_error:.6f}, at most {classes} is asked for"
        return None


def parity_of(
    model: AlignedModel, maps: Mapping[str, nn.Module], folder: Path, config: Config, items: Items, split: str
) -> list[Parity]:
    """Of each modality in each precision in each way on the CPU."""
    results = []
    for modality, arrays in items.items():
        theirs = _torch_rows(model, modality, arrays)
        for way in ways(config, modality):
            try:
                ours = _joined(_on_cpu(folder, config, modality, way), modality, arrays)
            except XmrError as error:
                if way.runtime != "openvino":
                    raise
                results.append(_not_run(modality, way, split, error))
                continue
            of = _compared(modality, ours, theirs, way, split)
            if modality in maps and way.precision == "float32" and way.runtime in ON_CPU:
                served = Model.open(folder, device="cpu", runtime=way.runtime)
                of = replace(of, min_map_cosine=map_cosine(served, maps[modality], modality, arrays))
            results.append(of)
    return results


def _not_run(modality: str, way: Way, split: str, error: XmrError) -> Parity:
    """For a runtime that an export can do without."""
    return Parity(
        modality,
        0,
        float("nan"),
        precision=way.precision,
        runtime=way.runtime,
        stands_for=way.stands_for,
        split=split,
        error=str(error),
    )


def parity_of_plans(
    model: AlignedModel, folder: Path, config: Config, items: Items, split: str, device: str
) -> list[Parity]:
    """Of each modality in each precision by its plan, on a GPU."""
    results = []
    for modality, arrays in items.items():
        theirs, part = _torch_rows(model, modality, arrays), config["modalities"][modality]
        for precision, of in part["served"].items():
            if "tensorrt" in of["runtimes"]:
                network = open_network(folder, part, device, "tensorrt", precision=precision)
                way = Way("tensorrt", precision, ("tensorrt",))
                results.append(_compared(modality, _joined(network, modality, arrays), theirs, way, split))
    return results


def ways(config: Config, modality: str) -> list[Way]:
    """In which what serves a modality can be tried on this CPU."""
    return [way for precision, of in config["modalities"][modality]["served"].items() for way in _tried(precision, of)]


def _tried(precision: str, of: Mapping[str, Any]) -> Iterator[Way]:
    for runtime in of["runtimes"]:
        if runtime not in ON_CPU or not is_installed(runtime):
            continue
        if (runtime, precision) != ("openvino", "bfloat16") or has_bfloat16():
            yield Way(runtime, precision, (runtime,))
    on_gpus = tuple(runtime for runtime in of["runtimes"] if runtime != "openvino")
    if precision in TYPES and on_gpus:
        yield Way(ROUNDED, precision, on_gpus)
    if precision == "int8-trt":
        yield Way("onnxruntime", precision, on_gpus)


def untried(config: Config, results: Sequence[Parity]) -> list[str]:
    """What is offered to a runtime by which nothing was compared, a phrase for each."""
    pairs = {
        (runtime, precision)
        for part in config["modalities"].values()
        for precision, of in part["served"].items()
        for runtime in of["runtimes"]
    }
    tried = {(of.runtime, of.precision) for of in results}
    return [f"{precision} by {runtime}" for runtime, precision in sorted(pairs - tried)]


def refuse(of: Parity) -> None:
    """XmrError for one that is off, in what is asked of its precision."""
    if of.missed:
        raise XmrError(
            f"{of.modality} in {of.precision} by {of.runtime}: {of.missed}; nothing was written, "
            f"{_remedy(of.precision)}"
        )


def _remedy(precision: str) -> str:
    if precision == "float32":
        return "report this with the recipe"
    return f"export without --{ {'float16': 'fp16', 'bfloat16': 'bf16'}.get(precision, 'int8') }"


def _torch_rows(model: AlignedModel, modality: str, arrays: Sequence[NDArray[Any]]) -> Rows:
    """One item at a time, where the exported network has batches; XmrError where none of them has a direction."""
    rows, classes = [], []
    with torch.inference_mode():
        for array in arrays:
            embeddings, logits, *_ = model(modality, torch.from_numpy(MODALITIES[modality].batch([array])))
            rows.append(embeddings.numpy())
            if logits is not None:
                classes.append(logits.softmax(dim=1).numpy())
    joined = np.concatenate(rows)
    if not joined.any():
        raise XmrError(f"{modality}: torch gives none of {len(rows)} items a direction; train it again")
    return Rows(joined, np.concatenate(classes) if classes else None)


def _on_cpu(folder: Path, config: Config, modality: str, way: Way) -> Network:
    # OpenVINO is told to multiply float32 in bfloat16; a file in bfloat16 is TensorRT's
    precision = "float32" if (way.runtime, way.precision) == ("openvino", "bfloat16") else way.precision
    path = folder / config["modalities"][modality]["served"][precision]["file"]
    if way.runtime != ROUNDED:
        return Network(path, "cpu", way.runtime, precision=way.precision)
    file = path.with_suffix(f".{ROUNDED}.onnx")
    graphs.write(rounded(onnx.load(path)), file)
    network = Network(file, "cpu", "onnxruntime", precision=way.precision)
    file.unlink()
    return network


def _joined(network: Network, modality: str, arrays: Sequence[NDArray[Any]]) -> Rows:
    """In the batches that an index is made of."""
    batches = [list(arrays[start : start + BATCH_SIZE]) for start in range(0, len(arrays), BATCH_SIZE)]
    outputs = [network.run(MODALITIES[modality].batch(batch)) for batch in batches]
    classes = [of[CLASS_PROBABILITIES] for of in outputs if CLASS_PROBABILITIES in of]
    return Rows(np.concatenate([of[UNIT_EMBEDDING] for of in outputs]), np.concatenate(classes) if classes else None)


def check_apart(model: AlignedModel, folder: Path, items: Items) -> None:
    """XmrError where the encoder and the head by themselves, which are exported from torch, do not agree with it."""
    for modality, arrays in items.items():
        first = list(arrays[:BATCH_SIZE])
        [features] = Network(folder / file_of(modality)).run(MODALITIES[modality].batch(first)).values()
        outputs = Network(folder / file_of("head")).run(features)
        apart = Rows(outputs[UNIT_EMBEDDING], outputs.get(CLASS_PROBABILITIES))
        way = Way("onnxruntime", "float32", ("onnxruntime",))
        refuse(_compared(modality, apart, _torch_rows(model, modality, first), way, ""))


def _compared(modality: str, ours: Rows, theirs: Rows, way: Way, split: str) -> Parity:
    rows, expected = ours.embeddings.astype(np.float64), theirs.embeddings.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) - np.linalg.norm(expected, axis=1)
    off_by = None if ours.classes is None or theirs.classes is None else np.abs(ours.classes - theirs.classes).max()
    return Parity(
        modality,
        len(rows),
        float(cosines(rows, expected).min()),
        overlap(ours.embeddings, theirs.embeddings),
        length_error=float(np.abs(lengths).max()),
        class_error=None if off_by is None else float(off_by),
        precision=way.precision,
        runtime=way.runtime,
        stands_for=way.stands_for,
        split=split,
    )


def overlap(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float | None:
    """Percent of the nearest other items that both find; None where there are too few to be found or not."""
    if len(ours) <= NEIGHBOURS + 1 or not np.isfinite(ours).all():
        return None
    shared = [len(a & b) for a, b in zip(_neighbours(ours), _neighbours(theirs), strict=True)]
    return 100 * float(np.mean(shared)) / NEIGHBOURS


def _neighbours(rows: NDArray[np.float32]) -> list[set[int]]:
    """The nearest others of each row."""
    found = top_k(rows, rows, NEIGHBOURS + 1)[1].tolist()
    return [set([other for other in nearest if other != row][:NEIGHBOURS]) for row, nearest in enumerate(found)]


def map_cosine(served: Model, network: nn.Module, modality: str, arrays: Sequence[NDArray[Any]]) -> float:
    """The smallest, over items, between what torch and the exported network make of all places of one; NaN counts."""
    found = []
    for array in arrays:
        ours = served.map_arrays(modality, [array])
        with torch.inference_mode():
            theirs = network(torch.from_numpy(MODALITIES[modality].batch([array]))).numpy()
        assert ours.shape == theirs.shape, f"{modality}: {ours.shape} exported, {theirs.shape} in torch"
        lengths = float(np.linalg.norm(ours)) * float(np.linalg.norm(theirs))
        is_nothing = not ours.any() and not theirs.any()
        found.append(1.0 if is_nothing else float((ours * theirs).sum()) / max(lengths, 1e-30))
    return float(np.min(found))
