"""A checkpoint: one safetensors file with weights and optimiser state, whose header carries settings and progress.

One file, because one rename is atomic: a reader meets the old checkpoint or the new one, whatever happens.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME, read_checkpoint_state
from xmr.train.config import dump_config, parse_config
from xmr.train.model import AlignedModel
from xmr.train.settings import RANDOM, WEIGHT_FILES, TrainConfig
from xmr.train.words import NO_WORDS, Words

FORMAT = 3
OPTIMIZER, OBJECTIVE, AVERAGE = "optimizer.", "objective.", "average."  # in front of the names of other tensors
VECTORS = ("encoders.text.", "vectors.weight")  # how the name of the word vectors begins and ends


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a training run at one step."""

    config: TrainConfig
    state: dict[str, Any]  # step, epoch, metrics, modalities, vocabulary …
    tensors: dict[str, Tensor]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save_checkpoint(
    path: Path,
    model: AlignedModel,
    config: TrainConfig,
    state: dict[str, Any],
    training: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint whole; `training` is what only going on needs, its names with a prefix of this module."""
    tensors = dict(model.state_dict()) | dict(training or {})
    vocabulary = model.encoder("text").preprocessing.vocabulary if "text" in model.modalities else ()
    state = state | {
        "format": FORMAT,
        "recipe": config.recipe,
        "modalities": model.modalities,
        "vocabulary": vocabulary,
    }
    header = {"state": json.dumps(state), "config": dump_config(config)}
    path.parent.mkdir(parents=True, exist_ok=True)
    unborn = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, unborn, header)
        with unborn.open("rb") as file:
            os.fsync(file.fileno())
        unborn.replace(path)
    except (SafetensorError, OSError) as error:
        raise XmrError(f"{path}: cannot be written ({error}); make room, then `xmr train --resume`") from None
    finally:
        unborn.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file; XmrError where there is none, or another version wrote it."""
    if not path.is_file():
        raise XmrError(f"{path.parent}: no checkpoint there; train one with `xmr train`")
    state = read_checkpoint_state(path)
    if state.get("format") != FORMAT:
        raise XmrError(
            f"{path}: checkpoint format {state.get('format')} found, this version reads {FORMAT}; train again"
        )
    try:
        with safe_open(path, "pt") as file:
            config = parse_config(tomllib.loads(file.metadata()["config"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except XmrError as error:
        raise XmrError(f"{path}: settings of another version ({error}); train again") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise XmrError(f"{path}: damaged checkpoint ({error}); train again") from None
    return Checkpoint(config, state, tensors)


def best_of(folder: Path) -> Path:
    """The checkpoint to evaluate and export: the best on val, or the last where no val rows were there."""
    best = folder / BEST_NAME
    return best if best.is_file() else folder / CHECKPOINT_NAME


def restore_model(checkpoint: Checkpoint, *, is_averaged: bool = True) -> AlignedModel:
    """The model of a checkpoint, weights and all: no weights file is needed any more.

    Where weights were averaged over steps, it has the averages, or the weights to go on training with.
    """
    config = _without_weight_files(checkpoint.config)
    words = NO_WORDS
    for name, tensor in checkpoint.tensors.items():
        if name.startswith(VECTORS[0]) and name.endswith(VECTORS[1]):
            words = Words(tuple(checkpoint.state["vocabulary"]), tensor.numpy())
    model = AlignedModel(config, words)
    averages = named(checkpoint.tensors, AVERAGE) if is_averaged else {}
    try:
        model.load_state_dict(model_tensors(checkpoint) | averages)
    except RuntimeError:
        raise XmrError("the checkpoint's layers are not those of this version; train again") from None
    return model


def model_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of its model alone."""
    training = (OPTIMIZER, OBJECTIVE, AVERAGE)
    return {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(training)}


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under one prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the optimiser knows of each parameter, as optimizer.<what>.<parameter>."""
    return {
        f"{OPTIMIZER}{key}.{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> None:
    """Put the optimiser where the checkpoint left it; of a parameter that no loss has reached there is no state."""
    for key_and_name, value in named(tensors, OPTIMIZER).items():
        key, _, name = key_and_name.partition(".")
        if name in parameters:
            parameter = parameters[name]
            optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def _without_weight_files(config: TrainConfig) -> TrainConfig:
    encoders = {
        modality: replace(settings, **{key: RANDOM for key in WEIGHT_FILES if getattr(settings, key, "")})
        for modality, settings in config.encoders.items()
    }
    return replace(config, encoders=encoders)
