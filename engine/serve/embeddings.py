"""POST /v1/embeddings: as OpenAI's clients ask, for every modality."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter

from xmr.engine.errors import XmrError
from xmr.engine.model import Embeddings
from xmr.engine.serve.asking import decoded, file_of
from xmr.engine.serve.batcher import Windows
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.search import Served
from xmr.engine.serve.shapes import MAX_TEXT, REFUSALS, EmbeddingsBody

router = APIRouter(tags=["embeddings"])


@router.post("/v1/embeddings", responses=REFUSALS)
async def embeddings(body: EmbeddingsBody, service: Served) -> dict[str, Any]:
    """Unit vectors of sentences, or of files in data: URIs."""
    if body.dimensions not in (None, service.dim):
        raise Refusal(
            422, "bad_shape", f"dimensions: the model gives {service.dim} numbers; ask for these, or leave it out"
        )
    given = body.input if isinstance(body.input, list) else [body.input]
    if body.modality == "text" and max(map(len, given)) > MAX_TEXT:
        raise Refusal(422, "bad_shape", f"input: a sentence of more than {MAX_TEXT:,} characters found; send less")
    inputs: list[str | Windows] = list(given)
    if body.modality != "text":
        inputs = [
            (await decoded(body.modality, await file_of(body.modality, one, service), service))[1] for one in given
        ]
    try:
        rows = await service.batcher.embed(body.modality, inputs)
    except XmrError as error:
        raise service.mistake(error) from None
    n_words = sum(len(one.split()) for one in given) if body.modality == "text" else 0
    return {
        "object": "list",
        "model": service.model.name,
        "data": [
            {"object": "embedding", "index": number, "embedding": _written(row, body.encoding_format)}
            for number, row in enumerate(rows)
        ],
        "usage": {"prompt_tokens": n_words, "total_tokens": n_words},
    }


def _written(row: Embeddings, encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers
