"""Word vectors: trained on captions, loaded from files that gensim wrote, drawn at random; and the marks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gensim.models import KeyedVectors

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.settings import WordSettings
from xmr.train.words import LIMIT, SCALE, make_words

CAPTIONS = ["A dog barks.", "the dog sleeps", "A red bell", "a bell, a siren!"] * 3
FILE_WORDS = ("</s>", "the", "a", "dog", "New_York", "bell")  # the most frequent first, as word2vec writes them


def write_vectors(path: Path, words: tuple[str, ...] = FILE_WORDS, dim: int = 5) -> KeyedVectors:
    vectors = KeyedVectors(dim)
    vectors.add_vectors(words, np.random.default_rng(0).standard_normal((len(words), dim)).astype(np.float32))
    if path.suffix == ".npy":  # a skip-thought table
        np.save(path, vectors.vectors)
        path.with_name("dictionary.txt").write_text("\n".join(vectors.index_to_key) + "\n")
    else:
        has_header = path.stem != "glove"
        vectors.save_word2vec_format(path, binary=path.suffix == ".bin", write_header=has_header)
    return vectors


@pytest.mark.parametrize("vectors", ["word2vec", "random"])
def test_the_seed_decides_the_vectors(vectors: Any) -> None:
    settings = WordSettings(vectors=vectors, dim=8, epochs=3, marks=True)
    first, second, other = (make_words(settings, CAPTIONS, seed) for seed in (1, 1, 2))
    assert first.vocabulary == second.vocabulary == other.vocabulary
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert not np.allclose(first.vectors, other.vectors)


def test_row_0_stands_for_no_word_and_the_others_have_the_scale_of_all_sources() -> None:
    words = make_words(WordSettings(dim=8, epochs=1), CAPTIONS, 0)
    assert words.vectors.shape == (1 + len(words.vocabulary), 8)
    assert words.vectors.dtype == np.float32
    assert not words.vectors[0].any()
    assert np.sqrt(np.square(words.vectors[1:]).mean()) == pytest.approx(SCALE, rel=1e-6)


@pytest.mark.parametrize(
    ("min_count", "known"),
    [
        (3, {"a", "dog", "barks", "the", "sleeps", "red", "bell", "siren"}),
        (4, {"a", "dog", "bell"}),
        (7, {"a"}),
    ],
)
def test_rarer_words_than_min_count_are_left_out(min_count: int, known: set[str]) -> None:
    for vectors in ("word2vec", "random"):
        settings = WordSettings(vectors=vectors, dim=4, min_count=min_count, epochs=1)
        assert set(make_words(settings, CAPTIONS, 0).vocabulary) == known


@pytest.mark.parametrize("vectors", ["word2vec", "random"])
def test_a_min_count_that_no_word_reaches_is_said(vectors: Any) -> None:
    with pytest.raises(XmrError, match=r"words.min_count: no word of the captions occurs 50 times; lower it"):
        make_words(WordSettings(vectors=vectors, min_count=50), CAPTIONS, 0)


@pytest.mark.parametrize("captions", [[], ["", "..."]])
def test_captions_without_a_word_are_refused(captions: list[str]) -> None:
    with pytest.raises(XmrError, match="no captions among the training rows"):
        make_words(WordSettings(), captions, 0)


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt", "glove.txt", "utable.npy"])
def test_vectors_of_a_file_keep_their_directions(tmp_path: Path, name: str) -> None:
    written = write_vectors(tmp_path / name)
    words = make_words(WordSettings(file=str(tmp_path / name)), CAPTIONS, 0)
    assert words.vocabulary == ("a", "bell", "dog", "the")
    expected = np.stack([written[word] for word in words.vocabulary])
    scale = np.sqrt(np.square(expected).mean()) / SCALE
    # the text form has 8 digits
    np.testing.assert_allclose(words.vectors[1:], expected / scale, rtol=1e-6)


def test_frequent_words_of_the_file_come_first(tmp_path: Path) -> None:
    write_vectors(tmp_path / "vectors.bin")
    words = make_words(WordSettings(file=str(tmp_path / "vectors.bin"), n_words=3), CAPTIONS, 0)
    assert words.vocabulary == ("the", "a", "dog", "bell")  # "</s>" can't be read out of a sentence


def test_a_file_without_any_word_of_the_captions_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "other.txt", ("chat", "chien"))
    with pytest.raises(XmrError, match=r"other.txt: holds none of the \d words of the captions"):
        make_words(WordSettings(file=str(tmp_path / "other.txt")), CAPTIONS, 0)


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt", "glove.txt", "utable.npy"])
@pytest.mark.parametrize("content", [b"", b"no vectors here\n", b"\x89PNG\r\n\x1a\n\0\0", b"3 4\na 1.0"])
def test_a_file_that_holds_no_word_vectors_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XmrError, match=f"{name}: no file of word vectors"):
        make_words(WordSettings(file=str(tmp_path / name)), CAPTIONS, 0)


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt", "glove.txt", "utable.npy"])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    write_vectors(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(XmrError, match=f"{name}: no file of word vectors"):
        make_words(WordSettings(file=str(tmp_path / name)), CAPTIONS, 0)


def test_a_table_and_its_words_must_be_equally_long(tmp_path: Path) -> None:
    write_vectors(tmp_path / "utable.npy")
    (tmp_path / "dictionary.txt").write_text("a\ndog\n")
    with pytest.raises(XmrError, match=r"utable.npy: .*shape \(6, \d+\), 2 words in dictionary.txt"):
        make_words(WordSettings(file=str(tmp_path / "utable.npy")), CAPTIONS, 0)
    (tmp_path / "dictionary.txt").unlink()
    with pytest.raises(XmrError, match=r"utable.npy: no file of word vectors .*dictionary.txt"):
        make_words(WordSettings(file=str(tmp_path / "utable.npy")), CAPTIONS, 0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"lost.bin: no file of word vectors"):
        make_words(WordSettings(file=str(tmp_path / "lost.bin")), CAPTIONS, 0)


def test_random_words_come_by_frequency_and_then_by_alphabet() -> None:
    captions = ["d c", "d a", "d c a", "b"]
    words = make_words(WordSettings(vectors="random", min_count=1), captions, 0)
    assert words.vocabulary == ("d", "a", "c", "b")  # 3, 2, 2 times and once


def test_random_vectors_fill_their_range_evenly_and_are_not_scaled() -> None:
    captions = [" ".join(f"word{place}" for place in range(200))]
    words = make_words(WordSettings(vectors="random", min_count=1, dim=50), captions, 0)
    assert words.vectors.shape == (201, 50)
    assert words.vectors.dtype == np.float32
    assert not words.vectors[text.PAD].any()
    drawn = words.vectors[1:]
    assert LIMIT * 0.999 < drawn.max() <= LIMIT
    assert -LIMIT * 0.999 > drawn.min() >= -LIMIT
    np.testing.assert_allclose(drawn.std(), LIMIT / np.sqrt(3), rtol=0.02)  # of an even distribution


def test_random_vectors_of_a_file_are_a_contradiction() -> None:
    settings = WordSettings(vectors="random", file="some.bin")
    with pytest.raises(
        XmrError, match=r"words.file: some.bin given, but words.vectors is random; leave one of them out"
    ):
        make_words(settings, CAPTIONS, 0)


@pytest.mark.parametrize("kind", [{"vectors": "random"}, {"epochs": 1}, {"file": "vectors.bin"}])
def test_marks_are_words_in_front_of_all_others_and_leave_those_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_vectors(tmp_path / "vectors.bin")
    plain, marked = (make_words(WordSettings(dim=8, marks=marks, **kind), CAPTIONS, 0) for marks in (False, True))
    assert marked.vocabulary == ("<start>", "<end>", "<unk>", *plain.vocabulary)
    np.testing.assert_array_equal(marked.vectors[4:], plain.vectors[1:])
    assert not marked.vectors[text.PAD].any()
    assert np.abs(marked.vectors[1:4]).max() <= LIMIT
    assert len(np.unique(marked.vectors[1:4])) == marked.vectors[1:4].size


def test_the_unknown_word_may_be_the_only_mark() -> None:
    plain, marked = (
        make_words(WordSettings(vectors="random", unknown=unknown), CAPTIONS, 0) for unknown in (False, True)
    )
    assert marked.vocabulary == ("<unk>", *plain.vocabulary)
    np.testing.assert_array_equal(marked.vectors[2:], plain.vectors[1:])


def test_xavier_vectors_are_of_glorots_range() -> None:
    words = make_words(WordSettings(vectors="xavier", dim=200, min_count=1), CAPTIONS, 0)
    limit = np.sqrt(6 / (len(words.vocabulary) + 200))
    assert 0.9 * limit < np.abs(words.vectors).max() <= limit


def test_words_of_fewer_captions_have_a_higher_idf() -> None:
    captions = ["a b", "a a rare", "a b once", "..."]
    words = make_words(WordSettings(vectors="random", min_count=2, marks=True), captions, 0)
    assert words.vocabulary == (*text.MARKS, "a", "b")
    n_with = np.array([4, 4, 2, 3, 2])  # captions: every one begins and ends, two have words that are left out
    assert words.idf is not None
    assert words.idf[text.PAD] == 0
    np.testing.assert_allclose(words.idf[1:], 1 + np.log(5 / (1 + n_with)), rtol=1e-6)
