"""TensorRT: a plan that `xmr plan` has built, on the GPU, without torch.

The buffers on the device are kept from batch to batch and grow with them; so what batches of one shape make the device
do is noted down as a CUDA graph at the second, and launched from then on as one. TensorRT for RTX does that by itself.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.runtime.choice import number_of
from xmr.engine.runtime.cuda import Device
from xmr.engine.trt import AXES, Builder, collector, find_builder, read_plan, reason_of

Shape = tuple[int, ...]


class Session:
    """An open plan: one input, its outputs in host memory."""

    def __init__(self, path: Path, device: str, onnx_sha256: str) -> None:
        number = number_of(device)
        builder = find_builder(number)
        facts, content = read_plan(path, onnx_sha256)
        check_fits(path, facts, builder)
        self._profile: Mapping[str, Sequence[int]] = facts["profile"]
        self._execution = Execution(path, content, builder, number)
        weakref.finalize(self, self._execution.close).atexit = False
        self.input_names, self.output_names = self._execution.input_names, self._execution.output_names

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of one batch; XmrError for one that the profile does not take."""
        [name] = self.input_names
        check_batch(name, batch.shape, self._profile)
        return self._execution.run(batch)


class Execution:
    """What runs a plan: its memory, its context, and the graph of what it did last. `close` gives all of it back."""

    def __init__(self, path: Path, content: bytes, builder: Builder, number: int) -> None:
        self._path, self._builder = path, builder
        self._complaints = collector(builder.module)
        self._addresses: dict[str, int] = {}
        self._sizes: dict[str, int] = {}  # bytes of what is at the addresses
        self._shape: Shape | None = None
        self._runtime: Any = None
        self._plan: Any = None
        self._context: Any = None
        self._device = Device(number)
        self._repeated = Repeated(self._device) if builder.flavour == "tensorrt" else None
        try:
            self._open(content)
        except BaseException:
            self.close()
            raise

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of one batch that the profile takes."""
        [name] = self.input_names
        self._device.enter()
        if batch.shape != self._shape:
            self._take_shape(batch.shape)
        array = np.ascontiguousarray(batch, dtype=self._dtypes[name])  # kept until the copy is over
        self._device.upload(array, self._addresses[name])
        if self._repeated is None:
            self._enqueue()
        else:
            self._repeated.run(self._enqueue)
        outputs = [
            self._device.download(self._addresses[of], tuple(self._context.get_tensor_shape(of)), self._dtypes[of])
            for of in self.output_names
        ]
        self._device.wait()
        return outputs

    def close(self) -> None:
        """From any thread."""
        self._device.close(self._end)

    def _end(self) -> None:
        """What is launched, then what runs it, then what that was made of."""
        if self._repeated is not None:
            self._repeated.forget()
        self._context = None
        self._plan = None
        self._runtime = None

    def _open(self, content: bytes) -> None:
        module = self._builder.module
        self._runtime = module.Runtime(self._complaints)  # needed as long as what it opened
        self._plan = self._runtime.deserialize_cuda_engine(content)
        self._context = _context(self._plan, module)
        if self._context is None:
            raise self._refusal("does not open it")
        names = [self._plan.get_tensor_name(place) for place in range(self._plan.num_io_tensors)]
        is_input = {name: self._plan.get_tensor_mode(name) == module.TensorIOMode.INPUT for name in names}
        self.input_names = [name for name in names if is_input[name]]
        self.output_names = [name for name in names if not is_input[name]]
        self._dtypes = {name: np.dtype(module.nptype(self._plan.get_tensor_dtype(name))) for name in names}

    def _take_shape(self, shape: Shape) -> None:
        """Make room for a batch of this shape; whatever fails, the next batch begins here again."""
        self._shape = None
        if self._repeated is not None:
            self._repeated.forget()
        [name] = self.input_names
        if not self._context.set_input_shape(name, shape):
            raise self._refusal(f"does not take a batch of {shape}")
        for of in self._dtypes:
            n_numbers = int(np.prod(tuple(self._context.get_tensor_shape(of))))
            self._make_room(of, n_numbers * self._dtypes[of].itemsize)
        self._shape = shape

    def _make_room(self, name: str, n_bytes: int) -> None:
        if n_bytes <= self._sizes.get(name, -1):
            return
        if name in self._sizes:
            del self._sizes[name]
            self._device.free(self._addresses.pop(name))
        self._addresses[name] = self._device.allocate(n_bytes)
        self._sizes[name] = n_bytes
        self._context.set_tensor_address(name, self._addresses[name])

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise self._refusal("does not run it")

    def _refusal(self, what: str) -> XmrError:
        said = reason_of(self._complaints.errors)
        self._complaints.errors.clear()
        return XmrError(
            f"{self._path}: {self._builder.flavour} {self._builder.version} {what} ({said}); free the GPU, or build it "
            "again with `xmr plan`"
        )


class Repeated:
    """What a stream is given again and again: done at first, then noted down as a graph and launched."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._graph: int | None = None
        self._n_runs = 0

    def run(self, enqueue: Callable[[], None]) -> None:
        if self._n_runs == 1:  # the first run has done what is done but once for a shape
            self._graph = self._noted(enqueue)
        self._n_runs += 1
        if self._graph is None:
            enqueue()
            return
        self._device.launch(self._graph)

    def forget(self) -> None:
        """What comes now is something else."""
        if self._graph is not None:
            self._device.destroy(self._graph)
        self._graph, self._n_runs = None, 0

    def _noted(self, enqueue: Callable[[], None]) -> int | None:
        """None where it cannot be noted down: then it is done each time."""
        self._device.begin_capture()
        try:
            enqueue()
        except XmrError:
            if (half := self._device.end_capture()) is not None:
                self._device.destroy(half)
            return None
        return self._device.end_capture()


def check_fits(path: Path, facts: Mapping[str, Any], builder: Builder) -> None:
    """XmrError for a plan of another TensorRT or another GPU, which would not open."""
    found = (facts["flavour"], facts["version"], facts["arch"])
    if found != (builder.flavour, builder.version, builder.arch):
        raise XmrError(
            f"{path}: built for {found[0]} {found[1]} on {found[2]}, here is {builder.flavour} {builder.version} on "
            f"{builder.arch}; build it with `xmr plan`"
        )


def check_batch(name: str, shape: Shape, profile: Mapping[str, Sequence[int]]) -> None:
    """XmrError for a batch, or a length of its items, that is out of the profile."""
    for axis, size in zip(AXES, shape, strict=False):
        least, _, most = profile.get(axis, (size, size, size))
        if not least <= size <= most:
            remedy = "pass a smaller --batch-size" if axis == "batch" and size > most else "use --runtime onnxruntime"
            raise XmrError(f"{name}: {axis} of {size} given, its plan takes {least} to {most}; {remedy}")


def _context(plan: Any, module: Any) -> Any:
    """What runs a plan; None if it did not open."""
    if plan is None or module.__name__ == "tensorrt":
        return plan and plan.create_execution_context()
    settings = plan.create_runtime_config()
    settings.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return plan.create_execution_context(settings)
