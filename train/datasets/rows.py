"""A row is what belongs together: its fields, the names of splits, and what every reader of rows looks like."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.media.image import MAX_PIXELS
from xmr.train.datasets.records import Record, value_of

LABEL = "label:"  # in front of a key that is a label
SPLITS = ("train", "val", "test")
MEDIA = tuple(name for name in MODALITIES if name != "text")  # the modalities that come as files
VAL_SHARE = 20  # of a dataset that names no splits, one item in so many is val
OTHER_NAMES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
# a split's name in that of a shard or a table: train-00000-of-00002, flickr_val.001, dev_seen_2020
SPLIT_IN_NAME = re.compile(rf"(?:^|[-_. ])({'|'.join((*SPLITS, *OTHER_NAMES))})(?=[-_. \d]|$)", re.IGNORECASE)

Box = tuple[float, float, float, float]  # x, y, width, height in pixels
Size = tuple[int, int]  # width, height in pixels
Note = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """Any of an image, a sound, speech and captions that belong together."""

    id: str  # rows of one id show the same thing; the image's path where the data names none
    split: str
    label: str | None = None  # what pairs were matched by; every row of the label is then a right answer
    files: dict[str, Path] = field(default_factory=dict)  # modality -> absolute path
    captions: tuple[str, ...] = ()
    category: str | None = None  # a class that the data names; it does not decide what a right answer is
    boxes: tuple[Box, ...] = ()  # what each caption describes, parallel to captions; empty where nobody says
    size: Size | None = None  # of the picture that the boxes are in pixels of; the file's own where nobody says
    speaker: str | None = None

    @property
    def modalities(self) -> list[str]:
        return [*self.files, *(["text"] if self.captions else [])]

    @property
    def key(self) -> str:
        """What decides whether another row is a right answer."""
        return self.id if self.label is None else f"{LABEL}{self.label}"


def with_captions(row: Row, which: str) -> Row:
    """The row with all of its captions, or with its first or last alone."""
    kept = {"all": slice(None), "first": slice(1), "last": slice(-1, None)}[which]
    return replace(row, captions=row.captions[kept], boxes=row.boxes[kept])


class Reader(Protocol):
    """Rows of a file or folder. Media that must be unpacked go below `cache`; what is left out is said by `note`."""

    def __call__(self, source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]: ...


def size_of(record: Record, where: str) -> Size:
    """The `width` and `height` that a record tells of a picture."""
    width, height = (value_of(record, key, int, where) for key in ("width", "height"))
    if min(width, height) < 1 or width * height >= MAX_PIXELS:
        found = f"{str(width)[:20]}x{str(height)[:20]}"
        raise XmrError(f"{where}: {found} pixels found, no size of a picture that is read; fetch the file again")
    return width, height


def split_name(name: str) -> str:
    """The name we use for a split: validation, valid and dev are val; one that nobody knows is left as it is."""
    plain = name.strip().lower()
    plain = OTHER_NAMES.get(plain, plain)
    return plain if plain in SPLITS else name


def split_in_name(name: str) -> str | None:
    """The split that a shard's or a table's name tells, or None."""
    found = SPLIT_IN_NAME.search(name)
    return split_name(found[1]) if found else None


def split_of_folder(relative: Path) -> str | None:
    """The split that a folder of a relative path is named for, or None."""
    return next((name for folder in relative.parts[:-1] if (name := split_name(folder)) in SPLITS), None)


def named_or_hashed(named: Sequence[str | None], keys: Sequence[str]) -> list[str]:
    """The split of each item: as named, train where others are named; a function of its key where none is named."""
    if any(named):
        return [name or "train" for name in named]
    return ["val" if hash_of(key) % VAL_SHARE == 0 else "train" for key in keys]


def hash_of(key: str) -> int:
    """A number that is the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big")
