"""Checkpoints: written whole, read back as they were, and nothing else is taken for one."""

import json
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME
from xmr.train.checkpoint import (
    best_of,
    load_checkpoint,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from xmr.train.config import load_config
from xmr.train.model import AlignedModel
from xmr.train.settings import TrainConfig
from xmr.train.words import Words

STATE = {"step": 3, "epoch": 1, "n_epochs": 2, "best": 12.5, "metrics": {"val": [{"query": "image", "mAP": 50.0}]}}
VOCABULARY = ("a", "dog", "café")
BATCHES = {
    "image": torch.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3).to(torch.uint8),
    "text": torch.tensor([[1, 2], [3, 0]]),
}


def tiny_config() -> TrainConfig:
    settings = ["encoders.image.size=8", "encoders.image.channels=[4]", "encoders.text.channels=[4]", "width=6"]
    config = load_config(None, recipe="quick", assignments=[*settings, "head.hidden=[5]"])
    return replace(config, encoders={name: config.encoders[name] for name in ("image", "text")})


def tiny_model(config: TrainConfig, seed: int = 0) -> tuple[AlignedModel, torch.optim.Optimizer]:
    """A model and its optimiser after two steps."""
    torch.manual_seed(seed)
    vectors = np.random.default_rng(seed).standard_normal((4, 5)).astype(np.float32)
    model = AlignedModel(config, Words(VOCABULARY, vectors))
    optimizer = torch.optim.AdamW([parameter for _, parameter in model.learning_parameters()], lr=0.1)
    for _ in range(2):
        take_step(model, optimizer)
    return model, optimizer


def learning(model: AlignedModel) -> dict[str, torch.nn.Parameter]:
    return dict(model.learning_parameters())


def take_step(model: AlignedModel, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(0)  # of dropout and shifted pictures
    optimizer.zero_grad()
    (model("image", BATCHES["image"])[0] - model("text", BATCHES["text"])[0]).square().sum().backward()
    optimizer.step()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = tiny_config()
    path = tmp_path / "last.safetensors"
    model, optimizer = tiny_model(config)
    save_checkpoint(path, model, config, STATE, optimizer_tensors(optimizer, learning(model)))
    return path


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Inside, no file grows beyond n_bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rewrite(path: Path, **header: Any) -> None:
    """The same tensors under a changed header; None takes an entry out."""
    with safe_open(path, "pt") as file:
        entries = dict(file.metadata()) | header
    save_file(load_file(path), path, {key: value for key, value in entries.items() if value is not None})


def test_settings_and_state_come_back(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.config == tiny_config()
    assert checkpoint.step == 3
    assert STATE.items() <= checkpoint.state.items()
    assert checkpoint.state["modalities"] == ["image", "text"]
    assert checkpoint.state["vocabulary"] == list(VOCABULARY)


def test_a_restored_model_embeds_to_the_same_numbers(saved: Path) -> None:
    model, _ = tiny_model(tiny_config())
    restored = restore_model(load_checkpoint(saved))
    assert restored.encoder("text").preprocessing.vocabulary == VOCABULARY
    for modality, batch in BATCHES.items():
        assert torch.equal(restored.eval()(modality, batch)[0], model.eval()(modality, batch)[0])


def test_a_restored_optimiser_takes_the_same_step(saved: Path) -> None:
    config = tiny_config()
    model, optimizer = tiny_model(config)
    checkpoint = load_checkpoint(saved)
    restored = restore_model(checkpoint)
    fresh = torch.optim.AdamW([parameter for _, parameter in restored.learning_parameters()], lr=0.1)
    restore_optimizer(checkpoint.tensors, fresh, learning(restored))
    take_step(model, optimizer)
    take_step(restored, fresh)
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_parameter_that_never_learned_has_no_optimiser_state(saved: Path) -> None:
    config = replace(tiny_config(), head=replace(tiny_config().head, n_classes=3))  # and no loss that uses the classes
    model, optimizer = tiny_model(config)
    save_checkpoint(saved, model, config, STATE, optimizer_tensors(optimizer, learning(model)))
    restore_optimizer(load_checkpoint(saved).tensors, optimizer, learning(model))
    assert set(optimizer.state) < {parameter for _, parameter in model.learning_parameters()}


def test_a_checkpoint_that_is_only_exported_holds_no_optimiser(tmp_path: Path) -> None:
    config = tiny_config()
    model, _ = tiny_model(config)
    save_checkpoint(tmp_path / BEST_NAME, model, config, STATE)
    assert load_checkpoint(tmp_path / BEST_NAME).tensors.keys() == model.state_dict().keys()


def test_nothing_but_the_checkpoint_is_left_in_the_folder(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == ["last.safetensors"]


def test_restoring_asks_for_no_weights_file(saved: Path, tmp_path: Path) -> None:
    config = load_config(
        None,
        recipe="see-hear-read",
        assignments=[
            "size=small",
            "encoders.image.model=test_resnet",
            "encoders.image.weights=random",
            "encoders.text.channels=[4]",
        ],
    )
    encoders = {name: config.encoders[name] for name in ("image", "text")}
    model = AlignedModel(replace(config, encoders=encoders), Words(("a",), np.zeros((2, 3), dtype=np.float32)))
    gone = encoders | {"image": replace(encoders["image"], weights=str(tmp_path / "gone.safetensors"))}
    save_checkpoint(saved, model, replace(config, encoders=gone), STATE)
    restored = restore_model(load_checkpoint(saved))
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_best_is_taken_where_there_is_one(saved: Path) -> None:
    assert best_of(saved.parent) == saved
    best = saved.with_name(BEST_NAME)
    best.write_bytes(saved.read_bytes())
    assert best_of(saved.parent) == best


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_checkpoint_cut_short_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(XmrError, match=r"last.safetensors: ((damaged|no) checkpoint|settings of another version)"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "header",
    [{"state": None}, {"state": "{"}, {"config": None}, {"config": "epochs ="}, {"config": "a = 1"}],
    ids=str,
)
def test_a_header_that_cannot_be_understood_is_refused(saved: Path, header: dict[str, Any]) -> None:
    rewrite(saved, **header)
    with pytest.raises(XmrError, match=r"last.safetensors: ((damaged|no) checkpoint|settings of another version)"):
        load_checkpoint(saved)


@pytest.mark.parametrize("found", [0, 2, 4, None])
def test_an_unknown_format_is_refused(saved: Path, found: int | None) -> None:
    rewrite(saved, state=json.dumps(STATE | {"format": found}))
    with pytest.raises(XmrError, match=rf"checkpoint format {found} found, this version reads 3; train again"):
        load_checkpoint(saved)


def test_a_missing_checkpoint_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"no checkpoint there; train one with `xmr train`"):
        load_checkpoint(tmp_path / "last.safetensors")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [lambda path, trap: path.write_bytes(pickle.dumps(trap)), torch.save], ids=str)
def test_a_pickle_is_never_opened(tmp_path: Path, write: Any) -> None:
    path, trace = tmp_path / "last.safetensors", tmp_path / "trace"
    trap = Trap(trace)
    torch.save(trap, path) if write is torch.save else write(path, trap)
    with pytest.raises(XmrError, match=r"last.safetensors: no checkpoint of xmr"):
        load_checkpoint(path)
    assert not trace.exists()


def test_a_write_that_fails_leaves_the_old_checkpoint(saved: Path) -> None:
    before = saved.read_bytes()
    model, optimizer = tiny_model(tiny_config(), seed=1)
    training = optimizer_tensors(optimizer, learning(model))
    with full_disk(2000), pytest.raises(XmrError, match=r"last.safetensors: cannot be written"):
        save_checkpoint(saved, model, tiny_config(), STATE | {"step": 4}, training)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.safetensors"]
