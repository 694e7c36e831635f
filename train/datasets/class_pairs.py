"""Images and sounds that were never recorded together, paired because they are of the same class, as dogs and barks.

Each medium is a list with labels, or folders with a class's name; ESC-50 (Piczak 2015) is a list of sounds.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media import medium_of
from xmr.train.datasets.layout import files_under, optional_file, resolver
from xmr.train.datasets.records import TABLES, Record, captions_of, optional_name, table_records
from xmr.train.datasets.rows import SPLITS, Note, Row, hash_of, named_or_hashed, split_name

LISTS = {medium: tuple(f"{medium}s{suffix}" for suffix in TABLES) for medium in ("image", "sound")}
FOLDERS = {"image": ("images",), "sound": ("sounds", "audio")}
MEDIA = {"image": "image", "sound": "audio"}
ESC50_NAMES = ("meta/esc50.csv", "ESC-50/meta/esc50.csv", "ESC-50-master/meta/esc50.csv")
FOLD_SPLITS = {"4": "val", "5": "test"}  # of a list with folds for cross-validation; the others are train
FILE_KEYS = ("file_name", "filename", "file", "path")
LABEL_KEYS = ("label", "category", "class")


@dataclass(frozen=True)
class Item:
    """An image or a sound of a class."""

    path: Path
    label: str
    split: str | None
    key: str  # the file's name as the data has it, which does not change when the data moves
    captions: tuple[str, ...] = ()


def read_class_pairs(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """Rows of an image and a sound of one class and split, which is their label; always the same ones.

    `source` has images.jsonl (.csv, .tsv, .parquet) or images/[split/]<class>/, and the same of sounds (or audio/), or
    ESC-50's meta/esc50.csv. Every image and every sound is in one row at least: the fewer ones take turns.
    """
    root = source.resolve()
    images, sounds = (_with_splits(list(_items(root, modality, cache))) for modality in ("image", "sound"))
    rows = []
    for split, label in sorted(set(images) & set(sounds)):
        of_class = images[split, label], sounds[split, label]
        n_pairs = max(map(len, of_class))
        for image, sound in zip(*(islice(cycle(items), n_pairs) for items in of_class), strict=True):
            files = {"image": image.path, "sound": sound.path}
            rows.append(Row(str(image.path), split, label, files, image.captions))
    if alone := sorted(set(images) ^ set(sounds)):
        split, label = alone[0]
        note(f"class-pairs: classes that pair nothing in a split: {len(alone)}, such as {label} in {split}")
    if not rows:
        raise XmrError(f"{source}: no class has images and sounds in the same split; name their classes alike")
    return rows


def has_classes(folder: Path) -> bool:
    """Whether a folder holds others, each a class or a split."""
    return folder.is_dir() and any(path.is_dir() for path in folder.iterdir())


def _with_splits(items: list[Item]) -> dict[tuple[str, str], list[Item]]:
    """By split and label, in an order that has nothing to do with their names."""
    grouped = defaultdict(list)
    splits = named_or_hashed([item.split for item in items], [item.key for item in items])
    for item, split in sorted(zip(items, splits, strict=True), key=lambda pair: (hash_of(pair[0].key), pair[0].key)):
        grouped[split, item.label].append(item)
    return dict(grouped)


def _items(root: Path, modality: str, cache: Path | None) -> Iterator[Item]:
    if path := optional_file(root, LISTS[modality]):
        yield from _listed(path, path.parent, modality, cache)
    elif folder := next((root / name for name in FOLDERS[modality] if has_classes(root / name)), None):
        yield from _foldered(folder, modality)
    elif modality == "sound" and (path := optional_file(root, ESC50_NAMES)):
        yield from _listed(path, path.parent.parent / "audio", modality, cache)
    else:
        raise XmrError(f"{root}: neither {modality}s.jsonl nor {modality}s/<class>/ in it; put the classes there")


def _listed(path: Path, folder: Path, modality: str, cache: Path | None) -> Iterator[Item]:
    resolve = resolver(folder)
    for where, record in table_records(path, cache):
        name, label = (_first(record, keys, where) for keys in ((modality, *FILE_KEYS), LABEL_KEYS))
        try:
            file = resolve(name)
        except ValueError as error:
            raise XmrError(f"{where}: a path that no file can have ({error}); mend the line") from None
        yield Item(file, label, _split(record), name, captions_of(record, ["captions"], where))


def _split(record: Record) -> str | None:
    if named := optional_name(record, "split"):
        return split_name(named)
    fold = optional_name(record, "fold")
    return FOLD_SPLITS.get(fold, "train") if fold else None


def _first(record: Record, keys: Iterable[str], where: str) -> str:
    found = next((name for key in keys if (name := optional_name(record, key))), None)
    if found is None:
        raise XmrError(f"{where}: no {' or '.join(keys)} in it; mend the line")
    return found


def _foldered(folder: Path, modality: str) -> Iterator[Item]:
    """Of <class>/<file> and <split>/<class>/<file>."""
    for path in files_under(folder):
        relative = path.relative_to(folder)
        if medium_of(path) == MEDIA[modality] and len(relative.parts) > 1:
            first, *rest = relative.parts
            is_split = len(rest) > 1 and split_name(first) in SPLITS
            yield Item(path, rest[0] if is_split else first, split_name(first) if is_split else None, str(relative))
