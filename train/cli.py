"""The commands that make, train, evaluate and export a model. What needs torch is imported when a command runs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import UsageError, XmrError

if TYPE_CHECKING:
    from xmr.train.settings import TrainConfig

CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="Checkpoint folder; default .xmr/checkpoint.")
]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Pairs: a file, a folder, or NAME:PATH; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, as size=small; repeatable.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the sample world.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Where to start; made if it is not there.")] = Path(),
    sample: Annotated[bool, typer.Option("--sample", help="Also draw a small world to train on.")] = False,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Recipe whose settings are written.")] = None,
    assignments: SetOption = None,
    seed: SeedOption = 0,
) -> None:
    """Start a workspace: an xmr.toml with every setting explained; --sample adds a small world to learn.

    Example: xmr init --sample demo
    """
    from xmr.train.config import explained_config

    settings = folder / workspace.CONFIG_NAME
    if settings.exists():
        raise XmrError(f"{settings}: exists already; edit it, or start in another folder")
    content = explained_config(recipe or "quick", assignments or [])
    folder.mkdir(parents=True, exist_ok=True)
    if sample:
        from xmr.train.sample import write_sample

        with terminal.progress_bar("drawing the sample world") as progress:
            made = write_sample(folder, seed=seed, progress=progress)
        print(
            f"{made.concepts} concepts: {made.text_pairs} image-text and {made.sound_pairs} image-sound pairs "
            f"({made.train_pairs} train, {made.val_pairs} val); a corpus/ of {made.corpus_images} images, "
            f"{made.corpus_sounds} sounds and {made.corpus_notes} sentences; {made.queries} files in query/ to ask with"
        )
    settings.write_text(content, encoding="utf-8")
    print(f"{settings} written; next: {'cd ' + str(folder) + ' && ' if folder != Path() else ''}xmr train")


def train(
    recipe: Annotated[str | None, typer.Option("--recipe", help="Recipe, in place of the one in xmr.toml.")] = None,
    data: DataOption = None,
    assignments: SetOption = None,
    checkpoint: CheckpointOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the checkpoint stands.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the recipes; with --recipe, one in full.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn a model from pairs; a checkpoint every evaluation or minute, Ctrl-C leaves one to go on from.

    Example: xmr train --set epochs=5
    """
    if list_recipes:
        _print_recipes(recipe, assignments or [], as_json)
        return
    from xmr.engine.runtime import check_device

    check_device(device)
    if resume and (recipe or assignments or overwrite):
        raise UsageError("--resume goes on with the checkpoint's own settings; drop the other options, or --resume")
    config = None if resume else _read_settings(recipe, data or [], assignments or [])
    _need_torch()
    from xmr.engine.info import CHECKPOINT_NAME
    from xmr.train.checkpoint import load_checkpoint
    from xmr.train.fit import fit

    folder = checkpoint or workspace.default_folder("checkpoint")
    config = config or _elsewhere(load_checkpoint(folder / CHECKPOINT_NAME).config, data)
    cache = workspace.default_folder("cache")
    with _memory_said():
        results = fit(config, folder, cache, resume=resume, overwrite=overwrite, device=device)
    if as_json:
        terminal.print_json(results)
        return
    _print_retrieval(results)
    print(f"checkpoint in {terminal.shown_path(folder)}; next: xmr export")


def evaluate(
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    checkpoint: CheckpointOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Retrieval on held-out rows, all directions that the modalities allow, next to a random ranking.

    Example: xmr eval --split val
    """
    _need_torch()
    from xmr.engine.runtime import check_device

    check_device(device)
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.datasets import SPLITS
    from xmr.train.evaluate import evaluate_checkpoint
    from xmr.train.run import pick_device

    if split not in SPLITS:
        raise UsageError(f"--split {split} is unknown; one of {', '.join(SPLITS)}")
    loaded = load_checkpoint(best_of(checkpoint or workspace.default_folder("checkpoint")))
    results = evaluate_checkpoint(
        loaded,
        _elsewhere(loaded.config, data).data,
        split,
        workspace.default_folder("cache"),
        pick_device(device),
    )
    if as_json:
        terminal.print_json(results)
        return
    _print_retrieval(results)


def export(
    data: DataOption = None,
    checkpoint: CheckpointOption = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder to write; default .xmr/model.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the model; default: recipe and a digest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as ONNX networks that run without torch, checked against torch on real items.

    Example: xmr export
    """
    _need_torch()
    from xmr.train.checkpoint import best_of, load_checkpoint
    from xmr.train.export import default_name
    from xmr.train.export import export as write

    loaded = load_checkpoint(best_of(checkpoint or workspace.default_folder("checkpoint")))
    loaded = replace(loaded, config=_elsewhere(loaded.config, data))
    folder = model or workspace.default_folder("model")
    parity = write(loaded, folder, name or default_name(loaded), note=terminal.note)
    if as_json:
        terminal.print_json([asdict(result) for result in parity])
        return
    rows = [(p.modality, p.n_items, f"{p.min_cosine:.6f}", f"{p.top10_overlap:.1f}") for p in parity]
    terminal.print_table(("modality", "items", "min cosine to torch", "top-10 overlap %"), rows)
    print(f"model in {terminal.shown_path(folder)}; next: xmr index PATH")


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


COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "fetch": fetch,
    "speak": speak,
    "train": train,
    "eval": evaluate,
    "export": export,
}


def _print_datasets(facts: list[dict[str, Any]], as_json: bool) -> None:
    """All that are known, one a line; of one alone everything."""
    if as_json:
        terminal.print_json(facts)
    elif len(facts) == 1:
        terminal.print_table(("", ""), list(facts[0].items()))
    else:
        columns = ("name", "download GB", "what", "licence")
        terminal.print_table(columns, [[each[column] for column in columns] for each in facts])


def _read_settings(recipe: str | None, data: list[str], assignments: list[str]) -> "TrainConfig":
    """The workspace's settings and what the command line adds; read without torch, so that a slip shows at once."""
    from xmr.train.config import anchored_source, load_config

    settings = workspace.config_path()
    if not settings.is_file() and not (recipe and data):
        raise XmrError(f"{Path.cwd()}: no xmr.toml here; start with `xmr init`, or give --recipe and --data")
    sources = json.dumps([anchored_source(source, Path.cwd()) for source in data])  # as a TOML list
    named = [f"data={sources}"] if data else []
    return load_config(settings, recipe=recipe, assignments=[*named, *assignments])


def _elsewhere(config: "TrainConfig", data: list[str] | None) -> "TrainConfig":
    """The settings of a checkpoint whose data has moved."""
    from xmr.train.config import anchored_source

    return replace(config, data=tuple(anchored_source(source, Path.cwd()) for source in data)) if data else config


def _print_recipes(recipe: str | None, assignments: list[str], as_json: bool) -> None:
    """All recipes, one a line; of one alone its encoders and its stages too, in the size and variant assigned."""
    from xmr.train.config import STAGE_FACTS, recipe_facts, recipe_names

    facts = [recipe_facts(name, assignments) for name in ([recipe] if recipe else recipe_names())]
    if as_json:
        terminal.print_json([asdict(of) for of in facts])
    elif recipe is None:
        columns = ("recipe", "modalities", "losses", "variants", "sizes", "paper")
        rows = [
            (of.name, *(", ".join(part) for part in (of.modalities, of.losses, of.variants, of.sizes)), of.about)
            for of in facts
        ]
        terminal.print_table(columns, rows)
    else:
        of = facts[0]
        print(f"{of.name}: {of.about}\nvariants: {', '.join(of.variants) or 'none'}; sizes: {', '.join(of.sizes)}\n")
        terminal.print_table(("modality", "encoder"), list(of.encoders.items()))
        print()
        stages = [
            (
                number,
                *(stage[key] for key in STAGE_FACTS),
                ", ".join(f"{modality} from {layer}" for modality, layer in stage["finetune"].items()),
                ", ".join(stage["losses"]),
            )
            for number, stage in enumerate(of.stages, start=1)
        ]
        terminal.print_table(("stage", *(key.replace("_", " ") for key in STAGE_FACTS), "finetunes", "losses"), stages)


@contextmanager
def _memory_said() -> Iterator[None]:
    """Too little memory, which torch tells of in several ways, as one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, MemoryError) or "memory" in str(error):
            first = str(error).splitlines()[0] if str(error) else "no more is there"
            raise XmrError(f"too little memory ({first}); train with a smaller batch_size or width") from None
        raise


def _need_torch() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "gensim", "safetensors", "tomli_w") if find_spec(name) is None]
    if missing:
        raise XmrError(f"{missing[0]} is not installed; pip install 'xmr[train]'")


def _print_retrieval(results: list[dict[str, Any]]) -> None:
    columns = (
        "query",
        "gallery",
        "queries",
        "items",
        "R@1",
        "R@5",
        "R@10",
        "median rank",
        "mAP",
        "random R@10",
        "random mAP",
    )
    rows = [
        (
            record["query"],
            record["gallery"],
            record["n_queries"],
            record["n_gallery"],
            *(f"{record[name]:.1f}" for name in ("R@1", "R@5", "R@10", "median_rank", "mAP")),
            *(f"{record['random'][name]:.1f}" for name in ("R@10", "mAP")),
        )
        for record in results
    ]
    if rows:
        terminal.print_table(columns, rows)
