"""The recipes at full size, as they were published: that they build, and every constant of the papers and their code.

Models are built on torch's meta device, where layers have shapes and no numbers.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xmr.engine.media import text
from xmr.train.config import load_config, recipe_facts, recipe_names, stage_configs
from xmr.train.model import AlignedModel
from xmr.train.optimizer import share_of_rate
from xmr.train.settings import RANDOM, TrainConfig
from xmr.train.words import Words

SYSTEMS = [(name, variant) for name in recipe_names() for variant in recipe_facts(name).variants or ("",)]

# numbers of an embedding
WIDTHS = {
    "cmpl": 512,
    "cmpm": 512,
    "contrastive": 1024,
    "cub-see-hear-read": 1000,  # the class softmax
    "davenet": 1024,
    "dsve": 2400,
    "quick": 256,
    "see-hear-read": 4096,
    "vase-2": 1024,
    "vase-3": 1024,
    "vsepp": 1024,
}

ADAM = {"optimizer": "adam", "warmup_steps": 0, "weight_decay": 0.0}
CENTRE_CROP = {"encoders.image.resize": "crop", "encoders.image.margin": 0.0625, "encoders.image.size": 224}
RESNET152 = {"encoders.image.model": "resnet152.tv_in1k"}
NO_LAYERS = {"head.hidden": (), "head.n_classes": 0, "head.embedding": "linear"}

SHR = "Aytar, Vondrick, Torralba 2017"
SHR_PORT = "their port to CUB-200, 2018"
VASE = "VASE's code"
DSVE = "Engilberge, Chevallier, Pérez, Cord 2018, and their code"
CMPL = "Zhang, Lu 2018, and their code"
VSEPP = "Faghri, Fleet, Kiros, Fidler 2018, and their code"
DAVENET = "Harwath and others 2018, and their code"
RESDAVENET = "Harwath, Hsu, Glass 2020, and their code"

VASE_TRAINING = ADAM | {"clip_norm": 2.0, "batch_size": 32, "select_by": "rsum", "select_on": ("image-speech",)}
VASE_ENCODERS = {
    **CENTRE_CROP,
    **NO_LAYERS,
    "encoders.image.scale": "length",
    "encoders.image.projection": "linear",
    "encoders.speech.window_s": 20.48,  # 2048 frames
    "encoders.speech.widths": (128, 256, 512, 512, 1024),
    "encoders.speech.time_pool": "avg",
    "encoders.speech.pooling": "gru",
    "encoders.speech.hidden": 1024,
    "encoders.speech.norm": "time",
    "encoders.speech.reading": "last",
    "encoders.speech.padding": "heard",
    "encoders.speech.pad_db": 0.0,
    "head.unnormalized": ("speech",),
}
VASE_LOSSES = {
    "losses.ranking.margin": 0.2,
    "losses.ranking.weight": 1.0,
    "losses.ranking.both_ways": True,
    "losses.ranking.similarity": "dot",
    "losses.ranking.use_ids": False,
    "losses.reconstruction.weight": 0.05,
}
GRU_TEXT = {
    "encoders.text.name": "gru",
    "encoders.text.units": 1024,
    "encoders.text.n_layers": 1,
    "encoders.text.bidirectional": False,
    "encoders.text.pooling": "last",
    "encoders.text.finetune": True,
    "words.vectors": "random",  # from ±0.1
    "words.dim": 300,
    "words.min_count": 4,
    "words.marks": True,
}
CMPM_TRAINING = {
    "optimizer": "adam",
    "weight_decay": 4e-5,
    "clip_norm": 0.0,
    "warmup_steps": 0,
    "ema_decay": 0.9999,
    "select_by": "last",
    "per_caption": True,
}
CMPM_ENCODERS = NO_LAYERS | {
    "encoders.image.size": 224,
    "encoders.image.resize": "squash",
    "encoders.image.crops": False,
    "encoders.image.batch_norm": True,
    "encoders.text.name": "bilstm",
    "encoders.text.units": 512,
    "encoders.text.batch_norm": True,
    "encoders.text.max_over": "padding",
    "encoders.text.learned_start": True,
    "encoders.text.drop_end": True,
    "encoders.text.word_dropout": 0.3,
    "encoders.text.state_dropout": 0.3,
    "words.dim": 512,
    "words.min_count": 3,
    "words.marks": True,
    "head.unnormalized": ("image", "text"),
}
VSEPP_TRAINING = ADAM | {"clip_norm": 2.0, "batch_size": 128, "per_caption": True, "select_by": "rsum"}
VSEPP_ENCODERS = CENTRE_CROP | RESNET152 | GRU_TEXT | NO_LAYERS | {"encoders.image.scale": "length"}
DAVENET_IMAGE = CENTRE_CROP | NO_LAYERS | {"encoders.image.channels": 1024, "encoders.image.pooling": "mean"}

# (recipe, variants, where it is published, its constants); every stage has them
PUBLISHED: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        "see-hear-read",
        "both transfer ranking",
        f"{SHR}: networks",
        {
            "encoders.image.layer": "pool5",
            "encoders.image.teacher": True,
            "encoders.sound.bands": "linear",
            "encoders.sound.n_fft": 512,  # 257 bands
            "encoders.sound.window_s": 5.0,
            "encoders.text.max_words": 16,
            "encoders.text.along": "words",
            "width": 9216,
            "head.hidden": (4096, 4096),
            "head.n_classes": 1000,
        },
    ),
    (
        "see-hear-read",
        "both transfer ranking",
        f"{SHR}: training",
        ADAM | {"learning_rate": 1e-4, "batch_size": 200, "batches": ("image-text", "image-sound")},
    ),
    (
        "see-hear-read",
        "both",
        f"{SHR}: losses",
        {
            "losses.ranking.weight": 1.0,
            "losses.ranking.both_ways": True,
            "losses.ranking.shared_layers": True,
            "losses.kl_transfer.weight": 1.0,
        },
    ),
    ("see-hear-read", "transfer", f"{SHR}: losses", {"losses.ranking.weight": 0, "losses.kl_transfer.weight": 1.0}),
    ("see-hear-read", "ranking", f"{SHR}: losses", {"losses.ranking.weight": 1.0, "losses.kl_transfer.weight": 0}),
    (
        "cub-see-hear-read",
        "",
        f"{SHR_PORT}: Shared_Network.py, DataLoader.py, word_embeddings.py",
        CENTRE_CROP
        | {
            "encoders.image.layer": "port",
            "encoders.image.pixels": "unit",
            "encoders.image.scale": "none",
            "encoders.text.along": "vectors",
            "encoders.text.max_words": 16,
            "encoders.text.channels": (300, 300, 300),
            "encoders.text.drop_repeats": True,
            "encoders.text.finetune": False,
            "words.dim": 300,
            "captions": "last",
            "width": 9216,
            "head.hidden": (4096, 4096),
            "head.relu_features": False,
            "head.embedding": "classes",
            "head.n_classes": 1000,
        },
    ),
    (
        "cub-see-hear-read",
        "",
        f"{SHR_PORT}: loss and training",
        ADAM
        | {
            "losses.ranking.margin": 0.002,
            "losses.ranking.both_ways": False,
            "losses.ranking.use_ids": False,
            "batch_size": 64,
            "clip_norm": 0.0,
            "eval_every": 100,
            "select_by": "R@1",
        },
    ),
    ("vase-2 vase-3", "f8k places resnet50", f"{VASE}: train_f8k.py, train_places.py", VASE_TRAINING),
    ("vase-2 vase-3", "f8k places resnet50", f"{VASE}: model.py, AudioModels.py", VASE_ENCODERS),
    ("vase-3", "f8k places resnet50", f"{VASE}: EncoderText of model.py, vocab.py", GRU_TEXT),
    ("vase-2 vase-3", "f8k places resnet50", f"{VASE}: losses of model.py", VASE_LOSSES),
    (
        "vase-3",
        "f8k places resnet50",
        f"{VASE}: re_feats_three_streams of model.py",
        {"losses.reconstruction.weight_axis": "target", "batches": ("image-speech-text",)},
    ),
    ("vase-2", "f8k resnet50", f"{VASE}: smooth, in the names of the runs", {"losses.reconstruction.smooth": 6.0}),
    ("vase-2", "places", f"{VASE}: smooth, in the names of the runs", {"losses.reconstruction.smooth": 12.0}),
    ("vase-3", "f8k", f"{VASE}: smooth, in the names of the runs", {"losses.reconstruction.smooth": 1.0}),
    ("vase-3", "places", f"{VASE}: smooth, in the names of the runs", {"losses.reconstruction.smooth": 2.0}),
    ("vase-3", "resnet50", f"{VASE}: smooth, in the names of the runs", {"losses.reconstruction.smooth": 4.0}),
    (
        "vase-2 vase-3",
        "f8k places",
        f"{VASE}: cnn_type of the scripts, with the dropouts of VGG16",
        {"encoders.image.model": "vgg16.tv_in1k", "encoders.image.trunk_dropout": 0.5},
    ),
    ("vase-2 vase-3", "resnet50", f"{VASE}: cnn_type of the scripts", {"encoders.image.model": "resnet50.tv_in1k"}),
    (
        "dsve",
        "",
        f"{DSVE}: model.py, weldonModel.py",
        RESNET152
        | NO_LAYERS
        | {
            "encoders.image.size": 256,
            "encoders.image.resize": "squash",
            "encoders.image.channels": 2400,
            "encoders.image.kernel": 1,
            "encoders.image.pooling": "weldon",
            "encoders.image.n_max": 15,
            "encoders.image.n_min": 15,
            "encoders.image.halved": False,
            "encoders.image.dropout": 0.5,
            "encoders.image.projection": "linear",
            "encoders.text.name": "sru",
            "encoders.text.units": 2400,
            "encoders.text.n_layers": 4,
            "encoders.text.layer_dropout": 0.25,
            "encoders.text.rnn_dropout": 0.25,
            "encoders.text.finetune": False,
            "words.dim": 620,
        },
    ),
    (
        "dsve",
        "",
        f"{DSVE}: loss.py",
        {
            "losses.hardest_negative.margin": 0.2,
            "losses.hardest_negative.n_hardest": 1,
            "losses.hardest_negative.diagonal": "dsve",
            "losses.hardest_negative.similarity": "dot",
            "losses.hardest_negative.use_ids": False,
        },
    ),
    (
        "dsve",
        "",
        f"{DSVE}: train.py",
        ADAM | {"batch_size": 160, "clip_norm": 0.0, "per_caption": True, "select_by": "rsum"},
    ),
    ("cmpm cmpl", "resnet152 coco mobilenet", f"{CMPL}: configuration.py, the scripts", CMPM_TRAINING),
    ("cmpm cmpl", "resnet152 coco mobilenet", f"{CMPL}: modules.py", CMPM_ENCODERS),
    ("cmpm cmpl", "resnet152", f"{CMPL}: the scripts of Flickr30k", {"batch_size": 32} | RESNET152),
    ("cmpm cmpl", "coco", f"{CMPL}: the scripts of COCO", {"batch_size": 64} | RESNET152),
    (
        "cmpm cmpl",
        "mobilenet",
        f"{CMPL}: the scripts of CUHK-PEDES",
        {"batch_size": 16, "encoders.image.model": "mobilenetv1_100", "encoders.image.dropout": 0.001},
    ),
    (
        "cmpm cmpl",
        "resnet152 coco mobilenet",
        f"{CMPL}: cmpm_loss_compute of modules.py",
        {"losses.cmpm.weight": 1.0, "losses.cmpm.use_ids": True},
    ),
    (
        "cmpl",
        "resnet152 coco mobilenet",
        f"{CMPL}: cmpc_loss_compute of modules.py",
        {"losses.cmpc.weight": 1.0, "losses.cmpc.label_smoothing": 0.0},
    ),
    ("vsepp", "vse++ vse0 order++ order0", f"{VSEPP}: train.py", VSEPP_TRAINING),
    ("vsepp", "vse++ vse0 order++ order0", f"{VSEPP}: model.py", VSEPP_ENCODERS),
    (
        "vsepp",
        "vse++",
        f"{VSEPP}: --max_violation",
        {
            "losses.hardest_negative.margin": 0.2,
            "losses.hardest_negative.n_hardest": 1,
            "losses.hardest_negative.diagonal": "mask",
            "losses.hardest_negative.use_ids": False,
            "head.unnormalized": (),
        },
    ),
    (
        "vsepp",
        "vse0",
        f"{VSEPP}: --no_imgnorm",
        {
            "losses.ranking.margin": 0.2,
            "losses.ranking.both_ways": True,
            "losses.ranking.use_ids": False,
            "head.unnormalized": ("image",),
        },
    ),
    (
        "vsepp",
        "order0",
        f"{VSEPP}: --measure order --use_abs --margin .05",
        {
            "losses.ranking.margin": 0.05,
            "losses.ranking.similarity": "order",
            "losses.ranking.use_ids": False,
            "head.is_absolute": True,
        },
    ),
    (
        "vsepp",
        "order++",
        f"{VSEPP}: --max_violation --measure order --use_abs --margin .05",
        {
            "losses.hardest_negative.margin": 0.05,
            "losses.hardest_negative.similarity": "order",
            "losses.hardest_negative.use_ids": False,
            "head.is_absolute": True,
        },
    ),
    (
        "davenet",
        "misa sisa sima",
        f"{DAVENET}: training",
        {
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 5e-7,
            "batch_size": 100,
            "clip_norm": 0.0,
            "warmup_steps": 0,
            "select_by": "R@10",
            "losses.sampled_impostors.margin": 1.0,
            "losses.sampled_impostors.use_ids": False,
        },
    ),
    (
        "davenet",
        "misa sisa sima",
        f"{DAVENET}: networks",
        DAVENET_IMAGE
        | {
            "encoders.image.model": "vgg16.tv_in1k",
            "encoders.image.kernel": 3,
            "encoders.speech.widths": (128, 256, 512, 512, 1024),
            "encoders.speech.time_pool": "max",
            "encoders.speech.window_s": 20.48,
        },
    ),
    ("davenet", "misa", f"{DAVENET}: similarities", {"losses.sampled_impostors.matchmap": "MISA"}),
    ("davenet", "sisa", f"{DAVENET}: similarities", {"losses.sampled_impostors.matchmap": "SISA"}),
    ("davenet", "sima", f"{DAVENET}: similarities", {"losses.sampled_impostors.matchmap": "SIMA"}),
    (
        "davenet",
        "resdavenet",
        f"{RESDAVENET}: training",
        {
            "optimizer": "adam",
            "weight_decay": 5e-7,
            "batch_size": 64,
            "clip_norm": 0.0,
            "select_by": "R@10",
            "losses.sampled_impostors.margin": 1.0,
            "losses.sampled_impostors.matchmap": "none",
            "losses.semi_hard.margin": 1.0,
            "losses.semi_hard.faithful": True,
        },
    ),
    (
        "davenet",
        "resdavenet",
        f"{RESDAVENET}: networks",
        DAVENET_IMAGE
        | {
            "encoders.image.model": "resnet50.tv_in1k",
            "encoders.image.kernel": 1,
            "encoders.speech.widths": (128, 128, 256, 512, 1024),
            "encoders.speech.pooling": "mean",
            "encoders.speech.pad_db": -80.0,
        },
    ),
]

# the learning rate of every epoch, stage after stage, as (epochs, rate)
RATES: list[tuple[str, str, str, list[list[tuple[int, float]]]]] = [
    ("see-hear-read", "both transfer ranking", SHR, [[(100, 1e-4)]]),  # the number of epochs is ours
    ("cub-see-hear-read", "", f"{SHR_PORT}: main.py", [[(50_000, 1e-4)]]),
    (
        "vase-2 vase-3",
        "f8k resnet50",
        f"{VASE}: train_f8k.py",
        [
            [(15, 2e-4 * 0.1**place) for place in range(6)] + [(10, 2e-4 * 0.1**6)],
            [(15, 2e-5 * 0.1**place) for place in range(6)] + [(10, 2e-5 * 0.1**6)],
        ],
    ),
    (
        "vase-2 vase-3",
        "places",
        f"{VASE}: train_places.py",
        [[(15, 2e-4), (15, 2e-5), (5, 2e-6)], [(15, 2e-5), (15, 2e-6), (10, 2e-7)]],
    ),
    (
        "dsve",
        "",
        f"{DSVE}: train.py, -lrd 0.5 2 3 4 5 6 -mepoch 60",
        [
            [(2, 1e-3)],
            [(1, 1e-3), (1, 5e-4), (1, 2.5e-4), (1, 1.25e-4), (1, 6.25e-5), (2, 3.125e-5)],
            [(51, 3.125e-5)],
        ],
    ),
    ("cmpm cmpl", "resnet152 coco", f"{CMPL}: the scripts", [[(15, 2e-4)], [(15, 2e-5)]]),
    ("cmpm cmpl", "mobilenet", f"{CMPL}: the script of CUHK-PEDES", [[(50, 2e-4)]]),
    ("vsepp", "vse++ vse0", f"{VSEPP}: train.py, --finetune", [[(15, 2e-4), (15, 2e-5)], [(15, 2e-5)]]),
    ("vsepp", "order++ order0", f"{VSEPP}: --learning_rate .001", [[(15, 1e-3), (15, 1e-4)], [(15, 2e-5)]]),
    (
        "davenet",
        "misa sisa sima",
        f"{DAVENET}; the number of epochs is that of 2020",
        [[(40, 1e-3), (40, 1e-4), (40, 1e-5), (30, 1e-6)]],
    ),
    ("davenet", "resdavenet", RESDAVENET, [[(3, 2e-4 * 0.95**place) for place in range(50)]]),
]

TRAINS_ALL = [{"image.trunk", "image.top", "text.top"}]
# what learns in each stage; in DSVE's first the convolution of the map does too, for whose weights there is no source
LEARNING: list[tuple[str, str, str, list[set[str]]]] = [
    (
        "see-hear-read",
        "both transfer ranking",
        f"{SHR}: AlexNet up to pool5 is given",
        [{"sound.top", "text.network", "head"}],
    ),
    (
        "cub-see-hear-read",
        "",
        f"{SHR_PORT}: the last layer of AlexNet is new, the others are frozen",
        [{"image.projection", "text.network", "head"}],
    ),
    (
        "vase-2",
        "f8k places resnet50",
        f"{VASE}: --finetune in the second run",
        [{"image.top", "speech.top"}, {"image.trunk", "image.top", "speech.top"}],
    ),
    (
        "vase-3",
        "f8k places resnet50",
        f"{VASE}: --finetune in the second run",
        [{"image.top", "speech.top", "text.top"}, {"image.trunk", "image.top", "speech.top", "text.top"}],
    ),
    (
        "dsve",
        "",
        f"{DSVE}: train.py, the text from epoch 2, the image network from its third block on from epoch 9",
        [{"image.top"}, {"image.top", "text.sru"}, {"image.layer3", "image.layer4", "image.top", "text.sru"}],
    ),
    ("cmpm cmpl", "resnet152 coco", f"{CMPL}: the scripts", [{"image.top", "text.top"}, *TRAINS_ALL]),
    ("cmpm cmpl", "mobilenet", f"{CMPL}: the script of CUHK-PEDES", TRAINS_ALL),
    ("vsepp", "vse++ vse0 order++ order0", f"{VSEPP}: --finetune", [{"image.top", "text.top"}, *TRAINS_ALL]),
    ("davenet", "misa sisa sima", DAVENET, [{"image.trunk", "image.top", "speech.top"}]),
    (
        "davenet",
        "resdavenet",
        f"{RESDAVENET}: all but a batch norm that is not used",
        [{"image.trunk", "image.top", "speech.network"}],
    ),
]

# a stage of finetuning begins with the best weights so far and an optimiser that knows nothing; DSVE goes on with both
STARTS = {
    "vase-2": [("best", True)],
    "vase-3": [("best", True)],
    "vsepp": [("best", True)],
    "cmpm": [("last", True)],
    "cmpl": [("last", True)],
    "dsve": [("last", False), ("last", False)],
}

# the parameters that parts of a model have
PARAMETERS: list[tuple[str, str, str, dict[str, int]]] = [
    (
        "cub-see-hear-read",
        "",
        f"{SHR_PORT}: its text network and its shared layers",
        {"encoders.text.top.network": 202_394_916, "head": 58_631_144},
    ),
    (
        "vase-2 vase-3",
        "f8k places resnet50",
        f"{VASE}: Davenet_rnn, AudioRNN",
        {"encoders.speech.top.network": 15_965_570, "encoders.speech.top.pooling": 12_595_200},
    ),
    ("davenet", "misa sisa sima", "as VASE's but for the pools", {"encoders.speech.top.network": 15_965_570}),
    ("davenet", "resdavenet", RESDAVENET, {"encoders.speech.top.network": 44_670_978}),
    ("dsve", "", f"{DSVE}: spaConv", {"encoders.image.top.convolution": 2400 * 2048 + 2400}),
    ("vsepp", "vse++", f"{VSEPP}: fc of ResNet-152", {"encoders.image.top": 1024 * 2048 + 1024}),
    ("cmpm cmpl", "resnet152 coco", f"{CMPL}: no bias, batch norm", {"encoders.image.top": 512 * 2048 + 2 * 512}),
    ("cmpm cmpl", "mobilenet", f"{CMPL}: no bias, batch norm", {"encoders.image.top": 512 * 1024 + 2 * 512}),
]


def full(recipe: str, variant: str) -> TrainConfig:
    """The recipe at full size, its image network without weights."""
    choice = ["size=full", f"variant={json.dumps(variant)}"]
    of_image = load_config(None, recipe=recipe, assignments=choice).encoders["image"]
    random = [f"encoders.image.weights={RANDOM}"] if hasattr(of_image, "weights") else []
    return load_config(None, recipe=recipe, assignments=[*choice, *random])


@cache
def built(recipe: str, variant: str) -> AlignedModel:
    config = full(recipe, variant)
    vocabulary = (*(text.MARKS if config.words.marks else ()), "a", "dog", "runs")
    words = Words(vocabulary, np.zeros((1 + len(vocabulary), config.words.dim), dtype=np.float32))
    with torch.device("meta"):
        return AlignedModel(config, words)


def each(table: Iterable[tuple[Any, ...]]) -> Any:
    """A test for every recipe and variant of a table's lines, named by both."""
    cases = [
        pytest.param(recipe, variant, *rest[1:], id=f"{recipe} {variant} {rest[0]}".replace("  ", " "))
        for recipes, variants, *rest in table
        for recipe in recipes.split()
        for variant in variants.split() or [""]
    ]
    return pytest.mark.parametrize(("recipe", "variant", "published"), cases)


def setting_of(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def learning(model: AlignedModel) -> set[str]:
    """What learns: an encoder's trunk or top where all of it does, else the layers of it that do."""
    parts = {"head": model.head}
    for modality in model.modalities:
        encoder = model.encoder(modality)
        parts |= {f"{modality}.trunk": encoder.network, f"{modality}.top": encoder.top}
    return {name for part, module in parts.items() for name in learning_layers(part, module)}


def learning_layers(part: str, module: nn.Module) -> set[str]:
    learns = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    if not learns or all(learns.values()):
        return {part} if learns else set()
    return {f"{part.split('.')[0]}.{name.split('.')[0]}" for name, does in learns.items() if does}


@pytest.mark.parametrize(("recipe", "variant"), SYSTEMS, ids=lambda part: part or "one")
def test_a_recipe_builds_at_full_size(recipe: str, variant: str) -> None:
    model, config = built(recipe, variant), full(recipe, variant)
    assert model.modalities == list(config.encoders)
    assert model.dim == WIDTHS[recipe]


@each(PUBLISHED)
def test_constants_are_the_published_ones(recipe: str, variant: str, published: dict[str, Any]) -> None:
    for stage in stage_configs(full(recipe, variant)):
        assert {name: setting_of(stage, name) for name in published} == published


@each(RATES)
def test_the_rate_of_every_epoch_is_the_published_one(
    recipe: str, variant: str, published: list[list[tuple[int, float]]]
) -> None:
    found = [
        [stage.learning_rate * share_of_rate(stage, epoch, 1, stage.epochs) for epoch in range(stage.epochs)]
        for stage in stage_configs(full(recipe, variant))
    ]
    assert found == [pytest.approx([rate for n, rate in rates for _ in range(n)], rel=1e-9) for rates in published]


@each(LEARNING)
def test_what_learns_in_a_stage_is_as_published(recipe: str, variant: str, published: list[set[str]]) -> None:
    model, found = built(recipe, variant), []
    for stage in stage_configs(full(recipe, variant)):
        model.set_learning(stage)
        found.append(learning(model))
    assert found == published


@pytest.mark.parametrize("recipe", STARTS)
def test_a_later_stage_begins_as_published(recipe: str) -> None:
    later = stage_configs(load_config(None, recipe=recipe))[1:]
    assert [(stage.start, stage.fresh_optimizer) for stage in later] == STARTS[recipe]


@each(PARAMETERS)
def test_parts_have_the_published_number_of_parameters(recipe: str, variant: str, published: dict[str, int]) -> None:
    parts = {part: built(recipe, variant).get_submodule(part) for part in published}
    assert {part: sum(values.numel() for values in of.parameters()) for part, of in parts.items()} == published
