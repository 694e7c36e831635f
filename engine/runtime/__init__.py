"""Runs one exported network: by ONNX Runtime, OpenVINO or a TensorRT plan, on the device that was asked for alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError
from xmr.engine.files import sha256_of
from xmr.engine.processors import cpus
from xmr.engine.runtime.choice import DEVICES, Choice, check_device, check_gpu, check_wishes, choices, number_of
from xmr.engine.runtime.onnx_file import check_exported, check_onnx
from xmr.engine.runtime.packages import RUNTIMES, is_installed, remarks
from xmr.engine.runtime.streams import Streams, n_streams

__all__ = [
    "DEVICES",
    "RUNTIMES",
    "Choice",
    "Network",
    "Session",
    "check_device",
    "check_gpu",
    "check_onnx",
    "check_wishes",
    "choices",
    "is_installed",
    "n_streams",
    "number_of",
    "open_choice",
    "open_network",
    "remarks",
]


class Session(Protocol):
    """What each runtime makes of a network."""

    input_names: list[str]
    output_names: list[str]

    def run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs of a batch; as many threads as the session has streams may ask at once."""


class Network:
    """An open network: of an ONNX file, or of the session that has opened it.

    `threads` 0: as many as this process has CPUs. They are divided over the streams, for which a CPU's batches are cut.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        runtime: str = "onnxruntime",
        *,
        precision: str = "float32",
        threads: int = 0,
        streams: int = 1,
        session: Session | None = None,
    ) -> None:
        if session is None:
            check_onnx(path)
            session = _of_onnx(path, device, runtime, precision, threads, streams)
        self.runtime, self.precision, self.device = runtime, precision, device
        self._streams = Streams(session.run, streams, is_cut=device == "cpu")  # a GPU is faster the more it has at once
        self.input_names, self.output_names = session.input_names, session.output_names

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every output of one batch, by name."""
        outputs = self._streams.run(np.ascontiguousarray(batch))
        return {
            name: rows.astype(np.float32, copy=False) for name, rows in zip(self.output_names, outputs, strict=True)
        }


def open_network(
    folder: Path, part: Mapping[str, Any], device: str = "auto", runtime: str = "auto", *, precision: str = "auto"
) -> Network:
    """A network of a model folder, by its part of config.json, in the fastest way that meets the wishes."""
    return open_choice(choices(folder, part, device, runtime, precision=precision)[0])


def open_choice(
    choice: Choice, sha256: Mapping[str, str] | None = None, *, threads: int = 0, streams: int = 1
) -> Network:
    """XmrError where the network or its plan is not of the checksums of config.json, where those are given.

    A GPU takes a batch in one stream.
    """
    path = choice.folder / choice.file
    streams = streams if choice.device == "cpu" else 1
    if choice.plan is not None:
        # the network itself is not read: its checksum says whether the plan was built of it
        session = _of_plan(choice.plan, choice.device, sha256[choice.file] if sha256 else sha256_of(path))
    else:
        if sha256:
            check_exported(choice.folder, choice.file, sha256)
        else:
            check_onnx(path)
        session = _of_onnx(path, choice.device, choice.runtime, choice.precision, threads, streams)
    return Network(path, choice.device, choice.runtime, precision=choice.precision, streams=streams, session=session)


def _of_plan(plan: Path, device: str, sha256: str) -> Session:
    from xmr.engine.runtime import tensor_rt

    return tensor_rt.Session(plan, device, sha256)


def _of_onnx(path: Path, device: str, runtime: str, precision: str, threads: int, streams: int) -> Session:
    if runtime == "openvino":
        from xmr.engine.runtime import open_vino

        return open_vino.Session(path, precision, threads or cpus(), streams)
    if runtime != "onnxruntime":
        raise UsageError(f"runtime {runtime} opens no ONNX file; onnxruntime and openvino do")
    from xmr.engine.runtime import onnx_runtime

    return onnx_runtime.Session(path, device, threads or cpus(), streams)
