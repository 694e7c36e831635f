"""What answers hold: the shapes that are told in the OpenAPI, with an example of each."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

A_HIT: dict[str, Any] = {
    "rank": 1,
    "score": 0.8312,
    "modality": "image",
    "medium": "image",
    "path": "dogs/rex.jpg",
    "start_s": None,
    "end_s": None,
    "text": None,
    "id": 17,
    "line": None,
    "metadata": {"caption": "a dog"},
    "folded": None,
    "media": "/v1/items/17/media",
    "thumbnail": "/v1/items/17/thumbnail",
    "waveform": None,
}


class Hit(BaseModel):
    """An item of the index."""

    model_config = ConfigDict(json_schema_extra={"example": A_HIT})
    rank: int | None = None
    score: float | None = None
    modality: str
    medium: str = Field(description="Of its file: image, audio, video or text.")
    path: str = Field(description="Relative to the folder that was indexed.")
    start_s: float | None
    end_s: float | None
    text: str | None
    id: int
    line: int | None = None
    metadata: dict[str, Any] = {}
    folded: list[int] | None = Field(None, description="Ids of near duplicates.")
    media: str | None = Field(None, description="None of an item whose embedding was made elsewhere.")
    thumbnail: str | None = None
    waveform: str | None = None


class ItemAnswer(Hit):
    """An item that is asked for by its id."""

    model_config = ConfigDict(json_schema_extra={"example": A_HIT | {"rank": None, "score": None, "n_of_file": 1}})
    n_of_file: int = Field(description="Items of its file, with this one.")


class SearchAnswer(BaseModel):
    """The hits, best first, of one version of the index."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"hits": [A_HIT], "took_ms": 4.2, "offset": 0, "k": 1, "version": "1f3a-12"}}
    )
    hits: list[Hit]
    took_ms: float
    offset: int
    k: int
    version: str


class Embedding(BaseModel):
    """The unit vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Of the input, from 0.")
    embedding: list[float] | str = Field(description="Numbers; or base64 of float32, little endian, if asked so.")


class Usage(BaseModel):
    """Counted in words."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """As OpenAI's API gives it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "list",
                "model": "see-hear-read",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
                "usage": {"prompt_tokens": 2, "total_tokens": 2},
            }
        }
    )
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class KnnHit(BaseModel):
    """A hit as clip-retrieval's clients read it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 17,
                "similarity": 0.83,
                "caption": "dogs/rex.jpg",
                "url": "http://127.0.0.1:8000/v1/items/17/media",
            }
        }
    )
    id: int
    similarity: float = Field(description="Cosine.")
    caption: str
    url: str


class KnnMetadata(BaseModel):
    """What is known of an item, as clip-retrieval's clients read it."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": 17, "metadata": {"path": "dogs/rex.jpg", "caption": "a dog"}}}
    )
    id: int
    metadata: dict[str, Any]


class Waveform(BaseModel):
    """What is drawn of a sound."""

    model_config = ConfigDict(json_schema_extra={"example": {"peaks": [[-0.12, 0.2], [-0.4, 0.35]], "duration_s": 2.5}})
    peaks: list[tuple[float, float]] = Field(description="Lowest and highest sample of each part, from -1 to 1.")
    duration_s: float


class WhereInPicture(BaseModel):
    """Pixels of the picture, from its upper left corner."""

    score: float = Field(description="Of the strongest place.")
    point: tuple[float, float] = Field(description="x and y.")
    box: tuple[float, float, float, float] = Field(description="x, y, width and height.")
    size: tuple[int, int] = Field(description="Width and height.")
    heard_s: float | None = Field(None, description="Second of the sound asked with that names the point, if told.")
    area: tuple[float, float, float, float] = Field(description="x, y, width and height of what the values cover.")
    values: list[list[float]] = Field(description="Rows of the map.")


class WhenInSound(BaseModel):
    """Seconds of the sound."""

    score: float = Field(description="Of the strongest second.")
    seconds: float
    span_s: tuple[float, float]
    duration_s: float
    spans_s: list[tuple[float, float]] = Field(description="Of each value.")
    values: list[float]


class Added(BaseModel):
    """The items of the file."""

    model_config = ConfigDict(json_schema_extra={"example": {"ids": [58], "notes": []}})
    ids: list[int]
    notes: list[str] = Field(description="What was left out of the file, a sentence each.")


class Deleted(BaseModel):
    """What is gone."""

    model_config = ConfigDict(json_schema_extra={"example": {"deleted": 17, "ids": [17]}})
    deleted: int = Field(description="The item that was asked for.")
    ids: list[int] = Field(description="Of all items that went, with `whole_file` those of the file.")


class Alive(BaseModel):
    """The process answers, or questions are answered."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})
    status: Literal["ok", "ready"]


class ExampleItem(BaseModel):
    """An item to ask with."""

    id: int
    modality: str
    path: str = Field(description="Relative to the folder that was indexed.")
    text: str | None


class Examples(BaseModel):
    """What a newcomer can begin with."""

    items: list[ExampleItem] = Field(description="A few of each modality.")
    sentences: list[str] = Field(description="Of the indexed texts.")


class Info(BaseModel):
    """What is served."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "see-hear-read",
                "modalities": ["image", "sound", "text"],
                "counts": {"image": 120, "sound": 80, "text": 40},
                "dim": 512,
                "maps": ["image"],
                "writable": False,
                "urls": False,
                "max_body_bytes": 16_000_000,
                "max_k": 10_000,
                "examples": {
                    "items": [{"id": 17, "modality": "image", "path": "dogs/rex.jpg", "text": None}],
                    "sentences": ["a dog barks"],
                },
                "version": "1f3a-12",
            }
        }
    )
    model: str
    modalities: list[str]
    counts: dict[str, int] = Field(description="Items by modality.")
    dim: int
    maps: list[str] = Field(description="Modalities that can be looked into.")
    writable: bool
    urls: bool
    max_body_bytes: int
    max_k: int
    examples: Examples
    version: str = Field(description="That of the answers to questions; another one after every change of the index.")


WHERE_EXAMPLE: dict[str, object] = {
    "score": 0.42,
    "point": [120.0, 80.0],
    "box": [90.0, 50.0, 60.0, 60.0],
    "size": [640, 480],
    "area": [0.0, 0.0, 640.0, 480.0],
    "values": [[0.1, 0.42], [0.0, 0.05]],
}


class Problem(BaseModel):
    """Why there is no answer."""

    message: str
    code: str


class ProblemAnswer(BaseModel):
    """What every refusal looks like."""

    error: Problem


WHY = {  # by status
    400: "A question that cannot be answered",
    401: "No token, or a wrong one",
    403: "A page of another origin asks, or the server does not write",
    404: "Nothing there",
    408: "A body that does not come in time",
    413: "A body that is too large",
    421: "A name that is not this machine's",
    422: "A question of the wrong shape, or a file that cannot be read",
    503: "No answer now; again after Retry-After, where it is told",
    507: "The server's disk is full",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer with instead, as FastAPI describes it."""
    return {status: {"model": ProblemAnswer, "description": WHY[status]} for status in statuses}


REFUSALS = refusals(400, 422, 503)
OF_ITEMS = refusals(400, 404, 422, 503, 507)
