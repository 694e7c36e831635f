"""Text: a line -> the ids of its words in the model's vocabulary. One line of a file is one item."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.piece import Loaded, Piece

SUFFIXES = frozenset({".txt"})
MAX_BYTES = 256_000_000
MAX_LINE = 10_000  # characters of a line that are read
PAD = 0  # id of no word; the words count from 1
START, END, UNKNOWN = MARKS = ("<start>", "<end>", "<unk>")  # no word that can be read out of a sentence is one of them
NEWLINE = re.compile(r"\r\n|\r|\n")  # splitlines would also end a line at a form feed, which no editor counts
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


def load(path: Path, preprocessing: Preprocessing) -> Loaded:
    """One piece per line that says something. Lines without a known word are left out and counted in a note."""
    n_bytes = path.stat().st_size
    if n_bytes > MAX_BYTES:
        raise XmrError(f"{path}: {n_bytes / 1e6:.0f} MB found, texts up to {MAX_BYTES / 1e6:.0f} MB are read; split it")
    content = path.read_bytes().decode("utf-8-sig", errors="replace")
    notes = []
    if "\ufffd" in content:
        notes.append(f"{path}: not all UTF-8, {content.count(chr(0xFFFD))} characters replaced")
    pieces, n_unknown = [], 0
    for number, raw in enumerate(NEWLINE.split(content), start=1):
        line = raw.strip()[:MAX_LINE]
        if not line:
            continue
        ids = encode(line, preprocessing)
        if len(ids) == 0:
            n_unknown += 1
            continue
        pieces.append(Piece(ids, text=line, line=number))
    if n_unknown:
        notes.append(f"{path}: {n_unknown} lines left out, none of their words is known to the model")
    return Loaded(pieces, notes)


def pad(sentences: list[WordIds]) -> WordIds:
    """(n, longest) int64: ids, then PAD."""
    batch = np.full((len(sentences), max(map(len, sentences))), PAD, dtype=np.int64)
    for row, ids in zip(batch, sentences, strict=True):
        row[: len(ids)] = ids
    return batch
