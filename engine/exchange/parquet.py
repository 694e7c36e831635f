"""All rows as one parquet table: what an item is, its metadata, and the column `embedding`, float32 of one length."""

from collections.abc import Iterable
from pathlib import Path

from xmr.engine.exchange.columns import Columns
from xmr.engine.exchange.rows import Block
from xmr.engine.exchange.survey import Survey


def write_parquet(blocks: Iterable[Block], found: Survey, path: Path) -> None:
    """Write rows of a survey, a row group for each block; needs pyarrow."""
    from pyarrow import string
    from pyarrow.parquet import ParquetWriter

    columns = Columns.of(found.kinds_of(found.n_rows))
    schema = columns.schema(found.dim)
    texts = [field.name for field in schema if field.type == string()]
    with path.open("wb") as file, ParquetWriter(file, schema, use_dictionary=texts) as writer:
        for block in blocks:
            writer.write_table(columns.table(block, schema))
