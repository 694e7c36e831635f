"""POST /v1/embeddings: as OpenAI's clients ask, for every modality."""

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request

from xmr.engine.errors import XmrError
from xmr.engine.model import Embeddings
from xmr.engine.serve.asking import decoded, file_of
from xmr.engine.serve.gone import unless_gone
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.replies import EmbeddingsAnswer
from xmr.engine.serve.search import Served
from xmr.engine.serve.service import Service
from xmr.engine.serve.shapes import EMBEDDINGS_EXAMPLES, MAX_TEXT, REFUSALS, EmbeddingsBody

router = APIRouter(tags=["embeddings"])


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=REFUSALS)
async def embeddings(
    body: Annotated[EmbeddingsBody, Body(openapi_examples=EMBEDDINGS_EXAMPLES)], request: Request, service: Served
) -> dict[str, Any]:
    """Unit vectors of sentences, or of files in data: URIs."""
    if body.dimensions not in (None, service.dim):
        raise Refusal(
            422, "bad_shape", f"dimensions: the model gives {service.dim} numbers; ask for these, or leave it out"
        )
    given = body.input if isinstance(body.input, list) else [body.input]
    if body.modality == "text" and max(map(len, given)) > MAX_TEXT:
        raise Refusal(422, "bad_shape", f"input: a sentence of more than {MAX_TEXT:,} characters found; send less")
    rows = await unless_gone(request, _rows(given, body.modality, service))
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


async def _rows(given: list[str], modality: str, service: Service) -> Embeddings:
    try:
        if modality == "text":
            return await service.batcher.embed("text", given)
        files = [await file_of(modality, one, service) for one in given]
        return await service.batcher.embed(
            modality, [(await decoded(modality, file, service)).windows for file in files]
        )
    except XmrError as error:
        raise service.mistake(error) from None


def _written(row: Embeddings, encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers
