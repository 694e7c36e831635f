"""Which files of the rows are there: one listing a folder, so that half a million files cost seconds."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.train.datasets.rows import Note, Row


def pairing_rows(rows: Sequence[Row], name: str, source: Path, note: Note) -> list[Row]:
    """The rows of a dataset that still pair two modalities without the files that are missing.

    What is left out is counted and named in a sentence; where nothing is left, that sentence is an XmrError.
    """
    folders: dict[str, set[str]] = {}
    files = dict.fromkeys(str(path) for row in rows for path in row.files.values())
    missing = {path: None for path in files if not _is_there(path, folders)}
    present = [_without(row, missing) for row in rows] if missing else list(rows)
    kept = [row for row in present if len(row.modalities) >= 2]
    if missing and not kept:
        first = next(iter(missing))
        raise XmrError(f"{source}: {len(missing)} of {len(files)} files are missing, such as {first}; mend --data")
    if missing:
        note(f"{name}: {_missing_sentence(rows, present, list(missing), len(files))}")
    alone = [row for row in rows if len(row.modalities) < 2]
    if not kept:
        found = f"{len(alone)} rows found that pair nothing, such as {alone[0].id}" if alone else "no rows in it"
        raise XmrError(f"{source}: {found}; read as {name}, give --data what pairs image, sound, speech or captions")
    if alone:
        note(f"{name}: {len(alone)} of {len(rows)} rows pair nothing, such as {alone[0].id}; they are left out")
    return kept


def _missing_sentence(rows: Sequence[Row], present: Sequence[Row], missing: Sequence[str], n_files: int) -> str:
    touched = [(before, after) for before, after in zip(rows, present, strict=True) if after is not before]
    n_left_out = sum(len(after.modalities) < 2 <= len(before.modalities) for before, after in touched)
    outcome = "their rows are left out"
    if any(len(after.modalities) >= 2 for _, after in touched):
        outcome = "their rows go on without them" + (f", but for {n_left_out} left out" if n_left_out else "")
    verb = "is" if len(missing) == 1 else "are"
    return f"{len(missing)} of {n_files} files {verb} missing, such as {missing[0]}; {outcome}"


def _is_there(path: str, folders: dict[str, set[str]]) -> bool:
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = _file_names(folder)
    return name in folders[folder]


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # ValueError: a name that no folder can have
        return set()


def _without(row: Row, missing: dict[str, None]) -> Row:
    if not any(str(path) in missing for path in row.files.values()):
        return row
    return replace(row, files={name: path for name, path in row.files.items() if str(path) not in missing})
