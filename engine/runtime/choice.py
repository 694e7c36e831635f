"""Which runtime opens a network, in which precision and on which device: what was wished for, or the fastest there is.

Each network is chosen for by itself, for one may have a plan and another not. Hardly anything is imported to find out,
so that choosing costs no time: a runtime counts as there when its package is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.runtime import onnx_runtime, open_vino
from xmr.engine.runtime.packages import EXTRAS, PACKAGES, check_runtime, is_installed, what_is_missing
from xmr.engine.trt import PLANS, compute_capability, find_builder, plan_path

GPU = "cuda:0"  # of `auto`
DEVICES = ("auto", "cpu", "cuda", "cuda:N")
PURPOSES = ("corpus", "query")
# runtime and precision, the fastest first, as benchmarks/README.md ("Runtimes") measures them: OpenVINO computes
# faster, ONNX Runtime is imported and opens a network in a fifth of the time, which is most of one query's
CPU_ORDERS = {
    "corpus": (
        ("openvino", "bfloat16"),
        ("openvino", "int8"),
        ("onnxruntime", "int8"),
        ("openvino", "float32"),
        ("openvino", "float16"),
        ("onnxruntime", "float32"),
        ("onnxruntime", "float16"),
    ),
    "query": (
        ("onnxruntime", "float32"),
        ("onnxruntime", "int8"),
        ("onnxruntime", "float16"),
        ("openvino", "bfloat16"),
        ("openvino", "int8"),
        ("openvino", "float32"),
        ("openvino", "float16"),
    ),
}
# by the bits that are multiplied
CUDA_ORDER = (
    ("tensorrt", "int8-trt"),
    ("tensorrt", "float16"),
    ("tensorrt", "bfloat16"),
    ("onnxruntime", "float16"),
    ("tensorrt", "float32"),
    ("onnxruntime", "float32"),
    ("onnxruntime", "bfloat16"),
    ("onnxruntime", "int8"),
)

Pair = tuple[str, str]  # runtime and precision


@dataclass(frozen=True)
class Choice:
    """One way to run a network."""

    runtime: str
    precision: str
    device: str  # cpu, or cuda:0
    folder: Path  # of the model
    file: str  # the ONNX network, in the folder
    plan: Path | None = None  # for TensorRT
    passed_over: str | None = None  # why `auto` does not run it on the GPU that is here

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


def check_device(wish: str) -> None:
    """UsageError for a device that does not exist anywhere."""
    kind, colon, number = wish.partition(":")
    if wish not in DEVICES[:3] and not (kind == "cuda" and colon and number.isdecimal() and number.isascii()):
        raise UsageError(f"--device {wish} is unknown; one of {', '.join(DEVICES)}")


def check_wishes(device: str, runtime: str) -> None:
    """UsageError for wishes that no machine meets, XmrError for those that this one does not, whatever the network."""
    check_device(device)
    check_runtime(runtime)
    if runtime == "openvino" and device.startswith("cuda"):
        raise UsageError(
            f"--device {device}: OpenVINO computes on the CPU here; use --device cpu, or another --runtime"
        )
    if runtime == "tensorrt" and device == "cpu":
        raise UsageError("--device cpu: TensorRT computes on NVIDIA GPUs alone; use another --runtime")
    _check_package(runtime)
    if device.startswith("cuda"):
        check_gpu(device)
    elif runtime == "tensorrt" and compute_capability() is None:
        raise XmrError("--runtime tensorrt: there is no CUDA device here; install its driver, or use another --runtime")


def check_gpu(wish: str) -> None:
    """XmrError for a CUDA device that this machine has not."""
    if compute_capability(number_of(wish)) is None:
        which = f"CUDA device {wish.partition(':')[2]}".strip()
        raise XmrError(f"--device {wish}: there is no {which} here; install a driver of NVIDIA, or use --device cpu")


def number_of(device: str) -> int:
    """Of a CUDA device among its like, from 0."""
    return int(device.partition(":")[2] or 0)


def choices(
    folder: Path,
    part: Mapping[str, Any],
    device: str = "auto",
    runtime: str = "auto",
    *,
    precision: str = "auto",
    purpose: str = "corpus",
) -> list[Choice]:
    """The ways to run a network here, the fastest first: for a `corpus`, or for one `query` with the time to open it.

    `part` is of config.json, with `input` and `served`. All are on one device: the wish, or of `auto` the first on
    which there is a way. XmrError where there is none, which of `auto` says why not on the CPU.
    """
    refusals: dict[str, str] = {}
    for candidate in _candidates(device, runtime, purpose):
        try:
            found = _ways_on(candidate, folder, part, (runtime, precision), purpose)
        except XmrError as error:
            refusals[candidate] = str(error)
        else:
            return [replace(choice, passed_over=refusals.get(GPU)) for choice in found]
    [reason, *_] = [refusals[of] for of in ("cpu", *refusals) if of in refusals]
    raise XmrError(f"{part['input']['name']}: {reason}")


def _check_package(runtime: str) -> None:
    """What was asked for is there; for `auto` any."""
    if runtime != "auto" and (missing := what_is_missing(runtime)) is not None:
        raise XmrError(f"--runtime {runtime}: {missing}")
    if runtime == "auto" and not any(map(is_installed, PACKAGES)):
        raise XmrError(f"no runtime for networks is installed; pip install {EXTRAS['onnxruntime']}")


def _candidates(device: str, runtime: str, purpose: str) -> Sequence[str]:
    """The devices to try in turn. One query is answered before a GPU is ready, so it is not even looked for."""
    if device != "auto":
        return [device if device == "cpu" else f"cuda:{number_of(device)}"]
    if runtime == "openvino":
        return ["cpu"]
    if runtime == "tensorrt":
        return [GPU]
    if purpose == "query":
        return ["cpu", GPU]
    return ["cpu"] if compute_capability() is None else [GPU, "cpu"]


def _ways_on(device: str, folder: Path, part: Mapping[str, Any], wish: Pair, purpose: str) -> list[Choice]:
    """The fastest first; XmrError says why there is none, and what to do."""
    offered = _offered(device, part, wish, purpose)
    runtimes = list(dict.fromkeys(runtime for runtime, _ in offered))
    there = [runtime for runtime in runtimes if is_installed(runtime)]
    if not there:
        raise XmrError(what_is_missing(runtimes[0]) or "")
    found, refusals = [], []
    for runtime in there:
        precisions = [precision for of, precision in offered if of == runtime]
        try:
            found += WAYS[runtime](device, folder, part, precisions)
        except XmrError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return sorted(found, key=lambda choice: offered.index((choice.runtime, choice.precision)))


def _offered(device: str, part: Mapping[str, Any], wish: Pair, purpose: str) -> list[Pair]:
    """What the model has for this device and these wishes, the fastest first."""
    assert purpose in PURPOSES
    order = CPU_ORDERS[purpose] if device == "cpu" else CUDA_ORDER
    offered = [
        pair
        for pair in order
        if pair[0] in part["served"].get(pair[1], {}).get("runtimes", ())
        and all(wished in ("auto", one) for wished, one in zip(wish, pair, strict=True))
    ]
    if not offered:
        asked = " ".join(of for of in wish if of != "auto") or "any runtime"
        ways = ", ".join(f"{of} ({', '.join(way['runtimes'])})" for of, way in part["served"].items())
        raise XmrError(f"the model has no network of it for {asked} on {device}; it has {ways}")
    return offered


def _by_onnx_runtime(device: str, folder: Path, part: Mapping[str, Any], precisions: Sequence[str]) -> list[Choice]:
    """The wheel that is installed may be the one that has no CUDA."""
    if device != "cpu" and not onnx_runtime.has_cuda():
        raise XmrError(f"ONNX Runtime does not reach the CUDA device here; {onnx_runtime.remedy()}")
    served = part["served"]
    return [Choice("onnxruntime", precision, device, folder, served[precision]["file"]) for precision in precisions]


def _by_openvino(device: str, folder: Path, part: Mapping[str, Any], precisions: Sequence[str]) -> list[Choice]:
    """Its bfloat16 is of the CPU, not of a file: it is told to multiply so, and reads the float32 network."""
    served = part["served"]
    files = {precision: served[precision]["file"] for precision in precisions}
    if "bfloat16" in files:
        files["bfloat16"] = served["float32"]["file"]
    if not open_vino.has_bfloat16():
        files.pop("bfloat16", None)
    if not files:
        raise XmrError("this CPU does not multiply bfloat16; leave the precision to xmr")
    return [Choice("openvino", precision, device, folder, file) for precision, file in files.items()]


def _by_tensorrt(device: str, folder: Path, part: Mapping[str, Any], precisions: Sequence[str]) -> list[Choice]:
    """Those that have a plan for this machine."""
    name, served = str(part["input"]["name"]), part["served"]
    plans = sorted((folder / PLANS).glob(f"{name}.*.plan"))
    remedy = f"build it with `xmr plan{f' --device {device}' if number_of(device) else ''}`"
    if not plans:
        raise XmrError(f"no plan for TensorRT in {folder / PLANS}; {remedy}")
    builder = find_builder(number_of(device))
    paths = {
        precision: plan_path(folder, name, precision, builder.flavour, builder.version, builder.arch)
        for precision in precisions
    }
    found = [
        Choice("tensorrt", precision, device, folder, served[precision]["file"], path)
        for precision, path in paths.items()
        if path.is_file()
    ]
    if not found:
        here = f"{builder.flavour} {builder.version} on {builder.arch}"
        others = ", ".join(path.stem for path in plans)
        raise XmrError(f"no plan for {here} in {folder / PLANS} (there is {others}); {remedy}")
    return found


WAYS = {"onnxruntime": _by_onnx_runtime, "openvino": _by_openvino, "tensorrt": _by_tensorrt}
