"""Commands that serve an index: to programs over HTTP, and to a browser as a page."""

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from xmr.engine import terminal, workspace
from xmr.engine.cli.options import DeviceOption, IndexOption, ModelOption, RuntimeOption
from xmr.engine.errors import UsageError, XmrError

RAN_S = 5.0  # a browser that was closed, or interrupted, after so long was there

TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File whose first line, when the server starts, is the token: it then stands in no list of processes."
    ),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; another than this machine's needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(help="That every request brings, as Authorization: Bearer; a browser is asked for it.")
    ] = None,
    token_file: TokenFile = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines ask without a token.")] = False,
    writable: Annotated[
        bool,
        typer.Option(
            "--writable", help="Let clients add and delete items; added files lie beside the index, in INDEX-uploads."
        ),
    ] = False,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch files that questions name by URL, from public addresses.")
    ] = False,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Let pages of https://example.org ask; may be repeated.")
    ] = None,
    model: ModelOption = None,
    index: IndexOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Serve an index over HTTP: an API under /v1, described in /openapi.json, and a page to search with at /.

    For a team, with a proxy in front that speaks HTTPS and passes Host on: xmr serve --token-file secret

    Ctrl-C, SIGTERM or a closed terminal ends it when what was asked is answered, a second Ctrl-C at once.

    Example: xmr serve --port 8000

    Example: xmr serve --host 0.0.0.0 --token-file secret
    """
    from xmr.engine.serve.run import run
    from xmr.engine.serve.settings import Settings

    secret = _token(token, token_file)

    def ready(address: str) -> None:
        _tell(address, "it asks for the token; " if secret is not None else "")

    settings = Settings(
        host, port, secret, insecure, writable, allow_urls, tuple(cors or ()), device=device, runtime=runtime
    )
    run(_folder(index, "index"), _folder(model, "model"), settings, ready=ready)


def open_page(
    model: ModelOption = None,
    index: IndexOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Serve an index to this machine alone, on a free port, and open the page to search with.

    Example: xmr open
    """
    from xmr.engine.serve.run import run
    from xmr.engine.serve.settings import Settings

    def ready(address: str) -> None:
        _tell(address)
        if browser:
            threading.Thread(target=_browse, args=[address], daemon=True).start()

    settings = Settings(port=0, device=device, runtime=runtime)
    run(_folder(index, "index"), _folder(model, "model"), settings, ready=ready)


def _browse(address: str) -> None:
    """In a thread of its own: some browsers keep who started them waiting until they are closed."""
    import webbrowser

    start_s = time.monotonic()
    if not webbrowser.open(address) and time.monotonic() - start_s < RAN_S:
        terminal.note("no browser found here; open the address in one")


def _tell(address: str, more: str = "") -> None:
    terminal.note(f"serving at {address} ({more}Ctrl-C ends it)")


def _folder(given: Path | None, name: str) -> Path:
    return given or workspace.default_folder(name)


def _token(token: str | None, token_file: Path | None) -> str | None:
    if token is not None and token_file is not None:
        raise UsageError("--token and --token-file given; give one of them")
    if token_file is None:
        return token
    from xmr.engine.serve.settings import fault_of_token

    try:
        lines = token_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise XmrError(f"{token_file}: {error.strerror}; name a file with the token on its first line") from None
    if not lines or not lines[0].strip():
        raise XmrError(f"{token_file}: empty; write the token on the first line")
    secret = lines[0].strip()
    if fault := fault_of_token(secret):
        raise XmrError(f"{token_file}: {fault}")
    return secret


COMMANDS = {"serve": serve, "open": open_page}
