"""What the questions of a turn are answered with, all from one version of the index.

Each is answered as it would be alone, to the last bit. Their sentences go through the encoder together, those of one
length at a time: padding would change how a runtime sums. Questions that search the same items share one search.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from xmr.engine.answer import Answer, Wanted, answer, plain_answer
from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.media import text
from xmr.engine.model import Embeddings, Model
from xmr.engine.question import Asker, Part
from xmr.engine.serve.refusals import Refusal, no_item, too_slow
from xmr.engine.serve.waiting import Answered, Asked, Page, Piece

SLICE = {"text": 64}  # pieces that are embedded in one turn
SLICE_OF_FILES = 8
COSTLY_S = 5.0  # for one question that groups or folds, in which all others wait

Outcome = Answered | Exception
T = TypeVar("T")


def answers(questions: Sequence[Asked], index: Index, model: Model) -> list[Outcome]:
    """Of each question; or why there is none, which is nobody else's matter."""
    asker = Ready(index, model)
    asker.embedded = _of_sentences(questions, model)
    found: dict[int, Outcome] = {}
    with index.snapshot():
        version, held = index.version(), index.modalities()
        for wanted, places in _alike(questions).items():
            vectors = {place: _tried(partial(asker.of, questions[place])) for place in places}
            found |= {place: why for place, why in vectors.items() if isinstance(why, Exception)}
            asked = {place: vector for place, vector in vectors.items() if isinstance(vector, np.ndarray)}
            if wanted.to is not None and not (to := tuple(name for name in wanted.to if name in held)):
                found |= dict.fromkeys(asked, Answered([], {}, version))
            else:
                found |= _found(wanted if wanted.to is None else replace(wanted, to=to), asked, index, version)
    return [found[place] for place in range(len(questions))]


def embed_slice(pages: Sequence[Page], model: Model) -> None:
    """Some pieces more of each page, in one run of the encoder. XmrError where that cannot be."""
    modality = pages[0].modality
    model.check_modality(modality)
    share = max(1, SLICE.get(modality, SLICE_OF_FILES) // len(pages))
    taken = [page.pieces[len(page.rows) : len(page.rows) + share] for page in pages]
    rows = iter(_embedded(modality, [piece for of_page in taken for piece in of_page], model))
    for page, of_page in zip(pages, taken, strict=True):
        page.rows += [next(rows) for _ in of_page]


def _embedded(modality: str, pieces: Sequence[Piece], model: Model) -> Embeddings:
    """(n, dim) unit rows."""
    if modality == "text":
        return embed_sentences([piece for piece in pieces if isinstance(piece, str)], model)
    return model.embed_arrays(modality, [piece for piece in pieces if not isinstance(piece, str)])


def embed_sentences(sentences: Sequence[str], model: Model) -> Embeddings:
    """(n, dim) unit rows, each as if its sentence were alone."""
    rows = np.empty((len(sentences), model.dim), dtype=np.float32)
    for alike in _by_length(sentences, model):
        rows[alike] = model.embed("text", [sentences[place] for place in alike])
    return rows


def _by_length(sentences: Sequence[str], model: Model) -> list[list[int]]:
    """Places of the sentences that are equally long, in what the encoder takes of them."""
    places: dict[int, list[int]] = {}
    for place, sentence in enumerate(sentences):
        places.setdefault(len(text.encode(sentence, model.preprocessing["text"])), []).append(place)
    return list(places.values())


def _of_sentences(questions: Sequence[Asked], model: Model) -> dict[tuple[str, str], Embeddings]:
    """What cannot be embedded is left out, and fails once more for who asked it."""
    asked = list(dict.fromkeys(part.content for one in questions for part in one.parts if part.kind == "text"))
    if not asked or "text" not in model.modalities:
        return {}
    found = {}
    for alike in _by_length(asked, model):
        sentences = [asked[place] for place in alike]
        rows = _tried(partial(model.embed, "text", sentences))
        if isinstance(rows, np.ndarray):
            found.update({("text", sentence): row for sentence, row in zip(sentences, rows, strict=True)})
    return found


class Ready(Asker):
    """Takes what was embedded for all questions, and what came with one."""

    def __init__(self, index: Index, model: Model) -> None:
        super().__init__(index, lambda: model)
        self.embedded: dict[tuple[str, str], Embeddings] = {}

    def of(self, asked: Asked) -> Embeddings:
        """(dim,) unit, of the whole question."""
        for part in asked.parts:
            if part.content in asked.items:
                self.embedded[part.kind, part.content] = self._of_item(asked.items[part.content])
            elif part.content in asked.vectors:
                self.embedded[part.kind, part.content] = asked.vectors[part.content]
        return self.vector(asked.parts)

    def _embedding(self, part: Part) -> Embeddings:
        if (ready := self.embedded.get((part.kind, part.content))) is not None:
            return ready
        return super()._embedding(part)

    def _of_item(self, item: int) -> Embeddings:
        if item not in self.index.found([item]):
            raise no_item(item)
        vector: Embeddings = self.index.vectors([item])[0]
        return vector


def _alike(questions: Sequence[Asked]) -> dict[Wanted, list[int]]:
    """Places of the questions that want the same of the same items."""
    places: dict[Wanted, list[int]] = {}
    for place, asked in enumerate(questions):
        places.setdefault(asked.wanted, []).append(place)
    return places


def _found(wanted: Wanted, vectors: dict[int, Embeddings], index: Index, version: str) -> dict[int, Outcome]:
    """Outcomes by place, for questions that want the same."""
    if wanted.group is None and wanted.fold is None and len(vectors) > 1:
        pages = _tried(partial(plain_answer, index, np.stack(list(vectors.values())), wanted))
        if isinstance(pages, Exception):
            return dict.fromkeys(vectors, pages)
        return {place: _answered(page, index, version) for place, page in zip(vectors, pages, strict=True)}
    found: dict[int, Outcome] = {}
    for place, vector in vectors.items():
        page = _tried(partial(answer, index, vector, wanted, go_on=_for(COSTLY_S)))
        found[place] = page if isinstance(page, Exception) else _answered(page, index, version)
    return found


def _for(limit_s: float) -> Callable[[], None]:
    """Refusal once the time is over."""
    end_s = time.monotonic() + limit_s

    def go_on() -> None:
        if time.monotonic() > end_s:
            raise too_slow(limit_s)

    return go_on


def _answered(page: list[Answer], index: Index, version: str) -> Answered:
    return Answered(page, index.files_of([one.hit.id for one in page]), version)


def _tried(work: Callable[[], T]) -> T | Exception:
    """What fails belongs to who asked; a mistake without its frames, which hold segments that are gone meanwhile."""
    try:
        return work()
    except (XmrError, Refusal) as mistake:
        mistake.__traceback__ = mistake.__context__ = None
        return mistake
    except Exception as failure:
        return failure
