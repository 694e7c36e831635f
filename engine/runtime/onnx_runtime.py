"""ONNX Runtime: a network on the CPU or a CUDA device, and on no other than was asked for."""

import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.runtime.onnx_file import not_whole
from xmr.engine.runtime.packages import load, two_wheels

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
ERRORS_ONLY = 3  # severity of what it logs
# of "[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/part.cc:1 f(int) What is wrong" all but what is
SOURCE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/\S+\.(?:cc|h):\d+ .*\) (?=[A-Z])"
)


class Session:
    """An open session of ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int, streams: int = 1) -> None:
        onnxruntime = load("onnxruntime")
        self._path, self._device = path, device
        provider, provider_options = _provider(device)
        if provider not in onnxruntime.get_available_providers():
            raise XmrError(f"{path.name}: --device {device} was asked for, ONNX Runtime has no {provider}; {remedy()}")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                _options(onnxruntime, threads, streams),
                providers=[provider],
                provider_options=[provider_options],
            )
        except _errors() as error:
            raise self._not_opened(error, onnxruntime.__version__) from error
        # asked for CUDA, ONNX Runtime can silently open a CPU session
        if (opened := self._session.get_providers()[0]) != provider:
            raise XmrError(f"{path.name}: --device {device} was asked for, {opened} was opened; {remedy()}")
        self.input_names = [node.name for node in self._session.get_inputs()]
        self.output_names = [node.name for node in self._session.get_outputs()]

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of one batch; XmrError for one that it has no memory for, or that the network does not take."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(self.output_names, {self.input_names[0]: batch})
        except _errors() as error:
            raise XmrError(
                f"{self._path}: ONNX Runtime does not run a batch of {batch.shape} on {self._device} "
                f"({_reason(error)}); pass a smaller --batch-size"
            ) from error
        return outputs

    def _not_opened(self, error: Exception, version: str) -> XmrError:
        if type(error).__name__ in ("InvalidProtobuf", "NoModel"):
            return not_whole(self._path)
        remedy = (
            "update it, or use --runtime openvino" if self._device == "cpu" else "free the GPU, or use --device cpu"
        )
        return XmrError(
            f"{self._path}: not opened on {self._device} by ONNX Runtime {version} ({_reason(error)}); {remedy}"
        )


def has_cuda() -> bool:
    """Whether it finds a CUDA device: get_available_providers lists what was compiled in, not what is there."""
    onnxruntime = load("onnxruntime")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers() or not hasattr(onnxruntime, "get_ep_devices"):
        return False
    return any(device.ep_name == CUDA_PROVIDER for device in onnxruntime.get_ep_devices())


def remedy() -> str:
    """What to do where ONNX Runtime does not reach a CUDA device."""
    return two_wheels() or "install a driver and xmr[gpu] in place of xmr[cpu], or use --device cpu"


def _options(onnxruntime: Any, threads: int, streams: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads - streams + 1  # whoever runs a part computes too; the rest they share
    options.log_severity_level = ERRORS_ONLY
    # threads that wait in a loop would take the cores from the processes that decode
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _provider(device: str) -> tuple[str, dict[str, str]]:
    if device == "cpu":
        return CPU_PROVIDER, {}
    return CUDA_PROVIDER, {"device_id": device.partition(":")[2] or "0"}


def _errors() -> tuple[type[Exception], ...]:
    """What a session raises; its exceptions have no parent of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile", "NotImplemented")
    return (RuntimeError, MemoryError, *(getattr(state, name) for name in (*names, "RuntimeException", "EPFail")))


def _reason(error: BaseException) -> str:
    """What is wrong, without the places in its own source."""
    return SOURCE.sub("", " ".join(str(error).split()))[:200] or "it does not say why"
