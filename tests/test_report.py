"""`xmr eval --report`: what the figures show, and that the page stands alone, says what is missing and runs clean."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import must_run, run_xmr
from PIL import ExifTags, Image

from xmr.engine.errors import XmrError
from xmr.train import report
from xmr.train.batches import Store
from xmr.train.checkpoint import Checkpoint, best_of, load_checkpoint
from xmr.train.cli.tables import TABLES, note_records
from xmr.train.config import load_config
from xmr.train.datasets import Row
from xmr.train.evaluate import HeldOut, evaluate_held_out, load_held_out
from xmr.train.model import AlignedModel
from xmr.train.report import charts, curves, items, media, page, rankings, retrieval, space, units
from xmr.train.words import Words

CPU = torch.device("cpu")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed: no t-SNE")
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>"


@pytest.fixture(scope="module")
def checkpoint(finished_world: Path) -> Checkpoint:
    return load_checkpoint(best_of(finished_world / ".xmr" / "checkpoint"))


@pytest.fixture(scope="module")
def held_out(finished_world: Path, checkpoint: Checkpoint) -> HeldOut:
    return load_held_out(checkpoint, checkpoint.config.data, "val", finished_world / ".xmr" / "cache", CPU)


@pytest.fixture(scope="module")
def records(held_out: HeldOut) -> list[dict[str, Any]]:
    return evaluate_held_out(held_out)


@pytest.fixture(scope="module")
def made(finished_world: Path, checkpoint: Checkpoint, held_out: HeldOut, records: list[dict[str, Any]]) -> str:
    """The page of the tiny world."""
    return drawn(checkpoint, held_out, records, finished_world / ".xmr" / "checkpoint")


def drawn(checkpoint: Checkpoint, held_out: HeldOut, records: list[dict[str, Any]], metrics_folder: Path) -> str:
    return report.report_page(
        checkpoint, held_out, records, split="val", sources=["pairs.jsonl"], metrics_folder=metrics_folder
    )


class Elements(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag in tags]


# charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0, 1.3, [0, 0.5, 1]), (3.1, 3.5, [3.1, 3.2, 3.3, 3.4, 3.5]), (2, 2, [2])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten_or_also_2_and_5_times() -> None:
    assert charts.log_ticks(1, 3000) == [1, 10, 100, 1000]
    assert charts.log_ticks(1, 30) == [1, 2, 5, 10, 20]
    assert charts.Axis(1, 2, 0, 10, is_whole=True).ticks == [1, 2]


def test_places_on_an_axis_are_worked_out_by_hand() -> None:
    assert charts.Axis(0, 10, 100, 200).place(2.5) == 125
    assert charts.Axis(0, 10, 200, 100).place(2.5) == 175
    assert charts.Axis(1, 100, 0, 10, is_log=True).place(10) == pytest.approx(5)
    assert charts.Axis(3, 3, 40, 90).place(3) == 40


def test_a_line_goes_through_its_points_and_has_its_name() -> None:
    line = charts.Line("a < b", [1, 2, 3], [0, 50, 100], "c-image")
    drawing = charts.line_chart([line], title="t", x_label="k", y_label="y", y_range=(0, 100))
    left, right, low, high = charts.LEFT, charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM, charts.TOP
    expected = f"{left:.1f},{low:.1f} {(left + right) / 2:.1f},{(low + high) / 2:.1f} {right:.1f},{high:.1f}"
    assert f'points="{expected}"' in drawing
    assert "<title>a &lt; b</title>" in drawing


def test_a_curve_of_one_place_is_a_dot() -> None:
    drawing = charts.line_chart([charts.Line("a", [1], [5], "c-text")], title="t", x_label="x", y_label="y")
    assert drawing.count("<circle") == 1


def test_bars_are_as_high_as_their_shares() -> None:
    drawing = charts.bar_chart(["1", "≤5"], [25, 50], title="t", x_label="rank", colour="c-sound")
    heights = [float(height) for height in re.findall(r'class="bar [^>]* height="([\d.]+)"', drawing)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_names_of_bars_that_would_run_into_each_other_are_left_out() -> None:
    names = [f"≤{1000 + place}" for place in range(12)]
    drawing = charts.bar_chart(names, [5] * 12, title="t", x_label="rank", colour="c-text")
    assert re.findall(r">(≤\d+)<", drawing) == names[1::2]
    assert drawing.count('class="bar') == 12


def test_a_cell_is_the_stronger_the_larger_and_right_ones_are_framed() -> None:
    drawing = charts.matrix([[0.0, 0.5], [1.0, 0.25]], [["a", "b"], ["c", "d"]], title="t", right=np.eye(2, dtype=bool))
    assert re.findall(r'fill-opacity="([\d.]+)"', drawing) == ["0.00", "0.50", "1.00", "0.25"]
    assert re.findall(r'class="cell( right)?"', drawing) == [" right", "", "", " right"]


# ranks


@pytest.mark.parametrize(("n_gallery", "n_right"), [(6, 1), (6, 2), (5, 5), (1, 1)])
def test_chance_is_the_share_of_all_orders_that_have_a_right_one_in_front(n_gallery: int, n_right: int) -> None:
    for k in range(1, n_gallery + 1):
        fronts = list(combinations(range(n_gallery), k))
        share = sum(min(front) < n_right for front in fronts) / len(fronts)
        assert rankings.chance([n_right], n_gallery, [k]) == pytest.approx([100 * share])


def test_chance_is_the_mean_over_queries_of_different_numbers_of_right_answers() -> None:
    assert rankings.chance([1, 3, 3], 4, [1, 2]) == pytest.approx([100 * (1 + 3 + 3) / 12, 100 * (0.5 + 1 + 1) / 3])


def test_recall_and_bars_are_those_of_a_loop() -> None:
    ranks = np.random.default_rng(0).integers(1, 301, 500)
    ks = retrieval.log_spaced(300)
    assert (ks[0], ks[-1], len(ks) <= 50) == (1, 300, True)
    assert retrieval.recall_at(ranks, ks) == pytest.approx([100 * sum(r <= k for r in ranks) / 500 for k in ks])
    names, shares = retrieval.bin_shares(ranks, 300)
    assert names == ["1", "2", "≤5", "≤10", "≤20", "≤50", "≤100", "≤200", "≤300"]
    assert shares[2] == pytest.approx(100 * sum(r in (3, 4, 5) for r in ranks) / 500)
    assert sum(shares) == pytest.approx(100)


def test_ranks_of_the_figures_give_the_records_of_the_evaluation(
    held_out: HeldOut, records: list[dict[str, Any]]
) -> None:
    by_direction = {(of.query, of.gallery): of for pair in rankings.rank_pairs(held_out) for of in pair}
    assert len(by_direction) == len(records) == 6
    for record in records:
        ranking = by_direction[record["query"], record["gallery"]]
        assert (len(ranking.ranks), ranking.n_gallery) == (record["n_queries"], record["n_gallery"])
        assert retrieval.recall_at(ranking.ranks, [1, 5, 10]) == pytest.approx(
            [record["R@1"], record["R@5"], record["R@10"]], abs=1e-3
        )
        assert np.median(ranking.ranks) == record["median_rank"]


def test_the_hits_of_an_example_are_the_best_of_the_whole_gallery(held_out: HeldOut) -> None:
    ranking = rankings.rank_pairs(held_out)[0][0]
    place = int(ranking.asked[3])
    rows = held_out.embeddings(ranking.gallery, ranking.ranked.contents)
    [query] = held_out.embeddings(ranking.query, [ranking.queries.contents[place]])
    expected = sorted(((float(row @ query), -at) for at, row in enumerate(rows)), reverse=True)[:3]
    hits = ranking.hits(place, 3)
    assert [row for row, _ in hits] == [-at for _, at in expected]
    assert [score for _, score in hits] == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_of_many_queries_some_are_drawn_with_a_seed(held_out: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rankings, "MAX_QUERIES", 5)
    first, again, other = (rankings.rank_pairs(held_out, seed)[0][0] for seed in (0, 0, 1))
    assert (len(first.ranks), first.n_queries) == (5, 8)
    np.testing.assert_array_equal(first.asked, again.asked)
    assert first.asked.tolist() != other.asked.tolist()


# the space


def test_one_item_of_each_common_key_stands_in_a_matrix() -> None:
    rows, columns = space.one_of_each_key(["a", "b", "a", "c"], ["c", "c", "x", "a"], 9, 0)
    assert (rows.tolist(), columns.tolist()) == ([0, 3], [3, 0])
    rows, columns = space.one_of_each_key(list("abcdef"), list("fedcba"), 3, 0)
    assert len(rows) == 3
    assert [5 - at for at in rows] == columns.tolist()


def test_principal_directions_are_those_of_the_covariance() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) * np.arange(1, 7, dtype=np.float32)
    flat = space.principal(vectors)
    values, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    np.testing.assert_allclose(flat.var(axis=0, ddof=1), values[::-1][:2], rtol=1e-5)
    centred = vectors - vectors.mean(axis=0)
    for column in range(2):
        assert abs(np.corrcoef(flat[:, column], centred @ directions[:, -1 - column])[0, 1]) == pytest.approx(1)


@needs_sklearn
def test_the_map_keeps_groups_together_and_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 16))
    vectors = (np.repeat(centres, 12, axis=0) + 0.05 * rng.standard_normal((36, 16))).astype(np.float32)
    flat, how = space.flattened(vectors)
    assert how.startswith("t-SNE, perplexity 12")
    np.testing.assert_array_equal(flat, space.flattened(vectors)[0])
    group = np.repeat(np.arange(3), 12)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2) + np.diag(np.full(36, np.inf))
    assert (group[distance.argmin(axis=1)] == group).all()


def test_without_scikit_learn_the_map_is_pca_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "find_spec", lambda name: None)
    vectors = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    flat, how = space.flattened(vectors)
    np.testing.assert_array_equal(flat, space.principal(vectors))
    assert "PCA, since scikit-learn" in how


# units


def test_units_that_stand_out_in_every_modality_are_chosen() -> None:
    strong = np.zeros((20, 4), dtype=np.float32)
    strong[0, :] = 1  # every unit has an item that makes it strong
    of_images, of_sounds = strong.copy(), strong.copy()
    of_images[:, 1] = np.linspace(0, 1, 20)  # unit 1 is strong for many images: nothing stands out
    of_sounds[:, 1] = np.eye(20)[5]  # another sound than that of the other units
    of_sounds[:, 2] = 0  # unit 2 hears nothing
    chosen = units.selective({"image": of_images, "sound": of_sounds}, 4, 1)
    assert chosen == [0, 1]  # 3 has the strongest items of 0, 2 stands out nowhere in sound
    assert units.selective({"image": np.zeros((5, 3), np.float32)}, 2, 2) == []


def test_a_layer_without_a_unit_that_stands_out_says_so(held_out: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    def same_everywhere(of: HeldOut, modality: str, contents: list[Any]) -> dict[str, Any]:
        return {"embedding": np.ones((len(contents), 3), np.float32)}

    monkeypatch.setattr(units, "layers", same_everywhere)
    said = page.missing("no unit of this layer stands out in every modality")
    assert units.hidden_units(held_out) == f"<h3>Embedding</h3>{said}"


def make_model(**head: Any) -> AlignedModel:
    settings = [f"head.{name}={json.dumps(value)}" for name, value in head.items()]
    config = load_config(None, recipe="quick", assignments=["modalities=['image', 'text']", "width=8", *settings])
    torch.manual_seed(0)
    return AlignedModel(config, Words(("dog", "cat", "red"), np.eye(4, 100, dtype=np.float32)))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"hidden": [8]}, {"embedding": 8}),
        ({"hidden": []}, {"embedding": 8}),
        ({"hidden": [6, 5]}, {"shared layer 1 of 2": 6, "embedding": 5}),
        ({"hidden": [6, 5], "n_classes": 4}, {"shared layer 1 of 2": 6, "class softmax": 4, "embedding": 5}),
        (
            {"hidden": [6, 5], "n_classes": 4, "embedding": "classes"},
            {"shared layer 1 of 2": 6, "shared layer 2 of 2": 5, "embedding": 4},
        ),
    ],
)
def test_the_layers_of_a_head_are_named_as_they_follow_each_other(
    head: dict[str, Any], expected: dict[str, int]
) -> None:
    model = make_model(**head)
    store = Store({}, model.encoder("text").preprocessing)
    sentences = ["a dog", "a cat", "red"]
    of_text = units.layers(HeldOut(model, store, [], CPU), "text", sentences)
    assert {name: rows.shape[1] for name, rows in of_text.items()} == expected
    outputs = model.eval()("text", store.inputs("text", sentences))
    np.testing.assert_allclose(of_text["embedding"], outputs.embeddings.detach(), atol=1e-6)
    for rows, layer in zip(of_text.values(), outputs.layers, strict=False):
        np.testing.assert_allclose(rows, layer.detach(), atol=1e-6)


# files


def test_a_thumbnail_keeps_its_shape_and_stands_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 100), "red")
    exif = picture.getexif()
    exif[ExifTags.Base.Orientation] = 6  # lies on its side
    picture.save(tmp_path / "wide.png")
    picture.save(tmp_path / "turned.jpg", exif=exif)
    wide, turned = (media.thumbnail(tmp_path / name) for name in ("wide.png", "turned.jpg"))
    assert (wide.width, wide.height) == (96, 48)
    assert (turned.width, turned.height) == (48, 96)
    assert wide.uri.startswith("data:image/webp;base64,")


def test_a_clip_is_the_beginning_of_a_sound(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(8000), 0.5 * np.sin(np.arange(72000))]).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", np.stack([samples, samples], axis=1), 8000)
    clip = media.clip(tmp_path / "long.wav")
    assert (clip.duration_s, clip.is_cut, len(clip.peaks)) == (5.0, True, media.N_PEAKS)
    assert clip.peaks[0] == 0
    assert clip.peaks[-1] > 0.95
    assert len(clip.uri) < 100_000


def test_a_file_that_cannot_be_shown_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad<i>.jpg").write_bytes(b"no picture")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    shown = items.shown("image", tmp_path / "bad<i>.jpg", "k") + items.shown("sound", tmp_path / "bad.wav", "k")
    shown += items.shown("image", tmp_path / "gone.png", "k")
    assert shown.count('class="missing"') == 3
    assert "no image that Pillow can read" in shown
    assert "bad&lt;i&gt;.jpg" in shown
    assert "<i>" not in shown


# curves of the training


def test_a_long_curve_is_averaged_and_a_short_one_left() -> None:
    x, y = curves.averaged(range(10), [0, 1] * 5, 5)
    assert (x, y) == ([0.5, 2.5, 4.5, 6.5, 8.5], [0.5] * 5)
    assert curves.averaged([1, 2], [3, 4], 5) == ([1, 2], [3, 4])


def test_training_curves_leave_out_lines_that_are_no_records(tmp_path: Path) -> None:
    record = {"step": 1, "loss": {"total": 2.0, "a.info_nce": 2.0}}
    broken = [json.dumps(record), '{"step": 2, "not_finite": {}}', "[1]", json.dumps({**record, "step": 3}), '{"ste']
    broken += [
        '{"step": 4, "loss": [1]}',
        '{"step": 4, "loss": 2}',
        "[" * 100_000,
        '{"step": NaN, "loss": {"total": 9}}',
    ]
    of_val = {"query": "image", "gallery": "text", "R@10": 50.0}
    broken += [json.dumps({"step": 3, "epoch": None, "val": [of_val]}), '{"step": 3, "val": [{"R@10": 1}]}']
    broken += [json.dumps({"step": 3, "val": [{**of_val, "query": query}]}) for query in (["image"], "a to b")]
    broken += ['{"step": 3, "val": [1]}', json.dumps({"step": 3, "epoch": 1, "val": [{**of_val, "R@10": 10**400}]})]
    (tmp_path / curves.METRICS_NAME).write_text("\n".join(broken))
    drawing = curves.training_curves(tmp_path)
    assert drawing.count("<polyline") == 1  # the total of one loss is that loss
    assert "a.info_nce from 2 to 2" in drawing


@pytest.mark.parametrize(("content", "says"), [(None, "is not beside the checkpoint"), ("{}", "holds no step")])
def test_without_metrics_no_curve_is_drawn(content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / curves.METRICS_NAME).write_text(content)
    with pytest.raises(page.NotDrawnError, match=says):
        curves.training_curves(tmp_path)


# tables


def test_a_figure_that_is_missing_has_its_reason() -> None:
    record = {"query": "image", "gallery": "text", "n_queries": 3, "n_gallery": 12, "R@1": 50.0, "AP@50": None}
    record |= {"missing": {"AP@50": "12 items are ranked, 50 are needed"}, "n_left_out": 2}
    lost = {"kind": "missing", "query": "sound", "gallery": "text", "reason": "no row pairs <them>"}
    made = retrieval.metric_table([record, lost])
    assert 'title="12 items are ranked, 50 are needed">missing' in made
    assert "image→text: 2 queries that have no right answer are not asked." in made
    assert "sound→text: cannot be ranked; no row pairs &lt;them&gt;." in made
    with pytest.raises(page.NotDrawnError, match="no row pairs <them>"):
        retrieval.metric_table([lost])


def test_further_kinds_of_records_become_tables_of_their_own() -> None:
    found = [
        {"kind": "baseline", "method": "cca", "R@10": 12.345},
        {"kind": "baseline", "method": HOSTILE, "R@10": None},
        {"query": "a", "gallery": "b", "faithful": {"dsve": {"median_rank": 3.0}}},
    ]
    made = retrieval.other_tables(found, {"baseline": [("by", "method", ""), ("R@10", "R@10", ".1f")]})
    assert made.count("<table>") == 2
    assert "<td>12.3</td>" in made
    assert "<img" not in made
    assert "as published systems computed them" in made


def test_the_page_says_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    direction = {"query": "image", "gallery": "text", "n_queries": 3, "n_gallery": 12, "n_left_out": 0, "R@1": 50.0}
    direction |= {"galleries": 5, "gallery_size": 12, "seed": 7, "averaged": ["text"]}
    direction |= {"faithful": {"jc": {"missing": {"top-1": "12 pairs are there, batches have 64"}}}}
    folds = direction | {"folds": 2, "fold_size": 6, "n_ids_left_out": 1, "galleries": 5}
    baseline = {"kind": "baseline", "query": "image", "gallery": "text", "split": "val"}
    chosen = {"method": "linear regression", "R@1": 3.0, "chosen": [], "chosen_on": "val"}
    transfer = {"kind": "transfer", "trained_on": "image", "method": "model", "missing": {"text": "no label"}}
    found = [
        direction,
        folds,
        baseline | chosen,
        baseline | {"method": "CCA", "missing": {"R@1": "no rows"}},
        transfer,
        {"kind": "missing", "what": "baselines", "reason": "no train rows"},
    ]
    note_records(found)
    told = [sentence.strip() for sentence in capsys.readouterr().err.splitlines()]
    listed = re.findall(r"<li>(.*?)\.</li>", retrieval.metric_table(found))
    assert listed == told
    assert "image→text: mean over 5 galleries of 12 pairs, drawn with seed 7" in listed
    assert "image→text: top-1 of jc is missing; 12 pairs are there, batches have 64" in listed
    assert "image→text: mean over 2 folds of 6 ids; 1 ids that fill none are left out" in listed
    assert "image→text: the items of an id are averaged to one, of text" in listed
    assert "image→text: the strengths of baselines were chosen on val, on which they are shown" in listed
    assert "image→text: no CCA; no rows" in listed
    assert "classifier transfer from image: figures that are missing: no label" in listed
    assert "baselines: cannot be computed; no train rows" in listed


def test_a_figure_that_is_missing_has_its_reason_in_every_table() -> None:
    found = [
        {"kind": "baseline", "method": "CCA", "missing": {"R@10": "no <rows>"}},
        {"kind": "transfer", "method": "model", "accuracy": {"image": 90.0}, "missing": {"text": "no label"}},
    ]
    made = retrieval.other_tables(found, TABLES)
    assert '<span class="missing" title="no &lt;rows&gt;">missing</span>' in made
    assert '<span class="missing" title="no label">missing</span>' in made
    assert "<td>90.0</td>" in made
    assert made.count("missing</span>") == 2


def test_a_baseline_is_not_what_one_wants_to_know_first(held_out: HeldOut) -> None:
    own = {"query": "image", "gallery": "text", "R@10": 40.0}
    baseline = {"kind": "baseline", "method": "CCA", "query": "text", "gallery": "image", "R@10": 80.0}
    assert report._tiles(held_out, [own, baseline])[-1] == ("best recall at 10, image to text", "40.0 %")
    assert len(report._tiles(held_out, [baseline])) == len(report._tiles(held_out, [])) == 3


# the page


def test_every_figure_of_the_page_is_drawn(made: str) -> None:
    assert "Not drawn" not in made
    elements = Elements(made)
    anchors = [attributes["id"] for attributes in elements.named("section")]
    assert anchors == list(report.HEADINGS)
    assert [f"#{anchor}" for anchor in anchors] == [a["href"] for a in elements.named("a") if a["href"] != "#content"]
    assert made.count('class="example"') <= retrieval.MAX_EXAMPLES
    assert 0 < made.count('class="unit"') <= units.MAX_UNITS
    points = json.loads(re.search(r'id="data">(.*?)</script>', made, re.DOTALL)[1])["points"]  # type: ignore[index]
    assert len(points) == len([of for of in elements.named("path") if "data-item" in of])
    assert {point["modality"] for point in points} == {"image", "sound", "text"}


def test_the_page_needs_no_other_file_and_no_network(made: str) -> None:
    elements = Elements(made)
    sources = [
        attributes[of] for _, attributes in elements.found for of in ("src", "href", "srcset") if of in attributes
    ]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\(|@import|https?://", re.sub(r'"data:[^"]*"', "", made))
    assert [of["content"] for of in elements.named("meta") if "http-equiv" in of] == [page.POLICY]


def test_the_page_can_be_read_without_seeing_it(made: str) -> None:
    elements = Elements(made)
    assert all(len(elements.named(tag)) == 1 for tag in ("main", "nav", "header", "h1"))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(of.get("alt") for of in elements.named("img"))
    assert all(of.get("aria-label") or of.get("aria-hidden") for of in elements.named("svg"))
    assert all(of.get("aria-label") for of in elements.named("audio"))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert elements.named("html")[0]["lang"] == "en"


def test_the_page_stays_small(made: str) -> None:
    assert len(made.encode()) < 6_000_000


def test_the_same_model_gives_the_same_figures(
    finished_world: Path, checkpoint: Checkpoint, held_out: HeldOut, records: list[dict[str, Any]], made: str
) -> None:
    def comparable(content: str) -> str:
        return re.sub(r"data:audio[^\"]*|\d\d:\d\d UTC", "", content)  # Ogg has a random number in it

    again = drawn(checkpoint, held_out, records, finished_world / ".xmr" / "checkpoint")
    assert comparable(again) == comparable(made)


def test_names_and_captions_are_text_and_nothing_else(
    tmp_path: Path, checkpoint: Checkpoint, held_out: HeldOut, records: list[dict[str, Any]]
) -> None:
    rows = [replace(row, captions=tuple(f"{caption} {HOSTILE}" for caption in row.captions)) for row in held_out.rows]
    rows = [replace(row, label=f"{row.label}{HOSTILE}") for row in rows]
    hostile = HeldOut(held_out.model, held_out.store, rows, CPU, held_out.comparison)
    config = replace(checkpoint.config, about=HOSTILE, data=(HOSTILE,))
    made = drawn(replace(checkpoint, config=config), hostile, records, tmp_path)
    elements = Elements(made)
    assert HOSTILE not in made
    assert not any("onerror" in attributes for _, attributes in elements.found)
    assert len(elements.named("script")) == 2
    assert not elements.named("b") or all(not attributes for attributes in elements.named("b"))
    assert "&lt;/script&gt;" in made
    assert f"Not drawn: {curves.METRICS_NAME}" in made


def test_rows_that_pair_nothing_leave_a_page_that_says_so(
    checkpoint: Checkpoint, held_out: HeldOut, tmp_path: Path
) -> None:
    alone = [Row(id=row.id, split="val", files={"image": row.files["image"]}) for row in held_out.rows[:3]]
    few = HeldOut(held_out.model, held_out.store, alone, CPU, held_out.comparison)
    reasons = re.findall(r'<p class="missing">Not drawn: (.*?)\.</p>', drawn(checkpoint, few, [], tmp_path))
    assert reasons == [
        *[rankings.NOTHING_TO_RANK] * 5,
        "3 items found, a map takes at least 5",
        "these rows have items of fewer than two modalities",
        f"{curves.METRICS_NAME}, which training writes, is not beside the checkpoint",
    ]


def test_a_report_is_written_whole_or_not_at_all(
    tmp_path: Path, checkpoint: Checkpoint, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(content: str) -> Path:
        monkeypatch.setattr(report, "report_page", lambda *_, **__: content)
        return report.write_report(
            tmp_path / "new" / "report", checkpoint, held_out, [], split="val", sources=[], metrics_folder=tmp_path
        )

    first = write(f"{page.GENERATOR} first")
    assert write(f"{page.GENERATOR} \udcff second").read_text() == f"{page.GENERATOR} ? second"
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write(f"{page.GENERATOR} third")
    assert "second" in first.read_text()


def test_a_page_that_is_no_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "index.html").write_text("<title>my own page</title>")
    with pytest.raises(XmrError, match=r"index\.html: exists and is no report"):
        report.check_folder(tmp_path)
    with pytest.raises(XmrError, match="a file, a folder is needed"):
        report.check_folder(tmp_path / "file")
    report.check_folder(tmp_path / "new")


def test_the_command_writes_the_page_beside_its_results(finished_world: Path, tmp_path: Path) -> None:
    plain = must_run("eval", "--json", cwd=finished_world)
    done = run_xmr("eval", "--json", "--report", tmp_path / "report", cwd=finished_world)
    assert (done.returncode, done.stdout) == (0, plain)
    assert "open it in a browser" in done.stderr
    assert [path.name for path in (tmp_path / "report").iterdir()] == [report.PAGE_NAME]
    (tmp_path / "report" / report.PAGE_NAME).write_text("my own")
    refused = run_xmr("eval", "--report", tmp_path / "report", cwd=finished_world)
    assert (refused.returncode, "is no report of xmr" in refused.stderr) == (1, True)


# in a browser


def look(content: str, folder: Path, width: int, *flags: str) -> tuple[list[str], Image.Image]:
    """What the browser's console says of a page, and a screenshot of it."""
    if CHROMIUM is None:
        pytest.skip("neither chromium, chromium-browser nor google-chrome is on PATH: the page is not looked at")
    (folder / "page.html").write_text(content)
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},4000"]
    command += [f"--screenshot={folder / 'shot.png'}", *flags, (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (folder / "shot.png").is_file(), done.stderr
    with Image.open(folder / "shot.png") as picture:
        return re.findall(r"CONSOLE[^\n]*", done.stderr), picture.convert("RGB")


def test_the_console_of_the_browser_is_heard(tmp_path: Path) -> None:
    said, _ = look("<!doctype html><script>throw new Error('boom')</script>", tmp_path, 500)
    assert any("boom" in line for line in said)


@pytest.mark.parametrize("flags", [(), ("--blink-settings=preferredColorScheme=0",)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_runs_without_a_complaint_and_shows_something(
    made: str, width: int, flags: tuple[str, ...], tmp_path: Path
) -> None:
    said, picture = look(made, tmp_path, width, *flags)
    assert said == []
    pixels = np.asarray(picture)
    assert picture.width == width
    paper = pixels[5, 5].astype(int)
    assert (paper.mean() > 128) == (not flags)
    for part in np.array_split(pixels[:3500], 5):  # nothing but paper is nowhere
        assert (np.abs(part.astype(int) - paper).max(axis=2) > 60).mean() > 0.01
