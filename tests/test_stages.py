"""Training in stages: what each lets learn, where it begins, and that a run stopped anywhere ends like any other."""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_fit import assert_same_run, at_steps, press_ctrl_c, records, train

from xmr.engine.errors import XmrError
from xmr.engine.info import BEST_NAME, CHECKPOINT_NAME
from xmr.engine.media import image
from xmr.train import features
from xmr.train import fit as fit_module
from xmr.train import run as run_module
from xmr.train import step as step_module
from xmr.train.batches import Batches, Store, id_numbers, load_store, make_batches
from xmr.train.checkpoint import AVERAGE, OPTIMIZER, Checkpoint, load_checkpoint, named, restore_model
from xmr.train.config import parse_config, stage_configs
from xmr.train.datasets import read_rows
from xmr.train.evaluate import evaluate, score_of
from xmr.train.fit import METRICS_NAME, fit
from xmr.train.settings import TrainConfig

WORDS = ("red", "green", "blue", "dark", "pale", "round", "flat", "old")
N_TRAIN, N_VAL = 8, 6
CPU = torch.device("cpu")
METRICS = ("R@1", "R@5", "R@10", "mAP")

SMALL = """
width = 8
batch_size = 4
warmup_steps = 0
schedule = "constant"
learning_rate = 0.01
epochs = 1
select_by = "rsum"
[words]
vectors = "random"
dim = 6
min_count = 1
[head]
hidden = [8]
embedding = "linear"
n_classes = 0
dropout = 0.2
[encoders.image]
name = "timm"
model = "test_resnet"
weights = "random"
size = 32
views = 2
batch_norm = true
[encoders.text]
name = "words"
channels = [8]
dropout = 0.2
"""
PLAIN = """
ema_decay = 0.9
epochs = 2
losses = { ranking = {} }
"""
# losses with parameters of their own, averaged weights, a stage that goes on with its optimiser, one from the best
GROWING = """
per_caption = true
batch_size = 8
ema_decay = 0.9
optimizer = "adam"
losses = { info_nce = { is_learned = true }, cmpc = { weight = 0.1 } }
[[stages]]
freeze = ["encoders.text.*"]
[[stages]]
fresh_optimizer = false
weight_decay = 0.01
schedule = "step"
decay_at = [1]
epochs = 2
[[stages]]
start = "best"
finetune = { image = "layer3" }
rates = { "encoders.image.trunk.*" = 0.1, "objective.*" = 0.5 }
clip_norm = 1.0
fresh_optimizer = false
epochs = 2
"""
# a trunk that learns and is frozen again, under another optimiser and other losses in each stage
SHRINKING = """
ema_decay = 0.8
eval_every = 2
batches = ["text-image"]
[losses.ranking]
[[stages]]
optimizer = "sgd"
finetune = { image = "all" }
schedule = "cosine"
epochs = 3
[[stages]]
optimizer = "sgd"
fresh_optimizer = false
batch_size = 3
[[stages]]
optimizer = "adamw"
warmup_steps = 3
losses = { ranking = { weight = 0 }, cmpm = {}, sigmoid = {} }
epochs = 2
"""


@dataclass(frozen=True)
class World:
    """Rows to train on, and the cache that all runs share."""

    rows: Path
    cache: Path

    def config(self, settings: str) -> TrainConfig:
        return parse_config({"data": [str(self.rows)], **tomllib.loads(SMALL), **tomllib.loads(settings)})


@dataclass(frozen=True)
class Finished:
    """A run that nothing stopped, and what its folder held in front of every write of a checkpoint."""

    config: TrainConfig
    folder: Path
    before_writes: list[Path]


def write_world(folder: Path) -> Path:
    """Noisy pictures in one of three colours and two sentences of each, of which the first names the colour."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(N_TRAIN + N_VAL):
        pixels = rng.integers(90, size=(32, 32, 3))
        pixels[..., number % 3] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        captions = [f"{WORDS[number % 3]} {WORDS[3 + number % 5]}", f"a {WORDS[3 + number % 4]} one"]
        split = "train" if number < N_TRAIN else "val"
        lines.append(json.dumps({"image": f"{number}.png", "captions": captions, "split": split}) + "\n")
    path = folder / "pairs.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # another number of threads may add up in another order
    folder = tmp_path_factory.mktemp("small")
    yield World(write_world(folder), folder / "cache")
    torch.set_num_threads(before)


def watched(small: World, settings: str, folder: Path, **changes: Any) -> Finished:
    """Train without a stop, and keep a copy of the folder in front of each write."""
    run, config = folder / "run", replace(small.config(settings), **changes)
    copies: list[Path] = []
    save = fit_module._save

    def copy_then_save(*args: Any, **how: Any) -> None:
        copies.append(Path(shutil.copytree(run, folder / f"copy-{len(copies)}")))
        save(*args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "_save", copy_then_save)
        train(config, run, small.cache)
    return Finished(config, run, copies)


@pytest.fixture(scope="module")
def growing(small: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return watched(small, GROWING, tmp_path_factory.mktemp("growing"))


@pytest.fixture(scope="module")
def shrinking(small: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return watched(small, SHRINKING, tmp_path_factory.mktemp("shrinking"))


@pytest.fixture(params=["growing", "shrinking"])
def finished(request: pytest.FixtureRequest) -> Finished:
    found: Finished = request.getfixturevalue(request.param)
    return found


def assert_same_end(folder: Path, other: Path) -> None:
    """The same run, and the same step, best score and metrics in the checkpoints."""
    assert_same_run(folder, other)
    for name in (CHECKPOINT_NAME, BEST_NAME):
        assert load_checkpoint(folder / name).state == load_checkpoint(other / name).state


def test_a_run_killed_in_front_of_any_write_ends_like_any_other(
    finished: Finished, small: World, tmp_path: Path
) -> None:
    resumable = [copy for copy in finished.before_writes if (copy / CHECKPOINT_NAME).exists()]
    assert len(resumable) >= 6
    for copy in resumable:
        killed = shutil.copytree(copy, tmp_path / copy.name)
        train(finished.config, killed, small.cache, resume=True)
        assert_same_end(killed, finished.folder)


def test_ctrl_c_at_every_step_changes_nothing(finished: Finished, small: World, tmp_path: Path) -> None:
    n_steps = load_checkpoint(finished.folder / CHECKPOINT_NAME).step
    for step in range(1, n_steps + 1):
        with pytest.raises(KeyboardInterrupt):
            train(finished.config, tmp_path, small.cache, {step: press_ctrl_c}, resume=step > 1)
        assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == step
    train(finished.config, tmp_path, small.cache, resume=True)
    assert_same_end(tmp_path, finished.folder)


def poison(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    """Make the losses, or only their gradients, of one step no numbers."""
    losses_of = step_module._losses

    def poisoned(run: Any) -> dict[str, torch.Tensor]:
        found = losses_of(run)
        if run.step != step:
            return found
        if what == "loss":
            return {name: loss * torch.nan for name, loss in found.items()}
        found = {name: loss.clone() for name, loss in found.items()}
        for loss in found.values():
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return found

    monkeypatch.setattr(step_module, "_losses", poisoned)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_no_number_leaves_no_trace(
    small: World, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, poisoned, stopped = small.config(PLAIN), tmp_path / "poisoned", tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(config, stopped, small.cache, {3: press_ctrl_c})
    with monkeypatch.context() as patch:
        poison(patch, 3, what)
        with pytest.raises(
            XmrError, match=rf"the {what} is (nan|inf) at step 4, on the rows .*; the checkpoint is that"
        ):
            train(config, poisoned, small.cache)
        with pytest.raises(XmrError, match=rf"the {what} is (nan|inf) at step 4"):  # once more, and no further
            train(config, poisoned, small.cache, resume=True)
    *before, last = (poisoned / METRICS_NAME).read_text().splitlines(keepends=True)
    assert json.loads(last)["step"] == 4
    assert len(json.loads(last)["not_finite"]) == 4
    (poisoned / METRICS_NAME).write_text("".join(before))
    assert_same_end(poisoned, stopped)
    assert all(tensor.isfinite().all() for tensor in load_file(poisoned / CHECKPOINT_NAME).values())


def test_the_rows_of_a_loss_that_is_no_number_are_named(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 1, "loss")
    drawn: list[str] = []
    monkeypatch.setattr(Batches, "rows_at", watching(Batches.rows_at, drawn))
    with pytest.raises(XmrError) as caught:
        train(small.config(PLAIN), tmp_path, small.cache)
    assert f"on the rows {', '.join(drawn[:4])} (all rows stand in metrics.jsonl);" in str(caught.value)
    assert records(tmp_path)[-1] == {"step": 2, "not_finite": drawn[:4]}


def watching(rows_at: Callable[..., Any], drawn: list[str]) -> Callable[..., Any]:
    def watched_rows(batches: Any, step: int) -> Any:
        rows = rows_at(batches, step)
        drawn.extend(row.id for row in rows)
        return rows

    return watched_rows


@pytest.mark.parametrize("stage", [1, 3])
def test_a_stage_whose_first_step_is_no_number_is_not_begun_twice(
    growing: Finished, small: World, tmp_path: Path, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_step = {1: 0, 3: 6}[stage]
    with monkeypatch.context() as patch:
        poison(patch, first_step, "loss")
        with pytest.raises(XmrError, match=rf"at step {first_step + 1}, on the rows"):
            train(growing.config, tmp_path, small.cache)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == first_step
    train(growing.config, tmp_path, small.cache, resume=True)
    assert_same_end(tmp_path, growing.folder)


@pytest.mark.parametrize(
    ("batch_size", "rate", "sentence"),
    [
        (
            4,
            "3e38",
            "the loss is nan at step 2, on the rows .*; the step before broke the weights, which were not kept",
        ),
        (
            8,
            "1e38",
            "step 1 broke the weights, which were not kept; start over with --overwrite and a smaller learning_rate",
        ),
        (8, "1e20", "the model's embeddings of .* are no numbers; train with a smaller learning_rate"),
    ],
)
def test_broken_weights_are_never_kept(small: World, tmp_path: Path, batch_size: int, rate: str, sentence: str) -> None:
    wild = f'optimizer = "sgd"\nlearning_rate = {rate}\nbatch_size = {batch_size}\n'
    with pytest.raises(XmrError, match=sentence):
        train(small.config(PLAIN + wild), tmp_path, small.cache)
    assert not list(tmp_path.glob("*.safetensors"))


def checkpoints(finished: Finished) -> list[Checkpoint]:
    """All that were written to go on from, one after the other."""
    folders = [*finished.before_writes, finished.folder]
    return [load_checkpoint(folder / CHECKPOINT_NAME) for folder in folders if (folder / CHECKPOINT_NAME).exists()]


def tensors_at(finished: Finished, n_entered: int, *, is_first: bool) -> dict[str, torch.Tensor]:
    """Of the checkpoint with which a stage begins, or of the last that it wrote."""
    found = [checkpoint for checkpoint in checkpoints(finished) if checkpoint.state["n_entered"] == n_entered]
    return found[0 if is_first else -1].tensors


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], prefix: str) -> set[str]:
    names = {name for name in before if name.startswith(prefix)}
    assert names
    return {name for name in names if not torch.equal(before[name], after[name])}


def test_what_a_stage_freezes_by_name_stays(growing: Finished) -> None:
    end = tensors_at(growing, 1, is_first=False)
    assert not any(name.startswith(f"{OPTIMIZER}exp_avg.encoders.text.") for name in end)
    averages = named(end, AVERAGE)  # of what never moved, the average is the thing itself
    assert not [name for name in averages if "encoders.text" in name and not torch.equal(averages[name], end[name])]
    later = tensors_at(growing, 2, is_first=False)
    assert any("convolutions" in name for name in changed(end, later, "encoders.text."))


def test_a_trunk_learns_from_the_named_layer_on_and_its_frozen_batch_norm_stays(growing: Finished) -> None:
    begin, end = tensors_at(growing, 3, is_first=True), tensors_at(growing, 3, is_first=False)
    trunk = "encoders.image.trunk."
    moved = changed(begin, end, trunk)
    assert moved == {name for name in begin if name.startswith(trunk) and (".layer3." in name or ".layer4." in name)}
    assert any("layer3.0.bn1.num_batches_tracked" in name for name in moved)
    assert not changed(tensors_at(growing, 1, is_first=False), begin, trunk)


def test_an_optimiser_is_handed_on_or_begins_anew(growing: Finished, shrinking: Finished) -> None:
    n_steps = named(load_file(growing.folder / CHECKPOINT_NAME), f"{OPTIMIZER}step.")  # stages of 2, 4 and 4 steps
    expected = {
        "head.": 10,
        "encoders.text.": 8,
        "objective.": 10,
        "encoders.image.top.": 10,
        "encoders.image.trunk.": 4,
    }
    for prefix, count in expected.items():
        assert {int(n_steps[name]) for name in n_steps if name.startswith(prefix)} == {count}
    assert not any(".layer2." in name for name in n_steps)
    anew = named(load_file(shrinking.folder / CHECKPOINT_NAME), f"{OPTIMIZER}step.")
    assert {int(count) for count in anew.values()} == {4}


def test_momentum_is_handed_on_to_what_still_learns(shrinking: Finished) -> None:
    momenta = [named(tensors_at(shrinking, 1, is_first=False), f"{OPTIMIZER}momentum_buffer.")]
    momenta.append(named(tensors_at(shrinking, 2, is_first=True), f"{OPTIMIZER}momentum_buffer."))
    assert any(".trunk." in name for name in momenta[0])
    assert momenta[1].keys() == {name for name in momenta[0] if ".trunk." not in name}
    assert all(torch.equal(momentum, momenta[0][name]) for name, momentum in momenta[1].items())


def test_a_trunk_that_learned_is_served_as_it_was_cached_once_it_is_frozen(shrinking: Finished, small: World) -> None:
    checkpoint = load_checkpoint(shrinking.folder / CHECKPOINT_NAME)
    averages = named(checkpoint.tensors, AVERAGE)
    trunk = [name for name in averages if ".trunk." in name]
    assert trunk
    assert not [name for name in trunk if not torch.equal(averages[name], checkpoint.tensors[name])]


def test_losses_learn_what_is_theirs_and_keep_it_through_the_stages(growing: Finished, shrinking: Finished) -> None:
    ends = [tensors_at(growing, stage, is_first=False) for stage in (1, 2, 3)]
    for name in ("info_nce_log_temperature", "cmpc_weight"):
        learned = [end[f"objective.learned.{name}"] for end in ends]
        assert not any(torch.equal(a, b) for a, b in pairwise(learned))
    assert ends[0]["objective.learned.cmpc_weight"].shape == (8, N_TRAIN)
    biases = [tensors_at(shrinking, stage, is_first=False)["objective.learned.sigmoid_bias"] for stage in (2, 3)]
    assert biases[0].item() == -10  # no loss of the stages before has it
    assert biases[1].item() != -10


def test_each_stage_has_its_own_losses(shrinking: Finished) -> None:
    steps = [set(record["loss"]) for record in records(shrinking.folder) if "loss" in record]
    assert steps[:8] == [{"image-text.ranking", "total"}] * 8
    assert steps[8:] == [{"image-text.cmpm", "image-text.sigmoid", "total"}] * 4


def test_a_stages_last_epoch_is_evaluated_whatever_eval_every_says(shrinking: Finished) -> None:
    assert [record["epoch"] for record in records(shrinking.folder) if "val" in record] == [2, 3, 4, 6]


def test_the_best_checkpoint_holds_the_averages_of_its_step(finished: Finished) -> None:
    best = load_checkpoint(finished.folder / BEST_NAME)
    last = next(checkpoint for checkpoint in checkpoints(finished) if checkpoint.step == best.step)
    averages = named(last.tensors, AVERAGE)
    assert averages
    assert all(torch.equal(best.tensors[name], value) for name, value in averages.items())


def test_a_restored_model_gives_what_was_found_in_training(shrinking: Finished, small: World, tmp_path: Path) -> None:
    model = restore_model(load_checkpoint(shrinking.folder / CHECKPOINT_NAME))  # with its averages
    rows = [row for row in read_rows(shrinking.config.data, cache=tmp_path) if row.split == "val"]
    progress = at_steps({})
    store, _, _ = load_store(model, rows, small.cache, CPU, progress, with_views=True)
    assert evaluate(model, store, rows, CPU) == records(shrinking.folder)[-1]["val"]
    raw = restore_model(load_checkpoint(shrinking.folder / CHECKPOINT_NAME), is_averaged=False)
    assert evaluate(raw, store, rows, CPU) != records(shrinking.folder)[-1]["val"]


def scripted(patch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Evaluations that find these, one after the other."""
    found = iter(scores)

    def evaluate(*args: Any, **how: Any) -> list[dict[str, Any]]:
        score = next(found)
        return [{"query": "image", "gallery": "text", **dict.fromkeys(METRICS, score), "median_rank": 9 - score}]

    patch.setattr(fit_module, "evaluate", evaluate)


def test_a_stage_begins_with_the_best_weights_so_far_or_with_the_last(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [5, 1, 2, 9])
    stages = ({"epochs": 2}, {"epochs": 1, "start": "best"}, {"epochs": 1, "start": "last"})
    run = watched(small, PLAIN, tmp_path, stages=stages)
    ends, begins = [[tensors_at(run, n, is_first=first) for n in (1, 2, 3)] for first in (False, True)]
    best = load_file(run.before_writes[2] / BEST_NAME)  # of the first epoch
    assert [name for name in best if not torch.equal(best[name], begins[1][name])] == []
    assert [name for name, value in named(begins[1], AVERAGE).items() if not torch.equal(best[name], value)] == []
    assert changed(ends[0], begins[1], "encoders.") != set()
    assert changed(ends[1], begins[2], "encoders.") == set()


def test_the_best_of_all_stages_is_kept(small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [1, 7, 3, 7])
    train(replace(small.config(PLAIN), stages=({"epochs": 2}, {"epochs": 2})), tmp_path, small.cache)
    assert load_checkpoint(tmp_path / BEST_NAME).step == 4  # of equals the first


def test_a_stage_may_begin_to_count_its_best_anew(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [1, 7, 3, 2])
    stages = ({"epochs": 2}, {"epochs": 2, "fresh_best": True})
    train(replace(small.config(PLAIN), stages=stages), tmp_path, small.cache)
    best = load_checkpoint(tmp_path / BEST_NAME)
    assert (best.step, best.state["metrics"]["val"][0]["mAP"]) == (6, 3)


@pytest.mark.parametrize("by", ["mAP", "rsum", "R@1", "R@10", "median_rank"])
def test_the_best_is_that_of_what_it_is_selected_by(
    small: World, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [2, 8])
    train(replace(small.config(PLAIN), select_by=by), tmp_path, small.cache)
    best = load_checkpoint(tmp_path / BEST_NAME)
    assert best.step == 4
    assert best.state["best"] == {"mAP": 8, "rsum": 24, "R@1": 8, "R@10": 8, "median_rank": -1}[by]


def test_the_latest_may_be_taken_for_the_best(small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [8, 2])
    train(replace(small.config(PLAIN), select_by="last"), tmp_path, small.cache)
    assert load_checkpoint(tmp_path / BEST_NAME).step == 4


@pytest.mark.parametrize(("on", "by", "expected"), [
    ((), "rsum", 2 * (10 + 20 + 30) + 2 * (1 + 2 + 3)), (("image-text",), "rsum", 2 * (10 + 20 + 30)),
    (("sound-image",), "mAP", 4), (("sound-image", "image-text"), "mAP", 22), ((), "median_rank", -10),
    (("image-text",), "median_rank", -5), (("image-sound",), "R@10", 3), (("sound-text",), "rsum", 0),
])  # fmt: skip
def test_a_score_is_of_the_pairs_that_are_named(on: tuple[str, ...], by: str, expected: float) -> None:
    of_text = {"R@1": 10, "R@5": 20, "R@10": 30, "mAP": 40, "median_rank": 5}
    of_sound = {"R@1": 1, "R@5": 2, "R@10": 3, "mAP": 4, "median_rank": 15}
    pairs = [("image", "text", of_text), ("text", "image", of_text)]
    pairs += [("image", "sound", of_sound), ("sound", "image", of_sound)]
    assert score_of([{"query": a, "gallery": b, **found} for a, b, found in pairs], by, on) == expected


def test_without_val_rows_a_stage_that_asks_for_the_best_begins_with_the_last(small: World, tmp_path: Path) -> None:
    lines = [line for line in small.rows.read_text().splitlines(keepends=True) if '"val"' not in line]
    rows = small.rows.with_name("no-val.jsonl")
    rows.write_text("".join(lines))
    config = replace(small.config(PLAIN), data=(str(rows),), stages=({"epochs": 1}, {"epochs": 1, "start": "best"}))
    notes: list[str] = []
    fit(config, tmp_path, small.cache, device="cpu", note=notes.append)
    assert "stage 2: no val rows tell which weights are the best; it starts with the last" in notes
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).step == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('batches = ["image-sound"]', "batches: image-sound asks for sound, encoders are of image, text"),
        ('batches = ["text-image", "image-text"]\nselect_on = ["image-speech"]', "select_on: no val rows of .* pair"),
        (
            'losses = { ranking = { batches = ["image-sound"] } }',
            "losses.ranking: is for none of the batches there are",
        ),
        ('[[stages]]\n[[stages]]\nfreeze = ["encoders.txt.*"]', "freeze: 'encoders.txt.*' is the name of no parameter"),
        ('[[stages]]\n[[stages]]\nfreeze = ["*"]', "freeze: nothing is left to learn in a stage; name fewer"),
        (
            '[[stages]]\n[[stages]]\nfinetune = { image = "layer9" }',
            "TimmImage has no layer 'layer9'; its layers are conv1",
        ),
        ('[[stages]]\n[[stages]]\nrates = { "head" = 0.1 }', "rates: 'head' is the name of nothing that learns in its"),
        (
            '[[stages]]\n[[stages]]\nrates = { "head.*" = -0.1 }',
            "rates: -0.1 found for 'head.*', a share of the learning",
        ),
        (
            '[[stages]]\n[[stages]]\noptimizer = "sgd"\nfresh_optimizer = false',
            "fresh_optimizer: false found, but sgd can't go on with what adamw knew",
        ),
    ],
)
def test_what_cannot_be_is_said_before_any_file_is_decoded(
    small: World, tmp_path: Path, settings: str, sentence: str
) -> None:
    losses = "" if settings.startswith("losses") else "losses = { ranking = {} }\n"
    with pytest.raises(XmrError, match=sentence):
        train(small.config(losses + settings), tmp_path / "run", tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def test_a_modality_or_kind_without_rows_is_said_before_any_file_is_decoded(small: World, tmp_path: Path) -> None:
    settings = SMALL + '[encoders.sound]\nname = "spectrogram"\nwindow_s = 0.5\n[losses.ranking]\n'
    config = parse_config({"data": [str(small.rows)], **tomllib.loads(settings)})
    with pytest.raises(XmrError, match=r"recipe quick asks for sound, which no train row of .*; add --data"):
        train(config, tmp_path / "run", tmp_path / "cache")
    heard = json.dumps({"image": str(small.rows.with_name("0.png")), "sound": "0.wav", "split": "train"}) + "\n"
    (tmp_path / "heard.jsonl").write_text(heard)
    (tmp_path / "0.wav").write_bytes(b"not looked into")
    config = replace(config, data=(str(small.rows), str(tmp_path / "heard.jsonl")), batches=("image-sound",))
    with pytest.raises(XmrError, match="batches: image-sound asked for, 1 train rows have it; mend --data"):
        train(config, tmp_path / "run", tmp_path / "cache")
    assert {path.name for path in tmp_path.iterdir()} == {"heard.jsonl", "0.wav"}


def test_other_rows_than_the_checkpoints_are_refused(growing: Finished, tmp_path: Path, small: World) -> None:
    fewer = small.rows.with_name("fewer.jsonl")
    fewer.write_text("".join(small.rows.read_text().splitlines(keepends=True)[1:]))
    folder = shutil.copytree(growing.folder, tmp_path / "run")
    with pytest.raises(XmrError, match=r"fewer.jsonl: other train rows than those the checkpoint was trained on"):
        train(replace(growing.config, data=(str(fewer),)), folder, small.cache, resume=True)


def lengths_of_steps(patch: pytest.MonkeyPatch) -> list[float]:
    """How far each step that is made from here on moves what learns."""
    lengths: list[float] = []
    step = fit_module.train_step

    def measured(run: Any) -> dict[str, float]:
        before = {name: parameter.detach().clone() for name, parameter in run.learning.items()}
        losses = step(run)
        moved = [(run.learning[name] - value).detach().flatten() for name, value in before.items()]
        lengths.append(torch.cat(moved).norm().item())
        return losses

    patch.setattr(fit_module, "train_step", measured)
    return lengths


def test_a_gradient_is_scaled_down_to_the_norm_of_the_settings(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = lengths_of_steps(monkeypatch)
    plain = 'optimizer = "sgd"\nlearning_rate = 0.5\nmomentum = 0.0\nweight_decay = 0.0\nlosses = { ranking = {} }\n'
    train(small.config(plain), tmp_path / "free", small.cache)
    free = lengths.copy()
    train(small.config(plain + "clip_norm = 0.01"), tmp_path / "short", small.cache)
    train(small.config(plain + "clip_norm = 1e6"), tmp_path / "long", small.cache)
    assert lengths[2:4] == pytest.approx([0.005, 0.005], rel=1e-4)
    assert min(free) > 0.01
    assert lengths[4:] == free


def test_training_mode_is_back_after_an_evaluation(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[tuple[bool, ...]] = []
    losses_of = step_module._losses

    def watched_losses(run: Any) -> Any:
        encoder = run.model.encoder("image")
        modes.append((run.model.training, run.model.head.training, encoder.top.training, encoder.trunk.training))
        return losses_of(run)

    monkeypatch.setattr(step_module, "_losses", watched_losses)
    train(replace(small.config(PLAIN), eval_every=1), tmp_path, small.cache)
    assert modes == [(True, True, True, False)] * 4


def pictures_of_epochs(batches: Batches, first_step: int, n_epochs: int) -> list[list[str]]:
    """The rows of each epoch from a step on."""
    epochs = [
        range(first_step + epoch * batches.n_steps, first_step + (epoch + 1) * batches.n_steps)
        for epoch in range(n_epochs)
    ]
    return [[row.id for step in steps for row in batches.rows_at(step)] for steps in epochs]


@pytest.mark.parametrize("first_step", [0, 3, 4, 7])
def test_an_epoch_of_a_later_stage_has_every_pair_once(small: World, tmp_path: Path, first_step: int) -> None:
    rows = [row for row in read_rows([str(small.rows)], cache=tmp_path) if row.split == "train"]
    [batches] = make_batches(rows, ["image", "text"], 2, 0, first_step=first_step)
    batches.first_epoch = -(-first_step // batches.n_steps)
    epochs = pictures_of_epochs(batches, first_step, 3)
    assert [sorted(epoch) for epoch in epochs] == [sorted(row.id for row in rows)] * 3
    [before] = make_batches(rows, ["image", "text"], 2, 0)
    assert not [epoch for epoch in epochs if epoch in pictures_of_epochs(before, 0, first_step // before.n_steps)]


def test_a_stage_like_the_one_before_goes_on_with_its_orders(small: World, tmp_path: Path) -> None:
    rows = [row for row in read_rows([str(small.rows)], cache=tmp_path) if row.split == "train"]
    settings = small.config(f"{PLAIN}batch_size = 4\n[[stages]]\nepochs = 2\n[[stages]]\nepochs = 3\n")
    before, after = run_module._stages(stage_configs(settings), rows, id_numbers(rows))
    [whole] = make_batches(rows, ["image", "text"], 4, 0)
    assert [before.kinds[0].at(step)[0] for step in range(4)] == [whole.at(step)[0] for step in range(4)]
    assert [after.kinds[0].at(step)[0] for step in range(4, 10)] == [whole.at(step)[0] for step in range(4, 10)]


def test_a_stage_of_smaller_batches_repeats_no_order(small: World, tmp_path: Path) -> None:
    rows = [row for row in read_rows([str(small.rows)], cache=tmp_path) if row.split == "train"]
    stages = "[[stages]]\nepochs = 10\n[[stages]]\nepochs = 10\nbatch_size = 2\n"
    before, after = run_module._stages(
        stage_configs(small.config(f"{PLAIN}batch_size = 4\n{stages}")), rows, id_numbers(rows)
    )
    orders = [pictures_of_epochs(stage.kinds[0], stage.first_step, 10) for stage in (before, after)]
    assert not [order for order in orders[1] if order in orders[0]]


def test_the_image_is_the_first_of_a_kind_and_a_kind_is_trained_on_once(small: World, tmp_path: Path) -> None:
    rows = [row for row in read_rows([str(small.rows)], cache=tmp_path) if row.split == "train"]
    kinds = make_batches(rows, ["text", "image"], 4, 0, kinds=["text-image", "image-text"])
    assert [kind.modalities for kind in kinds] == [("image", "text")]
    assert [kind.modalities for kind in make_batches(rows, ["text", "image"], 4, 0)] == [("image", "text")]


def run_in_torch(trunk: torch.nn.Module, batch: Any, device: torch.device) -> Callable[[Any], Any]:
    """Without the seconds that an export takes."""
    return lambda arrays: trunk(torch.from_numpy(arrays)).detach().numpy()


def test_a_frozen_trunks_features_are_always_those_of_the_weights_it_has(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [5, 1, 2, 3])  # the last stage begins with the weights of the first epoch
    monkeypatch.setattr(features, "_trunk_of", run_in_torch)
    path = small.rows.with_name("0.png")
    gaps: list[float] = []
    losses_of = step_module._losses

    def compared(run: Any) -> Any:
        encoder = run.model.encoder("image")
        if encoder.is_frozen:
            pixels = image.load(path, encoder.preprocessing).pieces[0].array
            expected = encoder.trunk(torch.from_numpy(pixels[None].copy()))
            gaps.append((run.store.inputs("image", [path]) - expected).abs().max().item())
        return losses_of(run)

    monkeypatch.setattr(step_module, "_losses", compared)
    stages = ({"epochs": 2, "finetune": {"image": "all"}}, {"epochs": 1}, {"epochs": 1, "start": "best"})
    train(replace(small.config(PLAIN), ema_decay=0.0, stages=stages), tmp_path / "run", tmp_path / "cache")
    assert len(gaps) == 4
    assert max(gaps) < 1e-4


@pytest.mark.parametrize("finetune", [{}, {"image": "layer4"}], ids=["frozen", "learning"])
def test_what_training_sees_of_a_picture_changes_with_the_step(
    small: World, tmp_path: Path, finetune: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[dict[Path, torch.Tensor]] = []
    draw = Store.training_inputs

    def watched_draw(store: Store, modality: str, contents: Any, rng: Any) -> torch.Tensor:
        drawn = draw(store, modality, contents, rng)
        if modality == "image":
            inputs.append(dict(zip(contents, drawn, strict=True)))
            served.append(dict(zip(contents, store.inputs(modality, contents), strict=True)))
        return drawn

    served: list[dict[Path, torch.Tensor]] = []
    monkeypatch.setattr(Store, "training_inputs", watched_draw)
    train(replace(small.config(PLAIN), batch_size=8, epochs=3, finetune=finetune), tmp_path, small.cache)
    assert [len(pictures) for pictures in inputs] == [8, 8, 8]
    assert any(not torch.equal(inputs[0][path], inputs[1][path]) for path in inputs[0])
    assert all(torch.equal(served[0][path], served[1][path]) for path in served[0])
