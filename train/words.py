"""Word vectors by gensim: loaded from a word2vec file, or trained on the captions of the training rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.settings import WordSettings


@dataclass(frozen=True)
class Words:
    """The words a text encoder knows, and their vectors: (1 + n_words, dim) float32, row 0 for no word."""

    vocabulary: tuple[str, ...]
    vectors: NDArray[np.float32]


SCALE = 0.3
NO_WORDS = Words((), np.zeros((1, 1), dtype=np.float32))


def make_words(settings: WordSettings, captions: Iterable[str], seed: int) -> Words:
    """The words of the training captions, with vectors from the settings' file or trained here."""
    sentences = [text.words(caption) for caption in captions]
    if not any(sentences):
        raise XmrError("no captions among the training rows; a text encoder needs rows with captions")
    return _load(settings, sentences) if settings.file else _train(settings, sentences, seed)


def _train(settings: WordSettings, sentences: Sequence[list[str]], seed: int) -> Words:
    """Skip-gram with negative sampling (Mikolov et al. 2013); one worker, so that the seed decides all."""
    from gensim.models import Word2Vec

    counts = Counter(word for sentence in sentences for word in sentence)
    if max(counts.values()) < settings.min_count:
        raise XmrError(f"words.min_count: no word of the captions occurs {settings.min_count} times; lower it")
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
    return _words(tuple(model.wv.index_to_key), model.wv.vectors)


def _load(settings: WordSettings, sentences: Sequence[list[str]]) -> Words:
    from gensim.models import KeyedVectors

    path = Path(settings.file)
    try:
        known = KeyedVectors.load_word2vec_format(path, binary=path.suffix == ".bin", unicode_errors="replace")
    except (OSError, ValueError, EOFError) as error:
        raise XmrError(f"{path}: no word2vec file that gensim can read ({error}); give another words.file") from None
    # such as </s> and New_York can't be read out of a sentence
    readable = (word for word in known.index_to_key if text.words(word) == [word])
    frequent = islice(readable, settings.n_words)
    said = sorted({word for sentence in sentences for word in sentence})
    vocabulary = tuple(dict.fromkeys(word for word in (*frequent, *said) if word in known))
    if not vocabulary:
        raise XmrError(f"{path}: holds none of the {len(said)} words of the captions; give another words.file")
    return _words(vocabulary, np.stack([known[word] for word in vocabulary]))


def _words(vocabulary: tuple[str, ...], vectors: NDArray[np.float32]) -> Words:
    """Vectors scaled to a root mean square of SCALE, so that encoders meet the same numbers from any source."""
    scaled = vectors * (SCALE / np.sqrt(np.mean(np.square(vectors))))
    nothing = np.zeros((1, vectors.shape[1]), dtype=np.float32)
    return Words(vocabulary, np.concatenate([nothing, scaled]).astype(np.float32))
