"""The training loop: pairs of two modalities are drawn together, all modalities towards the teacher's classes.

Every step is a function of the settings, the seed and the step's number, so that a resumed run repeats the losses of
an uninterrupted one.
"""

import json
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME, read_checkpoint_state
from xmr.engine.runtime import check_device
from xmr.train.checkpoint import (
    Checkpoint,
    best_of,
    load_checkpoint,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from xmr.train.config import dump_config
from xmr.train.datasets import Row, read_rows, select
from xmr.train.evaluate import evaluate, mean_of_map
from xmr.train.losses import LOSSES, kl_transfer
from xmr.train.model import AlignedModel
from xmr.train.pairs import PairBatches, Progress, Store, load_store, make_batches
from xmr.train.settings import TrainConfig
from xmr.train.words import NO_WORDS, make_words

METRICS_NAME = "metrics.jsonl"
SETTINGS_NAME = "config.toml"
TENSORBOARD_NAME = "tensorboard"
PAIR_LOSSES = {"ranking": ("margin",), "info_nce": ("temperature",)}  # and the settings they take


@dataclass
class Run:
    """A training run between two steps."""

    config: TrainConfig
    model: AlignedModel
    optimizer: torch.optim.Optimizer
    kinds: list[PairBatches]
    store: Store
    val_rows: list[Row]
    device: torch.device
    step: int = 0
    best: float = -math.inf
    metrics: dict[str, Any] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return max(kind.n_steps for kind in self.kinds)

    @property
    def n_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch


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
    """Train into a checkpoint folder: last.safetensors each epoch, best.safetensors by mAP on val.

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
        with progress("training") as show, _interrupts() as is_interrupted:
            while run.step < run.n_steps:
                losses = train_step(run)
                run.step += 1
                show(run.step, run.n_steps)
                for name, value in losses.items():
                    writer.add_scalar(f"loss/{name}", value, run.step)
                _append(folder / METRICS_NAME, {"step": run.step, "loss": losses})
                if run.step % run.steps_per_epoch == 0:
                    _end_epoch(run, folder, writer, note)
                if is_interrupted():
                    _save(run, folder / CHECKPOINT_NAME)
                    note(f"stopped at step {run.step} of {run.n_steps}; go on with `xmr train --resume`")
                    raise KeyboardInterrupt
    finally:
        writer.close()
    return list((read_checkpoint_state(best_of(folder)).get("metrics") or {}).get("val", []))


def train_step(run: Run) -> dict[str, float]:
    """One step on one batch of every kind of pair; the losses by name, `total` their weighted sum."""
    # dropout too is a function of the step
    torch.manual_seed(run.config.seed * 1_000_003 + run.step)
    run.model.train()
    for group in run.optimizer.param_groups:
        group["lr"] = run.config.learning_rate * _schedule(run)
    run.optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    use_bf16 = run.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=use_bf16):
        for kind in run.kinds:
            losses |= _pair_losses(run, kind)
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        raise XmrError(f"the loss is {total.item()} at step {run.step}; train with a smaller learning_rate")
    total.backward()  # type: ignore[no-untyped-call]
    if run.config.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_norm)
    run.optimizer.step()
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
    if config.loss.name not in PAIR_LOSSES:
        raise XmrError(f"loss.name: {config.loss.name!r} found; losses of pairs are {', '.join(PAIR_LOSSES)}")
    rows = read_rows(config.data)
    modalities = list(config.encoders)
    train_rows, val_rows = (select(rows, split, modalities) for split in ("train", "val"))
    if checkpoint is not None:
        model = restore_model(checkpoint)
    else:
        captions = [caption for row in train_rows for caption in row.captions]
        words = make_words(config.words, captions, config.seed) if "text" in modalities else NO_WORDS
        torch.manual_seed(config.seed)
        model = AlignedModel(config, words)
    _check_teacher(config, model)
    model.to(device)
    store, readable, errors = load_store(model, [*train_rows, *val_rows], cache, device, progress)
    for sentence in errors:
        note(f"skipped: {sentence}")
    kinds = make_batches([row for row in readable if row.split == "train"], modalities, config.batch_size, config.seed)
    if not kinds:
        raise XmrError(f"{', '.join(config.data)}: no train rows that pair two of {', '.join(modalities)}; mend --data")
    learning = [parameter for _, parameter in model.learning_parameters()]
    optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay)
    val_rows = [row for row in readable if row.split == "val"]
    run = Run(config, model, optimizer, kinds, store, val_rows, device)
    if checkpoint is not None:
        restore_optimizer(checkpoint, model, optimizer)
        run.step, run.best = checkpoint.step, float(checkpoint.state["best"])
        run.metrics = checkpoint.state["metrics"]
    sizes = ", ".join(f"{len(kind.rows)} {kind.name}" for kind in kinds)
    note(f"{sizes} pairs, {len(val_rows)} val rows, {run.n_steps} steps on {device.type}")
    return run


def _check_teacher(config: TrainConfig, model: AlignedModel) -> None:
    if not config.loss.transfer:
        return
    classifier = model.encoder("image").classifier if "image" in model.modalities else None
    if classifier is None:
        raise XmrError(
            "loss.transfer: needs an image encoder with a classifier, as timm; set it to 0 or change encoders"
        )
    n_classes = next((parameter.shape[0] for parameter in classifier.parameters()), 0)
    if n_classes != config.head.n_classes:
        raise XmrError(f"head.n_classes: {config.head.n_classes} found, the teacher has {n_classes}; set it to that")


def _pair_losses(run: Run, kind: PairBatches) -> dict[str, Tensor]:
    """The weighted losses of one batch of pairs."""
    settings = run.config.loss
    a_contents, b_contents, ids = kind.at(run.step)
    inputs = {kind.a: run.store.inputs(kind.a, a_contents), kind.b: run.store.inputs(kind.b, b_contents)}
    inputs = {modality: batch.to(run.device) for modality, batch in inputs.items()}
    outputs = {modality: run.model.embed_features(modality, batch) for modality, batch in inputs.items()}
    (a, _), (b, _) = outputs[kind.a], outputs[kind.b]
    loss = LOSSES[settings.name]
    options = {name: getattr(settings, name) for name in PAIR_LOSSES[settings.name]}
    pair_loss = loss(a.float(), b.float(), ids.to(run.device), **options)
    losses = {f"{kind.name}.{settings.name}": settings.weight * pair_loss}
    if settings.transfer and "image" in inputs:
        classifier = run.model.encoder("image").classifier
        assert classifier is not None
        with torch.no_grad():
            teacher = classifier(inputs["image"]).float().softmax(dim=1)
        for modality, (_, logits) in outputs.items():
            assert logits is not None
            losses[f"{kind.name}.transfer_{modality}"] = settings.transfer * kl_transfer(logits.float(), teacher)
    return losses


def _schedule(run: Run) -> float:
    """The share of the learning rate at this step."""
    warmup = run.config.warmup_steps
    if run.step < warmup:
        return (run.step + 1) / warmup
    if run.config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (run.step - warmup) / max(1, run.n_steps - warmup)))


def _end_epoch(run: Run, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    epoch = run.step // run.steps_per_epoch
    is_due = epoch % run.config.eval_every == 0 or run.step >= run.n_steps
    if run.val_rows and is_due:
        _evaluate(run, folder, writer, note)
    _save(run, folder / CHECKPOINT_NAME)


def _evaluate(run: Run, folder: Path, writer: SummaryWriter, note: Callable[[str], None]) -> None:
    """Retrieval on the val rows; the best model so far is kept."""
    epoch = run.step // run.steps_per_epoch
    results = evaluate(run.model, run.store, run.val_rows, run.device)
    for result in results:
        for name in ("R@1", "R@10", "median_rank", "mAP"):
            writer.add_scalar(f"val/{result['query']}-{result['gallery']}/{name}", result[name], run.step)
    _append(folder / METRICS_NAME, {"step": run.step, "epoch": epoch, "val": results})
    run.metrics = {"val": results}
    if (score := mean_of_map(results)) > run.best:
        run.best = score
        _save(run, folder / BEST_NAME, with_optimizer=False)
    shown = ", ".join(f"{result['query']}→{result['gallery']} {result['mAP']:.1f}" for result in results)
    note(f"epoch {epoch} of {run.config.epochs}: val mAP {shown}")


def _save(run: Run, path: Path, *, with_optimizer: bool = True) -> None:
    state = {
        "step": run.step,
        "epoch": run.step // run.steps_per_epoch,
        "n_epochs": run.config.epochs,
        "best": run.best,
        "metrics": run.metrics,
    }
    save_checkpoint(path, run.model, run.optimizer if with_optimizer else None, run.config, state)


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
