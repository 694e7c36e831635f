"""Which runtime embeds the items of each modality fastest here, in which precision, and how near to torch?

    python benchmarks/runtimes.py --model MODEL --checkpoint CHECKPOINT [--modality image] [--rounds 5]

The items that exports are checked with, decoded before, in batches of 32. Each way that config.json offers embeds them
as `xmr index` does, two batches in flight; beside them torch, eager, and ONNX Runtime's float32 as it comes: one
session with its defaults, one run a batch. Interleaved, medians. Prints Markdown.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.embed.pipeline import IN_FLIGHT

BATCH_SIZE = 32
SHORTEST_S = 1.0
GOAL = 3.0  # times the items per second of ONNX Runtime float32 as it comes, of images
REPEATS = 4  # of all batches, before the clock is looked at
TORCH = "torch, eager"
BASE = "onnxruntime float32 as it comes"

Rows = NDArray[np.float32]
Way = Callable[[Sequence[NDArray[Any]]], Rows]  # embeds a batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="Folder that the model was exported from.")
    parser.add_argument("--modality", action="append", help="May be given again; default all.")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Items per second on {os.cpu_count()} CPUs, batches of {BATCH_SIZE}, medians of {options.rounds}.\n")
    print(f"| modality | way | items/s | of {BASE} | smallest cosine to torch |\n| --- | --- | --- | --- | --- |")
    for modality, arrays in real_items(options).items():
        batches = [arrays[start : start + BATCH_SIZE] for start in range(0, len(arrays), BATCH_SIZE)]
        print_rows(modality, *measure(ways(options, modality), batches, options.rounds))


def real_items(options: argparse.Namespace) -> dict[str, list[NDArray[Any]]]:
    """What exports are checked with, of each modality, sorted by length as the batches of an index are."""
    from xmr.train.checkpoint import best_of, load_checkpoint, restore_model
    from xmr.train.export.items import draw_items

    checkpoint = load_checkpoint(best_of(options.checkpoint))
    model = restore_model(checkpoint)
    checked = draw_items(model, checkpoint, is_calibrated=False).checked
    return {name: sorted(checked[name], key=len) for name in options.modality or model.modalities}


def ways(options: argparse.Namespace, modality: str) -> dict[str, Way]:
    """Torch first, which the others are compared with."""
    from xmr.engine.model import Model, read_config
    from xmr.engine.runtime import is_installed

    found = {TORCH: torch_way(options.checkpoint, modality), BASE: plain_way(options.model, modality)}
    for precision, way in read_config(options.model)["modalities"][modality]["served"].items():
        for runtime in filter(is_installed, set(way["runtimes"]) - {"tensorrt"}):
            model = Model.open(options.model, "cpu", runtime, precision=precision)
            found[f"{runtime} {precision}"] = lambda batch, model=model: model.embed_arrays(modality, batch)  # type: ignore[misc]
    return found


def torch_way(folder: Path, modality: str) -> Way:
    import torch

    from xmr.engine.media import MODALITIES
    from xmr.train.checkpoint import best_of, load_checkpoint, restore_model

    model = restore_model(load_checkpoint(best_of(folder))).eval()

    def embed(batch: Sequence[NDArray[Any]]) -> Rows:
        with torch.inference_mode():
            return model(modality, torch.from_numpy(MODALITIES[modality].batch(list(batch)))).embeddings.numpy()

    return embed


def plain_way(folder: Path, modality: str) -> Way:
    import onnxruntime

    from xmr.engine.media import MODALITIES
    from xmr.engine.model import UNIT_EMBEDDING

    session = onnxruntime.InferenceSession(folder / "onnx" / f"{modality}.float32.onnx")
    return lambda batch: session.run([UNIT_EMBEDDING], {modality: MODALITIES[modality].batch(list(batch))})[0]


def measure(
    found: dict[str, Way], batches: Sequence[Sequence[NDArray[Any]]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Items per second of each way, and its smallest cosine to the first."""
    made = {name: np.concatenate([embed(batch) for batch in batches]) for name, embed in found.items()}
    [theirs, *_] = made.values()
    cosine_of = {name: float(np.einsum("nd,nd->n", ours, theirs).min()) for name, ours in made.items()}
    rates: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, embed in found.items():
            n_in_flight = 1 if name in (TORCH, BASE) else IN_FLIGHT
            rates[name].append(rate_of(embed, list(batches), n_in_flight))
    return {name: statistics.median(of) for name, of in rates.items()}, cosine_of


def rate_of(embed: Way, batches: list[Sequence[NDArray[Any]]], n_in_flight: int) -> float:
    """Items per second of all batches, again and again for a second at least."""
    n_items, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SHORTEST_S:
        with ThreadPoolExecutor(n_in_flight) as flights:
            list(flights.map(embed, batches * REPEATS))
        n_items += REPEATS * sum(map(len, batches))
    return n_items / seconds


def print_rows(modality: str, rates: dict[str, float], cosine_of: dict[str, float]) -> None:
    for name in sorted(rates, key=rates.__getitem__):
        times = rates[name] / rates[BASE]
        print(f"| {modality} | {name} | {rates[name]:,.0f} | {times:.1f}x | {cosine_of[name]:.5f} |", flush=True)
    if modality == "image":
        best = max(rates.values()) / rates[BASE]
        print(f"images: {best:.1f}x, goal {GOAL:.0f}x {'met' if best >= GOAL else 'MISSED'}", file=sys.stderr)


if __name__ == "__main__":
    main()
