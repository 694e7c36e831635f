"""Places: what they give adds up to the embedding where it can, and is that of the place alone where it cannot."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmr.train.config import parse_config
from xmr.train.encoders import ENCODERS
from xmr.train.model import AlignedModel, Head
from xmr.train.places import EMBEDDINGS, SHARES, Places, is_affine, places_of
from xmr.train.settings import HeadSettings
from xmr.train.words import NO_WORDS

Array = NDArray[Any]
SIDE = 64
LINEAR_HEAD: dict[str, Any] = {"hidden": [], "embedding": "linear", "n_classes": 0}
TIMM: dict[str, Any] = {"name": "timm", "model": "test_resnet", "weights": "random", "size": SIDE, "scale": "none"}
MAP: dict[str, Any] = {**TIMM, "name": "timm-map", "channels": 12}
SPEECH: dict[str, Any] = {
    "name": "davenet",
    "window_s": 1.0,
    "widths": [3, 4, 5, 6, 7],
    "pooling": "mean",
    "scale": "none",
}


def make_model(
    encoders: dict[str, dict[str, Any]], head: dict[str, Any] = LINEAR_HEAD, width: int = 10
) -> AlignedModel:
    torch.manual_seed(0)
    filler = {"sound": {"name": "spectrogram", "channels": [2]}}  # settings are of two modalities at least
    table = {"width": width, "head": head, "encoders": filler | encoders, "losses": {"info_nce": {}}}
    config = parse_config(table)
    kept = {modality: settings for modality, settings in config.encoders.items() if modality in encoders}
    return AlignedModel(replace(config, encoders=kept), NO_WORDS).eval()


def pictures(n: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8))


def clips(n: int = 2, rate_hz: int = 16000) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (n, rate_hz - 1)).astype(np.float32))


def places_and_outputs(model: AlignedModel, modality: str, batch: Tensor) -> tuple[Places, Tensor, Tensor]:
    """The places of a modality, what they give, and the embeddings of the whole at their own length."""
    places = places_of(model, modality)
    assert places is not None
    with torch.inference_mode():
        return places, places(batch), model(modality, batch).at_own_length


def of_nothing(places: Places, n_features: int) -> Tensor:
    """What the layers above make of features of 0."""
    with torch.inference_mode():
        made: Tensor = places.head(places.top(torch.zeros(1, n_features))).at_own_length
    return made


# shares


@pytest.mark.parametrize("scale", ["none", "deviation"])
@pytest.mark.parametrize("hidden", [[], [8]])
def test_the_mean_of_the_shares_is_the_embedding_less_its_biases(scale: str, hidden: list[int]) -> None:
    head = LINEAR_HEAD | {"hidden": hidden, "relu_features": False}
    for name, image in (("timm", TIMM), ("timm-map", MAP | {"pooling": "mean"})):
        model = make_model({"image": image | {"scale": scale}}, head)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean, module.running_var = (
                    torch.rand(module.num_features),
                    torch.rand(module.num_features),
                )
        places, shares, whole = places_and_outputs(model, "image", pictures())
        assert places.gives == SHARES, name
        assert shares.shape[:2] == whole.shape
        n_features = next(m.in_features for m in places.top.modules() if isinstance(m, nn.Linear))
        torch.testing.assert_close(
            shares.flatten(2).mean(dim=2) + of_nothing(places, n_features), whole, rtol=1e-4, atol=1e-4
        )


def test_the_shares_of_weldon_are_the_projected_activation_map_as_published() -> None:
    """DSVE-loc: the matrix of the last layer, applied to the activations of each place, without its bias."""
    model = make_model({"image": MAP | {"pooling": "weldon"}})
    encoder = model.encoder("image")
    _, shares, _ = places_and_outputs(model, "image", pictures())
    with torch.inference_mode():
        activations, _ = encoder.maps(encoder.trunk(pictures()))
    linear = next(layer for layer in encoder.top.projection.modules() if isinstance(layer, nn.Linear))  # type: ignore[union-attr]
    assert shares.shape[2:] == activations.shape[2:]
    for row in range(shares.shape[2]):
        for column in range(shares.shape[3]):
            expected = activations[:, :, row, column] @ linear.weight.detach().T
            torch.testing.assert_close(shares[:, :, row, column], expected, rtol=1e-4, atol=1e-4)


def test_the_steps_of_speech_add_up_to_its_embedding() -> None:
    model = make_model({"image": MAP, "speech": SPEECH})
    places, shares, whole = places_and_outputs(model, "speech", clips())
    assert (places.gives, shares.shape[1]) == (SHARES, model.dim)
    torch.testing.assert_close(shares.mean(dim=2) + of_nothing(places, 7), whole, rtol=1e-4, atol=1e-5)


def test_features_brought_to_unit_length_share_by_direction() -> None:
    """The length of the whole divides all places alike, so that it is left out."""
    plain, divided = (make_model({"image": TIMM | {"scale": scale}}) for scale in ("none", "length"))
    of_plain, of_divided = (places_and_outputs(model, "image", pictures())[1] for model in (plain, divided))
    torch.testing.assert_close(of_plain, of_divided)


def test_the_means_of_more_levels_are_shared_too() -> None:
    model = make_model({"image": TIMM | {"n_levels": 2}})
    places, shares, whole = places_and_outputs(model, "image", pictures())
    one_level = places_and_outputs(make_model({"image": TIMM}), "image", pictures())[1]
    assert places.gives == SHARES
    assert shares.shape[2:] == one_level.shape[2:]
    assert shares.shape[:2] == whole.shape


# embeddings of a place alone


@pytest.mark.parametrize(
    ("modality", "encoders", "head"),
    [
        ("image", {"image": TIMM}, {"hidden": [9], "embedding": "relu", "n_classes": 0}),
        ("image", {"image": TIMM}, {"hidden": [9, 9], "embedding": "linear", "n_classes": 0}),
        ("image", {"image": TIMM | {"n_levels": 2}}, {"hidden": [9], "embedding": "linear", "n_classes": 5}),
        ("image", {"image": {"name": "convnet", "size": SIDE, "channels": [4, 6]}}, {"hidden": [9]}),
        ("image", {"image": TIMM | {"model": "test_vit", "size": 160}}, LINEAR_HEAD),
        ("image", {"image": TIMM | {"model": "mobilenetv3_small_050"}}, LINEAR_HEAD),
        ("speech", {"image": TIMM, "speech": SPEECH | {"pooling": "gru", "hidden": 6}}, LINEAR_HEAD),
        ("sound", {"image": TIMM, "sound": {"name": "spectrogram", "channels": [4, 6]}}, {"hidden": [9]}),
        ("sound", {"image": TIMM, "sound": {"name": "soundnet", "weights": "random", "layers": [2, 4]}}, LINEAR_HEAD),
    ],
)
def test_where_layers_are_not_affine_a_place_gives_a_unit_embedding(
    modality: str, encoders: dict[str, dict[str, Any]], head: dict[str, Any]
) -> None:
    model = make_model(encoders, head)
    preprocessing = model.encoder(modality).preprocessing
    if modality == "image":
        batch = torch.randint(256, (2, preprocessing.size, preprocessing.size, 3), dtype=torch.uint8)
    else:
        batch = torch.rand(2, round(preprocessing.window_s * preprocessing.rate_hz)) - 0.5
    places, made, whole = places_and_outputs(model, modality, batch)
    assert places.gives == EMBEDDINGS
    assert made.shape[:2] == whole.shape
    assert made.ndim == (4 if modality == "image" else 3)
    assert made.shape[-1] > 1
    torch.testing.assert_close(made.norm(dim=1), torch.ones(made[:, 0].shape), rtol=1e-4, atol=1e-4)


def test_a_place_is_embedded_as_a_picture_that_is_like_it_everywhere() -> None:
    model = make_model({"image": TIMM}, {"hidden": [9], "embedding": "linear", "n_classes": 0})
    grey = torch.full((1, SIDE, SIDE, 3), 90, dtype=torch.uint8)
    places, made, _ = places_and_outputs(model, "image", grey)
    network = model.encoder("image").network
    with torch.inference_mode():
        last = network.forward_features(places.features[0](grey))
        for row in range(made.shape[2]):
            alone = last[:, :, row : row + 1, :1].expand(-1, -1, *last.shape[2:])
            expected = model.embed_features("image", network.forward_head(alone)).embeddings
            torch.testing.assert_close(made[:, :, row, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_states_of_the_gru_end_in_the_embedding() -> None:
    """Read at the last step, as published, the state there is what is projected."""
    settings = SPEECH | {"pooling": "gru", "hidden": 6, "reading": "last", "padding": "heard"}
    model = make_model({"image": TIMM, "speech": settings})
    _, made, whole = places_and_outputs(model, "speech", clips())
    torch.testing.assert_close(made[:, :, -1], nn.functional.normalize(whole, dim=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "alexnet", "weights": "random"},
        TIMM | {"model": "crossvit_tiny_240", "size": 240},  # two lists of tokens
        TIMM | {"model": "coat_lite_tiny", "size": 224},  # a token of the whole among those of places
    ],
    ids=lambda settings: settings.get("model", settings["name"]),
)
def test_an_encoder_that_keeps_no_places_gives_none_and_embeds(settings: dict[str, Any]) -> None:
    model = make_model({"image": settings})
    assert places_of(model, "image") is None
    side = model.encoder("image").preprocessing.size
    with torch.inference_mode():
        assert model("image", torch.zeros(1, side, side, 3, dtype=torch.uint8)).embeddings.shape == (1, model.dim)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"hidden": (), "embedding": "linear"}, True),
        ({"hidden": (4,), "embedding": "linear", "relu_features": False}, True),
        ({"hidden": (4,), "embedding": "linear", "relu_features": True}, False),
        ({"hidden": (4, 4), "embedding": "linear", "relu_features": False}, False),
        ({"hidden": (), "embedding": "relu"}, False),
        ({"hidden": (), "embedding": "classes", "n_classes": 3}, False),
        ({"hidden": (), "embedding": "linear", "is_absolute": True}, False),
    ],
)
def test_a_head_is_affine_without_a_relu_in_it(settings: dict[str, Any], expected: bool) -> None:
    assert is_affine(Head(HeadSettings(**{"n_classes": 0} | settings), 5)) is expected


def test_every_image_and_sound_encoder_but_alexnet_keeps_places() -> None:
    from xmr.train.places import PARTS

    with_places = {name for name, encoder in ENCODERS.items() if encoder in PARTS}
    assert with_places == {"timm", "timm-map", "convnet", "soundnet", "spectrogram", "davenet", "resdavenet"}
