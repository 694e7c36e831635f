"""Training: a stopped run goes on as if it had not been stopped, and what cannot be trained is said."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import XMR
from safetensors.torch import load_file
from test_checkpoint import full_disk

from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME
from xmr.train import losses
from xmr.train.checkpoint import load_checkpoint
from xmr.train.encoders import TimmImage
from xmr.train.fit import METRICS_NAME, fit
from xmr.train.run import pick_device
from xmr.train.settings import LOSS_SETTINGS, TrainConfig

STEPS_PER_EPOCH, N_STEPS = 6, 24
STEPS = range(1, N_STEPS + 1)
Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


class Killed(BaseException):
    """What nothing in the training catches, as a kill would be."""


def at_steps(steps: dict[int, Callable[[], Any]]) -> Progress:
    """A progress that does something when a step is done."""

    @contextmanager
    def progress(label: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: steps.get(done, lambda: None)() if label == "training" else None

    return progress


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def kill() -> None:
    raise Killed


def train(
    config: TrainConfig, folder: Path, cache: Path, steps: dict[int, Callable[[], Any]] | None = None, **how: Any
) -> list[dict[str, Any]]:
    return fit(config, folder, cache, device="cpu", progress=at_steps(steps or {}), note=lambda _: None, **how)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]


def assert_same_run(folder: Path, other: Path) -> None:
    """The same losses and val records at every step, the same weights and optimiser at the end."""
    assert records(folder) == records(other)
    for name in (CHECKPOINT_NAME, BEST_NAME):
        tensors, others = load_file(folder / name), load_file(other / name)
        assert tensors.keys() == others.keys()
        assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == []


@pytest.fixture(scope="module")
def cache(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished_world / ".xmr" / "cache", tmp_path_factory.mktemp("cache") / "cache"))


@pytest.fixture(scope="module")
def config(finished_world: Path) -> TrainConfig:
    """Four epochs of six steps, with dropout, which a resumed run has to repeat as well."""
    config = load_checkpoint(finished_world / ".xmr" / "checkpoint" / CHECKPOINT_NAME).config
    return replace(config, epochs=4, batch_size=4, warmup_steps=5, head=replace(config.head, dropout=0.2))


@pytest.fixture(scope="module")
def straight(config: TrainConfig, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoint folder of a run that nothing stopped."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # another number of threads may add up in another order
    folder = tmp_path_factory.mktemp("straight")
    train(config, folder, cache)
    yield folder
    torch.set_num_threads(before)


def test_metrics_hold_every_step_and_every_epoch_once(straight: Path) -> None:
    found = records(straight)
    assert [record["step"] for record in found if "loss" in record] == list(STEPS)
    assert [(record["epoch"], record["step"]) for record in found if "val" in record] == [(e, 6 * e) for e in STEPS[:4]]


def test_the_last_epoch_is_evaluated_whatever_eval_every_says(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    train(replace(config, eval_every=3), tmp_path, cache)
    assert [record["epoch"] for record in records(tmp_path) if "val" in record] == [3, 4]
    assert [record for record in records(tmp_path) if "loss" in record] == [
        record for record in records(straight) if "loss" in record
    ]


def test_the_total_is_the_sum_of_the_losses(straight: Path) -> None:
    for record in records(straight)[:3]:
        losses = dict(record["loss"])
        assert losses.pop("total") == pytest.approx(sum(losses.values()), rel=1e-6)
        assert set(losses) == {"image-sound.info_nce", "image-text.info_nce"}


def test_the_same_seed_trains_the_same_model(config: TrainConfig, straight: Path, cache: Path, tmp_path: Path) -> None:
    train(config, tmp_path, cache)
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("step", [1, 5, STEPS_PER_EPOCH, 7, N_STEPS - 1, N_STEPS])
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, cache, {step: press_ctrl_c})
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == step
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    info_nce = losses.info_nce

    @wraps(info_nce)
    def interrupted(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:  # two kinds of pair a step: in the third
            press_ctrl_c()
        return info_nce(*args, **options)

    monkeypatch.setattr(losses, "info_nce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, cache)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == 3
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


def test_a_second_ctrl_c_does_not_wait(config: TrainConfig, straight: Path, cache: Path, tmp_path: Path) -> None:
    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, cache, {8: press_twice})
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == STEPS_PER_EPOCH
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


def test_a_run_killed_at_ten_steps_repeats_the_losses(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    for step in (6, 7, 8, 11, 12, 13, 17, 18, 22, 24):
        has_checkpoint = (tmp_path / CHECKPOINT_NAME).exists()
        with pytest.raises(Killed):
            train(config, tmp_path, cache, {step: kill}, resume=has_checkpoint)
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


def test_a_line_that_a_kill_cut_short_is_written_again(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(config, tmp_path, cache, {9: kill})
    metrics = tmp_path / METRICS_NAME
    metrics.write_text(metrics.read_text()[:-20])
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


def start_real_training(workspace: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([XMR, "train", *arguments], cwd=workspace, env=environment)


def test_a_real_training_goes_on_after_kill_9(straight: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / ".xmr" / "cache")
    shutil.copy(straight / "config.toml", tmp_path / "xmr.toml")
    metrics = tmp_path / ".xmr" / "checkpoint" / METRICS_NAME
    process = start_real_training(tmp_path)
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) > 8):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert start_real_training(tmp_path, "--resume").wait() == 0
    assert_same_run(metrics.parent, straight)


def test_a_checkpoint_is_not_overwritten_without_the_flag(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(straight, tmp_path / "checkpoint")
    with pytest.raises(XmrError, match=r"holds a checkpoint; go on with --resume, or start over with --overwrite"):
        train(config, folder, cache)
    assert_same_run(folder, straight)


def test_overwriting_removes_what_training_wrote_and_nothing_else(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(straight, tmp_path / "checkpoint")
    (folder / "notes.txt").write_text("mine")
    train(replace(config, epochs=1), folder, cache, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(records(folder)) == STEPS_PER_EPOCH + 1
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_the_best_of_another_training_is_not_taken_for_ones_own(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.copy(straight / BEST_NAME, tmp_path)  # as a training that was killed before its first last.safetensors
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, cache, {1: press_ctrl_c})
    assert not (tmp_path / BEST_NAME).exists()


def test_resuming_a_finished_training_changes_nothing(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(straight, tmp_path / "checkpoint")
    results = train(config, folder, cache, resume=True)
    assert_same_run(folder, straight)
    assert results == load_checkpoint(straight / BEST_NAME).state["metrics"]["val"]


def test_resuming_without_a_checkpoint_is_refused(config: TrainConfig, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"no checkpoint there; train one with `xmr train`"):
        train(config, tmp_path, cache, resume=True)


def test_a_resumed_training_keeps_the_metrics_of_its_last_epoch(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    for step, how in ((6, {}), (7, {"resume": True})):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path, cache, {step: press_ctrl_c}, **how)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).state["metrics"]["val"] == records(straight)[6]["val"]


def test_the_best_checkpoint_is_that_of_the_best_epoch(straight: Path) -> None:
    scores = [sum(result["mAP"] for result in record["val"]) / 6 for record in records(straight) if "val" in record]
    best = load_checkpoint(straight / BEST_NAME)
    assert best.state["best"] == pytest.approx(max(scores))
    assert best.step == STEPS_PER_EPOCH * (1 + scores.index(max(scores)))


def write_rows(config: TrainConfig, folder: Path, keep: Callable[[dict[str, Any]], bool]) -> TrainConfig:
    """The same settings on some of the rows."""
    [source] = map(Path, config.data)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows:
        row |= {name: str(source.parent / row[name]) for name in ("image", "sound") if name in row}
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if keep(row)))
    return replace(config, data=(str(path),), epochs=1)


def test_a_modality_that_the_data_lacks_is_said_before_training(
    config: TrainConfig, cache: Path, tmp_path: Path
) -> None:
    silent = write_rows(config, tmp_path, lambda row: "sound" not in row)
    with pytest.raises(XmrError, match=r"recipe quick asks for sound, which no train row of .*; add --data"):
        train(silent, tmp_path / "checkpoint", cache)
    assert not (tmp_path / "checkpoint").exists()
    silent = replace(silent, encoders={name: silent.encoders[name] for name in ("image", "text")})
    with pytest.raises(KeyboardInterrupt):
        train(silent, tmp_path / "checkpoint", cache, {2: press_ctrl_c})
    train(silent, tmp_path / "checkpoint", cache, resume=True)
    assert [record["step"] for record in records(tmp_path / "checkpoint")] == [1, 2, 3, 4, 5, 6, 6]


def test_without_val_rows_the_last_step_is_all_there_is(config: TrainConfig, cache: Path, tmp_path: Path) -> None:
    unseen = write_rows(config, tmp_path, lambda row: row["split"] == "train")
    assert train(unseen, tmp_path / "checkpoint", cache) == []
    assert not (tmp_path / "checkpoint" / BEST_NAME).exists()
    assert load_checkpoint(tmp_path / "checkpoint" / CHECKPOINT_NAME).step == STEPS_PER_EPOCH


def test_rows_without_train_pairs_are_refused(config: TrainConfig, cache: Path, tmp_path: Path) -> None:
    heard = replace(config, encoders={name: config.encoders[name] for name in ("image", "sound")})
    only_val = write_rows(heard, tmp_path, lambda row: row["split"] == "val")
    with pytest.raises(XmrError, match=r"pairs.jsonl: no train rows that pair two of image, sound; mend --data"):
        train(only_val, tmp_path / "checkpoint", cache)


def test_a_loss_that_is_not_finite_ends_the_training(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    wild = replace(config, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(XmrError, match=r"the (loss|gradient) is (nan|inf) at step \d+, on the rows .* and \d+ more "):
        train(wild, tmp_path, cache)


def with_teacher(config: TrainConfig, n_classes: int) -> TrainConfig:
    return replace(
        config,
        epochs=1,
        encoders=config.encoders | {"image": TimmImage.Settings(model="test_resnet", weights="random", size=32)},
        head=replace(config.head, n_classes=n_classes),
        losses={"ranking": LOSS_SETTINGS["ranking"](), "kl_transfer": LOSS_SETTINGS["kl_transfer"](weight=0.5)},
    )


def test_model_transfer_needs_a_teacher(config: TrainConfig, cache: Path, tmp_path: Path) -> None:
    orphan = replace(config, losses=config.losses | {"kl_transfer": LOSS_SETTINGS["kl_transfer"]()})
    with pytest.raises(XmrError, match=r"losses.kl_transfer: needs an image encoder with a classifier, as timm"):
        train(orphan, tmp_path, cache)


def test_model_transfer_needs_the_teachers_classes(config: TrainConfig, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"head.n_classes: 7 found, the teacher has 1000; set it to that"):
        train(with_teacher(config, 7), tmp_path, cache)


def test_model_transfer_teaches_both_sides_of_a_pair_with_an_image(
    config: TrainConfig, cache: Path, tmp_path: Path
) -> None:
    train(with_teacher(config, 1000), tmp_path, cache)
    names = {f"{kind}.{loss}" for kind in ("image-sound", "image-text") for loss in ("ranking", "kl_transfer")}
    assert set(records(tmp_path)[0]["loss"]) == names | {"total"}
    before, after = (records(tmp_path)[step]["loss"]["image-text.kl_transfer"] for step in (0, STEPS_PER_EPOCH - 1))
    assert 0 < after < before


def test_a_write_that_fails_leaves_the_old_checkpoint(
    config: TrainConfig, straight: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, cache, {4: press_ctrl_c})
    path = tmp_path / CHECKPOINT_NAME
    before = path.read_bytes()
    with full_disk(len(before) // 4), pytest.raises(XmrError, match=r"safetensors: cannot be written"):
        train(config, tmp_path, cache, resume=True)
    assert path.read_bytes() == before
    train(config, tmp_path, cache, resume=True)
    assert_same_run(tmp_path, straight)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused() -> None:
    with pytest.raises(XmrError, match=r"--device cuda: torch finds no CUDA device here; install a driver, or use"):
        pick_device("cuda")
