"""Do the stages of indexing overlap, and how much faster is it than the loop one would write with torch?

    python benchmarks/throughput.py --model MODEL --images FOLDER [--checkpoint CHECKPOINT] [--limit 1000] [--rounds 3]

Decoding alone, the network alone, both with the writing as `xmr index` does it, and with a checkpoint an eager torch
loop with a DataLoader over the same files and the same weights. Each is timed in a process of its own, interleaved,
from the first file to the last, with the start of its workers and the opening of its network but without imports.
Prints Markdown.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH_SIZE = 32
OVERLAP_GOAL = 1.25  # times the larger of decoding alone and the network alone
TORCH_GOAL = 4.0  # times the images per second of the torch loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="Folder of the checkpoint that the model was exported from.")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--limit", type=int, default=1000, help="Images, the first by name; 0: all.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
        return
    names = [name for name in MEASURES if name != "torch" or options.checkpoint]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    in_a_process("decoding")  # thrown away: from here on the files lie in the system's cache
    for _ in range(options.rounds):
        for name in names:
            found[name].append(in_a_process(name))
            print(f"{name}: {found[name][-1]['seconds']:.2f} s", file=sys.stderr)
    print_tables(found)


def in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def decoding(options: argparse.Namespace) -> dict[str, Any]:
    """On as many processes as there are CPUs, into nothing."""
    from xmr.engine.media.decode import Task, decode_ahead
    from xmr.engine.processors import cpus

    model, files = opened(options)
    tasks = [Task(file.path, "image") for file in files]
    start = time.perf_counter()
    n_images = sum(result.loaded is not None for result in decode_ahead(tasks, model.preprocessing, workers=cpus()))
    return {"seconds": time.perf_counter() - start, "images": n_images}


def network(options: argparse.Namespace) -> dict[str, Any]:
    """On all CPUs, from pixels that lie in memory."""
    from xmr.engine.media.decode import Task, decode

    model, files = opened(options)
    preprocessing = model.preprocessing["image"]
    arrays = [decode(Task(file.path, "image"), preprocessing).pieces[0].array for file in files]
    start = time.perf_counter()
    for first in range(0, len(arrays), BATCH_SIZE):
        model.embed_arrays("image", arrays[first : first + BATCH_SIZE])
    return {"seconds": time.perf_counter() - start, "images": len(arrays)}


def index(options: argparse.Namespace) -> dict[str, Any]:
    """As `xmr index` does, into a new index."""
    from xmr.engine.corpus import Scan
    from xmr.engine.embed import Stages
    from xmr.engine.index import Index

    model, files = opened(options)
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        made = Index.create(Path(folder) / "index", model)
        start = time.perf_counter()
        summary = made.add(Scan([options.images], list(files), 0), model, batch_size=BATCH_SIZE, stages=stages)
        seconds = time.perf_counter() - start
        made.close()
    return {"seconds": seconds, "images": summary.n_items, "stages": stages.table(), "way": str(model.choice("image"))}


def torch_loop(options: argparse.Namespace) -> dict[str, Any]:
    """What one would write: a Dataset, a DataLoader with a worker per CPU, the eager model, rows into one matrix."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from xmr.engine.media import image
    from xmr.engine.processors import cpus
    from xmr.train.checkpoint import best_of, load_checkpoint, restore_model

    model, files = opened(options)
    preprocessing = model.preprocessing["image"]

    class Pictures(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> Any:
            return torch.from_numpy(image.load(files[place].path, preprocessing).pieces[0].array.copy())

    eager = restore_model(load_checkpoint(best_of(options.checkpoint))).eval()
    rows = []
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(Pictures(), batch_size=BATCH_SIZE, num_workers=cpus()):
            rows.append(eager("image", batch).embeddings)
    n_images = len(torch.cat(rows).numpy())
    return {"seconds": time.perf_counter() - start, "images": n_images}


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "decoding": decoding,
    "network": network,
    "index": index,
    "torch": torch_loop,
}


def opened(options: argparse.Namespace) -> tuple[Any, Sequence[Any]]:
    """The model, and the files that it will see."""
    from xmr.engine.corpus import scan
    from xmr.engine.model import Model

    model = Model.open(options.model, "cpu", options.runtime)
    files = scan([options.images], {"image"}).files[: options.limit or None]
    if not files:
        raise SystemExit(f"{options.images}: no images in it")
    return model, files


def print_tables(found: dict[str, list[dict[str, Any]]]) -> None:
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    n_images = {name: runs[0]["images"] for name, runs in found.items()}
    if len(set(n_images.values())) > 1:
        raise SystemExit(f"not the same images were read: {n_images}; take out those that are not whole")
    [*_, last] = found["index"]
    titles = {"decoding": "decoding alone", "network": "network alone", "index": "`xmr index`", "torch": "torch loop"}
    print(f"\nThe network runs by {last['way']}. Medians of {len(found['index'])}.\n")
    print("| what | images | seconds | images/s |\n| --- | --- | --- | --- |")
    for name, median in seconds.items():
        print(f"| {titles[name]} | {n_images[name]} | {median:.2f} | {n_images[name] / median:.1f} |")
    overlap = seconds["index"] / max(seconds["decoding"], seconds["network"])
    print(
        f"\n`xmr index` takes {overlap:.2f}x the larger of both alone; {told(OVERLAP_GOAL, overlap <= OVERLAP_GOAL)}."
    )
    if "torch" in seconds:
        times = seconds["torch"] / seconds["index"]
        print(
            f"It embeds {times:.1f}x the images per second of the torch loop; {told(TORCH_GOAL, times >= TORCH_GOAL)}."
        )
    print("\n| stage of the last run | seconds | items | items/s | |\n| --- | --- | --- | --- | --- |")
    for row in last["stages"]:
        cells = ("" if value is None else str(value) for value in row.values())
        print(f"| {' | '.join(cells)} |")


def told(goal: float, is_met: bool) -> str:
    return f"goal {goal:g}x, {'met' if is_met else 'missed'}"


if __name__ == "__main__":
    main()
