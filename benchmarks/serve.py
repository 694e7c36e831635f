"""Text queries over HTTP: one client, then 32 at once, on 100,000 rows; and whether /healthz answers meanwhile.

    python benchmarks/serve.py MODEL [--rows 100000] [--clients 32] [--seconds 15]

The rows are random unit vectors. Asked are `xmr serve` and, on the same rows, `serve_peer.py`: the same encoder and
faiss, one question at a time. No two questions that wait together are equal. The clients are sockets of one loop in
this process, each of which asks again as soon as it has its answer. They take from the same cores as the server: the
last columns tell how many both were busy with. The last row of a server is as the one before, beside slow clients that
send a byte a second of requests without an end.
"""

import argparse
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmr.engine.media.text import MARKS
from xmr.engine.model import Model

N_QUESTIONS = 2000  # far more than wait at once
N_WORDS = (3, 7)  # of a question, the second one excluded
N_SLOW = 64
SLOW_S = 1.0  # between two bytes of a slow client
UNFINISHED = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{",
)
WARM_S = 3.0
LOOK_S = 0.1  # between two looks at /healthz
TICK_S = os.sysconf("SC_CLK_TCK")
TITLES = (
    "server", "clients", "questions/s", "p50 ms", "p99 ms", "p99/p50", "/healthz at most ms", "cores of server",
    "cores of clients",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_index(folder, asked.model, asked.rows)
        questions = itertools.cycle(sentences(asked.model))
        print(f"| {' | '.join(TITLES)} |\n|{' --- |' * len(TITLES)}")
        rates = {}
        for server, command in commands(folder, asked.model).items():
            for clients, load in measured(command, questions, asked.clients, asked.seconds):
                rates[server, clients] = load.rate
                tell(server, clients, load)
    many = str(asked.clients)
    ours, alone, theirs = rates["xmr serve", many], rates["xmr serve", "1"], rates["peer", many]
    print(f"{asked.clients} clients: {ours / alone:.1f}x of one client's rate, {ours / theirs:.1f}x of the peer's")


def make_index(folder: Path, model_folder: Path, n_rows: int) -> None:
    """Through `xmr index --from`, as others bring their embeddings."""
    model = Model.open(model_folder)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, model.dim), dtype=np.float32)
    np.save(folder / "rows.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    modality = next(name for name in ("image", "sound") if name in model.modalities)
    with (folder / "rows.jsonl").open("w") as listed:
        for number in range(n_rows):
            listed.write(json.dumps({"path": f"/corpus/{number:06}.jpg", "modality": modality}) + "\n")
    options = [folder / "rows.npy", "--list", folder / "rows.jsonl", "--index", folder / "index"]
    subprocess.run([*map(str, [xmr(), "index", "--from", *options, "--model", model_folder])], check=True)


def sentences(model_folder: Path) -> list[bytes]:
    """Requests that differ, of words that the model knows."""
    known = [word for word in Model.open(model_folder).preprocessing["text"].vocabulary if word not in MARKS]
    rng = np.random.default_rng(0)
    drawn = (" ".join(rng.choice(known, n_words)) for n_words in rng.integers(*N_WORDS, 2 * N_QUESTIONS))
    return [question(words) for words in list(dict.fromkeys(drawn))[:N_QUESTIONS]]


def commands(folder: Path, model: Path) -> dict[str, list[object]]:
    peer = Path(__file__).with_name("serve_peer.py")
    return {
        "xmr serve": [xmr(), "serve", "--port", "0", "--index", folder / "index", "--model", model],
        "peer": [sys.executable, peer, model, folder / "rows.npy", folder / "rows.jsonl"],
    }


def xmr() -> Path:
    return Path(sys.executable).with_name("xmr")


@dataclass
class Load:
    """What clients saw."""

    seconds: float
    questions_s: list[float] = field(default_factory=list)  # that each answer took
    healthy_s: list[float] = field(default_factory=list)  # that /healthz took
    server_cores: float = 0.0
    client_cores: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.questions_s) / self.seconds


def measured(
    command: list[object], questions: Iterator[bytes], n_clients: int, seconds: float
) -> Iterator[tuple[str, Load]]:
    """Who asked, and what they saw."""
    server = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        port = port_of(server)
        run(port, questions, 1, WARM_S)
        yield "1", with_cores(server.pid, port, questions, 1, seconds)
        yield str(n_clients), with_cores(server.pid, port, questions, n_clients, seconds)
        with slow_clients(port):
            yield f"{n_clients} beside {N_SLOW} slow ones", with_cores(server.pid, port, questions, n_clients, seconds)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """They do not finish their head, or their body, and come again when the server has had enough of them."""
    over = threading.Event()

    def drip() -> None:
        clients: dict[int, socket.socket] = {}
        while not over.wait(SLOW_S):
            for number in range(N_SLOW):
                try:
                    if number not in clients:
                        clients[number] = socket.create_connection(("127.0.0.1", port))
                        clients[number].sendall(UNFINISHED[number % 2])
                    clients[number].sendall(b" ")
                except OSError:  # it was sent away
                    with suppress(KeyError):
                        clients.pop(number).close()
        for client in clients.values():
            client.close()

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        time.sleep(2 * SLOW_S)
        yield
    finally:
        over.set()
        dripping.join()


def port_of(server: "subprocess.Popen[str]") -> int:
    assert server.stderr is not None
    for line in server.stderr:
        if "serving at" in line:
            return int(line.split("127.0.0.1:")[1].split("/")[0])
    raise SystemExit("the server did not start")


def with_cores(process: int, port: int, questions: Iterator[bytes], n_clients: int, seconds: float) -> Load:
    """And how many cores server and clients were busy with."""
    server_s, client_s = cpu_s(process), time.process_time()
    load = run(port, questions, n_clients, seconds)
    load.server_cores = (cpu_s(process) - server_s) / seconds
    load.client_cores = (time.process_time() - client_s) / seconds
    return load


def cpu_s(process: int) -> float:
    """Of a process, since it was started."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICK_S


class Client:
    """One connection: asks, takes the answer, asks again."""

    def __init__(self, port: int, times_s: list[float], requests: Iterator[bytes]) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._times_s, self._requests = times_s, requests
        self._answer = b""

    def ask(self) -> None:
        request = next(self._requests)
        self._start_s = time.perf_counter()
        self.connection.sendall(request)

    def is_answered(self) -> bool:
        """Takes what has come."""
        self._answer += self.connection.recv(65_536)
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < length_of(head):
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no answer: {self._answer[:300]!r}")
        self._times_s.append(time.perf_counter() - self._start_s)
        self._answer = b""
        return True


def length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def run(port: int, questions: Iterator[bytes], n_clients: int, seconds: float) -> Load:
    """Answers that come in the time count."""
    load = Load(seconds)
    clients = [Client(port, load.questions_s, questions) for _ in range(n_clients)]
    looker = Client(port, load.healthy_s, itertools.repeat(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    selector = selectors.DefaultSelector()
    for client in (*clients, looker):
        selector.register(client.connection, selectors.EVENT_READ, client)
        client.ask()
    end_s, look_s = time.perf_counter() + seconds, None
    while (now_s := time.perf_counter()) < end_s:
        for key, _ in selector.select(min(end_s - now_s, LOOK_S)):
            client = key.data
            if client.is_answered():
                if client is looker:
                    look_s = time.perf_counter() + LOOK_S
                else:
                    client.ask()
        if look_s is not None and time.perf_counter() >= look_s:
            look_s = None
            looker.ask()
    selector.close()
    for client in (*clients, looker):
        client.connection.close()
    return load


def question(words: str) -> bytes:
    body = json.dumps({"text": words, "k": 10}).encode()
    head = (
        f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def tell(server: str, clients: str, load: Load) -> None:
    p50, p99 = 1000 * np.percentile(load.questions_s, (50, 99))
    times = f"{p50:,.1f} | {p99:,.1f} | {p99 / p50:.1f} | {1000 * max(load.healthy_s):.0f}"
    cores = f"{load.server_cores:.2f} | {load.client_cores:.2f}"
    print(f"| {server} | {clients} | {load.rate:,.1f} | {times} | {cores} |", flush=True)


if __name__ == "__main__":
    main()
