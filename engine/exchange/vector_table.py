"""Embeddings made elsewhere as a parquet table: a column of vectors, and columns that say what they are of."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.exchange.lists import Naming, entries_of
from xmr.engine.exchange.npy import MAX_DIM
from xmr.engine.exchange.rows import Block, check_dim, rows_in_block, unit_rows
from xmr.engine.media.content import Content
from xmr.engine.media.parquet import MANY, MAX_RATIO, open_parquet

VECTOR_COLUMNS = ("embedding", "vector", "embeddings", "image_embedding", "text_embedding")  # the first there is
KINDS = ("halffloat", "float", "double")


def read_parquet(
    table: Path,
    *,
    vector_column: str | None = None,
    dim: int | None = None,
    modality: str | None = None,
    normalize: bool = False,
) -> Iterator[Block]:
    """The rows of a table in blocks: `vector_column`, by default one of VECTOR_COLUMNS, the others as a list has them.

    It is a list of float16, float32 or float64 of one length. XmrError where the table, its dim or a row is not what
    it must be; what concerns the whole of it is told before the first block.
    """
    from pyarrow import ArrowException

    table = table.absolute()
    if not table.is_file():
        raise XmrError(f"{table}: no such file; check the path")
    opened = open_parquet(Content(table))
    column = _vector_column(table, opened, vector_column)
    width = _dim(table, opened, column)
    check_dim(width, dim, table)
    entries = entries_of(table, opened.metadata.num_rows, Naming(table, modality, column))
    first = 1
    try:
        for batch in opened.iter_batches(min(8192, rows_in_block(width)), columns=[column]):
            rows = _matrix(table, batch.column(0), width, first)
            unit = unit_rows(rows, source=table, first=first, normalize=normalize)
            yield Block(unit, list(islice(entries, len(rows))))
            first += len(rows)
    except (ArrowException, OSError) as error:
        raise XmrError(f"{table}: row {first}: damaged ({str(error).splitlines()[0]}); replace the file") from None


def _vector_column(table: Path, opened: Any, wanted: str | None) -> str:
    from pyarrow import types

    def is_vector(kind: Any) -> bool:
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return is_list and str(kind.value_type) in KINDS

    there = [field.name for field in opened.schema_arrow if is_vector(field.type)]
    if wanted is not None and wanted not in there:
        found = ", ".join(there) or "none"
        raise XmrError(f"{table}: no column {wanted} of vectors, found {found}; pass --vector-column with one of them")
    names = [wanted] if wanted is not None else [name for name in VECTOR_COLUMNS if name in there] or there
    if not names or (len(names) > 1 and names[0] not in VECTOR_COLUMNS):
        found = ", ".join(names) or "none"
        raise XmrError(f"{table}: which column holds the vectors is not clear, found {found}; pass --vector-column")
    return names[0]


def _dim(table: Path, opened: Any, column: str) -> int:
    """Numbers a row, from what the table says of itself, before any of it is read."""
    places = [place for place in range(opened.metadata.num_columns) if _name(opened, place) == column]
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    chunks = [group.column(places[0]) for group in groups]
    n_rows, n_values = opened.metadata.num_rows, sum(chunk.num_values for chunk in chunks)
    if n_rows == 0 or n_values % n_rows or not 0 < n_values // n_rows <= MAX_DIM:
        raise XmrError(f"{table}: {n_values} numbers in {n_rows} rows of {column}, vectors of one length expected")
    width = n_values // n_rows
    for group, chunk in zip(groups, chunks, strict=True):
        unpacked, packed = chunk.total_uncompressed_size, max(1, chunk.total_compressed_size)
        if chunk.num_values != width * group.num_rows or (unpacked > MANY and unpacked > MAX_RATIO * packed):
            raise XmrError(f"{table}: rows of other lengths than {width} in {column}; write the table again")
    return int(width)


def _name(opened: Any, place: int) -> str:
    return str(opened.schema.column(place).path.split(".")[0])


def _matrix(table: Path, column: Any, dim: int, first: int) -> Any:
    """(n, dim) of the vectors of a batch, of their own float type."""
    from pyarrow import compute

    lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
    if column.null_count or (lengths != dim).any():
        row = first + int((lengths != dim).argmax())
        raise XmrError(f"{table}: row {row}: no vector of {dim} numbers; leave the row out")
    flat = column.flatten()
    if flat.null_count:
        raise XmrError(f"{table}: a vector in the rows from {first} lacks a number; leave the row out")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), dim)
