"""Plans built for the GPU of this machine: they open there, take what their profile says, and give what is exported."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

from xmr.engine.trt import EXTRAS, Builder, build_plan, compute_capability, find_builder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(compute_capability() is None, reason="there is no NVIDIA GPU with a working driver"),
]

WIDTH, DIM = 12, 8
BATCH = [1, 4, 16]


@pytest.fixture(scope="module")
def builder() -> Builder:
    if not any(find_spec(flavour) for flavour in EXTRAS):
        pytest.skip("neither TensorRT nor TensorRT for RTX is installed")
    return find_builder()


def weight() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((WIDTH, DIM)).astype(np.float32)


def write_network(path: Path) -> None:
    """Rows of features -> their products with a weight, at unit length."""
    nodes = [
        helper.make_node("MatMul", ["features", "weight"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["unit_embedding"], axis=1, p=2),
    ]
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", WIDTH])
    made = helper.make_tensor_value_info("unit_embedding", TensorProto.FLOAT, ["batch", DIM])
    graph = helper.make_graph(nodes, "unit", [given], [made], [numpy_helper.from_array(weight(), "weight")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)


@pytest.fixture(scope="module")
def plan(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("device") / "unit.onnx"
    write_network(path)
    return build_plan(path, {"batch": BATCH}, builder.module, builder.arch)


@pytest.fixture(scope="module")
def engine(plan: bytes, builder: Builder) -> Iterator[Any]:
    """The plan, opened; what opened it has to live as long."""
    logger = builder.module.Logger(builder.module.Logger.ERROR)
    runtime = builder.module.Runtime(logger)
    yield runtime.deserialize_cuda_engine(plan)
    del runtime, logger


def test_the_architecture_is_that_of_the_gpu(builder: Builder) -> None:
    capability = compute_capability()
    assert capability is not None
    of_this_gpu = "sm{}{}".format(*capability)
    assert builder.arch == (of_this_gpu if builder.flavour == "tensorrt" or capability == (7, 5) else "sm80plus")


def test_a_gpu_that_is_not_there_has_no_compute_capability() -> None:
    assert compute_capability(999) is None


def test_a_plan_opens_with_the_names_and_sizes_of_its_network(engine: Any) -> None:
    assert engine is not None
    assert {engine.get_tensor_name(place) for place in range(engine.num_io_tensors)} == {"features", "unit_embedding"}
    sizes = [tuple(shape) for shape in engine.get_tensor_profile_shape("features", 0)]
    assert sizes == [(n, WIDTH) for n in BATCH]


@pytest.mark.parametrize("n", [1, 3, 16])
def test_a_plan_gives_what_its_network_gives(n: int, engine: Any) -> None:
    from xmr.engine.runtime.cuda import Device

    device = Device(0)
    features = np.random.default_rng(n).standard_normal((n, WIDTH)).astype(np.float32)
    context = engine.create_execution_context()
    context.set_input_shape("features", features.shape)
    addresses = {"features": device.allocate(features.nbytes), "unit_embedding": device.allocate(4 * n * DIM)}
    for name, address in addresses.items():
        context.set_tensor_address(name, address)
    device.upload(features, addresses["features"])
    assert context.execute_async_v3(device.stream)
    found = device.download(addresses["unit_embedding"], (n, DIM), np.dtype(np.float32))
    device.wait()
    expected = features @ weight()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (found * expected).sum(axis=1).min() >= 0.9999


def test_a_plan_is_refused_a_batch_over_its_profile(engine: Any) -> None:
    context = engine.create_execution_context()
    assert not context.set_input_shape("features", (BATCH[-1] + 1, WIDTH))
