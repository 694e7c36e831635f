"""Subtitles: the cues of .srt and .vtt, each with the time for which it is shown."""

import html
import re
from collections.abc import Iterable, Iterator

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.lines import Said

TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
SPAN = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
ARROW = "-->"
MARK = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # <i>, <v Ann>, <00:01.500>; {\an8}
MAX_CUE_LINES = 50

Cue = tuple[int, str, list[str]]  # the number of its first line, that line, and what is shown


def subtitles_of(lines: Iterable[tuple[int, str]], content: Content, notes: list[str]) -> Iterator[Said]:
    """The text of each cue without its marks, in one line; what stands outside of cues is left out."""
    n_cues, n_timeless = 0, 0
    for line, span, shown in _cues(lines):
        n_cues += 1
        start_s, end_s = _times(span)
        n_timeless += start_s is None
        if text := " ".join(html.unescape(MARK.sub("", " ".join(shown))).split()):
            yield Said(text, line, start_s, end_s)
    if n_cues == 0:
        raise XmrError(f"{content}: no times of subtitles in it, such as 00:00:01,000 {ARROW} 00:00:02,000; mend it")
    if n_timeless:
        notes.append(f"{content}: {n_timeless} subtitles whose times cannot be read stand without them")


def _cues(lines: Iterable[tuple[int, str]]) -> Iterator[Cue]:
    cue: Cue | None = None
    for number, line in lines:
        if ARROW in line:
            if cue is not None:
                yield cue
            cue = number, line, []
        elif cue is not None and not line.strip():
            yield cue
            cue = None
        elif cue is not None and len(cue[2]) < MAX_CUE_LINES:
            cue[2].append(line)
    if cue is not None:
        yield cue


def _times(span: str) -> tuple[float, float] | tuple[None, None]:
    found = SPAN.fullmatch(span)
    if found is None:
        return None, None
    start_s, end_s = (_seconds(*found.groups()[first : first + 4]) for first in (0, 4))
    return (start_s, end_s) if start_s <= end_s else (None, None)


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}"), 3)
