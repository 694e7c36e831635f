"""The training loop: stages, each with its own optimiser, rates, losses and parameters that learn.

Every step is a function of the settings, the seed and the step's number, so that a resumed run repeats the losses of
an uninterrupted one.
"""

import json
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME, read_checkpoint_state
from xmr.engine.runtime import check_device
from xmr.train.average import Average
from xmr.train.batches import Batches, Progress, Store, id_numbers, load_store, make_batches
from xmr.train.checkpoint import (
    AVERAGE,
    OBJECTIVE,
    Checkpoint,
    best_of,
    load_checkpoint,
    model_tensors,
    named,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from xmr.train.config import dump_config, stage_configs
from xmr.train.datasets import Row, read_rows, select, with_captions
from xmr.train.evaluate import evaluate, matched_items, score_of
from xmr.train.model import AlignedModel, LazyOutputs, NotFiniteError
from xmr.train.objective import Batch, Objective, check_batches, has_order_similarity, losses_of
from xmr.train.optimizer import check_handing_on, make_optimizer, share_of_rate
from xmr.train.settings import TrainConfig
from xmr.train.words import NO_WORDS, make_words

METRICS_NAME = "metrics.jsonl"
SETTINGS_NAME = "config.toml"
TENSORBOARD_NAME = "tensorboard"
NAMED_ROWS = 5  # of a batch whose loss is not finite
LESS = "train with a smaller learning_rate, or a clip_norm"


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

    @property
    def learning(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that the present stage changes."""
        return _learning(self.model, self.objective)


def fit(
    config: TrainConfig,
    folder: Path,
    cache: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[dict[str, Any]]:
    """Train into a checkpoint folder: last.safetensors each epoch, best.safetensors by what `select_by` names.

    Returns the val records of the best epoch. Ctrl-C ends the step, writes last.safetensors, then goes on up.
    """
    checkpoint = load_checkpoint(folder / CHECKPOINT_NAME) if resume else None
    if checkpoint is None and not overwrite and (folder / CHECKPOINT_NAME).exists():
        raise XmrError(f"{folder}: holds a checkpoint; go on with --resume, or start over with --overwrite")
    run = _prepare(config, checkpoint, cache, pick_device(device), progress, note)
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        _clear(folder)
    (folder / SETTINGS_NAME).write_text(dump_config(config), encoding="utf-8")
    _drop_later_metrics(folder / METRICS_NAME, run.step)
    writer = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=run.step)
    try:
        with _interrupts() as is_interrupted:
            while run.step < run.n_steps:
                if run.stage is not run.entered:
                    _enter_stage(run, folder, cache, progress, note)
                with progress("training") as show:
                    _run_stage(run, folder, writer, show, is_interrupted, note)
    finally:
        writer.close()
    return list((read_checkpoint_state(best_of(folder)).get("metrics") or {}).get("val", []))


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


def pick_device(wish: str) -> torch.device:
    """CUDA where it is there, else the CPU, for `auto`; XmrError for a wish that cannot be met."""
    check_device(wish)
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise XmrError("--device cuda: torch finds no CUDA device here; install a driver, or use --device cpu")
    return torch.device(wish)


def _prepare(
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
    stages = _stages(settings, [row for row in readable if row.split == "train"], numbers)
    average = Average(model, config.ema_decay, settings) if config.ema_decay else None
    run = Run(config, model, objective, stages, store, readable, device, optimizer, average, n_entered=n_entered)
    if checkpoint is not None:
        _restore(run, checkpoint)
    sizes = ", ".join(f"{len(kind.rows)} {kind.name}" for kind in stages[0].kinds)
    n_val = sum(row.split == "val" for row in readable)
    note(f"{sizes} rows, {n_val} val rows, {run.n_steps} steps on {device.type}")
    return run


def _rows(config: TrainConfig, cache: Path, note: Callable[[str], None]) -> list[Row]:
    """The train and val rows; XmrError where a modality that is to be trained has none."""
    rows = [with_captions(row, config.captions) for row in read_rows(config.data, cache=cache, note=note)]
    modalities = list(config.encoders)
    train_rows = select(rows, "train", modalities)
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
    for pair in config.select_on if val_rows else ():
        if pair.count("-") != 1 or not matched_items(val_rows, *pair.split("-"))[0].contents:
            raise XmrError(f"select_on: no val rows of {sources} pair {pair}; mend --data, or name another pair")
    return [*train_rows, *val_rows]


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
    return stages


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where its checkpoint stands."""
    run.step, run.best = checkpoint.step, float(checkpoint.state["best"])
    run.metrics = checkpoint.state["metrics"]
    try:
        run.objective.load_state_dict(named(checkpoint.tensors, OBJECTIVE))
    except RuntimeError:
        raise XmrError(
            f"{', '.join(run.config.data)}: other train rows than those the checkpoint was trained on, so that its "
            "losses have other classes; give the same --data, or train anew"
        ) from None
    if run.average is not None:
        run.average.load(named(checkpoint.tensors, AVERAGE))
    restore_optimizer(checkpoint.tensors, run.optimizer, run.learning)


def _enter_stage(run: Run, folder: Path, cache: Path, progress: Progress, note: Callable[[str], None]) -> None:
    """Let the stage of the next step begin: its weights, what learns, what is read from the cache, its optimiser."""
    stage = run.stage
    is_first = run.entered is None
    known = optimizer_tensors(run.optimizer, run.learning)
    if stage.settings.start == "best" and not is_first:
        _start_from_best(run, folder, note)
    run.model.set_learning(stage.settings)
    if not is_first and any(other.settings.finetune for other in run.stages):  # other features than before
        run.store, _, _ = load_store(run.model, run.rows, cache, run.device, progress, with_views=True)
    if run.average is not None:
        run.average.settle(run.model)
    run.optimizer = make_optimizer(stage.settings, run.learning)
    if not stage.settings.fresh_optimizer:
        restore_optimizer(known, run.optimizer, run.learning)
    run.n_entered += 1
    if not is_first:  # the best model is soon another, and a resumed run begins the stage with this one
        _save(run, folder / CHECKPOINT_NAME)
    if len(run.stages) > 1:
        n_learning = sum(parameter.numel() for parameter in run.learning.values())
        note(f"stage {run.n_entered} of {len(run.stages)}: {n_learning:,} numbers learn")


def _start_from_best(run: Run, folder: Path, note: Callable[[str], None]) -> None:
    if not (folder / BEST_NAME).is_file():
        note(f"stage {run.n_entered + 1}: no val rows tell which weights are the best; it starts with the last")
        return
    run.model.load_state_dict(model_tensors(load_checkpoint(folder / BEST_NAME)))
    if run.average is not None:
        run.average.restart(run.model)


def _run_stage(
    run: Run,
    folder: Path,
    writer: SummaryWriter,
    show: Callable[[int, int], None],
    is_interrupted: Callable[[], bool],
    note: Callable[[str], None],
) -> None:
    """All steps of the present stage that are left."""
    stage = run.stage
    while run.step < stage.end:
        losses = _step_or_save(run, folder)
        run.step += 1
        show(run.step, run.n_steps)
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value, run.step)
        _append(folder / METRICS_NAME, {"step": run.step, "loss": losses})
        if (run.step - stage.first_step) % stage.steps_per_epoch == 0:
            _end_epoch(run, stage, folder, writer, note)
        if is_interrupted():
            _save(run, folder / CHECKPOINT_NAME)
            note(f"stopped at step {run.step} of {run.n_steps}; go on with `xmr train --resume`")
            raise KeyboardInterrupt


def _step_or_save(run: Run, folder: Path) -> dict[str, float]:
    """A step; where it can't be made, the last good one is kept."""
    try:
        return train_step(run)
    except NotFiniteError as error:
        if not _has_finite_weights(run):
            raise NotFiniteError(f"{error}; the step before broke the weights, which were not kept; {LESS}") from None
        _save(run, folder / CHECKPOINT_NAME)
        raise NotFiniteError(f"{error}; the checkpoint is that of the step before; {LESS}") from None


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


def _has_finite_weights(run: Run) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in run.learning.values())


def _check_finite(run: Run, what: str, value: Tensor) -> None:
    if torch.isfinite(value):
        return
    rows = [row.id for kind in run.stage.kinds for row in kind.rows_at(run.step)]
    more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    raise NotFiniteError(
        f"the {what} is {value.item()} at step {run.step}, on the rows {', '.join(rows[:NAMED_ROWS])}{more}"
    )


def _losses(run: Run) -> dict[str, Tensor]:
    """Of one batch of every kind, by name."""
    losses: dict[str, Tensor] = {}
    for kind in run.stage.kinds:
        # the model may run in bfloat16; scores in it would swamp the margins
        losses |= run.objective(run.model, run.stage.settings, _batch(run, kind))
    return losses


def _seed(run: Run) -> int:
    """Of all that is drawn in a step."""
    return run.config.seed * 1_000_003 + run.step


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


def _end_epoch(run: Run, stage: Stage, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    epoch = (run.step - stage.first_step) // stage.steps_per_epoch
    if not _has_finite_weights(run):
        raise NotFiniteError(f"step {run.step} broke the weights, which were not kept; {LESS}")
    is_due = epoch % run.config.eval_every == 0 or run.step >= stage.end
    if is_due and any(row.split == "val" for row in run.rows):
        _evaluate(run, folder, writer, note)
    _save(run, folder / CHECKPOINT_NAME)


def _evaluate(run: Run, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    """Retrieval on the val rows; the best model so far is kept."""
    val_rows = [row for row in run.rows if row.split == "val"]
    is_order = has_order_similarity([stage.settings for stage in run.stages])
    with run.average.in_place(run.model) if run.average is not None else nullcontext():
        results = evaluate(run.model, run.store, val_rows, run.device, similarity="order" if is_order else "dot")
        run.metrics = {"val": results}
        score = score_of(results, run.config.select_by, run.config.select_on)
        if score > run.best or run.config.select_by == "last":
            run.best = score
            _save(run, folder / BEST_NAME, is_to_go_on=False)
    for result in results:
        for name in ("R@1", "R@10", "median_rank", "mAP"):
            writer.add_scalar(f"val/{result['query']}-{result['gallery']}/{name}", result[name], run.step)
    _append(folder / METRICS_NAME, {"step": run.step, "epoch": run.epoch, "val": results})
    shown = ", ".join(f"{result['query']}→{result['gallery']} {result['mAP']:.1f}" for result in results)
    note(f"epoch {run.epoch} of {run.n_epochs}: val mAP {shown}")


def _save(run: Run, path: Path, *, is_to_go_on: bool = True) -> None:
    state = {
        "step": run.step,
        "epoch": run.epoch,
        "n_epochs": run.n_epochs,
        "n_entered": run.n_entered,
        "best": run.best,
        "metrics": run.metrics,
    }
    training: dict[str, Tensor] = {}
    if is_to_go_on:
        training = optimizer_tensors(run.optimizer, run.learning)
        training |= {f"{OBJECTIVE}{name}": value for name, value in run.objective.state_dict().items()}
        if run.average is not None:
            training |= {f"{AVERAGE}{name}": value for name, value in run.average.tensors.items()}
    save_checkpoint(path, run.model, run.config, state, training)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Holds the first Ctrl-C back, so that no step is left half done; a second one is not held."""
    interrupted = threading.Event()

    def remember(number: int, frame: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():  # only there are signals handled
        yield interrupted.is_set
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _clear(folder: Path) -> None:
    """Remove what another training left here, and nothing else."""
    for name in (CHECKPOINT_NAME, BEST_NAME, METRICS_NAME, SETTINGS_NAME):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / TENSORBOARD_NAME, ignore_errors=True)


def _drop_later_metrics(path: Path, step: int) -> None:
    """Forget what was written after the checkpoint: a resumed run writes it again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if _step_of(line) <= step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:  # the run ended in the middle of the line
        return math.inf
