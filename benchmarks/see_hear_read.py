"""How good is a model of the recipe see-hear-read, and how long does the whole way take? Real media, one machine.

    python benchmarks/see_hear_read.py --pairs IMAGES_TEXT --pairs IMAGES_SOUND --image-weights EFFICIENTNET_LITE0 \\
        --sound-weights SOUNDNET8 --folder OUT

The pairs are folders with a pairs.jsonl; the weights are safetensors files. Everything is written below OUT.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

XMR = Path(sys.executable).with_name("xmr")
N_QUERIES = 3  # of each modality, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, action="append", required=True)
    parser.add_argument("--image-weights", type=Path, required=True)
    parser.add_argument("--sound-weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    folder = options.folder.resolve()
    seconds: dict[str, float] = {}

    def xmr(*arguments: object) -> str:
        """Run a command in the workspace, print it with its output, note its time."""
        print(f"\n$ xmr {shlex.join(map(str, arguments))}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            [str(XMR), *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
        )
        name = str(arguments[0])
        seconds[name] = seconds.get(name, 0) + time.perf_counter() - start
        print(done.stdout, end="", flush=True)
        return done.stdout

    folder.mkdir(parents=True)
    xmr("init", "--recipe", "see-hear-read", "--set", "size=small")
    sources = [part for source in options.pairs for part in ("--data", source.resolve())]
    weights = {"image": options.image_weights, "sound": options.sound_weights}
    settings = [
        part for name, path in weights.items() for part in ("--set", f"encoders.{name}.weights={path.resolve()}")
    ]
    xmr("train", *sources, *settings)
    xmr("eval")
    records = xmr("eval", "--json")
    xmr("export")
    gather_val_media(options.pairs, folder / "corpus")
    xmr("index", "corpus")
    for modality, to in (("images", "sound"), ("sounds", "image"), ("images", "text")):
        files = sorted((folder / "corpus" / modality).iterdir())
        for path in files[:: max(1, len(files) // N_QUERIES)][:N_QUERIES]:
            xmr("query", f"--{modality[:-1]}", path.relative_to(folder), "--to", to, "-k", 3)
    for sentence in ("a dog barks", "waves break on a beach", "an airplane in the sky"):
        xmr("query", "--text", sentence, "--to", "image,sound", "-k", 5)
    report = {"seconds": {name: round(value, 1) for name, value in seconds.items()}}
    report |= {"total_s": round(sum(seconds.values()), 1), "val": [json.loads(line) for line in records.splitlines()]}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print("\nseconds:", report["seconds"], "total:", report["total_s"])


def gather_val_media(sources: list[Path], corpus: Path) -> None:
    """Copy the val rows' images and sounds, and write their captions."""
    captions: list[str] = []
    for name in ("images", "sounds"):
        (corpus / name).mkdir(parents=True)
    for source in sources:
        for line in (source / "pairs.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["split"] != "val":
                continue
            captions += row.get("captions", [])
            for modality in ("image", "sound"):
                if modality in row:
                    path = (source / row[modality]).resolve()
                    shutil.copy2(path, corpus / f"{modality}s" / path.name)
    (corpus / "captions.txt").write_text("\n".join(captions) + "\n")


if __name__ == "__main__":
    main()
