"""Localisation figures: masks against hand-worked cases, the pointing game and segmentation against slow references."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_xmr
from numpy.typing import NDArray
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.engine.media import text
from xmr.train.checkpoint import Checkpoint, best_of, load_checkpoint
from xmr.train.datasets.instances import read_instances
from xmr.train.datasets.masks import decode_runs, fill_polygon, run_lengths, segmentation_mask
from xmr.train.evaluate import looking, point_checkpoint, pointing_game, segment_checkpoint, segmentation
from xmr.train.evaluate.localisation import heats_of, hot_pixels, intersection_over_union
from xmr.train.evaluate.looking import load_looker, prompt

Array = NDArray[Any]
CPU = torch.device("cpu")


# masks


def test_runs_go_down_the_columns_and_begin_off() -> None:
    # 3 rows, 4 columns: two off, three on, five off, two on
    expected = [[0, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1]]
    assert decode_runs([2, 3, 5, 2], 3, 4, "here").astype(int).tolist() == expected
    assert decode_runs([0, 12], 3, 4, "here").all()
    assert not decode_runs([12], 3, 4, "here").any()


@pytest.mark.parametrize(
    ("letters", "lengths"),
    [
        ("52", [5, 2]),  # '0' is 0
        ("", []),
        ("b1", [50]),  # 50 = 18 + 32: 18 and the sixth bit is 'b', then 1
        ("P`0", [512]),  # 512 = 0 + 16 * 32; 16 alone would be negative, so that a letter 0 follows
        ("3210", [3, 2, 1, 2]),  # the fourth is the difference to the second
        ("932O", [9, 3, 2, 2]),  # 'O' is 31 of five bits: -1
        ("6o41n0", [6, 159, 1, 159 + 30]),  # 'o4': 31 + 4 * 32; 'n0': 30 + 0 * 32, as 30 alone would be -2
    ],
)
def test_the_letters_of_run_lengths_are_read(letters: str, lengths: list[int]) -> None:
    assert run_lengths(letters, "here") == lengths


def compressed(lengths: list[int]) -> str:
    """COCO's string, written from its definition."""
    letters = []
    for place, length in enumerate(lengths):
        value = length - (lengths[place - 2] if place > 2 else 0)
        while True:
            bits = value & 0x1F
            value >>= 5
            is_last = value == (-1 if bits & 0x10 else 0)
            letters.append(chr(48 + (bits if is_last else bits | 0x20)))
            if is_last:
                break
    return "".join(letters)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_is_the_same_as_numbers_and_as_letters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 40)) > 0.5 if seed % 2 else np.repeat(rng.random((30, 8)) > 0.5, 5, axis=1)
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int)]))).tolist()
    lengths = np.diff([0, *edges, flat.size]).tolist()
    for counts in (lengths, compressed(lengths)):
        found = segmentation_mask({"counts": counts, "size": [30, 40]}, 30, 40, "here")
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"counts": [3, 3], "size": [2, 4]}, "here: run lengths of 6 pixels, the image has 8"),
        ({"counts": [9, -1], "size": [2, 4]}, "here: counts are '.9, -1.', a list of numbers or a string"),
        ({"counts": [8], "size": [4, 2]}, r"here: a mask of size \[4, 2\], the image has \[2, 4\]"),
        ({"counts": "8~", "size": [2, 4]}, "here: '~' in counts"),
        ({"counts": "8o", "size": [2, 4]}, "here: counts end in the middle of a number"),
        ({"counts": None, "size": [2, 4]}, "here: counts are 'None'"),
        ("polygon", "here: segmentation is str"),
        (None, "here: segmentation is NoneType"),
        ([[1, 2, 3, 4]], "here: .* is no polygon of three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "here: .* is no polygon"),
        ([["1", 2, 3, 4, 5, 6]], "here: .* is no polygon"),
        ([3], "here: 3 is no polygon"),
        ([[1, 2, 3, 4, 5, 10**400]], "here: .* is no polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "here: .* is no polygon"),
    ],
)
def test_a_damaged_mask_is_named(given: object, said: str) -> None:
    with pytest.raises(XmrError, match=said):
        segmentation_mask(given, 2, 4, "here")


def test_a_polygon_fills_the_pixels_whose_middle_it_holds() -> None:
    square = np.array([(1, 1), (3, 1), (3, 3), (1, 3)], dtype=float)
    assert fill_polygon(square, 4, 5).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    triangle = np.array([(0, 0.2), (4, 4.2), (0, 4.2)])  # below the line x = y - 0.2
    np.testing.assert_array_equal(fill_polygon(triangle, 4, 4), np.tril(np.ones((4, 4)), -1) > 0)


def is_inside(x: float, y: float, vertices: Array) -> bool:
    """Whether a ray to the left meets an odd number of sides."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            crossings += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(6))
def test_any_polygon_is_filled_as_by_rays(seed: int) -> None:
    vertices = np.random.default_rng(seed).uniform(-4, 24, (3 + seed, 2))  # crosses itself, and leaves the picture
    expected = [[is_inside(x + 0.5, y + 0.5, vertices) for x in range(20)] for y in range(16)]
    np.testing.assert_array_equal(fill_polygon(vertices, 16, 20), expected)


def test_the_parts_of_an_object_are_one_mask() -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]]
    assert int(segmentation_mask(parts, 4, 4, "here").sum()) == 4 + 4 - 1


# the pointing game on arrays


def test_the_pointing_game_by_hand() -> None:
    # maps of 2 x 2 over 100 x 100: middles at 25 and 75, corners at 0 and 50
    hot = [np.eye(4)[place].reshape(2, 2) for place in (0, 1, 2, 3)]
    boxes = [
        (20, 20, 10, 10),  # holds the middle of the first cell
        (40, -5, 20, 20),  # holds the corner of the second, (50, 0), and not its middle
        (0, 50, 100, 50),  # holds the middle of the third; its corner (0, 50) lies on the edge
        (40, 40, 20, 20),  # holds the corner of the fourth, (50, 50), which is the picture's centre
    ]
    found = pointing_game(hot, boxes, [(100, 100)] * 4)
    assert found == {
        "accuracy": 50.0,
        "accuracy_faithful": 50.0,
        "centre": 25.0,
        "random": pytest.approx(100 * (0.01 + 0.03 + 0.5 + 0.04) / 4),
    }


def test_the_points_lie_in_the_area_that_the_map_covers() -> None:
    heat = np.array([[0, 1]])
    box, size = [(110, 40, 20, 20)], [(200, 100)]
    assert pointing_game([heat], box, size)["accuracy"] == 0  # at 150, 50
    assert pointing_game([heat], box, size, [(50, 0, 100, 100)])["accuracy"] == 100  # at 125, 50


def test_the_faithful_game_is_that_of_the_scaled_square() -> None:
    """As published: both in a square of 416, the corner of a cell strictly inside the box."""
    rng = np.random.default_rng(0)
    heats = rng.random((200, 13, 13))
    sizes = rng.integers(200, 800, (200, 2)).astype(float)
    boxes = np.concatenate([rng.uniform(0, 0.5, (200, 2)) * sizes, rng.uniform(0.2, 0.5, (200, 2)) * sizes], axis=1)
    hits = 0
    for heat, (x, y, w, h), (width, height) in zip(heats, boxes, sizes, strict=True):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        left, right = x * 416 / width, (x + w) * 416 / width
        top, bottom = y * 416 / height, (y + h) * 416 / height
        hits += left < 416 / 13 * column < right and top < 416 / 13 * row < bottom
    assert pointing_game(heats, boxes, sizes)["accuracy_faithful"] == pytest.approx(hits / 2)


@pytest.mark.parametrize(("n", "boxes"), [(0, np.zeros((0, 4))), (1, np.zeros((2, 4))), (1, np.zeros((1, 3)))])
def test_a_game_of_unlike_numbers_is_refused(n: int, boxes: Array) -> None:
    with pytest.raises(ValueError, match="heats, boxes"):
        pointing_game([np.zeros((2, 2))] * n, boxes, np.ones((n, 2)))


# segmentation on arrays


def test_the_hot_pixels_of_a_plain_map_by_hand() -> None:
    heat = np.array([[0.0, 0.0], [0.0, 1.0]])
    hot = hot_pixels(heat, share=0.45, side=8)
    # bilinear between middles at 1.5 and 5.5: from column and row 3.5 on, the product of both shares is above 0.45
    share = np.clip((np.arange(8) + 0.5 - 2) / 4, 0, 1)
    np.testing.assert_array_equal(hot, np.outer(share, share) > 0.45)


def test_a_map_without_differences_is_nowhere_hot() -> None:
    assert not hot_pixels(np.full((3, 3), 7.0)).any()


def test_two_empty_masks_have_no_overlap() -> None:
    assert intersection_over_union(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0


def stepwise_precision(overlaps: list[float], n_absent: int, threshold: float) -> float:
    """As published: present and absent images sorted by IoU, steps of recall times precision, the first left out."""
    ranked = sorted([(value, 1) for value in overlaps] + [(0.0, 0)] * n_absent, reverse=True)
    total, hits, recall_before = 0.0, 0, 0.0
    for place, (value, is_present) in enumerate(ranked):
        hits += is_present and value > threshold
        recall, precision = hits / len(overlaps), hits / (place + 1)
        if place:
            total += (recall - recall_before) * precision
        recall_before = recall
    return total


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_the_published_steps_less_the_first_hit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heats, masks = list(rng.random((12, 5, 5))), list(rng.random((12, 20, 20)) > rng.random((12, 1, 1)))
    names = [("cat", "dog", "cow")[place % 3] for place in range(12)]
    found = segmentation(heats, masks, names, thresholds=(0.2, 0.4), side=20)
    of_category: dict[str, list[float]] = {}
    for heat, mask, name in zip(heats, masks, names, strict=True):
        of_category.setdefault(name, []).append(intersection_over_union(hot_pixels(heat, side=20), mask))
    for threshold in (0.2, 0.4):
        steps = [stepwise_precision(values, 7, threshold) for values in of_category.values()]
        plain = [np.mean(np.array(values) > threshold) for values in of_category.values()]
        assert found[f"mAP@{threshold}_faithful"] == pytest.approx(100 * np.mean(steps), abs=1e-3)
        assert found[f"mAP@{threshold}"] == pytest.approx(100 * np.mean(plain), abs=1e-3)
    assert found["IoU"] == pytest.approx(100 * np.mean([np.mean(values) for values in of_category.values()]), abs=1e-3)


def test_segmentation_by_hand() -> None:
    left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    half = np.zeros((10, 10), dtype=bool)
    half[:, :5] = True
    found = segmentation([left, right, left], [half, half, half], ["cat", "cat", "dog"], thresholds=(0.5,), share=0.5)
    # the left heat covers the left half but for the middle of the way, the right one none of it
    assert found["categories"]["cat"] == {
        "n_images": 2,
        "IoU": pytest.approx(50, abs=1),
        "mAP@0.5": 50.0,
        "mAP@0.5_faithful": 0.0,
    }
    assert (found["mAP@0.5"], found["mAP@0.5_faithful"]) == (75.0, 0.0)
    assert found["whole"]["IoU"] == 50.0


def test_segmentation_of_unlike_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="1 heats, 2 masks, 1 categories"):
        segmentation([np.zeros((2, 2))], [np.ones((2, 2))] * 2, ["cat"])


def test_the_published_choice_is_a_share_of_the_largest_dimensions() -> None:
    places, query = np.eye(40)[:, None], np.linspace(-1, 1, 40)
    found = heats_of(places, query, 0.075)
    np.testing.assert_allclose(found["published"][0], np.where(np.arange(40) >= 37, query, 0), atol=1e-6)
    np.testing.assert_allclose(found["all"][0], query, atol=1e-6)
    assert np.count_nonzero(heats_of(places, query, 1e-9)["published"]) == 1


# the files of the datasets


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def annotation(image: int, category: int, given: object) -> dict[str, Any]:
    return {
        "id": 1,
        "image_id": image,
        "category_id": category,
        "segmentation": given,
        "iscrowd": int(isinstance(given, dict)),
    }


def instances(*annotations: dict[str, Any], width: object = 40) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "7.png", "height": 30, "width": width},
            {"id": 8, "file_name": "8.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 1, "name": "bell"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "zebra crossing"}],
        "annotations": list(annotations),
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two pictures: a bell twice and a dog in the first, a dog in the second."""
    picture(tmp_path / "val2014" / "7.png")
    picture(tmp_path / "val2014" / "8.png")
    crowd = {"counts": compressed([300, 600, 300]), "size": [30, 40]}
    annotations = (
        annotation(7, 1, [[0, 0, 10, 0, 10, 10, 0, 10]]),
        annotation(7, 1, [[20, 20, 30, 20, 30, 30, 20, 30], [30, 0, 40, 0, 40, 10, 30, 10]]),
        annotation(7, 2, crowd),
        annotation(8, 2, [[0, 0, 40, 0, 40, 30, 0, 30]]),
    )
    write_json(tmp_path / "annotations" / "instances_val2014.json", instances(*annotations))
    return tmp_path


def test_instances_are_read_with_their_masks(coco: Path) -> None:
    images, categories = read_instances(coco)
    assert categories == ["bell", "dog", "zebra crossing"]
    assert [(of.id, of.file, list(of.segmentations)) for of in images] == [
        ("7", coco / "val2014" / "7.png", ["bell", "dog"]),
        ("8", coco / "val2014" / "8.png", ["dog"]),
    ]
    assert [int(images[0].mask(name).sum()) for name in categories] == [300, 600, 0]
    assert images[1].mask("dog").shape == (30, 40)
    assert images[1].mask("dog").all()


@pytest.mark.parametrize(
    ("annotated", "said"),
    [
        (instances(annotation(9, 1, [])), "annotations 1: of image 9, which the file does not have"),
        (instances(annotation(7, 9, [])), "annotations 1: of category 9, which the file does not have"),
        ({"images": [], "categories": []}, "annotations is missing, a list expected"),
        ([], "list found, an object expected"),
        (instances(width=-3), "images 1: -3x30 pixels found, no size of a picture that is read; fetch the file again"),
        (instances(width=0), "images 1: 0x30 pixels found"),
        (instances(width=10**30), "images 1: 10000000000000000000x30 pixels found"),
    ],
)
def test_a_damaged_instances_file_is_named(tmp_path: Path, annotated: object, said: str) -> None:
    write_json(tmp_path / "instances_val2014.json", annotated)
    with pytest.raises(XmrError, match=f"instances_val2014.json.*{said}"):
        read_instances(tmp_path)


def test_a_folder_without_instances_is_named(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"one instances_\*\.json expected .*, none found; name the file"):
        read_instances(tmp_path)


# a checkpoint that looks


@pytest.fixture(scope="module")
def checkpoint(finished_world: Path) -> Checkpoint:
    return load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))


@pytest.fixture
def genome(tmp_path: Path, finished_world: Path) -> Path:
    """Two pictures of Visual Genome with three phrases, of one of which no word is known."""
    folder = tmp_path / "genome"
    (folder / "VG_100K").mkdir(parents=True)
    for number, name in ((1, "dog"), (2, "bell")):
        shutil.copy(finished_world / "query" / f"{name}.jpg", folder / "VG_100K" / f"{number}.jpg")

    def region(phrase: str, box: tuple[float, ...]) -> dict[str, Any]:
        return dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"phrase": phrase, "region_id": 1}

    regions = [
        {"id": 1, "regions": [region("a dog", (0, 0, 96, 96)), region("qwertz", (0, 0, 9, 9))]},
        {"id": 2, "regions": [region("a red bell", (10, 10, 40, 40))]},
    ]
    write_json(folder / "region_descriptions.json", regions)
    write_json(
        folder / "image_data.json", [{"image_id": n, "coco_id": None, "width": 96, "height": 96} for n in (1, 2)]
    )
    return folder


def test_a_checkpoint_points_as_its_maps_do(checkpoint: Checkpoint, genome: Path) -> None:
    notes: list[str] = []
    records = point_checkpoint(checkpoint, f"visual-genome:{genome}", CPU, note=notes.append)
    looker = load_looker(checkpoint, CPU)
    pixels = {n: np.asarray(Image.open(genome / "VG_100K" / f"{n}.jpg").resize((32, 32), 3)) for n in (1, 2)}
    vocabulary = looker.model.encoder("text").preprocessing
    heats = []
    for n, phrase in {1: "a dog", 2: "a red bell"}.items():
        with torch.inference_mode():
            [query] = looker.model("text", torch.from_numpy(text.encode(phrase, vocabulary)[None])).embeddings
            [maps] = looker.places(torch.from_numpy(pixels[n].copy())[None])
            heats.append(torch.einsum("d,dhw->hw", query, maps).numpy())
    expected = pointing_game(heats, [(0, 0, 96, 96), (10, 10, 40, 40)], [(96, 96)] * 2)
    assert records[0] == {"kind": "pointing", "dims": "all", "n_images": 2, "n_phrases": 2, "n_left_out": 1, **expected}
    assert records[1]["dims"] == "published"
    assert notes == []


def resize(path: Path, size: tuple[int, int]) -> None:
    Image.open(path).resize(size, Image.Resampling.NEAREST).save(path, quality=100)


def test_boxes_are_in_pixels_of_the_published_image_whatever_the_size_of_the_file(
    checkpoint: Checkpoint, genome: Path
) -> None:
    before = point_checkpoint(checkpoint, f"visual-genome:{genome}", CPU)
    resize(genome / "VG_100K" / "2.jpg", (192, 192))
    assert point_checkpoint(checkpoint, f"visual-genome:{genome}", CPU) == before


def test_an_image_of_another_shape_than_was_drawn_on_is_left_out_and_named(
    checkpoint: Checkpoint, genome: Path, coco: Path
) -> None:
    notes: list[str] = []
    resize(genome / "VG_100K" / "2.jpg", (192, 96))
    [record, _] = point_checkpoint(checkpoint, f"visual-genome:{genome}", CPU, note=notes.append)
    assert (record["n_images"], record["n_phrases"], record["n_left_out"]) == (1, 1, 2)
    resize(coco / "val2014" / "8.png", (30, 40))
    [record, _] = segment_checkpoint(checkpoint, str(coco), CPU, note=notes.append)
    assert (record["n_images"], record["n_masks"]) == (1, 2)
    asked = "fetch the image as it was published"
    assert notes == [
        f"skipped: {genome}/VG_100K/2.jpg: 192x96 pixels found, drawn on were 96x96; {asked}",
        f"skipped: {coco}/val2014/8.png: 30x40 pixels found, drawn on were 40x30; {asked}",
    ]


@pytest.mark.parametrize(("found", "is_alike"), [((500, 333), True), ((256, 170), True), ((500, 331), False)])
def test_a_copy_of_another_size_may_be_a_pixel_off(tmp_path: Path, found: tuple[int, int], is_alike: bool) -> None:
    picture(tmp_path / "a.png", found)
    notes: list[str] = []
    size = looking._annotated_size(tmp_path / "a.png", (1000, 667), notes.append)
    assert (size, len(notes)) == (((1000, 667), 0) if is_alike else (None, 1))
    assert looking._annotated_size(tmp_path / "a.png", None, notes.append) == found


def test_a_category_outside_of_what_the_network_sees_is_not_asked(
    checkpoint: Checkpoint, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 x 30 pixels the centre square begins at 5: a bell in the first four columns is not in it."""
    left = annotation(8, 1, [[0, 0, 4, 0, 4, 30, 0, 30]])
    write_json(
        coco / "annotations" / "instances_val2014.json", instances(left, annotation(8, 2, [[0, 0, 40, 0, 40, 30]]))
    )
    looker = load_looker(checkpoint, CPU)
    looker.preprocessing = replace(looker.preprocessing, resize="crop")
    monkeypatch.setattr(looking, "load_looker", lambda *_: looker)
    for record in segment_checkpoint(checkpoint, str(coco), CPU):
        assert (record["n_masks"], record["n_left_out"], list(record["categories"])) == (1, 1, ["dog"])


def test_sentences_are_kept_and_the_oldest_forgotten(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "KEPT_SENTENCES", 2)
    looker, asked = load_looker(checkpoint, CPU), ["a dog", "qwertz", "a bell", "a dog"]
    found = looker.sentences(asked)
    assert list(found) == ["a dog", "a bell"]
    assert list(looker._kept) == ["qwertz", "a bell"]
    again = looker.sentences(["a bell", "a dog"])
    assert again["a bell"] is found["a bell"]
    np.testing.assert_allclose(again["a dog"], found["a dog"], atol=1e-6)


def test_a_checkpoint_segments_the_categories_that_it_can_be_asked_for(checkpoint: Checkpoint, coco: Path) -> None:
    records = segment_checkpoint(checkpoint, str(coco), CPU)
    assert [record["dims"] for record in records] == ["all", "published"]
    for record in records:
        assert record["kind"] == "segmentation"
        assert (record["n_images"], record["n_masks"], record["n_categories"]) == (2, 3, 2)
        assert record["left_out"] == ["zebra crossing"]
        assert {name: of["n_images"] for name, of in record["categories"].items()} == {"bell": 1, "dog": 2}
        assert record["whole"]["IoU"] == pytest.approx(100 * (0.25 + (0.5 + 1) / 2) / 2, abs=0.1)
        assert 0 <= record["mAP@0.5"] <= record["mAP@0.3"] <= 100


def test_a_category_is_asked_for_twice_as_published() -> None:
    assert prompt("dog") == "dog dogs"


def test_an_image_that_is_missing_or_damaged_is_left_out_and_named(checkpoint: Checkpoint, coco: Path) -> None:
    (coco / "val2014" / "7.png").unlink()
    notes: list[str] = []
    records = segment_checkpoint(checkpoint, str(coco), CPU, note=notes.append)
    assert (records[0]["n_images"], records[0]["n_masks"]) == (1, 1)
    assert notes == [f"skipped: {coco}/val2014/7.png: no such file"]
    picture(coco / "val2014" / "7.png")
    (coco / "val2014" / "7.png").write_bytes((coco / "val2014" / "7.png").read_bytes()[:200])
    assert segment_checkpoint(checkpoint, str(coco), CPU, note=notes.append)[0]["n_images"] == 1
    (coco / "val2014" / "8.png").write_bytes(b"none")
    with pytest.raises(XmrError, match="none of 2 images shows a category that can be asked"):
        segment_checkpoint(checkpoint, str(coco), CPU, note=notes.append)


def test_pictures_of_another_size_can_be_looked_into(checkpoint: Checkpoint, genome: Path) -> None:
    looker = load_looker(checkpoint, CPU, 64)
    [(_, maps)] = looker.look([(genome / "VG_100K" / "1.jpg", None)], progress_of_nothing, print)
    assert maps.shape == (looker.model.dim, 16, 16)


class Refusing(torch.nn.Module):
    """Places of a network that takes no picture."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("size", "error", "expected", "said"),
    [
        (
            64,
            AssertionError("Input height"),
            XmrError,
            r"takes no pictures of 64 pixels \(Input height\); leave --size out",
        ),
        (64, RuntimeError("shape"), XmrError, r"takes no pictures of 64 pixels \(shape\)"),
        (64, torch.OutOfMemoryError("8 GB"), torch.OutOfMemoryError, "8 GB"),
        (None, RuntimeError("shape"), RuntimeError, "^shape"),
    ],
)
def test_a_size_that_was_asked_for_is_blamed_and_nothing_else(
    checkpoint: Checkpoint, genome: Path, size: int | None, error: Exception, expected: type[Exception], said: str
) -> None:
    looker = replace(load_looker(checkpoint, CPU, size), places=Refusing(error))  # type: ignore[arg-type]
    with pytest.raises(expected, match=said):
        list(looker.look([(genome / "VG_100K" / "1.jpg", None)], progress_of_nothing, print))


def test_an_image_encoder_without_places_is_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "places_of", lambda model, modality: None)
    with pytest.raises(XmrError, match=r"the image encoder .* keeps no map of where; train one that does, as timm-map"):
        load_looker(checkpoint, CPU)


def progress_of_nothing(label: str) -> Any:
    from xmr.engine import terminal

    return terminal.progress_bar(label)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: replace(config, encoders={"image": config.encoders["image"]}), "the model has image"),
    ],
)
def test_a_model_that_cannot_be_asked_says_so(checkpoint: Checkpoint, change: Any, said: str) -> None:
    config = change(checkpoint.config)
    tensors = {
        name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(("encoders.s", "encoders.t"))
    }
    with pytest.raises(XmrError, match=said):
        load_looker(replace(checkpoint, config=config, tensors=tensors), CPU)


def test_a_source_without_boxes_or_rows_of_the_split_is_refused(
    checkpoint: Checkpoint, finished_world: Path, genome: Path
) -> None:
    with pytest.raises(XmrError, match="no captions with boxes; give visual-genome:PATH"):
        point_checkpoint(checkpoint, str(finished_world / "pairs.jsonl"), CPU)
    with pytest.raises(XmrError, match="no test rows with boxes; splits are"):
        point_checkpoint(checkpoint, f"visual-genome:{genome}", CPU, split="test")


def test_the_command_prints_both_figures(finished_world: Path, genome: Path, coco: Path) -> None:
    split = "val" if any(row == "val" for row in splits_of(genome)) else "train"
    asked = ("--pointing", f"visual-genome:{genome}", "--split", split, "--segmentation", coco)
    done = run_xmr("eval", *asked, "--json", cwd=finished_world)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["kind"], record["dims"]) for record in records] == [
        ("pointing", "all"),
        ("pointing", "published"),
        ("segmentation", "all"),
        ("segmentation", "published"),
    ]
    shown = run_xmr("eval", "--segmentation", coco, cwd=finished_world)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 3
    refused = run_xmr("eval", "--size", "64", cwd=finished_world)
    assert (refused.returncode, "--size 64: is for looking into images" in refused.stderr) == (2, True)


def splits_of(genome: Path) -> list[str]:
    from xmr.train.datasets import read_rows

    return [row.split for row in read_rows([f"visual-genome:{genome}"])]
