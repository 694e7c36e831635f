"""Items of the index that a question names: by their id, or as a file or a line of one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.index import Index
from xmr.engine.media import MODALITIES

MAX_DIGITS = 18  # of an id
PATHS_COMPARED = 5000  # to name the nearest to one that is not in the index


@dataclass(frozen=True)
class Indexed:
    """Ids of the items that stand for what was named; of a file those of its first modality, as image of a video."""

    ids: list[int]
    itself: list[int]  # all that was named, of every modality


def items_like(index: Index, named: str) -> Indexed:
    """What an id, an indexed file's path, or PATH:LINE names, in one version of the index.

    A number is an id; a file of such a name is written with its folder. XmrError names the nearest file.
    """
    with index.snapshot():
        return _items_like(index, named)


def _items_like(index: Index, named: str) -> Indexed:
    if not len(index):
        raise XmrError(f"{index.folder}: nothing in this index yet; fill it with `xmr index PATH`")
    if not is_text(named):
        raise XmrError(f"{named!r}: a name that is not UTF-8 found, and no such file is in an index; name another one")
    if named.isascii() and named.isdigit():
        if len(named) > MAX_DIGITS or int(named) not in index.found([int(named)]):
            raise XmrError(f"{index.folder}: no item {named[:20]} in this index; take an id that a query prints")
        return Indexed([int(named)], [int(named)])
    if of_file := _of_path(index, named):
        return Indexed(_of_first_modality(index, of_file), of_file)
    if line := re.fullmatch(rf"(.+):(\d{{1,{MAX_DIGITS}}})", named, re.DOTALL):
        found = index.found(_of_path(index, line[1]))
        if ids := [item for item, facts in found.items() if facts.line == int(line[2])]:
            return Indexed(ids, ids)
    nearest = nearest_path(index.paths(), named)
    raise XmrError(f"{named}: not in the index {index.folder}; the nearest file there is {nearest}")


def _of_first_modality(index: Index, ids: list[int]) -> list[int]:
    found = index.found(ids)
    held = {facts.modality for facts in found.values()}
    first = next(name for name in MODALITIES if name in held)
    return [item for item in ids if found[item].modality == first]


def _of_path(index: Index, named: str) -> list[int]:
    """Items of a file as it is named, or as it is found from the current folder."""
    for path in dict.fromkeys((named, str(Path(named).absolute()), str(Path(named).resolve()))):
        if ids := index.items_of(path):
            return ids
    return []


def nearest_path(paths: Sequence[str], named: str) -> str:
    """The one of some paths that was most likely meant: one of the same name, else one that is written alike."""
    wanted = str(Path(named).resolve())
    folder, _, name = wanted.rpartition("/")
    same = [path for path in paths if path.endswith(f"/{name}")]
    beside = [path for path in paths if path.startswith(f"{folder}/")]
    choice = (same or beside or paths)[:PATHS_COMPARED]
    return max(choice, key=lambda path: SequenceMatcher(None, path[-200:], wanted[-200:]).ratio())


def is_text(string: str) -> bool:
    """Whether it can be written in UTF-8, and is no part of one that another language would end early."""
    return "\0" not in string and not any("\ud800" <= letter <= "\udfff" for letter in string)
