"""Questions one a line: a sentence, or a JSON object with parts and with what is shown of the answer."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, BinaryIO

from xmr.engine.answer import ALIKE, Wanted
from xmr.engine.errors import UsageError
from xmr.engine.question import LIKE, NAMES, Part, parts_of
from xmr.engine.question.indexed import is_text

WEIGHT = "weight"
MAX_LINE = 1_000_000  # bytes
MAX_NUMBER = 1e30  # a whole number in JSON may be too large for a float


@dataclass(frozen=True)
class Question:
    """What is asked, and what is shown of the answer."""

    parts: list[Part]
    wanted: Wanted


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, with their number from 1; of an endless one the first MAX_LINE + 1 bytes."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE + 1)
        if line.strip():
            yield number, line


def question_of(line: bytes, wanted: Wanted) -> Question:
    """The question on a line; what it does not say is as in `wanted`. UsageError for what is none."""
    if len(line) > MAX_LINE:
        raise UsageError(f"a line of more than {MAX_LINE:,} bytes found; ask with less")
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {line[error.start]:#04x} found, UTF-8 expected; write the line in UTF-8") from None
    if not text.startswith("{"):
        return Question(parts_of({"text": [text]}), wanted)
    record = _record(text)
    given = {name: _contents(name, record[name]) for name in NAMES if name in record}
    return Question(parts_of(given, _weights(record.get(WEIGHT, {}))), _wanted(record, wanted))


def _record(text: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else "too deep, or a number too long"
        raise UsageError(f"no JSON object found ({said}); write a sentence, or an object on one line") from None
    for name in record:
        if name not in (known := (*NAMES, WEIGHT, *EXPECTED)):
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}; " if near else ""
            raise UsageError(f"unknown key {name!r} found; {meant}there are {', '.join(known)}")
    return {name: value for name, value in record.items() if value is not None}


def _contents(name: str, value: Any) -> list[str]:
    """One or several; an indexed item may be a number."""
    contents = value if isinstance(value, list) else [value]
    if name.endswith(LIKE):
        contents = [str(content) if is_whole(content) else content for content in contents]
    if wrong := [content for content in contents if not (isinstance(content, str) and is_text(content))]:
        raise UsageError(f"{name} {json.dumps(wrong[0])[:60]} found; give a string, or a list of strings")
    return contents


def _weights(value: object) -> Mapping[str, list[float]]:
    if not isinstance(value, dict):
        raise UsageError(f'weight {json.dumps(value)[:60]} found; write it as {{"text": [1, 0.5]}}')
    lists = {name: shares if isinstance(shares, list) else [shares] for name, shares in value.items()}
    for name, shares in lists.items():
        if not all(map(is_number, shares)):
            raise UsageError(f"weight of {name} {json.dumps(shares)[:60]} found; give a number, or one for each")
    return {name.replace("-", "_"): [float(share) for share in shares] for name, shares in lists.items()}


def _wanted(record: Mapping[str, Any], wanted: Wanted) -> Wanted:
    """With what the record says in place of what was wanted of all."""
    said: dict[str, Any] = {name: record[name] for name in EXPECTED if name in record}
    if isinstance(said.get("to"), str):
        said["to"] = [name.strip() for name in said["to"].split(",")]
    if isinstance(said.get("fold"), bool):
        said["fold"] = ALIKE if said["fold"] else None
    for name, value in said.items():
        what, is_right = EXPECTED[name]
        if not is_right(value):
            raise UsageError(f"{name} {json.dumps(value)[:60]} found; give {what}")
    shown: dict[str, Any] = {name: tuple(value) if name == "to" else value for name, value in said.items()}
    return replace(wanted, **shown)


def is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def is_string(value: object) -> bool:
    return isinstance(value, str) and is_text(value)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER < value < MAX_NUMBER


def is_cosine(value: object) -> bool:
    return value is None or is_number(value)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


EXPECTED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "to": ("a list of modalities", is_names),
    "k": ("a whole number", is_whole),
    "offset": ("a whole number", is_whole),
    "where": ("a string", is_string),
    "min_score": ("a number", is_number),
    "group": ("a string", is_string),
    "fold": ("a cosine, true or false", is_cosine),
}
