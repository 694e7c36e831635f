"""The optimiser's groups and the learning rate, against the published tables and by hand."""

import math
from typing import Any

import pytest
import torch

from xmr.engine.errors import XmrError
from xmr.train.config import load_config, stage_configs
from xmr.train.optimizer import check_handing_on, make_optimizer, share_of_rate
from xmr.train.settings import TrainConfig

STEPS_PER_EPOCH = 7


def parameters() -> dict[str, torch.nn.Parameter]:
    """A matrix and a bias of the text, a matrix of the image, and what two losses learn."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoders.text.top.weight": (3, 2),
        "encoders.text.top.bias": (3,),
        "encoders.image.trunk.weight": (2, 2),
        "objective.learned.cmpc_weight": (2, 4),
        "objective.learned.info_nce_log_temperature": (),
    }
    return {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}


def table_of(stage: TrainConfig) -> dict[str, tuple[float, float]]:
    """The learning rate and the weight decay of each parameter."""
    named = parameters()
    name_of = {parameter: name for name, parameter in named.items()}
    groups = make_optimizer(stage, named).param_groups
    assert all(group["lr"] == group["full_rate"] for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(named)
    return {name_of[one]: (group["full_rate"], group["weight_decay"]) for group in groups for one in group["params"]}


def test_weight_decay_is_of_matrices_alone() -> None:
    decays = {name: decay for name, (_, decay) in table_of(TrainConfig(weight_decay=0.3)).items()}
    assert decays == dict(zip(parameters(), (0.3, 0.0, 0.3, 0.3, 0.0), strict=True))


def test_a_share_of_the_rate_is_of_what_its_pattern_names_and_the_first_that_fits_counts() -> None:
    shares = {"encoders.image.*": 0.1, "encoders.*.weight": 0.5, "objective.*": 0.0}
    rates = {name: rate for name, (rate, _) in table_of(TrainConfig(learning_rate=0.02, rates=shares)).items()}
    assert rates == pytest.approx(dict(zip(parameters(), (0.01, 0.02, 0.002, 0.0, 0.0), strict=True)))


def test_a_share_of_what_does_not_learn_is_refused() -> None:
    with pytest.raises(XmrError, match=r"rates: 'encoders.sound.\*' is the name of nothing that learns in its stage"):
        make_optimizer(TrainConfig(rates={"encoders.sound.*": 0.1}), parameters())


def one_step(stage: TrainConfig, gradient: float) -> dict[str, torch.Tensor]:
    """What a step makes of parameters that are all 1."""
    named = parameters()
    optimizer = make_optimizer(stage, named)
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return {name: parameter.detach() for name, parameter in named.items()}


def test_adamw_decays_beside_the_gradient_and_adam_inside_it() -> None:
    settings: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.5}
    beside = one_step(TrainConfig(optimizer="adamw", **settings), gradient=0.0)
    assert torch.allclose(beside["encoders.text.top.weight"], torch.tensor(1 - 0.1 * 0.5))
    assert torch.equal(beside["encoders.text.top.bias"], torch.ones(3))
    inside = one_step(TrainConfig(optimizer="adam", **settings), gradient=0.0)  # Adam's first step has length 1
    assert torch.allclose(inside["encoders.text.top.weight"], torch.tensor(1 - 0.1))
    assert torch.equal(inside["encoders.text.top.bias"], torch.ones(3))


def test_sgd_has_momentum() -> None:
    named = parameters()
    optimizer = make_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.8, weight_decay=0), named)
    bias = named["encoders.text.top.bias"]
    for _ in range(3):
        bias.grad = torch.ones_like(bias)
        optimizer.step()
    moved = 0.1 * (1 + 1.8 + (1 + 0.8 * 1.8))
    assert torch.allclose(bias, torch.full((3,), 1 - moved))


@pytest.mark.parametrize(
    ("before", "after", "is_fine"),
    [("adam", "adamw", True), ("adamw", "adamw", True), ("sgd", "sgd", True), ("sgd", "adam", False)],
)
def test_an_optimiser_of_another_kind_cannot_go_on(before: Any, after: Any, is_fine: bool) -> None:
    stages = TrainConfig(optimizer=before), TrainConfig(optimizer=after)
    if is_fine:
        check_handing_on(*stages)
        return
    with pytest.raises(
        XmrError, match=f"fresh_optimizer: false found, but {after} can't go on with what {before} knew"
    ):
        check_handing_on(*stages)


def shares(stage: TrainConfig, n_steps: int) -> list[float]:
    return [share_of_rate(stage, step, STEPS_PER_EPOCH, n_steps) for step in range(n_steps)]


def test_a_cosine_falls_from_the_full_rate_to_nothing_behind_the_warm_up() -> None:
    found = shares(TrainConfig(schedule="cosine", warmup_steps=4), 12)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)])
    assert found[8] == pytest.approx(0.5)


def test_a_constant_rate_stays_behind_the_warm_up() -> None:
    assert shares(TrainConfig(schedule="constant", warmup_steps=2), 5) == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_warm_up_longer_than_the_stage_never_ends() -> None:
    for schedule in ("cosine", "constant", "step"):
        assert shares(TrainConfig(schedule=schedule, warmup_steps=50), 4) == [0.02, 0.04, 0.06, 0.08]


def test_steps_come_at_the_named_epochs_and_again_and_again() -> None:
    at = TrainConfig(schedule="step", warmup_steps=0, decay_factor=0.5, decay_at=(1, 3))
    assert shares(at, 5 * STEPS_PER_EPOCH)[::STEPS_PER_EPOCH] == [1, 0.5, 0.5, 0.25, 0.25]
    again = TrainConfig(schedule="step", warmup_steps=0, decay_factor=0.5, decay_every=2)
    assert shares(again, 5 * STEPS_PER_EPOCH)[::STEPS_PER_EPOCH] == [1, 1, 0.5, 0.5, 0.25]
    first_two_epochs = shares(at, 2 * STEPS_PER_EPOCH)
    assert first_two_epochs == [1] * STEPS_PER_EPOCH + [0.5] * STEPS_PER_EPOCH


def test_a_warm_up_counts_among_the_epochs_of_the_steps() -> None:
    stage = TrainConfig(schedule="step", warmup_steps=STEPS_PER_EPOCH + 1, decay_factor=0.5, decay_at=(1,))
    found = shares(stage, 2 * STEPS_PER_EPOCH)
    assert found[: STEPS_PER_EPOCH + 1] == pytest.approx([(step + 1) / 8 for step in range(8)])
    assert found[STEPS_PER_EPOCH + 1 :] == [0.5] * 6


def rates_by_epoch(recipe: str, variant: str = "") -> list[float]:
    """The learning rates of a recipe's epochs, stage after stage; each is the same from its first step to its last."""
    assignments = [f"variant={variant}"] if variant else []
    rates = []
    for stage in stage_configs(load_config(None, recipe=recipe, assignments=assignments)):
        found = shares(stage, stage.epochs * STEPS_PER_EPOCH)
        for epoch in range(stage.epochs):
            [share] = set(found[epoch * STEPS_PER_EPOCH : (epoch + 1) * STEPS_PER_EPOCH])
            rates.append(stage.learning_rate * share)
    return rates


# DSVE: a half at epochs 2 to 6, which torch's scheduler of the time brought about one epoch later
DSVE = [1e-3] * 3 + [5e-4, 2.5e-4, 1.25e-4, 6.25e-5] + [3.125e-5] * 53
PUBLISHED = [
    ("dsve", "", DSVE),
    ("vsepp", "", [2e-4] * 15 + [2e-5] * 15 + [2e-5] * 15),
    ("vsepp", "order++", [1e-3] * 15 + [1e-4] * 15 + [2e-5] * 15),
    (
        "vase-2",
        "",
        [2e-4 * 0.1 ** (epoch // 15) for epoch in range(100)] + [2e-5 * 0.1 ** (e // 15) for e in range(100)],
    ),
    ("cmpl", "resnet152", [2e-4] * 15 + [2e-5] * 15),
    ("cmpm", "mobilenet", [2e-4] * 50),
    ("davenet", "misa", [1e-3 * 0.1 ** (epoch // 40) for epoch in range(150)]),
    ("davenet", "resdavenet", [2e-4 * 0.95 ** (epoch // 3) for epoch in range(150)]),
]


@pytest.mark.parametrize(("recipe", "variant", "rates"), PUBLISHED, ids=[f"{name}-{of}" for name, of, _ in PUBLISHED])
def test_a_recipes_rates_are_the_published_ones(recipe: str, variant: str, rates: list[float]) -> None:
    assert rates_by_epoch(recipe, variant) == pytest.approx(rates, rel=1e-12)
