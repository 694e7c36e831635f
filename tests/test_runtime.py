"""Running one network: alike by every runtime, on the device asked for, and a sentence for what cannot be run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from conftest import run_xmr
from networks import (
    DIM,
    batch,
    installed,
    needs_openvino,
    network_of,
    weights,
    write_networks,
)
from onnx import TensorProto, helper, numpy_helper

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.runtime import (
    Network,
    check_onnx,
    is_installed,
    onnx_runtime,
    open_vino,
    packages,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_networks(tmp_path)


@pytest.fixture
def network_file(folder: Path) -> Path:
    return folder / "onnx" / "text.float32.onnx"


# what runs


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param("onnxruntime", marks=pytest.mark.skipif(not is_installed("onnxruntime"), reason="missing")),
        pytest.param("openvino", marks=needs_openvino),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("threads", [0, 1])
def test_a_runtime_computes_what_the_network_says(runtime: str, rows: int, threads: int, network_file: Path) -> None:
    network = Network(network_file, "cpu", runtime, threads=threads)
    assert (network.input_names, network.output_names) == (["text"], ["unit_embedding"])
    assert (network.runtime, network.precision) == (runtime, "float32")
    found = network.run(batch(rows))["unit_embedding"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, batch(rows) @ weights(), atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_a_batch_in_several_streams_gives_what_one_gives(
    network_file: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.runtime.streams.PART_BYTES", 1)
    rows = np.random.default_rng(2).standard_normal((33, DIM)).astype(np.float32)
    [whole] = Network(network_file, runtime=runtime).run(rows).values()
    [in_parts] = Network(network_file, runtime=runtime, threads=3, streams=3).run(rows).values()
    np.testing.assert_allclose(in_parts, whole, rtol=1e-5, atol=1e-6)


@needs_openvino
def test_openvino_runs_without_its_telemetry(network_file: Path) -> None:
    script = f"""
import sys
from pathlib import Path
import numpy as np
from xmr.engine.runtime import Network
Network(Path({str(network_file)!r}), runtime="openvino").run(np.zeros((1, {DIM}), np.float32))
assert sys.modules["openvino_telemetry"] is None
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_openvino
def test_what_openvino_gave_stays_as_it_was_when_it_runs_again(network_file: Path) -> None:
    network = Network(network_file, "cpu", "openvino")
    first = network.run(batch())["unit_embedding"]
    kept = first.copy()
    network.run(-batch())
    np.testing.assert_array_equal(first, kept)


@needs_openvino
@pytest.mark.skipif(not open_vino.has_bfloat16(), reason="this CPU has no AMX for bfloat16")
def test_openvino_multiplies_in_bfloat16_only_where_it_is_asked_to(network_file: Path) -> None:
    exact = batch(64) @ weights()
    error = {
        precision: np.abs(Network(network_file, "cpu", "openvino", precision=precision).run(batch(64))[name] - exact)
        for precision in ("float32", "bfloat16")
        for name in ["unit_embedding"]
    }
    assert error["float32"].max() < 1e-5
    assert 1e-4 < error["bfloat16"].max() < 0.1


def test_rows_that_do_not_lie_in_a_row_are_run_too(network_file: Path) -> None:
    found = Network(network_file).run(batch(6)[::2])["unit_embedding"]
    np.testing.assert_allclose(found, batch(6)[::2] @ weights(), atol=1e-5)


# on the device that was asked for


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch, **parts: object) -> None:
    """A package of this name that has but these parts."""
    module = ModuleType(name)
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(packages, "find_spec", installed(name))


def test_a_session_that_became_one_of_the_cpu_is_refused(network_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    stand_in(
        "onnxruntime",
        monkeypatch,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        InferenceSession=lambda *arguments, **settings: session,
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda key, value: None),
    )
    says = r"--device cuda:0 was asked for, CPUExecutionProvider was opened; install a driver and xmr\[gpu\]"
    with pytest.raises(XmrError, match=says):
        Network(network_file, "cuda:0", "onnxruntime")


def test_an_onnx_runtime_without_cuda_opens_nothing_on_a_gpu(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("onnxruntime", monkeypatch, get_available_providers=lambda: ["CPUExecutionProvider"])
    with pytest.raises(XmrError, match="--device cuda:0 was asked for, ONNX Runtime has no CUDAExecutionProvider"):
        Network(network_file, "cuda:0", "onnxruntime")


@pytest.mark.parametrize("reaches", [True, False])
def test_onnx_runtime_has_cuda_where_it_finds_a_device(reaches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled in is more than there is."""
    names = ["CPUExecutionProvider", "CUDAExecutionProvider"]
    stand_in(
        "onnxruntime",
        monkeypatch,
        get_available_providers=lambda: names,
        get_ep_devices=lambda: [SimpleNamespace(ep_name=name) for name in (names if reaches else names[:1])],
    )
    assert onnx_runtime.has_cuda() == reaches


def test_a_runtime_that_opens_no_file_is_refused(network_file: Path) -> None:
    for runtime in ("auto", "tensorrt"):
        with pytest.raises(UsageError, match=f"runtime {runtime} opens no ONNX file; onnxruntime and openvino do"):
            Network(network_file, "cpu", runtime)


# what is no network


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_network_that_was_cut_short_is_refused(runtime: str, share: float, network_file: Path) -> None:
    content = network_file.read_bytes()
    network_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(XmrError, match=r"text\.float32\.onnx: no ONNX network, or not all of one; export the model"):
        Network(network_file, "cpu", runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
# no protobuf, none of a model, and models that have but a graph or but a version
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" * 20, b"\0" * 100, b"{}", b"\x08\x07", b":\x02\x08\x01"])
def test_a_file_of_something_else_is_refused(runtime: str, content: bytes, network_file: Path) -> None:
    network_file.write_bytes(content)
    with pytest.raises(XmrError, match="no ONNX network, or not all of one"):
        Network(network_file, "cpu", runtime)


@pytest.mark.parametrize(
    ("runtime", "remedy"),
    [
        ("onnxruntime", "update it, or use --runtime openvino"),
        pytest.param("openvino", "update it, or use --runtime onnxruntime", marks=needs_openvino),
    ],
)
def test_a_foreign_network_is_refused_in_the_words_of_the_runtime(
    runtime: str, remedy: str, network_file: Path
) -> None:
    network = onnx.load(network_file)
    network.graph.node[0].op_type = "Unheard"
    onnx.save(network, network_file)
    title = packages.TITLES[runtime]
    says = rf"text\.float32\.onnx: not opened .*by {title} \d\S* \([^/\n]*Unheard[^/\n]*\); {remedy}"
    with pytest.raises(XmrError, match=says):
        Network(network_file, "cpu", runtime)


def test_a_network_of_later_operators_says_that_a_later_runtime_is_needed(network_file: Path) -> None:
    network = onnx.load(network_file)
    network.opset_import[0].version = 99
    onnx.save(network, network_file)
    says = (
        r"not opened on cpu by ONNX Runtime [\d.]+ \(ONNX Runtime only .*Opset 99 is under development.*\); update it"
    )
    with pytest.raises(XmrError, match=says):
        Network(network_file, "cpu")


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_a_batch_that_a_network_does_not_take_is_one_sentence(runtime: str, network_file: Path) -> None:
    network = Network(network_file, "cpu", runtime)
    says = r"text\.float32\.onnx: .* does not run a batch of \(3, 2, 4\) .*\); pass a smaller --batch-size"
    with pytest.raises(XmrError, match=says) as caught:
        network.run(batch().reshape(3, 2, 4))
    assert "\n" not in str(caught.value)
    np.testing.assert_allclose(network.run(batch())["unit_embedding"], batch() @ weights(), atol=1e-5)


def test_random_bytes_are_refused_and_crash_nothing(network_file: Path) -> None:
    content = network_file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(content)
        for place in random.integers(0, len(content), 20):
            broken[place] = random.integers(0, 256)
        network_file.write_bytes(broken)
        try:
            check_onnx(network_file)
        except XmrError as error:
            assert str(network_file) in str(error)  # noqa: PT017 - most are refused, some are still networks


# weights beside the network


def external(location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(weights(), "weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(weights().nbytes)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """The tensor as a constant in a graph that is an attribute."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [DIM, DIM])
    graph = helper.make_graph([helper.make_node("Constant", [], ["row"], value=tensor)], "branch", [], [row])
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    node = helper.make_node("If", ["condition"], ["row"], then_branch=graph, else_branch=graph)
    whole = helper.make_graph([node], "network", [condition], [row])
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_weights_beside_the_network_are_read(runtime: str, network_file: Path) -> None:
    (network_file.parent / "weights.bin").write_bytes(weights().tobytes())
    network_file.write_bytes(network_of(external("weights.bin")).SerializeToString())
    assert check_onnx(network_file) == [(network_file.parent / "weights.bin").resolve()]
    found = Network(network_file, "cpu", runtime).run(batch())["unit_embedding"]
    np.testing.assert_allclose(found, batch() @ weights(), atol=1e-5)


@pytest.mark.parametrize("location", ["../../secret", "../beside", "/etc/hostname", "link", "a/../../../secret"])
@pytest.mark.parametrize("place", [network_of, in_a_branch])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_outside_the_folder_are_refused_before_a_runtime_sees_them(
    location: str, place: Callable[[onnx.TensorProto], onnx.ModelProto], runtime: str, network_file: Path
) -> None:
    for outside in (network_file.parents[2] / "secret", network_file.parents[1] / "beside"):
        outside.write_bytes(weights().tobytes())
    (network_file.parent / "a").mkdir()
    (network_file.parent / "link").symlink_to("../../secret")
    network_file.write_bytes(place(external(location)).SerializeToString())
    with pytest.raises(XmrError, match=f"its weights are said to lie in {location}, outside its folder; export it"):
        check_onnx(network_file)
    if is_installed(runtime):
        with pytest.raises(XmrError, match="outside its folder"):
            Network(network_file, "cpu", runtime)


def test_weights_that_are_missing_are_named(network_file: Path) -> None:
    network_file.write_bytes(network_of(external("weights.bin")).SerializeToString())
    with pytest.raises(XmrError, match=r"its weights in weights\.bin are missing; export the model again"):
        Network(network_file)


# the commands


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--runtime", "abacus"), 2, "--runtime abacus is unknown; one of auto, onnxruntime, openvino, tensorrt"),
        (("--device", "cuda:x"), 2, "--device cuda:x is unknown; one of auto, cpu, cuda, cuda:N"),
        (("--runtime", "openvino", "--device", "cuda"), 2, "OpenVINO computes on the CPU here"),
        (("--runtime", "tensorrt", "--device", "cpu"), 2, "TensorRT computes on NVIDIA GPUs alone"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("index", "corpus"),
        ("embed", "corpus", "--out", "f.npy"),
        ("query", "--text", "rain"),
        ("localize", "--in", "query/dog.jpg", "--text", "dog"),
    ],
)
def test_a_command_refuses_a_wish_that_cannot_be(
    command: tuple[str, ...], arguments: tuple[str, ...], code: int, says: str, finished_world: Path
) -> None:
    done = run_xmr(*command, *arguments, cwd=finished_world)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (code, "", False), done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_query_tells_what_answers_it(runtime: str, finished_world: Path) -> None:
    pytest.importorskip(runtime)
    done = run_xmr("query", "--text", "a dog", "--runtime", runtime, cwd=finished_world)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 11), done.stderr
    assert f"on cpu: text by {runtime} " in done.stderr
