"""What every request passes before a route sees it: who asks, from where, how much, how slowly; and what goes back.

Plain ASGI. A refusal is answered here with its one sentence. What fails unforeseen is told in the log by its place in
the code and nothing that a client sent.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from xmr.engine.serve.measures import Measures
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.settings import LOCALHOST, Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = frozenset({"/healthz"})
COOKIE = "xmr"
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
MEDIA_CSP = "default-src 'none'; sandbox"  # of what comes from the corpus
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
UNKNOWN = "other"  # the route of a request to nowhere

log = logging.getLogger("xmr.serve")


class Guard:
    """Around the routes."""

    def __init__(self, app: App, settings: Settings, measures: Measures) -> None:
        self._app, self._settings, self._measures = app, settings, measures

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start_s = time.perf_counter()
        answer = _Answer(scope, send, self._settings)
        try:
            self._check(scope)
            answer.cookie = self._cookie(scope)
            body = answer.body = _Body(scope, receive, self._settings)
            await self._app(scope, body.receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except Exception as error:
            _note(error)
            await answer.refuse(Refusal(500, "failed", "the server failed at this; its log says where"))
        route = getattr(scope.get("route"), "path", UNKNOWN)
        self._measures.answered(route, answer.status, time.perf_counter() - start_s)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        """Refusal for who may not ask."""
        headers = _headers(scope)
        if scope["path"] in OPEN:
            return
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        if self._settings.token is not None and scope["method"] != "OPTIONS" and not self._knows(scope, headers):
            raise Refusal(
                401, "no_token", "no token, or a wrong one; send it as Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

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

    def _knows(self, scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> bool:
        token = self._settings.token or ""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), token):
            return True
        if _same(_cookie_of(headers), _cookie_value(token)):
            return True
        return scope["path"] == "/" and scope["method"] == "GET" and _same(_token_asked(scope), token)

    def _cookie(self, scope: MutableMapping[str, Any]) -> str | None:
        """For a browser that opened the page with the token in its address."""
        token = self._settings.token
        if token is None or scope["path"] != "/" or not _same(_token_asked(scope), token):
            return None
        return f"{COOKIE}={_cookie_value(token)}; Path=/; HttpOnly; SameSite=Strict"


class _Body:
    """What a client sends, up to a size and for a time."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        self._n_bytes, self._until_s = 0, time.monotonic() + settings.body_s
        self._is_read = False
        self.refusal: Refusal | None = None  # that reading ended with, whatever a route makes of it
        said = _headers(scope).get("content-length", "")
        if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > settings.max_body_bytes):
            raise self._too_large()

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
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._settings.max_body_bytes:
            raise self._too_large()
        return message

    def _too_large(self) -> Refusal:
        largest = f"{self._settings.max_body_bytes:,} bytes"
        return Refusal(413, "too_large", f"a body of more than {largest} found; send less", {"Connection": "close"})


class _Answer:
    """What goes back, with the headers that every answer has."""

    def __init__(self, scope: MutableMapping[str, Any], send: Send, settings: Settings) -> None:
        self._scope, self._send, self._settings = scope, send, settings
        self.status = 0  # none was sent yet
        self._is_over = False  # what a route sends now is dropped
        self.cookie: str | None = None
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
            message = {**message, "headers": [*told, *more.items()]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        if self.status:  # the answer has begun: all that is left is to end it early
            return
        body = json.dumps(refusal.record).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        written = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": written})
        await self._send({"type": "http.response.body", "body": body})

    def _headers(self) -> dict[str, str]:
        path = self._scope["path"]
        is_media = path.startswith("/v1/items/") and path.endswith("/media")
        headers = {**HEADERS, "Content-Security-Policy": MEDIA_CSP if is_media else CSP}
        origin = _headers(self._scope).get("origin")
        if origin in self._settings.cors and origin is not None:
            headers |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Range"
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
        if self.cookie is not None:
            headers["Set-Cookie"] = self.cookie
        return headers


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _same(given: str, expected: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _cookie_value(token: str) -> str:
    return hmac.new(token.encode(), b"xmr cookie", hashlib.sha256).hexdigest()


def _cookie_of(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return str(found.value) if found is not None else ""


def _token_asked(scope: MutableMapping[str, Any]) -> str:
    try:
        asked = parse_qs(str(scope["query_string"], "ascii"), max_num_fields=100)
    except ValueError:
        return ""
    return asked.get("token", [""])[0]


def _is_host(text: str) -> bool:
    try:
        return bool(urlsplit(f"//{text}").hostname)
    except ValueError:
        return False


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
    log.error("failed: %s in %s", type(error).__name__, told)
