"""Trains: step after step and stage after stage, with a checkpoint and an evaluation at the end of epochs.

A resumed run repeats the losses of an uninterrupted one.
"""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.files import write_whole
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME, read_checkpoint_state
from xmr.train.batches import Progress
from xmr.train.checkpoint import (
    AVERAGE,
    OBJECTIVE,
    best_of,
    load_checkpoint,
    optimizer_tensors,
    save_checkpoint,
)
from xmr.train.config import dump_config
from xmr.train.evaluate import evaluate, score_of
from xmr.train.model import NotFiniteError
from xmr.train.objective import comparison_of
from xmr.train.run import Run, Stage, enter_stage, pick_device, prepare
from xmr.train.settings import TrainConfig
from xmr.train.step import has_finite_weights, rows_of_step, train_step

METRICS_NAME = "metrics.jsonl"
SETTINGS_NAME = "config.toml"
TENSORBOARD_NAME = "tensorboard"
SAVE_AFTER_S = 60  # an epoch that is evaluated is saved whatever the time
LESS = "start over with --overwrite and a smaller learning_rate, or a clip_norm"


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
    """Train into a checkpoint folder: last.safetensors while it goes on, best.safetensors by what `select_by` names.

    Returns the val records of the best epoch. Ctrl-C ends the step, writes last.safetensors, then goes on up.
    """
    checkpoint = load_checkpoint(folder / CHECKPOINT_NAME) if resume else None
    if checkpoint is None and not overwrite and (folder / CHECKPOINT_NAME).exists():
        raise XmrError(f"{folder}: holds a checkpoint; go on with --resume, or start over with --overwrite")
    run = prepare(config, checkpoint, cache, pick_device(device), progress, note)
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        _clear(folder)
    write_whole(folder / SETTINGS_NAME, lambda file: file.write(dump_config(config).encode()))
    _drop_later_metrics(folder / METRICS_NAME, run.step)
    writer = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=run.step)
    try:
        while run.step < run.n_steps:
            if run.stage is not run.entered:
                enter_stage(run, folder, cache, progress, note)
                if run.n_entered > 1:  # the best model is soon another; a resumed run begins the stage with this one
                    _save(run, folder / CHECKPOINT_NAME)
            with _interrupts() as is_interrupted, progress("training") as show:
                _run_stage(run, folder, writer, show, is_interrupted, note)
    finally:
        writer.close()
    return list((read_checkpoint_state(best_of(folder)).get("metrics") or {}).get("val", []))


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
        _append(folder / METRICS_NAME, {"step": run.step + 1, "not_finite": rows_of_step(run)})
        all_rows = f"all rows stand in {METRICS_NAME}"
        if not has_finite_weights(run):
            raise NotFiniteError(
                f"{error} ({all_rows}); the step before broke the weights, which were not kept; {LESS}"
            ) from None
        _save(run, folder / CHECKPOINT_NAME)
        raise NotFiniteError(f"{error} ({all_rows}); the checkpoint is that of the step before; {LESS}") from None


def _end_epoch(run: Run, stage: Stage, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    epoch = (run.step - stage.first_step) // stage.steps_per_epoch
    if not has_finite_weights(run):
        raise NotFiniteError(f"step {run.step} broke the weights, which were not kept; {LESS}")
    is_due = epoch % run.config.eval_every == 0 or run.step >= stage.end
    if is_due and run.val_rows:
        _evaluate(run, folder, writer, note)
    if is_due or time.monotonic() - run.saved_s > SAVE_AFTER_S:
        _save(run, folder / CHECKPOINT_NAME)


def _evaluate(run: Run, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    """Retrieval on the val rows; the best model so far is kept."""
    comparison = comparison_of([stage.settings for stage in run.stages])
    with run.average.in_place(run.model) if run.average is not None else nullcontext():
        results = evaluate(run.model, run.store, run.val_rows, run.device, comparison=comparison)
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
    chosen_by = "" if run.config.select_by in ("mAP", "last") else f"; {run.config.select_by} {abs(score):.1f}"
    note(f"epoch {run.epoch} of {run.n_epochs}: val mAP {shown}{chosen_by}")


def _save(run: Run, path: Path, *, is_to_go_on: bool = True) -> None:
    state = {
        "step": run.step,
        "epoch": run.epoch,
        "n_epochs": run.n_epochs,
        "n_entered": run.n_entered,
        "best": run.best,
        "train_rows": run.train_rows_digest,
        "metrics": run.metrics,
    }
    training = {f"{OBJECTIVE}{name}": value for name, value in run.objective.state_dict().items()}
    if is_to_go_on:
        run.saved_s = time.monotonic()
        training |= optimizer_tensors(run.optimizer, run.learning)
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
    write_whole(path, lambda file: file.write("".join(f"{line}\n" for line in kept).encode()))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:  # the run ended in the middle of the line
        return math.inf
