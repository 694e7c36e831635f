"""The commands that get and make training data."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from xmr.engine import terminal
from xmr.engine.errors import UsageError
from xmr.train.cli.options import JsonOption


def fetch(
    name: Annotated[str | None, typer.Argument(help="A dataset, as cub; without one: all that are known.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Download it into this folder.")] = None,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep archives that are unpacked.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell where published data comes from and what may be done with it; --to downloads it.

    Example: xmr fetch flickr8k --to data/flickr8k
    """
    from xmr.train.fetch import DATASETS_TO_FETCH, describe, find
    from xmr.train.fetch import fetch as get

    if name is None and to is not None:
        raise UsageError(f"--to {to}: no dataset is named; as `xmr fetch cub --to {to}`")
    if name is None or to is None:
        facts = [describe(find(name))] if name else [describe(each) for each in DATASETS_TO_FETCH.values()]
        _print_datasets(facts, as_json)
        return
    dataset = find(name)
    fetched = get(dataset, to, keep_archives=keep_archives)
    if as_json:
        terminal.print_json([asdict(file) for file in fetched])
        return
    rows = [(file.name, file.sha256, file.compared or "none published") for file in fetched]
    terminal.print_table(("file", "sha256", "compared"), rows)
    facts_there = describe(dataset, to)
    print(f"{facts_there['files']}; next: {facts_there['train']}")


def speak(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Images with captions, as for --data.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; made if it is not there.")],
    captions: Annotated[int, typer.Option("--captions", min=1, help="Captions to say of an image.")] = 1,
    splits: Annotated[str | None, typer.Option("--splits", help="As train,val; default: all.")] = None,
    voices: Annotated[str | None, typer.Option("--voices", help="As slt,awb; default: some of the program's.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Images of a split, at most.")] = None,
    program: Annotated[str, typer.Option("--program", help="auto, flite or espeak-ng.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Programs at a time; 0: as many as CPUs.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make spoken captions from written ones: a program reads them aloud, clips and pairs.jsonl are written.

    Example: xmr speak pairs.jsonl --to spoken
    """
    from xmr.train.speak import speak as say

    wanted, named = ([part.strip() for part in given.split(",")] if given else None for given in (splits, voices))
    with terminal.progress_bar("speaking") as progress:
        made = say(
            source,
            to,
            captions_per_image=captions,
            splits=wanted,
            voices=named,
            limit=limit,
            program=program,
            workers=workers,
            progress=progress,
        )
    for sentence in made.failures:
        terminal.note(f"skipped: {sentence}")
    if as_json:
        terminal.print_json([asdict(made)])
        return
    print(
        f"{made.n_spoken} clips made by {made.program}, {made.n_kept} kept, {len(made.failures)} captions skipped; "
        f"{made.n_rows} rows in {terminal.shown_path(to / 'pairs.jsonl')}; next: xmr train --data {to}"
    )


def _print_datasets(facts: list[dict[str, Any]], as_json: bool) -> None:
    """All that are known, one a line; of one alone everything."""
    if as_json:
        terminal.print_json(facts)
    elif len(facts) == 1:
        terminal.print_table(("", ""), list(facts[0].items()))
    else:
        columns = ("name", "download GB", "what", "licence")
        terminal.print_table(columns, [[each[column] for column in columns] for each in facts])
