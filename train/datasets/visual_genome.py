"""Visual Genome (Krishna et al. 2017): phrases, each of a region of an image."""

import os
from pathlib import Path

from xmr.engine import terminal
from xmr.train.datasets.layout import named_file
from xmr.train.datasets.records import Record, json_list, name_of, objects_of, optional_name, value_of
from xmr.train.datasets.rows import Box, Note, Row, named_or_hashed

REGIONS_NAME = "region_descriptions.json"
IMAGES_NAME = "image_data.json"
IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images", ".")


def read_visual_genome(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image: its phrases as captions, and the box of each in pixels.

    Images are `<id>.jpg` in one folder, or in VG_100K and VG_100K_2 as published. image_data.json beside the regions
    tells which images are COCO's: their id is that of COCO. No splits are published: every 20th image is val.
    """
    path = named_file(source, [REGIONS_NAME])
    coco_ids = _coco_ids(path.with_name(IMAGES_NAME))
    folders = _folders_of_images(path.parent)
    described = {}
    for where, image in json_list(path):
        described[name_of(image, "image_id" if "image_id" in image else "id", where)] = _regions(image, where)
    splits = named_or_hashed([None] * len(described), list(described))
    rows = []
    for (number, regions), split in zip(described.items(), splits, strict=True):
        file = folders.get(f"{number}.jpg", path.parent / IMAGE_FOLDERS[0]) / f"{number}.jpg"
        rows.append(
            Row(
                id=f"coco:{coco_ids[number]}" if number in coco_ids else str(file),
                split=split,
                files={"image": file},
                captions=tuple(phrase for phrase, _ in regions),
                boxes=tuple(box for _, box in regions),
            )
        )
    return rows


def _coco_ids(path: Path) -> dict[str, str]:
    """Of the images that are COCO's, by their number in Visual Genome."""
    if not path.is_file():
        return {}
    numbers = {}
    for where, image in json_list(path):
        coco_id = optional_name(image, "coco_id")
        if coco_id is not None:
            numbers[name_of(image, "image_id" if "image_id" in image else "id", where)] = coco_id
    return numbers


def _regions(image: Record, where: str) -> list[tuple[str, Box]]:
    regions = []
    for here, region in objects_of(image, "regions", where):
        x, y, width, height = (value_of(region, key, float, here) for key in ("x", "y", "width", "height"))
        if phrase := value_of(region, "phrase", str, here).strip():
            regions.append((phrase, (x, y, width, height)))
    return regions


def _folders_of_images(root: Path) -> dict[str, Path]:
    """The folder of each file."""
    folders: dict[str, Path] = {}
    for name in reversed(IMAGE_FOLDERS):
        if (root / name).is_dir():
            folders |= dict.fromkeys(os.listdir(root / name), root / name)  # noqa: PTH208 (names are all that is needed)
    return folders
