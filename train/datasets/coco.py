"""COCO captions (Lin et al. 2014, Chen et al. 2015), as published: captions_{train,val}{2014,2017}.json."""

import re
from collections import defaultdict
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.layout import folder_holding
from xmr.train.datasets.records import name_of, objects_of, read_json, value_of, without_blanks
from xmr.train.datasets.rows import Note, Row, split_in_name

PATTERN = "captions_*.json"
YEAR = re.compile(r"20\d\d")


def read_coco(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image with its captions, of one captions file or of all in a folder or its annotations/.

    The split is that of the file's name. The id is COCO's own.
    """
    rows: list[Row] = []
    for path in _captions_files(source):
        rows += _rows(path)
    return rows


def _rows(path: Path) -> list[Row]:
    annotated = read_json(path)
    captions: dict[str, list[str]] = defaultdict(list)
    for where, annotation in objects_of(annotated, "annotations", str(path)):
        captions[name_of(annotation, "image_id", where)].append(value_of(annotation, "caption", str, where))
    names = {
        name_of(image, "id", where): value_of(image, "file_name", str, where)
        for where, image in objects_of(annotated, "images", str(path))
    }
    if strange := next((number for number in captions if number not in names), None):
        raise XmrError(f"{path}: an annotation is of image {strange}, which is not among images; fetch the file again")
    split = _split(path)
    folder = folder_holding(_image_folders(path), names.values())
    return [
        Row(
            id=f"coco:{number}",
            split=split,
            files={"image": folder / name},
            captions=without_blanks(captions.get(number, ())),
        )
        for number, name in names.items()
    ]


def _split(path: Path) -> str:
    """captions_val2014 is val; a file of another name is train."""
    return split_in_name(path.stem) or "train"


def _image_folders(path: Path) -> list[Path]:
    """COCO_ROOT/val2014 and COCO_ROOT/images/val2014, for a file in COCO_ROOT/annotations or in COCO_ROOT."""
    part = path.stem.removeprefix("captions_")
    roots = (path.parent.parent, path.parent)
    return [root / name for root in roots for name in (f"images/{part}", part, "images", ".")]


def _captions_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source.resolve()]
    found = sorted(source.glob(PATTERN)) or sorted(source.glob(f"annotations/{PATTERN}"))
    if not found:
        raise XmrError(f"{source}: no {PATTERN} in it or in annotations/; name the file")
    if len({match[0] for path in found if (match := YEAR.search(path.stem))}) > 1:
        names = ", ".join(path.name for path in found)
        raise XmrError(f"{source}: {names} share images across their splits; name the files of one year")
    return [path.resolve() for path in found]
