"""TensorRT plans, built from the networks of an exported model by TensorRT or by TensorRT for RTX; without torch.

A plan fits one network, one version of its builder and one architecture of GPU: its name says which, and the JSON
beside it says of which ONNX file it was built, so that it is built again when any of them is another.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.trt.build import (
    AXES,
    EXTRAS,
    Builder,
    Profile,
    arch_of,
    build_plan,
    collector,
    compute_capability,
    find_builder,
    reason_of,
)
from xmr.engine.trt.plans import PLANS, is_good, plan_path, plans_of, read_plan, read_plan_facts, write_plan

__all__ = [
    "AXES",
    "EXTRAS",
    "PLANS",
    "Builder",
    "Made",
    "Served",
    "arch_of",
    "build_plan",
    "collector",
    "compute_capability",
    "find_builder",
    "make_plans",
    "plan_path",
    "plans_of",
    "read_plan",
    "read_plan_facts",
    "reason_of",
    "served_of",
]

RUNTIME = "tensorrt"  # as config.json names it, whichever flavour
NAME = re.compile(r"[a-z0-9-]+")  # of a modality or precision


@dataclass(frozen=True)
class Served:
    """A network of an exported model that TensorRT may open: encoder and head in one, in one precision."""

    network: str  # its modality
    precision: str
    file: str  # in the model folder
    sha256: str
    profile: Profile  # batch and, where it is dynamic, time: least, best and most


@dataclass(frozen=True)
class Made:
    """What became of one plan."""

    network: str
    precision: str
    flavour: str
    version: str
    arch: str
    file: str  # in the model folder
    size_mb: float
    was_built: bool  # or was still good
    took_s: float


def make_plans(
    folder: Path,
    config: Mapping[str, Any],
    precisions: Sequence[str] = (),
    *,
    device: int = 0,
    note: Callable[[str], None] = lambda sentence: None,
) -> list[Made]:
    """Build the plans of an exported model that are missing or of something else; of these precisions, or of all.

    They are for the CUDA device of this number, where the builder is not one that needs none.
    XmrError for the first that cannot be built: those before it are kept, and are not built again.
    """
    wanted = served_of(config, precisions)
    builder = find_builder(device)
    note(f"plans for {builder.arch} by {builder.flavour} {builder.version}")
    with _on_device(builder, device):
        return [_make_plan(folder, served, config["sha256"], builder, note) for served in wanted]


def served_of(config: Mapping[str, Any], precisions: Sequence[str] = ()) -> list[Served]:
    """The networks of config.json that plans can be built for, of these precisions; UsageError for one it has not."""
    found = [
        _served(config, modality, precision)
        for modality, part in config["modalities"].items()
        for precision, of in part.get("served", {}).items()
        if RUNTIME in of.get("runtimes", ())
    ]
    known = list(dict.fromkeys(served.precision for served in found))
    if not known:
        raise XmrError(f"model {config['name']} has no network for TensorRT; export it again with --trt")
    if unknown := [precision for precision in precisions if precision not in known]:
        raise UsageError(
            f"--precision {unknown[0]}: model {config['name']} has no such network for TensorRT; it has "
            f"{', '.join(known)}"
        )
    return [served for served in found if not precisions or served.precision in precisions]


@contextmanager
def _on_device(builder: Builder, number: int) -> Iterator[None]:
    """TensorRT builds for the GPU that is current; TensorRT for RTX needs none."""
    if builder.flavour != "tensorrt":
        yield
        return
    from xmr.engine.runtime.cuda import Device  # not above: the runtimes open plans

    with closing(Device(number)):
        yield


def _served(config: Mapping[str, Any], modality: str, precision: str) -> Served:
    part = config["modalities"][modality]
    file, profile = part["served"][precision].get("file"), part.get("profile")
    is_plain = NAME.fullmatch(modality) and NAME.fullmatch(precision)  # for both become part of a file's name
    if not is_plain or file not in config["sha256"] or not isinstance(profile, dict):
        raise XmrError(f"model {config['name']}: the part of {modality} is damaged in config.json; export it again")
    return Served(modality, precision, file, config["sha256"][file], profile)


def _make_plan(
    folder: Path, served: Served, sha256: Mapping[str, str], builder: Builder, note: Callable[[str], None]
) -> Made:
    """Of one network: built and written, or still good."""
    from xmr.engine.runtime.onnx_file import check_exported  # not above: the runtimes open plans

    path = plan_path(folder, served.network, served.precision, builder.flavour, builder.version, builder.arch)
    facts = {
        "network": served.network,
        "precision": served.precision,
        "flavour": builder.flavour,
        "version": builder.version,
        "arch": builder.arch,
    }
    origin = {"onnx": served.file, "onnx_sha256": served.sha256, "profile": dict(served.profile)}
    started = time.monotonic()
    was_good = is_good(path, facts | origin)
    if not was_good:
        check_exported(folder, served.file, sha256)
        _check_writable(path.parent)
        note(f"building {path.name}")
        plan = build_plan(folder / served.file, served.profile, builder.module, builder.arch)
        write_plan(path, plan, facts | origin)
    size_mb, took_s = round(path.stat().st_size / 1e6, 2), round(time.monotonic() - started, 2)
    return Made(**facts, file=str(path.relative_to(folder)), size_mb=size_mb, was_built=not was_good, took_s=took_s)


def _check_writable(folder: Path) -> None:
    """Before minutes are spent on a plan that has no place."""
    from tempfile import TemporaryFile  # not above: queries come by here, and a plan is rarely built

    try:
        folder.mkdir(exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise XmrError(
            f"{folder}: no plan can be written there ({error.strerror or error}); copy the model folder to where it can"
        ) from None
