"""Karpathy's splits (Karpathy, Fei-Fei 2015) of Flickr8k, Flickr30k and COCO: dataset_<name>.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.layout import folder_holding, image_folders
from xmr.train.datasets.records import objects_of, optional_name, read_json, value_of, without_blanks
from xmr.train.datasets.rows import Note, Row, split_name

PATTERNS = ("dataset.json", "dataset_flickr*.json", "dataset_coco*.json")
RESTVAL = "restval"


@dataclass(frozen=True)
class KarpathyImage:
    """One image of the JSON."""

    file: str  # below the folder of images
    split: str
    captions: tuple[str, ...]
    coco_id: str | None


def read_karpathy(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image, of a dataset_*.json or a folder that holds one of them.

    COCO's 30,504 restval images are train images, as VSE++ and DSVE have them; CMPL calls them val. The id is COCO's
    own, so that other data of COCO's images meet there; else it is the image's path.
    """
    path = _dataset_file(source)
    images = list(karpathy_images(path))
    root = path.parent
    folder = folder_holding(image_folders(root, root.parent), (image.file for image in images))
    return [
        Row(
            id=f"coco:{image.coco_id}" if image.coco_id else str(folder / image.file),
            split=image.split,
            files={"image": folder / image.file},
            captions=image.captions,
        )
        for image in images
    ]


def karpathy_images(path: Path) -> Iterator[KarpathyImage]:
    """The images of {images: [{filename, filepath?, cocoid?, split, sentences: [{raw, tokens}]}]}."""
    for where, image in objects_of(read_json(path), "images", str(path)):
        split = value_of(image, "split", str, where)
        sentences = objects_of(image, "sentences", where)
        yield KarpathyImage(
            file="/".join(filter(None, (optional_name(image, "filepath"), value_of(image, "filename", str, where)))),
            split="train" if split == RESTVAL else split_name(split),
            captions=without_blanks(value_of(sentence, "raw", str, here) for here, sentence in sentences),
            coco_id=optional_name(image, "cocoid"),
        )


def _dataset_file(source: Path) -> Path:
    if source.is_file():
        return source.resolve()
    found = sorted(path for pattern in PATTERNS for path in source.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise XmrError(f"{source}: one of {', '.join(PATTERNS)} expected, {names} found; name the file")
    return found[0].resolve()
