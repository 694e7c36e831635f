"""The moving average of the weights: its formula against a loop, and the model that it stands in for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from xmr.train.average import Average
from xmr.train.config import load_config
from xmr.train.model import AlignedModel
from xmr.train.settings import TrainConfig
from xmr.train.words import Words

TRUNK, CLASSIFIER = "encoders.image.trunk.", "encoders.image.classifier."


def tiny_config() -> TrainConfig:
    settings = ["encoders.image.name=timm", "encoders.image.model=test_resnet", "encoders.image.weights=random"]
    settings += ["encoders.image.size=32", "encoders.image.batch_norm=true", "encoders.text.channels=[3]", "width=4"]
    config = load_config(None, recipe="quick", assignments=[*settings, "head.hidden=[4]"])
    return replace(config, encoders={name: config.encoders[name] for name in ("image", "text")})


@pytest.fixture
def model() -> AlignedModel:
    torch.manual_seed(0)
    return AlignedModel(tiny_config(), Words(("a", "b"), np.ones((3, 2), dtype=np.float32)))


def finetuned() -> list[TrainConfig]:
    return [tiny_config(), replace(tiny_config(), finetune={"image": "layer4"})]


def shake(model: AlignedModel, seed: int) -> dict[str, Any]:
    """Change all numbers of a model, as a step would; a copy of them in float64."""
    torch.manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape))
        else:
            tensor.add_(seed + 1)
    return {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_averages_are_those_of_a_loop(model: AlignedModel, decay: float) -> None:
    average = Average(model, decay, finetuned())
    expected = {name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()}
    for step in range(12):
        present = shake(model, step)
        average.update(model, step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in present.items():
            is_counted = name.endswith("num_batches_tracked")
            expected[name] = value if is_counted else kept * expected[name] + (1 - kept) * value
    assert any(name.endswith("running_var") for name in average.tensors)
    for name, tensor in average.tensors.items():
        np.testing.assert_allclose(tensor.double().numpy(), expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_first_steps_are_forgotten_soon(model: AlignedModel) -> None:
    average = Average(model, 0.9999, [tiny_config()])
    begin = average.tensors["head.layers.0.bias"].clone()
    model.head.layers[0].bias.data.fill_(10.0)
    average.update(model, 0)
    assert torch.allclose(average.tensors["head.layers.0.bias"], 0.1 * begin + 9.0)


def test_a_counter_is_that_of_the_last_step(model: AlignedModel) -> None:
    average = Average(model, 0.9, [tiny_config()])
    model.state_dict()[counter(model)].fill_(7)
    average.update(model, 0)
    assert average.tensors[counter(model)].dtype == torch.int64
    assert average.tensors[counter(model)].item() == 7


def counter(model: AlignedModel) -> str:
    return next(name for name in model.state_dict() if ".top." in name and name.endswith("num_batches_tracked"))


def test_what_never_learns_is_not_copied(model: AlignedModel) -> None:
    frozen = Average(model, 0.9, [tiny_config()]).tensors
    assert not any(name.startswith((TRUNK, CLASSIFIER)) for name in frozen)
    learning = Average(model, 0.9, finetuned()).tensors  # in a later stage
    assert {name for name in model.state_dict() if name.startswith(TRUNK)} < learning.keys()
    assert not any(name.startswith(CLASSIFIER) for name in learning)
    assert frozen.keys() == {name for name in learning if not name.startswith(TRUNK)}


def test_the_model_has_its_averages_inside_and_its_weights_again_outside(model: AlignedModel) -> None:
    average = Average(model, 0.5, [tiny_config()])
    averaged = {name: tensor.clone() for name, tensor in average.tensors.items()}
    shake(model, 0)
    outside = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inside: dict[str, torch.Tensor] = {}
    with pytest.raises(ZeroDivisionError):
        copy_and_fail(average, model, inside)
    assert all(torch.equal(tensor, averaged.get(name, outside[name])) for name, tensor in inside.items())
    assert inside.keys() == outside.keys()
    assert all(torch.equal(tensor, outside[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in average.tensors.items())


def copy_and_fail(average: Average, model: AlignedModel, copies: dict[str, torch.Tensor]) -> None:
    with average.in_place(model):
        copies |= {name: tensor.clone() for name, tensor in model.state_dict().items()}
        raise ZeroDivisionError


def test_an_average_is_no_view_of_the_weights(model: AlignedModel) -> None:
    average = Average(model, 0.5, finetuned())
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    shake(model, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.tensors.items())
    average.restart(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in average.tensors.items())
    shake(model, 1)
    assert not torch.equal(average.tensors["head.layers.0.bias"], model.head.layers[0].bias)


def test_averages_are_gone_on_with(model: AlignedModel) -> None:
    average = Average(model, 0.5, finetuned())
    shake(model, 0)
    average.update(model, 3)
    other = Average(model, 0.5, finetuned())
    other.load(average.tensors)
    shake(model, 1)
    for one in (average, other):
        one.update(model, 4)
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in average.tensors.items())


def test_a_trunk_that_no_longer_learns_is_taken_as_it_is(model: AlignedModel) -> None:
    average = Average(model, 0.5, finetuned())
    shake(model, 0)
    model.set_learning(finetuned()[1])
    average.settle(model)
    assert not torch.equal(average.tensors[f"{TRUNK}scale.shift"], model.state_dict()[f"{TRUNK}scale.shift"])
    model.set_learning(finetuned()[0])
    average.settle(model)
    state = model.state_dict()
    for name, tensor in average.tensors.items():
        assert torch.equal(tensor, state[name]) == name.startswith(TRUNK), name
