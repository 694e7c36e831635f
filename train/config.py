"""Reads the settings: from a recipe, then from xmr.toml, then from --set; and writes them."""

import json
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.train.settings import ENCODER_SETTINGS, PRETRAINED, RANDOM, TrainConfig

RECIPES = Path(__file__).parent / "recipes"
Settings = TypeVar("Settings")


def recipe_names() -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_config(path: Path | None, *, recipe: str | None = None, assignments: Sequence[str] = ()) -> TrainConfig:
    """Recipe, then the settings file, then `key=value` assignments; an unknown key or wrong type raises XmrError."""
    table = _anchored(_read_toml(path), path.parent) if path is not None and path.is_file() else {}
    own = table.get("recipe", TrainConfig.recipe)
    name = recipe or own
    if name != own:  # the file's other settings were made for its own recipe
        table = {"data": table["data"]} if "data" in table else {}
    merged = _merged(_read_recipe(name), table) | {"recipe": name}
    for assignment in assignments:
        merged = _merged(merged, _parse_assignment(assignment))
    if merged["recipe"] != name:  # the settings of the other recipe would be missing
        raise XmrError(f"--set recipe={merged['recipe']}: a recipe is chosen by --recipe")
    return parse_config(merged)


def parse_config(table: Mapping[str, Any]) -> TrainConfig:
    """A TrainConfig from nested tables."""
    table = dict(table)
    encoders = {
        modality: _parse_encoder(modality, settings) for modality, settings in _table(table, "encoders").items()
    }
    table.pop("encoders", None)
    config = _parse(TrainConfig, table, "")
    if len(encoders) < 2:
        raise XmrError(f"recipe {config.recipe}: {len(encoders)} encoders found, at least two modalities are needed")
    return replace(config, encoders=encoders)


def dump_config(config: TrainConfig) -> str:
    """The settings as TOML that `load_config` reads back."""
    import tomli_w  # here, so that `xmr init` does without the train extra

    return tomli_w.dumps(_without_tuples(asdict(config)))


def explained_config(recipe: str) -> str:
    """An xmr.toml for a recipe in which every setting stands with its value and its meaning."""
    config = load_config(None, recipe=recipe)
    lines = ["# Settings of xmr train. A line that is taken out falls back to the recipe.", ""]
    lines += _explain(config, skip={"encoders", "head", "loss", "words"})
    for section in ("head", "loss", "words"):
        lines += ["", f"[{section}]", *_explain(getattr(config, section))]
    for modality, settings in config.encoders.items():
        lines += ["", f"[encoders.{modality}]", *_explain(settings)]
    return "\n".join(lines) + "\n"


def _explain(settings: Any, skip: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    for item in fields(settings):
        if item.name not in skip:
            # what these settings hold is written alike in JSON and in TOML
            value = json.dumps(_without_tuples(getattr(settings, item.name)))
            yield f"{item.name} = {value}".ljust(40) + f" # {item.metadata['meaning']}"


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
        table["data"] = [str(base / name) if isinstance(name, str) else name for name in table["data"]]
    anchor(table.get("words"), "file")
    encoders = table.get("encoders")
    for settings in encoders.values() if isinstance(encoders, dict) else ():
        anchor(settings, "weights")
    return table


def _parse_assignment(assignment: str) -> dict[str, Any]:
    """`loss.margin=0.1` as nested tables; a value that is no TOML is a string."""
    key, equals, raw = assignment.partition("=")
    if not equals or not key.strip():
        raise XmrError(f"--set {assignment}: key=value expected, as in --set loss.margin=0.1")
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
        merged[key] = value
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
    if not isinstance(settings, Mapping) or not isinstance(found, str) or found not in ENCODER_SETTINGS:
        raise XmrError(f"{where}.name: {found!r} found; encoders are {', '.join(ENCODER_SETTINGS)}")
    known = ENCODER_SETTINGS[found]
    if MODALITIES[modality].medium != known.medium:
        raise XmrError(f"{where}.name: encoder {found} is not made for {modality}; choose another")
    return _parse(known, settings, f"{where}.")


def _parse(cls: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            advice = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise XmrError(f"setting {where}{key} is unknown; {advice}")
    values = {key: _value(hints[key], known[key], value, f"{where}{key}") for key, value in table.items()}
    return cls(**values)


def _value(hint: Any, item: "Field[Any]", value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise XmrError(f"setting {where}: {value!r} found, a table expected")
        settings: type[Any] = hint
        return _parse(settings, value, f"{where}.")
    if not _fits(hint, value):
        default = item.default if item.default is not MISSING else None
        raise XmrError(f"setting {where}: {value!r} found, {_type_name(hint)} expected, as in {default!r}")
    for number in value if get_origin(hint) is tuple else (value,):
        _check_limits(item, number, where)
    if get_origin(hint) is tuple:
        return tuple(value)
    return float(value) if hint is float else value


def _check_limits(item: "Field[Any]", value: Any, where: str) -> None:
    at_least, below = item.metadata.get("at_least"), item.metadata.get("below")
    if at_least is not None and not value >= at_least:
        raise XmrError(f"setting {where}: {value} found, at least {at_least} expected")
    if below is not None and not value < below:
        raise XmrError(f"setting {where}: {value} found, less than {below} expected")


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
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
        return f"a list of {get_args(hint)[0].__name__}"
    return str(getattr(hint, "__name__", hint))


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise XmrError(f"setting {key}: {value!r} found, a table expected")
    return value


def _without_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_tuples(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
