"""What the server is, whether it lives, and what it has counted."""

from typing import Any

from fastapi import APIRouter, Response

from xmr.engine.serve.replies import Alive, Info
from xmr.engine.serve.service import Served
from xmr.engine.serve.shapes import MAX_K

router = APIRouter(tags=["about"])


@router.get("/v1/info", responses={200: {"model": Info}})
async def info(service: Served) -> dict[str, Any]:
    """The model, what may be asked with, and how much of what there is."""
    counts, examples, version = await service.lookups.ask(
        lambda index: (index.counts(), service.examples.of(index), index.version())
    )
    model = service.model
    return {
        "model": model.name,
        "modalities": model.modalities,
        "counts": counts,
        "dim": model.dim,
        "maps": model.mapped,
        "writable": service.settings.writable,
        "urls": service.settings.allow_urls,
        "max_body_bytes": service.settings.max_body_bytes,
        "max_k": MAX_K,
        "examples": examples,
        "version": version,
    }


@router.get("/healthz", response_model=Alive)
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Alive)
async def readyz(service: Served) -> dict[str, str]:
    """Whether questions are answered."""
    await service.check_ready()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(service: Served) -> Response:
    """Counts and times in the format of Prometheus."""
    return Response(service.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
