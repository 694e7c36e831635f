"""Lines of text files, read one after the other: a file need not fit in memory, nor need a line."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content

# the marks with which a file tells its encoding, the longer ones first, as they begin like the shorter ones
BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
HEAD_BYTES = 65_536  # that tell whether a file is text
MAX_REPLACED = 0.3  # share of its letters that are none in UTF-8: then it is no text, or not in UTF-8
REPLACED = "\ufffd"
MAX_REST = 1_000_000  # characters of a long line that are passed over at once


@dataclass(frozen=True)
class Said:
    """A text that becomes an item, and where in its file it stands."""

    text: str
    line: int  # from 1
    start_s: float | None = None  # of a subtitle
    end_s: float | None = None
    metadata: Mapping[str, object] | None = None  # of a table's row


def lines_of(content: Content, max_line: int, notes: list[str]) -> Iterator[tuple[int, str]]:
    """The lines as editors number them, from 1, of each its first `max_line` characters.

    UTF-8, or as a byte order mark says; what is no letter in it is replaced and counted in a note. What is no text at
    all raises XmrError.
    """
    with content.open() as raw:
        encoding = _encoding(raw.read(HEAD_BYTES), content)
        raw.seek(0)
        number, n_replaced, n_cut = 0, 0, 0
        # newline=None ends lines where editors do; str.splitlines would also do so at a form feed
        with io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline=None) as file:
            while line := file.readline(max_line + 1):
                number += 1
                n_replaced += line.count(REPLACED)
                is_cut = len(line) > max_line and not line.endswith("\n")
                n_cut += is_cut
                while is_cut and (rest := file.readline(MAX_REST)):
                    n_replaced += rest.count(REPLACED)
                    is_cut = not rest.endswith("\n")
                yield number, line.removesuffix("\n")[:max_line]
    if n_replaced:
        notes.append(f"{content}: not all UTF-8, {n_replaced} characters replaced")
    if n_cut:
        notes.append(f"{content}: {n_cut} lines of more than {max_line:,} characters, cut off there")


def _encoding(head: bytes, content: Content) -> str:
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    encoding = marked or "utf-8-sig"
    letters = head.decode(encoding, errors="replace")
    if "\0" in letters or letters.count(REPLACED) > MAX_REPLACED * len(letters):
        raise XmrError(f"{content}: no text in UTF-8; save it as UTF-8 or take it out")
    return encoding
