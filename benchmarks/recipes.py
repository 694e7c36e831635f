"""How good are the published systems beside one another? Small sizes, one backbone, the same rows, one machine.

    python benchmarks/recipes.py --image-text IMAGES_TEXT --image-sound IMAGES_SOUND --speech SPEECH \\
        --image-weights EFFICIENTNET_LITE0 --sound-weights SOUNDNET8 --folder OUT

The sources are as `xmr train --data` takes them (speech that is called `sound`: spoken-pairs:FOLDER); without one, the
systems that need it are left out. The weights are safetensors files. Features are cached before anything is timed; the
time is that of the processor, so OMP_NUM_THREADS=1 makes it the time on one core.
Everything is written below OUT; a system that has a report there of the same settings is not trained again, so an
interrupted run goes on. After a change of the code, take another OUT.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmr.train.config import anchored_source, dump_config, load_config

XMR = Path(sys.executable).with_name("xmr")


@dataclass(frozen=True)
class System:
    """One row of the tables."""

    recipe: str
    variant: str = ""
    sources: tuple[str, ...] = ("image_text",)

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.variant}".strip()


HEARD = ("image_text", "image_sound")
SYSTEMS = (
    System("contrastive"),
    System("vsepp", "vse0"),
    System("vsepp", "vse++"),
    System("vsepp", "order++"),
    System("dsve"),
    System("cmpm"),
    System("cmpl"),
    System("see-hear-read", "transfer", HEARD),
    System("see-hear-read", "ranking", HEARD),
    System("see-hear-read", "both", HEARD),
    System("vase-2", sources=("speech",)),
    System("vase-3", sources=("speech",)),
    System("davenet", "misa", ("speech",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("image-text", "image-sound", "speech"):
        parser.add_argument(f"--{source}")
    parser.add_argument("--image-weights", type=Path, required=True)
    parser.add_argument("--sound-weights", type=Path)
    parser.add_argument("--only", help="names of systems, as 'cmpm,vsepp vse++'; default: all")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = [system.name for system in SYSTEMS]
    wanted = [name.strip() for name in options.only.split(",")] if options.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"--only {min(unknown)}: unknown; there are {', '.join(names)}")
    reports = [
        train_and_evaluate(system, folder, options)
        for system in SYSTEMS
        if system.name in wanted and all(getattr(options, source) for source in system.sources)
    ]
    for query, gallery in (("image", "text"), ("image", "speech"), ("image", "sound"), ("text", "sound")):
        print_table(reports, query, gallery)


def train_and_evaluate(system: System, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `xmr eval` says of one system, and the CPU seconds that its training took."""
    path = folder / f"{system.name.replace(' ', '-')}.json"
    checkpoint = path.with_suffix("")
    assignments = ["size=small", *([f"variant={json.dumps(system.variant)}"] if system.variant else [])]
    weights = {"image": options.image_weights}
    if "image_sound" in system.sources:
        weights["sound"] = options.sound_weights
    assignments += [f"encoders.{name}.weights={json.dumps(str(file.resolve()))}" for name, file in weights.items()]
    sources = [anchored_source(getattr(options, source), Path.cwd()) for source in system.sources]
    settings = dump_config(load_config(None, recipe=system.recipe, assignments=assignments))
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if (report.get("settings"), report.get("sources")) == (settings, sources):
        return report
    data = [part for source in sources for part in ("--data", source)]
    choice = [part for assignment in assignments for part in ("--set", assignment)]
    train = ["train", "--recipe", system.recipe, *data, *choice, "--checkpoint", str(checkpoint), "--overwrite"]
    run(folder, *train, "--set", "stages=[]", "--set", "epochs=1", "--set", "words.epochs=1")  # caches the features
    start = cpu_seconds()
    run(folder, *train)
    seconds = cpu_seconds() - start
    records = run(folder, "eval", "--json", "--checkpoint", str(checkpoint))
    report = {
        "system": system.name,
        "sources": sources,
        "settings": settings,
        "train_cpu_s": round(seconds, 1),
        "val": [json.loads(line) for line in records.splitlines()],
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def run(folder: Path, *arguments: str) -> str:
    """What the command prints; its notes go on to stderr."""
    print(f"$ xmr {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([str(XMR), *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def cpu_seconds() -> float:
    """Of all commands so far: on one thread the wall time, on a busy machine still the same."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def print_table(reports: list[dict[str, Any]], a: str, b: str) -> None:
    """Both directions of one pair of modalities, as Markdown."""
    lines = []
    for report in reports:
        records = {(record["query"], record["gallery"]): record for record in report["val"]}
        if (a, b) in records:
            cells = [f"{value:.1f}" for pair in ((a, b), (b, a)) for value in figures(records[pair])]
            lines.append(f"| {report['system']} | {' | '.join(cells)} | {report['train_cpu_s']:.0f} |")
    if lines:
        columns = " | ".join(f"{way} {name}" for way in (f"{a}→{b}", f"{b}→{a}") for name in NAMES)
        print(f"\n| system | {columns} | train CPU s |\n|{' --- |' * (2 * len(NAMES) + 2)}")
        print("\n".join(lines))


NAMES = ("R@1", "R@5", "R@10", "median rank", "mAP")


def figures(record: dict[str, Any]) -> list[float]:
    return [record[key] for key in ("R@1", "R@5", "R@10", "median_rank", "mAP")]


if __name__ == "__main__":
    main()
