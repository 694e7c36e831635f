"""What a first pass over the rows finds: how many there are of what, and which metadata of which kinds they have."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from xmr.engine.errors import XmrError
from xmr.engine.exchange.rows import Block

Blocks = Callable[[], Iterator[Block]]  # the same rows every time it is called
Kinds = dict[str, set[str]]  # of the values of each metadata key: bool, int, big, float, text or json
Progress = Callable[[int, int], None]  # told (done, all)

EXACT = 2**53  # integers up to here are exact as floats


@dataclass
class Survey:
    """All rows have `dim` numbers."""

    dim: int = 0
    n_rows: Counter[str] = field(default_factory=Counter)  # by modality
    kinds: dict[str, Kinds] = field(default_factory=dict)  # by modality

    @property
    def n_all(self) -> int:
        return self.n_rows.total()

    def kinds_of(self, modalities: Iterable[str]) -> Kinds:
        """Of the metadata of several modalities together."""
        together: Kinds = {}
        for modality in modalities:
            for key, kinds in self.kinds.get(modality, {}).items():
                together.setdefault(key, set()).update(kinds)
        return dict(sorted(together.items()))


def survey(blocks: Iterable[Block]) -> Survey:
    """Look at every row once."""
    found = Survey()
    for block in blocks:
        found.dim = found.dim or block.vectors.shape[1]
        for entry in block.entries:
            found.n_rows[entry.modality] += 1
            kinds = found.kinds.setdefault(entry.modality, {})
            for key, value in entry.metadata.items():
                if value is not None:
                    kinds.setdefault(key, set()).add(kind_of(value))
    return found


def as_surveyed(blocks: Blocks, found: Survey, progress: Progress) -> Iterator[Block]:
    """The rows once more, told to `progress` as (done, all); XmrError where they are no longer those of the survey."""
    seen: Counter[str] = Counter()
    for block in blocks():
        seen.update(entry.modality for entry in block.entries)
        if not seen <= found.n_rows:
            raise changed()
        yield block
        progress(seen.total(), found.n_all)
    if seen != found.n_rows:
        raise changed()


def changed() -> XmrError:
    return XmrError("the index changed while it was written out; run the same command again")


def kind_of(value: object) -> str:
    """How a metadata value is written."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= EXACT else "big"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "json"
