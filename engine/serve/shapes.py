"""What requests hold: the shapes that are checked before anything is done, and told in the OpenAPI.

The description of a field says what to give in it, in words that a refusal can end with.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

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

MODALITY_NAMES = f"{', '.join(tuple(MODALITIES)[:-1])} or {tuple(MODALITIES)[-1]}"
A_SENTENCE = f"a sentence of 1 to {MAX_TEXT:,} characters"
A_TEXT = f"{A_SENTENCE}, or a list of up to {MAX_BATCH}"
A_FILE = f'a data: URI, {{"item": ID}} or {{"vector": [...]}}, or a list of up to {MAX_BATCH} of these'
AN_ITEM = "the id of an item of the index"
ITEMS = f"{AN_ITEM}, or a list of up to {MAX_BATCH}"


def _given(what: str, without: Any = None) -> Any:
    """A field that is described by what a client is to give in it: refusals say so too."""
    return Field(without, description=what)


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


QUESTIONS: dict[str, Any] = {
    "words": {"summary": "A sentence", "value": {"text": "a dog"}},
    "an item": {"summary": "What is like an item", "value": {"like": 1}},
}


class QuestionBody(BaseModel):
    """A question of one or more parts."""

    model_config = ConfigDict(extra="forbid")
    text: Texts | None = _given(A_TEXT)
    image: Sources | None = _given(A_FILE)
    sound: Sources | None = _given(A_FILE)
    speech: Sources | None = _given(A_FILE)
    video: Sources | None = _given(A_FILE)
    like: Ids | None = _given(ITEMS)
    minus_text: Texts | None = _given(A_TEXT)
    minus_image: Sources | None = _given(A_FILE)
    minus_sound: Sources | None = _given(A_FILE)
    minus_speech: Sources | None = _given(A_FILE)
    minus_video: Sources | None = _given(A_FILE)
    minus_like: Ids | None = _given(ITEMS)
    weights: dict[str, Weight | Annotated[list[Weight], Field(max_length=MAX_BATCH)]] | None = _given(
        'an object of numbers from 0 by the names of parts, as {"text": 2, "minus_image": [0.5, 1]}; without, each is 1'
    )

    def sources(self, name: str) -> list[Any]:
        """What was given by one of the names of parts."""
        given = getattr(self, name)
        if given is None:
            return []
        return list(given) if isinstance(given, list) else [given]


assert set(NAMES) < set(QuestionBody.model_fields)


class SearchBody(QuestionBody):
    """A question, and what is shown of the answer."""

    to: Annotated[list[ModalityName], Field(min_length=1, max_length=16)] | ModalityName | None = _given(
        f"{MODALITY_NAMES}, or a list of them; without, all are searched"
    )
    k: Annotated[int, Field(ge=1, le=MAX_K, strict=True)] = _given(f"a whole number of hits from 1 to {MAX_K:,}", 10)
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, strict=True)] = _given(
        f"a whole number of hits to pass over, from 0 to {MAX_OFFSET:,}", 0
    )
    where: Annotated[str, Field(max_length=MAX_TEXT)] | None = _given(
        "a condition in SQL as `xmr query --where` takes it, but with the paths of hits: "
        "\"path LIKE 'dogs/%' AND size < 1000\""
    )
    min_score: Finite | None = _given("a number: the lowest score of a hit")
    group: Literal["file"] | None = _given('"file": the best hit of each file alone')
    fold: Annotated[float, Field(gt=0, le=1)] | None = _given(
        "a number above 0, up to 1: the score from which hits are near duplicates of a better one, and folded into it"
    )

    @field_validator("to", mode="before")
    @classmethod
    def listed(cls, to: Any) -> Any:
        """As on the command line, also with commas."""
        return to.split(",") if isinstance(to, str) and "," in to else to


File = Annotated[str, Field(min_length=1)]  # or a sentence


class EmbeddingsBody(BaseModel):
    """As OpenAI's API takes it, with `modality`."""

    model_config = ConfigDict(extra="forbid")
    input: File | Annotated[list[File], Field(min_length=1, max_length=MAX_BATCH)] = Field(
        description=f"a sentence, or of another modality a data: URI, or a list of 1 to {MAX_BATCH} of them"
    )
    model: str | None = _given("a name, of which nothing depends")
    modality: ModalityName = _given(MODALITY_NAMES, "text")
    encoding_format: Literal["float", "base64"] | None = _given("float or base64, which is that of float32", "float")
    dimensions: int | None = _given("how many numbers the model gives")
    user: str | None = _given("a name, of which nothing depends")


EMBEDDINGS_EXAMPLES: dict[str, Any] = {
    "sentences": {"summary": "Two sentences", "value": {"input": ["a dog", "rain"]}},
    "packed": {"summary": "As base64 of float32", "value": {"input": "a dog", "encoding_format": "base64"}},
    "a picture": {
        "summary": "A picture of one white pixel",
        "value": {"modality": "image", "input": f"data:image/png;base64,{WHITE_PIXEL}"},
    },
}


class KnnBody(BaseModel):
    """As clip-retrieval's clients send it; what has no meaning here is read over."""

    model_config = ConfigDict(extra="ignore")
    text: str | None = Field(None, max_length=MAX_TEXT, description=A_SENTENCE, examples=["a dog"])
    image: str | None = _given("the bytes of a picture in base64")
    image_url: str | None = _given("the URL of a picture")
    embedding_input: Vector | None = _given("the numbers of an embedding of this model")
    modality: ModalityName = _given(MODALITY_NAMES, "image")
    num_images: int = Field(100, ge=1, le=MAX_K, description=f"a whole number of hits from 1 to {MAX_K:,}")
    num_result_ids: int | None = Field(None, ge=1, le=MAX_K, description=f"a whole number from 1 to {MAX_K:,}")
    indice_name: str | None = _given("a name, of which nothing depends")
    deduplicate: bool = _given("true or false", False)


class MetadataBody(BaseModel):
    """Of which items."""

    model_config = ConfigDict(extra="ignore")
    ids: list[StrictInt] = Field(max_length=MAX_BATCH, description=f"a list of up to {MAX_BATCH} ids of items")
    indice_name: str | None = _given("a name, of which nothing depends")


KNN_EXAMPLES: dict[str, Any] = {
    "words": {"summary": "Pictures for a sentence", "value": {"text": "a dog", "modality": "image", "num_images": 5}}
}
METADATA_EXAMPLES: dict[str, Any] = {"two items": {"summary": "Two items", "value": {"ids": [1, 2]}}}


def in_openapi(shape: type[BaseModel], examples: dict[str, Any], **forms: Any) -> dict[str, Any]:
    """What is told of a route that reads its body itself: JSON of a shape, or a form."""
    json_shape = {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}, "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": json_shape, **forms}}}


def _form_of(shape: type[BaseModel]) -> dict[str, Any]:
    """The same fields as text, and files by the names of parts."""
    fields: dict[str, Any] = {
        name: {"type": "string", "description": f"{field.description}; lists and objects as JSON"}
        for name, field in shape.model_fields.items()
    }
    fields |= {name: {"type": "string", "format": "binary"} for name in NAMES if name.removeprefix("minus_") in FILED}
    return {"schema": {"type": "object", "properties": fields}}


FILED = ("image", "sound", "speech", "video")  # kinds of parts that may be files
SEARCH_BODY = in_openapi(SearchBody, EXAMPLES, **{"multipart/form-data": _form_of(SearchBody)})
QUESTION_BODY = in_openapi(QuestionBody, QUESTIONS, **{"multipart/form-data": _form_of(QuestionBody)})
FILE = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
FILE_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FILE}}}}
