"""Manifests: tables whose rows name files. What else a row says is metadata of these; its texts are items of the table.

pairs.jsonl with the columns image, sound and captions is one, and so is the metadata.csv (with file_name) that stands
in a folder of Hugging Face's style. A manifest that is given itself brings the files that it names; one in a folder
only describes those that are found there.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from xmr.engine.corpus.found import Finds, is_utf8
from xmr.engine.errors import XmrError
from xmr.engine.media import medium_of
from xmr.engine.media.content import Content
from xmr.engine.media.table import metadata_of, rows_of, text_of

COLUMNS = {
    *("image", "sound", "speech", "audio", "video", "path", "file", "file_name", "filepath"),
    *("image_path", "sound_path", "speech_path", "audio_path", "video_path"),
}
SUFFIX = "_file_name"  # of columns as image_file_name
NO_COLUMN = ""  # in place of the column of texts
PEEKED = 100  # rows that tell whether a table is a manifest
LISTS = (".jsonl", ".parquet")  # what stands beside an .npy file and says what its rows are


@dataclass(frozen=True)
class Table:
    """A table as it was found."""

    path: Path
    status: os.stat_result
    root: Path

    @property
    def is_given(self) -> bool:
        return self.path == self.root


@dataclass
class _Places:
    """Where the files of a manifest may be: below these folders, links resolved. Nothing else is looked at."""

    base: Path  # of relative paths
    folders: Sequence[Path]
    _resolved: dict[str, Path | None] = field(default_factory=dict)

    def of(self, named: str) -> Path | None:
        """The path that a row names, as a scan of its folder would give it; None outside the folders."""
        parent, name = os.path.split(os.path.normpath(os.path.join(self.base, named)))  # noqa: PTH118 Path is slow
        if parent not in self._resolved:
            real = Path(os.path.realpath(parent))
            self._resolved[parent] = real if self.hold(real) else None
        folder = self._resolved[parent]
        return folder / name if folder is not None and name else None

    def hold(self, path: Path) -> bool:
        """Whether a path whose links are resolved is in one of the folders."""
        return any(path.is_relative_to(folder) for folder in self.folders)


def take_table(table: Table, roots: Sequence[Path], finds: Finds, text_column: str | None) -> None:
    """A manifest, a table of texts, or neither; to be called once all files under the roots are found."""
    if table.path.suffix.lower() in LISTS and table.path.with_suffix(".npy").is_file() and not table.is_given:
        finds.ignored["as list of embeddings"] += 1
        return
    try:
        columns, has_text = _peeked(table, finds, text_column)
        if columns:
            has_text = _take_rows(table, roots, finds, text_column)
        _tell_unread(table, finds)
    except (XmrError, OSError) as error:
        if isinstance(error, XmrError):
            finds.refuse(table.path, str(error))
        else:
            finds.fail(table.path, error)
        return
    if has_text or (table.is_given and not columns):  # reading it tells why there is nothing in it
        finds.take(table.path, table.status, table.root)
    elif not columns:
        finds.ignored["as table without texts"] += 1


def _tell_unread(table: Table, finds: Finds) -> None:
    """Pictures and sounds in the table itself, as datasets are published, are no files of the corpus."""
    if table.path.suffix.lower() == ".parquet":
        from xmr.engine.media.parquet import columns_of_bytes  # few tables are

        for column in columns_of_bytes(Content(table.path)):
            finds.note(
                f"{table.path}: column {column} holds bytes, such as files in the table itself, which are left out; "
                "save them as files"
            )


def _peeked(table: Table, finds: Finds, text_column: str | None) -> tuple[bool, bool]:
    """From the first rows: whether a column names files, and whether one holds texts; XmrError where none is whole."""
    names_files = has_text = False
    base = table.path.parent
    broken: list[str] = []
    n_rows = 0
    for _, row in islice(rows_of(table.path, broken.append), PEEKED):
        n_rows += 1
        has_text = has_text or bool(text_of(row, text_column))
        for named in _named(row):
            known = medium_of(Path(named)) is not None
            names_files = names_files or (known and (table.is_given or _is_there(base / named)))
        if names_files and has_text:
            break
    if broken and not n_rows:
        raise XmrError(broken[0])
    return names_files, has_text


def _take_rows(table: Table, roots: Sequence[Path], finds: Finds, text_column: str | None) -> bool:
    """Take or describe the files of every row; whether there are texts too."""
    base = table.path.parent
    places = _Places(base, [base, *(root for root in roots if root.is_dir())])
    has_text, broken = False, list[str]()
    for number, row in rows_of(table.path, broken.append):
        has_text = has_text or bool(text_of(row, text_column))
        named = list(_named(row))
        if named:
            metadata = _metadata(table, number, row, finds)
            for name in named:
                _take_named(name, table, number, metadata, places, finds)
    if not (has_text and "text" in finds.media):  # who reads it for its texts will tell
        for sentence in broken:
            finds.note(sentence)
    return has_text


def _take_named(
    name: str, table: Table, number: int, metadata: Mapping[str, object], places: _Places, finds: Finds
) -> None:
    """Take or describe one file that a row names, or say why not."""
    place = f"line {number} of {table.path}"

    def refuse(reason: str) -> None:
        # below the manifest, as a member is below its archive; a line may name several files
        finds.refuse(table.path / f"line {number}: {name}", reason)

    if "\0" in name or not is_utf8(name) or len(name) > 4096:
        unnamable = f"{table.path}: line {number} names a file as no file can be named; mend the line"
        finds.refuse(table.path / f"line {number}", unnamable)
    elif "://" in name:
        refuse(f"{name}: an address, named by {place}; files are read, so download it and name the file")
    elif not finds.wants((path := places.of(name)) or Path(name)):
        if table.is_given:  # in a folder it was seen
            finds.leave_other(Path(name))
    elif path is not None and path in finds.files:
        finds.describe(path, metadata)
    elif path is None or not places.hold(path.resolve()):
        refuse(f"{name}: outside the folders that were given, named by {place}; give its folder too")
    else:
        reason = _take_unseen(path, table, metadata, finds)
        if reason is not None:
            refuse(f"{name}: {reason}, named by {place}; mend the line")


def _take_unseen(path: Path, table: Table, metadata: Mapping[str, object], finds: Finds) -> str | None:
    """A file that was not found in a folder: of a manifest that is given itself it is taken. Why it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not stat.S_ISREG(status.st_mode):
        return "no regular file"
    if table.is_given:
        finds.take(path, status, table.root)
        finds.describe(path, metadata)
    return None


def _metadata(table: Table, number: int, row: Mapping[str, object], finds: Finds) -> dict[str, object]:
    """What a row says of the files that it names: its texts too, as these are captions to them."""
    said = metadata_of(row, NO_COLUMN, lambda sentence: finds.note(f"{table.path}: line {number}: {sentence}"))
    return {name: value for name, value in said.items() if not _is_of_files(name)}


def _named(row: Mapping[str, object]) -> Iterator[str]:
    """The files that a row names; some columns hold several."""
    for column, value in row.items():
        if _is_of_files(column):
            for name in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(name, str) and name.strip():
                    yield name.strip()


def _is_of_files(column: str) -> bool:
    plain = column.strip().lower()
    return plain in COLUMNS or plain.endswith(SUFFIX)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
