"""The xmr command: parse, call, print. Heavy imports stand inside the commands, so that --help is instant."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.plan import plan

DONE_WITH_SKIPPED = 3
INTERRUPTED = 130


class Commands(TyperGroup):
    """Turns the user's mistakes into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except XmrError as error:
            terminal.note(f"xmr: {error}")
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a folder that may not be written
            place = f"{error.filename}: " if error.filename else ""
            terminal.note(f"xmr: {place}{error.strerror or error}; mend that and run the same command again")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            terminal.note("xmr: interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn one space for what is seen, heard and read; embed a corpus with it and rank it.",
)


def _mount_training() -> None:
    """The only arrow from engine to train: the names of its commands. What they need is imported when they run."""
    from xmr.train import cli

    for name, command in cli.COMMANDS.items():
        app.command(name)(command)


_mount_training()
app.command()(plan)

ModelOption = Annotated[Path | None, typer.Option("--model", help="Exported model folder; default .xmr/model.")]
IndexOption = Annotated[Path | None, typer.Option("--index", help="Index folder; default .xmr/index.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", help="auto (the fastest there is), onnxruntime, openvino or tensorrt.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Decoding processes; 0: as many as are measured to be needed.")
]
ProfileOption = Annotated[bool, typer.Option("--profile", help="Tell the time of each stage, on stderr.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders or files to embed.")],
    model: ModelOption = None,
    index: IndexOption = None,
    workers: WorkersOption = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Items a run of the network.")] = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 instead of 3 when files were skipped.")] = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed folders of images, sounds and texts; run again, only new and changed files are embedded.

    Example: xmr index corpus/
    """
    from xmr.engine.corpus import scan
    from xmr.engine.embed import Stages
    from xmr.engine.index import CATALOG_NAME, Index
    from xmr.engine.media import MODALITIES

    opened_model = _open_model(model, device, runtime)
    _tell_how(opened_model, opened_model.modalities)
    folder = index or workspace.default_folder("index")
    corpus = scan(paths, {MODALITIES[name].medium for name in opened_model.modalities})
    exists = (folder / CATALOG_NAME).is_file()
    opened = Index.open(folder) if exists else Index.create(folder, opened_model)
    terminal.note(f"{len(corpus.files)} files found")
    stages = Stages()
    try:
        with terminal.progress_bar("embedding", stages.status) as progress:
            summary = opened.add(
                corpus, opened_model, workers=workers, batch_size=batch_size, progress=progress, stages=stages
            )
    except KeyboardInterrupt:
        terminal.note("what was embedded is kept; run the same command again to go on")
        raise
    if profile:
        _tell_stages(stages)
    for sentence in summary.notes:
        terminal.note(f"note: {sentence}")
    for sentence in summary.skipped:
        terminal.note(f"skipped: {sentence}")
    if as_json:
        terminal.print_json([asdict(summary) | {"items": opened.counts()}])
    else:
        held = ", ".join(f"{count} {modality}" for modality, count in opened.counts().items()) or "nothing"
        print(
            f"{summary.n_embedded} files embedded ({summary.n_items} items), {summary.n_unchanged} unchanged, "
            f"{summary.n_removed} removed, {len(summary.skipped)} skipped, {summary.n_ignored} of other kinds ignored; "
            f"the index holds {held}"
        )
    if summary.skipped:
        raise typer.Exit(1 if strict else DONE_WITH_SKIPPED)


@app.command()
def embed(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders or files; of a text, each line.")],
    out: Annotated[Path, typer.Option("--out", help="Rows to write, as features.npy; the list goes beside it.")],
    modality: Annotated[str | None, typer.Option(help="Embed as this alone; default all of the model.")] = None,
    list_format: Annotated[str, typer.Option("--list", help="Of the items: jsonl or parquet.")] = "jsonl",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace rows that are there, and their list.")
    ] = False,
    model: ModelOption = None,
    workers: WorkersOption = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Items a run of the network.")] = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 instead of 3 when files were skipped.")] = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of images, sounds and texts as one matrix, with the list of what its rows are.

    Example: xmr embed corpus/ --out features.npy
    """
    from xmr.engine.corpus import scan
    from xmr.engine.embed import Stages
    from xmr.engine.extract import check_free, extract, narrowed
    from xmr.engine.media import MODALITIES

    check_free(out, list_format, overwrite=overwrite)
    opened = _open_model(model, device, runtime)
    modalities = narrowed(opened, modality).modalities
    _tell_how(opened, modalities)
    corpus = scan(paths, {MODALITIES[name].medium for name in modalities})
    terminal.note(f"{len(corpus.files)} files found")
    stages = Stages()
    with terminal.progress_bar("embedding", stages.status) as progress:
        summary = extract(
            opened,
            corpus,
            out,
            modality=modality,
            list_format=list_format,
            overwrite=overwrite,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            stages=stages,
        )
    if profile:
        _tell_stages(stages)
    if as_json:
        terminal.print_json([asdict(summary)])
    else:
        held = ", ".join(f"{count} {name}" for name, count in summary.n_items.items())
        print(
            f"{terminal.shown_path(out)}: {held}, {summary.dim} numbers each, of {summary.n_files} files; "
            f"{len(summary.skipped)} skipped, {summary.n_ignored} of other kinds ignored; "
            f"the items stand in {terminal.shown_path(summary.items)}"
        )
    if summary.skipped:
        raise typer.Exit(1 if strict else DONE_WITH_SKIPPED)


@app.command()
def query(
    image: Annotated[Path | None, typer.Option(help="Ask with an image file.")] = None,
    sound: Annotated[Path | None, typer.Option(help="Ask with a sound file.")] = None,
    speech: Annotated[Path | None, typer.Option(help="Ask with a recording of spoken words.")] = None,
    text: Annotated[str | None, typer.Option(help="Ask with a sentence.")] = None,
    to: Annotated[str | None, typer.Option(help="Modalities to search, as image,sound; default all.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits to show.")] = 10,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits of a smaller cosine.")] = None,
    model: ModelOption = None,
    index: IndexOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Rank an index against one image, sound or sentence.

    Example: xmr query --image cat.jpg --to sound
    """
    from xmr.engine.index import Index
    from xmr.engine.media import MODALITIES

    asked = {"image": image, "sound": sound, "speech": speech, "text": text}
    given = {modality: content for modality, content in asked.items() if content is not None}
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "no query"
        raise UsageError(f"{found} given; ask with exactly one of --image, --sound, --speech, --text")
    wanted = [name.strip() for name in to.split(",")] if to is not None else None
    if unknown := [name for name in wanted or [] if name not in MODALITIES]:
        raise UsageError(f"--to {to}: {unknown[0]!r} is no modality; choose among {', '.join(MODALITIES)}")
    [(modality, content)] = given.items()
    opened = Index.open(index or workspace.default_folder("index"))
    opened_model = _open_model(model, device, runtime, purpose="query")
    _tell_how(opened_model, [modality])
    opened.check_model(opened_model)
    hits = opened.search(opened_model.embed(modality, [content]), k, to=wanted, min_score=min_score)
    if as_json:
        keys = ("rank", "score", "modality", "path", "start_s", "end_s", "text", "id")
        terminal.print_json([{key: asdict(hit)[key] for key in keys} for hit in hits])
        return
    if not hits:
        terminal.note("no item of the index scores high enough" if min_score is not None else "the index is empty")
        return
    rows = [(hit.rank, f"{hit.score:.4f}", hit.modality, _place(hit), hit.text) for hit in hits]
    terminal.print_table(("rank", "score", "modality", "path", "text"), rows)


@app.command()
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
    opened = _open_model(model, device, runtime, purpose="query")
    looked_into = target_modality(opened, target, modality)
    _tell_how(opened, list(dict.fromkeys([query_modality, looked_into])))
    heat = find(opened, query_modality, content, looked_into, target)
    draw(target, heat, out)
    facts = as_record(heat)
    asked_with = {"query_modality": query_modality, "query": str(content)}
    if as_json:
        terminal.print_json([{"modality": looked_into, "path": str(target), **asked_with, **facts, "out": str(out)}])
        return
    terminal.print_table(("", ""), [(key, _listed(value)) for key, value in facts.items()])
    print(f"heat map in {terminal.shown_path(out)}")


@app.command()
def info(
    path: Annotated[Path | None, typer.Argument(help="A model, index or checkpoint folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a model, an index or a checkpoint is; without a path, what this workspace has.

    Example: xmr info .xmr/model
    """
    from xmr.engine.info import describe, is_known

    defaults = [workspace.default_folder(name) for name in ("checkpoint", "model", "index")]
    folders = [path] if path else [folder for folder in defaults if is_known(folder)]
    if not folders and workspace.config_path().is_file():
        raise XmrError(f"{workspace.find_root()}: nothing trained, exported or indexed yet; start with `xmr train`")
    if not folders:
        raise XmrError(
            f"{workspace.find_root()}: no workspace of xmr here; start one with `xmr init`, or give a folder"
        )
    described = [describe(folder) for folder in folders]
    if as_json:
        terminal.print_json(described)
        return
    terminal.print_table(("", ""), [row for facts in described for row in (*_flat(facts), ("", ""))][:-1])


def _open_model(folder: Path | None, device: str, runtime: str, *, purpose: str = "corpus") -> Any:
    from xmr.engine.model import Model

    return Model.open(folder or workspace.default_folder("model"), device, runtime, purpose=purpose)


def _tell_how(model: Any, modalities: Sequence[str]) -> None:
    """On stderr: on what the model runs, by which runtime and in which precision; and why not on a GPU that is here."""
    from xmr.engine.runtime import remarks

    choices = {name: model.choice(name) for name in modalities}
    for sentence in remarks():
        terminal.note(f"note: {sentence}")
    for reason, names in _grouped((choice.passed_over, name) for name, choice in choices.items() if choice.passed_over):
        terminal.note(f"note: {names} not on the GPU: {reason}")
    for device, names in _grouped((choice.device, name) for name, choice in choices.items()):
        ways = _grouped((str(choices[name]), name) for name in names.split(", "))
        told = "; ".join(f"{of} by {way}" for way, of in ways)
        terminal.note(f"model {model.name} on {device}: {told}")


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (what, name) each what once, with its names as one phrase."""
    groups: dict[str, list[str]] = {}
    for what, name in pairs:
        groups.setdefault(what, []).append(name)
    return [(what, ", ".join(names)) for what, names in groups.items()]


def _tell_stages(stages: Any) -> None:
    """How long each stage took and how many items it did, on stderr."""
    for row in stages.table():
        done = f"{row['items'] or '':>8}  {row['per_second'] or '':>9}"
        terminal.note(f"{row['stage']:<18}{row['seconds']:>9.3f} s  {done}  {row['note']}".rstrip())


def _place(hit: Any) -> str:
    """Where a hit is: its file, and the seconds or the line in it."""
    path = terminal.shown_path(hit.path)
    if hit.line is not None:
        return f"{path}:{hit.line}"
    return path if hit.start_s in (None, 0) else f"{path} {hit.start_s:.1f}-{hit.end_s:.1f} s"


def _listed(value: object) -> object:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, list) else value


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
