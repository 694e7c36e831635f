"""Which runtime opens a network, and on which device: the fastest that is there, or what was asked for and no other."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from networks import PART, WAYS, installed, with_gpus, write_networks, write_plan

from xmr.engine import trt
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.runtime import (
    Choice,
    Network,
    check_device,
    check_wishes,
    choice,
    choices,
    is_installed,
    onnx_runtime,
    open_network,
    open_vino,
    packages,
    remarks,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_networks(tmp_path)


@pytest.fixture
def network_file(folder: Path) -> Path:
    return folder / "onnx" / "text.float32.onnx"


# what is chosen


@pytest.mark.parametrize(
    ("there", "has_amx", "purpose", "expected"),
    [
        (("onnxruntime", "openvino"), True, "corpus", "openvino bfloat16"),
        (("onnxruntime", "openvino"), False, "corpus", "openvino int8"),
        (("onnxruntime", "openvino"), True, "query", "onnxruntime float32"),
        (("openvino",), True, "query", "openvino bfloat16"),
        (("onnxruntime",), True, "corpus", "onnxruntime int8"),
    ],
)
def test_the_fastest_that_is_there_is_chosen(
    there: tuple[str, ...],
    has_amx: bool,
    purpose: str,
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "find_spec", installed(*there))
    monkeypatch.setattr(open_vino, "has_bfloat16", lambda: has_amx)
    assert str(choices(folder, PART, "cpu", purpose=purpose)[0]) == expected


def test_bfloat16_of_openvino_reads_the_float32_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("openvino"))
    monkeypatch.setattr(open_vino, "has_bfloat16", lambda: True)
    part = {**PART, "served": WAYS | {"bfloat16": {"file": "onnx/text.bfloat16.onnx", "runtimes": ["openvino"]}}}
    [found] = choices(folder, part, "cpu", precision="bfloat16")
    assert found.file == "onnx/text.float32.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_wish_is_met_or_refused_but_never_replaced(runtime: str, folder: Path) -> None:
    if is_installed(runtime):
        found = choices(folder, PART, "cpu", runtime)
        assert {of.runtime for of in found} == {runtime}
    part = {**PART, "served": {"float32": WAYS["float32"] | {"runtimes": ["tensorrt"]}}}
    with pytest.raises(XmrError, match=f"the model has no network of it for {runtime} on cpu; it has float32"):
        choices(folder, part, "cpu", runtime)


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("onnxruntime", r"ONNX Runtime is not installed; pip install 'xmr\[cpu\]' or, with a GPU, 'xmr\[gpu\]'"),
        ("openvino", r"--runtime openvino: OpenVINO is not installed; pip install 'xmr\[openvino\]'"),
        ("tensorrt", r"TensorRT is not installed; pip install 'xmr\[trt\]' or 'xmr\[trt-rtx\]'"),
        ("auto", r"no runtime for networks is installed; pip install 'xmr\[cpu\]'"),
    ],
)
def test_a_runtime_that_is_missing_names_its_extra(runtime: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed())
    with pytest.raises(XmrError, match=says):
        check_wishes("auto", runtime)


def test_a_network_that_only_a_missing_runtime_opens_names_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime"))
    with pytest.raises(XmrError, match=r"text: OpenVINO is not installed; pip install 'xmr\[openvino\]'"):
        open_network(folder, PART, "cpu", precision="bfloat16")


def test_bfloat16_on_a_cpu_without_it_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("openvino"))
    monkeypatch.setattr(open_vino, "has_bfloat16", lambda: False)
    with pytest.raises(XmrError, match="text: this CPU does not multiply bfloat16"):
        open_network(folder, PART, "cpu", precision="bfloat16")


@pytest.mark.parametrize("wish", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "auto:0", "cuda:²"])
def test_a_device_that_does_not_exist_is_a_usage_error(wish: str) -> None:
    with pytest.raises(UsageError, match="is unknown; one of auto, cpu, cuda, cuda:N"):
        check_device(wish)


@pytest.mark.parametrize("wish", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_a_device_that_exists_somewhere_is_none(wish: str) -> None:
    check_device(wish)


def test_a_runtime_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--runtime abacus is unknown; one of auto, onnxruntime, openvino, tensorrt"):
        check_wishes("auto", "abacus")


@pytest.mark.parametrize(
    ("device", "runtime", "says"),
    [
        ("cuda", "openvino", "--device cuda: OpenVINO computes on the CPU here"),
        ("cpu", "tensorrt", "--device cpu: TensorRT computes on NVIDIA GPUs alone"),
    ],
)
def test_a_device_that_a_runtime_never_uses_is_a_usage_error(device: str, runtime: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_wishes(device, runtime)


@pytest.mark.parametrize(
    ("device", "runtime", "says"),
    [
        ("cuda", "auto", "--device cuda: there is no CUDA device here; install a driver of NVIDIA, or use --device"),
        ("cuda:3", "onnxruntime", "--device cuda:3: there is no CUDA device 3 here"),
        ("auto", "tensorrt", "--runtime tensorrt: there is no CUDA device here; install its driver"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    device: str, runtime: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime", "tensorrt"))
    with_gpus(monkeypatch, 0)
    with pytest.raises(XmrError, match=says):
        check_wishes(device, runtime)


@pytest.mark.parametrize("runtime", ["auto", "onnxruntime", "openvino"])
def test_without_a_gpu_auto_is_the_cpu(runtime: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime", "openvino"))
    with_gpus(monkeypatch, 0)
    [found, *_] = choices(folder, PART, "auto", runtime)
    assert (found.device, found.passed_over) == ("cpu", None)


@pytest.mark.parametrize(("wish", "device"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_with_a_gpu_that_onnx_runtime_reaches_it_is_used(
    wish: str, device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime", "openvino"))
    with_gpus(monkeypatch, 2)
    [found, *_] = choices(folder, PART, wish)
    assert (str(found), found.device, found.passed_over) == ("onnxruntime float32", device, None)


def test_one_query_goes_to_the_cpu_and_no_gpu_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime"))
    monkeypatch.setattr(choice, "compute_capability", lambda number=0: pytest.fail("a GPU was looked for"))
    monkeypatch.setattr(onnx_runtime, "has_cuda", lambda: pytest.fail("CUDA was looked for"))
    assert choices(folder, PART, "auto", purpose="query")[0].device == "cpu"


def test_one_query_goes_to_a_gpu_that_alone_can_answer_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("tensorrt"))
    monkeypatch.setattr(choice, "find_builder", lambda number: trt.Builder(TensorRT(), "sm90"))
    write_plan(folder)
    [found] = choices(folder, PART, "auto", purpose="query")
    assert (str(found), found.device, found.passed_over) == ("tensorrt float32", "cuda:0", None)


def test_a_gpu_that_no_runtime_reaches_is_passed_over_by_auto_and_refused_to_who_asks_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime"))
    with_gpus(monkeypatch, 1, reached=False)
    [found, *_] = choices(folder, PART)
    assert found.device == "cpu"
    assert found.passed_over is not None
    assert found.passed_over.startswith("ONNX Runtime does not reach the CUDA device here; install a driver and xmr")
    with pytest.raises(XmrError, match="text: ONNX Runtime does not reach the CUDA device here"):
        choices(folder, PART, "cuda")


# packages that are there in part


def removed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves of a package whose folder another one has written to as well."""
    (tmp_path / name / "capi").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])


@pytest.mark.parametrize(
    ("runtime", "wheels"), [("onnxruntime", "onnxruntime onnxruntime-gpu"), ("openvino", "openvino")]
)
def test_a_package_of_which_but_a_folder_is_left_is_not_installed(
    runtime: str, wheels: str, network_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed(runtime, tmp_path / "site", monkeypatch)
    says = rf"is installed but not whole; pip uninstall {wheels}, then install 'xmr\["
    assert not is_installed(runtime)
    assert [bool(re.search(says, remark)) for remark in remarks()] == [True]
    with pytest.raises(XmrError, match=f"--runtime {runtime}: .* {says}"):
        check_wishes("cpu", runtime)
    with pytest.raises(XmrError, match=says):
        packages.load(runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_package_that_does_not_start_is_one_sentence(
    runtime: str, network_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{runtime}.py").write_text("raise ImportError('libcore.so:\\n no such file')")
    monkeypatch.delitem(sys.modules, runtime, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    open_vino._core.cache_clear()
    says = r"is installed but does not start \(libcore\.so: no such file\); pip uninstall .*, or use another --runtime"
    with pytest.raises(XmrError, match=says):
        Network(network_file, "cpu", runtime)


@pytest.mark.parametrize(
    ("wheels", "n_remarks"),
    [
        (["onnxruntime-1.31.1"], 0),
        (["onnxruntime_gpu-1.31.1"], 0),
        (["onnxruntime-1.31.1", "onnxruntime_gpu-1.30.0"], 1),
    ],
)
def test_both_wheels_of_onnxruntime_at_once_are_told_of(
    wheels: list[str], n_remarks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    for wheel in wheels:
        (tmp_path / f"{wheel}.dist-info").mkdir()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(remarks()) == n_remarks
    assert ("pip uninstall both" in onnx_runtime.remedy()) == bool(n_remarks)


# plans


class TensorRT:
    """A flavour that is installed in this version."""

    __name__, __version__ = "tensorrt", "10.13.0"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, of two architectures, and TensorRT; ONNX Runtime has no CUDA."""
    with_gpus(monkeypatch, 2, reached=False)
    monkeypatch.setattr(packages, "find_spec", installed("onnxruntime", "tensorrt"))
    monkeypatch.setattr(choice, "find_builder", lambda number: trt.Builder(TensorRT(), ("sm90", "sm89")[number]))


@pytest.mark.usefixtures("gpu")
def test_a_plan_of_this_machine_is_chosen(folder: Path) -> None:
    path = write_plan(folder)
    [found] = choices(folder, PART)
    assert found == Choice("tensorrt", "float32", "cuda:0", folder, "onnx/text.float32.onnx", path)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_gets_the_plan_of_its_own_architecture(folder: Path) -> None:
    paths = {device: write_plan(folder, arch=arch) for device, arch in (("cuda:0", "sm90"), ("cuda:1", "sm89"))}
    assert {device: choices(folder, PART, device)[0].plan for device in paths} == paths
    paths["cuda:1"].unlink()
    with pytest.raises(
        XmrError, match=r"no plan for tensorrt 10\.13\.0 on sm89 .*; build it with `xmr plan --device cuda:1`"
    ):
        choices(folder, PART, "cuda:1")


@pytest.mark.usefixtures("gpu")
def test_onnx_runtime_without_cuda_is_not_chosen_for_a_gpu(folder: Path) -> None:
    write_plan(folder)
    assert [str(of) for of in choices(folder, PART, "cuda:0")] == ["tensorrt float32"]
    with pytest.raises(XmrError, match="text: ONNX Runtime does not reach the CUDA device here"):
        choices(folder, PART, "cuda:0", "onnxruntime")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("facts", [{"version": "10.14.1"}, {"arch": "sm80"}, {"flavour": "tensorrt_rtx"}])
def test_a_plan_of_another_version_or_architecture_is_not(facts: Mapping[str, str], folder: Path) -> None:
    path = write_plan(folder, **facts)
    says = rf"no plan for tensorrt 10\.13\.0 on sm90 in \S+ \(there is {path.stem}\); build it with `xmr plan`"
    with pytest.raises(XmrError, match=f"text: {says}"):
        choices(folder, PART, "cuda", "tensorrt")
    [found, *_] = choices(folder, PART)
    assert (found.device, found.runtime) == ("cpu", "onnxruntime")
    assert re.match(says, found.passed_over or "")


@pytest.mark.usefixtures("gpu")
def test_a_network_without_a_plan_runs_on_the_cpu_beside_one_that_has_it(folder: Path) -> None:
    write_plan(folder)
    maps = {"input": {"name": "text.map"}, "served": {"float32": WAYS["int8"]}}
    assert [choices(folder, part)[0].device for part in (PART, maps)] == ["cuda:0", "cpu"]
    with pytest.raises(XmrError, match=r"text\.map: ONNX Runtime does not reach the CUDA device here"):
        choices(folder, maps, "cuda")


@pytest.mark.usefixtures("gpu")
def test_a_tensorrt_that_cannot_be_used_ends_only_an_explicit_wish(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(number: int) -> trt.Builder:
        raise XmrError("tensorrt does not start")

    write_plan(folder)
    monkeypatch.setattr(choice, "find_builder", broken)
    [found, *_] = choices(folder, PART)
    assert (found.device, found.passed_over) == ("cpu", "tensorrt does not start")
    with pytest.raises(XmrError, match="text: tensorrt does not start"):
        choices(folder, PART, "auto", "tensorrt")
    with_gpus(monkeypatch, 1)
    assert (choices(folder, PART, "cuda")[0].runtime, choices(folder, PART)[0].device) == ("onnxruntime", "cuda:0")


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_was_not_built_says_how_to(folder: Path) -> None:
    with pytest.raises(XmrError, match=r"no plan for TensorRT in \S+/plans; build it with `xmr plan`"):
        choices(folder, PART, "cuda:0", "tensorrt")
