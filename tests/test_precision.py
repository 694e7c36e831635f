"""Precisions of an exported model: alike within their gates, the head in float32, the same bytes when made again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.model import Model
from xmr.train import export as export_module
from xmr.train.checkpoint import Checkpoint, best_of, load_checkpoint, restore_model
from xmr.train.config import parse_config
from xmr.train.export import Parity, Wishes, export, graphs, half, int8, networks
from xmr.train.export.gates import COSINES
from xmr.train.export.half import in_half, rounded
from xmr.train.export.int8.layout import layout_of
from xmr.train.export.items import draw_items
from xmr.train.export.parity import overlap, refuse, ways
from xmr.train.model import AlignedModel
from xmr.train.words import Words

ALL = Wishes(float16=True, bfloat16=True, int8=True, tensorrt=True)
VOCABULARY = tuple(f"word{place}" for place in range(300))


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    """Untrained: convolutions on pictures, a GRU over words, a head of one layer."""
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).standard_normal((301, 20)).astype(np.float32)
    vectors[0] = 0
    encoders = {
        "image": {"name": "convnet", "size": 32, "channels": [8, 16, 16]},
        "text": {"name": "gru", "units": 12, "max_words": 9},
    }
    head = {"hidden": [12], "embedding": "linear", "n_classes": 0}
    table = {"width": 16, "head": head, "encoders": encoders, "losses": {"info_nce": {}}}
    return AlignedModel(parse_config(table), Words(VOCABULARY, vectors)).eval()


def items_of(seed: int, n: int) -> dict[str, list[NDArray[Any]]]:
    """Smooth pictures and sentences."""
    rng = np.random.default_rng(seed)
    pictures = np.kron(rng.integers(0, 256, (n, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    return {"image": list(pictures), "text": [rng.integers(1, 301, rng.integers(1, 10)) for _ in range(n)]}


@pytest.fixture(scope="module")
def folder(model: AlignedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders and head, and both in one in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    (folder / "onnx").mkdir()
    networks.write_networks(model, items_of(0, 6), folder)
    write_all(model, folder, folder)
    return folder


def write_all(
    model: AlignedModel, source: Path, folder: Path, wishes: Wishes = ALL, note: networks.Note = lambda sentence: None
) -> dict[str, Any]:
    for name in ("image", "text", "head"):
        (folder / "onnx").mkdir(exist_ok=True)
        (folder / "onnx" / f"{name}.onnx").write_bytes((source / "onnx" / f"{name}.onnx").read_bytes())
    return networks.write_served(model.modalities, items_of(1, 40), items_of(3, 20), folder, wishes, note)


def opened(folder: Path, modality: str, precision: str) -> ModelProto:
    return onnx.load(folder / "onnx" / f"{modality}.{precision}.onnx")


def constants_of(network: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}


MADE = [
    *[("image", precision) for precision in ("float32", "float16", "bfloat16", "int8", "int8-trt")],
    *[("text", precision) for precision in ("float32", "float16", "bfloat16")],  # nothing in a GRU alone can be int8
]


@pytest.mark.parametrize(("modality", "precision"), MADE)
def test_every_precision_embeds_as_torch_does(modality: str, precision: str, model: AlignedModel, folder: Path) -> None:
    batch = MODALITIES[modality].batch(items_of(2, 12)[modality])  # never seen
    network = opened(folder, modality, precision)
    [[ours]] = graphs.run(rounded(network) if "float16" in precision else network, [batch])
    with torch.inference_mode():
        theirs = model(modality, torch.from_numpy(batch)).embeddings.numpy()
    assert networks.cosines(ours, theirs).min() >= COSINES[precision]


def test_a_gru_alone_is_told_to_be_served_in_float32(model: AlignedModel, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    served = write_all(model, folder, tmp_path, Wishes(int8=True), said.append)
    assert list(served["text"]) == ["float32"]
    assert "text: nothing in it can be int8, so it is served in float32" in said


def test_int8_is_offered_to_openvino_only_where_that_is_there_to_try_it(
    model: AlignedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_there, offered in ((True, ["onnxruntime", "openvino"]), (False, ["onnxruntime"])):
        monkeypatch.setattr(networks, "is_installed", lambda runtime, is_there=is_there: is_there)
        monkeypatch.setattr(
            networks, "_by_openvino", lambda network, batches, folder: networks._embeddings(network, batches)
        )
        served = write_all(model, folder, tmp_path, Wishes(int8=True))
        assert served["image"]["int8"]["runtimes"] == offered


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_the_head_stays_float32_and_the_encoder_does_not(precision: str, folder: Path) -> None:
    tensors = opened(folder, "image", precision).graph.initializer
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    of_head = {tensor.data_type for tensor in tensors if tensor.name.startswith("head.")} & floats
    convolutions = {tensor.data_type for tensor in tensors if len(tensor.dims) == 4 and tensor.dims[2] == 3}
    assert of_head == {TensorProto.FLOAT}
    assert convolutions == {TensorProto.FLOAT16 if precision == "float16" else TensorProto.BFLOAT16}


def test_the_form_for_tensorrt_is_symmetric_with_a_float_bias(folder: Path) -> None:
    held = constants_of(opened(folder, "image", "int8-trt"))
    codes = [values for values in held.values() if values.dtype in (np.int8, np.uint8, np.int32)]
    assert {values.dtype for values in codes} == {np.dtype(np.int8)}
    assert all(not held[name].any() for name in held if name.endswith(("/zero", "/zeros")))


def test_the_form_for_cpus_rounds_activations_to_bytes(folder: Path) -> None:
    held = constants_of(opened(folder, "image", "int8"))
    assert {held[name].dtype for name in held if name.endswith("/zero")} == {np.dtype(np.uint8)}
    assert {held[name].dtype for name in held if name.endswith("/bias/codes")} == {np.dtype(np.int32)}


def test_weights_have_a_scale_for_each_channel(folder: Path) -> None:
    held = constants_of(opened(folder, "image", "int8"))
    for name in [name for name in held if name.endswith("/weights/codes")]:
        largest = np.abs(held[name].astype(int)).reshape(len(held[name]), -1).max(axis=1)
        assert len(held[name.replace("codes", "scales")]) == len(held[name])
        assert (largest == 127).all()


def test_networks_are_written_twice_as_the_same_bytes(model: AlignedModel, folder: Path, tmp_path: Path) -> None:
    assert write_all(model, folder, tmp_path)
    for path in sorted((folder / "onnx").iterdir()):
        assert (tmp_path / "onnx" / path.name).read_bytes() == path.read_bytes(), path.name


def test_networks_do_not_name_files_of_the_machine(folder: Path) -> None:
    for path in (folder / "onnx").iterdir():
        assert b".py" not in path.read_bytes(), path.name


def test_pixels_are_only_cast(folder: Path) -> None:
    network = opened(folder, "image", "float32")
    assert [node.op_type for node in network.graph.node if "image" in node.input] == ["Cast"]


def test_bfloat16_is_of_the_float32_file_unless_tensorrt_has_its_own(
    model: AlignedModel, folder: Path, tmp_path: Path
) -> None:
    alone = write_all(model, folder, tmp_path, Wishes(bfloat16=True))
    assert alone["image"]["bfloat16"] == {"file": "onnx/image.float32.onnx", "runtimes": ["openvino"]}
    both = write_all(model, folder, tmp_path, Wishes(bfloat16=True, tensorrt=True))
    assert both["image"]["bfloat16"] == {"file": "onnx/image.bfloat16.onnx", "runtimes": ["openvino", "tensorrt"]}


def fused_image(folder: Path) -> ModelProto:
    return graphs.fused(onnx.load(folder / "onnx" / "image.onnx"), onnx.load(folder / "onnx" / "head.onnx"))


def count_of_int8(network: ModelProto) -> int:
    return sum(name.endswith("/weights/codes") for name in constants_of(network))


def test_as_few_layers_are_left_out_as_let_embeddings_be_alike(folder: Path) -> None:
    batches = [np.stack(items_of(1, 8)["image"])]

    made = int8.in_int8(fused_image(folder), int8.CPU, batches, lambda made: count_of_int8(made) <= 1)
    assert (made.n_layers, made.n_left_out) == (1, 3)


@pytest.mark.parametrize("spoiling", [{0}, {2}, {1, 3}, {0, 1, 2}])
def test_layers_that_spoil_by_themselves_are_left_out_and_no_others(spoiling: set[int], folder: Path) -> None:
    network, batches = fused_image(folder), [np.stack(items_of(1, 8)["image"])]
    names = [layer.name for layer in layout_of(network).layers]

    def in_int8_of(made: ModelProto) -> set[int]:
        return {place for place, name in enumerate(names) if f"{name}/weights/codes" in constants_of(made)}

    made = int8.in_int8(network, int8.CPU, batches, lambda candidate: not in_int8_of(candidate) & spoiling)
    assert in_int8_of(made.model) == set(range(len(names))) - spoiling


def test_of_layers_that_are_too_many_the_first_are_left_out(folder: Path) -> None:
    network, batches = fused_image(folder), [np.stack(items_of(1, 8)["image"])]
    names = [layer.name for layer in layout_of(network).layers]
    made = int8.in_int8(network, int8.CPU, batches, lambda made: count_of_int8(made) <= 2)
    kept = [f"{name}/weights/codes" in constants_of(made.model) for name in names]
    assert kept == [False, False, True, True]


@pytest.mark.parametrize(("most", "enough"), [(1, 0), (1, 1), (3, 2), (7, 7), (50, 2), (50, 37), (64, 64)])
def test_the_smallest_number_that_is_enough_is_found(most: int, enough: int) -> None:
    asked: list[int] = []
    assert int8._fewest(most, lambda n: asked.append(n) or n >= enough) == enough  # type: ignore[func-returns-value]
    assert len(asked) <= 2 * most.bit_length() + 1


def test_one_layer_is_int8_though_nothing_is_alike_so_that_the_gate_can_tell(folder: Path) -> None:
    made = int8.in_int8(fused_image(folder), int8.CPU, [np.stack(items_of(1, 8)["image"])], lambda network: False)
    assert (made.n_layers, made.n_left_out) == (1, 3)


@pytest.mark.parametrize(("weight", "bias"), [(1e-10, 3.0), (1e-44, 3.0), (0.0, 3.0), (1e-10, -2.0)])
@pytest.mark.parametrize("form", [int8.CPU, int8.TENSORRT])
def test_a_channel_that_is_almost_all_bias_keeps_it(form: str, weight: float, bias: float) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    weights[1] = weight
    biases = np.array([0.1, bias, -0.2, 0.0], np.float32)
    network = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> agraph (float[batch,3,8,8] image) => (float[batch,4,6,6] unit) '
        "{ unit = Conv(image, weights, biases) }"
    )
    network.graph.node[0].name = "convolution"
    network.graph.initializer.extend(
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(biases, "biases")]
    )
    batches = [random.standard_normal((4, 3, 8, 8)).astype(np.float32)]
    made = int8.in_int8(network, form, batches, lambda network: True)
    [[expected]], [[ours]] = (graphs.run(of, batches) for of in (network, made.model))
    np.testing.assert_allclose(ours[:, 1], expected[:, 1], atol=0.1)  # the steps of the output
    np.testing.assert_allclose(ours, expected, atol=0.4)


def scaled(network: ModelProto, factor: float) -> ModelProto:
    """With the weights of its last convolution so much larger."""
    scaled = graphs.copied(network)
    [*_, last] = [node.input[1] for node in scaled.graph.node if node.op_type == "Conv"]
    tensor = graphs.constants(scaled)[last]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), last))
    return scaled


def test_what_overflows_float16_in_one_batch_of_many_stays_float32(folder: Path) -> None:
    dark, bright = np.zeros((4, 32, 32, 3), np.uint8), np.stack(items_of(2, 4)["image"])
    network = fused_image(folder)
    [values] = graphs.largest(network, [last_of(network)], [bright]).values()
    loud = scaled(network, 4 * 65504 / values)  # whose mean over sixteen batches is far below what overflows
    [[expected]] = graphs.run(loud, [bright])
    halved = in_half(loud, "float16", [*[dark] * 15, bright])
    [[ours]] = graphs.run(rounded(halved), [bright])
    assert networks.cosines(ours, expected).min() >= COSINES["float16"]
    blind = half._Halving(loud, "float16", graphs.float32_nodes(loud)).halved()
    [[overflown]] = graphs.run(rounded(blind), [bright])
    assert networks.cosines(overflown, expected).min() < COSINES["float16"]  # which the rounding shows


def test_the_largest_value_is_that_of_any_batch(folder: Path) -> None:
    network, batches = fused_image(folder), [np.full((2, 32, 32, 3), shade, np.uint8) for shade in (0, 90, 255)]
    name = last_of(network)
    alone = [graphs.largest(network, [name], [batch])[name] for batch in batches]
    assert graphs.largest(network, [name], batches)[name] == max(alone)


def last_of(network: ModelProto) -> str:
    """What its last convolution makes."""
    return str([node.output[0] for node in network.graph.node if node.op_type == "Conv"][-1])


@pytest.mark.parametrize("factor", [1e9, 1e-9])
def test_constants_that_float16_does_not_hold_stay_float32(factor: float, folder: Path) -> None:
    network, batch = scaled(fused_image(folder), factor), np.stack(items_of(2, 4)["image"])
    [[expected]] = graphs.run(network, [batch])
    halved = in_half(network, "float16", [np.zeros_like(batch)])
    [[ours]] = graphs.run(rounded(halved), [batch])
    assert networks.cosines(ours, expected).min() >= (COSINES["float16"] if factor < 1 else -1)
    [*_, last] = [node.input[1] for node in network.graph.node if node.op_type == "Conv"]
    held = graphs.constants(halved)
    assert held[last].data_type == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in held.values() if len(tensor.dims) == 4}


@pytest.mark.parametrize(("modality", "precision"), [pair for pair in MADE if pair[1] != "int8"])
def test_tensorrt_builds_every_precision(modality: str, precision: str, folder: Path) -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx builds plans without a GPU; it is not installed")
    from xmr.engine.trt import build_plan, find_builder

    path = folder / "onnx" / f"{modality}.{precision}.onnx"
    profile = {"batch": [1, 2, 4]} | ({"time": [1, 4, 9]} if modality == "text" else {})
    assert len(build_plan(path, profile, module, find_builder().arch)) > 1000


def compared(precision: str, runtime: str, cosine: float, *stands_for: str, **more: Any) -> Parity:
    return Parity("sound", 8, cosine, precision=precision, runtime=runtime, stands_for=stands_for or (runtime,), **more)


def test_what_is_off_is_refused_with_the_option_to_leave_out() -> None:
    with pytest.raises(XmrError, match=r"sound in int8 by openvino: .* 0\.980000, 0\.99 .* export without --int8"):
        refuse(compared("int8", "openvino", 0.98))
    with pytest.raises(XmrError, match=r"0\.9999 is asked for; nothing was written, report this with the recipe"):
        refuse(compared("float32", "onnxruntime", float("nan")))
    with pytest.raises(XmrError, match=r"the lengths of embeddings are off by 1\.000000, at most 0\.01 is asked for"):
        refuse(compared("int8", "openvino", 1.0, length_error=1.0))
    with pytest.raises(XmrError, match=r"probabilities are off by 0\.200000, at most 0\.01 is asked for"):
        refuse(compared("float32", "openvino", 1.0, class_error=0.2))
    refuse(compared("int8", "openvino", 0.995, class_error=0.2, length_error=0.001))


def served_by(**runtimes: list[str]) -> dict[str, Any]:
    return {"modalities": {"sound": {"served": {name: {"runtimes": of} for name, of in runtimes.items()}}}}


def test_a_precision_is_withdrawn_from_the_runtimes_by_which_it_is_off() -> None:
    config = served_by(bfloat16=["openvino", "tensorrt"])
    said: list[str] = []
    results = [compared("bfloat16", "openvino", 0.99), compared("bfloat16", "rounded", 0.9999, "tensorrt")]
    export_module._judge(config, results, said.append)
    assert config == served_by(bfloat16=["tensorrt"])
    [sentence] = said
    assert sentence.startswith("sound: bfloat16 is not offered to openvino, for the exported network is off, smallest")


def test_a_precision_that_is_alike_by_no_runtime_is_refused() -> None:
    off = compared("bfloat16", "openvino", 0.99)
    with pytest.raises(XmrError, match=r"sound in bfloat16 by openvino: .* nothing was written, export without --bf16"):
        export_module._judge(served_by(bfloat16=["openvino"]), [off], lambda sentence: None)
    by_all = [
        compared("float16", "onnxruntime", 1.0),
        compared("float16", "rounded", 0.5, "onnxruntime", "tensorrt"),
    ]
    with pytest.raises(XmrError, match=r"sound in float16 by rounded"):
        export_module._judge(served_by(float16=["onnxruntime", "tensorrt"]), by_all, lambda sentence: None)


def test_halves_are_compared_as_a_gpu_rounds_them() -> None:
    part = served_by(float16=["onnxruntime", "tensorrt"], bfloat16=["openvino"])
    pairs = [(way.runtime, way.precision, way.stands_for) for way in ways(part, "sound")]
    assert ("rounded", "float16", ("onnxruntime", "tensorrt")) in pairs
    assert "bfloat16" not in [precision for runtime, precision, _ in pairs if runtime == "rounded"]


def test_neighbours_are_others_and_of_too_few_items_nothing_is_said() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 40, 16)).astype(np.float32)
    assert overlap(a, a) == 100
    assert overlap(a, b) == pytest.approx(100 * 10 / 39, abs=10)  # as by chance: the item itself is no neighbour
    assert overlap(a[:11], b[:11]) is None


# the whole export


@pytest.fixture(scope="module")
def checkpoint(finished_world: Path) -> Checkpoint:
    return load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))


def test_a_model_exported_twice_is_the_same_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    wishes = Wishes(float16=True, int8=True)
    results = [export(checkpoint, tmp_path / name, "twin", wishes) for name in ("first", "second")]
    assert results[0] == results[1]
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "first", tmp_path / "second")
    )
    assert first == second
    assert {of.precision for of in results[0]} >= {"float32", "float16", "int8"}
    assert Model.open(tmp_path / "first").fingerprint == Model.open(tmp_path / "second").fingerprint
    card = (tmp_path / "first" / "README.md").read_text()
    assert "| image | int8 | onnxruntime | 16 val |" in card
    assert "| image | float16 | rounded | 16 val |" in card


def of_split(checkpoint: Checkpoint, split: str, folder: Path) -> Checkpoint:
    """The same, all its rows being of one split."""
    source = Path(checkpoint.config.data[0])
    rows = [json.loads(line) | {"split": split} for line in source.read_text().splitlines()]
    for row in rows:
        row |= {name: str(source.parent / row[name]) for name in ("image", "sound") if name in row}
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(checkpoint, config=replace(checkpoint.config, data=(str(folder / "pairs.jsonl"),)))


def test_without_train_rows_there_is_nothing_to_calibrate_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    changed = of_split(checkpoint, "val", tmp_path)
    with pytest.raises(XmrError, match=r"no train rows of image to calibrate on; add some, or export float32 alone"):
        draw_items(restore_model(changed), changed, is_calibrated=True)


@pytest.mark.parametrize("split", ["as it is", "train"])
def test_no_item_is_calibrated_on_that_something_else_is_judged_by(
    split: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    changed = checkpoint if split == "as it is" else of_split(checkpoint, split, tmp_path)
    drawn = draw_items(restore_model(changed), changed, is_calibrated=True)
    assert drawn.split == ("train" if split == "train" else "val")
    for modality in drawn.checked:
        parts = [{array.tobytes() for array in of[modality]} for of in (drawn.checked, drawn.choice, drawn.calibration)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_batches_to_calibrate_on_come_in_no_order_of_length() -> None:
    sentences = [np.ones(1 + place // 4, np.int64) for place in range(200)]
    lengths = [batch.shape[1] for batch in networks._batches("text", sentences)]
    assert sum(lengths[:4]) / 4 == pytest.approx(sum(lengths) / len(lengths), rel=0.5)
    assert lengths != sorted(lengths)
