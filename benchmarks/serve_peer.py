"""The server that one writes in an hour, to compare with: FastAPI, the text encoder, faiss; each question by itself.

    python benchmarks/serve_peer.py MODEL ROWS.npy LIST.jsonl

FastAPI runs `search` in its pool of threads. Encoder and scores are those of `xmr serve`: ONNX Runtime as the model's
folder asks for it, and faiss's exact inner product over the same rows. Prints its address when it is ready.
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from xmr.engine.model import Model


class Question(BaseModel):
    """In words."""

    text: str
    k: int = 10


def make_app(model: Model, rows: Path, listed: Path) -> FastAPI:
    app = FastAPI()
    index = faiss.IndexFlatIP(model.dim)
    index.add(np.load(rows))
    paths = [json.loads(line)["path"] for line in listed.read_text().splitlines()]

    @app.post("/v1/search")
    def search(question: Question) -> dict[str, Any]:
        [scores], [found] = index.search(model.embed("text", [question.text]), question.k)
        hits = [{"id": int(i), "score": float(score), "path": paths[i]} for score, i in zip(scores, found, strict=True)]
        return {"hits": hits}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    folder, rows, listed = map(Path, sys.argv[1:])
    app = make_app(Model.open(folder, purpose="query"), rows, listed)
    # the protocol is named: asyncio sends an answer's parts at once only then, and a client waits 40 ms otherwise
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(f"serving at http://127.0.0.1:{listening.getsockname()[1]}/", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
