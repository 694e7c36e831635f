"""What a request's body holds: JSON or a form, held against a shape; and a sentence of what is wrong with it.

What is no form is read as JSON, whatever its Content-Type: not all clients set one.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from xmr.engine.question import LIKE, MINUS, NAMES
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.uploads import Upload, of_file

if TYPE_CHECKING:
    from starlette.requests import Request

FORM = "multipart/form-data"
MAX_FIELDS = 64  # of a form
MAX_FIELD_BYTES = 4 * 1024 * 1024  # that is no file
MAX_VALUES = 100_000  # in JSON, which take the reader some tens of milliseconds
MAX_SHOWN = 40  # characters of what was sent
WORDS = frozenset({"text", "minus_text", "where"})  # fields of a form that are taken as they are written
OTHERWISE = {"limit": "k", "top_k": "k", "n": "k", "query": "text", "q": "text", "modality": "to"}
OTHERWISE |= {"item": "like", "id": "like"}

Files = Mapping[str, Sequence[Upload]]  # by the names of parts
Shape = TypeVar("Shape", bound=BaseModel)


async def question_in(request: "Request", shape: type[Shape]) -> tuple[Shape, Files]:
    """What a question is made of, from JSON or a form with files."""
    if not is_form(request):
        return await json_in(request, shape), {}
    form = await form_in(request)
    try:
        given, files = await _fields(form)
    finally:
        await form.close()
    return shaped(given, shape), files


async def json_in(request: "Request", shape: type[Shape]) -> Shape:
    return shaped(json_of(await request.body()), shape)


async def form_in(request: "Request") -> FormData:
    """Open, with the files that came; Refusal for what is no form, or one of too much."""
    try:
        return await request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except Exception as error:  # of starlette and of the parser, each with its own
        if isinstance(error, Refusal | OSError):
            raise
        said = f"the form cannot be read; send {FORM}, up to {MAX_FIELDS} fields"
        raise Refusal(422, "bad_form", said) from None


async def file_in(request: "Request") -> tuple[bytes, str, str | None]:
    """Content, name and type of the one file of a form, in its field `file`."""
    form = await form_in(request) if is_form(request) else FormData()
    try:
        sent = form.multi_items()
        file = form.get("file")
        if len(sent) != 1 or not isinstance(file, UploadFile):
            said = f"no form of one file found; send {FORM} with a file in its field `file`, and nothing else"
            raise Refusal(422, "bad_form", said)
        content = await file.read()
        if not content:
            raise Refusal(422, "bad_data", "an empty file found; send one with something in it")
        return content, file.filename or "", file.content_type
    finally:
        await form.close()


def is_form(request: "Request") -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def json_of(body: bytes) -> object:
    if body.count(b",") > MAX_VALUES:
        raise Refusal(422, "too_many", f"more than {MAX_VALUES:,} values found in the body; send less at once")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(422, "bad_json", 'the body is no JSON; write it as {"text": "a dog"}, in UTF-8') from None


def shaped(given: object, shape: type[Shape]) -> Shape:
    """Refusal (422) for another shape."""
    if not isinstance(given, dict):
        raise _misshapen("the body", given, 'an object, as {"text": "a dog"}')
    described = {name: field.description or "" for name, field in shape.model_fields.items()}
    if shape.model_config.get("extra") == "forbid":  # before anything is made of a thousand unknown fields
        for name in given:
            if name not in described:
                raise _unknown(name, described)
    weights = given.get("weights")
    if isinstance(weights, dict) and len(weights) > len(NAMES):
        raise _misshapen("weights", weights, described.get("weights", ""))
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    raise misshapen(problems, described)


def misshapen(problems: Iterable[Any], described: Mapping[str, str]) -> Refusal:
    """One sentence of the field that is wrong: what was found in it, and what to give, which its description says."""
    first, *others = sorted(problems, key=lambda problem: problem["type"] == "missing")
    name = str(first["loc"][0])
    if name not in described:
        return _unknown(name, described)
    # of a field that may be of several shapes, each has its problem: the innermost is nearest to what was meant
    ours = [problem for problem in (first, *others) if problem["loc"][0] == name]
    steps, innermost = max(((_steps(one["loc"], described), one) for one in ours), key=lambda pair: len(pair[0]))
    if innermost["type"] == "missing" and len(innermost["loc"]) == 1:
        return Refusal(422, "bad_shape", f"{name} is missing; give {described[name]}")
    if innermost["type"] == "missing":  # in what was given
        steps.pop()
    return _misshapen(".".join(steps), innermost["input"], described[name])


def shown(value: object) -> str:
    """What was found, in a few words."""
    if isinstance(value, str):
        return repr(value) if len(value) <= MAX_SHOWN else f"a text of {len(value):,} characters"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return "an object" if isinstance(value, dict) else json.dumps(value, default=str)[:MAX_SHOWN]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What may have been meant. No name here is long, and to compare takes as long as what is compared."""
    return next(iter(difflib.get_close_matches(name, known, 1)), None) if len(name) <= MAX_SHOWN else None


def _misshapen(name: str, value: object, expected: str) -> Refusal:
    return Refusal(422, "bad_shape", f"{name}: {shown(value)} found; give {expected}")


def _unknown(name: str, described: Iterable[str]) -> Refusal:
    known = sorted(described)
    near = OTHERWISE[name] if OTHERWISE.get(name) in known else nearest(name, known)
    meant = f"did you mean {near}; " if near else ""
    return Refusal(422, "bad_shape", f"no field {shown(name)} here; {meant}there are {', '.join(known)}")


def _steps(loc: Sequence[str | int], described: Mapping[str, str]) -> list[str]:
    """The field, and the places in it; without the names that pydantic gives the shapes that it tried."""
    return [str(step) for step in loc if isinstance(step, int) or step in described or step in ("item", "vector")]


async def _fields(form: FormData) -> tuple[dict[str, Any], dict[str, list[Upload]]]:
    """Fields as JSON would hold them, and files by the names of parts."""
    given: dict[str, list[Any]] = {}
    files: dict[str, list[Upload]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            given.setdefault(name, []).append(_field(name, value))
            continue
        kind = name.removeprefix(MINUS)
        if name not in NAMES or kind in ("text", LIKE):
            said = f"a file found in the field {shown(name)}; name it image, sound, speech or video"
            raise Refusal(422, "bad_form", said)
        try:
            upload = of_file(kind, await value.read(), value.filename or "", value.content_type)
        except Refusal as refusal:
            raise refusal.of(name) from None
        files.setdefault(name, []).append(upload)
    return {name: _flat(values) for name, values in given.items()}, files


def _field(name: str, value: str) -> Any:
    """Numbers, lists and objects are written as JSON; words are not."""
    if name in WORDS and not (name != "where" and value.startswith("[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _flat(values: list[Any]) -> Any:
    """A field that is there once stands for itself."""
    if len(values) == 1:
        return values[0]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]
