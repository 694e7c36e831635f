"""The words that text encoders know, with vectors from a word2vec file, trained on the captions, or drawn at random."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.settings import WordSettings

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

Vectors = NDArray[np.float32]
Vocabulary = tuple[str, ...]

SCALE = 0.3  # root mean square of the numbers of word2vec vectors
TABLE_WORDS = "dictionary.txt"
LIMIT = 0.1  # of random ones, as VSE++ draws them


@dataclass(frozen=True)
class Words:
    """The words a text encoder knows, and their vectors: (1 + n_words, dim) float32, row 0 for no word."""

    vocabulary: Vocabulary
    vectors: Vectors
    idf: Vectors | None = None  # (1 + n_words,) how rare each is among the training captions; None: not counted


NO_WORDS = Words((), np.zeros((1, 1), dtype=np.float32))


def make_words(settings: WordSettings, captions: Iterable[str], seed: int) -> Words:
    """The words of the training captions, with vectors from the settings' file, trained here or drawn from the seed."""
    sentences = [text.words(caption) for caption in captions]
    if not any(sentences):
        raise XmrError("no captions among the training rows; a text encoder needs rows with captions")
    random = np.random.default_rng(seed)
    if settings.vectors != "word2vec":
        vocabulary, vectors = _draw(settings, sentences, random)
    elif settings.file:
        vocabulary, vectors = _scaled(*_load(settings, sentences))
    else:
        vocabulary, vectors = _scaled(*_train(settings, sentences, seed))
    if marks := text.MARKS if settings.marks else (text.UNKNOWN,) if settings.unknown else ():
        vocabulary = (*marks, *vocabulary)
        vectors = np.concatenate([_uniform(len(marks), vectors.shape[1], random), vectors])
    nothing = np.zeros((1, vectors.shape[1]), dtype=np.float32)
    return Words(vocabulary, np.concatenate([nothing, vectors]), _idf(vocabulary, sentences))


def _draw(
    settings: WordSettings, sentences: Sequence[list[str]], random: np.random.Generator
) -> tuple[Vocabulary, Vectors]:
    """Words by frequency, those that are equally frequent by alphabet."""
    if settings.file:
        raise XmrError(
            f"words.file: {settings.file} given, but words.vectors is {settings.vectors}; leave one of them out"
        )
    counts = _counts(settings, sentences)
    vocabulary = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    limit = LIMIT if settings.vectors == "random" else (6 / (len(vocabulary) + settings.dim)) ** 0.5
    return vocabulary, _uniform(len(vocabulary), settings.dim, random, limit)


def _uniform(n_words: int, dim: int, random: np.random.Generator, limit: float = LIMIT) -> Vectors:
    return random.uniform(-limit, limit, (n_words, dim)).astype(np.float32)


def _train(settings: WordSettings, sentences: Sequence[list[str]], seed: int) -> tuple[Vocabulary, Vectors]:
    """Skip-gram with negative sampling (Mikolov et al. 2013); one worker, so that the seed decides all."""
    from gensim.models import Word2Vec

    _counts(settings, sentences)
    model = Word2Vec(
        sentences,
        vector_size=settings.dim,
        min_count=settings.min_count,
        epochs=settings.epochs,
        sg=1,
        window=5,
        negative=5,
        seed=seed,
        workers=1,
    )
    return tuple(model.wv.index_to_key), model.wv.vectors


def _counts(settings: WordSettings, sentences: Sequence[list[str]]) -> dict[str, int]:
    """How often each word occurs that occurs often enough."""
    counts = Counter(word for sentence in sentences for word in sentence)
    if max(counts.values()) < settings.min_count:
        raise XmrError(f"words.min_count: no word of the captions occurs {settings.min_count} times; lower it")
    return {word: count for word, count in counts.items() if count >= settings.min_count}


def _load(settings: WordSettings, sentences: Sequence[list[str]]) -> tuple[Vocabulary, Vectors]:
    path = Path(settings.file)
    try:
        known = _read_table(path) if path.suffix == ".npy" else _read_vectors(path)
    except (OSError, ValueError, EOFError) as error:
        raise XmrError(f"{path}: no file of word vectors ({error}); give another words.file") from None
    # such as </s> and New_York can't be read out of a sentence
    readable = (word for word in known.index_to_key if text.words(word) == [word])
    frequent = islice(readable, settings.n_words)
    said = sorted({word for sentence in sentences for word in sentence})
    vocabulary = tuple(dict.fromkeys(word for word in (*frequent, *said) if word in known))
    if not vocabulary:
        raise XmrError(f"{path}: holds none of the {len(said)} words of the captions; give another words.file")
    return vocabulary, np.stack([known[word] for word in vocabulary])


def _read_vectors(path: Path) -> "KeyedVectors":
    """Of word2vec (.bin: binary, else text), or of GloVe, whose text has no line that tells the number of words."""
    from gensim.models import KeyedVectors

    is_binary = path.suffix == ".bin"
    with path.open("rb") as file:
        is_headless = not is_binary and len(file.readline().split()) > 2
    return KeyedVectors.load_word2vec_format(path, binary=is_binary, no_header=is_headless, unicode_errors="replace")


def _read_table(path: Path) -> "KeyedVectors":
    """Skip-thoughts (Kiros et al. 2015): row i of the .npy is the word on line i of the dictionary.txt beside it."""
    from gensim.models import KeyedVectors

    vectors = np.load(path, allow_pickle=False)
    names = path.with_name(TABLE_WORDS).read_text(encoding="utf-8").splitlines()
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise ValueError(f"an array of shape {vectors.shape}, {len(names)} words in {TABLE_WORDS}")
    known = KeyedVectors(vectors.shape[1])
    known.add_vectors(names, vectors.astype(np.float32))
    return known


def _scaled(vocabulary: Vocabulary, vectors: Vectors) -> tuple[Vocabulary, Vectors]:
    """Vectors scaled to a root mean square of SCALE, so that encoders meet the same numbers from any source."""
    scaled = vectors * (SCALE / np.sqrt(np.mean(np.square(vectors))))
    return vocabulary, scaled.astype(np.float32)


def _idf(vocabulary: Vocabulary, sentences: Sequence[list[str]]) -> Vectors:
    """(1 + n_words,) inverse document frequency 1 + log((1 + n) / (1 + n_with)) in n captions, 0 for no word."""
    known = dict.fromkeys(vocabulary)
    n_with: Counter[str] = Counter()
    for sentence in sentences:
        n_with.update({word if word in known else text.UNKNOWN for word in sentence} | {text.START, text.END})
    counts = np.array([n_with[word] for word in vocabulary])
    return np.concatenate([[0], 1 + np.log((1 + len(sentences)) / (1 + counts))]).astype(np.float32)
