"""Commands that look after what is there."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from xmr.engine import terminal, workspace
from xmr.engine.cli.options import IndexOption, JsonOption
from xmr.engine.errors import UsageError, XmrError


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


def delete(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH...", help="Indexed files or folders.")] = None,
    item: Annotated[list[int] | None, typer.Option("--id", help="An item, by the id that a query prints.")] = None,
    where: Annotated[str | None, typer.Option(help="Items of which this SQL condition holds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many items it would be.")] = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take items out of an index: all that is named, by path, id or condition.

    The files stay where they are, and come back when they are indexed again.

    Example: xmr delete corpus/old/
    """
    from xmr.engine.index import Index

    if not (paths or item or where):
        raise UsageError("nothing to delete given; name files or folders, --id or --where")
    opened = Index.open(index or workspace.default_folder("index"))
    n_items = opened.delete(item or (), paths or (), where, dry_run=dry_run)
    items = "1 item" if n_items == 1 else f"{n_items} items"
    if as_json:
        terminal.print_json([{"n_items": n_items, "dry_run": dry_run, "items": opened.counts()}])
    elif dry_run:
        print(f"{items} would be deleted")
    else:
        print(f"{items} deleted, {len(opened)} are left; `xmr compact` gives their space back")


def verify(
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read an index whole and compare it with its checksums; exit 1 where anything is not as it was written.

    Example: xmr verify
    """
    from xmr.engine.index import Index

    opened = Index.open(index or workspace.default_folder("index"))
    with terminal.progress_bar("verifying", lambda: "bytes") as progress:
        verified = opened.verify(progress)
    for sentence in verified.notes:
        terminal.note(f"note: {sentence}")
    if as_json:
        terminal.print_json([asdict(verified)])
    else:
        for fault in verified.faults:
            print(fault)
        print(
            f"{verified.n_items} items in {verified.n_segments} segments, {verified.n_bytes / 1e6:.1f} MB read: "
            + (f"{len(verified.faults)} faults" if verified.faults else "as they were written")
        )
    if verified.faults:
        raise typer.Exit(1)


def compact(
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an index anew in as few segments as can be, without what was deleted; it can be searched meanwhile.

    Example: xmr compact
    """
    from xmr.engine.index import Index

    opened = Index.open(index or workspace.default_folder("index"))
    with terminal.progress_bar("compacting", lambda: "rows") as progress:
        n_rows = opened.compact(progress)
    if as_json:
        terminal.print_json([{"n_rows_gone": n_rows, "n_segments": opened.n_segments(), "items": opened.counts()}])
    else:
        print(f"{n_rows} rows of deleted items gone; {len(opened)} items in {opened.n_segments()} segments")


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


COMMANDS = {"info": info, "delete": delete, "verify": verify, "compact": compact}
