"""The requests of clip-retrieval's clients: /knn-service, /indices-list and /metadata."""

from typing import Any

from fastapi import APIRouter, Request

from xmr.engine.serve.patience import while_waited
from xmr.engine.serve.place import shown_path
from xmr.engine.serve.reading import json_in, shaped, shown
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.replies import REFUSALS, KnnHit, KnnMetadata
from xmr.engine.serve.search import answered_to
from xmr.engine.serve.service import Served
from xmr.engine.serve.shapes import (
    KNN_EXAMPLES,
    LARGEST,
    METADATA_EXAMPLES,
    KnnBody,
    MetadataBody,
    SearchBody,
    in_openapi,
)
from xmr.engine.serve.urls import is_url

router = APIRouter(tags=["clip-retrieval"])
INDEX_NAME = "xmr"
NAMED: dict[int | str, Any] = {200: {"content": {"application/json": {"example": [INDEX_NAME]}}}}


@router.post(
    "/knn-service",
    response_model=list[KnnHit],
    responses=REFUSALS,
    openapi_extra=in_openapi(KnnBody, KNN_EXAMPLES),
)
async def knn_service(request: Request, service: Served) -> list[dict[str, Any]]:
    """What is nearest to words, a picture or an embedding."""
    body = await json_in(request, KnnBody)
    question: dict[str, Any] = {"k": body.num_result_ids or body.num_images, "to": [body.modality]}
    if body.deduplicate:
        question["fold"] = 0.98
    if body.embedding_input is not None:
        name, question["image"] = "embedding_input", {"vector": body.embedding_input}
    elif body.image:
        name, question["image"] = "image", f"data:image/png;base64,{body.image}"
    elif body.image_url:
        name, question["image"] = "image_url", body.image_url
        if not is_url(body.image_url):
            said = f"image_url: {shown(body.image_url)} found; give a URL of http or https, or the picture in image"
            raise Refusal(422, "bad_shape", said)
    elif body.text:
        name, question["text"] = "text", body.text
    else:
        raise Refusal(422, "no_question", "no question found; give text, image, image_url or embedding_input")
    try:
        answered = await while_waited(request, answered_to(shaped(question, SearchBody), {}, service))
    except Refusal as refusal:
        raise refusal.of(name, instead_of="image") from None
    place = _address(request)
    return [
        {
            "id": one.hit.id,
            "similarity": one.hit.score,
            "caption": one.hit.text or str(one.hit.metadata.get("caption", shown_path(answered.files[one.hit.id]))),
            "url": f"{place}/v1/items/{one.hit.id}/media",
        }
        for one in answered.answers
    ]


@router.get("/indices-list", response_model=list[str], responses=NAMED)
async def indices_list() -> list[str]:
    """The one index that is served."""
    return [INDEX_NAME]


@router.post(
    "/metadata",
    response_model=list[KnnMetadata],
    responses=REFUSALS,
    openapi_extra=in_openapi(MetadataBody, METADATA_EXAMPLES),
)
async def metadata(request: Request, service: Served) -> list[dict[str, Any]]:
    """What is known of items; those that are not there are left out."""
    body = await json_in(request, MetadataBody)
    ids = [item for item in body.ids if 0 < item <= LARGEST]
    found, files = await service.lookups.ask(lambda index: (index.found(ids), index.files_of(ids)))
    return [
        {"id": item, "metadata": dict(found[item].metadata) | {"path": shown_path(files[item])}}
        for item in ids
        if item in found
    ]


def _address(request: Request) -> str:
    """Of this server as the client knows it: a proxy that speaks HTTPS says so."""
    is_secure = request.headers.get("x-forwarded-proto") == "https"
    return str(request.base_url.replace(scheme="https") if is_secure else request.base_url).rstrip("/")
