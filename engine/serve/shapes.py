"""What requests hold: the shapes that are checked before anything is done, and told in the OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xmr.engine.media import MODALITIES
from xmr.engine.question import NAMES

MAX_K = 10_000
MAX_OFFSET = 100_000
MAX_BATCH = 256
MAX_TEXT = 20_000  # characters
MAX_DIM = 65_536
LARGEST = 2**63 - 1

ModalityName = Literal["image", "sound", "speech", "text"]
assert ModalityName.__args__ == tuple(MODALITIES)  # type: ignore[attr-defined]

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Vector = Annotated[list[Finite], Field(min_length=1, max_length=MAX_DIM)]
ItemId = Annotated[int, Field(ge=1, le=LARGEST, strict=True)]


class OfItem(BaseModel):
    """An indexed item."""

    model_config = ConfigDict(extra="forbid")
    item: ItemId


class OfVector(BaseModel):
    """An embedding that was made elsewhere by the same model; it is given unit length."""

    model_config = ConfigDict(extra="forbid")
    vector: Vector


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Source = str | OfItem | OfVector  # a data: URI or a URL, or one of these
Texts = Text | Annotated[list[Text], Field(max_length=MAX_BATCH)]
Sources = Source | Annotated[list[Source], Field(max_length=MAX_BATCH)]
Ids = ItemId | Annotated[list[ItemId], Field(max_length=MAX_BATCH)]
Weight = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]

# a PNG
WHITE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
EXAMPLES: dict[str, Any] = {
    "words": {"summary": "A sentence", "value": {"text": "a dog barks in the rain", "to": ["image", "sound"], "k": 5}},
    "more like it": {
        "summary": "Like an item, without something",
        "value": {"like": [1], "minus_text": ["rain"], "weights": {"minus_text": [0.5]}},
    },
    "filtered": {
        "summary": "Short files, one hit each",
        "value": {"text": "a bell", "where": "size < 1000000", "min_score": 0.1, "group": "file"},
    },
}


class SearchBody(BaseModel):
    """A question of one or more parts, and what is shown of the answer."""

    model_config = ConfigDict(extra="forbid")
    text: Texts | None = None
    image: Sources | None = None
    sound: Sources | None = None
    speech: Sources | None = None
    video: Sources | None = None
    like: Ids | None = Field(None, description="Items of the index, by id.")
    minus_text: Texts | None = None
    minus_image: Sources | None = None
    minus_sound: Sources | None = None
    minus_speech: Sources | None = None
    minus_video: Sources | None = None
    minus_like: Ids | None = None
    weights: dict[str, Weight | Annotated[list[Weight], Field(max_length=MAX_BATCH)]] | None = Field(
        None, description="By part, a number or one for each; 1 where nothing is said."
    )
    to: Annotated[list[ModalityName], Field(max_length=16)] | ModalityName | None = None
    k: Annotated[int, Field(ge=1, le=MAX_K, strict=True)] = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, strict=True)] = 0
    where: Annotated[str, Field(max_length=MAX_TEXT)] | None = Field(None, description="A condition in SQL.")
    min_score: Finite | None = None
    group: Literal["file"] | None = None
    fold: Annotated[float, Field(gt=0, le=1)] | None = None

    def sources(self, name: str) -> list[Any]:
        """What was given by one of the names of parts."""
        given = getattr(self, name)
        if given is None:
            return []
        return list(given) if isinstance(given, list) else [given]


assert set(NAMES) <= set(SearchBody.model_fields)


A_HIT: dict[str, Any] = {
    "rank": 1,
    "score": 0.8312,
    "modality": "image",
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
    path: str = Field(description="Relative to the folder that was indexed.")
    start_s: float | None
    end_s: float | None
    text: str | None
    id: int
    line: int | None = None
    metadata: dict[str, Any] = {}
    folded: list[int] | None = Field(None, description="Ids of near duplicates.")
    media: str | None = None
    thumbnail: str | None = None
    waveform: str | None = None


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


File = Annotated[str, Field(min_length=1)]  # or a sentence


class EmbeddingsBody(BaseModel):
    """As OpenAI's API takes it, with `modality`."""

    model_config = ConfigDict(extra="ignore")
    input: File | Annotated[list[File], Field(min_length=1, max_length=MAX_BATCH)] = Field(
        description="Sentences; of another modality data: URIs."
    )
    model: str | None = None
    modality: ModalityName = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


EMBEDDINGS_EXAMPLES: dict[str, Any] = {
    "sentences": {"summary": "Two sentences", "value": {"input": ["a dog", "rain"]}},
    "packed": {"summary": "As base64 of float32", "value": {"input": "a dog", "encoding_format": "base64"}},
    "a picture": {
        "summary": "A picture of one white pixel",
        "value": {"modality": "image", "input": f"data:image/png;base64,{WHITE_PIXEL}"},
    },
}


class Problem(BaseModel):
    """Why there is no answer."""

    message: str
    code: str


class ProblemAnswer(BaseModel):
    """What every refusal looks like."""

    error: Problem


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemAnswer, "description": told}
    for status, told in {
        400: "A question that cannot be answered",
        401: "No token, or a wrong one",
        404: "Nothing there",
        413: "A body that is too large",
        422: "A body of the wrong shape",
        503: "Too many are asking; again after Retry-After",
    }.items()
}
