"""The token: who brought it, the cookie that stands for it in a browser, and how often a wrong one may be tried.

A program sends the token with every request. A browser sends it once and then a cookie made of it, which nobody finds
by trying: so the cookie is never held back, however many wrong tokens come from the same address.
"""

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

COOKIE = "xmr"
GUESSABLE = 20  # characters; a longer token is not found by trying, so it is never held back
MAX_WRONG, WINDOW_S = 60, 60.0  # tokens of one address; then none of it is looked at until the window ends
MAX_COOKIES = 16  # that are looked at
MAX_ADDRESSES = 1024  # that are remembered

Scope = MutableMapping[str, Any]


class Tokens:
    """Of a server that wants one."""

    def __init__(self, token: str, now: Callable[[], float] = time.monotonic) -> None:
        self._token, self._guesses = token, _Guesses(now)
        self._cookie = hmac.new(token.encode(), b"xmr cookie", hashlib.sha256).hexdigest()

    def brought(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Whether a request has the token: as a cookie, as Authorization: Bearer, or in the address of the page."""
        if any(same(value, self._cookie) for value in _cookies_of(headers)):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.fits(given.strip(), scope)
        is_page = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        return is_page and self.fits(asked_with(scope), scope)

    def fits(self, given: str, scope: Scope) -> bool:
        """Whether it is the token. A wrong one counts; where too many came, none fits."""
        address = _address_of(scope)
        if not given or self.are_spent(scope):
            return False
        is_right = same(given, self._token)
        if not is_right and len(self._token) < GUESSABLE:
            self._guesses.count(address)
        return is_right

    def are_spent(self, scope: Scope) -> bool:
        """Whether too many wrong tokens came from an address of late."""
        return self._guesses.of(_address_of(scope)) >= MAX_WRONG

    def cookie(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """For a browser that opens the page with the token in its address."""
        if scope["path"] == "/" and same(asked_with(scope), self._token):
            return self.cookie_for(headers)
        return None

    def cookie_for(self, headers: Mapping[str, str]) -> str:
        secure = "; Secure" if headers.get("origin", "").startswith("https://") else ""
        return f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict{secure}"


class _Guesses:
    """Wrong tokens by address, each for a window from the first; the address that was added first goes first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def of(self, address: str) -> int:
        begin_s, n_wrong = self._wrong.get(address, (0.0, 0))
        return n_wrong if n_wrong and self._now() - begin_s < WINDOW_S else 0

    def count(self, address: str) -> None:
        n_wrong = self.of(address)
        begin_s = self._wrong[address][0] if n_wrong else self._now()
        self._wrong[address] = begin_s, n_wrong + 1
        if len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)


def same(given: str, expected: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def asked_with(scope: Scope) -> str:
    """What stands for a token in the address."""
    try:
        asked = parse_qs(str(scope["query_string"], "ascii"), max_num_fields=100)
    except ValueError:
        return ""
    return asked.get("token", [""])[0]


def _cookies_of(headers: Mapping[str, str]) -> list[str]:
    """Other programs of the same host may set cookies of any shape beside it, of its name too."""
    pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return [value for name, _, value in pairs if name == COOKIE][:MAX_COOKIES]


def _address_of(scope: Scope) -> str:
    """A client of IPv6 has all addresses of its /64."""
    host = (scope.get("client") or ("",))[0]
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return str(host)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)
