"""A checkpoint: one safetensors file with weights and optimiser state, whose header carries settings and progress.

One file, because one rename is atomic: a reader meets the old checkpoint or the new one, whatever happens.
"""

import json
import os
import tomllib
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
from xmr.train.settings import RANDOM, TrainConfig
from xmr.train.words import NO_WORDS, Words

FORMAT = 1
OPTIMIZER = "optimizer."  # in front of the names of optimiser tensors
VECTORS = "encoders.text.trained.vectors.weight"


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
    path: Path, model: AlignedModel, optimizer: torch.optim.Optimizer | None, config: TrainConfig, state: dict[str, Any]
) -> None:
    """Write a checkpoint whole; the optimiser is left out of one that is only evaluated and exported."""
    tensors = dict(model.state_dict()) | (_optimizer_tensors(model, optimizer) if optimizer else {})
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
    except (SafetensorError, OSError, KeyError, ValueError, XmrError) as error:
        raise XmrError(f"{path}: damaged checkpoint ({error}); train again") from None
    return Checkpoint(config, state, tensors)


def best_of(folder: Path) -> Path:
    """The checkpoint to evaluate and export: the best on val, or the last where no val rows were there."""
    best = folder / BEST_NAME
    return best if best.is_file() else folder / CHECKPOINT_NAME


def restore_model(checkpoint: Checkpoint) -> AlignedModel:
    """The model of a checkpoint, weights and all: no weights file is needed any more."""
    config = _without_weight_files(checkpoint.config)
    words = NO_WORDS
    if VECTORS in checkpoint.tensors:
        words = Words(tuple(checkpoint.state["vocabulary"]), checkpoint.tensors[VECTORS].numpy())
    model = AlignedModel(config, words)
    weights = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(OPTIMIZER)}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise XmrError("the checkpoint's layers are not those of this version; train again") from None
    return model


def restore_optimizer(checkpoint: Checkpoint, model: AlignedModel, optimizer: torch.optim.Optimizer) -> None:
    """Put the optimiser where the checkpoint left it; of a parameter that no loss has reached there is no state."""
    for name, parameter in model.learning_parameters():
        if f"{OPTIMIZER}step.{name}" not in checkpoint.tensors:
            continue
        entries = {key: checkpoint.tensors[f"{OPTIMIZER}{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in entries.items()
        }


def _optimizer_tensors(model: AlignedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{OPTIMIZER}{key}.{name}": value
        for name, parameter in model.learning_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _without_weight_files(config: TrainConfig) -> TrainConfig:
    encoders = {
        modality: replace(settings, weights=RANDOM) if hasattr(settings, "weights") else settings
        for modality, settings in config.encoders.items()
    }
    return replace(config, encoders=encoders)
