"""What a browser sees that comes without the token: a page that asks for it, and works without scripts.

Its form goes to the address that was asked for, so that a shared question is there once the token is given.
"""

import base64
import hashlib
from urllib.parse import parse_qs, parse_qsl, urlencode

from xmr.engine.serve.messages import Receive, Scope, Send, headers_of
from xmr.engine.serve.tokens import COOKIE, WINDOW_S, Tokens, asked_with

MAX_FORM_BYTES = 4096
STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:18vh auto;padding:0 1rem}"
    "h1{font-size:1.5rem}label,input,button{display:block;font:inherit;width:100%;box-sizing:border-box}"
    "input,button{padding:.5rem .75rem;margin-top:.5rem}"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>xmr: token needed</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>This index asks for a token</h1>
<p role="status">{said}</p>
<form method="post">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button>
</form>
</main>
</body>
</html>
"""
POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
NEEDED = "It is the one that the server was started with; whoever started it can tell you."
WRONG = "That token is wrong. Look at the one that the server was started with, and try again."
SPENT = f"Too many wrong tokens came from your address. Wait {WINDOW_S:.0f} seconds, then try again."


class Entrance:
    """Answers where a browser signs in or out, and to one that has not yet."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def takes(self, scope: Scope, *, is_known: bool) -> bool:
        if scope["path"] != "/":
            return False
        if scope["method"] in ("POST", "DELETE"):
            return True
        is_browser = "text/html" in headers_of(scope).get("accept", "")
        return scope["method"] == "GET" and is_browser and not is_known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "DELETE":
            return await _answer(send, 204, {"set-cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"})
        given = await _given(receive) if scope["method"] == "POST" else asked_with(scope)
        if scope["method"] == "POST" and self._tokens.fits(given, scope):
            cookie = self._tokens.cookie_for(headers_of(scope))
            return await _answer(send, 303, {"location": _without_token(scope), "set-cookie": cookie})
        said = SPENT if self._tokens.are_spent(scope) else WRONG if given else NEEDED
        headers = {"content-type": "text/html; charset=utf-8", "www-authenticate": "Bearer"}
        return await _answer(send, 401, headers, PAGE.format(style=STYLE, said=said).encode())


async def _given(receive: Receive) -> str:
    """The field of the form; "" for what is none."""
    body, is_more = b"", True
    while is_more and len(body) <= MAX_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        is_more = message["type"] == "http.request" and message.get("more_body", False)
    if is_more or len(body) > MAX_FORM_BYTES:
        return ""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=10).get("token", [""])[0]
    except ValueError:
        return ""


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes = b"") -> None:
    headers = headers | ({"content-length": str(len(body))} if status != 204 else {})
    written = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": written})
    await send({"type": "http.response.body", "body": body})


def _without_token(scope: Scope) -> str:
    """The page, asked what it was asked."""
    try:
        asked = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return "./"
    kept = urlencode([(name, value) for name, value in asked if name != "token"])
    return f"./?{kept}" if kept else "./"
