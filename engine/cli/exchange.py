"""Commands that write an index out for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.engine.cli.options import IndexOption, JsonOption, modalities_in
from xmr.engine.errors import UsageError


def export_index(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; of parquet and hdf5, file.")],
    form: Annotated[str, typer.Option("--format", help="npy (for clip-retrieval), parquet, faiss, fvecs or hdf5.")],
    to: Annotated[str | None, typer.Option(help="Modalities to write, as image,text; default all.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition on the items to write.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of npy: float32 or float16; default float32.")] = None,
    rows_per_file: Annotated[int | None, typer.Option(min=1, help="Of npy; default 1,000,000.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Of hdf5: .npy rows to ask with; default some held out.")] = None,
    n_queries: Annotated[int | None, typer.Option(min=1, help="Of hdf5: rows to hold out; default a tenth.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier export wrote there.")] = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of an index, and what they are of, in a layout that other programs read.

    Example: xmr export-index vectors --format npy
    """
    from xmr.engine.exchange.export import Form, check, export
    from xmr.engine.index import Index

    wanted = Form(form, dtype, rows_per_file, queries, n_queries)
    check(out, wanted, overwrite=overwrite)
    folder = index or workspace.default_folder("index")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{out}: inside the index itself; choose a place of its own")
    opened = Index.open(folder)
    names = modalities_in(to)
    with terminal.progress_bar("writing") as progress:
        done = export(lambda: opened.items(names, where), out, wanted, overwrite=overwrite, progress=progress)
    if as_json:
        terminal.print_json([asdict(done)])
        return
    held = ", ".join(f"{count} {name}" for name, count in done.n_items.items())
    files = "1 file" if done.n_files == 1 else f"{done.n_files} files"
    print(f"{terminal.shown_path(out)}: {held}, {done.dim} numbers each, as {done.format} in {files}")


COMMANDS = {"export-index": export_index}
