"""Image encoders: published networks up to their published layers, pooling of maps, what learns, weights, export."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xmr.engine.errors import XmrError
from xmr.engine.runtime import Network
from xmr.train.encoders import AlexNet, Encoder, TimmImage, TimmMap, load_weights, weldon_pool
from xmr.train.onnx_network import to_onnx
from xmr.train.words import NO_WORDS

WIDTH = 6
SMALL_MAP: dict[str, Any] = {"model": "test_resnet", "weights": "random", "size": 64, "channels": 5}


def timm_map(**settings: Any) -> TimmMap:
    torch.manual_seed(0)
    return TimmMap(TimmMap.Settings(**SMALL_MAP | settings), WIDTH, NO_WORDS).eval()


def some_pixels(n_items: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (n_items, size, size, 3), dtype=torch.uint8, generator=generator)


def check_export(encoder: nn.Module, pixels: Tensor, folder: Path) -> None:
    """Traced with two pictures, run with one more."""
    path = folder / "encoder.onnx"
    to_onnx(encoder, pixels[:2].numpy(), path, input_name="image", output_names=["features"], dynamic_axes=[0])
    with torch.inference_mode():
        expected = encoder(pixels).numpy()
    np.testing.assert_allclose(Network(path, "cpu").run(pixels.numpy())["features"], expected, rtol=0, atol=1e-4)


# networks of timm


@pytest.mark.parametrize(
    ("model", "n_features", "n_parameters"),
    [
        ("vgg16", 4096, 138_357_544),
        ("vgg19", 4096, 143_667_240),
        ("resnet50", 2048, 25_557_032),
        ("resnet152", 2048, 60_192_808),
        ("mobilenetv1_100", 1024, 4_231_976),
    ],
)
def test_a_published_network_gives_its_last_features_and_its_classifier_the_rest(
    model: str, n_features: int, n_parameters: int
) -> None:
    with torch.device("meta"):
        encoder = TimmImage(TimmImage.Settings(model=model, weights="random"), WIDTH, NO_WORDS).eval()
        features = encoder.trunk(torch.empty(2, 224, 224, 3, dtype=torch.uint8))
        assert encoder.classifier is not None
        assert encoder.classifier(features).shape == (2, 1000)
    assert features.shape == (2, n_features)
    parts = (encoder.trunk, encoder.classifier)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == n_parameters


def test_vgg_drops_units_of_fc6_and_fc7_where_asked_to() -> None:
    with torch.device("meta"):
        settings = TimmImage.Settings(model="vgg16", weights="random", trunk_dropout=0.5)
        network = TimmImage(settings, WIDTH, NO_WORDS).network
    rates = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert rates == {"pre_logits.drop": 0.5, "head.drop": 0.5}


def test_mobilenet_gets_pixels_from_minus_1_to_1() -> None:
    encoder = TimmImage(TimmImage.Settings(model="mobilenetv1_100", weights="random"), WIDTH, NO_WORDS)
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    scaled = encoder.trunk.get_submodule("scale")(pixels).flatten()
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0, -0.6]))


def test_the_settings_of_a_picture_reach_its_preprocessing() -> None:
    settings = TimmMap.Settings(**SMALL_MAP, resize="crop", margin=0.0625, views=4)
    encoder = TimmMap(settings, WIDTH, NO_WORDS)
    assert (encoder.preprocessing.size, encoder.preprocessing.resize) == (64, "crop")
    assert (encoder.preprocessing.margin, encoder.views) == (0.0625, 4)


# what learns


def learning(encoder: Encoder) -> set[str]:
    return {name.split(".")[0] for name, value in encoder.network.named_parameters() if value.requires_grad}


def test_the_trunk_learns_from_a_named_layer_on() -> None:
    encoder = timm_map()
    layers = list(dict.fromkeys(name.split(".")[0] for name, _ in encoder.network.named_parameters()))
    assert encoder.is_frozen
    encoder.thaw("layer3")
    assert learning(encoder) == set(layers[layers.index("layer3") :]) == {"layer3", "layer4"}
    encoder.thaw("all")
    assert learning(encoder) == set(layers)
    encoder.thaw("layer4")
    assert learning(encoder) == {"layer4"}


def test_only_what_learns_is_in_training_mode() -> None:
    encoder = timm_map()
    encoder.thaw("layer4")
    encoder.train()
    is_training = {name: encoder.network.get_submodule(name).training for name in ("layer3", "layer4", "layer4.0.bn1")}
    assert is_training == {"layer3": False, "layer4": True, "layer4.0.bn1": True}


@pytest.mark.parametrize("layer", ["layer", "layer9", "4", ""])
def test_a_layer_that_is_not_there_is_named_beside_those_that_are(layer: str) -> None:
    sentence = f"finetune: TimmMap has no layer {layer!r}; its layers are conv1, bn1, layer1, layer2, layer3, layer4"
    with pytest.raises(XmrError, match=re.escape(sentence)):
        timm_map().thaw(layer)


# maps and their pooling


def test_weldon_pools_the_highest_and_the_lowest_places() -> None:
    maps = torch.tensor([[[[1.0, 9.0, 4.0], [-3.0, 0.0, 5.0]]]])
    assert weldon_pool(maps, 2, 1).tolist() == [[(9 + 5) / 2 - 3]]
    assert weldon_pool(maps, 2, 2, halved=True).tolist() == [[((9 + 5) / 2 + (-3 + 0) / 2) / 2]]
    assert weldon_pool(maps, 3, 0).tolist() == [[6.0]]


@pytest.mark.parametrize(("n_max", "n_min"), [(1, 1), (15, 15), (3, 40), (200, 300)])
def test_weldon_matches_a_sort(n_max: int, n_min: int) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 7, 6))
    places = np.sort(maps.reshape(2, 3, 42), axis=2)
    expected = places[:, :, -min(n_max, 42) :].mean(axis=2) + places[:, :, :n_min].mean(axis=2)
    np.testing.assert_allclose(weldon_pool(torch.tensor(maps), n_max, n_min).numpy(), expected)


def test_weldon_moves_the_places_that_it_takes() -> None:
    maps = torch.tensor([[[[1.0, 9.0, 4.0], [-3.0, 0.0, 5.0]]]], requires_grad=True)
    weldon_pool(maps, 2, 1).sum().backward()
    assert maps.grad is not None
    assert maps.grad.tolist() == [[[[0.0, 0.5, 0.0], [1.0, 0.0, 0.5]]]]


@pytest.mark.parametrize(("pooling", "kernel"), [("weldon", 1), ("mean", 3), ("max", 1)])
def test_maps_are_what_is_pooled_and_projected(pooling: str, kernel: int) -> None:
    encoder = timm_map(pooling=pooling, kernel=kernel, n_max=2, n_min=1)
    features = encoder.trunk(some_pixels(3, 96))
    maps, n_columns = encoder.maps(features)
    assert (features.shape[2:], maps.shape) == ((3, 3), (3, 5, 3, 3))
    assert n_columns.tolist() == [3, 3, 3]
    pooled = {"weldon": weldon_pool(maps, 2, 1), "mean": maps.mean(dim=(2, 3)), "max": maps.amax(dim=(2, 3))}[pooling]
    torch.testing.assert_close(encoder.top(features), encoder.top.get_submodule("projection")(pooled))


def test_the_last_map_is_the_networks() -> None:
    encoder = timm_map()
    torch.manual_seed(0)
    network = timm.create_model("test_resnet").eval()
    pixels = some_pixels(2, 64)
    mean, deviation = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    expected = network.forward_features((pixels.permute(0, 3, 1, 2) / 255 - mean) / deviation)
    torch.testing.assert_close(encoder.trunk(pixels), expected, rtol=1e-4, atol=1e-5)
    assert encoder.is_compact


def test_the_image_side_of_davenet_keeps_14_places_a_side_of_vgg16() -> None:
    settings = TimmMap.Settings(
        model="vgg16", weights="random", channels=1024, kernel=3, pooling="mean", scale="none", projection="none"
    )
    with torch.device("meta"):
        encoder = TimmMap(settings, 1024, NO_WORDS).eval()
        features = encoder.trunk(torch.empty(2, 224, 224, 3, dtype=torch.uint8))
        assert features.shape == (2, 512, 14, 14)
        assert encoder.maps(features)[0].shape == (2, 1024, 14, 14)
        assert encoder.top(features).shape == (2, 1024)
    # thirteen convolutions, without fc6 to fc8
    assert sum(parameter.numel() for parameter in encoder.trunk.parameters()) == 14_714_688


def test_the_image_side_of_dsve_has_the_published_places() -> None:
    with torch.device("meta"):
        settings = TimmMap.Settings(weights="random", scale="none", dropout=0.5)
        encoder = TimmMap(settings, 2400, NO_WORDS).eval()
        for size, places in {256: 8, 350: 11, 400: 13, 416: 13}.items():
            features = encoder.trunk(torch.empty(1, size, size, 3, dtype=torch.uint8))
            assert encoder.maps(features)[0].shape == (1, 2400, places, places)
            assert encoder.top(features).shape == (1, 2400)


def test_a_network_without_maps_is_refused() -> None:
    encoder = TimmMap(TimmMap.Settings(model="test_vit", weights="random", size=160), WIDTH, NO_WORDS)
    with pytest.raises(XmrError, match=r"encoders.image.model: test_vit gives \(1, 101, 64\), no map of"):
        encoder(some_pixels(1, 160))


# AlexNet


@pytest.fixture(scope="module")
def pool5() -> AlexNet:
    torch.manual_seed(0)
    settings = AlexNet.Settings(weights="random", scale="none", projection="none")
    return AlexNet(settings, AlexNet.POOL5, NO_WORDS).eval()


@pytest.fixture(scope="module")
def port() -> AlexNet:
    torch.manual_seed(0)
    settings = AlexNet.Settings(weights="random", layer="port", pixels="unit", teacher=False, scale="none")
    return AlexNet(settings, WIDTH, NO_WORDS)


def scaled_as_imagenet(pixels: Tensor) -> Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2)


def test_the_teacher_on_pool5_is_the_rest_of_alexnet(pool5: AlexNet) -> None:
    from torchvision.models import alexnet

    torch.manual_seed(0)
    expected = alexnet().eval()(scaled_as_imagenet(some_pixels(2, 224)))
    features = pool5(some_pixels(2, 224))
    assert pool5.classifier is not None
    assert features.shape == (2, 9216)
    torch.testing.assert_close(pool5.classifier(features), expected, rtol=1e-4, atol=1e-5)
    assert sum(parameter.numel() for parameter in pool5.classifier.parameters()) == 58_631_144
    assert sum(parameter.numel() for parameter in pool5.trunk.parameters()) == 2_469_696


def test_the_teacher_drops_nothing_while_the_encoder_trains(pool5: AlexNet) -> None:
    features = torch.rand(2, 9216)
    assert pool5.classifier is not None
    expected = pool5.classifier(features)
    pool5.train()
    torch.testing.assert_close(pool5.classifier(features), expected, rtol=0, atol=0)
    pool5.eval()


def test_alexnet_learns_from_a_named_convolution_on(pool5: AlexNet) -> None:
    pool5.thaw("features.8")
    names = [name for name, value in pool5.network.named_parameters() if value.requires_grad]
    pool5.requires_grad_(False)
    assert names == ["features.8.weight", "features.8.bias", "features.10.weight", "features.10.bias"]


def test_the_port_is_alexnet_with_another_last_layer_on_pixels_from_0_to_1(port: AlexNet) -> None:
    from torchvision.models import alexnet

    torch.manual_seed(0)
    network = alexnet().eval()
    projection = port.top.get_submodule("projection")
    network.classifier[6] = projection
    expected = network((some_pixels(2, 224) / 255).permute(0, 3, 1, 2))
    torch.testing.assert_close(port.eval()(some_pixels(2, 224)), expected, rtol=1e-4, atol=1e-5)
    assert port.classifier is None


def test_the_ports_dropouts_are_active_even_where_its_layers_are_frozen(port: AlexNet) -> None:
    for name, parameter in port.top.named_parameters():
        parameter.requires_grad_(name.startswith("projection"))
    port.train()
    features = torch.rand(1, 9216)
    assert not torch.equal(port.top(features), port.top(features))
    port.eval()
    assert torch.equal(port.top(features), port.top(features))


def test_the_ports_new_layer_starts_as_torchs_layers_do(port: AlexNet) -> None:
    *_, new = port.top.get_submodule("projection").children()
    assert isinstance(new, nn.Linear)
    # uniform up to 1 / sqrt(4096), weights and biases alike
    for values in (new.weight, new.bias):
        assert 0.3 / 64 < values.abs().max() <= 1 / 64


# weights


def test_the_first_layer_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    stored = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5), nn.Linear(5, 2)).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(dict(reversed(stored.items())), path)
    sentence = f"{path}: weights of another network, 1.weight is (5,) in the file, (4,) expected; give a file of this"
    with pytest.raises(XmrError, match=re.escape(sentence)):
        load_weights(network, path)


def test_a_file_of_another_network_is_told_by_its_first_missing_layer_and_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: torch.zeros(1) for name in ("a", "b", "c", "d")}, path)
    sentence = (
        f"{path}: weights of another network, features.0.weight and 15 more are missing; the file holds a, b, c, ..."
    )
    with pytest.raises(XmrError, match=re.escape(sentence)):
        AlexNet(AlexNet.Settings(weights=str(path)), WIDTH, NO_WORDS)


def test_nothing_is_loaded_of_a_file_that_does_not_fit(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_file(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(XmrError):
        load_weights(network, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# export


@pytest.mark.parametrize("size", [64, 160])
def test_an_exported_weldon_encoder_gives_what_torch_gives(size: int, tmp_path: Path) -> None:
    check_export(timm_map(n_max=3, n_min=2), some_pixels(3, size), tmp_path)


def test_an_exported_alexnet_gives_what_torch_gives(pool5: AlexNet, tmp_path: Path) -> None:
    check_export(pool5, some_pixels(3, 224), tmp_path)


@pytest.mark.parametrize("n_levels", [0, 1, 3])
def test_lower_levels_are_features_behind_those_that_the_classifier_sees(n_levels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = TimmImage.Settings(model="test_resnet", weights="random", size=64, n_levels=n_levels)
    encoder = TimmImage(settings, WIDTH, NO_WORDS).eval()
    torch.manual_seed(0)
    network = timm.create_model("test_resnet").eval()
    pixels = some_pixels(2, 64)
    scaled = encoder.trunk.get_submodule("scale")(pixels)
    with torch.inference_mode():
        features, last = encoder.trunk(pixels), network.forward_features(scaled)
        levels = network.forward_intermediates(scaled, intermediates_only=True)[-n_levels:] if n_levels else []
        torch.testing.assert_close(features[:, :96], network.forward_head(last, pre_logits=True))
        torch.testing.assert_close(encoder.classifier(features), network.forward_head(last))
    at = 96
    for level in levels:
        for pooled in (level.mean((2, 3)), level.amax((2, 3)), level.std((2, 3), correction=0).clamp(min=1e-3)):
            torch.testing.assert_close(features[:, at : at + pooled.shape[1]], pooled, rtol=1e-4, atol=1e-4)
            at += pooled.shape[1]
    assert features.shape == (2, at)
    path = tmp_path / "trunk.onnx"
    to_onnx(encoder.trunk, pixels.numpy(), path, input_name="pixels", output_names=["features"], dynamic_axes=[0])
    exported = Network(path, "cpu").run(pixels[:1].numpy())["features"]
    np.testing.assert_allclose(exported, features[:1], rtol=1e-4, atol=1e-4)


def test_more_levels_than_a_network_has_are_refused() -> None:
    settings = TimmImage.Settings(model="test_resnet", weights="random", size=64, n_levels=9)
    with pytest.raises(XmrError, match=r"n_levels: 9 found, the network has 5; set fewer"):
        TimmImage(settings, WIDTH, NO_WORDS)
