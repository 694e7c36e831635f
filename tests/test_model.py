"""The exported model folder: opened only whole and unchanged; what is embedded is float32 and of unit length."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.info import describe
from xmr.engine.media import MODALITIES
from xmr.engine.model import UNIT_EMBEDDING, Model
from xmr.engine.runtime import Network

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return Model.open(exported, "cpu", "onnxruntime")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """An exported model for this test alone."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def edit_config(folder: Path, edit: Edit) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def write_image(path: Path, seed: int = 0, side: int = 50) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def write_sound(path: Path, duration_s: float, rate_hz: int = 22050) -> Path:
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * rate_hz)), rate_hz)
    return path


# what is refused


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"no config\.json in it, so no exported model; make one with `xmr export`"):
        Model.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1, 2", "\0\0\0"])
def test_a_damaged_config_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(XmrError, match=r"config\.json: not valid JSON"):
        Model.open(folder)


def test_an_unknown_format_names_the_version_that_wrote_it(folder: Path) -> None:
    edit_config(folder, lambda config: config.update(format=99, xmr_version="7.3.1"))
    with pytest.raises(XmrError, match=r"format 99, written by xmr 7\.3\.1; this version reads format 2"):
        Model.open(folder)


@pytest.mark.parametrize("content", ["[]", "7", "null", '"model"'])
def test_a_config_of_something_else_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(XmrError, match="format None, written by not xmr"):
        Model.open(folder)


@pytest.mark.parametrize("key", ["name", "dim", "modalities", "head", "sha256"])
def test_a_config_that_lacks_a_part_is_refused(key: str, folder: Path) -> None:
    edit_config(folder, lambda config: config.pop(key))
    with pytest.raises(XmrError, match=f"config.json: {key} missing"):
        Model.open(folder)


def change_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_vocabulary_that_was_changed_is_refused(folder: Path) -> None:
    change_a_bit(folder / "vocab.txt")
    with pytest.raises(XmrError, match=r"vocab\.txt: changed since it was exported"):
        Model.open(folder)


@pytest.mark.parametrize("modality", ["image", "sound", "text"])
def test_a_network_that_was_changed_is_refused_when_it_is_asked(modality: str, folder: Path, tmp_path: Path) -> None:
    change_a_bit(folder / f"onnx/{modality}.float32.onnx")
    asked = {
        "image": write_image(tmp_path / "a.png"),
        "sound": write_sound(tmp_path / "a.wav", 1),
        "text": "a red bell",
    }
    opened = Model.open(folder)
    for name, item in asked.items():
        if name == modality:
            with pytest.raises(XmrError, match=rf"{modality}\.float32\.onnx: changed since it was exported"):
                opened.embed(name, [item])
        else:
            assert opened.embed(name, [item]).shape == (1, opened.dim)


def test_weights_beside_a_network_need_a_checksum(folder: Path) -> None:
    path = folder / "onnx/text.float32.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    edit_config(folder, lambda config: config["sha256"].update({"onnx/text.float32.onnx": sha256_of(path)}))
    with pytest.raises(XmrError, match=r"onnx/weights\.bin: used, but has no checksum in config\.json"):
        Model.open(folder).embed("text", ["a red bell"])
    digest = sha256_of(folder / "onnx/weights.bin")
    edit_config(folder, lambda config: config["sha256"].update({"onnx/weights.bin": digest}))
    assert Model.open(folder).embed("text", ["a red bell"]).any()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_out_of_the_folder_of_their_network_are_refused(runtime: str, folder: Path) -> None:
    """By xmr, as by each runtime."""
    pytest.importorskip(runtime)
    path = folder / "onnx/text.float32.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = onnx.load(path, load_external_data=False)
    for tensor in network.graph.initializer:
        tensor.external_data[0].value = "../weights.bin"
    path.write_bytes(network.SerializeToString())
    shutil.move(folder / "onnx/weights.bin", folder / "weights.bin")
    digests = {name: sha256_of(folder / name) for name in ("onnx/text.float32.onnx", "weights.bin")}
    edit_config(folder, lambda config: config["sha256"].update(digests))
    with pytest.raises(XmrError, match=r"its weights are said to lie in \.\./weights\.bin, outside its folder"):
        Model.open(folder, "cpu", runtime).embed("text", ["a red bell"])


def test_the_model_card_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("# Mine\n")
    assert Model.open(folder).modalities == ["image", "sound", "text"]


@pytest.mark.parametrize("name", ["onnx/sound.onnx", "onnx/image.float32.onnx", "vocab.txt"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(XmrError, match=f"{name}: missing, though config.json names it"):
        Model.open(folder)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/hostname", "onnx/../../secret.onnx", "link.onnx"])
def test_a_file_outside_the_folder_is_refused(name: str, folder: Path) -> None:
    (folder.parent / "secret.onnx").write_bytes(b"secret")
    (folder / "link.onnx").symlink_to("../secret.onnx")
    edit_config(folder, lambda config: config["sha256"].update({name: "0" * 64}))
    with pytest.raises(XmrError, match=f"{name} lies outside the model folder"):
        Model.open(folder)


@pytest.mark.parametrize(
    ("point", "name"),
    [
        (lambda config: config["modalities"]["image"].update(file="../other.onnx"), "../other.onnx"),
        (lambda config: config["head"].update(file="onnx/other.onnx"), "onnx/other.onnx"),
        (lambda config: config["modalities"]["text"]["preprocessing"].update(vocabulary="/etc/hosts"), "/etc/hosts"),
        (lambda config: config["sha256"].pop("onnx/sound.onnx"), "onnx/sound.onnx"),
        (
            lambda config: config["modalities"]["image"]["served"]["float32"].update(file="onnx/other.onnx"),
            "onnx/other.onnx",
        ),
    ],
)
def test_a_file_that_no_checksum_covers_is_not_used(point: Edit, name: str, folder: Path) -> None:
    shutil.copy(folder / "onnx" / "image.onnx", folder / "onnx" / "other.onnx")
    edit_config(folder, point)
    with pytest.raises(XmrError, match=f"{name}: used, but has no checksum"):
        Model.open(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda part: part.pop("served"),
        lambda part: part.update(served={}),
        lambda part: part["served"].pop("float32"),
        lambda part: part["served"]["float32"].pop("runtimes"),
        lambda part: part["served"].update(int8="onnx/image.int8.onnx"),
        lambda part: part["served"]["float32"].update(file=["onnx/image.float32.onnx"]),
        lambda part: part["served"]["float32"].update(runtimes="onnxruntime"),
        lambda part: part["served"]["float32"].update(runtimes=[1]),
        lambda part: part.pop("input"),
        lambda part: part.pop("preprocessing"),
    ],
)
def test_a_modality_that_says_too_little_is_refused(damage: Edit, folder: Path) -> None:
    edit_config(folder, lambda config: damage(config["modalities"]["image"]))
    with pytest.raises(XmrError, match=r"config\.json: the part of image is damaged; export the model again"):
        Model.open(folder)


def places(told: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each value of config.json."""
    if path:
        yield path
    if isinstance(told, dict):
        for key, value in told.items():
            yield from places(value, *path, key)


@pytest.mark.parametrize("value", [None, 5, -1, 0.5, "x", [], {}, [[]], {"x": None}], ids=repr)
def test_whatever_stands_in_the_config_is_refused_or_understood(value: Any, folder: Path) -> None:
    """Each value in turn is another."""
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    whole["modalities"]["text"]["maps"] = whole["modalities"]["image"]["maps"]
    for *keys, last in places(whole):
        config = json.loads(json.dumps(whole))
        reduce(getitem, keys, config)[last] = value
        path.write_text(json.dumps(config))
        try:
            opened = Model.open(folder, "cpu", "onnxruntime")
            assert describe(folder)["fingerprint"] == opened.fingerprint
            assert [opened.choice(modality).runtime for modality in opened.modalities] == ["onnxruntime"] * 3
            opened.embed("text", ["a red bell"])
            opened.map_arrays("text", [np.array([1, 2])])
        except XmrError as error:
            assert "\n" not in str(error), (keys, last)  # noqa: PT017 - most values are refused, some are as good


def test_a_dim_that_the_network_does_not_give_is_refused(folder: Path) -> None:
    edit_config(folder, lambda config: config.update(dim=5))
    with pytest.raises(XmrError, match=r"text of 1 inputs is embedded as \(1, 32\), in 5 numbers each says config"):
        Model.open(folder).embed("text", ["a red bell"])


def test_a_network_without_the_output_that_is_asked_for_is_refused(folder: Path) -> None:
    edit_config(folder, lambda config: config["modalities"]["image"]["maps"].update(output="heat"))
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(XmrError, match=r"the network of image\.map gives map, not heat; export the model again"):
        Model.open(folder).map_arrays("image", [picture])


def test_an_unknown_modality_is_refused(folder: Path) -> None:
    edit_config(folder, lambda config: config["modalities"].update(smell=config["modalities"]["sound"]))
    with pytest.raises(XmrError, match="modality smell is unknown to this version; known are image, sound"):
        Model.open(folder)


def test_a_preprocessing_that_is_not_understood_is_refused(folder: Path) -> None:
    edit_config(folder, lambda config: config["modalities"]["image"]["preprocessing"].update(sharpen=True))
    with pytest.raises(XmrError, match=r"preprocessing of image not understood .*sharpen"):
        Model.open(folder)


@pytest.mark.parametrize("arguments", [{"device": "abacus"}, {"runtime": "abacus"}])
def test_an_unknown_device_or_runtime_is_refused(arguments: dict[str, str], exported: Path) -> None:
    with pytest.raises(XmrError, match=r"abacus'? is unknown; one of auto"):
        Model.open(exported, **arguments)


def test_a_modality_the_model_lacks_is_refused(model: Model) -> None:
    with pytest.raises(XmrError, match="has no encoder for speech; it has image, sound, text"):
        model.embed("speech", ["a.wav"])


# what is opened


def test_only_the_network_that_is_asked_is_opened(folder: Path) -> None:
    opened = Model.open(folder)
    assert not opened._networks
    opened.embed("text", ["a red bell"])
    assert list(opened._networks) == ["text"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_runtime_embeds_alike(runtime: str, model: Model, exported: Path, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    opened = Model.open(exported, "cpu", runtime, precision="float32")
    asked = {
        "image": write_image(tmp_path / "a.png"),
        "sound": write_sound(tmp_path / "a.wav", 1),
        "text": "a red bell",
    }
    for modality, item in asked.items():
        assert opened.choice(modality).runtime == runtime
        np.testing.assert_allclose(opened.embed(modality, [item]), model.embed(modality, [item]), atol=1e-4)


@pytest.mark.parametrize("modality", ["image", "sound", "text"])
def test_a_modality_is_served_by_encoder_and_head_in_one(modality: str, model: Model, exported: Path) -> None:
    part = model.config["modalities"][modality]
    arrays = {
        "image": np.zeros((2, *part["input"]["shape"][1:]), dtype=np.uint8) if modality == "image" else None,
        "sound": np.random.default_rng(0).uniform(-1, 1, (2, 44100)).astype(np.float32),
        "text": np.array([[1, 2], [3, 2]], dtype=np.int64),
    }
    features = next(iter(Network(exported / part["file"]).run(arrays[modality]).values()))
    unit = Network(exported / model.config["head"]["file"]).run(features)[UNIT_EMBEDDING]
    np.testing.assert_allclose(model.embed_arrays(modality, list(arrays[modality])), unit, atol=1e-5)


# what is embedded


@pytest.mark.parametrize("n", [0, 1, 3])
def test_embeddings_are_unit_rows_of_float32(n: int, model: Model, tmp_path: Path) -> None:
    inputs = {
        "image": [write_image(tmp_path / f"{seed}.png", seed) for seed in range(n)],
        "sound": [write_sound(tmp_path / f"{seed}.wav", 1 + seed) for seed in range(n)],
        "text": ["a red bell", "rain", "the dog barks in the rain"][:n],
    }
    for modality, items in inputs.items():
        rows = model.embed(modality, items)
        assert (rows.shape, rows.dtype) == ((n, model.dim), np.float32)
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_paths_strings_and_arrays_of_an_image_embed_alike(model: Model, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    [piece] = MODALITIES["image"].load(path, model.preprocessing["image"]).pieces
    by_path, by_name, by_array = model.embed("image", [path, str(path), piece.array])
    np.testing.assert_allclose(by_name, by_path, atol=1e-6)
    np.testing.assert_allclose(by_array, by_path, atol=1e-6)


def test_a_sentence_embeds_as_its_word_ids_and_as_a_file_of_it(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A red BELL!\n")
    ids = MODALITIES["text"].load(tmp_path / "a.txt", model.preprocessing["text"]).pieces[0].array
    rows = model.embed("text", ["a red bell", ids, tmp_path / "a.txt"])
    np.testing.assert_allclose(rows, np.tile(rows[0], (3, 1)), atol=1e-6)


def test_an_input_embeds_alone_as_among_others(model: Model) -> None:
    sentences = ["rain", "a large red bell on a plain background", "the dog", "a siren"]
    together = model.embed("text", sentences)
    alone = np.concatenate([model.embed("text", [sentence]) for sentence in sentences])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_different_inputs_embed_differently(model: Model, tmp_path: Path) -> None:
    one, other = model.embed("image", [write_image(tmp_path / f"{seed}.png", seed) for seed in (0, 1)])
    assert float(one @ other) < 0.99999


def test_a_long_sound_is_the_mean_of_its_windows(model: Model, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", 5.3)
    pieces = MODALITIES["sound"].load(path, model.preprocessing["sound"]).pieces
    assert len(pieces) == 3
    mean = model.embed_arrays("sound", [piece.array for piece in pieces]).mean(axis=0)
    short = write_sound(tmp_path / "b.wav", 1)
    np.testing.assert_allclose(model.embed("sound", [short, path])[1], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("sentence", ["", "qwertz", "?!"])
def test_a_sentence_without_a_known_word_is_refused(sentence: str, model: Model) -> None:
    with pytest.raises(XmrError, match=r"none of its words is among the \d+ the model knows; word it otherwise"):
        model.embed("text", ["a dog", sentence])


@pytest.mark.parametrize(
    ("modality", "content", "said"),
    [("image", b"none", "no image"), ("sound", b"none", "no sound"), ("text", b"qwertz", "nothing in it")],
)
def test_a_file_that_cannot_be_embedded_is_named(
    modality: str, content: bytes, said: str, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(XmrError, match=f"{tmp_path}/a: {said}"):
        model.embed(modality, [tmp_path / "a"])


def test_a_file_that_is_missing_is_named(model: Model) -> None:
    with pytest.raises(XmrError, match=r"/none\.jpg: cannot be read \(No such file or directory\)"):
        model.embed("image", ["/none.jpg"])


# the fingerprint


def test_a_copy_has_the_same_fingerprint(model: Model, folder: Path) -> None:
    edit_config(folder, lambda config: config.update(name="renamed", recipe="other", metrics=None))
    assert Model.open(folder).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["modalities"]["image"]["preprocessing"].update(resize="crop"),
        lambda config: config["modalities"]["sound"]["preprocessing"].update(hop_s=1.0),
        lambda config: config["modalities"].pop("sound"),
        lambda config: config.update(dim=config["dim"] + 1),
    ],
)
def test_the_fingerprint_changes_with_what_changes_the_embeddings(change: Edit, model: Model, folder: Path) -> None:
    edit_config(folder, change)
    assert Model.open(folder).fingerprint != model.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["modalities"]["image"]["served"].update(
            int8={"file": "onnx/image.int8.onnx", "runtimes": ["onnxruntime"]}
        ),
        lambda config: config["modalities"]["image"]["served"]["float32"].update(runtimes=["onnxruntime"]),
        lambda config: config["modalities"]["text"].update(profile={"batch": [1, 8, 64], "time": [1, 4, 9]}),
    ],
)
def test_the_fingerprint_does_not_change_with_what_else_the_model_is_run_by(
    change: Edit, model: Model, folder: Path
) -> None:
    shutil.copy(folder / "onnx/image.float32.onnx", folder / "onnx/image.int8.onnx")
    edit_config(folder, change)
    edit_config(folder, lambda config: config["sha256"].update({"onnx/image.int8.onnx": "0" * 64}))
    assert Model.open(folder).fingerprint == model.fingerprint


@pytest.mark.parametrize("name", ["onnx/image.float32.onnx", "onnx/head.onnx", "onnx/text.onnx"])
def test_the_fingerprint_changes_with_a_float32_network(name: str, model: Model, folder: Path) -> None:
    edit_config(folder, lambda config: config["sha256"].update({name: "0" * 64}))
    assert Model.open(folder).fingerprint != model.fingerprint


def test_the_fingerprint_changes_with_the_vocabulary(model: Model, folder: Path) -> None:
    with (folder / "vocab.txt").open("a") as file:
        file.write("anotherword\n")
    edit_config(folder, lambda config: config["sha256"].update({"vocab.txt": sha256_of(folder / "vocab.txt")}))
    assert Model.open(folder).fingerprint != model.fingerprint


def test_a_model_is_sent_to_another_process_without_its_open_networks(exported: Path) -> None:
    model = Model.open(exported, "cpu")
    ours = model.embed("text", ["a red bell"])
    sent = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(sent.embed("text", ["a red bell"]), ours)
