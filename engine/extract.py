"""Embeddings of a corpus as one plain matrix: an .npy file of unit rows and, beside it, the list of their items.

Line i of the list is the item of row i. Rows are written as they come, so that they need not fit in memory, and under
another name: the old rows go first and the new ones get their name last, so where rows stand, their list does too.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine import terminal
from xmr.engine.corpus import Scan
from xmr.engine.embed import EmbeddedFile, Stages, embed_files
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.files import sync_folder
from xmr.engine.media import MODALITIES, Reading, modalities_of
from xmr.engine.model import BATCH_SIZE, Model

SUFFIX = ".npy"
ITEMS_AT_ONCE = 65536  # that a parquet list holds in memory: one of its row groups

Entry = dict[str, Any]  # an item in the list: path, modality, start_s, end_s, line, text, metadata


@dataclass
class ExtractSummary:
    """What an `extract` wrote."""

    rows: str  # the .npy file
    items: str  # the list beside it
    model: str
    fingerprint: str
    dim: int
    n_files: int = 0  # embedded
    n_items: dict[str, int] = field(default_factory=dict)  # by modality
    n_ignored: int = 0  # files of other kinds
    skipped: list[str] = field(default_factory=list)  # one sentence a file
    notes: list[str] = field(default_factory=list)

    def take(self, result: EmbeddedFile) -> None:
        self.notes.extend(result.notes)
        if result.error is not None:
            self.skipped.append(result.error)
            return
        self.n_files += result.is_last
        for item in result.items:
            self.n_items[item.modality] = self.n_items.get(item.modality, 0) + 1


def extract(
    model: Model,
    corpus: Scan,
    out: Path,
    *,
    modality: str | None = None,
    list_format: str = "jsonl",
    overwrite: bool = False,
    reading: Reading | None = None,
    workers: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stages: Stages | None = None,
    note: Callable[[str], None] = terminal.note,
) -> ExtractSummary:
    """Write (n, dim) float32 unit rows to `out` and the list of their items beside it, once both are whole.

    Items are in the order of their files' paths: of one modality, or all that the model makes of a file; files of media
    that are not asked for count as ignored; `reading` says how long ones are cut. What is skipped is told to `note` at
    once; of a long file that could not be read to its end, the items before stay. XmrError where nothing can be
    embedded, or a file is in the way.
    """
    check_free(out, list_format, overwrite=overwrite)
    narrow = narrowed(model, modality)
    files = [file for file in corpus.files if modalities_of(narrow.modalities, file.medium)]
    beside = out.with_suffix(LISTS[list_format].suffix)
    summary = ExtractSummary(str(out), str(beside), model.name, model.fingerprint, model.dim)
    summary.n_ignored = corpus.n_ignored + len(corpus.files) - len(files)
    summary.skipped = list(corpus.unreadable.values())
    for sentence in summary.skipped:
        note(f"skipped: {sentence}")
    with _both(out, beside) as (rows_file, list_file):
        rows, items = Rows(rows_file, model.dim), LISTS[list_format](list_file)
        results = embed_files(
            narrow, files, workers=workers, batch_size=batch_size, stages=stages, reading=reading or Reading()
        )
        with closing(results):
            n_done = 0
            for result in results:
                n_done += result.is_last
                progress(n_done, len(files))
                summary.take(result)
                _tell(result, note)
                if result.error is None and result.items:
                    rows.add(np.stack([item.vector for item in result.items if item.vector is not None]))
                    items.add(_entries(result))
        if not rows.n_rows:
            raise XmrError(f"{out}: not written, none of the {len(summary.skipped)} files found could be embedded")
        rows.close()
        items.close()
    return summary


def check_free(out: Path, list_format: str, *, overwrite: bool) -> None:
    """Refuse before any work what could not be written in the end."""
    if list_format not in LISTS:
        raise UsageError(f"--list {list_format} is unknown; one of {', '.join(LISTS)}")
    if list_format == "parquet" and find_spec("pyarrow") is None:
        raise XmrError("--list parquet: pyarrow is not installed; pip install pyarrow, or use --list jsonl")
    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out}: the rows become an {SUFFIX} file; name it so, as features{SUFFIX}")
    if not out.parent.is_dir():
        raise XmrError(f"{out.parent}: no such folder; make it, or choose another --out")
    for path in (out, *_lists_of(out)):
        if path.is_dir():
            raise XmrError(f"{path}: a folder has the name of a file to write; choose another --out")
        if path.exists() and not overwrite:
            raise XmrError(f"{path}: exists already; replace it with --overwrite, or choose another --out")


def narrowed(model: Model, modality: str | None) -> Model:
    """The model with one of its modalities alone, so that no other network runs; None: as it is."""
    if modality is None:
        return model
    if modality not in MODALITIES:
        raise UsageError(f"--modality {modality} is unknown; one of {', '.join(MODALITIES)}")
    model.check_modality(modality)
    modalities = {modality: model.config["modalities"][modality]}
    return replace(model, config=model.config | {"modalities": modalities})


class Rows:
    """An .npy file that grows. Its header is written again at the end: numpy leaves room in it for more digits."""

    def __init__(self, file: IO[bytes], dim: int) -> None:
        self._file, self._dim, self.n_rows = file, dim, 0
        self._write_header()

    def add(self, rows: NDArray[np.float32]) -> None:
        """(n, dim) more."""
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        self.n_rows += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        shape = (self.n_rows, self._dim)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})


class JsonLines:
    """One JSON object a line."""

    suffix = ".jsonl"

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """A line is whole as soon as it is written."""


class Parquet:
    """One table, a column a key, `metadata` as JSON; needs pyarrow."""

    suffix = ".parquet"

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        text, seconds = arrow.string(), arrow.float64()
        kinds = {"path": text, "modality": text, "start_s": seconds, "end_s": seconds, "line": arrow.int64()}
        self._schema = arrow.schema(list((kinds | {"text": text, "metadata": text}).items()))
        self._table, self._writer = arrow.Table, parquet.ParquetWriter(file, self._schema)
        self._waiting: list[Entry] = []

    def add(self, entries: Sequence[Entry]) -> None:
        self._waiting.extend(entry | {"metadata": json.dumps(entry["metadata"])} for entry in entries)
        if len(self._waiting) >= ITEMS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


LISTS: dict[str, type[JsonLines] | type[Parquet]] = {"jsonl": JsonLines, "parquet": Parquet}


def _tell(result: EmbeddedFile, note: Callable[[str], None]) -> None:
    for sentence in result.notes:
        note(f"note: {sentence}")
    if result.error is not None:
        note(f"skipped: {result.error}")


def _entries(result: EmbeddedFile) -> list[Entry]:
    path = str(result.file.path)
    return [
        {
            "path": path,
            "modality": item.modality,
            "start_s": item.start_s,
            "end_s": item.end_s,
            "line": item.line,
            "text": item.text,
            "metadata": {**result.file.metadata, **(item.metadata or {})},
        }
        for item in result.items
    ]


def _lists_of(out: Path) -> list[Path]:
    """The names that a list beside these rows can have."""
    return [out.with_suffix(kind.suffix) for kind in LISTS.values()]


@contextmanager
def _both(out: Path, beside: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Two files to write that get their names once both are whole; where the writing fails, what was there stays.

    An interrupt between the names leaves a list without rows, and the rows, which are whole, under their hidden name.
    """
    unborn = [path.with_name(f".{path.name}.{os.getpid()}") for path in (out, beside)]
    try:
        with unborn[0].open("wb") as rows_file, unborn[1].open("wb") as list_file:
            yield rows_file, list_file
            for file in (rows_file, list_file):
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        for path in unborn:
            path.unlink(missing_ok=True)
        raise
    out.unlink(missing_ok=True)  # never are rows beside a list that is not theirs
    unborn[1].replace(beside)
    for other in set(_lists_of(out)) - {beside}:
        other.unlink(missing_ok=True)
    unborn[0].replace(out)
    sync_folder(out.parent)
