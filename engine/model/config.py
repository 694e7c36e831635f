"""config.json of an exported model: read, and refused where it does not say what is asked of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from xmr.engine.checksums import check_covered, check_there
from xmr.engine.errors import XmrError

FORMAT = 2
CONFIG_NAME = "config.json"
FLOAT32 = "float32"  # the precision that is always there

Config = dict[str, Any]
Check = Callable[[Any], bool]


def read_config(folder: Path) -> Config:
    """config.json of an exported model; XmrError where it is missing, damaged, or of another format."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise XmrError(f"{folder}: no {CONFIG_NAME} in it, so no exported model; make one with `xmr export`")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise XmrError(f"{path}: not valid JSON ({error}); export the model again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        writer = f"xmr {config.get('xmr_version', 'of unknown version')}" if isinstance(config, dict) else "not xmr"
        raise XmrError(f"{path}: format {found!r}, written by {writer}; this version reads format {FORMAT}")
    if missing := WHOLE.keys() - config.keys():
        raise XmrError(f"{path}: {', '.join(sorted(missing))} missing; export the model again")
    if damaged := _damaged(config):
        raise XmrError(f"{path}: the part of {damaged} is damaged; export the model again")
    return config


def fingerprint(config: Config) -> str:
    """Of an exported model's config: 16 hex digits, by its float32 networks, its vocabulary and preprocessing.

    Other precisions embed alike, so an index made in one is searched in another. Maps embed nothing.
    """
    modalities = {
        modality: {key: value for key, value in part.items() if key not in ("maps", "profile", "served")}
        for modality, part in config["modalities"].items()
    }
    digests = {name: config["sha256"].get(name) for name in _embedding_files(config)}
    identity = {"dim": config["dim"], "modalities": modalities, "head": config["head"], "sha256": digests}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def check_files(folder: Path, config: Config) -> None:
    """Every file must be there, and in the folder; what is in it is checked when it is opened."""
    for name in [*_embedding_files(config), *_other_files(config)]:
        check_covered(folder, name, config["sha256"])
    for name in config["sha256"]:
        check_there(folder, name)


def unfit(kind: type[Any], settings: dict[str, Any]) -> list[str]:
    """The names among settings that a dataclass has no field of, or one of another type."""
    hints, known = get_type_hints(kind), {field.name for field in fields(kind)}
    return [name for name, value in settings.items() if name not in known or not _is_of(hints[name], value)]


def _is_of(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (get_origin(hint) or hint)


def _damaged(config: Config) -> str | None:
    """The first part that does not say what it has to."""
    for name, is_right in WHOLE.items():
        if not is_right(config[name]):
            return name
    if not _are_metrics(config.get("metrics")):
        return "metrics"
    parts: dict[str, dict[str, Any]] = config["modalities"]
    return next((name for name, part in parts.items() if not _is_modality(part)), None)


def _is_modality(part: Any) -> bool:
    if not MODALITY(part) or FLOAT32 not in part["served"]:
        return False
    if not _is_text(part["preprocessing"].get("vocabulary", "")):
        return False
    if "maps" not in part:
        return True
    return MAPS(part["maps"]) and (part.get("medium") != "audio" or STEPS(part["maps"]))


def _is_text(told: Any) -> bool:
    return isinstance(told, str)


def _is_number(told: Any) -> bool:
    return type(told) in (int, float)


def _is_count(told: Any) -> bool:
    return type(told) is int and told > 0


def _are_texts(told: Any) -> bool:
    return isinstance(told, list) and all(map(_is_text, told))


def _are_metrics(told: Any) -> bool:
    """None, or records of val rows."""
    if told is None:
        return True
    return isinstance(told, dict) and isinstance(told.get("val", []), list) and all(map(_with(), told.get("val", [])))


def _of_each(is_right: Check) -> Check:
    """A table, and what is right of each of its values."""
    return lambda told: isinstance(told, dict) and all(map(is_right, told.values()))


def _with(**asked: Check) -> Check:
    """A table that has these keys, and what is right of the value of each."""
    return lambda told: isinstance(told, dict) and all(key in told and ok(told[key]) for key, ok in asked.items())


MODALITY = _with(
    file=_is_text,
    input=_with(name=_is_text),
    preprocessing=_with(),
    served=_of_each(_with(file=_is_text, runtimes=_are_texts)),
)
MAPS = _with(file=_is_text, output=_is_text, gives=_is_text)
STEPS = _with(first_s=_is_number, step_s=_is_number)  # of the maps of a sound: when they are
WHOLE: dict[str, Check] = {
    "name": _is_text,
    "dim": _is_count,
    "modalities": lambda told: isinstance(told, dict) and bool(told),
    "head": _with(file=_is_text),
    "sha256": _of_each(_is_text),
}


def _embedding_files(config: Config) -> list[str]:
    """What makes the embeddings what they are: float32 networks and vocabularies."""
    parts = config["modalities"].values()
    networks = [name for part in parts for name in (part["file"], part["served"][FLOAT32]["file"])]
    vocabularies = [part["preprocessing"]["vocabulary"] for part in parts if "vocabulary" in part["preprocessing"]]
    return [config["head"]["file"], *networks, *vocabularies]


def _other_files(config: Config) -> list[str]:
    """The networks of every precision, and those that give maps."""
    parts = config["modalities"].values()
    served = [way["file"] for part in parts for way in part["served"].values()]
    return [*served, *(part["maps"]["file"] for part in parts if "maps" in part)]
