"""One small network in a model folder, its plan, and machines that have this or that; for tests of the runtimes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xmr.engine import trt
from xmr.engine.files import sha256_of
from xmr.engine.runtime import choice, is_installed, onnx_runtime

DIM = 8
WAYS = {
    "float32": {"file": "onnx/text.float32.onnx", "runtimes": ["onnxruntime", "openvino", "tensorrt"]},
    "bfloat16": {"file": "onnx/text.float32.onnx", "runtimes": ["openvino"]},
    "int8": {"file": "onnx/text.int8.onnx", "runtimes": ["onnxruntime", "openvino"]},
}
PART = {"input": {"name": "text"}, "served": WAYS}
FACTS = {
    "network": "text",
    "precision": "float32",
    "flavour": "tensorrt",
    "version": "10.13.0",
    "arch": "sm90",
    "onnx_sha256": "0" * 64,
    "plan_sha256": "0" * 64,
    "profile": {"batch": [1, 32, 256], "time": [2, 8, 16]},
}

needs_openvino = pytest.mark.skipif(not is_installed("openvino"), reason="openvino is not installed")


def weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((DIM, DIM)).astype(np.float32)


def network_of(initializer: onnx.TensorProto) -> onnx.ModelProto:
    """One matrix product, named as the networks that xmr exports."""
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", DIM]) for name in ("text", "unit_embedding")]
    node = helper.make_node("MatMul", ["text", "weight"], ["unit_embedding"])
    graph = helper.make_graph([node], "network", rows[:1], rows[1:], [initializer])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def write_networks(folder: Path) -> Path:
    """A model folder with one network, float32 also where another precision is named."""
    (folder / "onnx").mkdir()
    model = network_of(numpy_helper.from_array(weights(), "weight"))
    for name in ("float32", "int8"):
        onnx.save(model, folder / "onnx" / f"text.{name}.onnx")
    return folder


def batch(rows: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((rows, DIM)).astype(np.float32)


def installed(*names: str) -> Callable[[str], object]:
    """In place of find_spec: these packages alone are there."""
    return lambda name: SimpleNamespace(origin=f"site-packages/{name}/__init__.py") if name in names else None


def with_gpus(monkeypatch: pytest.MonkeyPatch, n_gpus: int, *, reached: bool = True) -> None:
    """A machine with so many GPUs, that ONNX Runtime reaches or not."""
    monkeypatch.setattr(choice, "compute_capability", lambda number=0: (9, 0) if number < n_gpus else None)
    monkeypatch.setattr(onnx_runtime, "has_cuda", lambda: reached)


def write_plan(folder: Path, **facts: object) -> Path:
    told: dict[str, Any] = FACTS | {"onnx_sha256": digest_of(folder)} | facts
    path = trt.plan_path(folder, "text", "float32", told["flavour"], told["version"], told["arch"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a plan")
    path.with_suffix(".json").write_text(json.dumps(told | {"plan_sha256": sha256_of(path)}))
    return path


def digest_of(folder: Path) -> str:
    """Of the network that the plan is of."""
    return sha256_of(folder / "onnx/text.float32.onnx")
