"""What a training minimises: each loss sees the rows that its settings say, and what it learns outlives a stage."""

import math
import tomllib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xmr.engine.errors import XmrError
from xmr.train import losses
from xmr.train.batches import Store
from xmr.train.config import parse_config, stage_configs
from xmr.train.datasets import Row
from xmr.train.evaluate import embed_contents, evaluate
from xmr.train.features import Features
from xmr.train.model import AlignedModel, Outputs
from xmr.train.objective import Batch, Objective, check_batches, comparison_of, losses_of
from xmr.train.settings import TrainConfig
from xmr.train.words import Words

N_ROWS, DIM, N_CLASSES, N_IDS = 5, 6, 1000, 9
IDS = torch.tensor([4, 0, 4, 7, 1])  # two rows show the same thing
WORDS = Words(("a", "b", "c"), np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))
SMALL = """
width = 6
[head]
hidden = [4, 6]
n_classes = 1000
unnormalized = ["speech"]
[words]
dim = 3
[encoders.image]
name = "timm"
model = "test_resnet"
weights = "random"
size = 32
[encoders.speech]
name = "davenet"
window_s = 0.5
widths = [3, 3, 4, 4, 6]
hidden = 4
[encoders.text]
name = "words"
channels = [4]
"""


def stage_of(table: str) -> TrainConfig:
    return parse_config({"data": ["none"], **tomllib.loads(SMALL), **tomllib.loads(table)})


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    torch.manual_seed(0)
    return AlignedModel(stage_of("[losses.ranking]"), WORDS)


def random_outputs(seed: int) -> Outputs:
    torch.manual_seed(seed)
    rows, layer = 3 * torch.randn(N_ROWS, DIM), torch.rand(N_ROWS, 4)
    logits = torch.randn(N_ROWS, N_CLASSES)
    layers = [functional.normalize(layer, dim=1), functional.normalize(logits.softmax(dim=1), dim=1)]
    return Outputs(functional.normalize(rows, dim=1), logits, rows, layers)


def batch_of(*modalities: str, step: int = 3) -> Batch:
    """Outputs drawn at random; the features of the image are what its classifier takes."""
    outputs = {modality: random_outputs(seed) for seed, modality in enumerate(modalities)}
    torch.manual_seed(9)
    features = {modality: torch.randn(N_ROWS, 256) for modality in modalities}
    return Batch("-".join(modalities), features, outputs, IDS, step)


def found(model: AlignedModel, table: str, batch: Batch) -> dict[str, Tensor]:
    stage = stage_of(table)
    values: dict[str, Tensor] = Objective([stage], model, N_IDS)(model, stage, batch)
    return values


def rows_of(batch: Batch, modality: str) -> Tensor:
    """As the settings above say: speech at its own length."""
    outputs = batch.outputs[modality]
    return outputs.at_own_length if modality == "speech" else outputs.embeddings


def by_hand(batch: Batch, loss: Callable[[Tensor, Tensor], Any]) -> float:
    """The sum of a loss over every two modalities, image before speech before text."""
    order = [modality for modality in ("image", "speech", "text") if modality in batch.outputs]
    total = 0.0
    for a, b in combinations(order, 2):
        value = loss(rows_of(batch, a), rows_of(batch, b))
        total += sum(part.item() for part in (value if isinstance(value, tuple) else (value,)))
    return total


PAIR_LOSSES: list[tuple[str, str, Callable[[Tensor, Tensor], Any]]] = [
    ("ranking", "margin = 0.3", lambda a, b: losses.ranking(a, b, IDS, 0.3)),
    ("ranking", "both_ways = false", lambda a, b: losses.ranking(a, b, IDS, 0.2, False)),
    ("ranking", "use_ids = false", lambda a, b: losses.ranking(a, b, None, 0.2)),
    ("ranking", 'similarity = "order"', lambda a, b: losses.ranking(a, b, IDS, 0.2, similarity="order")),
    ("hardest_negative", "n_hardest = 2", lambda a, b: losses.hardest_negative(a, b, IDS, 0.2, 2)),
    ("hardest_negative", "use_ids = false", lambda a, b: losses.hardest_negative(a, b, None, 0.2)),
    (
        "hardest_negative",
        'margin = 0.1\nsimilarity = "order"\ndiagonal = "dsve"',
        lambda a, b: losses.hardest_negative(a, b, IDS, 0.1, diagonal="dsve", similarity="order"),
    ),
    ("info_nce", "temperature = 0.5", lambda a, b: losses.info_nce(a, b, IDS, 0.5)),
    ("info_nce", "is_learned = true\ntemperature = 0.5", lambda a, b: losses.info_nce(a, b, IDS, 0.5)),
    ("info_nce", "use_ids = false", lambda a, b: losses.info_nce(a, b, None, 0.07)),
    ("sigmoid", "is_learned = false\nbias = -2.0", lambda a, b: losses.sigmoid(a, b, IDS, 0.1, -2.0)),
    ("sigmoid", "temperature = 0.2\nuse_ids = false", lambda a, b: losses.sigmoid(a, b, None, 0.2, -10.0)),
    ("cmpm", "", lambda a, b: losses.cmpm(a, b, IDS)),
    ("cmpm", "use_ids = false", lambda a, b: losses.cmpm(a, b, None)),
    ("semi_hard", "margin = 0.5", lambda a, b: losses.semi_hard(a @ b.T, IDS, 0.5)),
    ("semi_hard", "faithful = true\nuse_ids = false", lambda a, b: losses.semi_hard(a @ b.T, None, 1.0, True)),
]


@pytest.mark.parametrize(
    "modalities", [("image", "text"), ("speech", "text"), ("image", "speech", "text")], ids="-".join
)
@pytest.mark.parametrize(("name", "settings", "loss"), PAIR_LOSSES, ids=[f"{n}-{s}" for n, s, _ in PAIR_LOSSES])
def test_a_loss_of_pairs_is_its_sum_over_every_two_modalities(
    model: AlignedModel, name: str, settings: str, loss: Callable[[Tensor, Tensor], Any], modalities: tuple[str, ...]
) -> None:
    batch = batch_of(*modalities)
    values = found(model, f"[losses.{name}]\n{settings}", batch)
    assert list(values) == [f"{'-'.join(modalities)}.{name}"]
    assert values[f"{batch.name}.{name}"].item() == pytest.approx(by_hand(batch, loss), rel=1e-5)


def test_a_weight_multiplies_its_loss_and_a_loss_without_one_is_left_out(model: AlignedModel) -> None:
    batch = batch_of("image", "text")
    plain = found(model, "[losses.ranking]\n[losses.cmpm]", batch)
    weighed = found(model, "[losses.ranking]\nweight = 0.25\n[losses.cmpm]\nweight = 0", batch)
    assert weighed.keys() == {"image-text.ranking"}
    assert weighed["image-text.ranking"].item() == pytest.approx(plain["image-text.ranking"].item() / 4)


def test_a_loss_is_for_the_batches_it_names_in_any_order(model: AlignedModel) -> None:
    table = '[losses.ranking]\nbatches = ["text-image"]\n[losses.cmpm]\nbatches = ["image-speech", "image-text"]'
    assert found(model, table, batch_of("image", "text")).keys() == {"image-text.ranking", "image-text.cmpm"}
    assert found(model, table, batch_of("image", "speech")).keys() == {"image-speech.cmpm"}
    assert found(model, table, batch_of("image", "speech", "text")) == {}


def test_the_shared_layers_are_ranked_too(model: AlignedModel) -> None:
    batch = batch_of("image", "speech", "text")
    expected = by_hand(batch, lambda a, b: losses.ranking(a, b, IDS, 0.2))
    for a, b in combinations(batch.outputs.values(), 2):
        expected += sum(losses.ranking(x, y, IDS, 0.2).item() for x, y in zip(a.layers, b.layers, strict=True))
    [value] = found(model, "[losses.ranking]\nshared_layers = true", batch).values()
    assert value.item() == pytest.approx(expected, rel=1e-5)


def kl_by_hand(model: AlignedModel, batch: Batch, taught: tuple[str, ...]) -> float:
    """Σ_ij p log(p / q) in float64."""
    classifier = model.encoder("image").classifier
    assert classifier is not None
    p = classifier(batch.features["image"]).double().softmax(dim=1)
    total = 0.0
    for modality in taught:
        logits = batch.outputs[modality].logits
        assert logits is not None
        total += float((p * (p / logits.double().softmax(dim=1)).log()).sum())
    return total


@pytest.mark.parametrize(
    ("modalities", "settings", "taught"),
    [
        (("image", "text"), "", ("image", "text")),
        (("image", "speech", "text"), "", ("image", "speech", "text")),
        (("image", "speech", "text"), 'modalities = ["text"]', ("text",)),
        (("image", "text"), 'modalities = ["speech", "text"]', ("text",)),
    ],
)
def test_the_image_teaches_its_classes(
    model: AlignedModel, modalities: tuple[str, ...], settings: str, taught: tuple[str, ...]
) -> None:
    batch = batch_of(*modalities)
    [value] = found(model, f"[losses.kl_transfer]\n{settings}", batch).values()
    assert value.item() == pytest.approx(kl_by_hand(model, batch, taught), rel=1e-4)


def test_a_batch_without_an_image_or_without_a_pupil_has_no_teacher(model: AlignedModel) -> None:
    assert found(model, "[losses.kl_transfer]", batch_of("speech", "text")) == {}
    assert found(model, '[losses.kl_transfer]\nmodalities = ["speech"]', batch_of("image", "text")) == {}


def test_the_teacher_learns_nothing(model: AlignedModel) -> None:
    batch = batch_of("image", "text")
    batch.features["image"].requires_grad_()
    logits = batch.outputs["text"].logits
    assert logits is not None
    logits.requires_grad_()
    [value] = found(model, '[losses.kl_transfer]\nmodalities = ["text"]', batch).values()
    value.backward()
    assert logits.grad is not None
    assert batch.features["image"].grad is None


def test_classes_are_the_ids_of_the_rows(model: AlignedModel) -> None:
    stage = stage_of("[losses.cmpc]\nlabel_smoothing = 0.1")
    objective = Objective([stage], model, N_IDS)
    weight = objective.learned["cmpc_weight"]
    assert weight.shape == (DIM, N_IDS)
    batch = batch_of("image", "speech", "text")
    value = objective(model, stage, batch)["image-speech-text.cmpc"]
    assert value.item() == pytest.approx(by_hand(batch, lambda a, b: losses.cmpc(a, b, IDS, weight, 0.1)), rel=1e-5)
    value.backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("modalities", [("image", "speech"), ("image", "speech", "text")], ids="-".join)
def test_all_modalities_of_a_batch_are_rebuilt_at_once(model: AlignedModel, modalities: tuple[str, ...]) -> None:
    batch = batch_of(*modalities)
    [value] = found(model, '[losses.reconstruction]\nsmooth = 4.0\nweight_axis = "target"', batch).values()
    rows = [rows_of(batch, modality) for modality in modalities]
    assert value.item() == pytest.approx(0.05 * losses.reconstruction(rows, 4.0, "target").item(), rel=1e-5)


def test_impostors_of_embeddings_are_drawn_by_the_seed(model: AlignedModel) -> None:
    table = '[losses.sampled_impostors]\nmatchmap = "none"'
    values = [found(model, table, batch_of("image", "speech", step=step)) for step in (3, 3, 4)]
    numbers = [value["image-speech.sampled_impostors"].item() for value in values]
    assert numbers[0] == numbers[1] != numbers[2]
    batch = batch_of("image", "speech")
    scores = rows_of(batch, "image") @ rows_of(batch, "speech").T
    drawn = losses.sampled_impostors(scores, IDS, 1.0, torch.Generator().manual_seed(3))
    assert numbers[0] == pytest.approx(drawn.item(), rel=1e-5)


MAPPED = """
width = 6
[head]
hidden = []
n_classes = 0
[encoders.image]
name = "timm-map"
model = "test_resnet"
weights = "random"
size = 64
channels = 6
pooling = "mean"
projection = "none"
[encoders.speech]
name = "davenet"
window_s = 0.5
widths = [3, 3, 4, 4, 6]
pooling = "mean"
projection = "none"
"""


@pytest.fixture(scope="module")
def mapped() -> AlignedModel:
    torch.manual_seed(1)
    return AlignedModel(parse_config(tomllib.loads(MAPPED + "[losses.sampled_impostors]")), WORDS).eval()


def mapped_batch(model: AlignedModel) -> Batch:
    """Pictures of noise, and noise that falls silent sooner or later."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(256, size=(N_ROWS, 64, 64, 3), dtype=np.uint8))
    samples = torch.from_numpy(rng.standard_normal((N_ROWS, 7999)).astype(np.float32) / 9)
    for row, end in enumerate((7999, 5000, 3000, 7000, 1000)):
        samples[row, end:] = 0
    with torch.no_grad():
        inputs = {"image": pixels, "speech": samples}
        features = {modality: model.encoder(modality).trunk(of) for modality, of in inputs.items()}
        outputs = {modality: model.embed_features(modality, of) for modality, of in features.items()}
    return Batch("image-speech", features, outputs, IDS, 3)


def matchmap_loop(images: Any, sounds: Any, n_frames: Any, kind: str) -> Any:
    """(n, m) scores, a pair at a time."""
    scores = np.zeros((len(images), len(sounds)))
    for i, image in enumerate(images):
        for j, sound in enumerate(sounds):
            places = np.einsum("dhw,dt->hwt", image, sound[:, : n_frames[j]]).reshape(-1, n_frames[j])
            pooled = {"SISA": places.mean(), "MISA": places.max(axis=0).mean(), "SIMA": places.max(axis=1).mean()}
            scores[i, j] = pooled[kind]
    return scores


@pytest.mark.parametrize("kind", ["SISA", "MISA", "SIMA"])
def test_matchmaps_are_of_the_maps_of_the_two_encoders(mapped: AlignedModel, kind: str) -> None:
    batch = mapped_batch(mapped)
    stage = parse_config(tomllib.loads(MAPPED + f'[losses.sampled_impostors]\nmatchmap = "{kind}"'))
    with torch.no_grad():
        images, _ = mapped.maps("image", batch.features["image"])
        sounds, n_frames = mapped.maps("speech", batch.features["speech"])
        value = Objective([stage], mapped, N_IDS)(mapped, stage, batch)["image-speech.sampled_impostors"]
    assert images.shape[1:] == (6, 2, 2)
    assert len(set(n_frames.tolist())) > 2
    scores = matchmap_loop(images.double().numpy(), sounds.double().numpy(), n_frames.numpy(), kind)
    generator = torch.Generator().manual_seed(3)
    expected = losses.sampled_impostors(torch.from_numpy(scores), IDS, 1.0, generator)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_losses_are_computed_in_float32_whatever_the_model_gave(mapped: AlignedModel) -> None:
    whole = mapped_batch(mapped)
    half = replace(
        whole,
        features={modality: of.bfloat16() for modality, of in whole.features.items()},
        outputs={
            modality: Outputs(of.embeddings.bfloat16(), None, of.at_own_length.bfloat16(), [])
            for modality, of in whole.outputs.items()
        },
    )
    rounded = replace(
        half,
        features={modality: of.float() for modality, of in half.features.items()},
        outputs={
            modality: Outputs(of.embeddings.float(), None, of.at_own_length.float(), [])
            for modality, of in half.outputs.items()
        },
    )
    names = ("ranking", "hardest_negative", "info_nce", "sigmoid", "cmpm", "cmpc", "semi_hard", "reconstruction")
    table = "".join(f"[losses.{name}]\n" for name in (*names, "sampled_impostors"))
    stage = parse_config(tomllib.loads(MAPPED + table))
    objective = Objective([stage], mapped, N_IDS)
    of_half, of_rounded = objective(mapped, stage, half), objective(mapped, stage, rounded)
    assert len(of_half) == 9
    for name, value in of_half.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, of_rounded[name]), name


def test_a_model_under_autocast_gives_what_the_losses_take(model: AlignedModel) -> None:
    stage = stage_of("[losses.ranking]\nshared_layers = true\n[losses.kl_transfer]\n[losses.cmpm]")
    pixels = torch.randint(256, (N_ROWS, 32, 32, 3), dtype=torch.uint8)
    ids = torch.tensor([[1, 2], [2, 0], [3, 1], [1, 0], [2, 2]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = {"image": model.encoder("image").trunk(pixels), "text": ids}
        outputs = {modality: model.embed_features(modality, of) for modality, of in features.items()}
    logits = outputs["text"].logits
    assert logits is not None
    assert logits.dtype == torch.bfloat16
    values = Objective([stage], model, N_IDS)(model, stage, Batch("image-text", features, outputs, IDS, 0))
    assert {value.dtype for value in values.values()} == {torch.float32}
    torch.stack(list(values.values())).sum().backward()


def test_what_all_stages_learn_is_there_from_the_first_on(model: AlignedModel) -> None:
    config = stage_of(
        "losses = { info_nce = { is_learned = true, temperature = 0.5 } }\n"
        "[[stages]]\n[[stages]]\nlosses = { info_nce = { weight = 0 }, sigmoid = {}, cmpc = {} }"
    )
    stages = stage_configs(config)
    objective = Objective(stages, model, N_IDS)
    names = {"cmpc_weight", "info_nce_log_temperature", "sigmoid_bias", "sigmoid_log_temperature"}
    assert {name for name, _ in objective.named_parameters()} == {f"learned.{name}" for name in names}
    assert objective.learned["info_nce_log_temperature"].item() == pytest.approx(math.log(0.5))
    assert objective.learned["sigmoid_bias"].item() == -10
    first, second = (objective(model, stage, batch_of("image", "text")) for stage in stages)
    assert (first.keys(), second.keys()) == ({"image-text.info_nce"}, {"image-text.sigmoid", "image-text.cmpc"})


def test_a_learned_temperature_follows_its_gradient(model: AlignedModel) -> None:
    stage = stage_of("[losses.info_nce]\nis_learned = true")
    objective = Objective([stage], model, N_IDS)
    batch = batch_of("image", "text")
    values = []
    for shift in (0.0, 1e-2, -1e-2):
        moved = Objective([stage], model, N_IDS)
        moved.learned["info_nce_log_temperature"].data += shift
        values.append(moved(model, stage, batch)["image-text.info_nce"].item())
    objective(model, stage, batch)["image-text.info_nce"].backward()
    slope = objective.learned["info_nce_log_temperature"].grad
    assert slope is not None
    assert slope.item() == pytest.approx((values[1] - values[2]) / 2e-2, rel=1e-2)


def test_a_temperature_that_does_not_learn_is_no_parameter(model: AlignedModel) -> None:
    assert list(Objective([stage_of("[losses.info_nce]")], model, N_IDS).parameters()) == []


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            '[losses.kl_transfer]\n[[stages]]\nfinetune = { image = "layer4" }',
            r"losses.kl_transfer: its teacher is the image encoder's trunk, which is to learn; freeze it",
        ),
        (
            "[losses.sampled_impostors]",
            r"losses.sampled_impostors.matchmap: the encoder of image keeps no map of where",
        ),
    ],
)
def test_what_a_loss_cannot_have_of_the_model_is_said_before_any_work(
    model: AlignedModel, table: str, sentence: str
) -> None:
    with pytest.raises(XmrError, match=sentence):
        Objective(stage_configs(stage_of(table)), model, N_IDS)


def test_a_reconstruction_of_sounds_is_refused() -> None:
    quick = {"width": 4, "encoders": {"image": {"name": "convnet"}, "sound": {"name": "spectrogram"}}}
    config = parse_config({**quick, "losses": {"reconstruction": {}}})
    with pytest.raises(XmrError, match=r"losses.reconstruction: is for image, speech and text; found image, sound"):
        Objective([config], AlignedModel(config, WORDS), N_IDS)


def test_maps_of_unequal_channels_are_refused(mapped: AlignedModel) -> None:
    table = MAPPED.replace("channels = 6", "channels = 5").replace('projection = "none"', 'projection = "linear"')
    config = parse_config(tomllib.loads(table + "[losses.sampled_impostors]"))
    model = AlignedModel(config, WORDS).eval()
    with pytest.raises(
        XmrError, match=r"matchmap: 5 channels of image, 6 of speech; give both encoders' maps the same"
    ):
        Objective([config], model, N_IDS)(model, config, mapped_batch(model))


def test_an_encoder_without_maps_may_stand_beside_a_matchmap(mapped: AlignedModel) -> None:
    text = '[encoders.text]\nname = "words"\nchannels = [4]\n'
    config = parse_config(tomllib.loads(MAPPED + text + '[losses.sampled_impostors]\nbatches = ["image-speech"]'))
    model = AlignedModel(config, WORDS)
    assert losses_of(config, "image-speech").keys() == {"sampled_impostors"}
    assert list(Objective([config], model, N_IDS).parameters()) == []


def test_a_loss_that_no_batch_has_is_refused() -> None:
    stage = stage_of('[losses.ranking]\n[losses.cmpm]\nbatches = ["speech-text"]\n[losses.sigmoid]\nweight = 0')
    check_batches(stage, ["image-text", "speech-text"])
    with pytest.raises(XmrError, match=r"losses.cmpm: is for none of the batches there are, image-text, image-speech;"):
        check_batches(stage, ["image-text", "image-speech"])


@pytest.mark.parametrize(
    ("table", "comparison"),
    [
        ('[losses.ranking]\nsimilarity = "order"', "order"),
        ('[losses.hardest_negative]\nsimilarity = "order"\n[losses.cmpm]', "order"),
        ('[losses.ranking]\nsimilarity = "order"\nweight = 0\n[losses.cmpm]', "dot"),
        ("[losses.ranking]", "dot"),
        ('[losses.sampled_impostors]\nmatchmap = "SIMA"', "SIMA"),
        ('[losses.sampled_impostors]\nmatchmap = "none"', "dot"),
        ('losses = { cmpm = {} }\n[[stages]]\n[[stages]]\nlosses = { ranking = { similarity = "order" } }', "order"),
    ],
)
def test_embeddings_are_compared_as_they_were_learned(table: str, comparison: str) -> None:
    assert comparison_of(stage_configs(stage_of(table))) == comparison


def order_metrics(queries: Any, gallery: Any, right: list[set[int]], *, is_image: bool) -> dict[str, float]:
    """R@k, median and mean rank, mAP: −‖max(0, caption − image)‖ in float64, a query at a time."""
    ranks, precisions = [], []
    for query, answers in zip(queries, right, strict=True):
        violations = gallery - query if is_image else query - gallery
        order = list(np.argsort(np.sqrt((np.maximum(violations, 0) ** 2).sum(axis=1))))
        places = sorted(order.index(answer) + 1 for answer in answers)
        ranks.append(places[0])
        precisions.append(np.mean([(found + 1) / place for found, place in enumerate(places)]))
    recalls = {f"R@{k}": 100 * np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10)}
    means = {"median_rank": np.median(ranks), "mean_rank": np.mean(ranks), "mAP": 100 * np.mean(precisions)}
    return {name: round(float(value), 4) for name, value in (recalls | means).items()}


ORDERED = """
width = 8
head = { hidden = [8], is_absolute = true, embedding = "linear", n_classes = 0 }
words = { dim = 3 }
losses = { ranking = { similarity = "order" } }
[encoders.image]
name = "convnet"
size = 8
channels = [8]
[encoders.text]
name = "words"
channels = [8]
"""


def ordered_world() -> tuple[AlignedModel, Store, list[Row]]:
    """Twelve pictures of noise with two sentences each, and a model that nobody trained."""
    torch.manual_seed(2)
    rng, words = np.random.default_rng(2), tuple("abcdefgh")
    vectors = rng.standard_normal((9, 3)).astype(np.float32)
    model = AlignedModel(parse_config(tomllib.loads(ORDERED)), Words(words, vectors))
    paths = [Path(f"{number}.png") for number in range(12)]
    pixels = Features()
    rows_of_paths = {str(path): row for row, path in enumerate(paths)}
    pixels.add_part(rows_of_paths, rng.integers(256, size=(12, 8, 8, 3), dtype=np.uint8))
    sentences = [tuple(" ".join(rng.choice(words, 5)) for _ in range(2)) for _ in paths]
    rows = [
        Row(path.name, "val", files={"image": path}, captions=captions)
        for path, captions in zip(paths, sentences, strict=True)
    ]
    return model, Store({"image": pixels}, model.encoder("text").preprocessing), rows


def test_an_evaluation_by_order_is_that_of_a_loop() -> None:
    model, store, rows = ordered_world()
    cpu = torch.device("cpu")
    sentences = [caption for row in rows for caption in row.captions]
    images = embed_contents(model, store, "image", [row.files["image"] for row in rows], cpu).astype(np.float64)
    texts = embed_contents(model, store, "text", sentences, cpu).astype(np.float64)
    expected = [
        order_metrics(images, texts, [{2 * row, 2 * row + 1} for row in range(12)], is_image=True),
        order_metrics(texts, images, [{row // 2} for row in range(24)], is_image=False),
    ]
    by_order, by_cosine = (evaluate(model, store, rows, cpu, comparison=how) for how in ("order", "dot"))
    assert [(record["query"], record["gallery"]) for record in by_order] == [("image", "text"), ("text", "image")]
    for record, other, metrics in zip(by_order, by_cosine, expected, strict=True):
        assert {name: record[name] for name in metrics} == metrics
        assert {name: other[name] for name in metrics} != metrics


@pytest.mark.parametrize("kind", ["SISA", "MISA", "SIMA"])
def test_an_evaluation_by_maps_is_that_of_a_loop(mapped: AlignedModel, kind: str) -> None:
    batch = mapped_batch(mapped)
    rows = [Row(str(n), "val", files={"image": Path(f"{n}.png"), "speech": Path(f"{n}.wav")}) for n in range(N_ROWS)]
    features = {modality: Features() for modality in batch.features}
    for modality, of in batch.features.items():
        features[modality].add_part({str(row.files[modality]): n for n, row in enumerate(rows)}, of.numpy())
    with torch.no_grad():
        images, _ = mapped.maps("image", batch.features["image"])
        sounds, n_frames = mapped.maps("speech", batch.features["speech"])
    scores = matchmap_loop(images.numpy(), sounds.numpy(), n_frames.numpy(), kind)
    records = evaluate(mapped, Store(features, None), rows, torch.device("cpu"), comparison=kind)
    for record, matrix in zip(records, (scores, scores.T), strict=True):
        ranks = [1 + sum(row > row[n]) for n, row in enumerate(matrix)]
        assert record["mean_rank"] == round(np.mean(ranks), 4)
        assert record["R@1"] == round(100 * np.mean(np.equal(ranks, 1)), 4)
