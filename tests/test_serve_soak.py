"""The real server, asked with everything there is for half an hour, while its index changes: it does not grow."""

import base64
import contextlib
import http.client
import itertools
import json
import os
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import must_run
from serving import LATE_S, port_of, process
from test_media_video import grey, sine, write_video

N_CLIENTS = 4
WARM = 0.2  # of the time: until memory is taken as what it is
END = 0.1  # of the time, whose memory is compared with as long a stretch after the warm-up
SAMPLE_S = 1.0
MAX_GROWTH = 0.05  # as promised
KEPT_FILES = 1  # SQLite keeps a closed connection's file for the next one while another connection holds a lock
TIMEOUT_S = 60.0  # that a client waits for an answer
FORM = "xmr-form"
LONG_S, LONG_HZ = 60, 44_100  # of a sound of ten million bytes: more than waits on the way to a client
READ_BYTES = 10_000  # of it, before a client leaves
N_LEAVING = 20  # one after another, at the end

Request = tuple[str, str, bytes | None, str]  # method, path, body, content type


@dataclass
class Server:
    """What is asked of, and what came of it."""

    process: int
    port: int
    answers: "Counter[str]" = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def ask(self, request: Request, expected: int) -> bytes:
        """The body of the answer; none, or another status than the expected, is noted."""
        method, path, body, content_type = request
        kind = f"{method} {path.partition('?')[0].rstrip('0123456789')}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": content_type, "Range": "bytes=0-2047"})
            answered = connection.getresponse()
            content = answered.read()
        except OSError as error:
            self.wrong.append(f"{kind}: {error} at {time.strftime('%X')}")
            return b"{}"
        finally:
            connection.close()
        self.answers[f"{kind} {answered.status}"] += 1
        if answered.status != expected:
            self.wrong.append(f"{kind}: {answered.status} {content[:200]!r} at {time.strftime('%X')}")
        return content

    def leave(self, request: Request, n_bytes: int = 0) -> None:
        """Ask, and be gone: before there is an answer, or after some bytes of it."""
        method, path, body, content_type = request
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            if n_bytes and not connection.sock.recv(n_bytes).startswith(b"HTTP/1.1 200"):
                self.wrong.append(f"{method} {path}: no answer to break off at {time.strftime('%X')}")
        except OSError as error:
            self.wrong.append(f"{method} {path}: {error} at {time.strftime('%X')}")
        finally:
            connection.close()


def post(path: str, **body: object) -> Request:
    return "POST", path, json.dumps(body).encode(), "application/json"


def search(**question: object) -> Request:
    return post("/v1/search", **question)


def upload(path: str, name: str, file: str, content: bytes) -> Request:
    head = f'--{FORM}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
    return "POST", path, head + content + f"\r\n--{FORM}--\r\n".encode(), f"multipart/form-data; boundary={FORM}"


def get(path: str) -> Request:
    return "GET", path, None, "text/plain"


def write_more(corpus: Path) -> None:
    """A film, and a sound of a minute."""
    write_video(corpus / "film.mp4", map(grey, (40, 120, 200)), times=[0.0, 1.0, 2.0], sounds=[(0.0, sine(3.0))])
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (LONG_S * LONG_HZ, 2))
    soundfile.write(corpus / "long.wav", noise, LONG_HZ)


def hit(server: Server, modality: str, where: str) -> dict[str, Any]:
    [found] = json.loads(server.ask(search(text="a dog", to=[modality], where=where, k=1), 200))["hits"]
    return dict(found)


def everything(server: Server, corpus: Path) -> list[tuple[Request, int]]:
    """One request of each kind, with the status that answers it."""
    picture = next(corpus.rglob("*.jpg")).read_bytes()
    sound = next(
        path for path in sorted(corpus.rglob("*")) if path.suffix in (".wav", ".flac") and "long" not in path.name
    )
    pictured = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    heard = f"data:audio/{sound.suffix[1:]};base64,{base64.b64encode(sound.read_bytes()).decode()}"
    seen, listened = hit(server, "image", "path LIKE '%.jpg'"), hit(server, "sound", "path NOT LIKE '%long.wav'")
    moment = hit(server, "image", "path LIKE '%film.mp4'")
    return [
        (search(text="a dog", k=20), 200),
        (search(text="rain", to=["sound"], where="size > 10", group="file", fold=0.99), 200),
        (search(like=[seen["id"]], minus_text="a bell", weights={"minus_text": 0.3}, offset=2), 200),
        (upload("/v1/search", "image", "a.jpg", picture), 200),
        (upload("/v1/search", "video", "film.mp4", (corpus / "film.mp4").read_bytes()), 200),
        (search(sound=heard), 200),
        (post("/v1/embeddings", input=["a dog", "rain", "a bell"]), 200),
        (post("/v1/embeddings", input=pictured, modality="image"), 200),
        (post("/knn-service", text="a dog", modality="image", num_images=5), 200),
        (post("/metadata", ids=[seen["id"], listened["id"]]), 200),
        (upload("/v1/search", "image", "broken.jpg", picture[:300]), 422),
        (search(text="a dog", where="no such thing"), 400),
        (search(colour="red"), 422),
        *((get(path), 200) for path in ("/", "/openapi.json", "/healthz", "/readyz", "/metrics", "/indices-list")),
        (get("/v1/info"), 200),
        (get(f"/v1/items/{seen['id']}"), 200),
        (get(seen["media"]), 206),
        (get(moment["media"]), 206),
        (get(f"{seen['thumbnail']}?size=64"), 200),
        (get(f"{moment['thumbnail']}?size=64"), 200),
        (get(f"{listened['waveform']}?peaks=60"), 200),
        (get(f"/v1/items/{listened['id']}/waveform.png?width=60"), 200),
        (get(f"/v1/items/{seen['id']}/where?text=a+dog"), 200),
        (post(f"/v1/items/{moment['id']}/where", like=seen["id"]), 200),
        (post(f"/v1/items/{listened['id']}/where", image=pictured), 200),
        (get("/v1/items/999999/media"), 404),
    ]


def asking(server: Server, requests: list[tuple[Request, int]], large: Request, end_s: float) -> Callable[[], None]:
    def ask() -> None:
        for number, (request, expected) in enumerate(itertools.cycle(requests)):
            if time.monotonic() > end_s:
                return
            server.ask(request, expected)
            if number % 50 == 0:
                server.leave(requests[0][0])
                server.leave(large, READ_BYTES)

    return ask


def changing(server: Server, world: Path, end_s: float) -> Callable[[], None]:
    def change() -> None:
        for number in itertools.count():
            if time.monotonic() > end_s:
                return
            changed(server, world, number)
            if number % 5 == 4:
                must_run("compact", cwd=world)

    return change


def changed(server: Server, world: Path, number: int) -> None:
    """A line is indexed by the command; a picture is added over HTTP, and deleted."""
    picture = next((world / "corpus").rglob("*.jpg")).read_bytes()
    (world / "corpus" / "line.txt").write_text(f"a dog and a bell {'again ' * (number % 7)}\n")
    must_run("index", "corpus", cwd=world)
    added = server.ask(upload("/v1/items", "file", "new.jpg", picture + number.to_bytes(8)), 201)
    time.sleep(2)
    for item in json.loads(added).get("ids", []):
        server.ask(("DELETE", f"/v1/items/{item}", None, "text/plain"), 200)


def family_of(process: int) -> Iterator[int]:
    """A process and those that it started, and they."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    members = [process]
    for member in members:
        yield member
        members += children.get(member, [])


def used_by(process: int) -> tuple[int, int]:
    """Bytes in memory and open files of the server and the processes that work for it."""
    n_bytes = n_files = 0
    for member in family_of(process):
        try:
            n_bytes += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            n_files += len(list(Path(f"/proc/{member}/fd").iterdir()))
        except OSError:  # it ended meanwhile
            continue
    return n_bytes, n_files


def watched(server: Server, end_s: float) -> list[tuple[float, int, int]]:
    """What the server used, sample by sample: when, bytes, files."""
    samples = []
    while time.monotonic() < end_s:
        samples.append((time.monotonic(), *used_by(server.process)))
        time.sleep(SAMPLE_S)
    return samples


def at_rest(server: Server, world: Path, requests: list[tuple[Request, int]]) -> int:
    """Open files when everything was asked and done once, of an index of as few segments as can be."""
    changed(server, world, 0)
    must_run("compact", cwd=world)
    for request, expected in requests:
        server.ask(request, expected)
    return open_files(server)


def open_files(server: Server) -> int:
    """Once nothing is asked any more."""
    return min(used_by(server.process)[1] for _ in range(20) if time.sleep(0.2) is None)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell what a process uses")
@pytest.mark.parametrize("soak_s", [120, 1800], ids=["for-two-minutes", "for-half-an-hour"])
def test_everything_is_asked_and_the_server_does_not_grow(world: Path, soak_s: int) -> None:
    write_more(world / "corpus")
    must_run("index", "corpus", cwd=world)
    with process(world, "--writable") as (started, line):
        server = Server(started.pid, port_of(line))
        said: list[str] = []
        reading = threading.Thread(target=read_along, args=(started, said))
        reading.start()
        requests = everything(server, world / "corpus")
        large = get(hit(server, "sound", "path LIKE '%long.wav'")["media"])
        files_before = at_rest(server, world, requests)
        start_s = time.monotonic()
        end_s = start_s + soak_s
        work = [asking(server, requests, large, end_s) for _ in range(N_CLIENTS)] + [changing(server, world, end_s)]
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        samples = watched(server, end_s)
        for thread in threads:
            thread.join()
        files_after = at_rest(server, world, requests)
        for _ in range(N_LEAVING):
            server.leave(large, READ_BYTES)
        files_left = open_files(server)
        started.terminate()
        assert started.wait(LATE_S) == 0
        reading.join()
    assert not said, said[:5]
    bytes_before = usual_bytes(samples, start_s + WARM * soak_s, soak_s)
    bytes_after = usual_bytes(samples, end_s - END * soak_s, soak_s)
    tell(server, samples, start_s)
    print(f"memory {bytes_before / 1e6:.1f} -> {bytes_after / 1e6:.1f} MB")
    print(f"open files {files_before} -> {files_after}, {files_left} after media that were left")
    assert not server.wrong, server.wrong[:5]
    assert bytes_after < (1 + MAX_GROWTH) * bytes_before
    assert max(files_after, files_left) <= files_before + KEPT_FILES


def read_along(process: "subprocess.Popen[str]", said: list[str]) -> None:
    """What a server says is read, or it would wait for that; it says nothing but what failed."""
    with contextlib.suppress(ValueError):  # closed when the server is over
        said.extend(process.stderr or ())


def usual_bytes(samples: list[tuple[float, int, int]], begin_s: float, soak_s: int) -> float:
    """Of the samples from a moment on; a change that embeds a file starts a process for a second."""
    return statistics.median(n for at_s, n, _ in samples if begin_s <= at_s < begin_s + END * soak_s)


def tell(server: Server, samples: list[tuple[float, int, int]], start_s: float) -> None:
    """How it went, a line for each twentieth of the time."""
    for at_s, n_bytes, n_files in samples[:: max(1, len(samples) // 20)]:
        print(f"{at_s - start_s:6.0f} s: {n_bytes / 1e6:7.1f} MB, {n_files} files")
    for kind, count in sorted(server.answers.items()):
        print(f"{count:7} {kind}")
    print(f"{server.answers.total()} answers, {len(server.wrong)} of them wrong")
