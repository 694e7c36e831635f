"""Models side by side: figures, intervals and differences against a slow bootstrap, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TINY, must_run, run_xmr
from numpy.typing import NDArray

from xmr.train.compare import _in_common, intervals
from xmr.train.datasets import Row

PAIRS = ("--data", "pairs.jsonl")
FIGURES = ["R@1", "R@5", "R@10", "median_rank", "mAP"]


def outcomes(seed: int, n: int = 40, shift: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    found = rng.integers(1, 30, n) + shift
    return {"rank": found, "precision": 1 / found}


def rows(n: int = 40, n_queries: int = 1) -> list[str]:
    """The row that each of n queries is of."""
    return [f"row {place // n_queries}" for place in range(n)]


def slow_figures(of_model: dict[str, NDArray[Any]], places: NDArray[np.int64]) -> list[float]:
    found = [int(of_model["rank"][place]) for place in places]
    recalls = [100 * sum(rank <= k for rank in found) / len(found) for k in (1, 5, 10)]
    precision = 100 * sum(float(of_model["precision"][place]) for place in places) / len(found)
    return [*recalls, float(np.median(found)), precision]


@pytest.mark.parametrize("n_queries", [1, 5])
def test_intervals_are_those_of_a_slow_paired_bootstrap_of_rows(n_queries: int) -> None:
    models = [outcomes(0), outcomes(1, shift=2)]
    rng, n_rows = np.random.default_rng(5), 40 // n_queries
    chosen = [rng.integers(n_rows, size=n_rows) for _ in range(200)]
    draws = [np.array([n_queries * row + at for row in of_draw for at in range(n_queries)]) for of_draw in chosen]
    of_draws = np.array([[slow_figures(model, places) for places in draws] for model in models])
    for number, found in enumerate(intervals(models, rows(n_queries=n_queries), 200, seed=5)):
        low, high = np.percentile(of_draws[number], (2.5, 97.5), axis=0)
        for at, name in enumerate(FIGURES):
            assert found[name] == pytest.approx(slow_figures(models[number], np.arange(40))[at], abs=1e-4)
            assert found["intervals"][name] == pytest.approx([low[at], high[at]], abs=1e-4)
    low, high = np.percentile(of_draws[1] - of_draws[0], (2.5, 97.5), axis=0)
    for at, name in enumerate(FIGURES):
        assert found["differences"][name]["interval"] == pytest.approx([low[at], high[at]], abs=1e-4)


def test_captions_that_fail_together_widen_the_interval() -> None:
    """40 rows that are asked five times with one outcome tell no more than 40 queries."""
    once = outcomes(0)
    five_times = {name: np.repeat(values, 5) for name, values in once.items()}
    [alone], [together] = intervals([once], rows()), intervals([five_times], rows(200, 5))
    [apart] = intervals([five_times], rows(200))
    assert together["intervals"]["R@10"] == alone["intervals"]["R@10"]
    assert np.ptp(apart["intervals"]["R@10"]) < 0.6 * np.ptp(together["intervals"]["R@10"])


def test_a_model_does_not_differ_from_itself() -> None:
    first, second = intervals([outcomes(0), outcomes(0)], rows())
    assert "differences" not in first
    assert all(of == {"value": 0, "interval": [0, 0], "excludes_0": False} for of in second["differences"].values())


def test_a_model_that_is_better_for_every_query_is_told_from_the_first() -> None:
    _, second = intervals([outcomes(0, shift=20), outcomes(0)], rows())
    assert second["differences"]["median_rank"]["value"] == -20
    assert second["differences"]["median_rank"]["interval"][1] < 0
    assert second["differences"]["median_rank"]["excludes_0"]
    assert second["differences"]["mAP"]["excludes_0"]


@pytest.mark.parametrize("n", [1, 3])
def test_one_row_has_no_interval(n: int) -> None:
    [found] = intervals([outcomes(0, n=n)], rows(n, n))
    assert found["missing"] == {"intervals": "a single row is asked, which cannot be drawn in different ways"}
    assert "intervals" not in found


def test_outcomes_of_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="outcomes of 40, 39 queries found, 40 of each"):
        intervals([outcomes(0), outcomes(0, n=39)], rows())


def test_what_one_model_cannot_read_is_left_out_for_all_and_no_more() -> None:
    image, sound, other = (Path(name) for name in ("a.png", "a.wav", "b.png"))
    whole = Row("1", "val", files={"image": image, "sound": sound}, captions=("one",))
    heard = Row("2", "val", files={"image": other, "sound": sound})
    reading_all, deaf = [whole, heard], [replace(whole, files={"image": image})]
    opened: list[Any] = [SimpleNamespace(rows=rows) for rows in (reading_all, deaf)]
    assert _in_common([whole, heard], opened) == deaf


@pytest.fixture(scope="module")
def two(finished_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a workspace with a second model in runs/b, of image and text only, trained on the copied pairs."""
    folder = Path(shutil.copytree(finished_world, tmp_path_factory.mktemp("two") / "world"))
    tiny = [part for part in TINY if not part.startswith("encoders.sound")]
    settings = [part for setting in (*tiny, "epochs=1", 'modalities=["image", "text"]') for part in ("--set", setting)]
    must_run("train", "--checkpoint", "runs/b", *settings, cwd=folder)
    return folder


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_compare_tells_the_models_apart_where_both_can_be_asked(two: Path) -> None:
    done = run_xmr("compare", ".xmr/checkpoint", "runs/b", *PAIRS, "--draws", 100, "--json", cwd=two)
    assert done.returncode == 0, done.stderr
    records = lines(done.stdout)
    assert [(record["query"], record["gallery"], record["model"]) for record in records] == [
        (query, gallery, model)
        for query, gallery in (("image", "text"), ("text", "image"))
        for model in (".xmr/checkpoint", "runs/b")
    ]
    assert "compared by image, text, which all have" in done.stderr
    evaluated = lines(must_run("eval", *PAIRS, "--json", cwd=two))
    alone = next(record for record in evaluated if (record["query"], record["gallery"]) == ("text", "image"))
    assert {name: records[2][name] for name in FIGURES} == {name: alone[name] for name in FIGURES}


def test_compare_prints_figures_and_differences(two: Path) -> None:
    table = must_run("compare", ".xmr/checkpoint", ".xmr/checkpoint", "runs/b", *PAIRS, "--draws", 100, cwd=two)
    figures, differences = table.split("\n\n")
    assert len(figures.splitlines()) == 1 + 6
    assert len(differences.splitlines()) == 1 + 4
    assert re.search(r"\+0\.0 \[\+0\.0, \+0\.0\](?! \*)", differences)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("runs/b",), 2, "runs/b alone given; name two"),
        (("runs/b", "nowhere"), 1, "nowhere: no checkpoint there"),
        (("runs/b", ".xmr/checkpoint", "--split", "dev"), 2, "dev is unknown"),
        (("runs/b", ".xmr/checkpoint", *PAIRS, "--split", "test"), 1, "no test rows of image, text"),
        (("runs/b", ".xmr/checkpoint", "--data", "nowhere"), 1, "nowhere.*no such file"),
    ],
)
def test_compare_refuses(two: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = run_xmr("compare", *arguments, cwd=two)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert re.search(says, " ".join(done.stderr.split())), done.stderr


def test_models_of_other_data_are_compared_only_where_it_is_said_on_what(two: Path) -> None:
    done = run_xmr("compare", "runs/b", ".xmr/checkpoint", cwd=two)
    assert done.returncode == 1
    assert "say with --data on which rows" in " ".join(done.stderr.split())
