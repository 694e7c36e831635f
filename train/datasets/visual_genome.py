"""Visual Genome (Krishna et al. 2017): phrases, each of a region of an image."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from xmr.engine import terminal
from xmr.train.datasets.layout import named_file, optional_file
from xmr.train.datasets.records import Record, json_list, name_of, objects_of, optional_name, read_json, value_of
from xmr.train.datasets.rows import Box, Note, Row, Size, named_or_hashed, size_of

REGIONS_NAME = "region_descriptions.json"
IMAGES_NAME = "image_data.json"
COCO_VAL_NAMES = [
    f"{folder}{kind}_val2014.json" for folder in ("", "annotations/") for kind in ("captions", "instances")
]
IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images", ".")


def read_visual_genome(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image: its phrases as captions, and the box of each in pixels.

    Images are `<id>.jpg` in one folder, or in VG_100K and VG_100K_2 as published. image_data.json beside the regions
    tells of how many pixels the images are that the boxes lie in, and which of them are COCO's: their id is that of
    COCO. No splits are published. Where captions_val2014.json or instances_val2014.json of COCO is beside the regions
    or in annotations/, the images in it are val, on which DSVE-loc (Engilberge et al. 2018, section 4.3) plays the
    pointing game; elsewhere every 20th image is.
    """
    path = named_file(source, [REGIONS_NAME])
    coco_ids, sizes = _coco_ids_and_sizes(path.with_name(IMAGES_NAME))
    folders = _folders_of_images(path.parent)
    described = {}
    for where, image in json_list(path):
        described[name_of(image, "image_id" if "image_id" in image else "id", where)] = _regions(image, where)
    splits = named_or_hashed(_splits_of_coco(path.parent, list(described), coco_ids), list(described))
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
                size=sizes.get(number),
            )
        )
    return rows


def _coco_ids_and_sizes(path: Path) -> tuple[dict[str, str], dict[str, Size]]:
    """Both by an image's number in Visual Genome: of the images that are COCO's, and of those whose size is told."""
    coco_ids: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    for where, image in json_list(path) if path.is_file() else ():
        number = name_of(image, "image_id" if "image_id" in image else "id", where)
        if (coco_id := optional_name(image, "coco_id")) is not None:
            coco_ids[number] = coco_id
        if "width" in image or "height" in image:
            sizes[number] = size_of(image, where)
    return coco_ids, sizes


def _splits_of_coco(folder: Path, numbers: Sequence[str], coco_ids: Mapping[str, str]) -> list[str | None]:
    """Val for the images of COCO's val2014, train for the others; of none where nothing tells."""
    path = optional_file(folder, COCO_VAL_NAMES)
    if path is None or not coco_ids:
        return [None] * len(numbers)
    held_out = {name_of(image, "id", where) for where, image in objects_of(read_json(path), "images", str(path))}
    return ["val" if coco_ids.get(number) in held_out else "train" for number in numbers]


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
