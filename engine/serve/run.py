"""Running the application: a socket of its own, no log of who asked what, an end that lets questions be answered."""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.serve.settings import Settings

GRACE_S = 10  # for what is being answered when the server is told to end
BACKLOG = 1024
SWITCH_S = 0.001  # that the event loop waits at most for a thread that computes in Python


def run(index_folder: Path, model_folder: Path, settings: Settings, *, ready: Callable[[str], None]) -> None:
    """Serve until told to end; `ready` hears the address once questions are answered. XmrError where it cannot."""
    try:
        import uvicorn

        from xmr.engine.serve.app import make_app
        from xmr.engine.serve.connection import Connection
        from xmr.engine.serve.server import Server
    except ModuleNotFoundError as error:
        raise XmrError(f'{error.name} is missing, which serving needs; run `pip install "xmr[serve]"`') from None
    _check(index_folder, model_folder)
    opened = bound(settings)
    app = make_app(index_folder, model_folder, settings)
    config = uvicorn.Config(
        app,
        http=Connection,
        lifespan="off",  # the server opens and closes the service
        access_log=False,  # who asked what is nobody's business
        log_level="error",  # nor a line for each client that speaks no HTTP
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=30,
        ws="none",
        proxy_headers=False,
    )
    sys.setswitchinterval(SWITCH_S)
    logging.basicConfig(format="%(asctime)s %(message)s")
    with opened, _told_to_end():
        place = address(settings, opened.getsockname()[1])
        Server(config, app.state.service, lambda: ready(place)).run(sockets=[opened])


@contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM is how a server ends, and no failure: exit code 0. uvicorn sends it again once questions are answered.

    So it ends too when its terminal is closed, unless it was started to outlive it, as by nohup.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: end}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        handlers[signal.SIGHUP] = hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bound(settings: Settings) -> socket.socket:
    """A socket that listens; XmrError where another program has the port, or the address is not this machine's."""
    opened = None
    try:
        family, kind, protocol, _, place = _place(settings)
        # the protocol is named: asyncio sends an answer's parts at once only then, and a client waits 40 ms otherwise
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.host.strip("[]") == "::":  # everybody, also who comes by IPv4
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(place)
        opened.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if opened is not None:
            opened.close()
        said = (error.strerror if isinstance(error, OSError) else "no name of a host") or error
        raise XmrError(f"{settings.host}:{settings.port}: {said}; choose another --port, or another --host") from None
    return opened


def _place(settings: Settings) -> tuple[Any, ...]:
    """Family, kind, protocol and address of a host; of IPv4 where a name has both, as `localhost`."""
    found = socket.getaddrinfo(
        settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def address(settings: Settings, port: int) -> str:
    """To open in a browser on this machine."""
    host = settings.host
    if host in ("0.0.0.0", "::", "[::]"):
        host = "127.0.0.1"
    return f"http://[{host.strip('[]')}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _check(index_folder: Path, model_folder: Path) -> None:
    """What is wrong with the two is said before anything is bound."""
    from xmr.engine.index import Index
    from xmr.engine.model import Model

    index = Index.open(index_folder)
    try:
        index.check_model(Model.open(model_folder))
    finally:
        index.close()
