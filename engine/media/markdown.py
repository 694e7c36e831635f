"""Markdown as it reads, without its marks: a line stays a line, so that it is found again in the file.

Of a link or a picture its words are kept, of a block of code its lines as they are. What only tells how to set the
page is left out: rules, fences, front matter, comments, what a link points to.
"""

import re
from collections.abc import Iterable, Iterator

from xmr.engine.media.lines import Said

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
FRONT_MATTER = re.compile(r"(-{3,}|\+{3,})\s*")
RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}|[\s|:-]*-[\s|:-]*")  # also below a heading, and in a table
MAX_MARKED = 4000  # characters of a line whose marks are looked for: in longer ones the search would take too long
DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s.*")  # of where a link points to
BLOCK_MARK = re.compile(r"\s*(?:#{1,6}\s+|>\s?|[-*+]\s+(?:\[[ xX]\]\s+)?|\d{1,9}[.)]\s+)")
INLINE = (
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^<>]*>"), ""),
    (re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])"), r"\1"),
    (re.compile(r"<(https?:[^<>]*)>"), r"\1"),
    (re.compile(r"(?<!\\)(\*{1,3}|(?<!\w)_{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"`+([^`]+)`+"), r"\1"),
    (re.compile(r"\\([!-/:-@\[-`{-~])"), r"\1"),
    (re.compile(r"\s*\|\s*"), " "),
)


def lines_of(lines: Iterable[tuple[int, str]]) -> Iterator[Said]:
    """The lines that say something, with their numbers."""
    fence, matter = "", ""
    for number, line in lines:
        if matter and line.strip() == matter:
            matter = ""
        elif matter:
            continue
        elif number == 1 and FRONT_MATTER.fullmatch(line):
            matter = line.strip()
        elif found := FENCE.match(line):
            fence = _fence_after(fence, found[1])
        elif fence and line.strip():
            yield Said(line.strip(), number)
        elif not fence and (text := _plain(line)):
            yield Said(text, number)


def _fence_after(fence: str, mark: str) -> str:
    """What ends the block of code from here on: nothing, where this mark ends it."""
    if not fence:
        return mark
    return "" if mark[0] == fence[0] and len(mark) >= len(fence) else fence


def _plain(line: str) -> str:
    if len(line) > MAX_MARKED:
        return line.strip()
    if RULE.fullmatch(line) or DEFINITION.fullmatch(line):
        return ""
    while mark := BLOCK_MARK.match(line):
        line = line[mark.end() :]
    for pattern, kept in INLINE:
        line = pattern.sub(kept, line)
    return " ".join(line.split()).rstrip("#").strip()
