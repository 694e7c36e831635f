"""A training run between two steps: what it holds, how it begins, and how it goes from stage to stage."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME
from xmr.engine.runtime import check_device
from xmr.train.average import Average
from xmr.train.batches import Batches, Progress, Store, id_numbers, load_store, make_batches
from xmr.train.checkpoint import (
    AVERAGE,
    OBJECTIVE,
    Checkpoint,
    load_checkpoint,
    model_tensors,
    named,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
)
from xmr.train.config import stage_configs
from xmr.train.datasets import Row, read_rows, select, with_captions
from xmr.train.evaluate import matched_items
from xmr.train.model import AlignedModel
from xmr.train.objective import Objective, check_batches, losses_of
from xmr.train.optimizer import check_handing_on, make_optimizer
from xmr.train.settings import TrainConfig
from xmr.train.words import NO_WORDS, make_words


@dataclass
class Stage:
    """One part of a training: its settings, its batches, and where it begins."""

    settings: TrainConfig
    kinds: list[Batches]
    first_step: int

    @property
    def steps_per_epoch(self) -> int:
        return max(kind.n_steps for kind in self.kinds)

    @property
    def n_steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    @property
    def end(self) -> int:
        """The step that is no longer of this stage."""
        return self.first_step + self.n_steps


@dataclass
class Run:
    """A training run between two steps."""

    config: TrainConfig
    model: AlignedModel
    objective: Objective
    stages: list[Stage]
    store: Store
    rows: list[Row]  # of train and val
    device: torch.device
    optimizer: torch.optim.Optimizer
    average: Average | None
    step: int = 0
    n_entered: int = 0  # stages that have begun
    best: float = -math.inf
    metrics: dict[str, Any] | None = None
    saved_s: float = -math.inf  # when it was saved last, on the monotonic clock

    @property
    def n_steps(self) -> int:
        return self.stages[-1].end

    @property
    def stage(self) -> Stage:
        """The one that the next step is of, or the last."""
        return next((stage for stage in self.stages if self.step < stage.end), self.stages[-1])

    @property
    def entered(self) -> Stage | None:
        """The one that has begun last: what model, features and optimiser are set up for."""
        return self.stages[self.n_entered - 1] if self.n_entered else None

    @property
    def epoch(self) -> int:
        """Epochs that are finished, of all stages."""
        return sum(
            min(max(0, self.step - stage.first_step), stage.n_steps) // stage.steps_per_epoch for stage in self.stages
        )

    @property
    def n_epochs(self) -> int:
        return sum(stage.settings.epochs for stage in self.stages)

    @cached_property
    def train_rows_digest(self) -> str:
        """Of what a training depends on in its rows, wherever they lie: 16 hex digits."""
        digest = hashlib.sha256()
        for row in self.rows:
            if row.split == "train":
                names = {modality: path.name for modality, path in row.files.items()}
                digest.update(json.dumps([row.label, names, row.captions]).encode())
        return digest.hexdigest()[:16]

    @property
    def val_rows(self) -> list[Row]:
        return [row for row in self.rows if row.split == "val"]

    @property
    def learning(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that the present stage changes."""
        return _learning(self.model, self.objective)


def pick_device(wish: str) -> torch.device:
    """CUDA where it is there, else the CPU, for `auto`; XmrError for a wish that cannot be met."""
    check_device(wish)
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish != "cpu" and not torch.cuda.is_available():
        raise XmrError(f"--device {wish}: torch finds no CUDA device here; install a driver, or use --device cpu")
    return torch.device(wish)


def prepare(
    config: TrainConfig,
    checkpoint: Checkpoint | None,
    cache: Path,
    device: torch.device,
    progress: Progress,
    note: Callable[[str], None],
) -> Run:
    """Everything a run needs, before its first step or where its checkpoint stands."""
    settings = stage_configs(config)
    rows = _rows(config, cache, note)
    train_rows = [row for row in rows if row.split == "train"]
    numbers = id_numbers(train_rows)  # of all rows, whether their files can be read or not: classes must not move
    _stages(settings, train_rows, numbers)  # what can't be is said before any file is decoded
    model = _model(config, checkpoint, train_rows).to(device)
    objective = Objective(settings, model, len(numbers)).to(device)
    for stage in settings:
        model.set_learning(stage)
        make_optimizer(stage, _learning(model, objective))
    n_entered = int(checkpoint.state["n_entered"]) if checkpoint is not None else 0
    present = settings[max(0, n_entered - 1)]
    model.set_learning(present)
    optimizer = make_optimizer(present, _learning(model, objective))
    store, readable, errors = load_store(model, rows, cache, device, progress, with_views=True)
    for sentence in errors:
        note(f"skipped: {sentence}")
    if errors:
        note(f"{len(errors)} files could not be read; their rows go on without them, or are left out")
    stages = _stages(settings, [row for row in readable if row.split == "train"], numbers)
    average = Average(model, config.ema_decay, settings) if config.ema_decay else None
    run = Run(config, model, objective, stages, store, readable, device, optimizer, average, n_entered=n_entered)
    _check_selection(config, run.val_rows)
    if checkpoint is not None:
        _restore(run, checkpoint)
    sizes = ", ".join(f"{len(kind.rows)} {kind.name}" for kind in stages[0].kinds)
    note(f"{sizes} rows, {len(run.val_rows)} val rows, {run.n_steps} steps on {device.type}")
    return run


def enter_stage(run: Run, folder: Path, cache: Path, progress: Progress, note: Callable[[str], None]) -> None:
    """Let the stage of the next step begin: its weights, what learns, what is read from the cache, its optimiser."""
    stage = run.stage
    is_first = run.entered is None
    known = optimizer_tensors(run.optimizer, run.learning)
    if stage.settings.start == "best" and not is_first:
        _start_from_best(run, folder, note)
    if stage.settings.fresh_best:
        run.best = -math.inf
    run.model.set_learning(stage.settings)
    if not is_first and any(other.settings.finetune for other in run.stages):  # other features than before
        run.store, _, _ = load_store(run.model, run.rows, cache, run.device, progress, with_views=True)
    if run.average is not None:
        run.average.settle(run.model)
    run.optimizer = make_optimizer(stage.settings, run.learning)
    if not stage.settings.fresh_optimizer:
        restore_optimizer(known, run.optimizer, run.learning)
    run.n_entered += 1
    if len(run.stages) > 1:
        n_learning = sum(parameter.numel() for parameter in run.learning.values())
        note(f"stage {run.n_entered} of {len(run.stages)}: {n_learning:,} numbers learn")


def _rows(config: TrainConfig, cache: Path, note: Callable[[str], None]) -> list[Row]:
    """The train and val rows; XmrError where a modality that is to be trained has none."""
    rows = [with_captions(row, config.captions) for row in read_rows(config.data, cache=cache, note=note)]
    modalities = list(config.encoders)
    train_rows = _not_held_out(select(rows, "train", modalities), rows, note)
    found = {modality for row in train_rows for modality in row.modalities}
    sources = ", ".join(config.data)
    if not train_rows:
        raise XmrError(f"{sources}: no train rows that pair two of {', '.join(modalities)}; mend --data")
    if lacking := [modality for modality in modalities if modality not in found]:
        there = [modality for modality in modalities if modality in found]
        raise XmrError(
            f"recipe {config.recipe} asks for {lacking[0]}, which no train row of {sources} has; add --data with it, "
            f"or train without: --set 'modalities={json.dumps(there)}'"
        )
    val_rows = select(rows, "val", modalities)
    _check_selection(config, val_rows)
    return [*train_rows, *val_rows]


def _not_held_out(train_rows: list[Row], rows: list[Row], note: Callable[[str], None]) -> list[Row]:
    """Without the rows that show what a val or test row shows, perhaps of another source."""
    held_out = {key for row in rows if row.split in ("val", "test") for key in (row.id, *row.files.values())}
    kept = [row for row in train_rows if held_out.isdisjoint((row.id, *row.files.values()))]
    if len(kept) < len(train_rows):
        shown = next(row.id for row in train_rows if not held_out.isdisjoint((row.id, *row.files.values())))
        n_left_out = len(train_rows) - len(kept)
        note(f"{n_left_out} train rows show what val or test rows show, such as {shown}; they are left out")
    return kept


def _check_selection(config: TrainConfig, val_rows: list[Row]) -> None:
    """XmrError where the best checkpoint is to be chosen on a pair that no val row has."""
    for pair in config.select_on if val_rows else ():
        if pair.count("-") != 1 or not matched_items(val_rows, *pair.split("-"))[0].contents:
            sources = ", ".join(config.data)
            raise XmrError(f"select_on: no val rows of {sources} pair {pair}; mend --data, or name another pair")


def _model(config: TrainConfig, checkpoint: Checkpoint | None, train_rows: list[Row]) -> AlignedModel:
    """As it begins, or as a checkpoint left it."""
    if checkpoint is not None:
        return restore_model(checkpoint, is_averaged=False)
    captions = [caption for row in train_rows for caption in row.captions]
    words = make_words(config.words, captions, config.seed) if "text" in config.encoders else NO_WORDS
    torch.manual_seed(config.seed)
    return AlignedModel(config, words)


def _learning(model: AlignedModel, objective: Objective) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, those of the losses among them."""
    of_losses = {f"{OBJECTIVE}{name}": parameter for name, parameter in objective.named_parameters()}
    return dict(model.learning_parameters()) | of_losses


def _stages(settings: list[TrainConfig], train_rows: list[Row], numbers: dict[str, int]) -> list[Stage]:
    stages: list[Stage] = []
    n_drawn: dict[str, int] = {}  # epochs by kind of batch
    for stage in settings:
        first_step = stages[-1].end if stages else 0
        kinds = make_batches(
            train_rows,
            list(stage.encoders),
            stage.batch_size,
            stage.seed,
            kinds=stage.batches,
            per_caption=stage.per_caption,
            numbers=numbers,
            first_step=first_step,
        )
        if not kinds:
            raise XmrError(f"{', '.join(stage.data)}: fewer than two train rows could be read; mend --data")
        check_batches(stage, [kind.name for kind in kinds])
        if stages and not stage.fresh_optimizer:
            check_handing_on(stages[-1].settings, stage)
        stages.append(Stage(stage, [kind for kind in kinds if losses_of(stage, kind.name)], first_step))
        for kind in stages[-1].kinds:
            kind.first_epoch = n_drawn.get(kind.name, 0)
            n_drawn[kind.name] = kind.first_epoch - (-stages[-1].n_steps // kind.n_steps)
    return stages


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where its checkpoint stands."""
    run.step, run.best = checkpoint.step, float(checkpoint.state["best"])
    run.metrics = checkpoint.state["metrics"]
    if checkpoint.state["train_rows"] != run.train_rows_digest:
        raise XmrError(
            f"{', '.join(run.config.data)}: other train rows than those the checkpoint was trained on, so that the "
            "losses would be others; give the same --data, or train anew"
        )
    run.objective.load_state_dict(named(checkpoint.tensors, OBJECTIVE))
    if run.average is not None:
        run.average.load(named(checkpoint.tensors, AVERAGE))
    restore_optimizer(checkpoint.tensors, run.optimizer, run.learning)


def _start_from_best(run: Run, folder: Path, note: Callable[[str], None]) -> None:
    if not (folder / BEST_NAME).is_file():
        note(f"stage {run.n_entered + 1}: no val rows tell which weights are the best; it starts with the last")
        return
    best = load_checkpoint(folder / BEST_NAME)
    run.model.load_state_dict(model_tensors(best))
    run.objective.load_state_dict(named(best.tensors, OBJECTIVE))
    if run.average is not None:
        run.average.restart(run.model)
