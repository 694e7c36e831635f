"""What every request passes before a route sees it: who asks, from where, how much, how slowly; and what goes back.

Plain ASGI. A refusal is answered here with its one sentence. What fails unforeseen is told in the log by its place in
the code and nothing that a client sent.
"""

import asyncio
import ipaddress
import json
import logging
import re
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from xmr.engine.serve import entrance
from xmr.engine.serve.entrance import Entrance
from xmr.engine.serve.messages import App, Message, Receive, Scope, Send, headers_of
from xmr.engine.serve.refusals import ENDING, GONE, Refusal, busy, ending
from xmr.engine.serve.service import Service
from xmr.engine.serve.settings import LOCALHOST, Settings
from xmr.engine.serve.tokens import WINDOW_S, Tokens

OPEN = frozenset({"/healthz"})
HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.%]+\])(:\d{1,5})?")
MAX_BODIES = 32  # of the largest size, that are held at once
PREFLIGHT_S = 600  # that a browser remembers that a page of another origin may ask
LINGER_S = 2.0  # that the rest of a body is taken that is refused
MAX_PATH = 1000  # characters; the longest address that leads somewhere is far shorter
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
MEDIA_CSP = "default-src 'none'; frame-ancestors 'none'; sandbox"  # of what comes from the corpus
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}
UNKEPT = (b"cache-control", b"no-store")  # unless a route says how long
UNKNOWN = "other"  # the route of a request to nowhere

log = logging.getLogger("xmr.serve")


class Guard:
    """Around the routes."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service, self._settings = app, service, (settings := service.settings)
        self._tokens = Tokens(settings.token) if settings.token is not None else None
        self._entrance = Entrance(self._tokens) if self._tokens is not None else None
        self._bodies = _Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start_s = time.perf_counter()
        if scope["method"] == "HEAD" and not _is_media(scope["path"]):  # the connection leaves the body out
            scope = {**scope, "method": "GET"}
        answer = _Answer(scope, send, self._service)
        try:
            app = self._admitted(scope, answer)
            if len(scope["path"]) > MAX_PATH:
                raise Refusal(414, "too_long", f"a path of more than {MAX_PATH:,} characters found; send a shorter one")
            with _Body(receive, self._settings, self._bodies) as body:
                answer.body = body
                body.check_length(scope)
                await app(scope, body.receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except ClientDisconnect:  # nothing failed, and nobody is left to be told
            answer.status = GONE
        except asyncio.CancelledError:  # nothing is around this to be told of it
            await answer.refuse(ending())
        except Exception as error:
            _note(error)
            await answer.refuse(Refusal(500, "failed", "the server failed at this; its log says where"))
        route = getattr(scope.get("route"), "path", UNKNOWN)
        self._service.measures.answered(route, answer.status, time.perf_counter() - start_s)

    def _admitted(self, scope: Scope, answer: "_Answer") -> App:
        """What answers: the routes, or the page that asks for the token. Refusal for who may not ask."""
        if scope["path"] in OPEN:
            return self._app
        headers = headers_of(scope)
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        if self._is_preflight(scope, headers):
            return _welcome
        if self._tokens is None or self._entrance is None:
            return self._app
        is_known = self._tokens.brought(scope, headers)
        if self._entrance.takes(scope, is_known=is_known):
            answer.policy = entrance.POLICY
            return self._entrance
        if not is_known:
            raise _unknown(self._tokens, scope)
        answer.cookie = self._tokens.cookie(scope, headers)
        return self._app

    def _is_preflight(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Browsers send no token when they ask whether a page of an origin that was named may."""
        is_asked = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        return is_asked and headers.get("origin") in self._settings.cors

    def _check_host(self, host: str) -> None:
        """A page elsewhere may give a name of its own to this machine's address: without a token that is refused."""
        if self._settings.token is not None or not self._settings.is_local:
            return
        name = (urlsplit(f"//{host}").hostname or "") if _is_host(host) else ""
        if name not in (LOCALHOST, self._settings.host.strip("[]")) and not _is_loopback(name):
            raise Refusal(421, "wrong_host", "this server answers to localhost alone; start it with a token for others")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Pages of other origins ask nothing, unless they were named."""
        origin = headers.get("origin")
        if origin is None or origin in self._settings.cors:
            return
        if (
            origin == "null"
            or not _is_host(origin.partition("://")[2])
            or urlsplit(origin).netloc != headers.get("host")
        ):
            raise Refusal(403, "wrong_origin", "a page of another origin asks; allow it with --cors")


@dataclass
class _Bodies:
    """Of the requests that are not answered yet."""

    n_bytes: int = 0


class _Body:
    """What a client sends, up to a size and for a time; and no more than there is room for beside the others."""

    def __init__(self, receive: Receive, settings: Settings, bodies: _Bodies) -> None:
        self._receive, self._settings, self._bodies = receive, settings, bodies
        self._n_bytes, self._until_s = 0, time.monotonic() + settings.body_s
        self._is_read = False
        self._waits_to_send = False  # the client, for a word that it may (RFC 9110, 10.1.1)
        self.refusal: Refusal | None = None  # that reading ended with, whatever a route makes of it

    def check_length(self, scope: Scope) -> None:
        """Refusal where more is announced than may come."""
        headers = headers_of(scope)
        self._waits_to_send = headers.get("expect", "").lower() == "100-continue"
        said = headers.get("content-length", "")
        if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > self._settings.max_body_bytes):
            raise self._too_large()

    def __enter__(self) -> "_Body":
        return self

    def __exit__(self, *failed: object) -> None:
        self._bodies.n_bytes -= self._n_bytes

    async def receive(self) -> Message:
        try:
            return await self._received()
        except Refusal as refusal:
            self.refusal = refusal
            raise

    async def _received(self) -> Message:
        if self._is_read:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until_s - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408, "too_slow", f"the request did not come within {self._settings.body_s:g} s; send it faster",
                {"Connection": "close"},
            ) from None  # fmt: skip
        self._is_read = message["type"] != "http.request" or not message.get("more_body", False)
        n_bytes = len(message.get("body", b""))
        self._n_bytes += n_bytes
        self._bodies.n_bytes += n_bytes
        if self._n_bytes > self._settings.max_body_bytes:
            raise self._too_large()
        if self._bodies.n_bytes > MAX_BODIES * self._settings.max_body_bytes:
            raise busy("too much is being sent at once; ask again in a second")
        return message

    async def drop_rest(self) -> None:
        """Read what still comes, for a while: an answer to who is still sending would be lost with the connection."""
        if self._waits_to_send and not self._n_bytes:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._is_read:
                    message = await self._receive()
                    self._is_read = message["type"] != "http.request" or not message.get("more_body", False)

    def _too_large(self) -> Refusal:
        largest = f"{self._settings.max_body_bytes:,} bytes"
        return Refusal(413, "too_large", f"a body of more than {largest} found; send less", {"Connection": "close"})


class _Answer:
    """What goes back, with the headers that every answer has."""

    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self._scope, self._send, self._service, self._settings = scope, send, service, service.settings
        self.status = 0  # none was sent yet
        self._is_over = False  # what a route sends now is dropped
        self.cookie: str | None = None
        self.policy = MEDIA_CSP if _is_media(scope["path"]) else CSP
        self.body: _Body | None = None

    async def send(self, message: Message) -> None:
        if self.body is not None and (refusal := self.body.refusal) is not None:
            self.body.refusal = None
            if not self.status:
                await self.refuse(refusal)
                self._is_over = True
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = {name.lower().encode(): value.encode() for name, value in self._headers().items()}
            told = [(name, value) for name, value in message.get("headers", []) if name.lower() not in more]
            if not any(name.lower() == UNKEPT[0] for name, _ in told):
                told.append(UNKEPT)
            message = {**message, "headers": [*told, *more.items()]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        if self.status:  # the answer has begun: all that is left is to end it early
            return
        if self.body is not None and refusal.status in (413, 503) and refusal.code != ENDING:
            await self.body.drop_rest()
        body = json.dumps(refusal.record).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        written = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": written})
        await self._send({"type": "http.response.body", "body": body})

    def _headers(self) -> dict[str, str]:
        headers = {**HEADERS, "Content-Security-Policy": self.policy}
        origin = headers_of(self._scope).get("origin")
        if origin in self._settings.cors and origin is not None:
            headers |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Range"
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
            headers["Access-Control-Expose-Headers"] = "Retry-After, Content-Range, Accept-Ranges, ETag"
            headers["Access-Control-Max-Age"] = f"{PREFLIGHT_S}"
        if self.cookie is not None:
            headers["Set-Cookie"] = self.cookie
        if self._service.is_ending:  # a client that would ask again on this connection finds it closed
            headers["Connection"] = "close"
        return headers


async def _welcome(scope: Scope, receive: Receive, send: Send) -> None:
    """What browsers ask before a page of another origin may; the answer is in the headers that all have."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _unknown(tokens: Tokens, scope: Scope) -> Refusal:
    headers = {"WWW-Authenticate": "Bearer"}
    if not tokens.are_spent(scope):
        return Refusal(401, "no_token", "no token, or a wrong one; send it as Authorization: Bearer TOKEN", headers)
    said = "too many wrong tokens came from this address; ask again in a minute"
    return Refusal(401, "no_token", said, headers | {"Retry-After": f"{WINDOW_S:.0f}"})


def _is_media(path: str) -> bool:
    """Whether it leads to bytes of the corpus."""
    return path.startswith("/v1/items/") and path.endswith("/media")


def _is_host(text: str) -> bool:
    """A name or address, and a port if any."""
    return HOST.fullmatch(text) is not None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _note(error: Exception) -> None:
    """Where in the code, and of what kind; its words may be a client's."""
    places = traceback.extract_tb(error.__traceback__)[-4:]
    told = " < ".join(
        f"{place.name} ({place.filename.rpartition('/')[2]}:{place.lineno})" for place in reversed(places)
    )
    number = f" {error.errno}" if isinstance(error, OSError) else ""
    log.error("failed: %s%s in %s", type(error).__name__, number, told)
