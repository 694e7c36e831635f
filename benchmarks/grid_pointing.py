"""Do heat maps find what a noun names? Nine photos in a grid, one of which shows it: is the hottest point in that one?

    python benchmarks/grid_pointing.py --data IMAGES_TEXT --checkpoints OUT/contrastive,OUT/dsve --folder GRIDS

A noun is shown by a photo where at least three of its captions have it, and not by one whose captions have neither it
nor its plural. The grids are written below GRIDS in the form of Visual Genome, the photo's cell as the box; `xmr eval
--pointing` asks. A point drawn at random lies in the cell for a ninth of the grids, its centre for about as many.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from xmr.train.datasets import Row, read_rows

XMR = Path(sys.executable).with_name("xmr")
NOUNS = (
    *("dog", "man", "woman", "boy", "girl", "child", "people", "horse", "water", "snow", "grass", "beach", "rock"),
    *("mountain", "ball", "bike", "bicycle", "street", "pool", "car", "boat", "tree", "shirt", "skateboard", "swing"),
)
OTHER_FORMS = {"man": "men", "woman": "women", "child": "children", "people": "person"}
N_CAPTIONS = 3  # of a photo that must have the noun
N_ACROSS = 3  # photos across and down the grid
SIDE = 256  # pixels of a photo in the grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="captioned photos, as `xmr train --data` takes them")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoints", required=True, help="checkpoint folders, as A,B")
    parser.add_argument("--grids", type=int, default=20, help="of each noun")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    rows = [row for row in read_rows([options.data]) if row.split == options.split and len(row.captions) >= N_CAPTIONS]
    n_grids = write_grids(rows, options.folder, options.grids)
    print(f"{n_grids} grids of {len(rows)} photos\n")
    print("| model | query dims | pointed into the photo % | as published % | grid centre % | random point % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for checkpoint in options.checkpoints.split(","):
        for record in pointed(checkpoint, options.folder):
            figures = (record["accuracy"], record["accuracy_faithful"], record["centre"], record["random"])
            shown = " | ".join(f"{figure:.1f}" for figure in figures)
            print(f"| {Path(checkpoint).name} | {record['dims']} | {shown} |")


def write_grids(rows: Sequence[Row], folder: Path, n_each: int) -> int:
    """As Visual Genome's files, all of them images of COCO's val2014; the number of grids."""
    photos = folder / "VG_100K"
    photos.mkdir(parents=True, exist_ok=True)
    regions = []
    for number, (noun, chosen, place) in enumerate(grids(rows, n_each), start=1):
        grid = Image.new("RGB", (N_ACROSS * SIDE, N_ACROSS * SIDE))
        for cell, row in enumerate(chosen):
            with Image.open(row.files["image"]) as photo:
                grid.paste(ImageOps.fit(photo.convert("RGB"), (SIDE, SIDE)), corner(cell))
        grid.save(photos / f"{number}.jpg", quality=92)
        x, y = corner(place)
        box = {"x": x, "y": y, "width": SIDE, "height": SIDE}
        regions.append({"id": number, "regions": [{"region_id": number, "phrase": noun, **box}]})
    numbers = [region["id"] for region in regions]
    (folder / "region_descriptions.json").write_text(json.dumps(regions))
    of_coco = [{"image_id": number, "coco_id": number} for number in numbers]
    (folder / "image_data.json").write_text(json.dumps(of_coco))
    (folder / "captions_val2014.json").write_text(json.dumps({"images": [{"id": number} for number in numbers]}))
    return len(numbers)


def grids(rows: Sequence[Row], n_each: int) -> Iterator[tuple[str, list[Row], int]]:
    """A noun, the rows of a grid, the place of the one that shows it; none of a noun that few photos are without."""
    rng = random.Random(0)
    n_others = N_ACROSS**2 - 1
    words = [[set(re.findall(r"[a-z]+", caption.lower())) for caption in row.captions] for row in rows]
    for noun in NOUNS:
        forms = {noun, f"{noun}s", f"{noun}es", OTHER_FORMS.get(noun, noun)}
        showing = [
            row for row, of in zip(rows, words, strict=True) if sum(noun in caption for caption in of) >= N_CAPTIONS
        ]
        others = [row for row, of in zip(rows, words, strict=True) if not any(forms & caption for caption in of)]
        if len(others) < n_others:
            continue
        for row in rng.sample(showing, min(n_each, len(showing))):
            chosen, place = rng.sample(others, n_others), rng.randrange(n_others + 1)
            yield noun, [*chosen[:place], row, *chosen[place:]], place


def corner(cell: int) -> tuple[int, int]:
    """The left and top of a cell of the grid, in pixels."""
    return SIDE * (cell % N_ACROSS), SIDE * (cell // N_ACROSS)


def pointed(checkpoint: str, folder: Path) -> list[dict[str, Any]]:
    """The records of `xmr eval --pointing`."""
    command = [XMR, "eval", "--checkpoint", checkpoint, "--pointing", f"visual-genome:{folder}", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
