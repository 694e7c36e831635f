"""Text queries over HTTP: one client, then 32 at once, on 100,000 rows; and whether /healthz answers meanwhile.

    python benchmarks/serve.py MODEL [--rows 100000] [--clients 32] [--seconds 15]

The rows are random unit vectors, half images and half sounds; the server is `xmr serve`, a process of its own, and so
is each client's share of the load (threads of this process).
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from xmr.engine.model import Model

WORDS = ("a dog barks", "rain on a roof", "a red bell", "people talk in a street", "a bird sings", "a siren far away")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder), asked.model, asked.rows)
        server, port = start(index, asked.model)
        try:
            load(port, 1, 3.0)  # warm
            alone, together = load(port, 1, asked.seconds), load(port, asked.clients, asked.seconds)
        finally:
            server.terminate()
            server.wait()
    tell(1, alone, asked.seconds)
    tell(asked.clients, together, asked.seconds)
    print(f"rate {len(together[0]) / max(1, len(alone[0])):.1f}x of one client's")


def make_index(folder: Path, model_folder: Path, n_rows: int) -> Path:
    """Through `xmr index --from`, as others bring their embeddings."""
    model = Model.open(model_folder)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, model.dim), dtype=np.float32)
    np.save(folder / "rows.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    modality = next(name for name in ("image", "sound") if name in model.modalities)
    with (folder / "rows.jsonl").open("w") as listed:
        for number in range(n_rows):
            listed.write(json.dumps({"path": f"/corpus/{number:06}.jpg", "modality": modality}) + "\n")
    command = [Path(sys.executable).with_name("xmr"), "index", "--from", folder / "rows.npy", "--list"]
    options = [folder / "rows.jsonl", "--index", folder / "index", "--model", model_folder]
    subprocess.run([*map(str, command), *map(str, options)], check=True)
    return folder / "index"


def start(index: Path, model: Path) -> "tuple[subprocess.Popen[str], int]":
    command = [Path(sys.executable).with_name("xmr"), "serve", "--port", "0", "--index", index, "--model", model]
    server = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "serving at" in line:
            return server, int(line.split("127.0.0.1:")[1].split("/")[0])
    raise SystemExit("the server did not start")


Times = tuple[list[float], list[float]]  # seconds of questions, and of /healthz


def load(port: int, n_clients: int, seconds: float) -> Times:
    """Each client asks again as soon as it has its answer."""
    end_s = time.monotonic() + seconds
    answers: list[list[float]] = [[] for _ in range(n_clients)]
    threads = [threading.Thread(target=ask, args=(port, end_s, answers[i], i)) for i in range(n_clients)]
    healthy: list[float] = []
    threads.append(threading.Thread(target=look, args=(port, end_s, healthy)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for of_client in answers for one in of_client], healthy


def ask(port: int, end_s: float, times: list[float], number: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while time.monotonic() < end_s:
        number += 1
        body = json.dumps({"text": WORDS[number % len(WORDS)], "k": 10})
        start_s = time.perf_counter()
        connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
        answered = connection.getresponse()
        answered.read()
        if answered.status == 200:
            times.append(time.perf_counter() - start_s)
    connection.close()


def look(port: int, end_s: float, times: list[float]) -> None:
    while time.monotonic() < end_s:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        start_s = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        times.append(time.perf_counter() - start_s)
        connection.close()
        time.sleep(0.1)


def tell(n_clients: int, times: Times, seconds: float) -> None:
    questions, healthy = (1000 * np.array(of) for of in times)
    p50, p99 = np.percentile(questions, (50, 99))
    print(
        f"{n_clients:>3} clients: {len(questions) / seconds:7.1f} questions/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms "
        f"({p99 / p50:.1f}x), /healthz at most {healthy.max():.0f} ms"
    )


if __name__ == "__main__":
    main()
