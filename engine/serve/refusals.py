"""What a client is told that gets no answer: one sentence, and nothing of where files lie on this machine."""

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError
RETRY_S = 1  # until a client may ask again
ENDING = "ending"
GONE = 499  # as nginx counts it

Places = Iterable[tuple[Path | str, str]]  # on this machine, and what a client reads instead


class Refusal(Exception):  # noqa: N818, it is an answer
    """A status of HTTP with a sentence and a word for programs."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def of(self, part: str, instead_of: str = "") -> "Refusal":
        """The same, told of a part of the question where that is what is wrong."""
        before = f"{instead_of}: " if instead_of else ""
        if self.status >= 500 or not self.message.startswith(before):
            return self
        return Refusal(self.status, self.code, f"{part}: {self.message.removeprefix(before)}", self.headers)

    @property
    def record(self) -> dict[str, Any]:
        """The body."""
        return {"error": {"message": self.message, "code": self.code}}


def busy(message: str = "too many questions are waiting; ask again in a second") -> Refusal:
    return Refusal(503, "busy", message, {"Retry-After": str(RETRY_S)})


def ending() -> Refusal:
    """What is not answered by the time that the server waits no longer."""
    headers = {"Retry-After": str(RETRY_S), "Connection": "close"}
    return Refusal(503, ENDING, "the server ends; ask again when it is back", headers)


def too_slow(answer_s: float) -> Refusal:
    """No client should try this again as it is."""
    return Refusal(503, "too_slow", f"no answer within {answer_s:g} s; ask for something simpler, or again later")


def gone() -> Refusal:
    """Nobody is left to read it; /metrics counts it."""
    return Refusal(GONE, "gone", "the client went away; ask again and wait for the answer")


def disk_full() -> Refusal:
    return Refusal(507, "disk_full", "the server's disk is full; make room on it and ask again")


def no_index(error: XmrError, places: Places = ()) -> Refusal:
    """What the engine says of an index that cannot be asked, which is no client's mistake."""
    return Refusal(503, "no_index", _told(error, places), {"Retry-After": str(RETRY_S)})


def no_item(item: int) -> Refusal:
    return Refusal(404, "no_item", f"no item {item} in this index; take an id that a search gives")


def mistake(error: XmrError, places: Places = ()) -> Refusal:
    """What the engine says of a question."""
    return Refusal(400, "bad_question", _told(error, places))


def _told(error: XmrError, places: Places) -> str:
    """With other words for folders and files of this machine."""
    message = str(error)
    for place, name in sorted(places, key=lambda pair: -len(str(pair[0]))):
        message = message.replace(str(place), name)
    return message
