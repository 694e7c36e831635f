"""Commands that ask: an index what is in it, and one file where in it something is."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmr.engine import terminal, workspace
from xmr.engine.cli.options import (
    DONE_WITH_SKIPPED,
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    RuntimeOption,
    modalities_in,
    open_model,
    tell_how,
)
from xmr.engine.errors import UsageError, XmrError

if TYPE_CHECKING:
    from xmr.engine.answer import Answer, Wanted
    from xmr.engine.duplicates import Group
    from xmr.engine.index import Index
    from xmr.engine.question import Asker, Part

HIT_KEYS = ("rank", "score", "modality", "path", "start_s", "end_s", "text", "id")
FROM_STDIN = "-"

FilesOption = list[Path] | None
ToOption = Annotated[str | None, typer.Option(help="Modalities to search, as image,sound; default all.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="Hits to show.")]
OffsetOption = Annotated[int, typer.Option(help="Leave out so many of the best hits: the next page.")]
WhereOption = Annotated[
    str | None,
    typer.Option(metavar="SQL", help="Only items of which this holds, as \"size < 1e6 AND label = 'dog'\"."),
]
GroupOption = Annotated[str | None, typer.Option(metavar="file", help="Show only the best hit of each file.")]
FoldOption = Annotated[
    float | None,
    typer.Option(metavar="[COSINE]", help="Leave out near duplicates of a better hit, and count them; 0.98 by itself."),
]


def query(
    source: Annotated[
        str | None, typer.Argument(metavar="[-]", help="Questions from stdin: a sentence or a JSON object a line.")
    ] = None,
    image: Annotated[FilesOption, typer.Option(help="Ask with an image file.")] = None,
    sound: Annotated[FilesOption, typer.Option(help="Ask with a sound file.")] = None,
    speech: Annotated[FilesOption, typer.Option(help="Ask with a recording of spoken words.")] = None,
    video: Annotated[FilesOption, typer.Option(help="Ask with what is seen in a video.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Ask with a sentence.")] = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="PATH|ID", help="Ask with an indexed file, PATH:LINE, or an item.")
    ] = None,
    minus_image: Annotated[FilesOption, typer.Option(help="Away from an image file; so the others.")] = None,
    minus_sound: Annotated[FilesOption, typer.Option()] = None,
    minus_speech: Annotated[FilesOption, typer.Option()] = None,
    minus_video: Annotated[FilesOption, typer.Option()] = None,
    minus_text: Annotated[list[str] | None, typer.Option()] = None,
    minus_like: Annotated[list[str] | None, typer.Option(metavar="PATH|ID")] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=W[,W]", help="Weights of the parts, in their order, as text=2,0.5; default 1."),
    ] = None,
    to: ToOption = None,
    k: CountOption = 10,
    offset: OffsetOption = 0,
    where: WhereOption = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits of a smaller cosine.")] = None,
    group: GroupOption = None,
    fold: FoldOption = None,
    model: ModelOption = None,
    index: IndexOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Rank an index against images, sounds, videos and sentences: one, or several added up and taken away.

    Example: xmr query --image cat.jpg --to sound
    """
    from xmr.engine.answer import answer
    from xmr.engine.question import Asker, parts_of

    plus = {"image": image, "sound": sound, "speech": speech, "video": video, "text": text, "like": like}
    minus = {
        "minus_image": minus_image,
        "minus_sound": minus_sound,
        "minus_speech": minus_speech,
        "minus_video": minus_video,
        "minus_text": minus_text,
        "minus_like": minus_like,
    }
    given = {name: [str(content) for content in contents] for name, contents in (plus | minus).items() if contents}
    parts = parts_of(given, _weights(weight or []))
    _check_source(source, parts)
    wanted = _wanted(k, offset, to, where, min_score, group, fold)
    asker = Asker(
        _open_index(index),
        lambda: open_model(model, device, runtime, purpose="query"),
        tell=lambda opened, modality: tell_how(opened, [modality]),
    )
    if source is not None:
        _answer_lines(asker, wanted, as_json=as_json)
        return
    _show(answer(asker.index, asker.vector(parts), wanted), wanted, as_json=as_json)


def similar(
    item: Annotated[
        str | None, typer.Argument(metavar="PATH|ID", help="An indexed file, PATH:LINE, or an item.")
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Groups of near duplicates in the whole index instead.")
    ] = False,
    to: ToOption = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Hits to show; default 10.")] = None,
    offset: OffsetOption = 0,
    where: WhereOption = None,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out hits of a smaller cosine; of duplicates 0.98 by itself.")
    ] = None,
    group: GroupOption = None,
    fold: FoldOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is like an indexed file or item, or what an index holds more than once; no network is run.

    Example: xmr similar corpus/images/bell-1.jpg --to image
    """
    from xmr.engine.answer import ALIKE, Wanted, answer
    from xmr.engine.question import Asker
    from xmr.engine.question.indexed import items_like

    if (item is None) != duplicates:
        found = "a file and --duplicates" if item is not None else "nothing to compare with"
        raise UsageError(f"{found} given; name an indexed file or item, or pass --duplicates")
    wanted = _wanted(Wanted.k if k is None else k, offset, to, where, min_score, group, fold)
    opened = _open_index(index)
    if item is None:
        if offset or any(given is not None for given in (k, where, group, fold)):
            raise UsageError("--duplicates is told by --to and --min-score alone; leave the other options out")
        _show_duplicates(opened, ALIKE if min_score is None else min_score, wanted.to, as_json=as_json)
        return
    named = items_like(opened, item)
    vector = Asker(opened, lambda: open_model(None, "auto", "auto")).vector_of(named.ids)
    _show(answer(opened, vector, wanted, without=named.itself), wanted, as_json=as_json)


def localize(
    target: Annotated[Path | None, typer.Option("--in", help="Image or sound to look into; default --image.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image to look into; with --in, to ask with.")] = None,
    sound: Annotated[Path | None, typer.Option(help="Ask with a sound file.")] = None,
    speech: Annotated[Path | None, typer.Option(help="Ask with a recording of spoken words.")] = None,
    text: Annotated[str | None, typer.Option(help="Ask with a sentence.")] = None,
    modality: Annotated[str | None, typer.Option("--as", help="sound or speech: what the target is.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="PNG to write; default its name and .heat.png, here.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a PNG that is there.")] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show where in an image, or when in a sound, a query is: point and box, or seconds, and a heat map to look at.

    Example: xmr localize --image x.jpg --text "a dog"
    """
    from xmr.engine.localize import as_record, check_out, draw, target_modality
    from xmr.engine.localize import localize as find

    asked = {"image": image, "sound": sound, "speech": speech, "text": text}
    if target is None:
        target = image
        del asked["image"]
    if target is None:
        raise UsageError("nothing to look into given; name an image or a sound with --in")
    given = {name: content for name, content in asked.items() if content is not None}
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "no query"
        raise UsageError(f"{found} given; ask with exactly one of {', '.join(f'--{name}' for name in asked)}")
    [(query_modality, content)] = given.items()
    out = out or Path(f"{target.name}.heat.png")
    check_out(out, [target, *(path for path in given.values() if isinstance(path, Path))], overwrite=overwrite)
    opened = open_model(model, device, runtime, purpose="query")
    looked_into = target_modality(opened, target, modality)
    tell_how(opened, list(dict.fromkeys([query_modality, looked_into])))
    heat = find(opened, query_modality, content, looked_into, target)
    draw(target, heat, out)
    facts = as_record(heat)
    asked_with = {"query_modality": query_modality, "query": str(content)}
    if as_json:
        terminal.print_json([{"modality": looked_into, "path": str(target), **asked_with, **facts, "out": str(out)}])
        return
    terminal.print_table(("", ""), [(key, _listed(value)) for key, value in facts.items()])
    print(f"heat map in {terminal.shown_path(out)}")


def _open_index(folder: Path | None) -> "Index":
    from xmr.engine.index import Index

    return Index.open(folder or workspace.default_folder("index"))


def _check_source(source: str | None, parts: "Sequence[Part]") -> None:
    """UsageError unless the questions come from one place."""
    from xmr.engine.question import NAMES, listed

    ways = f"ask with one or more of {listed(f'--{name}' for name in NAMES)}, or with - from stdin"
    if source not in (None, FROM_STDIN):
        raise UsageError(f"{source!r} given; {ways}")
    if source is None and not parts:
        raise UsageError(f"no query given; {ways}")
    if source is not None and parts:
        raise UsageError("a question and - given; with - the questions stand on stdin, with all their parts")


def _weights(given: Sequence[str]) -> Mapping[str, list[float]]:
    """Of --weight text=2,0.5."""
    weights: dict[str, list[float]] = {}
    for setting in given:
        name, _, numbers = setting.partition("=")
        try:
            weights[name.strip().replace("-", "_")] = [float(number) for number in numbers.split(",")]
        except ValueError:
            raise UsageError(f"--weight {setting} found; write it as text=2,0.5") from None
    return weights


def _wanted(
    k: int,
    offset: int,
    to: str | None,
    where: str | None,
    min_score: float | None,
    group: str | None,
    fold: float | None,
) -> "Wanted":
    from xmr.engine.answer import Wanted

    return Wanted(k, offset, modalities_in(to), where, min_score, group, fold)


def _answer_lines(asker: "Asker", wanted: "Wanted", *, as_json: bool) -> None:
    """Each question as it comes; one that cannot be answered is told on stderr and leaves the others alone."""
    from xmr.engine.answer import answer
    from xmr.engine.question import NoModelError
    from xmr.engine.question.line import lines_of, question_of

    n_failed = 0
    for number, line in lines_of(sys.stdin.buffer):
        try:
            question = question_of(line, wanted)
            answers = answer(asker.index, asker.vector(question.parts), question.wanted)
        except NoModelError:
            raise
        except XmrError as error:
            n_failed += 1
            _tell_failed(number, error, as_json=as_json)
            continue
        _show(answers, question.wanted, as_json=as_json, query=number)
        sys.stdout.flush()
    if n_failed:
        raise typer.Exit(DONE_WITH_SKIPPED)


def _tell_failed(number: int, error: XmrError, *, as_json: bool) -> None:
    terminal.note(json.dumps({"query": number, "error": str(error)}) if as_json else f"line {number}: {error}")


def _show(answers: "Sequence[Answer]", wanted: "Wanted", *, as_json: bool, query: int | None = None) -> None:
    """Results on stdout; of a question from stdin with the number of its line."""
    asked = {} if query is None else {"query": query}
    if as_json:
        terminal.print_json(
            asked
            | {key: getattr(one.hit, key) for key in HIT_KEYS}
            | {"rank": one.rank}
            | ({"folded": list(one.folded)} if wanted.fold is not None else {})
            for one in answers
        )
        return
    if not answers:
        terminal.note(_told(query, _why_empty(wanted)))
        return
    columns: dict[str, Callable[[Answer], object]] = {
        **({"query": lambda _: query} if query is not None else {}),
        "rank": lambda one: one.rank,
        "score": lambda one: f"{one.hit.score:.4f}",
        "modality": lambda one: one.hit.modality,
        "path": lambda one: _place(one.hit),
        **({"alike": lambda one: len(one.folded) or None} if wanted.fold is not None else {}),
        "text": lambda one: one.hit.text,
    }
    terminal.print_table(tuple(columns), [[column(one) for column in columns.values()] for one in answers])


def _told(query: int | None, sentence: str) -> str:
    return sentence if query is None else f"line {query}: {sentence}"


def _why_empty(wanted: "Wanted") -> str:
    if wanted.offset:
        return f"no hit after the first {wanted.offset}"
    if wanted.where is not None:
        return "no item of the index that the condition holds of" + (
            " scores high enough" if wanted.min_score is not None else ""
        )
    return "no item of the index scores high enough" if wanted.min_score is not None else "nothing else in the index"


def _show_duplicates(index: "Index", cosine: float, to: tuple[str, ...] | None, *, as_json: bool) -> None:
    from xmr.engine.duplicates import duplicates

    n_groups = n_items = 0
    rows: list[tuple[object, ...]] = []
    with terminal.progress_bar("comparing") as progress:
        for n_groups, group in enumerate(duplicates(index, cosine, to, progress=progress), 1):
            n_items += len(group.ids)
            if as_json:
                terminal.print_json(_records(index, n_groups, group))
            else:
                rows += _rows(index, n_groups, group)
    if rows:
        terminal.print_table(("group", "score", "modality", "path", "text"), rows)
    terminal.note(f"{n_groups} groups of {n_items} items with a cosine of {cosine:g} or more")


def _place(hit: Any) -> str:
    """Where a hit is: its file, and the seconds or the line in it."""
    path = terminal.shown_path(hit.path)
    if hit.line is not None:
        return f"{path}:{hit.line}"
    is_whole = hit.start_s is None or (hit.start_s == 0 and hit.modality != "image")  # as most sounds are; no frame is
    return path if is_whole else f"{path} {hit.start_s:.1f}-{hit.end_s:.1f} s"


def _records(index: "Index", number: int, group: "Group") -> list[dict[str, Any]]:
    found = index.found(group.ids)
    keys = [key for key in HIT_KEYS if key not in ("rank", "score")]
    return [
        {"group": number, "score": score} | {key: getattr(found[item], key) for key in keys}
        for item, score in zip(group.ids, group.scores, strict=True)
    ]


def _rows(index: "Index", number: int, group: "Group") -> list[tuple[object, ...]]:
    found = index.found(group.ids)
    return [
        (number, f"{score:.4f}", group.modality, _place(found[item]), found[item].text)
        for item, score in zip(group.ids, group.scores, strict=True)
    ]


def _listed(value: object) -> object:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, list) else value


COMMANDS = {"query": query, "similar": similar, "localize": localize}
