"""Reads the settings: from a recipe, then from xmr.toml, then from --set; and writes them."""

import json
import math
import os
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xmr.engine import terminal
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.media import MODALITIES
from xmr.train.datasets import split_source
from xmr.train.settings import (
    ENCODER_SETTINGS,
    LOSS_SETTINGS,
    PRETRAINED,
    RANDOM,
    STAGE_KEYS,
    WEIGHT_FILES,
    TrainConfig,
)

RECIPES = Path(__file__).parent / "recipes"
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
CHOICES = {"variant": "variants", "size": "sizes"}  # setting -> the recipe's table of what it may be
WHOLE = ("finetune", "rates")  # tables that a stage sets as a whole
STAGE_FACTS = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule")
Settings = TypeVar("Settings")


def recipe_names() -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_config(
    path: Path | None,
    *,
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    note: Callable[[str], None] = terminal.note,
) -> TrainConfig:
    """Recipe, then the settings file, then `key=value` assignments; an unknown key or wrong type raises XmrError.

    Of a file that was made for another recipe, variant or size only the sources and the weights are used.
    """
    table = _anchored(_read_toml(path), path.parent) if path is not None and path.is_file() else {}
    assigned: dict[str, Any] = {}
    for assignment in assignments:
        assigned = _added(assigned, _parse_assignment(assignment))
    own = table.get("recipe", TrainConfig.recipe)
    name = recipe or own
    if assigned.get("recipe", name) != name:  # the settings of the other recipe would be missing
        raise XmrError(f"--set recipe={assigned['recipe']}: a recipe is chosen by --recipe")
    is_other = name != own or any(key in table and assigned.get(key, table[key]) != table[key] for key in CHOICES)
    chosen = _chosen(name, assigned if name != own else _merged(table, assigned))
    if is_other:
        kept = _files_of(table, chosen)
        if table.keys() - kept.keys() - {"recipe"}:
            note(f"{path}: made for another recipe, variant or size; of its settings only {_listed(kept)} are used")
        table = kept
    merged = _merged(_merged(chosen, table), assigned)
    _check_assigned(assigned, merged.get("stages"))
    return parse_config(merged | {"recipe": name})


def parse_config(table: Mapping[str, Any]) -> TrainConfig:
    """A TrainConfig from nested tables."""
    table = dict(table)
    encoders = {
        modality: _parse_encoder(modality, settings) for modality, settings in _table(table, "encoders").items()
    }
    losses = {name: _parse_loss(name, settings) for name, settings in _table(table, "losses").items()}
    stages = _parse_stages(table)
    plain = {key: value for key, value in table.items() if key not in ("encoders", "losses", "stages")}
    config = replace(_parse(TrainConfig, plain, ""), encoders=encoders, losses=losses, stages=stages)
    config = _of_modalities(config)
    _check_names(config)
    stage_configs(config)
    return config


def stage_configs(config: TrainConfig) -> list[TrainConfig]:
    """The settings of each stage of the training, one after the other."""
    if not config.stages:
        return [config]
    below = _without_tuples(asdict(replace(config, stages=())))
    tables = [_merged(below, stage) | {key: stage[key] for key in WHOLE if key in stage} for stage in config.stages]
    return [_parse_stage(number, table) for number, table in enumerate(tables, start=1)]


def _parse_stage(number: int, table: Mapping[str, Any]) -> TrainConfig:
    try:
        return parse_config(table)
    except XmrError as error:
        raise XmrError(f"stage {number}: {error}") from None


def dump_config(config: TrainConfig) -> str:
    """The settings as TOML that `load_config` reads back."""
    import tomli_w  # here, so that `xmr init` does without the train extra

    return tomli_w.dumps(_without_tuples(asdict(config)))


def explained_config(recipe: str, assignments: Sequence[str] = ()) -> str:
    """An xmr.toml for a recipe in which every setting stands with its value and its meaning."""
    config = load_config(None, recipe=recipe, assignments=assignments)
    lines = ["# Settings of xmr train. A line that is taken out falls back to the recipe.", ""]
    lines += _explain(config, skip={"encoders", "head", "losses", "words", "stages"})
    if not config.stages and _read_recipe(recipe).get("stages"):
        lines += [_line("stages", [], "those of the recipe are taken out")]
    for section in ("head", "words"):
        lines += ["", f"[{section}]", *_explain(getattr(config, section))]
    for section, parts in (("losses", config.losses), ("encoders", config.encoders)):
        for name, settings in parts.items():
            lines += ["", f"[{section}.{name}]", *_explain(settings)]
    meanings = {item.name: item.metadata["meaning"] for item in fields(config) if item.metadata}
    for stage in config.stages:
        lines += ["", "[[stages]]", *(_line(key, value, meanings.get(key, "")) for key, value in stage.items())]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class RecipeFacts:
    """What one wants to know of a recipe before choosing it."""

    name: str
    about: str
    modalities: tuple[str, ...]
    losses: tuple[str, ...]
    variants: tuple[str, ...]
    sizes: tuple[str, ...]
    encoders: dict[str, str]  # modality -> name of the encoder, and of its network
    stages: list[dict[str, Any]]  # of each what STAGE_FACTS names


def recipe_facts(name: str, assignments: Sequence[str] = ()) -> RecipeFacts:
    """Of one recipe, in the size and the variant that are assigned; XmrError if there is none of the name."""
    table, config = _read_recipe(name), load_config(None, recipe=name, assignments=assignments)
    variants, sizes = (tuple(_table(table, key)) for key in CHOICES.values())
    stages = [{key: getattr(stage, key) for key in STAGE_FACTS} | _parts_of(stage) for stage in stage_configs(config)]
    return RecipeFacts(
        name,
        config.about,
        modalities=tuple(config.encoders),
        losses=tuple(dict.fromkeys(loss for stage in stages for loss in stage["losses"])),
        variants=variants,
        sizes=("full", *sizes),
        encoders={
            modality: " ".join([settings.name, *([settings.model] if hasattr(settings, "model") else [])])
            for modality, settings in config.encoders.items()
        },
        stages=stages,
    )


def _parts_of(stage: TrainConfig) -> dict[str, Any]:
    """The losses that a stage uses, and what of the encoders it finetunes."""
    used = [name for name, settings in stage.losses.items() if settings.weight]
    return {"losses": used, "finetune": dict(stage.finetune)}


def _explain(settings: Any, skip: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    for item in fields(settings):
        if item.name not in skip:
            yield _line(item.name, getattr(settings, item.name), item.metadata["meaning"])


def _line(key: str, value: object, meaning: str) -> str:
    return f"{key} = {_toml(value)}".ljust(40) + f" # {meaning}"


def _toml(value: object) -> str:
    """A value on one line of TOML; what these settings hold is written alike in JSON but for tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _chosen(name: str, wishes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe in the variant and the size that are wished for, else in its own."""
    recipe = _read_recipe(name)
    offers = {key: _table(recipe, plural) for key, plural in CHOICES.items()}
    chosen = {key: value for key, value in recipe.items() if key not in CHOICES.values()}
    for key, offered in offers.items():
        wish = wishes.get(key, recipe.get(key, getattr(TrainConfig, key)))
        if wish in offered:
            chosen = _merged(chosen, offered[wish])
        elif wish != getattr(TrainConfig, key):
            known = ", ".join([getattr(TrainConfig, key), *offered]).strip(", ")
            raise XmrError(f"setting {key}: {wish!r} found, recipe {name} offers {known or 'none'}")
        chosen[key] = wish
    # what a variant has otherwise in this size
    of_size = _table(offers["size"].get(chosen["size"], {}), "variants")
    chosen = _merged(chosen, _table(of_size, str(chosen["variant"])))
    return {key: value for key, value in chosen.items() if key != "variants"}


def _check_assigned(assigned: Mapping[str, Any], stages: object) -> None:
    """UsageError for an assignment that every stage overrides."""
    tables = [stage for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list | tuple) else []
    for key, value in assigned.items():
        if tables and not isinstance(value, Mapping) and all(key in stage for stage in tables):
            advice = f"--set stages.1.{key}=..., or --set 'stages=[]' for one stage"
            raise UsageError(f"--set {key}=...: each of the {len(tables)} stages sets its own; write {advice}")


def _files_of(table: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a settings file tells of the user's own files: the sources, and the weights of encoders chosen again."""
    kept: dict[str, Any] = {"data": table["data"]} if "data" in table else {}
    if file := _table(table, "words").get("file"):
        kept["words"] = {"file": file}
    of_encoders = {}
    for modality, settings in _table(chosen, "encoders").items():
        before, now = _table(table, "encoders").get(modality), _parse_encoder(modality, settings)
        if isinstance(before, Mapping) and all(
            before.get(key, getattr(now, key, None)) == getattr(now, key, None) for key in ("name", "model")
        ):
            of_encoders[modality] = {key: before[key] for key in WEIGHT_FILES if key in before}
    if any(of_encoders.values()):
        kept["encoders"] = of_encoders
    return kept


def _listed(kept: Mapping[str, Any]) -> str:
    names = {"data": "data", "words": "words.file", "encoders": "the weights of encoders"}
    return " and ".join(", ".join(names[key] for key in names if key in kept).rsplit(", ", 1)) or "none"


def _read_recipe(name: object) -> dict[str, Any]:
    path = RECIPES / f"{name}.toml"
    if name not in recipe_names():
        raise XmrError(f"recipe {name!r} is unknown; there are {', '.join(recipe_names())}")
    return _read_toml(path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise XmrError(f"{path}: not valid TOML ({error}); mend the line") from None


def _anchored(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """The table with its relative paths made absolute: in a file they are meant from the file's folder."""

    def anchor(settings: object, key: str) -> None:
        if (
            isinstance(settings, dict)
            and isinstance(settings.get(key), str)
            and settings[key] not in ("", PRETRAINED, RANDOM)
        ):
            settings[key] = str(base / settings[key])

    if isinstance(table.get("data"), list):
        table["data"] = [
            anchored_source(source, base) if isinstance(source, str) else source for source in table["data"]
        ]
    anchor(table.get("words"), "file")
    encoders = table.get("encoders")
    for settings in encoders.values() if isinstance(encoders, dict) else ():
        for key in WEIGHT_FILES:
            anchor(settings, key)
    return table


def anchored_source(source: str, base: Path) -> str:
    """A source of data as seen from a folder; in front of its path a dataset's name may stand: cub:/data/CUB."""
    name, path = split_source(source)
    anchored = os.path.normpath(base / path)
    return f"{name}:{anchored}" if name else anchored


def _parse_assignment(assignment: str) -> dict[str, Any]:
    """`loss.margin=0.1` as nested tables; a value that is no TOML is a string."""
    key, equals, raw = assignment.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {assignment}: key=value expected, as in --set epochs=5")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins; tables are merged, but an encoder of another name takes the place of the one below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = _merged_encoders(old, value) if key == "encoders" else _merged(old, value)
        elif isinstance(value, Mapping) and isinstance(old, list) and key == "stages":
            value = _merged_stages(old, value)
        merged[key] = value
    return merged


def _added(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged whatever they name, so that assignments may come in any order."""
    both = [key for key in more if isinstance(more[key], Mapping) and isinstance(before.get(key), Mapping)]
    return {**before, **more, **{key: _added(before[key], more[key]) for key in both}}


def _merged_stages(below: Sequence[Any], above: Mapping[str, Any]) -> list[Any]:
    """`stages.1.epochs` is of the first stage."""
    merged = list(below)
    for number, settings in above.items():
        if not number.isdecimal() or not 1 <= int(number) <= len(merged):
            raise XmrError(f"setting stages.{number}: unknown; the recipe has stages 1 to {len(merged)}")
        merged[int(number) - 1] = _merged(merged[int(number) - 1], settings)
    return merged


def _merged_encoders(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for modality, settings in above.items():
        old = below.get(modality)
        if isinstance(settings, Mapping) and isinstance(old, Mapping):
            is_same = settings.get("name", old.get("name")) == old.get("name")
            settings = _merged(old, settings) if is_same else settings
        merged[modality] = settings
    return merged


def _parse_encoder(modality: str, settings: object) -> Any:
    where = f"encoders.{modality}"
    if modality not in MODALITIES:
        raise XmrError(f"{where}: unknown modality; there are {', '.join(MODALITIES)}")
    found = settings.get("name") if isinstance(settings, Mapping) else settings
    offered = {name: of for name, of in ENCODER_SETTINGS.items() if of.medium == MODALITIES[modality].medium}
    if not isinstance(settings, Mapping) or not isinstance(found, str) or found not in offered:
        raise XmrError(f"{where}.name: {found!r} found; encoders of {modality} are {', '.join(offered)}")
    own = {item.name for item in fields(offered[found])}
    for name, of in offered.items():
        for key in sorted((settings.keys() - own) & {item.name for item in fields(of)}):
            raise XmrError(f"setting {where}.{key}: is of encoder {name}, not of {found}; take the line out")
    return _parse(offered[found], settings, f"{where}.")


def _parse_loss(name: str, settings: object) -> Any:
    if name not in LOSS_SETTINGS:
        near = get_close_matches(name, LOSS_SETTINGS, n=1)
        advice = f"did you mean {near[0]}? " if near else ""
        raise XmrError(f"losses.{name}: unknown; {advice}losses are {', '.join(LOSS_SETTINGS)}")
    if not isinstance(settings, Mapping):
        raise XmrError(f"setting losses.{name}: {settings!r} found, a table expected, as in losses.{name}.weight=1")
    return _parse(LOSS_SETTINGS[name], settings, f"losses.{name}.")


def _parse_stages(table: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    stages = table.get("stages", ())
    if not isinstance(stages, list | tuple) or not all(isinstance(stage, Mapping) for stage in stages):
        raise XmrError(f"setting stages: {stages!r} found, a list of tables expected")
    for number, stage in enumerate(stages, start=1):
        if unknown := sorted(stage.keys() - set(STAGE_KEYS)):
            raise XmrError(f"setting stages.{number}.{unknown[0]} is unknown; a stage has {', '.join(STAGE_KEYS)}")
    return tuple(dict(stage) for stage in stages)


def _of_modalities(config: TrainConfig) -> TrainConfig:
    """The settings with the encoders of the modalities asked for, two at least."""
    if unknown := [modality for modality in config.modalities if modality not in config.encoders]:
        raise XmrError(f"setting modalities: {unknown[0]!r} found, encoders are of {', '.join(config.encoders)}")
    kept = config.modalities or tuple(config.encoders)
    encoders = {modality: settings for modality, settings in config.encoders.items() if modality in kept}
    if len(encoders) < 2:
        raise XmrError(f"recipe {config.recipe}: {len(encoders)} encoders found, at least two modalities are needed")
    kinds = tuple(kind for kind in config.batches if not config.modalities or set(kind.split("-")) <= set(kept))
    return replace(config, encoders=encoders, batches=kinds)


def _check_names(config: TrainConfig) -> None:
    """Kinds of batches and modalities that are named somewhere must have encoders."""
    kinds = {"batches": config.batches, "select_on": config.select_on}
    kinds |= {f"losses.{name}.batches": settings.batches for name, settings in config.losses.items()}
    for where, names in kinds.items():
        for name in names:
            parts = name.split("-")
            if len(set(parts)) < 2 or not set(parts) <= set(MODALITIES):
                raise XmrError(f"setting {where}: {name!r} found, modalities expected, as image-text")
    for where, names in (("finetune", (*config.finetune,)), ("head.unnormalized", config.head.unnormalized)):
        for modality in names:
            if modality not in (MODALITIES if config.modalities else config.encoders):
                raise XmrError(f"setting {where}: {modality!r} found, encoders are of {', '.join(config.encoders)}")
    if not config.stages and not any(settings.weight for settings in config.losses.values()):
        raise XmrError(f"recipe {config.recipe}: no loss has a weight; losses are {', '.join(LOSS_SETTINGS)}")


def _parse(cls: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            advice = f"did you mean {where}{near[0]}? " if near else ""
            raise XmrError(f"setting {where}{key} is unknown; {advice}known are {', '.join(known)}")
    values = {key: _value(hints[key], known[key], value, f"{where}{key}") for key, value in table.items()}
    return cls(**values)


def _value(hint: Any, item: "Field[Any]", value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise XmrError(f"setting {where}: {value!r} found, a table expected")
        settings: type[Any] = hint
        return _parse(settings, value, f"{where}.")
    if not _fits(hint, value):
        example = f", as in {_toml(item.default)}" if item.default not in (MISSING, ()) else ""
        raise XmrError(f"setting {where}: {_toml(value)} found, {_type_name(hint)} expected{example}")
    if get_origin(hint) is dict:
        return dict(value)
    for number in value if get_origin(hint) is tuple else (value,):
        _check_limits(item, number, where)
    if get_origin(hint) is tuple:
        return tuple(value)
    return float(value) if hint is float else value


def _check_limits(item: "Field[Any]", value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise XmrError(f"setting {where}: {value} found, a finite number expected")
    at_least, below = item.metadata.get("at_least"), item.metadata.get("below")
    if at_least is not None and not value >= at_least:
        raise XmrError(f"setting {where}: {value} found, at least {at_least} expected")
    if below is not None and not value < below:
        raise XmrError(f"setting {where}: {value} found, less than {below} expected")


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is dict:
        of = get_args(hint)[1]
        return isinstance(value, Mapping) and all(_fits(of, part) for part in value.values())
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(get_args(hint)[0], part) for part in value)
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {TYPE_NAMES[get_args(hint)[0]].removeprefix('a ')}s"
    if get_origin(hint) is dict:
        return "a table"
    return TYPE_NAMES[hint]


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise XmrError(f"setting {key}: {value!r} found, a table expected")
    return value


def _without_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_tuples(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
