"""One client's connection, which may not be held for ever by who sends nothing, or a byte at a time.

uvicorn waits for a request as long as the client likes, and accepts as many clients as come. Here each part of a
request has a deadline, and so has what a client leaves unread; where all places are taken, the one that has waited
longest for its client is given up.
"""

import asyncio
import json
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from xmr.engine.serve.guard import CSP, HEADERS
from xmr.engine.serve.refusals import Refusal

MAX_CONNECTIONS = 512
FILES_OF_ONE = 3  # that a connection may have open, with itself, of those that the process may
SEND_S = 30.0  # that a client may leave unread what it is sent
DEADLINES_S = {
    h11.IDLE: 10.0,  # the line of the request and its headers
    h11.SEND_BODY: 40.0,  # its body; the guard tells a slow client of it before
}


def max_connections() -> int:
    """As many as leave the process files to open."""
    n_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, max(1, n_files // FILES_OF_ONE))


class Connection(H11Protocol):
    """Of HTTP/1.1."""

    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _awaited: object = None  # which part of a request the timer is for
    _heard_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard_s = self.loop.time()
        self._watch()
        if len(self.connections) > max_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()
        self._stop_waiting()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as a request is refused as all that is refused."""
        self._refuse(Refusal(400, "bad_request", "no request of HTTP/1.1 can be read here; send one"))

    @property
    def is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and self.conn.their_state is h11.DONE

    def _watch(self) -> None:
        """A deadline is for a whole part of a request, not for its next byte."""
        if self.conn.their_state is self._awaited:
            return
        self._stop_watching()
        self._awaited = self.conn.their_state
        if (left_s := DEADLINES_S.get(self.conn.their_state)) is not None:
            self._timer = self.loop.call_later(left_s, self._give_up)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(Refusal(408, "too_slow", "the request did not come in time; send it faster"))
        else:
            self.transport.abort()

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        longest = min(others, key=lambda one: (one.is_answering, one._heard_s))
        longest.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun
            return self.transport.abort()
        body = json.dumps(refusal.record).encode()
        told = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        told |= HEADERS | {"Content-Security-Policy": CSP, "Cache-Control": "no-store"}
        response = h11.Response(status_code=refusal.status, headers=[*told.items()])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        return self.transport.close()
