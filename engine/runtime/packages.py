"""The packages that the runtimes come in: which are here and whole, told without importing any; what to install."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xmr.engine.errors import UsageError, XmrError

RUNTIMES = ("auto", "onnxruntime", "openvino", "tensorrt")
PACKAGES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",), "tensorrt": ("tensorrt", "tensorrt_rtx")}
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
EXTRAS = {
    "onnxruntime": "'xmr[cpu]' or, with a GPU, 'xmr[gpu]'",
    "openvino": "'xmr[openvino]'",
    "tensorrt": "'xmr[trt]' or 'xmr[trt-rtx]'",
}
WHEELS = {"onnxruntime", "onnxruntime_gpu"}  # which own one folder: the last installed wins, removing one breaks both


def check_runtime(wish: str) -> None:
    """UsageError for a runtime that xmr has nothing for."""
    if wish not in RUNTIMES:
        raise UsageError(f"--runtime {wish} is unknown; one of {', '.join(RUNTIMES)}")


def is_installed(runtime: str) -> bool:
    return any(map(_is_whole, PACKAGES[runtime]))


def what_is_missing(runtime: str) -> str | None:
    """Of a runtime that cannot be used here, and what to do; None where nothing is."""
    if is_installed(runtime):
        return None
    if _is_left_over(runtime):
        return f"{TITLES[runtime]} is installed but not whole; {_again(runtime)}"
    return f"{TITLES[runtime]} is not installed; pip install {EXTRAS[runtime]}"


def load(runtime: str) -> Any:
    """Its package of the same name, imported; XmrError where it is not here, or does not start."""
    if (missing := what_is_missing(runtime)) is not None:
        raise XmrError(missing)
    try:
        return import_module(runtime)
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise XmrError(
            f"{TITLES[runtime]} is installed but does not start ({reason}); {_again(runtime)}, or use another --runtime"
        ) from error


def two_wheels() -> str | None:
    """What to do where both wheels of ONNX Runtime are installed: what works then is left to chance."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    wheels = {path.name.split("-")[0] for path in Path(spec.origin).parents[1].glob("onnxruntime*.dist-info")}
    if not wheels >= WHEELS:
        return None
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
        "pip uninstall both, then install xmr[cpu] or xmr[gpu]"
    )


def remarks() -> list[str]:
    """What to tell whoever uses runtimes on this machine, though it need not stop them."""
    left_over = [what_is_missing(runtime) for runtime in PACKAGES if _is_left_over(runtime)]
    return [sentence for sentence in (two_wheels(), *left_over) if sentence is not None]


def _is_whole(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _is_left_over(runtime: str) -> bool:
    """Whether only a folder is left of it, which is found as a package but has no file to start from."""
    return not is_installed(runtime) and any(find_spec(package) is not None for package in PACKAGES[runtime])


def _again(runtime: str) -> str:
    wheels = "onnxruntime onnxruntime-gpu" if runtime == "onnxruntime" else " ".join(PACKAGES[runtime])
    return f"pip uninstall {wheels}, then install {EXTRAS[runtime]}"
