"""uvicorn's server around a service: opened before the first client, closed behind the last.

Not by ASGI's lifespan, which prints a traceback where the service cannot be opened: here XmrError comes through.
"""

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from xmr.engine.serve.service import Service


class Server(uvicorn.Server):
    """`ready` is called once questions are answered."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._service.start()
        except BaseException:
            await self._service.stop()
            raise
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._service.is_ending = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._service.stop()
