"""Parquet tables. Images and sounds inside one, as Hugging Face stores them, become files in the cache."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.media import medium_of
from xmr.train.datasets.packages import need
from xmr.train.datasets.unpacked import unpacked

BATCH_ROWS = 64  # with media in them
# how files begin, and the suffix they should have
BEGINNINGS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"\xff\xfb", ".mp3"),
    (b"\xff\xf3", ".mp3"),
    (b"\xff\xf2", ".mp3"),
)


def parquet_records(path: Path, cache: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a table, each after its file and number from 1; media in it as Paths.

    A column of media is binary, or {bytes, path} as in Hugging Face's tables. Columns of vectors are left out.
    """
    need("pyarrow", "train", path)
    import pyarrow

    try:
        yield from _records(path, cache)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise XmrError(f"{path}: no Parquet table that can be read ({first_line}); fetch it again") from None


def _records(path: Path, cache: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        media = [item.name for item in table.schema_arrow if _is_medium(item.type)]
        plain = [item.name for item in table.schema_arrow if _is_plain(item.type)]
        folder, files = unpacked(path, cache, _unpack) if media else (path.parent, {})
        named = zip(_plain_records(table, plain), *(files[column] for column in media), strict=True)
        for number, (record, *names) in enumerate(named, start=1):
            record |= {column: folder / name for column, name in zip(media, names, strict=True) if name}
            yield f"{path}, record {number}", {key: value for key, value in record.items() if value is not None}


def _plain_records(table: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:  # batches without columns have no rows
        yield from ({} for _ in range(table.metadata.num_rows))
        return
    for batch in table.iter_batches(columns=columns):
        yield from batch.to_pylist()


def _is_medium(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(item.name == "bytes" and (types.is_null(item.type) or _is_medium(item.type)) for item in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_text(kind.value_type)
    return bool(_is_text(kind) or types.is_integer(kind) or types.is_floating(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _unpack(path: Path, folder: Path) -> dict[str, list[str | None]]:
    """Write every medium; by column the name of each row's file, which is that of its bytes: equal ones are one file.

    One that is no bytes but a path stays where it is.
    """
    import pyarrow.parquet

    names: dict[str, list[str | None]] = {}
    with pyarrow.parquet.ParquetFile(path) as table:
        media = [item.name for item in table.schema_arrow if _is_medium(item.type)]
        names = {column: [] for column in media}
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=media):
            for record in batch.to_pylist():
                for column in media:
                    names[column].append(_write(record[column], path.parent, folder))
    return names


def _write(value: Any, beside: Path, folder: Path) -> str | None:
    path = value.get("path") if isinstance(value, dict) else None
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        return str(beside / path) if isinstance(path, str) and path else None
    name = f"{hashlib.sha256(content).hexdigest()[:16]}{_suffix(content, path)}"
    (folder / name).write_bytes(content)
    return name


def _suffix(content: bytes, path: object) -> str:
    """By the file's own name, else by how the file begins."""
    if isinstance(path, str) and medium_of(Path(path)) is not None:
        return Path(path).suffix.lower()
    if content[:4] == b"RIFF":
        return ".webp" if content[8:12] == b"WEBP" else ".wav"
    return next((suffix for beginning, suffix in BEGINNINGS if content.startswith(beginning)), ".bin")
