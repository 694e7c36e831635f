"""Rows of a parquet table, with bounds on what a few bytes of it may claim to be. Needs pyarrow."""

from collections.abc import Iterator
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content

BATCH_ROWS = 1024
BATCH_BYTES = 32_000_000  # of texts that become Python's at once
MAX_LEAVES = 1000  # columns, those in nested ones counted
MAX_CHUNK = 2_000_000_000  # bytes of one column in one row group, unpacked
MAX_RATIO = 1000  # of unpacked to packed bytes, where the unpacked ones are many
MANY = 64_000_000  # bytes
FOOTER_BYTES = 16_000_000
VECTOR = 64  # numbers in a list: longer ones are embeddings, no metadata
MAX_LIST = 10_000  # values in a list
SHORT = 200_000  # bytes of a text
SUSPECT = 20  # times that texts are packed, where they repeat
BATCH_VALUES = 100_000  # of lists that become Python's at once

Row = dict[str, object]


def open_parquet(content: Content) -> Any:
    """A pyarrow.parquet.ParquetFile that is read page by page; XmrError for what is none."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise XmrError(f"{content}: parquet needs pyarrow; pip install pyarrow, or write the table as .jsonl") from None
    try:
        opened = ParquetFile(
            content.open(),
            buffer_size=1 << 20,
            pre_buffer=False,
            thrift_string_size_limit=FOOTER_BYTES,
            thrift_container_size_limit=FOOTER_BYTES // 16,
        )
        if opened.metadata.num_columns > MAX_LEAVES:
            raise XmrError(f"{content}: {opened.metadata.num_columns} columns found, up to {MAX_LEAVES} are read")
        _check_names(opened)
        return opened
    except (ArrowException, OSError, ValueError) as error:
        raise XmrError(f"{content}: no parquet table ({_first_line(error)}); replace the file") from None


def _check_names(opened: Any) -> None:
    """ValueError where the name of a column, as the schema or a row group has it, is no text."""
    places = range(opened.metadata.num_columns)
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        if [group.column(place).path_in_schema for place in places] != [leaf.path for leaf in _leaves(opened)]:
            raise ValueError("columns have other names in the row groups than in the schema")


def rows_of_parquet(content: Content) -> Iterator[tuple[int, Row]]:
    """The rows with their number from 1. Columns of bytes and of long lists (embeddings) are left out."""
    from pyarrow import ArrowException

    opened = open_parquet(content)
    columns = readable_columns(opened)
    _check_sizes(content, opened, columns)
    opened = type(opened)(
        content.open(),
        metadata=opened.metadata,
        buffer_size=1 << 20,
        pre_buffer=False,
        read_dictionary=[name for name in columns if "." not in name],  # pyarrow cannot in lists of several groups
    )
    number, unpacking = 0, _Unpacking(content)
    try:
        for batch in opened.iter_batches(_batch_rows(opened, columns), columns=columns):
            for piece in unpacking.pieces(batch):
                for row in piece.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (ArrowException, OSError, ValueError) as error:
        raise XmrError(f"{content}: row {number + 1}: damaged ({_first_line(error)}); replace the file") from None


def readable_columns(opened: Any) -> list[str]:
    """The leaves (dotted paths) of the columns that can be metadata or text."""
    left_out = {
        leaf.path.split(".")[0] for place, leaf in enumerate(_leaves(opened)) if _is_no_metadata(opened, place, leaf)
    }
    return [leaf.path for leaf in _leaves(opened) if leaf.path.split(".")[0] not in left_out]


def columns_of_bytes(content: Content) -> list[str]:
    """The leaves that hold bytes, such as pictures in the table itself, which nobody reads."""
    opened = open_parquet(content)
    return [
        leaf.path for place, leaf in enumerate(_leaves(opened)) if _is_of_bytes(leaf) and not _is_empty(opened, place)
    ]


def _is_of_bytes(leaf: Any) -> bool:
    is_binary = leaf.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
    return is_binary and leaf.logical_type.type in ("NONE", "UNKNOWN")


def _is_empty(opened: Any, place: int) -> bool:
    """Whether the table says of a leaf that all its values are nulls."""
    groups = [opened.metadata.row_group(number).column(place) for number in range(opened.metadata.num_row_groups)]
    return all(
        group.statistics is not None
        and group.statistics.has_null_count
        and group.statistics.null_count == group.num_values
        for group in groups
    )


def _batch_rows(opened: Any, columns: list[str]) -> int:
    """How many rows may be unpacked at once, whatever is in them."""
    rows = [BATCH_ROWS]
    for place, leaf in enumerate(_leaves(opened)):
        if leaf.path in columns and "." in leaf.path:
            n_values = (
                BATCH_BYTES // _longest_text(opened, place) if leaf.physical_type == "BYTE_ARRAY" else BATCH_VALUES
            )
            rows.append(int(n_values / max(1.0, _values_a_row(opened, place))))
    return max(1, min(rows))


def _longest_text(opened: Any, place: int) -> int:
    """Bytes that a text in a list may have: one that repeats is in the file once, so as long as all of it unpacked.

    Texts that people wrote do not pack well; there one is no longer than SHORT.
    """
    longest = 1
    for number in range(opened.metadata.num_row_groups):
        chunk = opened.metadata.row_group(number).column(place)
        unpacked = int(chunk.total_uncompressed_size)
        repeats = unpacked > SUSPECT * chunk.total_compressed_size
        longest = max(longest, unpacked if repeats else min(unpacked, SHORT))
    return longest


def _leaves(opened: Any) -> list[Any]:
    return [opened.schema.column(place) for place in range(opened.metadata.num_columns)]


def _is_no_metadata(opened: Any, place: int, leaf: Any) -> bool:
    """Bytes, such as pictures in the table itself, and long lists, such as embeddings."""
    if _is_of_bytes(leaf):
        return True
    limit = VECTOR if leaf.physical_type in ("FLOAT", "DOUBLE") or leaf.logical_type.type == "FLOAT16" else MAX_LIST
    return _values_a_row(opened, place) > limit


def _values_a_row(opened: Any, place: int) -> float:
    """How many values of this leaf a row has, in the mean of the row group with most of them."""
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    return max((group.column(place).num_values / max(1, group.num_rows) for group in groups), default=0.0)


def _check_sizes(content: Content, opened: Any, columns: list[str]) -> None:
    """Refuse what a bomb claims before anything of it is unpacked."""
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        for chunk in (group.column(place) for place in range(opened.metadata.num_columns)):
            if chunk.path_in_schema not in columns:
                continue
            unpacked, packed = chunk.total_uncompressed_size, max(1, chunk.total_compressed_size)
            if unpacked > MAX_CHUNK or (unpacked > MANY and unpacked > MAX_RATIO * packed):
                raise XmrError(
                    f"{content}: column {chunk.path_in_schema} unpacks {packed:,} bytes to {unpacked:,}; "
                    f"write the table again in smaller row groups"
                )


class _Unpacking:
    """Turns the batches of a table into plain ones; repeated texts, which take no room in the file, are counted."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._left = MANY + MAX_RATIO * content.n_bytes  # bytes of text

    def pieces(self, batch: Any) -> Iterator[Any]:
        """The batch, cut so that no more than BATCH_BYTES of text are unpacked at once."""
        sizes = [_text_sizes(column) for column in batch.columns]
        self._left -= sum(total for total, _ in sizes)
        longest = sum(longest for _, longest in sizes)
        if self._left < 0 or longest > BATCH_BYTES:
            raise XmrError(f"{self._content}: its texts unpack to more than {MAX_RATIO} times its size; shorten them")
        step = max(1, BATCH_BYTES // max(1, longest))
        for start in range(0, batch.num_rows, step):
            yield _decoded(batch.slice(start, step))


def _text_sizes(column: Any) -> tuple[int, int]:
    """Bytes of all texts in a column, and of the longest; of a nested column, which is unpacked, all its bytes."""
    from pyarrow import compute, types

    if types.is_nested(column.type):
        return column.nbytes, column.nbytes // max(1, len(column))
    values = column.dictionary if types.is_dictionary(column.type) else column
    if not (types.is_string(values.type) or types.is_large_string(values.type)):
        return 0, 0
    lengths = compute.binary_length(values)
    longest = compute.max(lengths).as_py() or 0
    if values is not column:
        lengths = lengths.take(column.indices)
    return compute.sum(lengths).as_py() or 0, longest


def _decoded(batch: Any) -> Any:
    from pyarrow import RecordBatch, types

    columns = [
        column.dictionary_decode() if types.is_dictionary(column.type) else column
        for column in (batch.column(place) for place in range(batch.num_columns))
    ]
    return RecordBatch.from_arrays(columns, names=batch.schema.names)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
