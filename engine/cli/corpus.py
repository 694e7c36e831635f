"""Commands that embed a corpus: into an index, and into files."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
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
    ProfileOption,
    RuntimeOption,
    WorkersOption,
    open_model,
    tell_how,
    tell_stages,
)
from xmr.engine.errors import UsageError, XmrError

if TYPE_CHECKING:
    from xmr.engine.corpus import Scan
    from xmr.engine.index import AddSummary, Index
    from xmr.engine.media import Reading
    from xmr.engine.model import Model

FrameOption = Annotated[
    float | None, typer.Option("--frame-s", help="Seconds between frames of a video; default 1, or as the index has.")
]
OverlapOption = Annotated[
    float | None, typer.Option(help="Share by which windows of a long sound overlap; default 0.5, or as the index has.")
]
TextColumnOption = Annotated[
    str | None, typer.Option(help="Column of tables that is text; default the usual names, or as the index has.")
]
PATHS = typer.Argument(metavar="PATH...", help="Folders, files, .tar archives, or tables that name files.")
IgnoreOption = Annotated[bool, typer.Option(help="Leave out what .gitignore and .xmrignore say.")]


def index(
    paths: Annotated[list[Path] | None, PATHS] = None,
    model: ModelOption = None,
    index: IndexOption = None,
    given: Annotated[
        Path | None,
        typer.Option(
            "--from",
            "--from-npy",
            "--from-parquet",
            metavar="ROWS",
            help="Take rows that were embedded elsewhere: npy, parquet, fvecs, hdf5, faiss, or an exported folder.",
        ),
    ] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="With --from: jsonl or parquet that says what the rows are.")
    ] = None,
    vector_column: Annotated[str | None, typer.Option(help="With --from: the column of a parquet table.")] = None,
    modality: Annotated[str | None, typer.Option(help="With --from: what rows are that do not say it.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="With --from: divide rows by their length.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Take files out that are not there any more.")] = False,
    frame_s: FrameOption = None,
    overlap: OverlapOption = None,
    text_column: TextColumnOption = None,
    ignore: IgnoreOption = True,
    workers: WorkersOption = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Items a run of the network.")] = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 instead of 3 when files were skipped.")] = False,
    errors: Annotated[
        Path | None, typer.Option("--errors", help="File for what was skipped and why, a JSON object a line.")
    ] = None,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed images, sounds, videos and texts; run again, only new and changed files are embedded.

    Example: xmr index corpus/
    """
    from xmr.engine.corpus import scan
    from xmr.engine.embed import Stages
    from xmr.engine.media import media_of

    if not paths and given is None:
        raise UsageError("nothing to index given; name a folder or a file, or rows with --from")
    if paths and given is not None:
        raise UsageError("--from takes rows instead of files; index the files with a command of their own")
    source = {"listed": listed, "vector_column": vector_column, "modality": modality, "normalize": normalize}
    cutting = {"frame_s": frame_s, "overlap": overlap, "text_column": text_column}
    _check_asked(source, cutting | {"prune": prune, "errors": errors}, is_of_rows=given is not None)
    if errors is not None:
        _check_errors(errors)
    opened_model = open_model(model, device, runtime)
    folder = index or workspace.default_folder("index")
    if given is not None:
        _take_given(given, source, folder, opened_model, as_json=as_json)
        return
    tell_how(opened_model, opened_model.modalities)
    reading = _reading_of(folder, cutting)
    corpus = scan(paths or (), media_of(opened_model.modalities), ignore=ignore, text_column=reading.text_column)
    opened = _open_index(folder, opened_model, reading)
    terminal.note(f"{len(corpus.files)} files found")
    stages = Stages()
    try:
        with terminal.progress_bar("embedding", stages.status) as progress, terminal.terminated_as_interrupted():
            summary = opened.add(
                corpus,
                opened_model,
                workers=workers,
                batch_size=batch_size,
                prune=prune,
                progress=progress,
                stages=stages,
            )
    except KeyboardInterrupt:
        terminal.note("what was embedded is kept; run the same command again to go on")
        raise
    if profile:
        tell_stages(stages)
    _tell_added(opened, corpus, summary, errors, as_json=as_json)
    if summary.skipped:
        raise typer.Exit(1 if strict else DONE_WITH_SKIPPED)


def _check_asked(of_rows: dict[str, Any], of_files: dict[str, Any], *, is_of_rows: bool) -> None:
    """Refuse an option that would change nothing: those of rows without --from, those of files with it."""
    useless = of_files if is_of_rows else of_rows
    for option in (_option(name) for name, value in useless.items() if value is not None and value is not False):
        if is_of_rows:
            raise UsageError(f"{option}: it is for files, and --from takes rows; leave {option} out")
        raise UsageError(f"{option}: it is for rows that --from takes, and files are given; leave {option} out")


def _option(name: str) -> str:
    return "--list" if name == "listed" else "--" + name.replace("_", "-")


def _reading_of(folder: Path, settings: dict[str, Any]) -> "Reading":
    """How the index there reads files, which must be as it is asked for; of one that is not there yet what is asked."""
    from xmr.engine.index import CATALOG_NAME, Index
    from xmr.engine.media import Reading

    asked = _given(settings)
    if not (folder / CATALOG_NAME).is_file():
        return Reading(**asked)
    with closing(Index.open(folder)) as opened:
        for name, value in asked.items():
            if (held := getattr(opened.reading, name)) != value:
                raise UsageError(
                    f"{_option(name)} {value}: the index at {folder} was begun with {held}; use another --index"
                )
        return opened.reading


def _open_index(folder: Path, model: "Model", reading: "Reading") -> "Index":
    """The index there, or a new one."""
    from xmr.engine.index import CATALOG_NAME, Index

    return Index.open(folder) if (folder / CATALOG_NAME).is_file() else Index.create(folder, model, reading)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _take_given(given: Path, source: dict[str, Any], folder: Path, model: "Model", *, as_json: bool) -> None:
    """Rows that were embedded elsewhere, by the model given as the user says."""
    from xmr.engine.exchange.given import read_blocks

    blocks = read_blocks(given, dim=model.dim, **source)
    first = list(islice(blocks, 1))  # what is none of these rows is told before an index is made
    opened = _open_index(folder, model, _reading_of(folder, {}))
    opened.check_model(model)
    with terminal.progress_bar("taking rows", lambda: "rows") as progress, terminal.terminated_as_interrupted():
        summary = opened.append(chain(first, blocks), progress=lambda n_rows: progress(n_rows, 0))
    if as_json:
        terminal.print_json([{"n_items": summary.n_items, "n_files": summary.n_embedded, "items": opened.counts()}])
    else:
        print(f"{summary.n_items} rows of {summary.n_embedded} files taken; the index holds {_held(opened)}")


def _tell_added(opened: "Index", corpus: "Scan", summary: "AddSummary", errors: Path | None, *, as_json: bool) -> None:
    for sentence in [*corpus.notes, *summary.notes]:
        terminal.note(f"note: {sentence}")
    for sentence in summary.skipped:
        terminal.note(f"skipped: {sentence}")
    if errors is not None:
        _write_errors(errors, summary.errors)
    if as_json:
        facts = {name: value for name, value in asdict(summary).items() if name != "errors"}
        terminal.print_json([facts | {"skipped": summary.skipped, "items": opened.counts()}])
        return
    moved = "".join(
        f", {count} {what}"
        for count, what in (
            (summary.n_renamed, "renamed"),
            (summary.n_missing, "no longer among the files (kept; --prune takes them out)"),
        )
        if count
    )
    left_out = f" ({corpus.told_ignored()})" if corpus.ignored else ""
    print(
        f"{summary.n_embedded} files embedded ({summary.n_items} items), {summary.n_unchanged} unchanged{moved}, "
        f"{summary.n_removed} removed, {len(summary.skipped)} skipped, {summary.n_ignored} left out{left_out}; "
        f"the index holds {_held(opened)}"
    )


def _check_errors(path: Path) -> None:
    """Refuse before any work what could not be written in the end."""
    if not path.parent.is_dir():
        raise XmrError(f"{path.parent}: no such folder; make it, or choose another --errors")
    if path.is_dir():
        raise XmrError(f"{path}: a folder has the name of a file to write; choose another --errors")


def _write_errors(path: Path, errors: Mapping[str, str]) -> None:
    from xmr.engine.files import write_whole

    lines = (json.dumps({"path": file, "reason": reason}, ensure_ascii=False) for file, reason in errors.items())
    write_whole(path, lambda file: file.write("".join(f"{line}\n" for line in lines).encode()))


def _held(opened: "Index") -> str:
    return ", ".join(f"{count} {modality}" for modality, count in opened.counts().items()) or "nothing"


def embed(
    paths: Annotated[list[Path], PATHS],
    out: Annotated[Path, typer.Option("--out", help="Rows to write, as features.npy; the list goes beside it.")],
    modality: Annotated[str | None, typer.Option(help="Embed as this alone; default all of the model.")] = None,
    list_format: Annotated[str, typer.Option("--list", help="Of the items: jsonl or parquet.")] = "jsonl",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace rows that are there, and their list.")
    ] = False,
    frame_s: FrameOption = None,
    overlap: OverlapOption = None,
    text_column: TextColumnOption = None,
    ignore: IgnoreOption = True,
    model: ModelOption = None,
    workers: WorkersOption = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Items a run of the network.")] = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 instead of 3 when files were skipped.")] = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of images, sounds, videos and texts as one matrix, with the list of what its rows are.

    Example: xmr embed corpus/ --out features.npy
    """
    from xmr.engine.corpus import scan
    from xmr.engine.embed import Stages
    from xmr.engine.extract import check_free, extract, narrowed
    from xmr.engine.media import Reading, media_of

    check_free(out, list_format, overwrite=overwrite)
    opened = open_model(model, device, runtime)
    modalities = narrowed(opened, modality).modalities
    tell_how(opened, modalities)
    corpus = scan(paths, media_of(modalities), ignore=ignore, text_column=text_column)
    terminal.note(f"{len(corpus.files)} files found")
    for sentence in corpus.notes:
        terminal.note(f"note: {sentence}")
    asked = {"frame_s": frame_s, "overlap": overlap, "text_column": text_column}
    stages = Stages()
    with terminal.progress_bar("embedding", stages.status) as progress, terminal.terminated_as_interrupted():
        summary = extract(
            opened,
            corpus,
            out,
            modality=modality,
            list_format=list_format,
            overwrite=overwrite,
            reading=Reading(**_given(asked)),
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            stages=stages,
        )
    if profile:
        tell_stages(stages)
    if as_json:
        terminal.print_json([asdict(summary)])
    else:
        held = ", ".join(f"{count} {name}" for name, count in summary.n_items.items())
        print(
            f"{terminal.shown_path(out)}: {held}, {summary.dim} numbers each, of {summary.n_files} files; "
            f"{len(summary.skipped)} skipped, {summary.n_ignored} left out; "
            f"the items stand in {terminal.shown_path(summary.items)}"
        )
    if summary.skipped:
        raise typer.Exit(1 if strict else DONE_WITH_SKIPPED)


COMMANDS = {"index": index, "embed": embed}
