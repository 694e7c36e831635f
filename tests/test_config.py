"""Settings: recipe, file and --set in that order; what is wrong is said in one sentence."""

import tomllib
from dataclasses import FrozenInstanceError, asdict
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from xmr.engine.errors import UsageError, XmrError
from xmr.train.config import (
    anchored_source,
    dump_config,
    explained_config,
    load_config,
    parse_config,
    recipe_facts,
    recipe_names,
    stage_configs,
)
from xmr.train.settings import TrainConfig

RECIPES = recipe_names()


def write_settings(folder: Path, content: str) -> Path:
    path = folder / "xmr.toml"
    path.write_text(content, encoding="utf-8")
    return path


def config_with(*assignments: str) -> TrainConfig:
    return load_config(None, recipe="quick", assignments=assignments)


def test_the_recipes_that_ship_are_there() -> None:
    assert {"quick", "see-hear-read"} <= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_parses_and_bears_its_name(recipe: str) -> None:
    config = load_config(None, recipe=recipe)
    assert config.recipe == recipe
    assert len(config.encoders) >= 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_dumped_settings_parse_to_the_same_settings(recipe: str) -> None:
    config = load_config(None, recipe=recipe, assignments=["head.hidden=[64, 32]", 'words.file="a \\"b\\".bin"'])
    assert parse_config(tomllib.loads(dump_config(config))) == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_explained_file_parses_to_the_recipe(recipe: str, tmp_path: Path) -> None:
    config = load_config(None, recipe=recipe)
    written = load_config(write_settings(tmp_path, explained_config(recipe)))
    assert asdict(written) == asdict(config) | {"data": tuple(str(tmp_path / source) for source in config.data)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_explained_setting_has_a_meaning(recipe: str) -> None:
    settings = [line for line in explained_config(recipe).splitlines() if " = " in line]
    assert len(settings) > 30
    assert not [line for line in settings if not line.partition(" # ")[2].strip()]


def test_the_file_wins_over_the_recipe_and_an_assignment_over_both(tmp_path: Path) -> None:
    path = write_settings(tmp_path, 'recipe = "quick"\nepochs = 7\nwidth = 99\n[losses.info_nce]\nweight = 2\n')
    config = load_config(path, assignments=["epochs=8", "losses.info_nce.temperature=0.3"])
    assert (config.epochs, config.width) == (8, 99)
    assert (config.losses["info_nce"].weight, config.losses["info_nce"].temperature) == (2.0, 0.3)


def test_a_missing_file_leaves_the_recipe(tmp_path: Path) -> None:
    assert load_config(tmp_path / "xmr.toml") == load_config(None, recipe="quick")


def test_another_recipe_than_the_files_keeps_its_data_only(tmp_path: Path) -> None:
    content = 'recipe = "quick"\ndata = ["a.jsonl"]\nepochs = 7\n[encoders.text]\nmax_words = 5\n'
    path = write_settings(tmp_path, content)
    config = load_config(path, recipe="see-hear-read")
    alone = load_config(None, recipe="see-hear-read")
    assert asdict(config) == asdict(alone) | {"data": (str(tmp_path / "a.jsonl"),)}


def test_the_files_own_recipe_keeps_all_its_settings(tmp_path: Path) -> None:
    path = write_settings(tmp_path, 'recipe = "quick"\nepochs = 7\n')
    assert load_config(path, recipe="quick").epochs == 7


def test_relative_paths_of_a_file_are_meant_from_its_folder(tmp_path: Path) -> None:
    path = write_settings(
        tmp_path,
        'recipe = "see-hear-read"\ndata = ["a.jsonl", "/b"]\n[words]\nfile = "w.bin"\n'
        '[encoders.image]\nweights = "image.safetensors"\n',
    )
    config = load_config(path)
    assert config.data == (str(tmp_path / "a.jsonl"), "/b")
    assert config.words.file == str(tmp_path / "w.bin")
    assert config.encoders["image"].weights == str(tmp_path / "image.safetensors")


@pytest.mark.parametrize("weights", ["", "pretrained"])
def test_weights_that_are_no_path_stay_as_they_are(tmp_path: Path, weights: str) -> None:
    content = f'recipe = "see-hear-read"\n[encoders.image]\nweights = "{weights}"\n'
    assert load_config(write_settings(tmp_path, content)).encoders["image"].weights == weights


def test_another_encoder_takes_nothing_over_from_the_recipes() -> None:
    config = config_with("encoders.sound.name=soundnet", "encoders.sound.window_s=3")
    assert (config.encoders["sound"].name, config.encoders["sound"].window_s) == ("soundnet", 3.0)
    with pytest.raises(XmrError, match=r"encoders.sound.n_mels: is of encoder spectrogram, not of soundnet"):
        config_with("encoders.sound.n_mels=32", "encoders.sound.name=soundnet", "encoders.sound.n_mels=32")


def test_the_same_encoder_keeps_what_is_not_set() -> None:
    quick = load_config(None, recipe="quick").encoders["image"]
    changed = config_with("encoders.image.size=48").encoders["image"]
    assert asdict(changed) == asdict(quick) | {"size": 48}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("learning_rate=1", 1.0),
        ("learning_rate=2e-4", 2e-4),
        ("seed=3", 3),
        ("schedule=constant", "constant"),
        ('schedule="constant"', "constant"),
        ('data=["a", "b"]', ("a", "b")),
        ("head.hidden=[8, 4]", (8, 4)),
        ("head.embedding=relu", "relu"),
        ("words.file=a=b.bin", "a=b.bin"),
        ("encoders.image.resize=crop", "crop"),
    ],
)
def test_an_assignment_reaches_its_setting(assignment: str, expected: object) -> None:
    value: Any = config_with(assignment)
    for part in assignment.partition("=")[0].split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epoch=3", "setting epoch is unknown; did you mean epochs?"),
        (
            "losses.ranking.margn=3",
            "setting losses.ranking.margn is unknown; did you mean losses.ranking.margin? known",
        ),
        ("encoders.image.sice=3", "setting encoders.image.sice is unknown; did you mean encoders.image.size?"),
        ("words.zzz=1", "setting words.zzz is unknown; known are file, n_words"),
        ("epochs=ten", 'setting epochs: "ten" found, a whole number expected, as in 20'),
        ("epochs=2.5", "setting epochs: 2.5 found, a whole number expected, as in 20"),
        ("epochs=true", "setting epochs: true found, a whole number expected, as in 20"),
        ("learning_rate=true", "setting learning_rate: true found, a number expected, as in 0.001"),
        ("head.is_absolute=1", "setting head.is_absolute: 1 found, true or false expected, as in false"),
        ("head.hidden=64", "setting head.hidden: 64 found, a list of whole numbers expected, as in [1024]"),
        ("head.hidden=[1.5]", "setting head.hidden: [1.5] found, a list of whole numbers expected, as in [1024]"),
        ("data=a.jsonl", 'setting data: "a.jsonl" found, a list of strings expected, as in ["pairs.jsonl"]'),
        ("schedule=linear", "setting schedule: \"linear\" found, 'cosine' or 'constant' or 'step' expected"),
        ("epochs=0", "setting epochs: 0 found, at least 1 expected"),
        ("batch_size=1", "setting batch_size: 1 found, at least 2 expected"),
        ("learning_rate=nan", "setting learning_rate: nan found, a finite number expected"),
        ("learning_rate=inf", "setting learning_rate: inf found, a finite number expected"),
        ("head.dropout=1", "setting head.dropout: 1 found, less than 1 expected"),
        ("head.hidden=[8, 0]", "setting head.hidden: 0 found, at least 1 expected"),
        ("losses=ranking", "setting losses: 'ranking' found, a table expected"),
        ("losses.ranking=1", "setting losses.ranking: 1 found, a table expected"),
        ("losses.rankings.margin=1", "losses.rankings: unknown; did you mean ranking? losses are ranking, hardest_"),
        ("losses.info_nce.weight=0", "recipe quick: no loss has a weight; losses are ranking"),
        ('losses.info_nce.batches=["image"]', "setting losses.info_nce.batches: 'image' found, modalities expected"),
        ('select_on=["image-smell"]', "setting select_on: 'image-smell' found, modalities expected, as image-text"),
        ("finetune.smell=all", "setting finetune: 'smell' found, encoders are of image, sound, text"),
        ("finetune.speech=all", "setting finetune: 'speech' found, encoders are of image, sound, text"),
        ("encoders.text.units=4", "setting encoders.text.units: is of encoder gru, not of words; take the line out"),
        ("finetune=[1]", "setting finetune: [1] found, a table expected"),
        ('modalities=["image"]', "recipe quick: 1 encoders found, at least two modalities are needed"),
        ('modalities=["image", "speech"]', "setting modalities: 'speech' found, encoders are of image, sound"),
        ("size=tiny", "setting size: 'tiny' found, recipe quick offers full"),
        ("stages.1.epochs=2", "setting stages: {'1': {'epochs': 2}} found, a list of tables expected"),
        ("encoders=image", "setting encoders: 'image' found, a table expected"),
        ("encoders.smell.name=words", "encoders.smell: unknown modality; there are image, sound, speech, text"),
        ("encoders.image=7", "encoders.image.name: 7 found; encoders of image are timm, "),
        ("encoders.image.name=[1]", "encoders.image.name: [1] found; encoders of image are timm, "),
        ("encoders.image.name=resnet", "encoders.image.name: 'resnet' found; encoders of image are timm, "),
        ("encoders.image.name=words", "encoders.image.name: 'words' found; encoders of image are timm, "),
        ("epochs", "--set epochs: key=value expected, as in --set epochs=5"),
        ("=3", "--set =3: key=value expected, as in --set epochs=5"),
        ("recipe=see-hear-read", "--set recipe=see-hear-read: a recipe is chosen by --recipe"),
    ],
)
def test_a_wrong_assignment_is_one_sentence(assignment: str, sentence: str) -> None:
    with pytest.raises(XmrError) as error:
        config_with(assignment)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", ["nothing", "../quick", 5])
def test_an_unknown_recipe_names_those_there_are(recipe: Any) -> None:
    with pytest.raises(XmrError, match=r"recipe .* is unknown; there are .*quick, .*see-hear-read"):
        load_config(None, recipe=recipe)


@pytest.mark.parametrize("content", [b"epochs = \n", b"\xff\xfe\n", b"epochs = 1\nepochs = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "xmr.toml"
    path.write_bytes(content)
    with pytest.raises(XmrError, match=r"xmr.toml: not valid TOML .*; mend the line"):
        load_config(path)


@pytest.mark.parametrize("encoders", [{}, {"image": {"name": "convnet"}}])
def test_fewer_than_two_encoders_are_refused(encoders: dict[str, Any]) -> None:
    with pytest.raises(XmrError, match=f"{len(encoders)} encoders found, at least two modalities are needed"):
        parse_config({"encoders": encoders})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        config_with().epochs = 3  # type: ignore[misc]


def test_an_assignment_that_every_stage_overrides_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--set epochs=...: each of the 3 stages sets its own; write --set stages.1"):
        load_config(None, recipe="dsve", assignments=["epochs=3"])
    one = load_config(None, recipe="dsve", assignments=["epochs=3", "stages=[]"])
    assert [stage.epochs for stage in stage_configs(one)] == [3]


def test_a_settings_file_without_the_recipes_stages_says_so(tmp_path: Path) -> None:
    path = write_settings(tmp_path, explained_config("vsepp", ["stages=[]"]))
    assert load_config(path).stages == ()
    assert "stages = " not in explained_config("quick")


def test_a_stage_takes_back_what_the_others_finetune(tmp_path: Path) -> None:
    content = 'recipe = "quick"\nfinetune = { image = "all" }\n[[stages]]\n[[stages]]\nfinetune = {}\n'
    first, second = stage_configs(load_config(write_settings(tmp_path, content)))
    assert (first.finetune, second.finetune) == ({"image": "all"}, {})


def test_assignments_may_come_in_any_order() -> None:
    assignments = ["size=small", "encoders.text.units=64", "encoders.text.name=bilstm", "encoders.text.max_words=9"]
    first, *others = (load_config(None, recipe="vsepp", assignments=order) for order in permutations(assignments))
    text = first.encoders["text"]
    assert (text.name, text.units, text.max_words) == ("bilstm", 64, 9)
    assert all(other == first for other in others)


def test_stages_set_otherwise_what_they_name_and_keep_the_rest(tmp_path: Path) -> None:
    content = (
        'recipe = "quick"\nepochs = 7\n[[stages]]\n[[stages]]\nepochs = 2\nlearning_rate = 1e-5\n'
        'finetune = { image = "all" }\nlosses = { info_nce = { weight = 0 }, ranking = { margin = 0.5 } }\n'
    )
    config = load_config(write_settings(tmp_path, content), assignments=["stages.2.clip_norm=3"])
    first, second = stage_configs(config)
    assert asdict(first) == asdict(config) | {"stages": ()}
    assert (second.epochs, second.learning_rate, second.clip_norm, second.finetune) == (2, 1e-5, 3.0, {"image": "all"})
    assert (second.losses["info_nce"].weight, second.losses["ranking"].margin) == (0.0, 0.5)
    assert (second.width, second.losses["info_nce"].temperature) == (first.width, 0.1)
    (tmp_path / "dumped.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.toml", assignments=['data=["pairs.jsonl"]']) == config


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ("width = 3", "setting stages.1.width is unknown; a stage has epochs, batch_size"),
        ("epochs = 0", "stage 1: setting epochs: 0 found, at least 1 expected"),
        ("losses = { rank = {} }", "stage 1: losses.rank: unknown; did you mean ranking?"),
    ],
)
def test_a_wrong_stage_is_one_sentence(stage: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(XmrError) as error:
        load_config(write_settings(tmp_path, f'recipe = "quick"\n[[stages]]\n{stage}\n'))
    assert str(error.value).startswith(sentence)


def test_a_variant_and_a_size_change_the_recipe_and_drop_what_a_file_says_of_others(tmp_path: Path) -> None:
    both, ranking = (
        load_config(None, recipe="see-hear-read", assignments=[f"variant={name}"]) for name in ("both", "ranking")
    )
    assert (both.losses["kl_transfer"].weight > 0, ranking.losses["kl_transfer"].weight) == (True, 0.0)
    path = write_settings(tmp_path, explained_config("see-hear-read", ["variant=both", "epochs=7"]))
    assert load_config(path).epochs == 7
    assert load_config(path, assignments=["variant=both"]).epochs == 7
    changed = load_config(path, assignments=["variant=ranking"])
    assert asdict(changed) == asdict(ranking) | {"data": changed.data}


def test_a_settings_file_of_another_size_keeps_the_users_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ['data=["a.jsonl"]', "epochs=7", "encoders.image.weights=image.safetensors", "words.file=words.bin"]
    path = write_settings(tmp_path, explained_config("vsepp", ["size=small", "variant=order0", *own]))
    full, other = (load_config(path, assignments=[wish]) for wish in ("size=full", "variant=vse0"))
    asked = load_config(None, recipe="vsepp", assignments=["size=full", "variant=order0"])
    files = (str(tmp_path / "image.safetensors"), str(tmp_path / "words.bin"))
    assert (full.size, full.variant, full.epochs) == ("full", "order0", asked.epochs)
    assert full.encoders["image"].weights == "pretrained"  # the file is of the small network
    assert (other.size, other.variant, other.encoders["image"].weights, other.words.file) == ("small", "vse0", *files)
    assert full.data == other.data == (str(tmp_path / "a.jsonl"),)
    sentence = "made for another recipe, variant or size; of its settings only data"
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: {sentence} and words.file are used",
        f"{path}: {sentence}, words.file and the weights of encoders are used",
    ]


def test_a_source_may_carry_the_name_of_its_dataset(tmp_path: Path) -> None:
    assert anchored_source("flickr8k:here/there", tmp_path) == f"flickr8k:{tmp_path / 'here/there'}"
    assert anchored_source("cuhk-pedes:/data", tmp_path) == "cuhk-pedes:/data"
    assert anchored_source("a.jsonl", tmp_path) == str(tmp_path / "a.jsonl")


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_tells_what_it_is_for(recipe: str) -> None:
    facts = recipe_facts(recipe)
    assert (facts.name, facts.about != "", facts.losses != ()) == (recipe, True, True)
    for size in facts.sizes:
        for variant in facts.variants or ("",):
            load_config(None, recipe=recipe, assignments=[f"size={size}", f'variant="{variant}"'])
