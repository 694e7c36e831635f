"""Retrieval tables: the metrics by hand, which items are matched, and the random ranking beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmr.engine.errors import XmrError
from xmr.engine.info import CHECKPOINT_NAME
from xmr.train.batches import Store
from xmr.train.checkpoint import best_of, load_checkpoint, restore_model
from xmr.train.datasets import Row
from xmr.train.evaluate import (
    embed_contents,
    evaluate,
    evaluate_held_out,
    load_held_out,
    matched_items,
    retrieval,
    score_of,
)

CPU = torch.device("cpu")


def seen(name: str, *captions: str, **fields: Any) -> Row:
    files = {"image": Path(f"{name}.png")} | fields.pop("files", {})
    return Row(fields.pop("id", name), "val", files=files, captions=captions, **fields)


def heard(name: str, image: str, **fields: Any) -> Row:
    return seen(image, files={"sound": Path(f"{name}.wav")}, **fields)


def test_retrieval_worked_by_hand() -> None:
    a, b = np.eye(3), np.array([[1.0, 0.9, 0.0], [0.5, 0.2, 0.0], [0.0, 0.0, 1.0]])
    # a to b, rows 1 .5 0 / .9 .2 0 / 0 0 1: ranks 1, 2, 1; b to a is the transpose: 1, 2, 1
    both = retrieval(a, b, [0, 1, 2], [0, 1, 2])
    expected = {"R@1": 66.6667, "R@5": 100.0, "R@10": 100.0, "median_rank": 1.0, "mean_rank": 1.3333, "mAP": 83.3333}
    expected |= {"missing": {"AP@50": "3 items are ranked, 50 are needed"}, "n_left_out": 0}
    assert both == {"a_to_b": expected, "b_to_a": expected, "rsum": 533.3334}


def test_retrieval_with_several_right_answers_and_sizes() -> None:
    a, b = np.array([[1.0], [-1.0]]), np.array([[3.0], [1.0], [2.0]])
    both = retrieval(a, b, ["x", "y"], ["y", "x", "x"])
    # of x: y before both x, precisions 1/2 and 2/3; of y: the worst of three
    assert both["a_to_b"]["mean_rank"] == 2.5
    assert both["a_to_b"]["mAP"] == pytest.approx(100 * ((1 / 2 + 2 / 3) / 2 + 1 / 3) / 2, abs=1e-4)
    assert both["b_to_a"]["R@1"] == pytest.approx(200 / 3, abs=1e-4)


def test_retrieval_leaves_out_queries_without_an_answer_and_counts_them() -> None:
    a, b = np.eye(3), np.eye(3)
    both = retrieval(a, b, ["x", "y", "nobody"], ["x", "y", "z"])
    assert (both["a_to_b"]["n_left_out"], both["a_to_b"]["R@1"]) == (1, 100)
    assert both["b_to_a"]["n_left_out"] == 1


@pytest.mark.parametrize(
    ("a_ids", "b_ids", "said"),
    [
        ([1, 2, 3], [4, 5, 6], "none of the 3 query ids is among the 3 of the gallery"),
        ([1, 2], [1, 2, 3], "2 and 3 ids found for 3 and 3 rows"),
    ],
)
def test_retrieval_refuses_ids_that_match_nothing(a_ids: list[int], b_ids: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retrieval(np.eye(3), np.eye(3), a_ids, b_ids)


def test_rows_that_pair_the_two_are_matched_by_their_id() -> None:
    rows = [seen("a", "one", "two"), seen("b", "three")]
    images, sentences = matched_items(rows, "image", "text")
    assert (images.contents, images.keys) == ([Path("a.png"), Path("b.png")], ["a", "b"])
    assert (sentences.contents, sentences.keys) == (["one", "two", "three"], ["a", "a", "b"])


def test_rows_that_pair_the_two_are_matched_by_their_label_where_they_have_one() -> None:
    rows = [seen("a", "one", label="dog"), seen("b", "two", label="dog"), seen("c", "three")]
    images, sentences = matched_items(rows, "image", "text")
    assert images.keys == sentences.keys == ["label:dog", "label:dog", "c"]


def test_direct_rows_decide_alone() -> None:
    rows = [
        seen("a", "one", files={"sound": Path("a.wav")}),
        heard("b", "b", id="b"),
        seen("b", "two", id="b"),
    ]
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.contents, sentences.contents) == ([Path("a.wav")], ["one"])


def test_what_is_read_and_what_is_heard_meet_in_the_label() -> None:
    rows = [seen("a", "one", label="dog"), heard("s", "b", label="dog"), heard("t", "c", label="rain")]
    rows.append(seen("d", "two"))  # nobody knows which sounds it fits
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.contents, sounds.keys) == ([Path("s.wav"), Path("t.wav")], ["label:dog", "label:rain"])
    assert (sentences.contents, sentences.keys) == (["one"], ["label:dog"])


def test_what_is_read_and_what_is_heard_meet_in_an_image() -> None:
    rows = [seen("a", "one", id="1"), heard("s", "a", id="1"), heard("t", "b", id="2")]
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.contents, sounds.keys) == ([Path("s.wav"), Path("t.wav")], ["1", "2"])
    assert (sentences.contents, sentences.keys) == (["one"], ["1"])


def test_a_row_takes_the_label_of_a_row_with_its_id() -> None:
    rows = [seen("a", "one", id="1", label="dog"), heard("s", "a", id="1"), heard("t", "b", id="2", label="dog")]
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.contents, sounds.keys) == ([Path("s.wav"), Path("t.wav")], ["label:dog"] * 2)
    assert sentences.keys == ["label:dog"]


def test_the_label_of_a_row_is_its_own_where_its_image_has_several() -> None:
    rows = [heard("s", "a", id="1", label="cat"), heard("t", "a", id="1", label="dog"), seen("a", "one", id="1")]
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.keys, sentences.keys) == (["label:cat", "label:dog"], ["label:dog"])


def test_items_of_one_key_count_once() -> None:
    rows = [heard("s", "a", label="dog"), heard("s", "b", label="dog"), heard("s", "c", label="rain")]
    sounds, images = matched_items(rows, "sound", "image")
    assert list(zip(sounds.contents, sounds.keys, strict=True)) == [
        (Path("s.wav"), "label:dog"),
        (Path("s.wav"), "label:rain"),
    ]
    assert len(images.contents) == 3


def test_a_sentence_of_two_images_stays_two_items() -> None:
    _, sentences = matched_items([seen("a", "a dog"), seen("b", "a dog")], "image", "text")
    assert (sentences.contents, sentences.keys) == (["a dog", "a dog"], ["a", "b"])


def test_items_know_the_row_they_were_first_met_in_and_how_many_nobody_can_place() -> None:
    rows = [seen("a", "one", id="1", label="dog"), heard("s", "b", id="2", label="dog"), seen("d", "two", "three")]
    sounds, sentences = matched_items(rows, "sound", "text")
    assert (sounds.ids, sounds.n_unmatched) == (["2"], 0)
    assert (sentences.ids, sentences.n_unmatched) == (["1"], 2)


def test_nothing_in_common_is_nothing_to_rank() -> None:
    items = matched_items([seen("a", "one"), heard("s", "b")], "sound", "text")
    assert [part.contents for part in items] == [[], []]


@pytest.fixture(scope="module")
def results(finished_world: Path) -> list[dict[str, Any]]:
    checkpoint = load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))
    cache = finished_world / ".xmr" / "cache"
    return evaluate_held_out(load_held_out(checkpoint, checkpoint.config.data, "val", cache, CPU))


def test_every_direction_is_ranked_also_the_one_without_pairs(results: list[dict[str, Any]]) -> None:
    sizes = {(found["query"], found["gallery"]): (found["n_queries"], found["n_gallery"]) for found in results}
    # 4 concepts with 2 image-text rows of 3 captions and 2 image-sound rows each
    assert sizes == {
        ("image", "sound"): (8, 8),
        ("sound", "image"): (8, 8),
        ("image", "text"): (8, 24),
        ("text", "image"): (24, 8),
        ("sound", "text"): (8, 24),
        ("text", "sound"): (24, 8),
    }


def test_the_records_of_training_are_found_again(finished_world: Path, results: list[dict[str, Any]]) -> None:
    checkpoint = load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))
    assert checkpoint.state["metrics"]["val"] == results
    assert checkpoint.state["best"] == pytest.approx(score_of(results, "mAP"))


def test_the_random_row_is_near_what_chance_gives(results: list[dict[str, Any]]) -> None:
    for record in results:
        n_right = record["n_gallery"] // 4
        # the chance that one of the first k of the gallery is right; 5 draws of 8 to 24 queries
        for k in (1, 5):
            wrong = np.prod([1 - n_right / (record["n_gallery"] - place) for place in range(k)])
            spread = 100 * np.sqrt(wrong * (1 - wrong) / (5 * record["n_queries"]))
            assert abs(record["random"][f"R@{k}"] - 100 * (1 - wrong)) < 3.5 * spread


def test_embeddings_are_unit_rows_and_do_not_depend_on_the_batch(finished_world: Path) -> None:
    model = restore_model(load_checkpoint(finished_world / ".xmr" / "checkpoint" / CHECKPOINT_NAME))
    store = Store({}, model.encoder("text").preprocessing)
    sentences = ["a dog", "the siren is red", "rain"] * 100
    rows = embed_contents(model, store, "text", sentences, CPU)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(rows[:3], embed_contents(model, store, "text", sentences[:3], CPU), atol=1e-6)
    assert embed_contents(model, store, "text", [], CPU).shape == (0, model.dim)


def test_rows_without_a_counterpart_give_no_record(finished_world: Path) -> None:
    model = restore_model(load_checkpoint(finished_world / ".xmr" / "checkpoint" / CHECKPOINT_NAME))
    assert evaluate(model, Store({}), [], CPU) == []
    assert score_of([], "mAP") == 0


@pytest.mark.parametrize(
    ("by", "on", "expected"),
    [
        ("mAP", (), 20.0),
        ("rsum", (), 65.0),
        ("median_rank", (), -5.0),
        ("R@10", ("text-image",), 20.0),
        ("rsum", ("image-text",), 50.0),
        ("mAP", ("image-speech",), 0.0),
    ],
)
def test_the_score_of_a_model_is_what_is_asked_for(by: str, on: tuple[str, ...], expected: float) -> None:
    directions = [("image", "text", 10.0, 3), ("text", "image", 30.0, 1), ("sound", "text", 10.0, 11)]
    records = [
        {"query": a, "gallery": b, "R@1": 0, "R@5": 5, "R@10": recall, "mAP": 20.0, "median_rank": rank}
        for a, b, recall, rank in directions
    ]
    assert score_of(records, by, on) == expected


def test_a_record_says_what_is_missing_and_what_cannot_tell_anything(results: list[dict[str, Any]]) -> None:
    record = next(found for found in results if found["query"] == "text" and found["gallery"] == "image")
    assert record["missing"] == {"AP@50": "8 items are ranked, 50 are needed"}
    assert record["note"] == "R@10 can only be 100 where 8 items are ranked"
    assert record["n_left_out"] == 0
    back = next(found for found in results if found["query"] == "image" and found["gallery"] == "text")
    assert record["rsum"] == back["rsum"] == pytest.approx(sum(r[f"R@{k}"] for r in (record, back) for k in (1, 5, 10)))


def test_modalities_that_nothing_joins_are_missing_with_the_reason(finished_world: Path) -> None:
    checkpoint = load_checkpoint(finished_world / ".xmr" / "checkpoint" / CHECKPOINT_NAME)
    cache = finished_world / ".xmr" / "cache"
    held_out = load_held_out(checkpoint, checkpoint.config.data, "val", cache, CPU)
    held_out.rows = [row for row in held_out.rows if "sound" not in row.modalities]
    records = evaluate_held_out(held_out)
    directions = [(record["query"], record["gallery"]) for record in records if "kind" not in record]
    assert directions == [("image", "text"), ("text", "image")]
    missing = [record for record in records if record.get("kind") == "missing"]
    assert [(record["query"], record["gallery"]) for record in missing] == [("image", "sound"), ("sound", "text")]
    assert missing[0]["reason"] == "no row pairs image and sound, and no id or label is on rows of both"


def test_a_split_without_rows_names_those_there_are(finished_world: Path) -> None:
    checkpoint = load_checkpoint(finished_world / ".xmr" / "checkpoint" / CHECKPOINT_NAME)
    with pytest.raises(XmrError, match=r"no test rows of image, sound, text; splits are train, val"):
        load_held_out(checkpoint, checkpoint.config.data, "test", finished_world / ".xmr" / "cache", CPU)
