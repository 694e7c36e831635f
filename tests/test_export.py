"""Export: ONNX gives what torch gives, at any batch and length; a folder is replaced whole or not at all."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from typer import Typer
from typer.testing import CliRunner

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.media.decode import Task, decode
from xmr.engine.model import CLASS_PROBABILITIES, UNIT_EMBEDDING, Model, fingerprint
from xmr.train import export as export_module
from xmr.train.checkpoint import Checkpoint, best_of, load_checkpoint, restore_model
from xmr.train.cli.export import export as export_command
from xmr.train.config import parse_config
from xmr.train.datasets import read_rows, select
from xmr.train.encoders import SoundNetTrunk
from xmr.train.export import Parity, ServedHead, default_name, export
from xmr.train.export import networks as networks_module
from xmr.train.export import parity as parity_module
from xmr.train.export.folder import replaced
from xmr.train.export.gates import COSINES
from xmr.train.export.networks import served_map
from xmr.train.export.parity import map_cosine
from xmr.train.model import AlignedModel, Head
from xmr.train.onnx_network import to_onnx
from xmr.train.places import places_of, steps_s
from xmr.train.settings import HeadSettings
from xmr.train.words import NO_WORDS

GATE = 0.9999  # smallest cosine that is promised between torch and float32 ONNX
MODALITY_NAMES = ("image", "sound", "text")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_onnx(path: Path, batch: NDArray[Any]) -> NDArray[Any]:
    session = session_of(path)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def run_torch(network: torch.nn.Module, batch: NDArray[Any]) -> NDArray[Any]:
    with torch.inference_mode():
        return network(torch.from_numpy(batch)).numpy()


@pytest.fixture(scope="module")
def checkpoint(finished_world: Path) -> Checkpoint:
    return load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> AlignedModel:
    return restore_model(checkpoint).eval()


@pytest.fixture(scope="module")
def again(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Parity]]:
    """The same checkpoint exported a second time, one of its val pictures being unreadable by now."""
    folder = tmp_path_factory.mktemp("again")
    rows = [json.loads(line) for line in Path(checkpoint.config.data[0]).read_text().splitlines()]
    for row in rows:
        row |= {name: str(Path(checkpoint.config.data[0]).parent / row[name]) for name in MODALITY_NAMES if name in row}
    (folder / "bad.jpg").write_bytes(b"no picture")
    rows[[row["split"] for row in rows].index("val")]["image"] = str(folder / "bad.jpg")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = replace(checkpoint, config=replace(checkpoint.config, data=(str(folder / "pairs.jsonl"),)))
    return folder / "model", export(changed, folder / "model", "again")


def real_items(model: AlignedModel, checkpoint: Checkpoint, modality: str) -> list[Any]:
    """What is decoded of the val rows."""
    rows = select(read_rows(checkpoint.config.data), "val", model.modalities)
    if modality == "text":
        return [caption for row in rows for caption in row.captions]
    paths = dict.fromkeys(row.files[modality] for row in rows if modality in row.files)
    return [decode(Task(path, modality), model.encoder(modality).preprocessing).pieces[0].array for path in paths]


@pytest.mark.parametrize("modality", MODALITY_NAMES)
def test_onnx_embeds_real_items_as_torch_does(
    modality: str, model: AlignedModel, checkpoint: Checkpoint, exported: Path
) -> None:
    served = Model.open(exported, device="cpu")
    items = real_items(model, checkpoint, modality)
    assert len(items) >= 8
    ours = served.embed(modality, items)
    arrays = [served._arrays(modality, item)[0] for item in items]
    with torch.inference_mode():
        theirs = model(modality, torch.from_numpy(MODALITIES[modality].batch(arrays)))[0].numpy()
    assert (ours * theirs).sum(axis=1).min() >= GATE


@pytest.mark.parametrize("n_items", [1, 2, 7])
@pytest.mark.parametrize("modality", MODALITY_NAMES)
def test_a_batch_of_any_size_runs(
    modality: str, n_items: int, model: AlignedModel, checkpoint: Checkpoint, exported: Path
) -> None:
    items = (real_items(model, checkpoint, modality) * 2)[:n_items]
    served = Model.open(exported, device="cpu")
    alone = np.concatenate([served.embed(modality, [item]) for item in items])
    # the same sums in another order
    np.testing.assert_allclose(served.embed(modality, items), alone, atol=1e-5)


@pytest.mark.parametrize("n_items", [1, 3, 7])
@pytest.mark.parametrize("modality", ["image", "sound"])
def test_onnx_maps_real_items_as_torch_does(
    modality: str, n_items: int, model: AlignedModel, checkpoint: Checkpoint, exported: Path
) -> None:
    arrays = real_items(model, checkpoint, modality)[:n_items]
    places = places_of(model, modality)
    assert places is not None
    expected = run_torch(places, np.stack(arrays))
    ours = Model.open(exported, device="cpu").map_arrays(modality, arrays)
    assert ours.shape[:2] == (n_items, model.dim)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_the_embedding_networks_give_embeddings_alone(exported: Path) -> None:
    for name in MODALITY_NAMES:
        assert [node.name for node in session_of(exported / "onnx" / f"{name}.onnx").get_outputs()] == ["features"]


@pytest.mark.parametrize("n_samples", [6000, 22050, 44100, 100_001])
def test_a_sound_of_any_length_runs(n_samples: int, model: AlignedModel, exported: Path) -> None:
    samples = np.random.default_rng(n_samples).uniform(-1, 1, (2, n_samples)).astype(np.float32)
    expected = run_torch(model.encoder("sound"), samples)
    np.testing.assert_allclose(run_onnx(exported / "onnx" / "sound.onnx", samples), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_words", [1, 2, 24, 60])
def test_a_sentence_of_any_length_runs(n_words: int, model: AlignedModel, exported: Path) -> None:
    n_known = len(model.encoder("text").preprocessing.vocabulary)
    ids = np.random.default_rng(n_words).integers(0, n_known + 1, (3, n_words))
    expected = run_torch(model.encoder("text"), ids)
    np.testing.assert_allclose(run_onnx(exported / "onnx" / "text.onnx", ids), expected, rtol=1e-4, atol=1e-5)


def test_the_axes_that_may_change_have_no_number(exported: Path) -> None:
    shapes = {name: session_of(exported / "onnx" / f"{name}.onnx").get_inputs()[0].shape for name in MODALITY_NAMES}
    assert {name: [isinstance(size, str) for size in shape] for name, shape in shapes.items()} == {
        "image": [True, False, False, False],
        "sound": [True, True],
        "text": [True, True],
    }


def test_soundnet_exports_with_its_time_axis(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = SoundNetTrunk((1, 2)).eval()
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 9000)).astype(np.float32)
    to_onnx(trunk, samples, tmp_path / "trunk.onnx", input_name="sound", output_names=["features"], dynamic_axes=[0, 1])
    longer = np.random.default_rng(1).uniform(-1, 1, (3, 14_321)).astype(np.float32)
    np.testing.assert_allclose(
        run_onnx(tmp_path / "trunk.onnx", longer), run_torch(trunk, longer), rtol=1e-4, atol=1e-5
    )


def test_a_served_head_gives_unit_rows_and_probabilities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = Head(HeadSettings(hidden=(6,), n_classes=4, embedding="linear"), 5).eval()
    features = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    path = tmp_path / "head.onnx"
    names = [UNIT_EMBEDDING, CLASS_PROBABILITIES]
    to_onnx(ServedHead(head), features, path, input_name="features", output_names=names, dynamic_axes=[0])
    rows, probabilities = session_of(path).run(names, {"features": features[:1]})
    embeddings, logits, *_ = head(torch.from_numpy(features[:1]))
    np.testing.assert_allclose(rows, embeddings.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1).detach().numpy(), atol=1e-6)
    assert np.linalg.norm(rows) == pytest.approx(1, rel=1e-6)


def served_in_float32(modality: str) -> dict[str, Any]:
    return {
        "float32": {
            "file": f"onnx/{modality}.float32.onnx",
            "runtimes": ["onnxruntime", "openvino", "tensorrt"],
        }
    }


def test_config_json_says_all_that_serving_needs(exported: Path, model: AlignedModel, checkpoint: Checkpoint) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert (config["format"], config["name"], config["dim"]) == (2, default_name(checkpoint), model.dim)
    assert (config["recipe"], config["metrics"]) == ("quick", checkpoint.state["metrics"])
    assert config["head"] == {
        "file": "onnx/head.onnx",
        "input": "features",
        "outputs": {"embedding": "unit_embedding"},
    }
    assert config["modalities"] == {
        "image": {
            "medium": "image",
            "file": "onnx/image.onnx",
            "input": {"name": "image", "shape": ["batch", 32, 32, 3], "dtype": "uint8"},
            "preprocessing": {"size": 32, "resize": "squash", "margin": 0.0},
            "profile": {"batch": [1, 32, 256]},
            "served": served_in_float32("image"),
            "maps": {"file": "onnx/image.map.onnx", "output": "map", "gives": "embeddings"},
        },
        "sound": {
            "medium": "audio",
            "file": "onnx/sound.onnx",
            "input": {"name": "sound", "shape": ["batch", "time"], "dtype": "float32"},
            "preprocessing": {"rate_hz": 22050, "window_s": 2.0, "hop_s": 2.0, "fill": "repeat"},
            "profile": {"batch": [1, 32, 256], "time": [44100, 44100, 44100]},
            "served": served_in_float32("sound"),
            "maps": {
                "file": "onnx/sound.map.onnx",
                "output": "map",
                "gives": "embeddings",
                # frames of 1024 samples every 441, of which two layers keep the first and second of every four
                "first_s": pytest.approx((512 + 1.5 * 441) / 22050),
                "step_s": pytest.approx(4 * 441 / 22050),
            },
        },
        "text": {
            "medium": "text",
            "file": "onnx/text.onnx",
            "input": {"name": "text", "shape": ["batch", "time"], "dtype": "int64"},
            "preprocessing": {"max_words": 24, "vocabulary": "vocab.txt"},
            "profile": {"batch": [1, 32, 256], "time": [1, 16, 24]},
            "served": served_in_float32("text"),
        },
    }


def test_the_inputs_are_as_config_json_names_them(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    kinds = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)"}
    for part in config["modalities"].values():
        [node] = session_of(exported / part["file"]).get_inputs()
        assert (node.name, node.type) == (part["input"]["name"], kinds[part["input"]["dtype"]])


def test_every_file_has_its_sha256(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    files = contents(exported)
    del files["config.json"]
    assert config["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert set(files) == {"README.md", "vocab.txt", "model.safetensors"} | {
        f"onnx/{name}.onnx"
        for name in (*MODALITY_NAMES, "head", "image.map", "sound.map", *(f"{of}.float32" for of in MODALITY_NAMES))
    }


def test_the_vocabulary_stands_in_the_order_of_its_ids(exported: Path, model: AlignedModel) -> None:
    lines = (exported / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(lines) == model.encoder("text").preprocessing.vocabulary
    assert Model.open(exported).preprocessing["text"].vocabulary == tuple(lines)


def test_two_exports_of_one_checkpoint_have_one_fingerprint(again: tuple[Path, list[Parity]], exported: Path) -> None:
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (exported, again[0]))
    assert second["name"] == "again"
    assert fingerprint(first) == fingerprint(second)


def test_parity_is_measured_on_the_items_that_can_be_read(again: tuple[Path, list[Parity]]) -> None:
    found = {result.modality: result for result in again[1] if result.runtime == "onnxruntime"}
    # of 16 pictures one is bad; the first caption of 8 rows
    assert {name: result.n_items for name, result in found.items()} == {"image": 15, "sound": 8, "text": 8}
    assert min(result.min_cosine for result in found.values()) >= GATE
    assert found["text"].min_map_cosine is None
    assert all(found[name].min_map_cosine >= GATE for name in ("image", "sound"))  # type: ignore[operator]
    assert {name: result.top10_overlap for name, result in found.items()} == {"image": 100, "sound": None, "text": None}
    assert {result.split for result in found.values()} == {"val"}


@pytest.fixture
def quick_networks(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """The networks are taken from the finished export, for tests of what lies around them."""
    monkeypatch.setattr(export_module, "write_maps", lambda places, items, folder: None)
    monkeypatch.setattr(
        export_module,
        "write_networks",
        lambda model, items, folder: shutil.copytree(exported / "onnx", folder / "onnx", dirs_exist_ok=True),
    )


def test_a_missed_gate_leaves_the_old_model_in_place(
    checkpoint: Checkpoint, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_networks: None
) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    monkeypatch.setitem(COSINES, "float32", 1.1)  # no cosine reaches it
    with pytest.raises(XmrError, match=r"image in float32 by onnxruntime: the exported network is off, smallest"):
        export(checkpoint, folder, "other")
    assert contents(folder) == contents(exported)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_prints_its_table_and_exits_1_below_the_gate(
    finished_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_networks: None
) -> None:
    monkeypatch.setitem(COSINES, "float32", 1.1)
    app = Typer()
    app.command()(export_command)
    options = ["--checkpoint", str(finished_world / ".xmr" / "checkpoint"), "--model", str(tmp_path / "model")]
    done = CliRunner().invoke(app, options)
    assert isinstance(done.exception, XmrError)  # which the xmr command turns into one line and exit 1
    assert [line.split()[:3] for line in done.stdout.splitlines()][1] == ["image", "float32", "onnxruntime"]
    assert len(done.stdout.splitlines()) >= 4
    as_json = CliRunner().invoke(app, [*options, "--json"])
    records = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert {record["modality"] for record in records} == set(MODALITY_NAMES)
    assert all("1.1 is asked for" in record["missed"] for record in records)
    assert list(tmp_path.iterdir()) == []


def test_items_of_which_none_has_a_direction_are_refused(checkpoint: Checkpoint, model: AlignedModel) -> None:
    arrays = real_items(model, checkpoint, "image")[:2]
    dead = restore_model(checkpoint).eval()
    for parameter in dead.head.parameters():
        parameter.data.zero_()
    with pytest.raises(XmrError, match=r"image: torch gives none of 2 items a direction; train it again"):
        parity_module._torch_rows(dead, "image", arrays)


def test_an_encoder_that_is_off_at_another_shape_is_refused(model: AlignedModel, tmp_path: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    other = restore_other(model)
    path = tmp_path / "image.onnx"
    to_onnx(other, batch, path, input_name="image", output_names=["features"], dynamic_axes=[0])
    with pytest.raises(
        XmrError, match=r"image: on an input of shape .* the exported features are off, smallest cosine"
    ):
        networks_module._check_second_shape(model.encoder("image"), path, batch)


def restore_other(model: AlignedModel) -> torch.nn.Module:
    """Its encoder of pictures, with other weights."""
    encoder = copy.deepcopy(model.encoder("image"))
    for parameter in encoder.parameters():
        parameter.data = torch.rand_like(parameter)
    return encoder


def test_a_missed_gate_of_the_maps_leaves_no_folder(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_networks: None
) -> None:
    monkeypatch.setattr(parity_module, "map_cosine", lambda served, network, modality, arrays: 0.5)
    with pytest.raises(XmrError, match=r"image in float32 .* exported maps are off, smallest cosine to torch 0.500000"):
        export(checkpoint, tmp_path / "model", "other")
    assert list(tmp_path.iterdir()) == []


class NoNumber(torch.nn.Module):
    """Places of which one is no number."""

    def __init__(self, places: torch.nn.Module) -> None:
        super().__init__()
        self.places = places

    def forward(self, batch: Tensor) -> Tensor:
        made: Tensor = self.places(batch).clone()
        made[0, 0, 0, 0] = torch.nan
        return made


def test_maps_that_are_no_numbers_miss_the_gate(model: AlignedModel, checkpoint: Checkpoint, exported: Path) -> None:
    places = places_of(model, "image")
    assert places is not None
    served, arrays = Model.open(exported, device="cpu"), real_items(model, checkpoint, "image")[:3]
    assert map_cosine(served, places, "image", arrays) >= GATE
    assert not map_cosine(served, NoNumber(places), "image", arrays) >= GATE


def test_an_encoder_without_places_is_told_of(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_networks: None
) -> None:
    monkeypatch.setattr(
        export_module, "places_of", lambda model, name: None if name == "image" else places_of(model, name)
    )
    said: list[str] = []
    monkeypatch.setattr(parity_module, "map_cosine", lambda *_: 1.0)
    export(checkpoint, tmp_path / "model", "other", note=said.append)
    assert said[0] == "the encoder of image keeps no places apart, so no map of it is exported to localize with"
    assert Model.open(tmp_path / "model").mapped == ["sound"]


# when the steps of a sound are


SPEECH = {"name": "davenet", "window_s": 5.0, "widths": [32] * 5, "pooling": "mean"}


def hearing(settings: dict[str, Any]) -> AlignedModel:
    """An untrained model of speech or sound with a linear head."""
    modality = "speech" if "davenet" in settings["name"] else "sound"
    torch.manual_seed(0)
    filler = {"image": {"name": "convnet", "size": 32, "channels": [2]}}
    head = {"hidden": [], "embedding": "linear", "n_classes": 0}
    table = {"width": 6, "head": head, "encoders": filler | {modality: settings}, "losses": {"info_nce": {}}}
    return AlignedModel(parse_config(table), NO_WORDS).eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "spectrogram", "window_s": 5.0, "channels": [32]},
        {"name": "spectrogram", "window_s": 5.0, "channels": [32] * 4, "kernel": 4},
        *({"name": "soundnet", "weights": "random", "layers": layers} for layers in ([5], [6], [7], [5, 6], [4, 5, 6])),
        SPEECH,
        SPEECH | {"time_pool": "max"},
        SPEECH | {"name": "resdavenet"},
    ],
)
def test_a_burst_changes_the_steps_around_its_second(settings: dict[str, Any]) -> None:
    model = hearing(settings)
    encoder = model.encoder(model.modalities[1])
    first_s, step_s = steps_s(encoder)
    features, rate_hz = places_of(model, model.modalities[1]).features, encoder.preprocessing.rate_hz  # type: ignore[union-attr]
    for parameter in features.parameters():
        if parameter.ndim >= 3:  # a kernel that hears before and after alike
            parameter.data = (parameter.data + parameter.data.flip(-1)) / 2
    samples = np.zeros((1, round(encoder.preprocessing.window_s * rate_hz)), dtype=np.float32)
    noise = np.random.default_rng(0).uniform(-1, 1, round(0.02 * rate_hz)).astype(np.float32)
    for second in (0, 4.95):  # speech is heard relative to its loudest, and ends with its last sound
        samples[0, round(second * rate_hz) :][: len(noise)] = noise
    quiet, off = run_torch(features, samples), []
    for second in np.linspace(1.5, 3.5, 12, endpoint=False):
        burst = samples.copy()
        burst[0, round((second - 0.01) * rate_hz) :][: len(noise)] = 0.5 * noise
        change = np.abs(run_torch(features, burst) - quiet)[0].sum(axis=0)
        change = (change - 0.5 * change.max()).clip(min=0)
        off.append(first_s + step_s * float(np.average(np.arange(len(change)), weights=change)) - second)
    assert abs(np.mean(off)) < 0.1 * step_s


# shares of several windows


@pytest.mark.parametrize("scale", ["none", "length", "deviation"])
def test_the_shares_of_windows_are_those_in_their_unit_embeddings(scale: str, tmp_path: Path) -> None:
    model = hearing(SPEECH | {"scale": scale, "window_s": 1.0})
    for module in model.encoder("speech").top.projection.modules():  # type: ignore[union-attr]
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)  # which belongs to no step
    places = places_of(model, "speech")
    assert places is not None
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 15999)).astype(np.float32)
    batch[1] *= np.linspace(0, 1, 15999, dtype=np.float32)
    with torch.inference_mode():
        whole = model("speech", torch.from_numpy(batch)).embeddings.numpy()
    served, path = served_map(model, "speech", places), tmp_path / "map.onnx"
    np.testing.assert_allclose(run_torch(served, batch).mean(axis=2), whole, atol=1e-5)
    to_onnx(served, batch, path, input_name="speech", output_names=["map"], dynamic_axes=[0])
    np.testing.assert_allclose(run_onnx(path, batch[:1]), run_torch(served, batch[:1]), rtol=1e-3, atol=1e-4)


def test_a_failed_export_leaves_no_folder(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_networks: None
) -> None:
    monkeypatch.setitem(COSINES, "float32", 1.1)
    with pytest.raises(XmrError, match="nothing was written"):
        export(checkpoint, tmp_path / "deep" / "model", "other")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_new_export_takes_the_place_of_the_old_one(
    checkpoint: Checkpoint, exported: Path, tmp_path: Path, quick_networks: None
) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    (folder / "plans").mkdir()
    (folder / "plans" / "image.plan").write_text("built for the old one")
    export(checkpoint, folder, "second")
    assert Model.open(folder).name == "second"
    assert set(contents(folder)) == set(contents(exported))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("config", [None, "{}", '{"model_type": "clip"}', "exported"])
def test_a_folder_with_foreign_files_is_refused(
    checkpoint: Checkpoint, exported: Path, tmp_path: Path, config: str | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder) if config == "exported" else folder.mkdir()
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("mine")
    if config not in (None, "exported"):
        (folder / "config.json").write_text(config)
    before = contents(folder)
    with pytest.raises(
        XmrError, match=r"HEAD: would be replaced, but is no part of an exported model; give another --model"
    ):
        export(checkpoint, folder, "other")
    assert contents(folder) == before


def test_a_file_of_somebody_among_the_plans_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    (folder / "plans").mkdir()
    (folder / "plans" / "text.float32.plan").write_text("built")
    (folder / "plans" / "holiday.txt").write_text("mine")
    with (
        pytest.raises(XmrError, match=r"holiday.txt: would be replaced, but is no part of an exported model"),
        replaced(folder),
    ):
        pass
    assert (folder / "plans" / "holiday.txt").is_file()


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_the_current_folder_is_not_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = r"would be replaced, with the current folder in it; give a --model folder of its own"
    with pytest.raises(XmrError, match=said), replaced(Path(name)):
        pass
    assert (tmp_path / "here").is_dir()


def test_what_killed_exports_left_is_removed_and_an_old_model_put_back(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for what, process in (("new", gone.pid), ("old", gone.pid), ("new", os.getppid())):
        (tmp_path / f".model.{what}-{process}").mkdir()
        (tmp_path / f".model.{what}-{process}" / "config.json").write_text("{}")
    with pytest.raises(RuntimeError), replaced(tmp_path / "model"):
        raise RuntimeError
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f".model.new-{os.getppid()}", "model"]


def test_a_file_at_the_place_of_the_folder_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(XmrError, match=r"model: would be replaced, but is no part of an exported model"):
        export(checkpoint, tmp_path / "model", "other")


def test_an_empty_folder_is_filled(checkpoint: Checkpoint, tmp_path: Path, quick_networks: None) -> None:
    (tmp_path / "model").mkdir()
    export(checkpoint, tmp_path / "model", "first")
    assert Model.open(tmp_path / "model").name == "first"


def test_the_card_names_metrics_data_and_limits(exported: Path, checkpoint: Checkpoint) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    best = checkpoint.state["metrics"]["val"][0]
    assert f"- {best['query']} to {best['gallery']}: R@10 {best['R@10']:.1f} %" in card
    assert "- pairs.jsonl" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Data",
        "## Licence",
        "## Metrics on the val rows",
        "## Precisions",
        "## Limits",
    ]


def test_two_trainings_have_two_default_names(checkpoint: Checkpoint) -> None:
    of_head, of_text = (
        {name: tensor + 1 if name.startswith(part) else tensor for name, tensor in checkpoint.tensors.items()}
        for part in ("head.", "encoders.text.")
    )
    others = [default_name(replace(checkpoint, tensors=tensors)) for tensors in (of_head, of_text)]
    names = {default_name(checkpoint), *others}
    assert len(names) == 3
    assert all(name.startswith("quick-") for name in names)
