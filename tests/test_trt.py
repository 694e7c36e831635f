"""TensorRT plans: built for every encoder there is, of the networks that a model serves; kept while they are good."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from xmr.engine import trt
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.media import text
from xmr.engine.model import CLASS_PROBABILITIES, CONFIG_NAME, FORMAT, UNIT_EMBEDDING
from xmr.engine.plan import plan
from xmr.engine.runtime import cuda
from xmr.engine.trt import (
    Builder,
    arch_of,
    build_plan,
    find_builder,
    make_plans,
    plans_of,
    read_plan,
    read_plan_facts,
    reason_of,
)
from xmr.engine.trt import build as build_module
from xmr.train.config import parse_config
from xmr.train.encoders import ENCODERS
from xmr.train.encoders.encoder import UnitLength
from xmr.train.export import ServedHead
from xmr.train.export.gates import COSINES
from xmr.train.export.graphs import FLOAT32_MODULES, fused, run, write
from xmr.train.export.half import in_half, rounded
from xmr.train.export.int8 import in_int8
from xmr.train.export.networks import cosines
from xmr.train.model import AlignedModel, Head
from xmr.train.onnx_network import NAMESPACE, to_onnx
from xmr.train.places import Places, UnitShares, places_of
from xmr.train.settings import HeadSettings
from xmr.train.words import Words

Array = NDArray[Any]
WIDTH, DIM, MAX_WORDS = 6, 12, 8
FEATURES = "features"
BATCH = [1, 2, 4]
needs_builder = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX, which builds plans, is not installed"
)

SPEECH: dict[str, Any] = {"window_s": 0.5, "widths": (3, 4, 5, 6, 7), "hidden": 5}
TIMM_MAP: dict[str, Any] = {"model": "test_resnet", "weights": "random", "size": 64, "channels": 32}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet": ("convnet", {"size": 32, "channels": (4, 8)}),
    "alexnet": ("alexnet", {"weights": "random", "teacher": False}),
    "timm": ("timm", {"model": "test_resnet", "weights": "random", "size": 64}),
    "timm, levels": ("timm", {"model": "test_efficientnet", "weights": "random", "size": 64, "n_levels": 2}),
    "timm-map, weldon": ("timm-map", TIMM_MAP | {"n_max": 2, "n_min": 2}),
}
SOUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    "soundnet": ("soundnet", {"weights": "random", "window_s": 1.0}),
    "spectrogram": ("spectrogram", {"window_s": 1.0, "channels": (8, 8, 8, 8), "n_mels": 16}),
    "spectrogram, every frequency": (
        "spectrogram",
        {"window_s": 1.0, "channels": (8, 8, 8, 8), "bands": "linear", "n_fft": 256},
    ),
    "davenet": ("davenet", SPEECH),
    "davenet, as published": ("davenet", SPEECH | {"norm": "time", "reading": "last", "padding": "heard", "pad_db": 0}),
    "resdavenet": ("resdavenet", SPEECH | {"pooling": "max"}),
}
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "words": ("words", {"max_words": MAX_WORDS, "channels": (4,)}),
    "slots": ("slots", {"max_words": MAX_WORDS, "channels": (4, 4, 4)}),
    "slots of the port": (
        "slots",
        {"max_words": MAX_WORDS, "channels": (4, 4, 4), "along": "vectors", "drop_repeats": True},
    ),
    "gru, both directions": ("gru", {"units": 5, "bidirectional": True, "n_layers": 2}),
    "bilstm": ("bilstm", {"units": 5, "learned_start": True, "drop_end": True}),
    "sru": ("sru", {"units": 5, "n_layers": 3}),
    "bag, idf": ("bag", {"pooling": "idf", "scale": "deviation", "batch_norm": True}),
}
KINDS = {"image": IMAGES, "sound": SOUNDS, "text": TEXTS}
ALL_KINDS = [(modality, kind) for modality, kinds in KINDS.items() for kind in kinds]
# but a GRU in bfloat16: the parser of TensorRT makes its gates of float32 and bfloat16, which it refuses to mix
IN_PRECISIONS = [
    (modality, kind, precision)
    for modality, kind, precisions in (
        ("image", "timm", ("float16", "bfloat16", "int8-trt")),
        ("sound", "spectrogram", ("float16", "bfloat16", "int8-trt")),
        ("sound", "davenet", ("float16", "int8-trt")),
        ("text", "gru, both directions", ("float16", "int8-trt")),
        ("text", "bilstm", ("bfloat16",)),
        ("text", "sru", ("float16", "int8-trt")),
        ("text", "words", ("float16", "bfloat16", "int8-trt")),
    )
    for precision in precisions
]


def some_words() -> Words:
    vocabulary = (*text.MARKS, *"abcdefghi")
    vectors = np.random.default_rng(0).standard_normal((1 + len(vocabulary), DIM)).astype(np.float32)
    vectors[text.PAD] = 0
    return Words(vocabulary, vectors, np.abs(vectors).sum(axis=1))


@cache
def make_encoder(modality: str, kind: str) -> Any:
    name, settings = KINDS[modality][kind]
    torch.manual_seed(0)
    return ENCODERS[name](ENCODERS[name].Settings(**settings), WIDTH, some_words()).eval()


def batch_of(modality: str, encoder: Any, n: int = 2) -> Array:
    random = np.random.default_rng(0)
    if modality == "image":
        size = encoder.preprocessing.size
        return random.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    if modality == "text":
        return random.integers(1, 9, (n, MAX_WORDS))
    return random.uniform(-0.5, 0.5, (n, n_samples(encoder))).astype(np.float32)


def n_samples(encoder: Any) -> int:
    return round(encoder.preprocessing.window_s * encoder.preprocessing.rate_hz)


def profile_of(modality: str, encoder: Any) -> dict[str, list[int]]:
    """As it stands in config.json."""
    if modality == "image":
        return {"batch": BATCH}
    time = [1, 4, MAX_WORDS] if modality == "text" else [n_samples(encoder)] * 3
    return {"batch": BATCH, "time": time}


@cache
def served_network(modality: str, kind: str) -> onnx.ModelProto:
    """Encoder and head in one, as they are exported."""
    encoder, axes = make_encoder(modality, kind), [0] if modality == "image" else [0, 1]
    return fused(exported(encoder, batch_of(modality, encoder), modality, [FEATURES], axes), head_network())


@cache
def head_network() -> onnx.ModelProto:
    torch.manual_seed(0)
    head = ServedHead(Head(HeadSettings(hidden=(8,), n_classes=3), WIDTH)).eval()
    return exported(head, np.ones((2, WIDTH), np.float32), FEATURES, [UNIT_EMBEDDING, CLASS_PROBABILITIES], [0])


def exported(network: nn.Module, batch: Array, name: str, outputs: list[str], axes: list[int]) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        to_onnx(network, batch, path, input_name=name, output_names=outputs, dynamic_axes=axes)
        return onnx.load(path)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX, which builds plans, is not installed")


# every encoder


@pytest.mark.parametrize(("modality", "kind"), ALL_KINDS, ids=lambda of: of)
def test_a_plan_is_built_of_every_encoder(modality: str, kind: str, rtx: Any, tmp_path: Path) -> None:
    encoder, path = make_encoder(modality, kind), tmp_path / "served.onnx"
    write(served_network(modality, kind), path)
    assert is_plan(build_plan(path, profile_of(modality, encoder), rtx))


@pytest.mark.parametrize(("modality", "kind", "precision"), IN_PRECISIONS, ids=lambda of: of)
def test_a_plan_is_built_in_every_precision(modality: str, kind: str, precision: str, rtx: Any, tmp_path: Path) -> None:
    encoder, path = make_encoder(modality, kind), tmp_path / "served.onnx"
    float32, batches = served_network(modality, kind), [batch_of(modality, encoder)]
    if precision == "int8-trt":
        write(in_int8(float32, precision, batches, lambda model: True).model, path)
    else:
        write(in_half(float32, precision, batches), path)
    assert is_plan(build_plan(path, profile_of(modality, encoder), rtx))


def embeddings_of(network: onnx.ModelProto, batches: list[Array]) -> Array:
    place = [output.name for output in network.graph.output].index(UNIT_EMBEDDING)
    return np.concatenate([outputs[place] for outputs in run(network, batches)])


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize(("modality", "kind"), ALL_KINDS, ids=lambda of: of)
def test_every_encoder_embeds_alike_in_half_as_a_gpu_computes_it(modality: str, kind: str, precision: str) -> None:
    float32, batches = served_network(modality, kind), [batch_of(modality, make_encoder(modality, kind), 4)]
    made = embeddings_of(rounded(in_half(float32, precision, batches)), batches)
    assert cosines(made, embeddings_of(float32, batches)).min() >= COSINES[precision]


@pytest.mark.parametrize("form", ["int8", "int8-trt"])
@pytest.mark.parametrize(("modality", "kind"), ALL_KINDS, ids=lambda of: of)
def test_every_encoder_has_a_form_in_int8_from_batches_of_any_length(modality: str, kind: str, form: str) -> None:
    float32, batch = served_network(modality, kind), batch_of(modality, make_encoder(modality, kind), 4)
    batches = [batch, batch[:2, :5], batch[2:, :3]] if modality == "text" else [batch, batch[:2]]
    made = embeddings_of(in_int8(float32, form, batches, lambda model: True).model, batches)
    assert cosines(made, embeddings_of(float32, batches)).min() > 0.9  # with every layer, however noisy


def is_front_end(node: onnx.NodeProto) -> bool:
    return any(name in prop.value for prop in node.metadata_props if prop.key == NAMESPACE for name in FLOAT32_MODULES)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["spectrogram", "davenet", "resdavenet"])
def test_front_ends_compute_in_float32_from_the_waveform_on(kind: str, precision: str) -> None:
    halved = in_half(served_network("sound", kind), precision, [batch_of("sound", make_encoder("sound", kind))])
    makers = {name: node for node in halved.graph.node for name in node.output}
    waiting = [name for node in halved.graph.node if is_front_end(node) for name in node.input]
    smaller = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    casts: set[str] = set()
    while waiting:
        if (node := makers.pop(waiting.pop(), None)) is not None:
            waiting += node.input
            if node.op_type == "Cast" and node.attribute[0].i in smaller:
                casts.add(node.name)
    assert casts == set()


def test_every_module_that_stays_float32_is_in_a_network() -> None:
    noted = {
        prop.value
        for kind in ALL_KINDS
        for node in [*served_network(*kind).graph.node, *unit_length_network().graph.node]
        for prop in node.metadata_props
        if prop.key == NAMESPACE
    }
    assert [name for name in FLOAT32_MODULES if not any(f".{name}/" in of for of in noted)] == []


@cache
def unit_length_network() -> onnx.ModelProto:
    return exported(nn.Sequential(UnitLength()), np.ones((2, WIDTH), np.float32), FEATURES, ["unit"], [0])


def test_a_plan_is_built_of_the_head_alone(rtx: Any, tmp_path: Path) -> None:
    write(head_network(), tmp_path / "head.onnx")
    assert is_plan(build_plan(tmp_path / "head.onnx", {"batch": BATCH}, rtx))


@pytest.mark.parametrize(
    ("modality", "settings"),
    [
        ("image", {"name": "convnet", "size": 32, "channels": [4, 8]}),
        ("image", TIMM_MAP | {"name": "timm-map", "pooling": "mean"}),
        ("sound", {"name": "spectrogram", "window_s": 1.0, "channels": [8]}),
        ("sound", {"name": "soundnet", "weights": "random", "window_s": 2.0}),
        ("speech", SPEECH | {"name": "davenet", "pooling": "mean", "widths": [3, 4, 5, 6, 7]}),
    ],
    ids=lambda of: of if isinstance(of, str) else of["name"],
)
def test_a_plan_is_built_of_every_map(modality: str, settings: dict[str, Any], rtx: Any, tmp_path: Path) -> None:
    model = aligned(modality, settings)
    places, encoder, path = places_of(model, modality), model.encoder(modality), tmp_path / "map.onnx"
    assert places is not None
    network: nn.Module = places
    if modality != "image" and places.gives == "shares":
        network = UnitShares(places, encoder).eval()
    assert isinstance(network, Places | UnitShares)
    write(exported(network, batch_of(modality, encoder), modality, ["map"], [0]), path)
    assert is_plan(build_plan(path, {"batch": BATCH}, rtx))


def aligned(modality: str, settings: dict[str, Any]) -> AlignedModel:
    filler = "sound" if modality == "image" else "image"
    other = {"name": "spectrogram", "channels": [2]} if filler == "sound" else {"name": "convnet", "size": 32}
    head = {"hidden": [], "embedding": "linear", "n_classes": 0}
    encoders = {modality: settings, filler: other}
    table = {"width": WIDTH, "head": head, "encoders": encoders, "losses": {"info_nce": {}}}
    torch.manual_seed(0)
    return AlignedModel(parse_config(table), some_words()).eval()


def is_plan(content: bytes) -> bool:
    """How both flavours begin one; reading on needs a GPU."""
    return content[1:4] == b"trt" and len(content) > 1000


# the plans of a model


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a network of text in two precisions that TensorRT may open, and in one that it may not."""
    folder = tmp_path_factory.mktemp("trt") / "model"
    (folder / "onnx").mkdir(parents=True)
    encoder = make_encoder("text", "bag, idf")
    float32 = served_network("text", "bag, idf")
    write(float32, folder / "onnx/text.float32.onnx")
    write(in_half(float32, "float16", [batch_of("text", encoder)]), folder / "onnx/text.float16.onnx")
    for name in ("text", "head", "text.int8"):
        shutil.copy(folder / "onnx/text.float32.onnx", folder / f"onnx/{name}.onnx")
    (folder / "vocab.txt").write_text("a\nb\n")
    served = {
        precision: {"file": f"onnx/text.{precision}.onnx", "runtimes": runtimes}
        for precision, runtimes in (
            ("float32", ["onnxruntime", "openvino", "tensorrt"]),
            ("float16", ["tensorrt"]),
            ("int8", ["onnxruntime", "openvino"]),
        )
    }
    part = {
        "medium": "text",
        "file": "onnx/text.onnx",
        "input": {"name": "text", "shape": ["batch", "time"], "dtype": "int64"},
        "preprocessing": {"max_words": MAX_WORDS, "vocabulary": "vocab.txt"},
        "served": served,
        "profile": profile_of("text", encoder),
    }
    head = {"file": "onnx/head.onnx", "input": FEATURES, "outputs": {"embedding": UNIT_EMBEDDING}}
    files = [path for path in folder.rglob("*") if path.is_file()]
    config = {"format": FORMAT, "name": "tiny", "dim": 8, "modalities": {"text": part}, "head": head}
    config["sha256"] = {str(path.relative_to(folder)): digest_of(path) for path in files}
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    return folder


@pytest.fixture
def model(exported_once: Path, tmp_path: Path) -> Path:
    """The model folder, for this test alone; without plans."""
    return shutil.copytree(exported_once, tmp_path / "model")


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text())
    return config


def change_profile(folder: Path, config: dict[str, Any]) -> None:
    config["modalities"]["text"]["profile"]["batch"] = [1, 2, 5]


def change_network(folder: Path, config: dict[str, Any]) -> None:
    file = "onnx/text.float16.onnx"
    network = onnx.load(folder / file)
    network.producer_version = "another"
    onnx.save(network, folder / file)
    config["sha256"][file] = digest_of(folder / file)


def cut_plan(folder: Path, config: dict[str, Any]) -> None:
    plan = next((folder / "plans").glob("text.float16.*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1])


def lose_plan(folder: Path, config: dict[str, Any]) -> None:
    next((folder / "plans").glob("text.float16.*.plan")).unlink()


def lose_facts(folder: Path, config: dict[str, Any]) -> None:
    next((folder / "plans").glob("text.float16.*.json")).unlink()


def spoil_facts(folder: Path, config: dict[str, Any]) -> None:
    next((folder / "plans").glob("text.float16.*.json")).write_text('{"network": ')


@needs_builder
def test_a_model_gets_a_plan_for_each_precision_that_tensorrt_may_open(model: Path) -> None:
    made = make_plans(model, config_of(model))
    assert [(one.network, one.precision, one.was_built) for one in made] == [
        ("text", "float32", True),
        ("text", "float16", True),
    ]
    builder = find_builder()
    ending = f"{builder.flavour}-{builder.version}.{builder.arch}"
    assert [one.file for one in made] == [f"plans/text.{name}.{ending}.plan" for name in ("float32", "float16")]
    assert sorted(path.suffix for path in (model / "plans").iterdir()) == [".json", ".json", ".plan", ".plan"]
    assert all(is_plan((model / one.file).read_bytes()) for one in made)


@needs_builder
def test_the_json_beside_a_plan_says_what_it_was_built_of_and_for(model: Path) -> None:
    [made] = make_plans(model, config_of(model), ["float16"])
    builder, onnx_sha256 = find_builder(), digest_of(model / "onnx/text.float16.onnx")
    path = trt.plan_path(model, "text", "float16", builder.flavour, builder.version, builder.arch)
    assert path == model / made.file
    assert read_plan_facts(path) == {
        "network": "text",
        "precision": "float16",
        "flavour": builder.flavour,
        "version": builder.version,
        "arch": builder.arch,
        "onnx": "onnx/text.float16.onnx",
        "onnx_sha256": onnx_sha256,
        "profile": {"batch": BATCH, "time": [1, 4, MAX_WORDS]},
        "plan_sha256": digest_of(path),
    }
    assert read_plan(path, onnx_sha256) == (read_plan_facts(path), path.read_bytes())
    assert plans_of(model, config_of(model)) == [read_plan_facts(path) | {"file": made.file}]


@needs_builder
def test_plans_that_are_good_are_left_as_they_are(model: Path) -> None:
    make_plans(model, config_of(model))
    before = {path: path.stat().st_mtime_ns for path in (model / "plans").iterdir()}
    assert not any(one.was_built for one in make_plans(model, config_of(model)))
    assert {path: path.stat().st_mtime_ns for path in (model / "plans").iterdir()} == before


@needs_builder
@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        (change_profile, ["float32", "float16"]),
        (change_network, ["float16"]),
        (cut_plan, ["float16"]),
        (lose_plan, ["float16"]),
        (lose_facts, ["float16"]),
        (spoil_facts, ["float16"]),
    ],
)
def test_a_plan_is_built_again_if_it_is_of_something_else(
    change: Callable[[Path, dict[str, Any]], None], rebuilt: list[str], model: Path
) -> None:
    config = config_of(model)
    make_plans(model, config)
    change(model, config)
    assert [one.precision for one in make_plans(model, config) if one.was_built] == rebuilt
    assert not any(one.was_built for one in make_plans(model, config))


@pytest.mark.parametrize("version", ["1.7.1.116", "0.9"])
def test_a_plan_of_another_version_or_architecture_stays_beside_the_one_that_is_built(
    version: str, model: Path, rtx: Any
) -> None:
    [made] = make_plans(model, config_of(model), ["float32"])
    other = trt.plan_path(model, "text", "float32", "tensorrt_rtx", version, "sm75")
    with pytest.raises(XmrError, match=re.escape(f"no such plan; there is {Path(made.file).stem}; build it with")):
        read_plan_facts(other)
    for suffix in (".plan", ".json"):
        shutil.copy((model / made.file).with_suffix(suffix), other.with_suffix(suffix))
    assert not any(one.was_built for one in make_plans(model, config_of(model), ["float32"]))
    (model / made.file).unlink()
    assert [one.file for one in make_plans(model, config_of(model), ["float32"]) if one.was_built] == [made.file]
    assert other.is_file()


def test_turing_which_multiplies_no_float32_is_refused_by_tensorrt_for_rtx(model: Path, rtx: Any) -> None:
    profile = config_of(model)["modalities"]["text"]["profile"]
    with pytest.raises(XmrError, match=r"cannot build it \(.*for Turing.*\); use --runtime onnxruntime"):
        build_plan(model / "onnx/text.float32.onnx", profile, rtx, "sm75")


# what it says of mistakes


@pytest.mark.parametrize(
    ("flavour", "capability", "arch"),
    [
        ("tensorrt_rtx", None, "sm80plus"),
        ("tensorrt_rtx", (8, 9), "sm80plus"),
        ("tensorrt_rtx", (7, 5), "sm75"),
        ("tensorrt", (9, 0), "sm90"),
        ("tensorrt", (12, 0), "sm120"),
    ],
)
def test_the_architecture_is_that_of_the_gpu_or_of_all_that_a_plan_runs_on(
    flavour: str, capability: tuple[int, int] | None, arch: str
) -> None:
    assert arch_of(flavour, capability) == arch


def test_tensorrt_without_a_gpu_names_what_needs_none() -> None:
    with pytest.raises(XmrError, match=r"TensorRT builds on the GPU that runs the plan.*install 'xmr\[trt-rtx\]'"):
        arch_of("tensorrt", None)


def test_without_either_package_the_extras_are_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "EXTRAS", {"no_tensorrt": "trt", "no_tensorrt_rtx": "trt-rtx"})
    with pytest.raises(XmrError, match=r"installed; pip install 'xmr\[trt\]' or 'xmr\[trt-rtx\]'$"):
        make_plans(model, config_of(model))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise OSError('libnvinfer.so.10: no such file')", r"does not start \(libnvinfer.so.10: no such file\)"),
        ("import tensorrt_parts_that_are_not_there", r"installed but not whole \(No module named"),
        ("__version__ = '10.3.0'", r"TensorRT 10.3.0 found, 10.13 or later needed"),
    ],
)
def test_a_tensorrt_that_cannot_be_used_is_named(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # so that what is imported now is forgotten in the end
    del sys.modules["tensorrt"]
    with pytest.raises(XmrError, match=said):
        find_builder()


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([], "it does not say why"),
        (["Part.cpp:1: f: Error Code 4: Usage Error (what is wrong. In check at /part.cpp:2)"], "what is wrong"),
        (["IRuntime::open: Error Code 1: Serialization (no plan. In f at /a/part.cpp:2)", "more"], "no plan"),
        (["Part.cpp:1: it is\nbroken"], "it is broken"),
        (["In catchCudaError: no device", "the network is wrong"], "the network is wrong"),
    ],
)
def test_of_what_tensorrt_says_the_first_is_told_without_places_in_its_source(errors: list[str], reason: str) -> None:
    assert reason_of(errors) == reason


def test_a_plan_is_built_for_the_gpu_that_is_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of two, which TensorRT has to be made current of."""
    entered: list[str] = []

    class Device:
        def __init__(self, number: int) -> None:
            entered.append(f"enter {number}")

        def close(self) -> None:
            entered.append("leave")

    tensorrt = SimpleNamespace(__name__="tensorrt", __version__="10.13.0")
    monkeypatch.setattr(build_module, "_module", lambda flavour: tensorrt if flavour == "tensorrt" else None)
    monkeypatch.setattr(build_module, "compute_capability", lambda number: ((9, 0), (8, 9))[number])
    monkeypatch.setattr(cuda, "Device", Device)
    monkeypatch.setattr(trt, "build_plan", lambda path, profile, module, arch: f"for {arch}".encode())
    for number, arch in enumerate(("sm90", "sm89")):
        [made] = make_plans(model, config_of(model), ["float32"], device=number)
        assert (made.arch, (model / made.file).read_bytes()) == (arch, f"for {arch}".encode())
    assert entered == ["enter 0", "leave", "enter 1", "leave"]


def test_a_precision_that_the_model_has_not_for_tensorrt_is_refused(model: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--precision int8: model tiny has no such network for TensorRT; it has float"
    ):
        make_plans(model, config_of(model), ["float32", "int8"])


def test_a_model_that_serves_nothing_to_tensorrt_says_so(model: Path) -> None:
    config = config_of(model)
    for of in config["modalities"]["text"]["served"].values():
        of["runtimes"] = ["onnxruntime"]
    with pytest.raises(XmrError, match=r"model tiny has no network for TensorRT; export it again"):
        make_plans(model, config)


@needs_builder
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no network", "changed since it was exported"), (None, "missing, though config.json names it")],
)
def test_a_network_that_is_not_as_exported_is_refused(content: bytes | None, said: str, model: Path) -> None:
    path = model / "onnx/text.float32.onnx"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(XmrError, match=rf"text.float32.onnx: {said}"):
        make_plans(model, config_of(model))
    assert not (model / "plans").exists()


@needs_builder
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_network_that_was_exported_cut_short_is_refused(share: float, model: Path) -> None:
    config, path = config_of(model), model / "onnx/text.float32.onnx"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    config["sha256"]["onnx/text.float32.onnx"] = digest_of(path)
    with pytest.raises(XmrError, match=r"text.float32.onnx: no ONNX network, or not all of one"):
        make_plans(model, config)


@needs_builder
def test_a_network_that_keeps_its_weights_outside_of_the_model_is_refused(model: Path) -> None:
    config, path = config_of(model), model / "onnx/text.float32.onnx"
    network = onnx.load(path)
    for tensor in network.graph.initializer:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret.bin")
        tensor.ClearField("raw_data")
    path.write_bytes(network.SerializeToString())
    (model.parent / "secret.bin").write_bytes(bytes(1_000_000))
    config["sha256"]["onnx/text.float32.onnx"] = digest_of(path)
    with pytest.raises(XmrError, match=r"text.float32.onnx: its weights are said to lie in \.\./\.\./secret.bin"):
        make_plans(model, config)


def test_a_foreign_network_is_refused_in_the_words_of_tensorrt(model: Path, rtx: Any, tmp_path: Path) -> None:
    network = onnx.load(model / "onnx/text.float32.onnx")
    network.graph.node[0].op_type = "Unheard"
    onnx.save(network, tmp_path / "foreign.onnx")
    with pytest.raises(XmrError, match=r"foreign.onnx: tensorrt_rtx \S+ cannot parse it \(.*Unheard.*\); use"):
        build_plan(tmp_path / "foreign.onnx", config_of(model)["modalities"]["text"]["profile"], rtx)


def test_a_file_that_is_no_network_is_refused(rtx: Any, tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(XmrError, match=r"noise.onnx: 0 inputs and 0 outputs found|noise.onnx: tensorrt_rtx \S+ cannot"):
        build_plan(tmp_path / "noise.onnx", {"batch": BATCH}, rtx)


@pytest.mark.parametrize(
    "profile",
    [
        {"batch": [4, 2, 8], "time": [1, 4, 8]},
        {"batch": [0, 2, 8], "time": [1, 4, 8]},
        {"batch": [1, 2, 2**31], "time": [1, 4, 8]},
        {"batch": [1, 2], "time": [1, 4, 8]},
        {"batch": [1, 2.0, 8], "time": [1, 4, 8]},
        {"batch": [1, 2, 8], "time": None},
        {"batch": [1, 2, 8], "words": [1, 4, 8]},
    ],
)
def test_a_profile_that_cannot_be_is_refused(profile: dict[str, Any], model: Path, rtx: Any) -> None:
    with pytest.raises(XmrError, match=r"profile of \w+ .* found, least, best and most of batch or time expected"):
        build_plan(model / "onnx/text.float32.onnx", profile, rtx)


@pytest.mark.parametrize(("profile", "axis"), [({}, 0), ({"batch": BATCH}, 1), ({"time": [1, 4, 8]}, 0)])
def test_a_profile_that_leaves_an_axis_open_is_refused(
    profile: dict[str, Any], axis: int, model: Path, rtx: Any
) -> None:
    with pytest.raises(XmrError, match=rf"axis {axis} of its input has no size, and the profile none for it"):
        build_plan(model / "onnx/text.float32.onnx", profile, rtx)


def test_a_time_too_short_for_the_network_is_told_in_the_words_of_tensorrt(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "served.onnx"
    write(served_network("sound", "soundnet"), path)
    with pytest.raises(XmrError, match=r"served.onnx: tensorrt_rtx \S+ cannot build it \(.*onvolution"):
        build_plan(path, {"batch": BATCH, "time": [10, 10, 10]}, rtx)


@needs_builder
@pytest.mark.parametrize("in_the_way", ["file", "folder that takes no files"])
def test_a_folder_that_takes_no_plan_is_named_before_one_is_built(in_the_way: str, model: Path) -> None:
    if in_the_way == "file":
        (model / "plans").write_text("mine")
    else:
        (model / "plans").symlink_to("/proc")
    notes: list[str] = []
    with pytest.raises(XmrError, match=r"plans: no plan can be written there .*; copy the model folder"):
        make_plans(model, config_of(model), note=notes.append)
    assert not [note for note in notes if "building" in note]


@pytest.mark.parametrize(
    "damage",
    [
        {"profile": None},
        {"served": {"float32": {"runtimes": ["tensorrt"]}}},
        {"served": {"../float32": {"file": "onnx/text.float32.onnx", "runtimes": ["tensorrt"]}}},
        {"served": {"float32": {"file": "onnx/other.onnx", "runtimes": ["tensorrt"]}}},
    ],
)
def test_a_damaged_part_of_the_config_is_named(damage: dict[str, Any], model: Path) -> None:
    config = config_of(model)
    config["modalities"]["text"] |= damage
    with pytest.raises(XmrError, match=r"the part of text is damaged in config.json; export it again"):
        make_plans(model, config)


@needs_builder
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut_plan, "changed since it was built"),
        (lose_plan, "no such plan"),
        (lose_facts, "nothing that can be read beside it"),
        (spoil_facts, "nothing that can be read beside it"),
    ],
)
def test_a_damaged_plan_is_named(change: Callable[[Path, dict[str, Any]], None], said: str, model: Path) -> None:
    [made] = make_plans(model, config_of(model), ["float16"])
    change(model, config_of(model))
    with pytest.raises(XmrError, match=rf"text.float16.*plan: {said}.*`xmr plan`"):
        read_plan(model / made.file, digest_of(model / "onnx/text.float16.onnx"))


@needs_builder
def test_a_plan_of_another_network_is_named(model: Path) -> None:
    [made] = make_plans(model, config_of(model), ["float16"])
    with pytest.raises(XmrError, match=r"built of another network than the model has now; run `xmr plan` again"):
        read_plan(model / made.file, digest_of(model / "onnx/text.float32.onnx"))
    config = config_of(model)
    change_network(model, config)
    assert plans_of(model, config) == []


# the command


def run_plan(*arguments: object) -> Any:
    app = Typer()
    app.command()(plan)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@needs_builder
def test_the_command_tells_what_was_built_and_what_was_still_good(model: Path) -> None:
    assert "1 built, 0 still good" in run_plan(model, "--precision", "float32").stdout
    done = run_plan(model)
    lines = done.stdout.splitlines()
    assert [re.split("  +", line)[:2] for line in lines[1:3]] == [["text", "float32"], ["text", "float16"]]
    assert [" good " in lines[1], " built " in lines[2]] == [True, True]
    assert lines[3] == "1 built, 1 still good; next: xmr index PATH --runtime tensorrt"


@needs_builder
def test_the_command_prints_a_plan_a_line_as_json(model: Path) -> None:
    done = run_plan(model, "--json", "--precision", "float16")
    [record] = [json.loads(line) for line in done.stdout.splitlines()]
    builder = find_builder()
    assert (record["network"], record["precision"], record["was_built"]) == ("text", "float16", True)
    assert (record["flavour"], record["arch"]) == (builder.flavour, builder.arch)
    assert (model / record["file"]).stat().st_size == pytest.approx(record["size_mb"] * 1e6, abs=1e4)


def test_the_command_names_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "no config.json in it, so no exported model" in str(run_plan(tmp_path / "nowhere").exception)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cpu", "--device cpu: plans are for NVIDIA GPUs; leave it away, or name the GPU as cuda:N"),
        ("cuda:99", "--device cuda:99: there is no CUDA device 99 here"),
        ("tpu", "--device tpu is unknown; one of auto, cpu, cuda, cuda:N"),
    ],
)
def test_the_command_refuses_what_is_no_gpu_here(device: str, said: str, model: Path) -> None:
    assert said in str(run_plan(model, "--device", device).exception)
    assert not (model / "plans").exists()


def test_a_builder_is_told_by_its_module(rtx: Any) -> None:
    builder = Builder(rtx, "sm80plus")
    assert (builder.flavour, builder.version) == ("tensorrt_rtx", rtx.__version__)
