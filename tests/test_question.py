"""Questions of several parts, and what their answers show: pages, one hit of each file, near duplicates folded."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentences import model

from xmr.engine.answer import Answer, Wanted, answer
from xmr.engine.duplicates import Group, duplicates
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.exchange.rows import Block, Entry
from xmr.engine.index import Index
from xmr.engine.question import Asker, NoModelError, Part, parts_of
from xmr.engine.question.indexed import items_like
from xmr.engine.question.line import MAX_LINE, lines_of, question_of

DIM = 8
N_FILES, N_OF_FILE = 30, 6
RNG = np.random.default_rng(0)


def unit(rows: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.asarray(rows, dtype=np.float64)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def add(index: Index, path: str, vectors: Any, modality: str = "image", **facts: Any) -> None:
    """One file, an item a vector, its lines numbered."""
    entries = [Entry(path, modality, line=line, **facts) for line in range(1, len(vectors) + 1)]
    index.append([Block(unit(vectors), entries)])


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Index]:
    index = Index.create(tmp_path / "index", model(DIM))
    yield index
    index.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Files of some items that are alike among themselves, and a few that are copies of others; never written to."""
    index = Index.create(tmp_path_factory.mktemp("corpus") / "index", model(DIM))
    middles = unit(RNG.standard_normal((N_FILES, DIM)))
    rows = unit(middles[:, None] + 0.15 * RNG.standard_normal((N_FILES, N_OF_FILE, DIM)))
    rows[20:] = rows[:10]  # the last ten files are copies
    entries = [
        Entry(f"/c/{file:02d}.mp4", "image", start_s=float(at), end_s=at + 1.0, metadata={"even": file % 2 == 0})
        for file in range(N_FILES)
        for at in range(N_OF_FILE)
    ]
    index.append([Block(rows.reshape(-1, DIM), entries)])
    yield index
    index.close()


def ranking(index: Index, vector: Any, wanted: Wanted) -> list[tuple[str, int]]:
    """Path and id of every item, best first, as a plain sort has it."""
    hits = index.search(vector, 10_000, where=wanted.where, min_score=wanted.min_score)
    return [(hit.path, hit.id) for hit in hits]


def by_hand(index: Index, vector: Any, wanted: Wanted) -> list[tuple[int, list[int]]]:
    """The page and what is folded into each hit, over the whole ranking at once."""
    ranked = ranking(index, vector, wanted)
    if wanted.group:
        first = dict(reversed(ranked))
        ranked = [(path, item) for path, item in ranked if first[path] == item]
    rows = {item: index.vectors([item])[0] for _, item in ranked}
    shown: list[tuple[int, list[int]]] = []
    for _, item in ranked:
        better = [folded for kept, folded in shown if wanted.fold and rows[kept] @ rows[item] >= wanted.fold]
        if better and len(shown) <= wanted.offset + wanted.k:
            better[0].append(item)
        elif not better:
            shown.append((item, []))
        if len(shown) > wanted.offset + wanted.k:
            break
    return shown[wanted.offset : wanted.offset + wanted.k]


def ids(answers: Sequence[Answer]) -> list[tuple[int, list[int]]]:
    return [(one.hit.id, list(one.folded)) for one in answers]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(k=7),
        Wanted(k=5, offset=11),
        Wanted(k=4, group="file"),
        Wanted(k=500, group="file"),
        Wanted(k=6, offset=17, group="file"),
        Wanted(k=9, fold=0.98),
        Wanted(k=3, offset=5, fold=0.9),
        Wanted(k=1000, fold=0.95),
        Wanted(k=8, fold=0.999, group="file"),
        Wanted(k=8, fold=0.97, where="even", min_score=0.1),
        Wanted(k=3, offset=1000, group="file"),
    ],
)
def test_a_page_is_that_of_the_whole_ranking(corpus: Index, wanted: Wanted) -> None:
    for vector in unit(np.random.default_rng(1).standard_normal((5, DIM))):
        answers = answer(corpus, vector, wanted)
        assert ids(answers) == by_hand(corpus, vector, wanted)
        assert [one.rank for one in answers] == list(range(wanted.offset + 1, wanted.offset + len(answers) + 1))


def test_hits_are_folded_alike_however_many_are_compared_at_once(
    corpus: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.answer.HITS_AT_ONCE", 7)
    vector, wanted = unit(RNG.standard_normal(DIM)), Wanted(k=200, fold=0.9)
    assert ids(answer(corpus, vector, wanted)) == by_hand(corpus, vector, wanted)


def test_copies_are_alike_at_a_cosine_of_1_whatever_float32_makes_of_it(empty: Index) -> None:
    rows = unit(RNG.standard_normal((200, DIM)))
    assert (np.einsum("nd,nd->n", rows, rows) < 1).any()
    add(empty, "/a", rows)
    add(empty, "/b", rows)
    assert [len(group.ids) for group in duplicates(empty, 1.0)] == [2] * 200
    answers = answer(empty, rows[0], Wanted(k=400, fold=1.0))
    assert [len(one.folded) for one in answers] == [1] * 200


def test_pages_together_are_the_ranking(corpus: Index) -> None:
    [vector] = corpus.vectors([3])
    pages = [answer(corpus, vector, Wanted(k=7, offset=start, group="file")) for start in range(0, N_FILES, 7)]
    assert [one for page in pages for one in ids(page)] == ids(answer(corpus, vector, Wanted(k=99, group="file")))


def test_what_is_asked_about_is_left_out_and_the_page_is_full(corpus: Index) -> None:
    named = items_like(corpus, "/c/04.mp4")
    answers = answer(corpus, Asker(corpus, pytest.fail).vector_of(named.ids), Wanted(k=6), without=named.itself)
    assert {one.hit.path for one in answers} == {"/c/24.mp4"}
    assert len(answers) == 6


def test_an_answer_is_of_one_version_of_the_index(corpus: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    search = Index.search

    def noting(index: Index, *arguments: Any, **settings: Any) -> Any:
        seen.append(index._catalog.connection.in_transaction)
        return search(index, *arguments, **settings)

    monkeypatch.setattr(Index, "search", noting)
    answer(corpus, corpus.vectors([1])[0], Wanted(k=20, group="file"))
    assert len(seen) > 1
    assert all(seen)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 0}, "0 hits wanted"),
        ({"offset": -1}, "offset -1"),
        ({"to": ("smell",)}, "'smell' is no modality"),
        ({"group": "x"}, "group 'x' found; hits are grouped by file"),
        ({"fold": 2.0}, "fold 2 found"),
        ({"fold": 0.0}, "fold 0 found"),
        ({"fold": float("nan")}, "fold nan found"),
        ({"min_score": float("nan")}, "smallest score nan"),
    ],
)
def test_what_cannot_be_wanted_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Wanted(**settings)


def test_parts_are_added_up_with_their_weights(corpus: Index) -> None:
    given = {"like": ["1", "7"], "minus_like": ["13"]}
    parts = parts_of(given, {"like": [1, 0.5], "minus_like": [0.3]})
    assert parts == [Part("like", "1", 1), Part("like", "7", 0.5), Part("like", "13", -0.3)]
    one, two, three = corpus.vectors([1, 7, 13]).astype(np.float64)
    expected = unit(one + 0.5 * two - 0.3 * three)
    np.testing.assert_allclose(Asker(corpus, pytest.fail).vector(parts), expected, atol=1e-6)


def test_parts_that_cancel_each_other_are_no_question(corpus: Index) -> None:
    for parts in ([Part("like", "1"), Part("like", "1", -1)], [Part("like", "1", 0)]):
        with pytest.raises(XmrError, match="cancel each other out"):
            Asker(corpus, pytest.fail).vector(parts)
    with pytest.raises(UsageError, match="no question given"):
        Asker(corpus, pytest.fail).vector([])


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"text": [1]}, "1 weights found for 2 text"),
        ({"text": [1, -1]}, "weight -1 of text found"),
        ({"text": [1, float("nan")]}, "weight nan"),
        ({"text": [1, 1e308]}, "weight 1e\\+308 of text found; give 0 to 1e\\+30"),
        ({"minus_text": [1]}, "1 weights found for 0 minus-text"),
        ({"txt": [1]}, "weights of 'txt' found; the parts of a question are image"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: dict[str, list[float]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parts_of({"text": ["a", "b"]}, weights)


def test_a_model_is_opened_once_and_only_for_what_it_embeds(corpus: Index) -> None:
    opened: list[str] = []

    def failing() -> Any:
        opened.append("model")
        raise XmrError("nowhere: no config.json in it")

    asker = Asker(corpus, failing)
    asker.vector([Part("like", "1")])
    assert not opened
    with pytest.raises(NoModelError, match="no config"):
        asker.vector([Part("text", "a dog")])


def test_a_model_of_another_index_is_refused(corpus: Index) -> None:
    with pytest.raises(NoModelError, match="made with model"):
        Asker(corpus, lambda: model(DIM, "fedcba9876543210")).vector([Part("text", "a dog")])


def test_an_item_is_named_by_id_path_or_line(empty: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    add(empty, str(tmp_path / "notes.txt"), np.eye(3, DIM), "text")
    add(empty, str(tmp_path / "v.mp4"), np.eye(2, DIM), "sound")
    entries = [Entry(str(tmp_path / "v.mp4"), name) for name in ("image", "sound")]
    empty.append([Block(unit(np.eye(2, DIM)), entries)])
    assert items_like(empty, "2").ids == [2]
    assert items_like(empty, "notes.txt").ids == [1, 2, 3]
    assert items_like(empty, "notes.txt:2").ids == [2]
    assert items_like(empty, f"{tmp_path}/../{tmp_path.name}/notes.txt:3").itself == [3]
    of_video = items_like(empty, "./v.mp4")
    assert {empty.found([item])[item].modality for item in of_video.ids} == {"image"}
    assert {empty.found([item])[item].modality for item in of_video.itself} == {"image", "sound"}


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("999", "no item 999 in this index"),
        ("9" * 40, "no item 99999999999999999999 in"),
        ("/x/04.mp4", "not in the index .*; the nearest file there is /c/04.mp4"),
        ("/c/4.mp4", "nearest file there is /c/.*4.mp4"),
        ("/c/04.mp4:3", "not in the index"),
        ("\udcff", "a name that is not UTF-8"),
    ],
)
def test_what_is_not_in_the_index_is_told_with_the_nearest(corpus: Index, named: str, says: str) -> None:
    with pytest.raises(XmrError, match=says):
        items_like(corpus, named)


def test_an_empty_index_has_nothing_alike(empty: Index) -> None:
    for named in ("1", "a.jpg"):
        with pytest.raises(XmrError, match="nothing in this index yet"):
            items_like(empty, named)
    assert list(duplicates(empty, 0.98)) == []


def groups_by_hand(index: Index, modality: str, cosine: float) -> list[list[int]]:
    """Each item without a group takes the later ones that are alike to it."""
    left, groups = index.ids(modality).tolist(), []
    while left:
        first, *others = left
        vectors = index.vectors([first, *others])
        alike = [item for item, score in zip(others, vectors[1:] @ vectors[0], strict=True) if score >= cosine]
        groups += [[first, *sorted(alike)]] if alike else []
        left = [item for item in others if item not in alike]
    return groups


@pytest.mark.parametrize("cosine", [0.5, 0.9, 0.98, 1.0])
def test_duplicates_are_those_of_a_plain_comparison(
    corpus: Index, cosine: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmr.engine.duplicates.QUERIES_AT_ONCE", 7)
    monkeypatch.setattr("xmr.engine.duplicates.NEIGHBOURS", 2)
    found = list(duplicates(corpus, min(cosine, 0.999999)))
    assert [[group.ids[0], *sorted(group.ids[1:])] for group in found] == groups_by_hand(
        corpus, "image", min(cosine, 0.999999)
    )
    assert all(group.scores[1:] == sorted(group.scores[1:], reverse=True) for group in found)


def test_duplicates_stay_within_a_modality_and_tell_how_far_they_are(empty: Index) -> None:
    add(empty, "/c/a.jpg", np.eye(2, DIM))
    add(empty, "/c/b.jpg", np.eye(1, DIM))
    add(empty, "/c/a.wav", np.eye(1, DIM), "sound")
    told: list[tuple[int, int]] = []
    found = list(duplicates(empty, 0.98, progress=lambda done, total: told.append((done, total))))
    assert found == [Group("image", [1, 3], [1.0, 1.0])]
    assert told == [(0, 4), (3, 4), (3, 4), (4, 4)]
    assert list(duplicates(empty, 0.98, ("sound",))) == []
    with pytest.raises(UsageError, match="cosine 2 found"):
        next(duplicates(empty, 2))
    with pytest.raises(XmrError, match="no text in this index, it holds image, sound"):
        next(duplicates(empty, 0.98, ("text",)))


def test_lines_are_sentences_or_records() -> None:
    said = {"text": "a", "minus_image": ["x.jpg"], "like": 17, "weight": {"minus_image": 0.3}, "to": "image, text"}
    said |= {"k": 3, "where": "line = 1", "min_score": 0, "group": "file", "fold": True, "offset": 2}
    wanted = Wanted(k=5, min_score=0.5)
    assert question_of(b"a dog barks\n", wanted).parts == [Part("text", "a dog barks")]
    assert question_of(b"a dog barks\n", wanted).wanted == wanted
    question = question_of(json.dumps(said).encode(), wanted)
    assert question.parts == [Part("text", "a"), Part("like", "17"), Part("image", "x.jpg", -0.3)]
    assert question.wanted == Wanted(3, 2, ("image", "text"), "line = 1", 0, "file", 0.98)
    assert question_of(b'{"text": "a", "k": null, "fold": false}', wanted).wanted == wanted


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{bad", "no JSON object found"),
        (b"[" * 10, None),  # a sentence of brackets
        (b'{"a": ' * 100_000, "no JSON object found"),
        (b'{"k": ' + b"9" * 5000 + b"}", "no JSON object found"),
        (b'{"txt": 1}', "unknown key 'txt' found; did you mean text"),
        (b'{"text": 1}', "text 1 found; give a string"),
        (b'{"text": ["a", null]}', "text null found"),
        (b'{"text": "\\ud800"}', "text .* found"),
        (b'{"like": true}', "like true found"),
        (b'{"text": "a", "weight": 2}', "weight 2 found"),
        (b'{"text": "a", "weight": {"text": "2"}}', "weight of text"),
        (b'{"text": "a", "weight": {"text": 1e999}}', "weight of text"),
        (b'{"text": "a", "k": "3"}', 'k "3" found; give a whole number'),
        (b'{"text": "a", "k": true}', "k true found"),
        (b'{"text": "a", "k": 0}', "0 hits wanted"),
        (b'{"text": "a", "min_score": NaN}', "min_score NaN found"),
        (b'{"text": "a", "where": 1}', "where 1 found"),
        (b'{"text": "a", "to": [1]}', "to .* found; give a list"),
        (b'{"text": "a", "to": "smell"}', "'smell' is no modality"),
        (b'{"text": "a", "group": "x"}', "group 'x' found"),
        (b'{"text": "a", "fold": 2}', "fold 2 found"),
        (b"\xff\xfe", "byte 0xff found, UTF-8 expected"),
        (b"a" * (MAX_LINE + 1), "more than 1,000,000 bytes"),
    ],
)
def test_a_bad_line_is_told_in_one_sentence(line: bytes, says: str | None) -> None:
    if says is None:
        assert question_of(line, Wanted()).parts
        return
    with pytest.raises(UsageError, match=says) as raised:
        question_of(line, Wanted())
    assert len(str(raised.value)) < 400


def test_empty_lines_are_counted_and_an_endless_one_is_cut(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\n\n  \nb\n" + b"c" * (2 * MAX_LINE + 10) + b"\nlast")
    with (tmp_path / "lines").open("rb") as file:
        found = list(lines_of(file))
    assert [(number, len(line)) for number, line in found] == [(1, 2), (4, 2), (5, MAX_LINE + 1), (6, 4)]
