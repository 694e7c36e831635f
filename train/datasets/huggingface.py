"""A dataset as Hugging Face lays it out: a folder of images or sounds with metadata, or Parquet tables that hold them.

Class folders alone name no pairs; what is said of a file stands in metadata.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media import medium_of
from xmr.train.datasets.layout import files_under, resolver
from xmr.train.datasets.records import TABLES, Record, captions_of, optional_name, table_records
from xmr.train.datasets.rows import MEDIA, Note, Row, named_or_hashed, split_in_name, split_name, split_of_folder

METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in TABLES)
CAPTION_COLUMNS = ("captions", "caption", "text")
SPOKEN_COLUMNS = ("transcription", "transcript", "sentence")  # words that are heard in the audio beside them
CATEGORY_COLUMNS = ("category", "label")
SPEAKER_COLUMNS = ("speaker", "speaker_id")


def read_huggingface(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row a record of metadata.jsonl, .csv, .tsv or .parquet; else of the Parquet tables in the folder.

    file_name and columns that end in _file_name are files beside the metadata; media inside a table are unpacked below
    `cache`. captions, caption or text are captions; beside transcription, transcript or sentence the audio is speech.
    category or label is the category. The split is the record's own, or that of the first folder or the table's name.
    """
    root = source.resolve()
    if not root.is_dir():
        raise XmrError(f"{source}: a folder expected; give the folder of a dataset")
    tables = [path for path in files_under(root) if path.suffix.lower() in TABLES and path.is_file()]
    metadata = [path for path in tables if path.name.lower() in METADATA_NAMES]
    tables = metadata or [path for path in tables if path.suffix.lower() == ".parquet"]
    if not tables:
        raise XmrError(f"{source}: no {', '.join(METADATA_NAMES)} and no Parquet table in it; say there what pairs")
    found = [record for path in tables for record in _records(path, root, cache)]
    splits = named_or_hashed([row.split or None for _, row in found], [key for key, _ in found])
    return [replace(row, split=split) for (_, row), split in zip(found, splits, strict=True)]


def _records(path: Path, root: Path, cache: Path | None) -> Iterator[tuple[str, Row]]:
    """Each row of a table after what names it from the dataset's folder on; its split is empty where none is named."""
    resolve = resolver(path.parent)
    of_table = split_of_folder(path.relative_to(root)) or split_in_name(path.stem)
    for number, (where, record) in enumerate(table_records(path, cache), start=1):
        files = _files(record, resolve, where)
        first = files.get("image") or next(iter(files.values()), None)
        is_beside = first is not None and first.is_relative_to(root)
        inside = path.relative_to(root) / (first.name if first else str(number))
        relative = first.relative_to(root) if first and is_beside else inside
        own = optional_name(record, "split")
        yield (
            relative.as_posix(),
            Row(
                id=str(first or where),
                split=split_name(own) if own else of_table or split_of_folder(relative) or "",
                files=files,
                captions=captions_of(record, (*CAPTION_COLUMNS, *SPOKEN_COLUMNS), where),
                category=_first(record, CATEGORY_COLUMNS),
                speaker=_first(record, SPEAKER_COLUMNS),
            ),
        )


def _files(record: Record, resolve: Callable[[str], Path], where: str) -> dict[str, Path]:
    """By modality: what the column's name begins with, else what the file's suffix promises."""
    files: dict[str, Path] = {}
    for column, value in record.items():
        is_name = column.endswith("file_name") and isinstance(value, str)
        if not is_name and not isinstance(value, Path):  # a Path was inside the table
            continue
        try:
            path = resolve(str(value))
        except ValueError as error:
            raise XmrError(f"{where}: a path that no file can have ({error}); mend the record") from None
        modality = _modality(column, path, record)
        if modality in files:
            raise XmrError(f"{where}: two files of {modality}, {files[modality].name} and {path.name}; keep one column")
        if modality is not None:
            files[modality] = path
    return files


def _modality(column: str, path: Path, record: Record) -> str | None:
    name = column.removesuffix("file_name").rstrip("_")
    if name in MEDIA:
        return name
    if medium_of(path) == "audio":
        return "speech" if _first(record, SPOKEN_COLUMNS) else "sound"
    return "image" if medium_of(path) == "image" else None


def _first(record: Record, columns: tuple[str, ...]) -> str | None:
    return next((name for column in columns if (name := optional_name(record, column))), None)
