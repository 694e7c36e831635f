"""A small server that speaks the API the search page is written for, over a few items that are made here."""

import io
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

WEB = Path(__file__).parents[1] / "engine" / "web"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# the strictest under which the page has to work: no string ever becomes markup or code
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)
ATTACK = "<img src=x onerror=window.owned=1><script>window.owned=1</script>"
MODALITIES = ["image", "sound", "speech", "text"]
Reply = tuple[int, dict[str, Any]]


@dataclass
class Standin:
    """What it was asked, and where it is."""

    items: list[dict[str, Any]]
    media: dict[int, tuple[str, bytes]]
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies of searches
    looked: list[str] = field(default_factory=list)  # addresses of /where
    looked_for: list[dict[str, Any]] = field(default_factory=list)  # bodies of /where
    added: list[bytes] = field(default_factory=list)  # bodies of forms
    counts: dict[str, int] = field(default_factory=lambda: {"image": 3, "sound": 1, "text": 2})
    n_busy: int = 1  # times that "busy" is refused
    is_locked: bool = False  # a token is wanted
    is_writable: bool = False
    version: str = "1"
    examples: dict[str, Any] | None = None

    def search(self, body: dict[str, Any]) -> Reply:
        self.asked.append(body)
        words = (body.get("text") or [""])[0]
        if words == "slow":
            time.sleep(1.5)
        if words == "busy" and self.n_busy:
            self.n_busy -= 1
            return 503, _refusal("200 questions wait already; ask again in a second", "busy")
        if "nonsense" in body.get("where", ""):
            return 400, _refusal("condition 'nonsense': no column nonsense found; there are id, path", "where")
        found = [] if words == "nothing" or body.get("min_score", 0) > 0.9 else self.items
        if "to" in body:
            found = [item for item in found if item["modality"] in body["to"]]
        found = found * (15 if words == "many" else 1)
        page = found[body["offset"] : body["offset"] + body["k"]]
        hits = [item | {"rank": rank, "score": 0.9 - rank / 100} for rank, item in enumerate(page, body["offset"] + 1)]
        return 200, {"hits": hits, "took_ms": 3.2, "offset": body["offset"], "k": body["k"], "version": self.version}

    def info(self) -> dict[str, Any]:
        told = {"model": "tiny", "modalities": MODALITIES, "counts": self.counts, "max_body_bytes": 1_000_000}
        told |= {"maps": ["image", "sound"], "writable": self.is_writable, "version": self.version}
        return told | ({"examples": self.examples} if self.examples else {})

    def add(self, form: bytes) -> Reply:
        self.added.append(form)
        if b"broken" in form:
            return 422, _refusal("no picture can be read; send a whole file", "bad_file")
        self.counts["image"] += 1
        self.version += "+"
        notes = ["short.wav: cut short, 2.0 of 4.0 s are there"] if b"short" in form else []
        return 201, {"ids": [100 + len(self.added)], "notes": notes}

    def delete(self, number: int, *, whole_file: bool) -> Reply:
        [path] = [item["path"] for item in self.items if item["id"] == number]
        gone = [item["id"] for item in self.items if item["id"] == number or (whole_file and item["path"] == path)]
        self.items = [item for item in self.items if item["id"] not in gone]
        self.version += "-"
        return 200, {"deleted": number, "ids": gone}


def _refusal(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def picture(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (160, 120)) -> bytes:
    """A JPEG of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def tone(seconds: float = 4.0, rate_hz: int = 8000) -> bytes:
    """A WAV file."""
    import soundfile

    file = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(file, samples, rate_hz, format="WAV")
    return file.getvalue()


def video(seconds: int = 4) -> bytes:
    """A WebM file of VP8; b"" without PyAV or its encoder."""
    try:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format="webm") as container:
            stream = container.add_stream("vp8", rate=5)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(5 * seconds):
                shade = np.full((48, 64, 3), 10 * number % 255, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            container.mux(stream.encode(None))
    except (ImportError, ValueError):
        return b""
    return file.getvalue()


def _item(number: int, modality: str, path: str, **more: Any) -> dict[str, Any]:
    address = f"/v1/items/{number}"
    item = {"id": number, "modality": modality, "path": path, "start_s": None, "end_s": None, "text": None}
    item |= {"medium": {".jpg": "image", ".wav": "audio", ".webm": "video"}.get(Path(path).suffix, "text")}
    item |= {"metadata": None, "folded": [], "media": f"{address}/media", "thumbnail": None, "waveform": None}
    item |= {"thumbnail": f"{address}/thumbnail"} if modality == "image" else {}
    return item | ({"waveform": f"{address}/waveform"} if modality == "sound" else {}) | more


def standin() -> Standin:
    """A picture, a sound, a sentence, a moment of a video, and two that attack."""
    items = [
        _item(1, "image", "holiday/red.jpg", metadata={"place": "Rome"}, folded=[7, 8]),
        _item(2, "sound", "sounds/tone.wav", start_s=1.0, end_s=2.0),
        _item(3, "text", "notes.txt", text="A red bell."),
        _item(4, "image", "clip.webm", start_s=2.0, end_s=3.0),
        _item(5, "image", f"{ATTACK}/{ATTACK.replace('/', '')}.jpg", metadata={ATTACK: ATTACK}, text=ATTACK),
        _item(6, "text", "evil\u202egpj.txt", text=f"{ATTACK}\u202e"),
    ]
    media = {1: ("image/jpeg", picture()), 2: ("audio/wav", tone()), 3: ("text/plain", b"A red bell.")}
    media |= {4: ("video/webm", video()), 5: ("image/jpeg", picture((0, 0, 200))), 6: ("text/plain", b"")}
    return Standin(items, media)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: Standin

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self._is_allowed():
            return
        if found := re.fullmatch(r"/v1/items/(\d+)/where", self.path):
            self.standin.looked_for.append(json.loads(body))
            self._where(int(found[1]), {})
            return
        self._reply(self.standin.add(body) if self.path == "/v1/items" else self.standin.search(json.loads(body)))

    def do_DELETE(self) -> None:
        if self._is_allowed():
            path, _, query = self.path.rpartition("/")[2].partition("?")
            self._reply(self.standin.delete(int(path), whole_file=query == "whole_file=true"))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/" or url.path.startswith("/web/"):
            file = WEB / (url.path.removeprefix("/web/").strip("/") or "index.html")
            self._send(200, KINDS[file.suffix], file.read_bytes()) if file.is_file() else self._refuse(404)
        elif url.path == "/v1/info":
            if self._is_allowed():
                self._json(self.standin.info())
        elif found := re.fullmatch(r"/v1/items/(\d+)(?:/(\w+))?", url.path):
            self._item(int(found[1]), found[2], url.query)
        else:
            self._refuse(404)

    def _item(self, number: int, part: str | None, query: str) -> None:
        if part == "media":
            self._send_range(*self.standin.media[number])
        elif part == "thumbnail":
            self._send(200, "image/jpeg", picture())
        elif part == "waveform":
            self._json({"peaks": [[-place / 100, place / 100] for place in range(100)], "duration_s": 4.0})
        elif part == "where":
            self.standin.looked.append(self.path)
            self._where(number, parse_qs(query))
        else:
            item = next(item for item in self.standin.items if item["id"] == number)
            n_of_file = [other["path"] for other in self.standin.items].count(item["path"])
            self._json(item | {"rank": 1, "score": 1, "n_of_file": n_of_file})

    def _where(self, number: int, query: dict[str, list[str]]) -> None:
        if query.get("text") == ["no maps"]:
            self._refuse(422, "model tiny keeps no maps of image; export it with them")
        elif self.standin.items[number - 1]["modality"] == "sound":
            spans = [[0, 1], [1, 2], [2, 4]]
            found = {"score": 0.5, "seconds": 1.5, "span_s": [1.0, 2.0], "duration_s": 4.0}
            self._json(found | {"spans_s": spans, "values": [0, 1, 0.2]})
        else:
            found = {"score": 0.5, "point": [40, 30], "box": [20, 15, 60, 40], "size": [160, 120]}
            self._json(found | {"values": [[0, 1], [0, 0]], "area": [20, 0, 120, 120]})

    def _is_allowed(self) -> bool:
        if self.standin.is_locked:
            self._refuse(401, "no token found; give the one that the server was started with")
        return not self.standin.is_locked

    def _reply(self, reply: Reply) -> None:
        status, said = reply
        self._send(status, "application/json", json.dumps(said).encode())

    def _json(self, said: object) -> None:
        self._send(200, "application/json", json.dumps(said).encode())

    def _refuse(self, status: int, message: str = "not here") -> None:
        self._send(status, "application/json", json.dumps(_refusal(message, str(status))).encode())

    def _send_range(self, kind: str, content: bytes) -> None:
        """Browsers seek by asking for a part."""
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            start, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
            self._send(206, kind, content[start : end + 1], {"content-range": f"bytes {start}-{end}/{len(content)}"})
            return
        self._send(200, kind, content, {"accept-ranges": "bytes"})

    def _send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {"content-type": kind, "content-length": str(len(content)), "content-security-policy": POLICY}
        sent |= {"x-content-type-options": "nosniff"} | ({"retry-after": "1"} if status == 503 else {})
        for name, value in (sent | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def served(made: Standin) -> Iterator[Standin]:
    """It answers on a free port of this machine inside."""
    handler = type("Answering", (Handler,), {"standin": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    made.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
