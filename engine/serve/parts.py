"""An answer that is a stretch of a file: part by part, as fast as the client takes them, and closed however it ends."""

from typing import BinaryIO

from starlette.responses import StreamingResponse

from xmr.engine.serve.messages import Receive, Scope, Send
from xmr.engine.serve.place import Stretch, chunks


class Parts(StreamingResponse):
    """Of an open file, which it closes, also where the client goes in between."""

    def __init__(self, file: BinaryIO, stretch: Stretch, status: int, headers: dict[str, str], kind: str) -> None:
        super().__init__(chunks(file, stretch), status, headers, kind)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
