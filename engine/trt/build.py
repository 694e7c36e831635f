"""Which TensorRT is here and for which GPU it builds; one ONNX network -> one plan."""

import ctypes
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError

EXTRAS = {"tensorrt": "trt", "tensorrt_rtx": "trt-rtx"}  # flavours, which are modules, and the extras that install them
OLDEST = (10, 13)  # TensorRT that builds what is exported; every TensorRT for RTX does
TURING = (7, 5)  # compute capability
PORTABLE = "sm80plus"  # what TensorRT for RTX builds for unless told otherwise: Ampere and later
AXES = ("batch", "time")  # of a profile, in the order of a network's axes
MOST = 2**31 - 1  # size of an axis
N_SIZES = 3  # least, best and most of an axis
# of "Part.cpp:1: f: Error Code 4: Usage Error (what is wrong. In check at /part.cpp:2)" all but what is wrong
SOURCE = re.compile(r"^.*?Error Code \d+: [\w ]+\((?=.* In \w+ at /)|^\S+\.cpp:\d+: |\.? In \w+ at /.*$")
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR

Profile = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Builder:
    """A flavour of TensorRT, and the architecture that it builds for on this machine."""

    module: Any
    arch: str

    @property
    def flavour(self) -> str:
        return str(self.module.__name__)

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def find_builder(device: int = 0) -> Builder:
    """TensorRT where it is installed, else TensorRT for RTX; XmrError where neither is or it cannot build for a GPU."""
    for flavour in EXTRAS:
        module = _module(flavour)
        if module is not None:
            _check_version(module)
            return Builder(module, arch_of(flavour, compute_capability(device)))
    extras = " or ".join(f"'xmr[{extra}]'" for extra in EXTRAS.values())
    raise XmrError(f"neither TensorRT nor TensorRT for RTX is installed; pip install {extras}")


def arch_of(flavour: str, capability: tuple[int, int] | None) -> str:
    """The architecture a plan has to be for on a GPU of this compute capability; None: on no GPU.

    TensorRT for RTX builds without one, and compiles for the GPU at hand when the plan is opened: so one plan serves
    all from Ampere on, and only Turing has its own.
    """
    if flavour == "tensorrt_rtx":
        return "sm75" if capability == TURING else PORTABLE
    if capability is None:
        raise XmrError(
            "TensorRT builds on the GPU that runs the plan, and there is none here; run `xmr plan` where it is, or "
            "install 'xmr[trt-rtx]' in place of 'xmr[trt]'"
        )
    return "sm{}{}".format(*capability)


def compute_capability(device: int = 0) -> tuple[int, int] | None:
    """Of a GPU, as (8, 9); None where there is no such GPU or no driver for it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    handle, values = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), device):
        return None
    for value, attribute in zip(values, (MAJOR, MINOR), strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle):
            return None
    return values[0].value, values[1].value


def _module(flavour: str) -> Any:
    """None where it is not installed; XmrError where it is, and does not start."""
    try:
        return importlib.import_module(flavour)
    except ModuleNotFoundError as error:
        if error.name == flavour:
            return None
        raise XmrError(f"{flavour} is installed but not whole ({error}); install 'xmr[{EXTRAS[flavour]}]'") from None
    except (ImportError, OSError) as error:
        raise XmrError(f"{flavour} does not start ({error}); install 'xmr[{EXTRAS[flavour]}]' again") from None


def _check_version(module: Any) -> None:
    major, minor = map(int, module.__version__.split(".")[:2])
    if module.__name__ == "tensorrt" and (major, minor) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise XmrError(f"TensorRT {module.__version__} found, {needed} or later needed; install 'xmr[trt]' again")


def build_plan(onnx_path: Path, profile: Profile, module: Any, arch: str = PORTABLE) -> bytes:
    """A plan of one network, whose one input is as the profile says; XmrError says what TensorRT finds wrong."""
    _check_profile(onnx_path, profile)
    complaints = collector(module)
    builder = _started(module, complaints)
    typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # precisions are those of the ONNX file
    network = builder.create_network(typed)
    parser = module.OnnxParser(network, complaints)  # which owns the weights until the plan is built
    # from the file, so that weights kept beside it are looked for there, and TensorRT refuses those further away
    if not parser.parse_from_file(str(onnx_path)):
        raise _refusal(onnx_path, "parse", module, complaints.errors)
    if network.num_inputs != 1 or not network.num_outputs:
        raise XmrError(
            f"{onnx_path}: {network.num_inputs} inputs and {network.num_outputs} outputs found, a network of xmr has "
            "one input; export the model again"
        )
    config = _builder_config(builder, module, arch)
    shapes = _shapes(onnx_path, network.get_input(0), profile)
    optimization = builder.create_optimization_profile()
    optimization.set_shape(network.get_input(0).name, *shapes)
    config.add_optimization_profile(optimization)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(onnx_path, "build", module, complaints.errors)
    return bytes(plan)


def _started(module: Any, complaints: Any) -> Any:
    """Its builder; XmrError where there is none, as with a driver too old for it."""
    try:
        return module.Builder(complaints)
    except (TypeError, RuntimeError):  # of a null pointer
        reason = " ".join(complaints.errors[0].split()) if complaints.errors else "it does not say why"
        raise XmrError(f"{module.__name__} {module.__version__} does not start ({reason}); update the driver") from None


def _builder_config(builder: Any, module: Any, arch: str) -> Any:
    config = builder.create_builder_config()
    # a float32 network is held to a cosine of 0.9999; whoever wants speed takes another precision
    config.clear_flag(module.BuilderFlag.TF32)
    if module.__name__ == "tensorrt_rtx" and arch != PORTABLE:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(module.ComputeCapability, arch.upper()), 0)
    return config


def _check_profile(onnx_path: Path, profile: Profile) -> None:
    for axis, sizes in profile.items():
        is_list = isinstance(sizes, list | tuple) and len(sizes) == N_SIZES
        if axis not in AXES or not is_list or not _rises(sizes):
            raise XmrError(
                f"{onnx_path}: profile of {axis} {sizes} found, least, best and most of batch or time expected; "
                "export the model again"
            )


def _rises(sizes: Sequence[Any]) -> bool:
    """Whether they are sizes of an axis that do not fall."""
    return all(type(size) is int and 1 <= size <= MOST for size in sizes) and list(sizes) == sorted(sizes)


def _shapes(onnx_path: Path, network_input: Any, profile: Profile) -> list[tuple[int, ...]]:
    """Least, best and most of the input: the profile's sizes where an axis is dynamic, its own where not."""
    fixed = list(network_input.shape)
    dynamic = [axis for axis, size in enumerate(fixed) if size < 0]
    if missing := [axis for axis in dynamic if axis >= len(AXES) or AXES[axis] not in profile]:
        raise XmrError(
            f"{onnx_path}: axis {missing[0]} of its input has no size, and the profile none for it; export the model "
            "again"
        )
    return [
        tuple(profile[AXES[axis]][place] if axis in dynamic else size for axis, size in enumerate(fixed))
        for place in range(N_SIZES)
    ]


def _refusal(onnx_path: Path, what: str, module: Any, errors: Sequence[str]) -> XmrError:
    return XmrError(
        f"{onnx_path}: {module.__name__} {module.__version__} cannot {what} it ({reason_of(errors)}); use --runtime "
        "onnxruntime, or export the model again"
    )


def collector(module: Any) -> Any:
    """A logger that keeps `errors`: nothing else tells why a call has failed."""

    class Complaints(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Complaints()


def reason_of(errors: Sequence[str]) -> str:
    """Of the errors the first, for the others follow from it; without the places in TensorRT's own source."""
    # a check that fails without a GPU is told whatever else is wrong
    said = [" ".join(error.split()) for error in errors if "catchCudaError" not in error]
    return SOURCE.sub("", said[0]) if said else "it does not say why"
