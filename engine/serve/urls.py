"""Files from the web, when the server may fetch them: only from public addresses, only so large, only so long.

A name is looked up once and the connection goes to the address that was checked, so a name that changes its address in
between leads nowhere else. Redirects are followed here, each checked as the first one was.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, urljoin, urlsplit

from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.uploads import Upload, of_file

MAX_REDIRECTS = 3
TOTAL_S = 10.0
PORTS = (80, 443)
REDIRECTS = (301, 302, 303, 307, 308)
ISATAP = 0x5EFE  # of an address of IPv6 that stands for one of IPv4 inside a house (RFC 5214)
UNROUTED = tuple(  # which Python calls global
    map(ipaddress.ip_network, ("3fff::/20", "192.88.99.0/24", "192.0.0.0/24", "5f00::/16"))
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # given up (RFC 3879), and routed in some houses
CHUNK_BYTES = 64 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_url(content: str) -> bool:
    return content[:8].lower().startswith(("http://", "https://"))


def is_public(text: str) -> bool:
    """Whether an address is on the internet, also one of IPv4 that is written as one of IPv6."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address not in SITE_LOCAL and all(map(_is_on_the_internet, _meant(address)))


def _is_on_the_internet(address: Address) -> bool:
    is_routed = not any(address in network for network in UNROUTED)
    return is_routed and address.is_global and not address.is_multicast and not address.is_reserved


def _meant(address: Address) -> list[Address]:
    """The address, and the one of IPv4 that it stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    within: list[ipaddress.IPv4Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    is_isatap = int(address) >> 32 & 0xFFFF == ISATAP
    if address in NAT64 or is_isatap or int(address) >> 32 == 0:
        within.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    inner = [one for one in within if one is not None]
    return [*inner] if address.ipv4_mapped else [address, *inner]


def fetch(
    url: str,
    kind: str,
    max_bytes: int,
    *,
    is_allowed: Callable[[str], bool] = is_public,
    ports: tuple[int, ...] = PORTS,
    total_s: float = TOTAL_S,
) -> Upload:
    """The file at a URL, asked with as `kind`. Refusal for one that may not be fetched, or cannot."""
    deadline_s = time.monotonic() + total_s
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url, ports)
        try:
            found = _ask(parts, kind, max_bytes, deadline_s, is_allowed)
        except TimeoutError:
            raise _refused("the URL could not be fetched in time; send the file itself") from None
        except (OSError, http.client.HTTPException, ssl.SSLError, ValueError):
            in_time = "" if time.monotonic() < deadline_s else " in time"  # what is cut then fails in some way
            raise _refused(f"the URL could not be fetched{in_time}; send the file itself") from None
        if isinstance(found, Upload):
            return found
        url = urljoin(url, found)
    raise _refused(f"more than {MAX_REDIRECTS} redirects found; give the URL that they lead to")


def _checked(url: str, ports: tuple[int, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _refused("no URL found that can be read; write it as https://example.org/dog.jpg") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise _refused("the URL is not of http or https, or carries a name and password; give another one")
    if port not in ports:
        raise _refused(f"port {port} found, only {', '.join(map(str, ports))} are asked; give another URL")
    if not url.isascii() or any(letter <= " " for letter in url):
        raise _refused("a URL with spaces or letters that are not ASCII found; write them in percent")
    return parts


def _address(host: str, port: int, is_allowed: Callable[[str], bool]) -> str:
    """All addresses of a name must be allowed; the first is asked."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not all(map(is_allowed, found)):
        raise _refused("the URL leads to an address that is not on the internet; send the file itself")
    return found[0]


def _ask(
    parts: SplitResult, kind: str, max_bytes: int, deadline_s: float, is_allowed: Callable[[str], bool]
) -> Upload | str:
    """The file, or where it is said to be."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with _connected(parts.scheme, host, port, _address(host, port, is_allowed), deadline_s) as connection:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "*/*", "User-Agent": "xmr", "Accept-Encoding": "identity"})
        response = connection.getresponse()
        if response.status in REDIRECTS and (place := response.getheader("Location")):
            return place
        if response.status != 200:
            raise _refused(f"the URL answers with {response.status}; give one that leads to the file itself")
        content = _body(response, max_bytes, deadline_s)
        return of_file(kind, content, parts.path, response.getheader("Content-Type"))


@contextmanager
def _connected(
    scheme: str, host: str, port: int, address: str, deadline_s: float
) -> Iterator[http.client.HTTPConnection]:
    """To the address that was checked, under the name that the certificate is of; cut at the deadline."""
    left_s = _left(deadline_s)
    connection = http.client.HTTPConnection(host, port, timeout=left_s)
    opened = socket.create_connection((address, port), timeout=left_s)
    with opened:
        if scheme == "https":
            opened = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
        connection.sock = opened
        # who waits for each byte anew waits for ever
        cut = threading.Timer(_left(deadline_s), _cut, [opened])
        cut.daemon = True
        cut.start()
        try:
            yield connection
        finally:
            cut.cancel()
            connection.close()


def _cut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, max_bytes: int, deadline_s: float) -> bytes:
    too_large = _refused(f"more than {max_bytes:,} bytes behind the URL; give a smaller file")
    said = response.getheader("Content-Length") or ""
    if said.isdigit() and int(said) > max_bytes:
        raise too_large
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        _left(deadline_s)
        part = response.read1(CHUNK_BYTES)
        if not part:
            _left(deadline_s)  # what was cut there has no end
            if said.isdigit() and n_bytes < int(said):
                raise _refused("the file behind the URL broke off before its end; ask again, or send the file itself")
            return b"".join(parts)
        n_bytes += len(part)
        if n_bytes > max_bytes:
            raise too_large
        parts.append(part)


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _refused(message: str) -> Refusal:
    return Refusal(400, "url_refused", message)
