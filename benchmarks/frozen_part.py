"""How fast does a frozen image encoder run on one CPU thread: torch, torch with channels last, ONNX Runtime?

python benchmarks/frozen_part.py [--model tf_efficientnet_lite0] [--batch-size 32]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch

from xmr.train.onnx_network import to_onnx

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = timm.create_model(options.model, num_classes=0).eval()
    batch = np.random.default_rng(0).random((options.batch_size, 3, 224, 224), dtype=np.float32)
    pixels = torch.from_numpy(batch)
    session = onnx_session(network, batch)
    rates: dict[str, list[float]] = {}
    with torch.inference_mode():
        for _ in range(ROUNDS):  # interleaved, so that a slower minute of the machine meets all of them
            network.to(memory_format=torch.contiguous_format)
            note(rates, "torch", lambda: network(pixels), options.batch_size)
            network.to(memory_format=torch.channels_last)
            last = pixels.to(memory_format=torch.channels_last)
            note(rates, "torch, channels last", lambda last=last: network(last), options.batch_size)
            note(rates, "ONNX Runtime", lambda: session.run(None, {"pixels": batch}), options.batch_size)
    for name, values in rates.items():
        print(f"{name:<22}{statistics.median(values):8.1f} images per second of CPU time, median of {ROUNDS}")


def onnx_session(network: torch.nn.Module, batch: np.ndarray) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        to_onnx(network, batch, path, input_name="pixels", output_names=["pooled"], dynamic_axes=[0])
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def note(rates: dict[str, list[float]], name: str, run: Callable[[], object], n_images: int) -> None:
    run()
    start = time.process_time()
    run()
    rates.setdefault(name, []).append(n_images / (time.process_time() - start))


if __name__ == "__main__":
    main()
