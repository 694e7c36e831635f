"""OpenVINO: a network on the CPU, in float32, in the bfloat16 of AMX, or in the int8 that its file asks for."""

import sys
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.runtime.packages import load

CPU_FACTS = Path("/proc/cpuinfo")


class Session:
    """A network that OpenVINO has compiled for this CPU."""

    def __init__(self, path: Path, precision: str, threads: int, streams: int = 1) -> None:
        core = _core()
        self._path = path
        try:
            compiled = core.compile_model(core.read_model(str(path)), "CPU", _settings(precision, threads, streams))
        except RuntimeError as error:
            version = load("openvino").__version__.partition("-")[0]
            raise XmrError(
                f"{path}: not opened by OpenVINO {version} ({_reason(error)}); update it, or use --runtime onnxruntime"
            ) from error
        self._idle: SimpleQueue[Any] = SimpleQueue()  # one request for each stream
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        self._outputs = compiled.outputs
        self.input_names = [node.get_any_name() for node in compiled.inputs]
        self.output_names = [node.get_any_name() for node in compiled.outputs]

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of one batch, copied: OpenVINO fills its own again at the next.

        XmrError for one that it has no memory for, or that the network does not take.
        """
        request = self._idle.get()
        try:
            results = request.infer([batch], share_inputs=True, share_outputs=True)
            return [results[output].copy() for output in self._outputs]
        except (RuntimeError, MemoryError) as error:
            raise XmrError(
                f"{self._path}: OpenVINO does not run a batch of {batch.shape} ({_reason(error)}); pass a smaller "
                "--batch-size"
            ) from error
        finally:
            self._idle.put(request)


@cache
def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in AMX tiles; only Linux tells without OpenVINO being loaded."""
    return sys.platform == "linux" and "amx_bf16" in CPU_FACTS.read_text()


@cache
def _core() -> Any:
    """Without its telemetry, which would report over the network, from a process of its own, what is run here."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails
    openvino = load("openvino")
    # makes its table of types: two streams that both come first would wait for each other's lock for ever
    openvino.Type.f32.to_dtype()
    return openvino.Core()


def _settings(precision: str, threads: int, streams: int) -> dict[str, Any]:
    """Without a hint OpenVINO multiplies in bfloat16 wherever the CPU can, whatever the network's precision is."""
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }


def _reason(error: BaseException) -> str:
    """What is wrong: the last line, those before it name places in its own source."""
    lines = str(error).strip().splitlines()
    return lines[-1].lstrip("- ")[:200] if lines else "it does not say why"
