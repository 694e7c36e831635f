"""A question: sentences, files and indexed items, added up with their weights, as one unit vector.

What stands for a part is its unit embedding; the question's is that of their weighted sum. A model is opened by the
first part that needs one: an item of the index brings its embedding along.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.index import Index
from xmr.engine.media import MODALITIES, medium_of
from xmr.engine.question.indexed import items_like

if TYPE_CHECKING:  # a question that is all items of the index opens none
    from xmr.engine.model import Model

LIKE, VIDEO = "like", "video"
KINDS = (*MODALITIES, VIDEO, LIKE)  # what a part may be: a file or sentence of a modality, a video, an indexed item
MINUS = "minus_"
NAMES = tuple(f"{sign}{kind}" for sign in ("", MINUS) for kind in KINDS)
MAX_WEIGHT = 1e30
MIN_SHARE = 1e-3  # length of the sum, of what it would be if all parts were alike: below it is rounding alone

Vector = NDArray[np.float32]


class NoModelError(XmrError):
    """No question with a file or a sentence can be asked."""


@dataclass(frozen=True)
class Part:
    """One part of a question, with its share in it; of a negative weight: what the hits should not be like."""

    kind: str  # one of KINDS
    content: str
    weight: float = 1.0


def parts_of(given: Mapping[str, Sequence[str]], weights: Mapping[str, Sequence[float]] | None = None) -> list[Part]:
    """The parts of a question, from what was given by each of NAMES, and the weights of some of these names.

    A name's weights are in the order of what was given by it; without them each weighs 1. UsageError for weights
    that do not fit.
    """
    parts = []
    for name in NAMES:
        contents = given.get(name, ())
        shares = (weights or {}).get(name, [1.0] * len(contents))
        if len(shares) != len(contents):
            raise UsageError(
                f"{len(shares)} weights found for {len(contents)} {spoken(name)}; give each of them one, in their order"
            )
        if bad := [share for share in shares if not 0 <= share <= MAX_WEIGHT]:
            raise UsageError(
                f"weight {bad[0]:g} of {spoken(name)} found; give 0 to {MAX_WEIGHT:g}, and minus by its name"
            )
        sign = -1.0 if name.startswith(MINUS) else 1.0
        kind = name.removeprefix(MINUS)
        parts += [Part(kind, content, sign * share) for content, share in zip(contents, shares, strict=True)]
    if unknown := [name for name in weights or {} if name not in NAMES]:
        raise UsageError(f"weights of {unknown[0]!r} found; the parts of a question are {listed(NAMES)}")
    return parts


class Asker:
    """Makes vectors of questions to one index; opens the model when a part first needs it."""

    def __init__(
        self,
        index: Index,
        open_model: "Callable[[], Model]",
        *,
        tell: "Callable[[Model, str], None]" = lambda model, modality: None,
    ) -> None:
        """`tell` hears of each modality when it is first embedded, with the model."""
        self.index = index
        self._open_model = open_model
        self._tell = tell
        self._model: Model | None = None
        self._told: set[str] = set()

    def vector(self, parts: Sequence[Part]) -> Vector:
        """(dim,) float32, unit length; XmrError where a part cannot be embedded, or the parts cancel each other."""
        if not parts:
            raise UsageError(f"no question given; ask with one or more of {listed(NAMES)}")
        total = np.zeros(self.index.dim)
        for part in parts:
            total += part.weight * self._embedding(part).astype(np.float64)
        length = float(np.linalg.norm(total))
        if not length > MIN_SHARE * sum(abs(part.weight) for part in parts):
            raise XmrError("the parts of the question cancel each other out; leave one away or weigh them otherwise")
        return np.asarray(total / length, dtype=np.float32)

    def _embedding(self, part: Part) -> Vector:
        if part.kind == LIKE:
            return self.vector_of(items_like(self.index, part.content).ids)
        if part.kind == VIDEO:
            self._tell_once(self._modality_of_video(part.content))
            return self._opened().embed_video(part.content)  # in the memory of a batch, however long it is
        return self._embed(part.kind, part.content if part.kind == "text" else Path(part.content))

    def vector_of(self, ids: Sequence[int]) -> Vector:
        """(dim,) the mean of some items, unit length."""
        mean = self.index.vectors(ids).astype(np.float64).mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not length > MIN_SHARE:
            raise XmrError(f"the {len(ids)} items to compare with have no common direction; name one of them")
        return np.asarray(mean / length, dtype=np.float32)

    def _embed(self, modality: str, content: str | Path) -> Vector:
        model = self._opened()
        model.check_modality(modality)
        self._tell_once(modality)
        return model.embed(modality, [content]).reshape(-1)

    def _tell_once(self, modality: str) -> None:
        if modality not in self._told:
            self._told.add(modality)
            self._tell(self._opened(), modality)

    def _opened(self) -> "Model":
        if self._model is None:
            try:
                model = self._open_model()
                self.index.check_model(model)
            except UsageError:
                raise
            except XmrError as error:
                raise NoModelError(str(error)) from None
            self._model = model
        return self._model

    def _modality_of_video(self, path: str) -> str:
        """A video is what is seen in it; what is heard in it, for a model that sees nothing."""
        if medium_of(Path(path)) != VIDEO:
            raise XmrError(f"{path}: no video by its name; ask with it as image, sound, speech or text")
        modalities = self._opened().modalities
        for name in MODALITIES:
            if name in modalities and VIDEO in MODALITIES[name].read:
                return name
        raise XmrError(f"{path}: the model reads nothing of a video, it has {listed(modalities)}; ask otherwise")


def spoken(name: str) -> str:
    """A name as it is written on the command line."""
    return name.replace("_", "-")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(map(spoken, names))
