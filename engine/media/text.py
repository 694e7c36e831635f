"""Text: a line -> the ids of its words in the model's vocabulary.

One line of a file is one item, and so is a subtitle or the text of a row of a table.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.piece import Loaded, Piece, Stream
from xmr.engine.media.reading import Reading

if TYPE_CHECKING:  # a query in words starts without it
    from xmr.engine.media.lines import Said

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
SUBTITLES = frozenset({".srt", ".vtt"})
MARKDOWN = frozenset({".md", ".markdown"})
SUFFIXES = frozenset({".txt"}) | TABLES | SUBTITLES | MARKDOWN
MAX_BYTES = 256_000_000
MAX_LINE = 10_000  # characters of a line that are read
PAD = 0  # id of no word; the words count from 1
START, END, UNKNOWN = MARKS = ("<start>", "<end>", "<unk>")  # no word that can be read out of a sentence is one of them
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

WordIds = NDArray[np.int64]


@dataclass(frozen=True)
class Preprocessing:
    """How a sentence becomes ids: lower-case words, those the vocabulary lacks left out.

    The marks are used where the vocabulary has them: an unknown word then is an <unk>, and <start> and <end> stand
    around the sentence.
    """

    max_words: int = 32  # ids at most, <start> and <end> among them
    vocabulary: tuple[str, ...] = field(default=(), repr=False)  # the word at place i has the id i + 1

    @cached_property
    def id_of_word(self) -> Mapping[str, int]:
        return {word: place + 1 for place, word in enumerate(self.vocabulary)}


def words(sentence: str) -> list[str]:
    """The lower-case words of a sentence, without punctuation."""
    return WORD.findall(sentence.lower())


def encode(sentence: str, preprocessing: Preprocessing) -> WordIds:
    """(n_words,) int64 ids of the first words and of the marks around them; empty where no word is known."""
    id_of_word = preprocessing.id_of_word
    start, end = ([id_of_word[mark]] if mark in id_of_word else [] for mark in (START, END))
    unknown = id_of_word.get(UNKNOWN, PAD)
    found = (id_of_word.get(word, unknown) for word in words(sentence))
    n_words = max(0, preprocessing.max_words - len(start) - len(end))
    ids = [word_id for word_id in found if word_id != PAD][:n_words]
    is_known = any(word_id != unknown for word_id in ids)
    return np.array([*start, *ids, *end] if is_known else [], dtype=np.int64)


def load(content: Content | Path, preprocessing: Preprocessing, reading: Reading | None = None) -> Loaded:
    """All pieces of a text at once, as `stream` gives them."""
    return stream(Content.of(content), preprocessing, reading).read()


def stream(content: Content, preprocessing: Preprocessing, reading: Reading | None = None) -> Stream:
    """One piece per line, subtitle or text of a table's row that says something, read while they are drawn.

    What has no known word is left out and counted in a note.
    """
    notes: list[str] = []
    return Stream(_pieces(content, preprocessing, reading or Reading(), notes), notes)


def _pieces(content: Content, preprocessing: Preprocessing, reading: Reading, notes: list[str]) -> Iterator[Piece]:
    if content.suffix in TABLES:
        said = _said_in_table(content, reading.text_column, notes)
    else:
        if content.n_bytes > MAX_BYTES:
            raise XmrError(
                f"{content}: {content.n_bytes / 1e6:.0f} MB found, texts up to {MAX_BYTES / 1e6:.0f} MB are read; "
                "split it"
            )
        said = _said_in_lines(content, notes)
    n_unknown = 0
    for one in said:
        sentence = one.text.strip()[:MAX_LINE]
        ids = encode(sentence, preprocessing)
        if len(ids):
            yield Piece(ids, one.start_s, one.end_s, sentence, one.line, one.metadata)
        else:
            n_unknown += 1
    if n_unknown:
        what = ("subtitle" if content.suffix in SUBTITLES else "line") + ("s" if n_unknown > 1 else "")
        notes.append(f"{content}: {n_unknown} {what} left out, of whose words the model knows none")


def _said_in_lines(content: Content, notes: list[str]) -> "Iterator[Said]":
    from xmr.engine.media import markdown, subtitles
    from xmr.engine.media.lines import Said, lines_of

    numbered = lines_of(content, MAX_LINE, notes)
    if content.suffix in SUBTITLES:
        return subtitles.subtitles_of(numbered, content, notes)
    if content.suffix in MARKDOWN:
        return markdown.lines_of(numbered)
    return (Said(line, number) for number, line in numbered if line.strip())


def _said_in_table(content: Content, column: str | None, notes: list[str]) -> "Iterator[Said]":
    """The texts of each row, with its other columns as metadata."""
    from xmr.engine.media.lines import Said
    from xmr.engine.media.table import metadata_of, rows_of, text_of

    n_rows, n_texts = 0, 0
    for number, row in rows_of(content, notes.append):
        n_rows += 1
        if sentences := text_of(row, column):
            n_texts += len(sentences)
            metadata = metadata_of(row, column) or None
            yield from (Said(sentence, number, metadata=metadata) for sentence in sentences)
    if n_rows and not n_texts:
        wanted = f"column {column}" if column else "column of text, such as caption,"
        raise XmrError(f"{content}: no {wanted} with anything in it; name the column with --text-column")


def pad(sentences: list[WordIds]) -> WordIds:
    """(n, longest) int64: ids, then PAD."""
    batch = np.full((len(sentences), max(map(len, sentences))), PAD, dtype=np.int64)
    for row, ids in zip(batch, sentences, strict=True):
        row[: len(ids)] = ids
    return batch
