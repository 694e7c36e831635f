"""Pairs that somebody wrote down: one record a row in JSON lines, CSV or Parquet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.layout import optional_file, resolver
from xmr.train.datasets.records import TABLES, Record, captions_of, optional_name, table_records
from xmr.train.datasets.rows import MEDIA, Note, Row, split_name

PAIRS_NAMES = tuple(f"pairs{suffix}" for suffix in TABLES)


def read_pairs(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """pairs.jsonl, .csv, .tsv or .parquet, or a folder that holds one.

    A record has any two or more of image, sound, speech and captions (or caption), and may have id, label, split,
    category and speaker. Paths are relative to the file's folder; Parquet may hold the media themselves. A row without
    a split is a train row.
    """
    path = (optional_file(source, PAIRS_NAMES) or source / PAIRS_NAMES[0]) if source.is_dir() else source
    if not path.is_file():
        raise XmrError(f"{path}: no such file; give --data a pairs.jsonl or a folder that holds one")
    if path.suffix.lower() not in TABLES:
        raise XmrError(f"{path}: pairs are read from {', '.join(TABLES)}; rename it, or write name:path for a dataset")
    path = path.resolve()
    resolve = resolver(path.parent)
    rows = [_row(record, resolve, where) for where, record in table_records(path, cache)]
    if not rows:
        raise XmrError(f"{path}: no rows in it; write one JSON object a line")
    return rows


def read_spoken_pairs(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """Pairs whose `sound` is somebody speaking; a caption beside it is the words spoken."""
    rows = read_pairs(source, cache, note)
    both = next((row for row in rows if {"sound", "speech"} <= set(row.files)), None)
    if both is not None:
        raise XmrError(f"{source}: the row {both.id} has sound and speech; in spoken pairs the sound is the speech")
    return [replace(row, files=_spoken(row.files)) for row in rows]


def _spoken(files: dict[str, Path]) -> dict[str, Path]:
    return {"speech" if modality == "sound" else modality: path for modality, path in files.items()}


def _row(record: Record, resolve: Callable[[str], Path], where: str) -> Row:
    captions = captions_of(record, ("captions", "caption"), where)
    names = {modality: record[modality] for modality in MEDIA if record.get(modality)}
    names = {modality: str(name) if isinstance(name, Path) else name for modality, name in names.items()}
    if not all(isinstance(name, str) for name in names.values()):
        raise XmrError(f"{where}: strings expected as paths; mend the line")
    if not names or len(names) + bool(captions) < 2:
        found = ", ".join([*names, *(["captions"] if captions else [])]) or "nothing"
        raise XmrError(f"{where}: {found} found, a pair expected")
    try:
        files = {modality: resolve(name) for modality, name in names.items()}
    except ValueError as error:
        raise XmrError(f"{where}: a path that no file can have ({error}); mend the line") from None
    first = files.get("image") or next(iter(files.values()))
    return Row(
        id=optional_name(record, "id") or str(first),
        split=split_name(str(record.get("split") or "train")),
        label=optional_name(record, "label"),
        files=files,
        captions=captions,
        category=optional_name(record, "category"),
        speaker=optional_name(record, "speaker"),
    )
