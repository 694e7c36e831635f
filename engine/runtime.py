"""Runs one exported network with ONNX Runtime, on the device that was asked for and on no other."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError, XmrError

DEVICES = ("auto", "cpu", "cuda")
RUNTIMES = ("auto", "onnxruntime")
CUDA_PROVIDER = "CUDAExecutionProvider"

Array = NDArray[Any]


class Network:
    """An open ONNX network."""

    def __init__(self, path: Path, device: str) -> None:
        pick_runtime("auto")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        options.log_severity_level = 3
        provider = CUDA_PROVIDER if device == "cuda" else "CPUExecutionProvider"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        # asked for CUDA, ONNX Runtime can silently open a CPU session
        if (opened := self._session.get_providers()[0]) != provider:
            raise XmrError(f"{path.name}: --device {device} was asked for, {opened} was opened; use --device cpu")
        self.input_names = [node.name for node in self._session.get_inputs()]
        self.output_names = [node.name for node in self._session.get_outputs()]

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        """Every output of one batch, by name."""
        outputs = self._session.run(self.output_names, {self.input_names[0]: batch})
        return dict(zip(self.output_names, outputs, strict=True))


def check_device(wish: str) -> None:
    """UsageError for a device that does not exist anywhere."""
    if wish not in DEVICES:
        raise UsageError(f"--device {wish} is unknown; one of {', '.join(DEVICES)}")


def pick_device(wish: str) -> str:
    """`cpu` or `cuda`: what is there for `auto`, and XmrError for a wish that cannot be met."""
    check_device(wish)
    if wish == "cpu":
        return wish
    has_cuda = _has_cuda()
    if wish == "cuda" and not has_cuda:
        raise XmrError(
            "--device cuda: ONNX Runtime finds no CUDA device here; install a driver and xmr[gpu] in place of "
            "xmr[cpu], or use --device cpu"
        )
    return "cuda" if has_cuda else "cpu"


def pick_runtime(wish: str) -> str:
    """The runtime to use; ONNX Runtime is the one there is."""
    if wish not in RUNTIMES:
        raise XmrError(f"runtime {wish!r} is unknown; one of {', '.join(RUNTIMES)}")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise XmrError("ONNX Runtime is not installed; pip install 'xmr[cpu]' or, with a GPU, 'xmr[gpu]'") from None
    return "onnxruntime"


def _has_cuda() -> bool:
    """Whether a device is there: get_available_providers lists what was compiled in, not what is in the machine."""
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers() or not hasattr(onnxruntime, "get_ep_devices"):
        return False
    return any(device.ep_name == CUDA_PROVIDER for device in onnxruntime.get_ep_devices())
