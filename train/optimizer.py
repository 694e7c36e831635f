"""The optimiser of a stage and its learning rate."""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch

from xmr.engine.errors import XmrError
from xmr.train.settings import TrainConfig


def make_optimizer(stage: TrainConfig, parameters: Mapping[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
    """An optimiser that knows nothing yet. Each group has `full_rate`, its learning rate at the highest."""
    for pattern, share in stage.rates.items():
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise XmrError(f"rates: {pattern!r} is the name of nothing that learns in its stage; mend the name")
        if share < 0:
            raise XmrError(f"rates: {share} found for {pattern!r}, a share of the learning rate is at least 0")
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        share = next((share for pattern, share in stage.rates.items() if fnmatchcase(name, pattern)), 1.0)
        # scales and biases are left alone
        decay = stage.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((stage.learning_rate * share, decay), []).append(parameter)
    tables = [
        {"params": members, "lr": rate, "full_rate": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    return _optimizer(stage, tables)


def check_handing_on(before: TrainConfig, stage: TrainConfig) -> None:
    """XmrError where a stage is to go on with what the optimiser of another kind knew."""
    if (before.optimizer == "sgd") != (stage.optimizer == "sgd"):
        raise XmrError(
            f"fresh_optimizer: false found, but {stage.optimizer} can't go on with what {before.optimizer} knew; "
            "set it to true, or choose the same optimizer"
        )


def _optimizer(stage: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=stage.momentum)
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, lr=stage.learning_rate)
    return torch.optim.AdamW(groups, lr=stage.learning_rate)


def share_of_rate(stage: TrainConfig, step: int, steps_per_epoch: int, n_steps: int) -> float:
    """The share of the learning rate at a step of the stage, from 0."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    if stage.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - stage.warmup_steps) / max(1, n_steps - stage.warmup_steps)))
    if stage.schedule == "constant":
        return 1.0
    epoch = step // steps_per_epoch
    n_decays = sum(epoch >= at for at in stage.decay_at)
    n_decays += epoch // stage.decay_every if stage.decay_every else 0
    return float(stage.decay_factor**n_decays)
