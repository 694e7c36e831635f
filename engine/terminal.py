"""What the commands show: results on stdout, progress and notes on stderr. Bars only where somebody watches."""

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """An aligned table, one line a row; columns of numbers stand to the right."""
    filled = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *filled, strict=True)]
    is_number = [bool(filled) and all(map(_is_number, cells)) for _, *cells in zip(columns, *filled, strict=True)]
    for row in [list(columns), *filled]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        print("  ".join(padded).rstrip())


def print_json(records: Iterable[Mapping[str, Any]]) -> None:
    """One object a line."""
    for record in records:
        print(json.dumps(record, ensure_ascii=False))


def note(sentence: str) -> None:
    """A line on stderr."""
    print(_printable(sentence), file=sys.stderr)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Inside, a request of the system to end (SIGTERM) is what Ctrl-C is: what was done is kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_bar(label: str, status: Callable[[], str] | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left, moved by calling `(done, total)`; silent where stderr is no terminal.

    A total of 0 is one that is not known. `status` is asked for what to show in place of the rate, as items a second
    and what the work waits for.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as Work
    from rich.text import Text

    class Status(ProgressColumn):
        max_refresh = 0.5  # seconds between two questions

        def render(self, work: Work) -> Text:
            if status is not None:
                return Text(status())
            return Text(f"{work.speed:.1f}/s" if work.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Status(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        work = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(work, completed=done, total=total or None)


def shown_path(path: str | Path) -> str:
    """The path as one would type it here: relative where it lies below the current folder."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return _printable(str(value))


def _printable(text: str) -> str:
    """A name from a file must not move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _is_number(cell: str) -> bool:
    return cell.removeprefix("-").replace(".", "", 1).isdigit() or cell == ""
