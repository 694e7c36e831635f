"""The requests of clip-retrieval's clients: /knn-service, /indices-list and /metadata."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from xmr.engine.serve.asking import body_of
from xmr.engine.serve.gone import unless_gone
from xmr.engine.serve.place import shown_path
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.replies import KnnHit, KnnMetadata
from xmr.engine.serve.search import Served, answered_to
from xmr.engine.serve.shapes import LARGEST, MAX_BATCH, MAX_K, REFUSALS, Vector

router = APIRouter(tags=["clip-retrieval"], responses=REFUSALS)
INDEX_NAME = "xmr"
QUESTIONS: dict[str, Any] = {
    "words": {"summary": "Pictures for a sentence", "value": {"text": "a dog", "modality": "image", "num_images": 5}}
}
NAMED: dict[int | str, Any] = {200: {"content": {"application/json": {"example": [INDEX_NAME]}}}}
IDS: dict[str, Any] = {"two items": {"summary": "Two items", "value": {"ids": [1, 2]}}}


class KnnBody(BaseModel):
    """As its clients send it; what has no meaning here is read over."""

    model_config = ConfigDict(extra="ignore")
    text: str | None = Field(None, max_length=20_000, examples=["a dog"])
    image: str | None = Field(None, description="base64")
    image_url: str | None = None
    embedding_input: Vector | None = None
    modality: str = "image"
    num_images: int = Field(100, ge=1, le=MAX_K)
    num_result_ids: int | None = Field(None, ge=1, le=MAX_K)
    indice_name: str | None = None
    deduplicate: bool = False


class MetadataBody(BaseModel):
    """Of which items."""

    model_config = ConfigDict(extra="ignore")
    ids: list[StrictInt] = Field(max_length=MAX_BATCH)
    indice_name: str | None = None


@router.post("/knn-service", response_model=list[KnnHit])
async def knn_service(
    body: Annotated[KnnBody, Body(openapi_examples=QUESTIONS)], request: Request, service: Served
) -> list[dict[str, Any]]:
    """What is nearest to words, a picture or an embedding."""
    question: dict[str, Any] = {"k": body.num_images, "to": [body.modality]}
    if body.deduplicate:
        question["fold"] = 0.98
    if body.embedding_input is not None:
        question["image"] = {"vector": body.embedding_input}
    elif body.image:
        question["image"] = f"data:image/png;base64,{body.image}"
    elif body.image_url:
        question["image"] = body.image_url
    elif body.text:
        question["text"] = body.text
    else:
        raise Refusal(422, "no_question", "no question found; give text, image, image_url or embedding_input")
    answered = await unless_gone(request, answered_to(body_of(question), {}, service))
    place = str(request.base_url).rstrip("/")
    return [
        {
            "id": one.hit.id,
            "similarity": one.hit.score,
            "caption": one.hit.text or str(one.hit.metadata.get("caption", shown_path(answered.files[one.hit.id]))),
            "url": f"{place}/v1/items/{one.hit.id}/media",
        }
        for one in answered.answers
    ]


@router.get(
    "/indices-list",
    response_model=list[str],
    responses={200: {"content": {"application/json": {"example": [INDEX_NAME]}}}},
)
async def indices_list() -> list[str]:
    """The one index that is served."""
    return [INDEX_NAME]


@router.post("/metadata", response_model=list[KnnMetadata])
async def metadata(body: Annotated[MetadataBody, Body(openapi_examples=IDS)], service: Served) -> list[dict[str, Any]]:
    """What is known of items; those that are not there are left out."""
    ids = [item for item in body.ids if 0 < item <= LARGEST]
    found, files = await service.lookups.ask(lambda index: (index.found(ids), index.files_of(ids)))
    return [
        {"id": item, "metadata": dict(found[item].metadata) | {"path": shown_path(files[item])}}
        for item in ids
        if item in found
    ]
