"""Running a plan, without a GPU: on a device of host memory, and a driver that notes its calls."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import FACTS, digest_of, write_networks, write_plan
from numpy.typing import NDArray

from xmr.engine import trt
from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.runtime import Choice, cuda, open_choice, tensor_rt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_networks(tmp_path)


@pytest.mark.usefixtures("doubling")
def test_a_plan_of_another_network_is_refused(folder: Path) -> None:
    plan = write_plan(folder, onnx_sha256="1" * 64)
    chosen = Choice("tensorrt", "float32", "cuda:0", folder, "onnx/text.float32.onnx", plan)
    for sha256 in (None, {"onnx/text.float32.onnx": digest_of(folder)}):
        with pytest.raises(XmrError, match="built of another network than the model has now; run `xmr plan` again"):
            open_choice(chosen, sha256)


@pytest.mark.usefixtures("doubling")
def test_the_network_that_a_plan_was_built_of_is_not_read(folder: Path) -> None:
    plan = write_plan(folder)
    chosen = Choice("tensorrt", "float32", "cuda:0", folder, "onnx/text.float32.onnx", plan)
    sha256 = {chosen.file: digest_of(folder)}
    (folder / chosen.file).unlink()
    assert open_choice(chosen, sha256).run(np.ones((1, 2), np.int64))["unit_embedding"].tolist() == [[2, 2]]


@pytest.mark.usefixtures("doubling")
@pytest.mark.parametrize("facts", [{"version": "10.14.1"}, {"arch": "sm80"}, {"flavour": "tensorrt_rtx"}])
def test_a_plan_under_the_name_of_another_is_refused(facts: Mapping[str, str], folder: Path) -> None:
    path = write_plan(folder, **facts)
    found = " ".join([{**FACTS, **facts}[key] for key in ("flavour", "version")])
    with pytest.raises(
        XmrError, match=f"built for {found} on .*, here is tensorrt 10.13.0 on sm90; build it with `xmr"
    ):
        tensor_rt.Session(path, "cuda:0", digest_of(folder))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((257, 8), "text: batch of 257 given, its plan takes 1 to 256; pass a smaller --batch-size"),
        ((0, 8), "text: batch of 0 given"),
        ((4, 1), "text: time of 1 given, its plan takes 2 to 16; use --runtime onnxruntime"),
        ((4, 17), "text: time of 17 given, its plan takes 2 to 16"),
    ],
)
@pytest.mark.usefixtures("doubling")
def test_a_batch_out_of_the_profile_is_refused(shape: tuple[int, int], says: str, folder: Path) -> None:
    session = open_plan(folder)
    with pytest.raises(XmrError, match=says):
        session.run(np.ones(shape, np.int64))


@pytest.mark.parametrize("shape", [(1, 2), (256, 16), (32, 8)])
def test_a_batch_in_the_profile_is_none(shape: tuple[int, int]) -> None:
    tensor_rt.check_batch("text", shape, FACTS["profile"])


def test_an_axis_that_the_profile_does_not_know_may_be_as_it_is() -> None:
    tensor_rt.check_batch("image", (32, 224, 224, 3), {"batch": [1, 32, 256]})


class Recorder:
    """A device that notes what it is told; `graph` is what becomes of a capture."""

    def __init__(self, graph: int | None) -> None:
        self.told: list[str] = []
        self._graph = graph

    def begin_capture(self) -> None:
        self.told.append("begin")

    def end_capture(self) -> int | None:
        self.told.append("end")
        return self._graph

    def launch(self, graph: int) -> None:
        self.told.append(f"launch {graph}")

    def destroy(self, graph: int) -> None:
        self.told.append(f"destroy {graph}")


def test_what_comes_again_is_launched_as_a_graph() -> None:
    device = Recorder(graph=7)
    repeated = tensor_rt.Repeated(device)  # type: ignore[arg-type]
    for _ in range(3):
        repeated.run(lambda: device.told.append("enqueue"))
    repeated.forget()
    repeated.run(lambda: device.told.append("enqueue"))
    assert device.told == ["enqueue", "begin", "enqueue", "end", "launch 7", "launch 7", "destroy 7", "enqueue"]


def test_what_cannot_be_a_graph_is_run_each_time() -> None:
    device = Recorder(graph=None)
    repeated = tensor_rt.Repeated(device)  # type: ignore[arg-type]
    for _ in range(3):
        repeated.run(lambda: device.told.append("enqueue"))
    assert device.told == ["enqueue", "begin", "enqueue", "end", "enqueue", "enqueue"]


class Memory:
    """A GPU of host memory, with a stream that does all at once."""

    stream = 1

    def __init__(self, number: int) -> None:
        self.held: dict[int, NDArray[np.uint8]] = {}
        self.n_allocated = 0
        self.room = 10**6  # bytes
        self.ended: list[str] = []

    def enter(self) -> None: ...

    def allocate(self, n_bytes: int) -> int:
        if sum(map(len, self.held.values())) + n_bytes > self.room:
            raise XmrError("CUDA: out of memory")
        self.n_allocated += 1
        self.held[self.n_allocated] = np.zeros(n_bytes, dtype=np.uint8)
        return self.n_allocated

    def free(self, address: int) -> None:
        del self.held[address]

    def close(self, first: Callable[[], None]) -> None:
        first()
        self.ended.append("device")

    def upload(self, array: NDArray[Any], address: int) -> None:
        content = np.frombuffer(array.tobytes(), dtype=np.uint8)
        self.held[address][: len(content)] = content

    def download(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.held[address][:n_bytes].view(dtype).reshape(shape).copy()

    def wait(self) -> None: ...

    def begin_capture(self) -> None: ...

    def end_capture(self) -> None: ...


class Doubling:
    """A flavour of TensorRT that opens one plan: twice its input, in float32, of any number of rows of two."""

    __name__, __version__ = "tensorrt", "10.13.0"

    class ILogger:
        class Severity:
            ERROR, INTERNAL_ERROR = 1, 0

    class TensorIOMode:
        INPUT, OUTPUT = "input", "output"

    def __init__(self) -> None:
        self.device = Memory(0)
        self.complains: str | None = None  # in place of running

    def Runtime(self, logger: Any) -> "Doubled":  # noqa: N802
        return Doubled(self, logger)

    def nptype(self, dtype: str) -> Any:
        return np.dtype(dtype).type


class Doubled:
    """Its runtime, plan and context in one."""

    num_io_tensors = 2

    def __init__(self, module: Doubling, logger: Any) -> None:
        self._module, self._logger = module, logger
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def __del__(self) -> None:
        self._module.device.ended.append("plan")

    def deserialize_cuda_engine(self, content: bytes) -> "Doubled | None":
        if content == b"a plan":
            return self
        self._logger.log(
            1, "plan.cpp:7: f: Error Code 1: Serialization (magic tag does not match. In g at /plan.cpp:7)"
        )
        return None

    def create_execution_context(self) -> "Doubled":
        return self

    def get_tensor_name(self, place: int) -> str:
        return ("text", "unit_embedding")[place]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "text" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "int64" if name == "text" else "float32"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        if self._module.complains is not None:
            self._logger.log(1, self._module.complains)
            return False
        device = self._module.device
        rows = device.download(self._addresses["text"], self._shape, np.int64)
        device.upload((2 * rows).astype(np.float32), self._addresses["unit_embedding"])
        return True


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> Doubling:
    """A machine whose GPU runs that plan."""
    module = Doubling()
    monkeypatch.setattr(tensor_rt, "find_builder", lambda number: trt.Builder(module, "sm90"))
    monkeypatch.setattr(tensor_rt, "Device", lambda number: module.device)
    return module


def open_plan(folder: Path) -> tensor_rt.Session:
    return tensor_rt.Session(write_plan(folder), "cuda:0", digest_of(folder))


def test_a_plan_is_run_on_batches_of_changing_size(doubling: Doubling, folder: Path) -> None:
    session = open_plan(folder)
    assert (session.input_names, session.output_names) == (["text"], ["unit_embedding"])
    for rows in (1, 4, 4, 4, 256, 2):
        ids = np.random.default_rng(rows).integers(0, 1000, (rows, 2))
        [found] = session.run(ids)
        np.testing.assert_array_equal(found, 2 * ids)
    assert {len(buffer) for buffer in doubling.device.held.values()} == {256 * 2 * 8, 256 * 2 * 4}
    assert doubling.device.n_allocated == 2 * 3  # of the input and of the output, each time that they had to grow


def test_one_row_takes_no_more_memory_than_it_needs(doubling: Doubling, folder: Path) -> None:
    open_plan(folder).run(np.ones((1, 2), np.int64))
    assert sum(map(len, doubling.device.held.values())) == 2 * 8 + 2 * 4


def test_a_batch_without_memory_for_it_is_refused_and_a_smaller_one_runs(doubling: Doubling, folder: Path) -> None:
    session, ids = open_plan(folder), np.ones((256, 2), np.int64)
    doubling.device.room = 256 * 2 * 8 + 100
    session.run(ids[:4])
    with pytest.raises(XmrError, match="out of memory"):
        session.run(ids)
    np.testing.assert_array_equal(session.run(ids[:4])[0], 2 * ids[:4])


def test_what_tensorrt_says_of_a_batch_that_it_does_not_run_is_told(doubling: Doubling, folder: Path) -> None:
    session, ids = open_plan(folder), np.ones((4, 2), np.int64)
    doubling.complains = "no memory for 8 bytes"
    says = (
        r"tensorrt 10\.13\.0 does not run it \(no memory for 8 bytes\); free the GPU, or build it again with `xmr plan`"
    )
    with pytest.raises(XmrError, match=says):
        session.run(ids)
    doubling.complains = None
    np.testing.assert_array_equal(session.run(ids)[0], 2 * ids)


def test_a_session_gives_back_its_plan_before_its_device(doubling: Doubling, folder: Path) -> None:
    session = open_plan(folder)
    session.run(np.ones((4, 2), np.int64))
    assert doubling.device.ended == []
    del session
    assert doubling.device.ended == ["plan", "device"]


def test_a_plan_that_does_not_open_is_refused_and_its_device_given_back(doubling: Doubling, folder: Path) -> None:
    path = write_plan(folder)
    path.write_bytes(b"another")
    facts = json.loads(path.with_suffix(".json").read_text()) | {"plan_sha256": sha256_of(path)}
    path.with_suffix(".json").write_text(json.dumps(facts))
    says = r"does not open it \(magic tag does not match\); free the GPU, or build it again with `xmr plan`"
    with pytest.raises(XmrError, match=says):
        tensor_rt.Session(path, "cuda:0", digest_of(folder))
    assert doubling.device.ended == ["plan", "device"]


@pytest.mark.usefixtures("doubling")
def test_a_plan_that_was_changed_is_refused(folder: Path) -> None:
    write_plan(folder).write_bytes(b"another")
    [path] = (folder / "plans").glob("*.plan")
    with pytest.raises(XmrError, match="changed since it was built; run `xmr plan` again"):
        tensor_rt.Session(path, "cuda:0", digest_of(folder))


# the driver


class Driver:
    """A driver of NVIDIA that notes its calls; memory begins at 100, and all else is 0."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self._failing = failing

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuMemAlloc_v2":
                arguments[0]._obj.value = 100 + len(self.calls)
            return 2 if name == self._failing else 0

        return call


def test_a_device_is_given_back_whole_and_in_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: driver)
    device = cuda.Device(0)
    kept, freed = device.allocate(8), device.allocate(8)
    device.free(freed)
    driver.calls.clear()
    device.close(lambda: device.destroy(7))
    assert kept != freed
    assert driver.calls == [
        "cuCtxPushCurrent_v2",
        "cuGraphExecDestroy",
        "cuMemFree_v2",
        "cuStreamDestroy_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]


def test_a_call_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Driver("cuMemAlloc_v2"))
    with pytest.raises(
        XmrError, match=r"CUDA: error 2 \(cuMemAlloc_v2\); free the GPU or mend its driver, or use --device"
    ):
        cuda.Device(0).allocate(8)


def test_no_driver_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libnone.so")
    with pytest.raises(XmrError, match="no driver of NVIDIA is installed here; install one, or use --device cpu"):
        cuda.Device(0)
