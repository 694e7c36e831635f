"""The aligned model in training: what a stage lets learn, and what the head makes of features."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.train.config import load_config, stage_configs
from xmr.train.model import AlignedModel, Head
from xmr.train.settings import HeadSettings, TrainConfig
from xmr.train.words import Words

WORDS = Words(("a", "b"), np.ones((3, 2), dtype=np.float32))
TRUNK = "encoders.image.trunk."


def tiny_config(*assignments: str, **stage: Any) -> TrainConfig:
    settings = ["encoders.image.name=timm", "encoders.image.model=test_resnet", "encoders.image.weights=random"]
    settings += ["encoders.image.size=32", "encoders.text.channels=[3]", "width=4", "head.hidden=[4]", *assignments]
    config = load_config(None, recipe="quick", assignments=settings)
    return replace(config, encoders={name: config.encoders[name] for name in ("image", "text")}, **stage)


@pytest.fixture(scope="module")
def shared() -> AlignedModel:
    return AlignedModel(tiny_config(), WORDS)


@pytest.fixture
def model(shared: AlignedModel) -> AlignedModel:
    """As it was made; what the test before let learn is forgotten."""
    shared.set_learning(tiny_config())
    return shared.train()


def learning(model: AlignedModel, config: TrainConfig) -> set[str]:
    model.set_learning(config)
    return {name for name, _ in model.learning_parameters()}


def names_of(model: AlignedModel, *parts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if any(part in name for part in parts)}


def test_a_trunk_and_its_classifier_do_not_learn_unless_asked_to(model: AlignedModel) -> None:
    everything = names_of(model, "")
    assert learning(model, tiny_config()) == everything - names_of(model, TRUNK, "encoders.image.classifier.")


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (("encoders.text.*",), ("encoders.text.",)),
        (("encoders.text.*", "head.layers.0.bias"), ("encoders.text.", "head.layers.0.bias")),
        (("*.bias",), (".bias",)),
        (("encoders.text.top.vectors.weight",), ("vectors.weight",)),
        (("encoders.image.trunk.*",), ()),  # which did not learn before either
    ],
)
def test_what_a_pattern_names_does_not_learn(
    model: AlignedModel, patterns: tuple[str, ...], frozen: tuple[str, ...]
) -> None:
    before = learning(model, tiny_config())
    assert learning(model, tiny_config(freeze=patterns)) == before - names_of(model, *frozen)
    assert learning(model, tiny_config()) == before  # a later stage begins anew


@pytest.mark.parametrize("pattern", ["encoders.txt.*", "text", "Encoders.text.*", ""])
def test_a_pattern_that_names_nothing_is_refused(model: AlignedModel, pattern: str) -> None:
    with pytest.raises(XmrError, match=r"is the name of no parameter; they are like encoders.image.*head.layers"):
        model.set_learning(tiny_config(freeze=(pattern,)))


def test_a_stage_in_which_nothing_learns_is_refused(model: AlignedModel) -> None:
    with pytest.raises(XmrError, match="freeze: nothing is left to learn in a stage; name fewer parameters"):
        model.set_learning(tiny_config(freeze=("encoders.*", "head.*")))


@pytest.mark.parametrize(
    ("layer", "parts"),
    [("all", ("",)), ("layer4", (".layer4.",)), ("layer3", (".layer3.", ".layer4."))],
)
def test_a_trunk_learns_from_the_layer_that_is_named(model: AlignedModel, layer: str, parts: tuple[str, ...]) -> None:
    found = learning(model, tiny_config(finetune={"image": layer}))
    trunk = names_of(model, TRUNK)
    assert found & trunk == trunk & names_of(model, *parts)
    assert found - trunk == learning(model, tiny_config())


@pytest.mark.parametrize("layer", ["layer", "layer44", "fc", ""])
def test_a_layer_that_the_trunk_lacks_is_refused(model: AlignedModel, layer: str) -> None:
    with pytest.raises(XmrError, match=rf"finetune: TimmImage has no layer '{layer}'; its layers are conv1, .*layer4"):
        model.set_learning(tiny_config(finetune={"image": layer}))


def test_a_trunk_with_nothing_to_learn_is_refused(model: AlignedModel) -> None:
    with pytest.raises(XmrError, match="has no layer 'all'; nothing in its trunk can learn"):
        model.set_learning(tiny_config(finetune={"text": "all"}))


def test_what_is_finetuned_can_be_frozen_in_part(model: AlignedModel) -> None:
    found = learning(model, tiny_config(finetune={"image": "layer3"}, freeze=(f"{TRUNK}*.layer3.*",)))
    assert found & names_of(model, TRUNK) == names_of(model, f"{TRUNK}pooled.network.layer4.")
    assert found & names_of(model, TRUNK) != set()


def test_a_modality_without_an_encoder_is_finetuned_by_nobody(model: AlignedModel) -> None:
    assert learning(model, tiny_config(finetune={"speech": "all"})) == learning(model, tiny_config())


def test_word_vectors_that_were_made_not_to_learn_never_do() -> None:
    config = tiny_config("encoders.text.finetune=false")
    model = AlignedModel(config, WORDS)
    for stage in (config, replace(config, finetune={"image": "all"}), config):
        found = learning(model, stage)
        assert "encoders.text.top.vectors.weight" not in found
        assert "encoders.text.top.top.weight" in found


def test_dsve_lets_learn_what_is_on_top_of_the_image_then_the_text_then_the_image_from_its_third_block() -> None:
    tiny = ["encoders.image.model=test_resnet", "encoders.image.weights=random", "encoders.image.size=64"]
    tiny += ["encoders.image.channels=4", "encoders.text.units=4", "width=4"]
    config = load_config(None, recipe="dsve", assignments=tiny)
    model = AlignedModel(config, WORDS)
    first, second, third = (learning(model, stage) for stage in stage_configs(config))
    text = names_of(model, "encoders.text.") - {"encoders.text.top.vectors.weight"}
    assert first == names_of(model, "encoders.image.top.")
    assert second == first | text
    assert third == second | names_of(model, ".layer3.", ".layer4.")


def modes(model: AlignedModel) -> dict[str, bool]:
    """Of every batch norm of the trunk: whether it is in training."""
    trunk = model.encoder("image").trunk
    return {name: module.training for name, module in trunk.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_batch_norm_of_what_does_not_learn_stays_as_it_is_served(model: AlignedModel) -> None:
    assert modes(model)
    assert not any(modes(model).values())
    model.set_learning(tiny_config(finetune={"image": "layer4"}))
    assert {name for name, is_training in modes(model).items() if is_training} == {
        name for name in modes(model) if ".layer4." in name
    }
    model.set_learning(tiny_config())  # at once, without train() being called
    assert not any(modes(model).values())


def test_batch_norm_that_is_served_counts_nothing(model: AlignedModel) -> None:
    model.set_learning(tiny_config(finetune={"image": "layer4"}))
    before = {name: tensor.clone() for name, tensor in model.encoder("image").trunk.state_dict().items()}
    model.features("image", torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8))
    moved = {name for name, value in model.encoder("image").trunk.state_dict().items() if (value != before[name]).any()}
    assert moved
    assert all(".layer4." in name and name.endswith(("running_mean", "running_var", "_tracked")) for name in moved)
    model.encoder("image").trunk.load_state_dict(before)


def test_evaluation_mode_survives_a_change_of_what_learns(model: AlignedModel) -> None:
    model.eval()
    model.set_learning(tiny_config(finetune={"image": "all"}))
    assert not any(module.training for module in model.modules())


def test_a_trunk_that_learns_is_run_and_a_frozen_ones_features_are_taken(model: AlignedModel) -> None:
    pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    assert model.features("image", pixels) is pixels
    model.set_learning(tiny_config(finetune={"image": "all"}))
    assert model.eval().features("image", pixels).shape == (2, model.encoder("image").trunk(pixels).shape[1])


def test_the_image_comes_first_whatever_the_settings_say() -> None:
    config = tiny_config()
    turned = replace(config, encoders={name: config.encoders[name] for name in ("text", "image")})
    assert AlignedModel(turned, WORDS).modalities == ["image", "text"]


def test_too_small_an_input_is_said_before_any_work() -> None:
    config = load_config(
        None, recipe="quick", assignments=["encoders.image.size=8", "encoders.image.channels=[4,4,4,4]"]
    )
    with pytest.raises(XmrError, match=r"encoders.image: too small an input for its layers .*; set a larger one"):
        AlignedModel(config, WORDS)


def head(width: int = 5, **settings: Any) -> Head:
    torch.manual_seed(0)
    return Head(HeadSettings(**({"n_classes": 0} | settings)), width).eval()


FEATURES = torch.tensor([[1.0, -2.0, 3.0, -4.0, 0.5], [-0.1, 0.2, 0.0, 2.0, -1.0]])


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def layer(head: Head, place: int, rows: Any) -> Any:
    linear = head.layers[place]
    return rows @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def close(found: Tensor | None, expected: Any) -> None:
    assert found is not None
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_head_without_layers_hands_on_what_the_encoders_give() -> None:
    out = head(hidden=(), embedding="linear")(FEATURES)
    close(out.at_own_length, FEATURES.numpy())
    close(out.embeddings, unit(FEATURES.numpy()))
    assert out.logits is None
    assert out.layers == []
    close(head(hidden=(), embedding="relu")(FEATURES).at_own_length, np.maximum(FEATURES.numpy(), 0))


@pytest.mark.parametrize("relu_features", [True, False])
def test_each_layer_sees_what_the_one_below_gives_after_a_relu(relu_features: bool) -> None:
    one = head(hidden=(4, 3, 2), embedding="linear", n_classes=6, relu_features=relu_features)
    out = one(FEATURES)
    features = FEATURES.numpy()
    first = layer(one, 0, np.maximum(features, 0) if relu_features else features)
    second = layer(one, 1, np.maximum(first, 0))
    third = layer(one, 2, np.maximum(second, 0))
    close(out.at_own_length, third)
    close(out.embeddings, unit(third))
    assert one.classes is not None
    logits = np.maximum(third, 0) @ one.classes.weight.detach().numpy().T + one.classes.bias.detach().numpy()
    close(out.logits, logits)
    assert [of.shape[1] for of in out.layers] == [4, 3, 6]
    shared = [np.maximum(first, 0), np.maximum(second, 0), softmax(logits)]
    for found, expected in zip(out.layers, shared, strict=True):  # a row of zeros has no direction
        length = np.linalg.norm(expected, axis=1, keepdims=True)
        close(found, expected / np.where(length == 0, 1, length))


def test_an_embedding_may_be_the_last_layer_after_its_relu_or_its_absolute_values() -> None:
    plain = head(hidden=(4,), embedding="linear")(FEATURES).at_own_length.detach().numpy()
    close(head(hidden=(4,), embedding="relu")(FEATURES).at_own_length, np.maximum(plain, 0))
    absolute = head(hidden=(4,), embedding="linear", is_absolute=True)(FEATURES)
    close(absolute.at_own_length, np.abs(plain))
    close(absolute.embeddings, unit(np.abs(plain)))


def test_the_class_softmax_as_embedding_is_no_shared_layer_a_second_time() -> None:
    one = head(hidden=(4, 3), embedding="classes", n_classes=6)
    out = one(FEATURES)
    assert one.dim == 6
    assert out.logits is not None
    probabilities = softmax(out.logits.detach().numpy())
    close(out.at_own_length, probabilities)
    close(out.embeddings, unit(probabilities))
    assert [of.shape[1] for of in out.layers] == [4, 3]


def test_the_class_softmax_as_embedding_needs_classes() -> None:
    with pytest.raises(XmrError, match=r"head.embedding: the class softmax asked for, but head.n_classes is 0; set it"):
        head(hidden=(4,), embedding="classes")


def test_dropout_is_in_front_of_each_layer_while_training() -> None:
    one = head(hidden=(4,), embedding="linear", dropout=0.5)
    served = one(FEATURES).at_own_length
    one.train()
    torch.manual_seed(3)
    found = one(FEATURES).at_own_length
    torch.manual_seed(3)
    close(found, layer(one, 0, nn.functional.dropout(FEATURES.relu(), 0.5).numpy()))
    assert not torch.equal(found, served)
