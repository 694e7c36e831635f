"""Places Audio Captions (Harwath et al. 2016, 2020): images of Places205, somebody telling what is on them."""

from collections.abc import Iterator
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.layout import folder_holding
from xmr.train.datasets.records import Record, objects_of, optional_name, read_json, value_of, without_blanks
from xmr.train.datasets.rows import Note, Row, split_in_name

BASE_KEYS = {"image": "image_base_path", "wav": "audio_base_path"}


def read_places_audio(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an utterance: image, speech, the words a recogniser heard, the speaker.

    `source` is one JSON, or a folder whose JSON files (or those of its metadata/) name their splits: dev_seen_2020 and
    dev_unseen_2020 are both val, so name a file to have one of them alone. The image's path is the id.
    """
    rows: list[Row] = []
    for path in _metadata_files(source):
        rows += _rows(path)
    return rows


def _rows(path: Path) -> list[Row]:
    metadata = read_json(path)
    utterances = list(objects_of(metadata, "data", str(path)))
    names = {key: [value_of(record, key, str, where) for where, record in utterances] for key in BASE_KEYS}
    images, wavs = (folder_holding(_bases(metadata, BASE_KEYS[key], path), names[key]) for key in BASE_KEYS)
    split = split_in_name(path.stem) or "train"
    return [
        Row(
            id=str(images / image),
            split=split,
            files={"image": images / image, "speech": wavs / wav},
            captions=without_blanks([optional_name(record, "asr_text") or ""]),
            speaker=optional_name(record, "speaker"),
        )
        for image, wav, (_, record) in zip(names["image"], names["wav"], utterances, strict=True)
    ]


def _bases(metadata: Record, key: str, path: Path) -> Iterator[Path]:
    """Where files may lie: the base path, or its last folder beside or above the JSON, or those folders themselves."""
    around = (path.parent, path.parent.parent)
    if isinstance(base := metadata.get(key), str) and base and "\0" not in base:
        yield path.parent / base
        yield from (folder / Path(base).name for folder in around)
    yield from around


def _metadata_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source.resolve()]
    for folder in (source, source / "metadata"):
        found = [path.resolve() for path in sorted(folder.glob("*.json")) if split_in_name(path.stem)]
        if found:
            return found
    raise XmrError(f"{source}: no train.json, val.json or others with a split's name in it; name the file")
