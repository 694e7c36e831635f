"""Running a network on the GPU of this machine: as on its CPU, whatever the shapes that come and come again."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from xmr.engine import trt
from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.runtime import Network, check_device, check_wishes, is_installed, onnx_runtime, open_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(trt.compute_capability() is None, reason="there is no NVIDIA GPU with a working driver"),
]

DIM = 64
PROFILE = {"batch": [1, 8, 32]}
SHAPES = [1, 8, 8, 8, 3, 8, 8, 32, 32, 32, 1]  # rows of batches, one after the other


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with one network of two layers."""
    weight = np.random.default_rng(0).standard_normal((2, DIM, DIM)).astype(np.float32) / 8
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", DIM]) for name in ("text", "unit_embedding")]
    nodes = [
        helper.make_node("MatMul", ["text", "first"], ["between"]),
        helper.make_node("Relu", ["between"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["unit_embedding"]),
    ]
    held = [numpy_helper.from_array(layer, name) for layer, name in zip(weight, ("first", "second"), strict=True)]
    graph = helper.make_graph(nodes, "network", rows[:1], rows[1:], held)
    (tmp_path / "onnx").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "onnx" / "text.float32.onnx")
    return tmp_path


def part_of(runtime: str) -> dict[str, object]:
    way = {"file": "onnx/text.float32.onnx", "runtimes": ["onnxruntime", runtime]}
    return {"input": {"name": "text"}, "served": {"float32": way}, "profile": PROFILE}


def batch(rows: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def build(folder: Path) -> None:
    file = "onnx/text.float32.onnx"
    config = {"name": "m", "modalities": {"text": part_of("tensorrt")}, "sha256": {file: sha256_of(folder / file)}}
    (folder / "config.json").write_text(json.dumps(config))
    trt.make_plans(folder, config)


def assert_is_as_on_the_cpu(network: Network, folder: Path) -> None:
    on_cpu = Network(folder / "onnx/text.float32.onnx", "cpu")
    for seed, rows in enumerate(SHAPES):
        expected = on_cpu.run(batch(rows, seed))["unit_embedding"]
        np.testing.assert_allclose(network.run(batch(rows, seed))["unit_embedding"], expected, atol=1e-4)


def test_onnx_runtime_computes_on_the_gpu_as_on_the_cpu(folder: Path) -> None:
    if not onnx_runtime.has_cuda():
        pytest.skip("ONNX Runtime has no CUDA here")
    network = open_network(folder, part_of("openvino"), "cuda", "onnxruntime")
    assert_is_as_on_the_cpu(network, folder)


@pytest.fixture
def planned(folder: Path) -> Path:
    """The model folder with a plan of its network."""
    if not is_installed("tensorrt"):
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed")
    build(folder)
    return folder


def test_a_plan_computes_as_the_cpu_does(planned: Path) -> None:
    network = open_network(planned, part_of("tensorrt"), "auto", "tensorrt")
    assert (network.runtime, network.input_names, network.output_names) == ("tensorrt", ["text"], ["unit_embedding"])
    assert_is_as_on_the_cpu(network, planned)


def test_two_plans_are_open_at_once(planned: Path) -> None:
    networks = [open_network(planned, part_of("tensorrt"), "cuda:0", "tensorrt") for _ in range(2)]
    for network in [*networks, *networks]:
        assert_is_as_on_the_cpu(network, planned)


def test_a_batch_over_the_profile_is_refused_and_the_next_one_runs(planned: Path) -> None:
    network = open_network(planned, part_of("tensorrt"), "cuda:0", "tensorrt")
    with pytest.raises(XmrError, match="text: batch of 33 given, its plan takes 1 to 32; pass a smaller --batch-size"):
        network.run(batch(33, 0))
    assert_is_as_on_the_cpu(network, planned)


def test_a_gpu_that_the_machine_has_not_is_refused() -> None:
    check_device("cuda:63")
    with pytest.raises(XmrError, match="there is no CUDA device 63 here"):
        check_wishes("cuda:63", "auto")
