"""The folder of matrices and tables that clip-retrieval and autofaiss read, and that clip-retrieval's inference writes.

    image_emb/image_emb_0.npy           (rows, dim) float32 or float16
    metadata/metadata_0.parquet         row i: the item of row i; image_path, and what else is known of it
    text/text_emb/text_emb_0.npy        the same of every other modality, in a folder of its own: caption, for texts
    text/metadata/metadata_0.parquet

clip-retrieval has one table for images and texts: its row i is the caption of image i. The items of an index are no
such pairs, so each modality is a folder of clip-retrieval's by itself; where there are no images, the first modality
takes their place at the top. Their numbers have equal width, as readers sort by name. `clip index` looks for img_emb:
tell it `--image_subfolder image_emb`. autofaiss takes image_emb alone, embedding-reader image_emb and metadata.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from xmr.engine.errors import XmrError
from xmr.engine.exchange.columns import Columns
from xmr.engine.exchange.npy import open_matrix, read_npy
from xmr.engine.exchange.rows import Block, Entry
from xmr.engine.exchange.survey import Survey
from xmr.engine.media import MODALITIES

ALIASES = {"image": {"path": "image_path"}, "text": {"text": "caption"}}  # columns that clip-retrieval shows
OTHER_NAMES = {"img_emb": "image"}  # of folders, as clip-retrieval itself writes them
TABLES = "metadata"


def write_npy_folder(
    blocks: Iterable[Block], found: Survey, folder: Path, *, dtype: str = "float32", rows_per_file: int = 1_000_000
) -> None:
    """Write rows of a survey; `folder` must not be there. Of float16, a row's length is within 1e-3 of 1."""
    folder.mkdir()
    top = next(name for name in MODALITIES if name in found.n_rows)
    with ExitStack() as stack:
        shards = {
            name: stack.enter_context(
                _Shards(folder if name == top else folder / name, name, found, dtype, rows_per_file)
            )
            for name in sorted(found.n_rows)
        }
        for block in blocks:
            for modality, part in by_modality(block):
                shards[modality].add(part)


def read_npy_folder(
    folder: Path, *, dim: int | None = None, modality: str | None = None, normalize: bool = False
) -> Iterator[Block]:
    """The rows of such a folder, or of one of its *_emb folders with the `modality` that this is.

    A text of clip-retrieval's own pairs is row n of their table, whose image it must not take the place of.
    """
    found = _matrices(folder, modality)
    if not found:
        raise XmrError(f"{folder}: no image_emb, text_emb or other *_emb folder of .npy files found; give one that has")
    dim = dim or open_matrix(found[0].rows, None).shape[1]
    for shard in found:  # all of them, before the first row is taken
        open_matrix(shard.rows, dim)
    for shard in found:
        blocks = read_npy(shard.rows, listed=shard.table, dim=dim, modality=shard.modality, normalize=normalize)
        first = 1
        for block in blocks:
            if shard.is_paired and shard.modality == "text":
                block = Block(block.vectors, _lines_of(shard.table, first, block.entries))
            first += len(block.entries)
            yield block


def is_npy_folder(folder: Path) -> bool:
    return bool(_emb_folders(folder)) or any(folder.glob("*.npy"))


def by_modality(block: Block) -> Iterator[tuple[str, Block]]:
    """A block for each modality that it has rows of."""
    names = sorted({entry.modality for entry in block.entries})
    for name in names:
        rows = [row for row, entry in enumerate(block.entries) if entry.modality == name]
        vectors = block.vectors if len(names) == 1 else block.vectors[rows]
        yield name, Block(vectors, [block.entries[row] for row in rows])


class _Shards:
    """The files of one modality, of which one pair is open at a time. Rows that no file has room for cannot come."""

    def __init__(self, folder: Path, modality: str, found: Survey, dtype: str, rows_per_file: int) -> None:
        self._folder, self._modality, self._dim = folder, modality, found.dim
        self._n_left, self._rows_per_file = found.n_rows[modality], rows_per_file
        self._n_files = -(-self._n_left // rows_per_file)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._columns = Columns.of(found.kinds_of([modality]), ALIASES.get(modality))
        self._n_begun = self._room = 0
        self._rows: IO[bytes] | None = None
        self._table: Any = None

    def __enter__(self) -> "_Shards":
        for name in (f"{self._modality}_emb", TABLES):
            (self._folder / name).mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def add(self, block: Block) -> None:
        while len(block.entries):
            if not self._room:
                self._begin()
            now, block = _split(block, self._room)
            assert self._rows is not None
            self._rows.write(np.ascontiguousarray(now.vectors, dtype=self._dtype).data)
            self._table.write_table(self._columns.table(now, self._columns.schema()))
            self._room -= len(now.entries)

    def _begin(self) -> None:
        from pyarrow.parquet import ParquetWriter

        self._end()
        number = str(self._n_begun).zfill(len(str(self._n_files)))
        self._room = min(self._rows_per_file, self._n_left)
        self._n_left -= self._room
        self._n_begun += 1
        self._rows = (self._folder / f"{self._modality}_emb" / f"{self._modality}_emb_{number}.npy").open("wb")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._room, self._dim)}
        np.lib.format.write_array_header_1_0(self._rows, header)
        self._table = ParquetWriter(self._folder / TABLES / f"metadata_{number}.parquet", self._columns.schema())

    def _end(self) -> None:
        if self._rows is not None:
            with self._rows:
                self._table.close()


def _split(block: Block, n_rows: int) -> tuple[Block, Block]:
    return (
        Block(block.vectors[:n_rows], block.entries[:n_rows]),
        Block(block.vectors[n_rows:], block.entries[n_rows:]),
    )


class _Matrix(NamedTuple):
    """One .npy file to read."""

    rows: Path
    table: Path | None
    modality: str
    is_paired: bool  # its table is that of another modality too


def _matrices(folder: Path, modality: str | None) -> list[_Matrix]:
    places = [place for there in (folder, *(folder / name for name in MODALITIES)) for place in _emb_folders(there)]
    if not places:
        if modality is None and any(folder.glob("*.npy")):
            raise XmrError(f"{folder}: .npy files found that nothing says the modality of; pass --modality")
        places = [(modality, folder)] if modality is not None else []
    above = [place.parent for _, place in places]
    return [
        _Matrix(rows, table, name, is_paired=above.count(place.parent) > 1)
        for name, place in places
        for rows, table in _with_tables(place)
    ]


def _emb_folders(folder: Path) -> list[tuple[str, Path]]:
    names = OTHER_NAMES | {f"{modality}_emb": modality for modality in MODALITIES}
    return [(modality, folder / name) for name, modality in names.items() if (folder / name).is_dir()]


def _with_tables(place: Path) -> list[tuple[Path, Path | None]]:
    """The matrices in a folder, each with its table: both sorted by name, as many of one as of the other."""
    rows, tables = sorted(place.glob("*.npy")), sorted((place.parent / TABLES).glob("*.parquet"))
    if not tables:
        return [(matrix, None) for matrix in rows]
    if len(rows) != len(tables):
        raise XmrError(
            f"{place}: {len(rows)} .npy files found for {len(tables)} of {place.parent / TABLES}; complete them"
        )
    return list(zip(rows, tables, strict=True))


def _lines_of(table: Path | None, first: int, entries: Iterable[Entry]) -> list[Entry]:
    return [replace(entry, path=str(table), line=line) for line, entry in enumerate(entries, start=first)]
