"""COCO instances (Lin et al. 2014), as published: which pixels of an image show what, instances_*.json."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmr.engine.errors import XmrError
from xmr.train.datasets.layout import folder_holding
from xmr.train.datasets.masks import Mask, segmentation_mask
from xmr.train.datasets.records import name_of, objects_of, read_json, value_of
from xmr.train.datasets.rows import size_of

PATTERN = "instances_*.json"
PREFIX = "instances_"


@dataclass(frozen=True)
class SegmentedImage:
    """An image and what is in it. Masks are made when asked for: those of a whole file would fill gigabytes."""

    id: str  # COCO's
    file: Path
    width: int  # pixels, as annotated: a file of other sizes has the same shape
    height: int
    segmentations: dict[str, list[tuple[str, Any]]]  # category -> of each instance, where it stands and how it is given

    def mask(self, category: str) -> Mask:
        """(height, width): the pixels of all instances of a category."""
        mask = np.zeros((self.height, self.width), dtype=np.bool_)
        for where, segmentation in self.segmentations.get(category, ()):
            mask |= segmentation_mask(segmentation, self.height, self.width, where)
        return mask


def read_instances(source: Path) -> tuple[list[SegmentedImage], list[str]]:
    """The images of an instances file, or of the one in a folder or its annotations/; the names of all categories."""
    path = _instances_file(source)
    annotated = read_json(path)
    names = {
        name_of(category, "id", where): value_of(category, "name", str, where)
        for where, category in objects_of(annotated, "categories", str(path))
    }
    images = {
        name_of(image, "id", where): (where, image) for where, image in objects_of(annotated, "images", str(path))
    }
    segmentations: dict[str, dict[str, list[tuple[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for where, annotation in objects_of(annotated, "annotations", str(path)):
        image, category = name_of(annotation, "image_id", where), name_of(annotation, "category_id", where)
        if image not in images or category not in names:
            kind, number = ("image", image) if image not in images else ("category", category)
            raise XmrError(f"{where}: of {kind} {number}, which the file does not have; fetch the file again")
        segmentations[image][names[category]].append((where, annotation.get("segmentation")))
    files = {number: value_of(image, "file_name", str, where) for number, (where, image) in images.items()}
    folder = folder_holding(_image_folders(path), files.values())
    found = [
        SegmentedImage(
            number,
            folder / files[number],
            *size_of(image, where),
            {name: list(of) for name, of in segmentations[number].items()},
        )
        for number, (where, image) in images.items()
    ]
    return found, list(names.values())


def _instances_file(source: Path) -> Path:
    if source.is_file():
        return source.resolve()
    found = sorted(source.glob(PATTERN)) or sorted(source.glob(f"annotations/{PATTERN}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise XmrError(f"{source}: one {PATTERN} expected in it or in annotations/, {names} found; name the file")
    return found[0].resolve()


def _image_folders(path: Path) -> list[Path]:
    """COCO_ROOT/val2014 and COCO_ROOT/images/val2014, for a file in COCO_ROOT/annotations or in COCO_ROOT."""
    part = path.stem.removeprefix(PREFIX)
    roots = (path.parent.parent, path.parent)
    return [root / name for root in roots for name in (f"images/{part}", part, "images", ".")]
