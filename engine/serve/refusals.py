"""What a client is told that gets no answer: one sentence, and nothing of where files lie on this machine."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError

RETRY_S = 1  # until a client may ask again


class Refusal(Exception):  # noqa: N818, it is an answer
    """A status of HTTP with a sentence and a word for programs."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    @property
    def record(self) -> dict[str, Any]:
        """The body."""
        return {"error": {"message": self.message, "code": self.code}}


def busy(message: str = "too many questions are waiting; ask again in a second") -> Refusal:
    return Refusal(503, "busy", message, {"Retry-After": str(RETRY_S)})


def no_index() -> Refusal:
    said = "the index is gone, or another model's; its owner has to put it back"
    return Refusal(503, "no_index", said, {"Retry-After": str(RETRY_S)})


def no_item(item: int) -> Refusal:
    return Refusal(404, "no_item", f"no item {item} in this index; take an id that a search gives")


def mistake(error: XmrError, places: Iterable[tuple[Path | str, str]] = ()) -> Refusal:
    """What the engine says of a question, with other words for folders and files of this machine."""
    message = str(error)
    for place, name in sorted(places, key=lambda pair: -len(str(pair[0]))):
        message = message.replace(str(place), name)
    return Refusal(400, "bad_question", message)
