"""The columns of a parquet table of items: what an item is, then a column for each key of their metadata.

A key whose values are of one kind has a column of it; values of several kinds, lists and objects stand in it as JSON.
What a table's reader must know to give back the very same items is kept in its schema, under MARK.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmr.engine.exchange.rows import Block, Entry
from xmr.engine.exchange.survey import Kinds, changed

MARK = b"xmr"
VECTORS = "embedding"  # the name by which autofaiss looks for it
MAX_KEYS = 500  # with more of them, all metadata is JSON in one column
PACKED = "metadata"  # its name
ITEM_COLUMNS = {
    "id": "int64",
    "path": "string",
    "modality": "string",
    "start_s": "float64",
    "end_s": "float64",
    "line": "int64",
    "text": "string",
}
ARROW_TYPES = {"bool": "bool_", "int": "int64", "float": "float64", "text": "string", "json": "string"}

Row = dict[str, object]


@dataclass(frozen=True)
class Key:
    """A key of the metadata, and the column that has its values."""

    name: str
    column: str
    kind: str  # a key of ARROW_TYPES


@dataclass(frozen=True)
class Columns:
    """Of one table."""

    names: Mapping[str, str]  # of ITEM_COLUMNS, as this table calls them
    keys: Sequence[Key]
    is_packed: bool = False

    @classmethod
    def of(cls, kinds: Kinds, aliases: Mapping[str, str] | None = None) -> "Columns":
        """For metadata of these kinds. `aliases` are names that others look for in place of ours: path, image_path."""
        names = {column: (aliases or {}).get(column, column) for column in ITEM_COLUMNS}
        if len(kinds) > MAX_KEYS:
            return cls(names, [], is_packed=True)
        taken = {*ITEM_COLUMNS, *names.values(), *kinds, VECTORS, PACKED}
        keys = []
        for name, found in kinds.items():
            column = name
            if not name or name in {*ITEM_COLUMNS, *names.values(), VECTORS, PACKED}:
                column = _free(f"metadata.{name}", taken)
                taken.add(column)
            keys.append(Key(name, column, _one_kind(found)))
        return cls(names, keys)

    def schema(self, dim: int | None = None) -> Any:
        """Of pyarrow; with `dim`, a column of vectors comes last."""
        import pyarrow

        fields = [pyarrow.field(self.names[column], getattr(pyarrow, kind)()) for column, kind in ITEM_COLUMNS.items()]
        fields += [pyarrow.field(key.column, getattr(pyarrow, ARROW_TYPES[key.kind])()) for key in self.keys]
        if self.is_packed:
            fields.append(pyarrow.field(PACKED, pyarrow.string()))
        if dim is not None:
            fields.append(pyarrow.field(VECTORS, pyarrow.list_(pyarrow.float32(), dim)))
        return pyarrow.schema(fields, metadata={MARK: json.dumps(self._mark()).encode()})

    def table(self, block: Block, schema: Any) -> Any:
        """The rows of a block, as a pyarrow.Table."""
        import pyarrow

        arrays = self._arrays(block.entries, schema)
        if schema.names[-1] == VECTORS:
            numbers = pyarrow.array(block.vectors.reshape(-1))
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(numbers, block.vectors.shape[1]))
        return pyarrow.Table.from_arrays(arrays, schema=schema)

    def _arrays(self, entries: Sequence[Entry], schema: Any) -> list[Any]:
        import pyarrow

        known = {key.name for key in self.keys}
        if not self.is_packed and any(not _names(entry) <= known for entry in entries):
            raise changed()
        values = [[getattr(entry, column) for entry in entries] for column in ITEM_COLUMNS]
        values += [[_cell(entry.metadata.get(key.name), key.kind) for entry in entries] for key in self.keys]
        if self.is_packed:
            values.append([_cell(dict(entry.metadata), "json") for entry in entries])
        try:
            return [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=False)]
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):  # a value of another kind than the survey found
            raise changed() from None

    def _mark(self) -> Row:
        return {
            "items": {self.names[column]: column for column in ITEM_COLUMNS},
            "metadata": {key.column: key.name for key in self.keys},
            "json": [key.column for key in self.keys if key.kind == "json"],
        }


def restorer(schema: Any) -> Callable[[Row], Row] | None:
    """What makes of a row of this table the item that was written, its metadata in one object; None for others' tables.

    `schema` is pyarrow's.
    """
    mark = _mark_of((schema.metadata or {}).get(MARK))
    if mark is None:
        return None
    items, metadata, written_as_json = mark

    def restore(row: Row) -> Row:
        item = {name: row[column] for column, name in items.items() if column in row}
        kept = _parsed(row[PACKED]) if PACKED in row and PACKED not in metadata else {}
        keys = dict(kept) if isinstance(kept, dict) else {}
        for column, key in metadata.items():
            if column in row:
                keys[key] = _parsed(row[column]) if column in written_as_json else row[column]
        return {**item, "metadata": keys}

    return restore


def _mark_of(found: bytes | None) -> tuple[dict[str, str], dict[str, str], set[str]] | None:
    """Checked: the file may be anybody's."""
    try:
        mark = json.loads(found or b"")
        items, metadata = (
            {str(key): str(value) for key, value in mark[name].items()} for name in ("items", "metadata")
        )
        return items, metadata, {str(column) for column in mark["json"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parsed(cell: object) -> object:
    try:
        return json.loads(str(cell))
    except (ValueError, RecursionError):
        return cell


def _cell(value: object, kind: str) -> object:
    if value is None or kind != "json":
        return float(value) if kind == "float" and isinstance(value, int) else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _names(entry: Entry) -> set[str]:
    return {name for name, value in entry.metadata.items() if value is not None}


def _one_kind(kinds: set[str]) -> str:
    if kinds <= {"int", "big"}:
        return "int"
    if kinds == {"int", "float"}:
        return "float"
    return next(iter(kinds)) if len(kinds) == 1 else "json"


def _free(column: str, taken: set[str]) -> str:
    while column in taken:
        column += "_"
    return column
