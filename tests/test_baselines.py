"""Regression and canonical correlations against scikit-learn and by hand, and baselines beside a model's records."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import must_run, run_xmr
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.metrics import average_precision
from xmr.train.baselines import Moments, Paired, Standard, canonical, paired, regression, unit_rows
from xmr.train.batches import Store
from xmr.train.datasets import Row
from xmr.train.evaluate.against import Baselines, RegressedThrough, baseline_records, fit_baselines
from xmr.train.evaluate.fitted import RIDGE_STRENGTHS, Part
from xmr.train.evaluate.plain import Bag, PlainFeatures, heard_levels, mean_colours, pooled
from xmr.train.evaluate.protocol import Protocol
from xmr.train.evaluate.transfer import _of_features, _without_features, transfer_task
from xmr.train.features import Features

sklearn = pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")

Array = NDArray[np.float64]


def correlated(n: int, dim_a: int, dim_b: int, seed: int = 0) -> tuple[Array, Array]:
    """Features of two modalities that share three hidden causes, far from 0 and of different scales."""
    random = np.random.default_rng(seed)
    causes = random.normal(size=(n, 3))
    a = causes @ random.normal(size=(3, dim_a)) + random.normal(size=(n, dim_a))
    b = causes @ random.normal(size=(3, dim_b)) + random.normal(size=(n, dim_b))
    return a * random.uniform(0.1, 10, dim_a) + 100, b * random.uniform(0.1, 10, dim_b) - 7


def in_one(a: Array, b: Array) -> Paired:
    return paired([(a, b)])


def test_moments_summed_in_batches_are_those_of_all_rows() -> None:
    a, b = correlated(101, 4, 3)
    moments = Moments.empty(4, 3)
    for start, end in ((0, 1), (1, 40), (40, 40), (40, 101)):
        moments.add(a[start:end], b[start:end])
    products = np.cov(a.T, b.T, bias=True) * 101
    assert moments.n == 101
    np.testing.assert_allclose(moments.mean_a, a.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.mean_b, b.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.aa, products[:4, :4], rtol=1e-9)
    np.testing.assert_allclose(moments.bb, products[4:, 4:], rtol=1e-9)
    np.testing.assert_allclose(moments.ab, products[:4, 4:], rtol=1e-9)


def test_variances_far_from_zero_are_not_lost_in_rounding() -> None:
    rows = np.array([[1e8], [1e8 + 1], [1e8 + 2]])
    statistics = paired([(rows[:2], rows[:2]), (rows[2:], rows[2:])])
    np.testing.assert_allclose(statistics.a.standard.deviation, [np.sqrt(2 / 3)], rtol=1e-12)


def test_rows_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 rows found"):
        Moments.empty(1, 1).add(np.zeros((3, 1)), np.zeros((2, 1)))


@pytest.mark.parametrize(("batches", "found"), [([], 0), ([(np.zeros((1, 2)), np.zeros((1, 2)))], 1)])
def test_fewer_than_two_pairs_are_no_baseline(batches: Any, found: int) -> None:
    with pytest.raises(XmrError, match=f"{found} pairs found, a baseline needs at least two"):
        paired(batches)


def test_features_that_are_no_numbers_are_said() -> None:
    with pytest.raises(XmrError, match="NaN or infinite"):
        in_one(np.array([[1.0], [np.nan]]), np.ones((2, 1)))


def test_a_feature_that_never_varies_is_zero_everywhere() -> None:
    standard = Standard.of(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))
    np.testing.assert_allclose(standard(np.array([[9.0, 3.0]])), [[0.0, 0.0]])
    np.testing.assert_allclose(standard.undo(np.array([[4.0, 0.0]])), [[0.1, 3.0]])


@pytest.mark.parametrize("strength", [0.0, 0.01, 3.0])
def test_regression_is_that_of_scikit_learn(strength: float) -> None:
    from sklearn.linear_model import Ridge

    a, b = correlated(60, 7, 5)
    more, _ = correlated(9, 7, 5, seed=1)
    standard_a, standard_b = Standard.of(a), Standard.of(b)
    reference = Ridge(alpha=strength * len(a)).fit(standard_a(a), standard_b(b))
    ours = regression(in_one(a, b), strength)(more)
    np.testing.assert_allclose(ours, standard_b.undo(reference.predict(standard_a(more))), rtol=1e-7)


def test_regression_worked_by_hand() -> None:
    # standardised both are -1, 1: the slope is 1 / (1 + strength)
    linear = regression(in_one(np.array([[0.0], [2.0]]), np.array([[10.0], [30.0]])), strength=1.0)
    np.testing.assert_allclose(linear(np.array([[2.0], [1.0]])), [[25.0], [20.0]])


def test_regression_backwards_is_the_regression_of_swapped_pairs() -> None:
    a, b = correlated(50, 4, 6)
    np.testing.assert_allclose(regression(in_one(a, b).swapped(), 0.1)(b), regression(in_one(b, a), 0.1)(b), rtol=1e-9)


def test_more_features_than_pairs_can_be_regressed() -> None:
    a, b = correlated(8, 30, 3)
    np.testing.assert_allclose(regression(in_one(a, b), 0.0)(a), b, rtol=1e-6)


def test_canonical_correlations_are_those_of_scikit_learn() -> None:
    from sklearn.cross_decomposition import CCA

    a, b = correlated(300, 6, 4)
    reference = CCA(n_components=4, max_iter=20000, tol=1e-14).fit(a, b)
    of_a, of_b = reference.transform(a, b)
    expected = [np.corrcoef(of_a[:, place], of_b[:, place])[0, 1] for place in range(4)]
    ours = canonical(in_one(a, b), 0.0)
    np.testing.assert_allclose(ours.correlations, expected, atol=1e-6)
    for place in range(4):
        variables = ours.variables(ours.a, a, 4)[:, place]
        assert abs(np.corrcoef(variables, of_a[:, place])[0, 1]) == pytest.approx(1, abs=1e-5)


def test_canonical_variables_have_deviation_one_and_their_correlations() -> None:
    a, b = correlated(80, 5, 3)
    found = canonical(in_one(a, b), 0.0)
    of_a, of_b = found.variables(found.a, a, 3), found.variables(found.b, b, 3)
    np.testing.assert_allclose(of_a.T @ of_a / 80, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(of_a.T @ of_b / 80, np.diag(found.correlations), atol=1e-9)


def test_regularised_correlations_are_the_singular_values_of_what_is_whitened() -> None:
    a, b = correlated(40, 4, 3)
    a, b = Standard.of(a)(a), Standard.of(b)(b)
    aa, bb, ab = a.T @ a / 40 + 0.5 * np.eye(4), b.T @ b / 40 + 0.5 * np.eye(3), a.T @ b / 40
    squared = np.linalg.eigvals(np.linalg.solve(aa, ab) @ np.linalg.solve(bb, ab.T))
    expected = np.sqrt(np.sort(squared.real)[::-1][:3])
    np.testing.assert_allclose(canonical(in_one(a, b), 0.5).correlations, expected, rtol=1e-9)


def test_normalised_variables_are_weighted_by_a_power_of_the_correlations() -> None:
    a, b = correlated(60, 4, 4)
    found = canonical(in_one(a, b), 0.1)
    plain, weighted = (found.variables(found.a, a, 2, power) for power in (0.0, 4.0))
    np.testing.assert_allclose(weighted, plain * found.correlations[:2] ** 4)
    assert plain.shape == (60, 2)


def test_variables_expand_to_the_features_that_a_regression_on_them_expects() -> None:
    a, b = correlated(70, 5, 3)
    found = canonical(in_one(a, b), 0.0)
    variables = found.variables(found.a, a, 2)
    expected, *_ = np.linalg.lstsq(variables, Standard.of(a)(a), rcond=None)
    np.testing.assert_allclose(found.a.expansion[:2], expected, atol=1e-9)


def test_a_negative_strength_is_refused() -> None:
    pairs = in_one(*correlated(10, 2, 2))
    for fit in (regression, canonical):
        with pytest.raises(ValueError, match="strength -1 found"):
            fit(pairs, -1)


def test_unit_rows_leave_a_row_of_zeros() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_a_bag_counts_the_frequent_words_and_weighs_the_rare_ones_more() -> None:
    bag = Bag.of(["a dog", "a cat", "a dog runs"], n_words=3)
    assert bag.vocabulary == ("a", "dog", "cat")
    np.testing.assert_allclose(bag.idf, 1 + np.log([4 / 4, 4 / 3, 4 / 2]), rtol=1e-6)
    expected = np.array([2.0, 1 + np.log(4 / 3), 0.0])
    np.testing.assert_allclose(
        bag(["A dog, a zebra.", "nothing known"]), [expected / np.linalg.norm(expected), [0, 0, 0]], rtol=1e-6
    )


def test_what_a_trunk_gives_is_pooled_by_its_shape() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(pooled(maps), maps.mean(axis=(2, 3)))
    levels = random.normal(size=(2, 3, 6))
    np.testing.assert_allclose(pooled(levels), np.hstack([levels.mean(axis=2), levels.std(axis=2)]))
    np.testing.assert_array_equal(pooled(levels[:, :, 0]), levels[:, :, 0])


def test_pixels_become_the_mean_colours_of_a_grid() -> None:
    pixels = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    pixels[0, 2:4, 14:16] = (10, 20, 30)  # the second row, the last column of 8 x 8 cells
    expected = np.zeros((8, 8, 3))
    expected[1, 7] = (10, 20, 30)
    np.testing.assert_allclose(mean_colours(pixels), expected.reshape(1, -1))


def test_levels_behind_the_end_of_a_clip_are_not_heard() -> None:
    spectrogram = np.array([[[1.0, 3.0, -80.0], [1.0, 1.0, 0.0]]])  # one band, and which frames count
    np.testing.assert_allclose(heard_levels(spectrogram), [[2.0, 1.0]])


N_THINGS = 40


@contextmanager
def silent(label: str) -> Iterator[Any]:
    yield lambda done, total: None


def world(split: str, n: int, *, n_blind: int = 0) -> list[Row]:
    """Rows of image and caption and rows of image and sound; sounds and texts are paired by nothing but an id."""
    seen = [
        Row(f"{split}{i}", split, files={"image": Path(f"{split}{i}.png")}, captions=(caption(i),)) for i in range(n)
    ]
    heard = [
        Row(f"{split}{i}", split, files={"image": Path(f"{split}{i}.png"), "sound": Path(f"{split}{i}.wav")})
        for i in range(n_blind, n)
    ]
    return [*seen, *heard]


def caption(number: int) -> str:
    return " ".join(f"w{place}" for place in range(6) if number >> place & 1) + " thing"


def features_of(rows: list[Row], noise: float = 0.02) -> dict[str, Features]:
    """Image and sound features are two linear maps of the bits that the caption says."""
    random, maps = np.random.default_rng(5), np.random.default_rng(6).normal(size=(2, 6, 8))
    made = {}
    for modality, linear in zip(("image", "sound"), maps, strict=True):
        paths = sorted({row.files[modality] for row in rows if modality in row.files})
        numbers = [int(path.stem.removeprefix("train").removeprefix("val").removeprefix("test")) for path in paths]
        bits = np.array([[number >> place & 1 for place in range(6)] for number in numbers]).reshape(-1, 6)
        features = Features()
        values = bits @ linear + noise * random.normal(size=(len(paths), 8))
        features.add_part({str(path): place for place, path in enumerate(paths)}, values.astype(np.float32))
        made[modality] = features
    return made


def part(split: str, rows: list[Row], bag: Bag) -> Part:
    pools = dict.fromkeys(("image", "sound"), ("rows", pooled))
    return Part(split, rows, PlainFeatures(Store(features_of(rows)), bag, pools))


def fitted(train: list[Row], val: list[Row], asked: list[Row]) -> Baselines:
    bag = Bag.of(caption for row in train for caption in row.captions)
    parts = (part(name, rows, bag) for name, rows in (("train", train), ("val", val), ("val", asked)))
    return fit_baselines(("image", "sound", "text"), *parts, silent)


def records_of(n: int) -> list[dict[str, Any]]:
    """As a model's would be that ranks every right answer fourth."""
    directions = [(a, b) for a in ("image", "sound", "text") for b in ("image", "sound", "text") if a != b]
    figures = {"R@1": 0.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 4.0, "mean_rank": 4.0, "mAP": 25.0}
    random = figures | {"median_rank": n / 2}
    return [
        {"query": a, "gallery": b, "n_queries": n, "n_gallery": n, **figures, "random": random} for a, b in directions
    ]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    val = world("val", N_THINGS)
    return baseline_records(fitted(world("train", 60), val, val), records_of(N_THINGS))


def test_every_direction_has_every_method_from_random_to_the_model(records: list[dict[str, Any]]) -> None:
    methods = ["random", "linear regression", "CCA", "normalised CCA", "model"]
    assert [record["method"] for record in records] == methods * 6
    assert {record["kind"] for record in records} == {"baseline"}


def test_a_linear_world_is_found_by_every_baseline(records: list[dict[str, Any]]) -> None:
    for record in records:
        if record["method"] not in ("random", "model"):
            assert record["median_rank"] <= 2, record


def test_what_was_chosen_and_on_which_split_is_said(records: list[dict[str, Any]]) -> None:
    by = {(record["query"], record["gallery"], record["method"]): record for record in records}
    cca = by["image", "sound", "CCA"]
    assert (cca["chosen_on"], cca["split"], cca["n_pairs"]) == ("val", "val", [60])
    assert set(cca["chosen"][0]) == {"strength", "dim"}
    assert cca["features"] == {"image": "rows", "sound": "rows"}


def test_texts_and_sounds_meet_in_images(records: list[dict[str, Any]]) -> None:
    for record in records:
        if "through" in record:
            assert {record["query"], record["gallery"]} == {"sound", "text"}
            assert record["through"] == "image"
            assert len(record["chosen"]) == len(record["n_pairs"]) == 2
    assert sum("through" in record for record in records) == 6


def test_the_gain_is_the_median_rank_divided_by_that_of_the_model(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert record["gain"] == pytest.approx(record["median_rank"] / 4, abs=1e-4)
    assert {record["gain"] for record in records if record["method"] == "random"} == {5.0}


def test_figures_of_random_galleries_are_means_over_them() -> None:
    val = world("val", N_THINGS)
    asked = [record | {"galleries": 3, "gallery_size": 10} for record in records_of(10)]
    made = baseline_records(fitted(world("train", 60), val, val), asked, Protocol(gallery_size=10, repeats=3))
    for record in made:
        assert (record["galleries"], record["n_gallery"]) == (3, 10)
        if record["method"] not in ("random", "model"):
            assert record["R@10"] == 100


def test_without_train_pairs_the_reason_stands_in_place_of_figures() -> None:
    train = [row for row in world("train", 30) if "sound" not in row.files]
    val = world("val", N_THINGS)
    made = baseline_records(fitted(train, val, val), records_of(N_THINGS))
    without = {(record["query"], record["gallery"]): record["missing"] for record in made if "R@1" not in record}
    assert without["image", "sound"]["median_rank"] == "0 train rows pair image and sound"
    assert without["text", "sound"]["R@1"] == "0 train rows pair sound and text"
    assert set(without) == {("image", "sound"), ("sound", "image"), ("text", "sound"), ("sound", "text")}


def test_without_val_rows_nothing_is_chosen_and_the_reason_is_said() -> None:
    made = baseline_records(fitted(world("train", 30), [], world("test", N_THINGS)), records_of(N_THINGS))
    reasons = {record["missing"]["R@1"] for record in made if "R@1" not in record}
    assert "no val rows of image and text tell how strong it should be" in reasons


def test_captions_without_a_word_are_said() -> None:
    train = [replace(row, captions=("...",)) if row.captions else row for row in world("train", 30)]
    val = world("val", N_THINGS)
    made = baseline_records(fitted(train, val, val), records_of(N_THINGS))
    reasons = {record["missing"]["R@1"] for record in made if "R@1" not in record}
    assert "the train captions hold no word" in reasons


def test_strengths_are_the_best_on_val_and_not_on_what_is_asked() -> None:
    train, val, asked = (world(split, n) for split, n in (("train", 40), ("val", 30), ("test", 25)))
    bag = Bag.of(caption for row in train for caption in row.captions)
    pools = dict.fromkeys(("image", "sound"), ("rows", pooled))
    parts = [
        Part(name, rows, PlainFeatures(Store(features_of(rows, noise=2.0)), bag, pools))
        for name, rows in (("train", train), ("val", val), ("test", asked))
    ]
    linear = fit_baselines(("image", "sound", "text"), *parts, silent).fits[frozenset(("image", "sound"))].linear
    chosen = linear["image", "sound"]
    of_train, of_val = ([row for row in rows if "sound" in row.files] for rows in (train, val))
    a, b = (parts[0].features(name, [row.files[name] for row in of_train]) for name in ("image", "sound"))
    x, y = (parts[1].features(name, [row.files[name] for row in of_val]) for name in ("image", "sound"))
    figures = {}
    for strength in RIDGE_STRENGTHS:
        fit = regression(in_one(a, b), strength)
        scores = unit_rows(fit.b(fit(x))) @ unit_rows(fit.b(y)).T
        figures[strength] = average_precision(scores, range(len(x)), range(len(y))).mean()
    assert figures[chosen.strength] == max(figures.values()) > min(figures.values())


def test_texts_and_sounds_are_regressed_in_two_steps() -> None:
    baselines = fitted(world("train", 60), world("val", N_THINGS), world("val", N_THINGS))
    texts = baselines.asked.features("text", [caption(number) for number in range(9)])
    first = baselines.fits[frozenset(("text", "image"))].linear["text", "image"].map
    second = baselines.fits[frozenset(("image", "sound"))].linear["image", "sound"].map
    images = (texts - first.a.mean) * first.a.inverse @ first.weights * first.b.deviation + first.b.mean
    sounds = (images - second.a.mean) * second.a.inverse @ second.weights * second.b.deviation + second.b.mean
    regressed = baselines.regressed("text", "sound")
    assert isinstance(regressed, RegressedThrough)
    np.testing.assert_allclose(regressed.predicted(texts), sounds, rtol=1e-9)


def parity(rows: list[Row]) -> list[Row]:
    """Labelled by the first bit of what the caption says."""
    return [replace(row, label="odd" if int(row.id.strip("trainvl")) & 1 else "even") for row in rows]


def test_classifiers_transfer_through_regressions_and_canonical_variables_in_a_linear_world() -> None:
    train = [row for row in parity(world("train", 60)) if row.label == "odd" or int(row.id[5:]) % 6 == 0]
    val = [row for row in parity(world("val", N_THINGS)) if row.label == "even" or int(row.id[3:]) % 5 == 0]
    bag = Bag.of(caption for row in train for caption in row.captions)
    parts = [part(name, rows, bag) for name, rows in (("train", train), ("val", val), ("val", val))]
    task = transfer_task(train, val, ("image", "sound", "text"))
    records = [*_without_features(task), *_of_features(task, fit_baselines(tuple(task.train), *parts, silent))]
    by = {(record["method"], record.get("trained_on")): record["accuracy"] for record in records}
    share = 100 * task.test["image"].labels.count("odd") / len(task.test["image"].labels)
    assert by["majority", "image"]["image"] == pytest.approx(share, abs=1e-4)  # most of train, few of val
    assert share < 40
    for source in task.train:
        assert min(by["linear regression", source].values()) > 90, source
    assert by["CCA image-sound", "image"]["sound"] > 90
    assert by["CCA image-sound", "sound"]["image"] > 90


@pytest.fixture(scope="module")
def printed(finished_world: Path) -> list[dict[str, Any]]:
    printed = must_run("eval", "--baselines", "--transfer", "--json", cwd=finished_world)
    return [json.loads(line) for line in printed.splitlines()]


def test_the_command_prints_baselines_beside_every_direction(printed: list[dict[str, Any]]) -> None:
    model = {(record["query"], record["gallery"]): record for record in printed if "kind" not in record}
    rows = [record for record in printed if record.get("kind") == "baseline"]
    assert len(rows) == 5 * len(model)
    for row in rows:
        beside = model[row["query"], row["gallery"]]
        assert (row["n_queries"], row["n_gallery"]) == (beside["n_queries"], beside["n_gallery"])
        expected = {"random": beside["random"], "model": beside}.get(row["method"])
        assert expected is None or row["median_rank"] == expected["median_rank"]
    [features] = {str(row["features"]["image"]) for row in rows if "image" in row.get("features", {})}
    assert features == "mean colours of 8 x 8 places"


def test_the_command_prints_a_row_of_transfer_for_every_method_and_modality(printed: list[dict[str, Any]]) -> None:
    rows = [record for record in printed if record.get("kind") == "transfer"]
    modalities = ["image", "sound", "text"]
    assert rows[0]["accuracy"] == dict.fromkeys(modalities, 25.0)  # chance, of four labels
    for method in ("majority", "linear regression", "model"):
        of_method = [row for row in rows if row["method"] == method]
        assert [row["trained_on"] for row in of_method] == modalities
        assert all(set(row["accuracy"]) == set(modalities) for row in of_method)
    of_pairs = {(row["method"], row["trained_on"]): row for row in rows if "trained_on" in row}
    assert of_pairs["CCA image-sound", "sound"]["missing"] == {"text": "canonical variables are of two modalities"}


def test_what_cannot_be_computed_leaves_the_rest_as_it_is(finished_world: Path, tmp_path: Path) -> None:
    with (finished_world / "pairs.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    unlabelled = [{**row, "image": str(finished_world / row["image"])} for row in rows if "captions" in row]
    for row in unlabelled:
        row.pop("label", None)
        row.pop("sound", None)
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in unlabelled))
    done = run_xmr("eval", "--data", data, "--transfer", "--baselines", "--json", cwd=finished_world)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    [missing] = [record for record in records if "what" in record]
    assert (missing["kind"], missing["what"]) == ("missing", "transfer")
    assert "0 of 0 labels" in missing["reason"]
    assert "transfer: cannot be computed; classifier transfer: 0 of 0 labels" in " ".join(done.stderr.split())
    assert {record.get("kind") for record in records} >= {None, "baseline"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--baselines", "--pointing", "visual-genome:x"), "--baselines: is for ranking"),
        (("--gallery", "5", "--segmentation", "x"), "--gallery: is for ranking"),
        (("--data", "x", "--pointing", "x"), "--data: is for ranking"),
        (("--split", "test", "--segmentation", "x"), "--split test: --segmentation takes all images of its file"),
    ],
)
def test_looking_into_images_takes_no_options_of_ranking(
    finished_world: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = run_xmr("eval", *arguments, cwd=finished_world)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
