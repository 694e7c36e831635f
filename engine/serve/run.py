"""Running the application: a socket of its own, no log of who asked what, an end that lets questions be answered."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

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
    except ModuleNotFoundError as error:
        raise XmrError(f'{error.name} is missing, which serving needs; run `pip install "xmr[serve]"`') from None
    _check(index_folder, model_folder)
    opened = bound(settings)
    app = make_app(index_folder, model_folder, settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(address(settings, opened.getsockname()[1]))

    config = uvicorn.Config(
        app,
        access_log=False,  # who asked what is nobody's business
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=30,
        ws="none",
        proxy_headers=False,
    )
    sys.setswitchinterval(SWITCH_S)
    with opened:
        server = Server(config)
        server.run(sockets=[opened])
    if not server.started:
        raise XmrError("the server could not start; the lines above say why")


def bound(settings: Settings) -> socket.socket:
    """A socket that listens; XmrError where another program has the port, or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # named TCP: asyncio sends an answer's parts at once only where it is, and a client waits 40 ms otherwise
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host.strip("[]"), settings.port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        said = error.strerror or error
        raise XmrError(f"{settings.host}:{settings.port}: {said}; choose another --port, or another --host") from None
    return opened


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
