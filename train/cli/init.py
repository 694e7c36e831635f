"""The command that starts a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.engine.errors import XmrError
from xmr.train.cli.options import SetOption

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
