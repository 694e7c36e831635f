"""Readers of training data: one per file format, each gives rows. A row is what belongs together."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES

LABEL = "label:"  # in front of a key that is a label
SPLITS = ("train", "val", "test")
MEDIA = tuple(name for name in MODALITIES if name != "text")  # the modalities that come as files


@dataclass(frozen=True)
class Row:
    """Any of an image, a sound, speech and captions that belong together."""

    id: str  # rows of one id show the same thing; the image's path where the data names none
    split: str
    label: str | None = None  # what pairs were matched by; every row of the label is then a right answer
    files: dict[str, Path] = field(default_factory=dict)  # modality -> absolute path
    captions: tuple[str, ...] = ()

    @property
    def modalities(self) -> list[str]:
        return [*self.files, *(["text"] if self.captions else [])]

    @property
    def key(self) -> str:
        """What decides whether another row is a right answer."""
        return self.id if self.label is None else f"{LABEL}{self.label}"


def read_rows(sources: Iterable[str]) -> list[Row]:
    """The rows of several sources; XmrError for a missing source, a bad line or a missing file."""
    rows = [row for source in sources for row in read_pairs(Path(source))]
    missing = [path for row in rows for path in row.files.values() if not path.is_file()]
    if missing:
        raise XmrError(f"{missing[0]}: named by a row but missing, as are {len(missing) - 1} more; mend --data")
    return rows


def read_pairs(source: Path) -> list[Row]:
    """pairs.jsonl, or a folder that holds one: objects of image, sound, speech, captions or caption, id, label, split.

    Paths are relative to the file's folder. A row without a split is a train row.
    """
    path = source / "pairs.jsonl" if source.is_dir() else source
    if not path.is_file():
        raise XmrError(f"{path}: no such file; give --data a pairs.jsonl or a folder that holds one")
    rows = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_parse_row(line, path.parent, f"{path}, line {number}"))
    if not rows:
        raise XmrError(f"{path}: no rows in it; write one JSON object a line")
    return rows


def select(rows: Iterable[Row], split: str, modalities: Sequence[str]) -> list[Row]:
    """The rows of a split that pair at least two of these modalities."""
    return [row for row in rows if row.split == split and len(set(row.modalities) & set(modalities)) >= 2]


def _parse_row(line: str, folder: Path, where: str) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise XmrError(f"{where}: not valid JSON ({error}); mend the line") from None
    if not isinstance(values, dict):
        raise XmrError(f"{where}: {type(values).__name__} found, an object expected")
    captions = values.get("captions") or ([values["caption"]] if values.get("caption") else [])
    names = {modality: values[modality] for modality in MEDIA if values.get(modality)}
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in (*captions, *names.values())):
        raise XmrError(f"{where}: strings expected as paths and captions")
    split = values.get("split") or "train"
    if not names or len(names) + bool(captions) < 2:
        found = ", ".join([*names, *(["captions"] if captions else [])]) or "nothing"
        raise XmrError(f"{where}: {found} found, a pair expected")
    try:
        files = {modality: (folder / name).resolve() for modality, name in names.items()}
    except ValueError as error:
        raise XmrError(f"{where}: a path that no file can have ({error}); mend the line") from None
    identity = values.get("id")
    first = files.get("image") or next(iter(files.values()))
    label = values.get("label")
    return Row(
        id=str(identity) if identity is not None else str(first),
        split=str(split),
        label=None if label is None else str(label),
        files=files,
        captions=tuple(captions),
    )


DATASETS: dict[str, Callable[[Path], list[Row]]] = {"pairs": read_pairs}
