"""One step of training: a function of the settings, the seed and the step's number."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from xmr.train.batches import Batches
from xmr.train.model import AlignedModel, LazyOutputs, NotFiniteError
from xmr.train.objective import Batch
from xmr.train.optimizer import share_of_rate
from xmr.train.run import Run

NAMED_ROWS = 5  # of a batch whose loss is not finite


def train_step(run: Run) -> dict[str, float]:
    """One step on one batch of every kind; the losses by name, `total` their weighted sum."""
    stage = run.stage
    # dropout too is a function of the step
    torch.manual_seed(_seed(run))
    if not run.model.training:
        run.model.train()
    share = share_of_rate(stage.settings, run.step - stage.first_step, stage.steps_per_epoch, stage.n_steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group["full_rate"] * share
    run.optimizer.zero_grad(set_to_none=True)
    with _unless_finite(run.model):
        losses = _losses(run)
        total = torch.stack(list(losses.values())).sum()
        _check_finite(run, "loss", total)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(run.learning.values(), stage.settings.clip_norm or math.inf)
        _check_finite(run, "gradient", norm)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.model, run.step)
    return {name: loss.item() for name, loss in losses.items()} | {"total": total.item()}


def _losses(run: Run) -> dict[str, Tensor]:
    """Of one batch of every kind, by name."""
    losses: dict[str, Tensor] = {}
    for kind in run.stage.kinds:
        # the model may run in bfloat16; scores in it would swamp the margins
        losses |= run.objective(run.model, run.stage.settings, _batch(run, kind))
    return losses


def _batch(run: Run, kind: Batches) -> Batch:
    """The model's outputs for one batch of rows."""
    contents, ids = kind.at(run.step)
    rng = np.random.default_rng([run.config.seed, run.step, *kind.name.encode()])
    inputs = {
        modality: run.store.training_inputs(modality, of, rng).to(run.device) for modality, of in contents.items()
    }
    use_bf16 = run.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    autocast = partial(torch.autocast, run.device.type, dtype=torch.bfloat16, enabled=use_bf16)
    with autocast():
        features = {modality: run.model.features(modality, batch) for modality, batch in inputs.items()}
    outputs = LazyOutputs(run.model, features, autocast)
    return Batch(kind.name, features, outputs, ids.to(run.device), _seed(run))


def _seed(run: Run) -> int:
    """Of all that is drawn in a step."""
    return run.config.seed * 1_000_003 + run.step


@contextmanager
def _unless_finite(model: AlignedModel) -> Iterator[None]:
    """A step that is not made leaves no trace in the statistics of batch norm either."""
    learning = (module for module in model.modules() if module.training)
    before = [(buffer, buffer.clone()) for module in learning for buffer in module.buffers(recurse=False)]
    try:
        yield
    except NotFiniteError:
        for buffer, value in before:
            buffer.copy_(value)
        raise


def _check_finite(run: Run, what: str, value: Tensor) -> None:
    if torch.isfinite(value):
        return
    rows = rows_of_step(run)
    more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    raise NotFiniteError(
        f"the {what} is {value.item()} at step {run.step + 1}, on the rows {', '.join(rows[:NAMED_ROWS])}{more}"
    )


def rows_of_step(run: Run) -> list[str]:
    """The ids of the rows that the next step learns from, those of every kind of batch."""
    return [row.id for kind in run.stage.kinds for row in kind.rows_at(run.step)]


def has_finite_weights(run: Run) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in run.learning.values())
