"""POST /v1/embeddings: as OpenAI's clients ask, for every modality."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from xmr.engine.errors import XmrError
from xmr.engine.model import Embeddings
from xmr.engine.serve.asking import decoded, file_of
from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.reading import json_in
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.replies import REFUSALS, EmbeddingsAnswer
from xmr.engine.serve.service import Served, Service
from xmr.engine.serve.shapes import EMBEDDINGS_EXAMPLES, MAX_TEXT, EmbeddingsBody, in_openapi

router = APIRouter(tags=["embeddings"])


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsAnswer,
    responses=REFUSALS,
    openapi_extra=in_openapi(EmbeddingsBody, EMBEDDINGS_EXAMPLES),
)
async def embeddings(request: Request, service: Served) -> dict[str, Any]:
    """Unit vectors of sentences, or of files in data: URIs."""
    body = await json_in(request, EmbeddingsBody)
    if body.dimensions not in (None, service.dim):
        raise Refusal(
            422, "bad_shape", f"dimensions: the model gives {service.dim} numbers; ask for these, or leave it out"
        )
    given = body.input if isinstance(body.input, list) else [body.input]
    if body.modality == "text" and max(map(len, given)) > MAX_TEXT:
        raise Refusal(422, "bad_shape", f"input: a sentence of more than {MAX_TEXT:,} characters found; send less")
    if body.modality == "text" and any(one[:5].lower() == "data:" for one in given):
        raise Refusal(422, "bad_shape", "input: a file found where sentences are embedded; set modality to what it is")
    rows = await while_waited(request, _rows(given, body.modality, service))
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
        names = [f"input {number + 1}" if len(given) > 1 else "input" for number in range(len(given))]
        files = [await file_of(modality, one, name, service) for one, name in zip(given, names, strict=True)]
        read = [await decoded(modality, file, name, service) for file, name in zip(files, names, strict=True)]
        return await service.batcher.embed(modality, [file.windows for file in read])
    except XmrError as error:
        raise service.mistake(error) from None


def _written(row: Embeddings, encoding_format: str | None) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers
