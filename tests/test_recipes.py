"""Every recipe trains: two steps of its small size, in each variant, on a world that was drawn for it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from xmr.engine.info import CHECKPOINT_NAME
from xmr.train.checkpoint import load_checkpoint, restore_model
from xmr.train.config import load_config, recipe_facts, recipe_names, stage_configs
from xmr.train.fit import METRICS_NAME, fit
from xmr.train.settings import TrainConfig

SYSTEMS = [
    (name, variant)
    for name in recipe_names()
    if "small" in recipe_facts(name).sizes
    for variant in recipe_facts(name).variants or ("",)
]
# of what is large or must be downloaded
TINY = {
    "image": {"model": "test_resnet", "weights": "random", "size": 64, "channels": 16},
    "sound": {"weights": "random"},
    "speech": {"window_s": 2.0, "widths": [4, 4, 8, 8, 16], "hidden": 16},
    "text": {"channels": [8, 8, 8], "units": 16},
}


@pytest.fixture(scope="module")
def spoken_rows(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's pairs, and rows in which its sounds are taken for speech."""
    world = finished_world.resolve()
    rows = [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]
    rows = [row | {name: str(world / row[name]) for name in ("image", "sound") if name in row} for row in rows]
    rows += [
        {
            "image": row["image"],
            "speech": row["sound"],
            "caption": f"the sound of a {row['label']}",
            "split": row["split"],
        }
        for row in rows
        if "sound" in row
    ]
    path = tmp_path_factory.mktemp("spoken") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny(recipe: str, variant: str, data: Path) -> Any:
    """The recipe's small size with the layers of a test."""
    choice = [f'data=["{data}"]', "size=small", f'variant="{variant}"']
    settings = load_config(None, recipe=recipe, assignments=choice)
    assignments = [
        f"encoders.{modality}.{key}={json.dumps(value)}"
        for modality, of in settings.encoders.items()
        for key, value in TINY[modality].items()
        if hasattr(of, key) and not (key == "channels" and modality == "text" and of.name == "words")
    ]
    assignments += [f"stages.{number}.epochs=1" for number, _ in enumerate(settings.stages, start=1)]
    if recipe == "cub-see-hear-read":
        assignments.append("head.n_classes=5")
    return load_config(
        None,
        recipe=recipe,
        assignments=[
            *choice,
            *assignments,
            *([] if settings.stages else ["epochs=2"]),
            "batch_size=12",
            "width=16",
            "words.epochs=1",
            "words.min_count=1",
        ],
    )


@pytest.mark.parametrize(("recipe", "variant"), SYSTEMS, ids=lambda part: part or "one")
def test_a_small_size_ends_with_the_losses_of_the_full_one(recipe: str, variant: str) -> None:
    full, small = (
        load_config(None, recipe=recipe, assignments=[f"size={size}", f'variant="{variant}"'])
        for size in ("full", "small")
    )
    assert used_losses(small, slice(-1, None)) == used_losses(full)


def used_losses(config: TrainConfig, stages: slice = slice(None)) -> set[str]:
    used = (stage.losses.items() for stage in stage_configs(config)[stages])
    return {name for losses in used for name, settings in losses if settings.weight}


@pytest.mark.parametrize(("recipe", "variant"), SYSTEMS, ids=lambda part: part or "one")
def test_a_recipe_trains_and_is_restored(recipe: str, variant: str, spoken_rows: Path, tmp_path: Path) -> None:
    config = tiny(recipe, variant, spoken_rows)
    records = fit(config, tmp_path, tmp_path / "cache", device="cpu", note=lambda _: None)
    lines = [json.loads(line) for line in (tmp_path / METRICS_NAME).read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) >= 2
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert {name.rpartition(".")[2] for step in losses for name in step} == used_losses(config) | {"total"}
    assert {record["query"] for record in records} == set(config.encoders)
    restored = restore_model(load_checkpoint(tmp_path / CHECKPOINT_NAME))
    assert restored.modalities == list(config.encoders)
