"""Ignore files: .gitignore and .xmrignore, with git's rules for patterns, at or below the folder that is scanned."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # most folders have none, and a query reads none
    from pathspec import GitIgnoreSpec

NAMES = (".gitignore", ".xmrignore")  # in one folder the later one decides
MAX_BYTES = 1_000_000
MAX_LINE = 4096  # characters; no longer path can be named
FOLDERS = "(?:/.+)?/"  # what pathspec makes of /**/
STARS = re.compile(r"(?:\[\^/\]\*){2,}")  # of ***
STAR = re.compile(
    r"\[\^/\]\*((?:\\.|\[(?:\\.|[^\]\\])+\](?!\*)|[^/\[\\(])+)(?=\[\^/\]\*)"
)  # of *, and up to the next one


@dataclass(frozen=True)
class Ignore:
    """The patterns of one folder; those of nearer folders decide before those above them."""

    folder: str
    spec: "GitIgnoreSpec"
    above: "Ignore | None"

    @classmethod
    def read(cls, folder: Path, files: list[Path], above: "Ignore | None") -> "Ignore":
        """Of the folder's ignore files, which are UTF-8; a line that is no pattern matches nothing, as in git."""
        lines = [line for path in sorted(files) for line in _lines(path)]
        return cls(str(folder), _spec(lines), above)

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a file or folder right or deeper below is ignored; below an ignored folder nobody asks."""
        rules: Ignore | None = self
        while rules is not None:
            below = path.removeprefix(rules.folder).lstrip("/")
            decided = rules.spec.check_file(f"{below}/" if is_folder else below).include
            if decided is not None:
                return decided
            rules = rules.above
        return False


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        text = file.read(MAX_BYTES).decode("utf-8-sig", errors="surrogateescape")
    return [line for line in text.split("\n") if len(line) <= MAX_LINE]


def _spec(lines: list[str]) -> "GitIgnoreSpec":
    from pathspec import GitIgnoreSpec

    try:
        patterns = GitIgnoreSpec.from_lines(lines).patterns
    except ValueError:
        patterns = GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)]).patterns
    for pattern in patterns:
        if pattern.regex is not None:
            pattern.regex = re.compile(_without_retries(pattern.regex.pattern))
    return GitIgnoreSpec(patterns)


def _without_retries(regex: str) -> str:
    """The same, in a time that does not grow with the power of its stars.

    What stands between two stars is found where it comes first: another place for it would never help those after it.
    """
    regex = STARS.sub("[^/]*", regex)
    *before, last = (STAR.sub(r"(?>[^/]*?\1)", part) for part in regex.split(FOLDERS))
    if not before:
        return last
    first, *between = before
    return first + "".join(f"(?>(?:/.+?)??/{part}(?=/))" for part in between) + FOLDERS + last


def _is_pattern(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
