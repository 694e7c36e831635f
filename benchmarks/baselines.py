"""What does training add to regression and canonical correlations on the same features? As See, Hear, and Read asks.

    python benchmarks/baselines.py --folder OUT --models see-hear-read-transfer,see-hear-read-both --gallery 100

OUT is that of benchmarks/recipes.py, where the models are. `xmr eval` judges each on its val rows, in random galleries
of pairs, and trains classifiers on one modality that it tests on the others. Models on the same frozen features share
their baselines, which are printed once.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

XMR = Path(sys.executable).with_name("xmr")
MODALITIES = ("image", "sound", "text")
MODEL = "model"
DIRECTIONS = tuple(permutations(MODALITIES, 2))
FIGURES = (("median_rank", "Median rank"), ("R@10", "R@10, percent"))

Record = Mapping[str, Any]
Row = tuple[str, dict[tuple[str, str], float]]  # method or model, figures by direction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--models", required=True, help="checkpoint folders in it, as A,B")
    parser.add_argument("--gallery", type=int, default=100, help="pairs of a gallery")
    parser.add_argument("--repeats", type=int, default=5, help="galleries that are drawn")
    options = parser.parse_args()
    records = {name: judged(name, options) for name in options.models.split(",")}
    for figure, heading in FIGURES:
        print_table(heading, DIRECTIONS, rows_of(records, lambda of, figure=figure: by_direction(of, figure)))
    print_table("Linear regression's median rank over the model's", DIRECTIONS, gains(records))
    pairs = tuple(product(MODALITIES, repeat=2))
    print_table("Accuracy of classifiers, trained on → tested on, percent", pairs, rows_of(records, by_classifier))


def judged(name: str, options: argparse.Namespace) -> list[Record]:
    """What `xmr eval` says of a model."""
    command = ["eval", "--checkpoint", name, "--baselines", "--json"]
    command += ["--gallery", str(options.gallery), "--repeats", str(options.repeats)]
    report = json.loads((options.folder / f"{name}.json").read_text())
    if any(record["gallery"] == "sound" for record in report["val"]):  # others have no labels
        command.append("--transfer")
    print(f"$ xmr {' '.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run([XMR, *command], cwd=options.folder, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_direction(records: Sequence[Record], figure: str) -> Iterable[tuple[str, tuple[str, str], float]]:
    for record in records:
        if record.get("kind") == "baseline" and figure in record:
            yield record["method"], (record["query"], record["gallery"]), record[figure]


def by_classifier(records: Sequence[Record]) -> Iterable[tuple[str, tuple[str, str], float]]:
    for record in records:
        if record.get("kind") == "transfer":
            for target, accuracy in record["accuracy"].items():
                for source in [record["trained_on"]] if "trained_on" in record else MODALITIES:
                    yield record["method"], (source, target), accuracy


def rows_of(
    records: Mapping[str, Sequence[Record]],
    figures: Callable[[Sequence[Record]], Iterable[tuple[str, tuple[str, str], float]]],
) -> list[Row]:
    """A row for every baseline, then one for every model; a baseline of other figures says whose features it is on."""
    baselines: list[Row] = []
    models: list[Row] = []
    for name, of_model in records.items():
        made: dict[str, dict[tuple[str, str], float]] = {}
        for method, direction, value in figures(of_model):
            made.setdefault(method, {})[direction] = value
        for method, found in made.items():
            if method == MODEL:
                models.append((name, found))
            elif not any(found.items() <= known.items() for _, known in baselines):
                is_first = all(method != other for other, _ in baselines)
                baselines.append((method if is_first else f"{method}, features of {name}", found))
    return baselines + models


def gains(records: Mapping[str, Sequence[Record]]) -> list[Row]:
    """How many times better each model is than the regression."""
    return [
        (
            name,
            {
                (record["query"], record["gallery"]): record["gain"]
                for record in of_model
                if record.get("method") == "linear regression" and "gain" in record
            },
        )
        for name, of_model in records.items()
    ]


def print_table(heading: str, columns: Sequence[tuple[str, str]], rows: Sequence[Row]) -> None:
    """As Markdown."""
    shown = [column for column in columns if any(column in figures for _, figures in rows)]
    print(f"\n{heading}:\n\n| method | {' | '.join(f'{a}→{b}' for a, b in shown)} |\n|{' --- |' * (len(shown) + 1)}")
    for name, figures in rows:
        cells = [f"{figures[column]:.1f}" if column in figures else "" for column in shown]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
