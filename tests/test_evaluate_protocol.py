"""How held-out rows are asked: folds, random galleries of pairs, averaged duplicates, figures as published."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xmr.engine.metrics import average_precision, ranks
from xmr.train.evaluate.directions import both_ways
from xmr.train.evaluate.embeddings import averaged
from xmr.train.evaluate.items import Items
from xmr.train.evaluate.pair import Pair
from xmr.train.evaluate.protocol import Protocol, UnrankedError, pair_places

N, N_CAPTIONS, DIM = 70, 3, 6


def numbers(names: Sequence[Any]) -> list[str]:
    return [str(name) for name in names]


def captioned(n: int = N, labels: Sequence[str] | None = None) -> Pair:
    """n images of three sentences each, with random rows; ids are 0, 1, 2 …, keys the ids or labels."""
    rng = np.random.default_rng(0)
    image_ids, text_ids = numbers(range(n)), numbers(np.repeat(range(n), N_CAPTIONS))
    key = dict(zip(image_ids, labels or image_ids, strict=True))
    items = {
        "image": Items([f"{id_}.jpg" for id_ in image_ids], [key[id_] for id_ in image_ids], image_ids),
        "text": Items([f"{place}" for place in range(len(text_ids))], [key[id_] for id_ in text_ids], text_ids),
    }
    images = rng.normal(size=(n, DIM)).astype(np.float32)
    texts = np.repeat(images, N_CAPTIONS, axis=0) + rng.normal(size=(len(text_ids), DIM)).astype(np.float32)
    return Pair(items, {"image": images, "text": texts})


def figures_of(pair: Pair, query: str, queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> dict[str, float]:
    """R@5, median and mean rank and mAP from the whole matrix of some items."""
    other = pair.other(query)
    scores = pair.rows[query][queries] @ pair.rows[other][gallery].T
    found = ranks(scores, pair.keys(query, queries), pair.keys(other, gallery))
    precision = average_precision(scores, pair.keys(query, queries), pair.keys(other, gallery))
    figures = {"R@5": 100 * np.mean(found <= 5), "median_rank": np.median(found), "mean_rank": np.mean(found)}
    return {name: float(value) for name, value in (figures | {"mAP": 100 * np.mean(precision)}).items()}


@pytest.mark.parametrize(("keep_tail", "bounds"), [(False, [0, 20, 40, 60]), (True, [0, 20, 40, 60, 70])])
def test_figures_of_folds_are_means_over_folds_of_consecutive_ids(keep_tail: bool, bounds: list[int]) -> None:
    pair = captioned()
    for record in both_ways(pair, Protocol(fold_size=20, keep_tail=keep_tail)):
        expected, weights = [], np.diff(bounds)  # as many queries of every id
        for start, end in pairwise(bounds):
            places = {"image": np.arange(start, end), "text": np.arange(N_CAPTIONS * start, N_CAPTIONS * end)}
            expected.append(figures_of(pair, record["query"], places[record["query"]], places[record["gallery"]]))
        for name in expected[0]:
            assert record[name] == pytest.approx(
                np.average([of_fold[name] for of_fold in expected], weights=weights), abs=1e-3
            )
        assert (record["folds"], record["fold_size"]) == (len(bounds) - 1, 20)
        assert record["n_ids_left_out"] == (0 if keep_tail else 10)
        assert record["n_queries"] == bounds[-1] * (1 if record["query"] == "image" else N_CAPTIONS)


def test_one_fold_of_everything_is_all_against_all() -> None:
    pair = captioned()
    for whole, folded in zip(both_ways(pair), both_ways(pair, Protocol(fold_size=N)), strict=True):
        assert {name: folded[name] for name in whole if name != "random"} == {
            name: value for name, value in whole.items() if name != "random"
        }


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (Protocol(fold_size=71), "a fold of 71 ids was asked for, image and text have 70; give at most that"),
        (Protocol(gallery_size=71), "galleries of 71 pairs were asked for, image and text have 70; give at most that"),
    ],
)
def test_parts_that_are_larger_than_what_there_is_are_refused(protocol: Protocol, said: str) -> None:
    with pytest.raises(UnrankedError, match=said):
        both_ways(captioned(), protocol)


def test_no_fold_is_cut_where_only_labels_join() -> None:
    items = {"sound": Items(["a"], ["label:dog"], ["1"]), "text": Items(["b"], ["label:dog"], ["2"])}
    with pytest.raises(UnrankedError, match="share no id, only labels"):
        both_ways(Pair(items, {name: np.ones((1, 2), np.float32) for name in items}), Protocol(fold_size=1))


def test_galleries_are_pairs_one_to_one_and_their_figures_are_means() -> None:
    pair = captioned()
    [record, _] = both_ways(pair, Protocol(gallery_size=30, repeats=4, seed=7))
    medians = []
    for repeat in range(4):
        places = pair_places(pair.items["image"], pair.items["text"], np.random.default_rng([7, repeat]))[:30]
        assert len(set(places[:, 0])) == len(set(places[:, 1])) == 30
        assert (places[:, 1] // N_CAPTIONS == places[:, 0]).all()
        medians.append(figures_of(pair, "image", places[:, 0], places[:, 1])["median_rank"])
    assert record["median_ranks"] == medians
    assert record["median_rank"] == pytest.approx(np.mean(medians), abs=1e-4)
    assert (record["n_queries"], record["n_gallery"], record["n_left_out"]) == (120, 30, 0)


def test_the_random_ranking_of_galleries_is_drawn_anew_for_each() -> None:
    pair = captioned()
    one, other = (both_ways(pair, Protocol(gallery_size=30, repeats=2, seed=seed))[0] for seed in (0, 1))
    assert one["random"] != other["random"]
    [many, _] = both_ways(pair, Protocol(gallery_size=30, repeats=60))
    assert many["random"]["median_rank"] == pytest.approx(15.5, abs=1)


def test_a_tail_of_one_id_weighs_as_one() -> None:
    [record, _] = both_ways(captioned(), Protocol(fold_size=69, keep_tail=True))
    whole = figures_of(captioned(), "image", np.arange(69), np.arange(3 * 69))
    assert record["R@5"] == pytest.approx((69 * whole["R@5"] + 100) / 70, abs=1e-3)
    assert record["note"] == "R@5 and R@10 can only be 100 where 3 items are ranked"


def test_folds_in_which_nothing_is_asked_are_not_counted() -> None:
    pair = captioned(4)
    two = Pair({**pair.items, "text": pair.items["text"].at(range(6))}, {**pair.rows, "text": pair.rows["text"][:6]})
    [of_images, _] = both_ways(two, Protocol(fold_size=2))
    assert (of_images["folds"], len(of_images["median_ranks"]), of_images["n_left_out"]) == (1, 1, 2)


def test_items_that_were_averaged_are_said_and_no_others() -> None:
    pair = captioned()
    averaged_pair = pair.with_means(("text", "sound"))
    assert len(averaged_pair.items["text"].keys) == N
    assert both_ways(averaged_pair)[0]["averaged"] == ["text"]
    assert "averaged" not in both_ways(pair, Protocol(averaged=("text",)))[0]


def test_see_hear_and_read_takes_the_partner_alone_for_right() -> None:
    pair = captioned(labels=["label:dog", "label:cat"] * (N // 2))
    protocol = Protocol(gallery_size=30, repeats=1, faithful=True)
    [record, _] = both_ways(pair, protocol)
    places = pair_places(pair.items["image"], pair.items["text"], np.random.default_rng([0, 0]))[:30]
    scores = pair.rows["image"][places[:, 0]] @ pair.rows["text"][places[:, 1]].T
    assert record["faithful"]["see-hear-read"]["median_rank"] == np.median(ranks(scores, range(30), range(30)))
    assert record["median_rank"] < record["faithful"]["see-hear-read"]["median_rank"]
    assert "mAP" in record["faithful"]["cmpl"]  # its images have several captions, though a gallery has one of them


def test_the_seed_decides_what_is_drawn() -> None:
    pair = captioned()
    first, again, other = (both_ways(pair, Protocol(gallery_size=20, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[0]["median_ranks"] != other[0]["median_ranks"]


def test_what_only_shares_a_label_is_paired_within_it() -> None:
    sounds = Items(list("abcde"), ["label:dog"] * 3 + ["label:cat"] * 2, numbers(range(5)))
    texts = Items(list("vwxyz"), ["label:cat"] * 4 + ["label:cow"], numbers(range(10, 15)))
    places = pair_places(sounds, texts, np.random.default_rng(0))
    assert len(places) == len(set(places[:, 0])) == len(set(places[:, 1])) == 2
    assert {sounds.keys[a] for a, _ in places} == {texts.keys[b] for _, b in places} == {"label:cat"}


def test_an_id_pairs_before_a_label_does() -> None:
    sounds = Items(["a", "b"], ["label:dog"] * 2, ["1", "2"])
    texts = Items(["x", "y"], ["label:dog"] * 2, ["2", "3"])
    assert sorted(pair_places(sounds, texts, np.random.default_rng(0)).tolist()) == [[0, 1], [1, 0]]


def test_queries_without_a_right_answer_are_not_asked_but_counted() -> None:
    pair = captioned(3)
    images = Items(["0.jpg", "1.jpg"], ["0", "1"], ["0", "1"], n_unmatched=4)
    short = Pair({"image": images, "text": pair.items["text"]}, {**pair.rows, "image": pair.rows["image"][:2]})
    of_images, of_texts = both_ways(short)
    assert (of_images["n_queries"], of_images["n_left_out"]) == (2, 4)
    assert (of_texts["n_queries"], of_texts["n_gallery"], of_texts["n_left_out"]) == (6, 2, 3)


def test_items_of_one_id_are_averaged_to_one_of_unit_length() -> None:
    items = Items(["a", "b", "c", "d"], ["label:dog", "2", "label:dog", "label:cat"], ["1", "2", "1", "1"])
    rows = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=np.float32)
    merged, means = averaged(items, rows)
    assert (merged.contents, merged.keys, merged.ids) == (
        ["a", "b", "d"],
        ["label:dog", "2", "label:cat"],
        ["1", "2", "1"],
    )
    np.testing.assert_allclose(means, [[0.5**0.5, 0.5**0.5], [0, 1], [1, 0]], rtol=1e-6)


def test_published_figures_stand_beside_ours() -> None:
    of_images, of_texts = both_ways(captioned(), Protocol(faithful=True))
    assert list(of_images["faithful"]) == ["vsepp", "dsve", "cmpl", "jc"]
    assert list(of_texts["faithful"]) == ["vsepp", "dsve", "cmpl"]
    for record in (of_images, of_texts):  # without ties the recalls are the same everywhere
        assert all(record["faithful"][system]["R@5"] == record["R@5"] for system in ("vsepp", "dsve", "cmpl"))
        assert record["faithful"]["dsve"]["median_rank"] == record["median_rank"] - 1
        assert record["faithful"]["cmpl"]["mAP"] < record["mAP"]


def test_cmpl_leaves_out_images_with_one_caption_and_misses_their_sentences() -> None:
    pair = captioned(4)
    alone = Pair(
        {**pair.items, "text": pair.items["text"].at([0, 1, 2, 3])}, {**pair.rows, "text": pair.rows["text"][:4]}
    )
    _, of_texts = both_ways(alone, Protocol(faithful=True))  # image 1 has one sentence, images 2 and 3 have none
    assert of_texts["n_queries"] == 4
    assert of_texts["faithful"]["cmpl"] == {"R@1": 75.0, "R@5": 75.0, "R@10": 75.0, "mAP": 100.0, "AP@50": 100.0}


def test_jc_finds_the_text_of_an_image_among_the_64_of_its_batch() -> None:
    pair = captioned()
    [record, _] = both_ways(pair, Protocol(faithful=True, seed=3))
    places = pair_places(pair.items["image"], pair.items["text"], np.random.default_rng(3))[:64]
    images, texts = pair.rows["image"][places[:, 0]], pair.rows["text"][places[:, 1]]
    n_right = sum(int(np.argmax([image @ text for text in texts]) == place) for place, image in enumerate(images))
    assert record["faithful"]["jc"] == {"top-1": pytest.approx(100 * n_right / N, abs=1e-4)}
    [small, _] = both_ways(captioned(20), Protocol(faithful=True))
    assert small["faithful"]["jc"] == {"missing": {"top-1": "20 pairs are there, batches have 64"}}
