"""CUHK-PEDES (Li et al. 2017): photographs of people and what is said of them."""

from pathlib import Path

from xmr.engine import terminal
from xmr.train.datasets.layout import folder_holding, named_file
from xmr.train.datasets.records import captions_of, json_list, name_of, value_of
from xmr.train.datasets.rows import Note, Row, split_name

RECORDS_NAME = "reid_raw.json"


def read_cuhk_pedes(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row a photograph; its label is the person, so that all photographs of one are right answers."""
    path = named_file(source, [RECORDS_NAME])
    records = list(json_list(path))
    root = path.parent
    names = [value_of(record, "file_path", str, where) for where, record in records]
    folder = folder_holding([root / "imgs", root / "images", root], names)
    return [
        Row(
            id=str(folder / name),
            split=split_name(value_of(record, "split", str, where)),
            label=f"person {name_of(record, 'id', where)}",
            files={"image": folder / name},
            captions=captions_of(record, ["captions"], where),
        )
        for name, (where, record) in zip(names, records, strict=True)
    ]
