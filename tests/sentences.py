"""Indexes of sentences that need no network: a vector follows from the words, so that a test knows every answer.

`answers` asks an index for everything and compares it with a brute force; `Written` is what a corpus says.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import embed
from xmr.engine.corpus import CorpusFile, scan
from xmr.engine.embed import EmbeddedFile, EmbeddedItem
from xmr.engine.index import AddSummary, Index
from xmr.engine.media import text
from xmr.engine.model import Model

DIM = 24
ALL = 100_000  # more hits than there are items
Vectors = NDArray[np.float32]
Line = tuple[str, int, str]  # file name, line, sentence


class Sentences(Model):
    """A model by name and dim alone."""

    @property
    def fingerprint(self) -> str:
        return str(self.config["fingerprint"])


def model(dim: int = DIM, fingerprint: str = "0123456789abcdef") -> Sentences:
    config = {
        "name": "sentences",
        "dim": dim,
        "modalities": {"text": {"preprocessing": {}}},
        "fingerprint": fingerprint,
    }
    return Sentences(Path("sentences"), config, {"text": text.Preprocessing()})


def vector_of(sentence: str) -> Vectors:
    """(DIM,) unit vector, the same in every process."""
    seed = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).standard_normal(DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


def embed_files(of: Model, files: Sequence[CorpusFile], **_: Any) -> Iterator[EmbeddedFile]:
    """In place of the pipeline: each line that says something is an item."""
    for file in files:
        lines = enumerate(file.path.read_text().splitlines(), start=1)
        items = [EmbeddedItem("text", None, None, said, line, vector=vector_of(said)) for line, said in lines if said]
        yield EmbeddedFile(file, items=items)


def without_network() -> None:
    """Let this process embed sentences by `vector_of`."""
    embed.embed_files = embed_files  # type: ignore[assignment]


def write(corpus: Path, files: Mapping[str, Sequence[str] | None]) -> None:
    """Files of sentences by name; None: the file goes."""
    corpus.mkdir(exist_ok=True)
    for name, lines in files.items():
        if lines is None:
            (corpus / name).unlink()
        else:
            (corpus / name).write_text("".join(f"{line}\n" for line in lines))


def add(index: Index, corpus: Path, **options: Any) -> AddSummary:
    return index.add(scan([corpus], {"text"}), model(), **options)


def queries(n: int = 3) -> Vectors:
    rows = np.random.default_rng(7).standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def answers(index: Index) -> set[Line]:
    """Every line that the index finds, after its scores and their order were compared with those of the sentences."""
    asked = queries()
    hits = index.search(asked, ALL)
    found = [[hit for hit in hits if hit.query == number] for number in range(len(asked))]
    for query, of_query in zip(asked, found, strict=True):
        scores = [hit.score for hit in of_query]
        expected = [float(vector_of(str(hit.text)).astype(np.float64) @ query) for hit in of_query]
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert scores == sorted(scores, reverse=True)
        assert len({hit.id for hit in of_query}) == len(of_query), "an item is found twice"
    lines = [[(Path(hit.path).name, int(hit.line or 0), str(hit.text)) for hit in of_query] for of_query in found]
    assert len(lines[0]) == len(set(lines[0])), "a line is found twice"
    assert all(set(of_query) == set(lines[0]) for of_query in lines)
    assert len(index) == len(lines[0])
    return set(lines[0])


def answers_of(folder: Path) -> set[Line] | None:
    """As a reader that opens the index anew; None where there is none."""
    if not (folder / "catalog.db").exists():
        return None
    with closing(Index.open(folder)) as index:
        return answers(index)
