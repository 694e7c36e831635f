"""Which other files an ONNX network draws its weights from, told from its bytes before any runtime opens it.

A runtime follows the paths that such a file names. They are read here without a library of ONNX, which the engine does
not need for anything else: a protobuf is a list of numbered fields, and what is no message that may hold a tensor is
skipped over.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from xmr.engine.checksums import check_unchanged
from xmr.engine.errors import XmrError

# onnx.proto: of each message the numbers of its fields that may hold a tensor, and which messages those are
HOLDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
NEEDED = {7, 8}  # fields of a model that no network is without: its graph, and the operators it draws upon
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protobuf


def check_exported(folder: Path, file: str, sha256: Mapping[str, str]) -> None:
    """XmrError for a network of a model folder that, with all that holds its weights, is not as it was exported."""
    check_unchanged(folder, file, sha256)
    for beside in check_onnx(folder / file):
        check_unchanged(folder, str(beside.relative_to(folder.resolve())), sha256)


def check_onnx(path: Path) -> list[Path]:
    """The files that hold weights of a network; XmrError for one out of its folder, or no whole network."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            numbers = {number for number, _, _ in _fields(content, 0, len(content))}
            locations = sorted(set(_locations(content, 0, len(content), "model")))
    except FileNotFoundError:
        raise XmrError(f"{path}: missing; export the model again") from None
    except (ValueError, RecursionError):  # an empty file too cannot be mapped
        raise not_whole(path) from None
    if not numbers >= NEEDED:
        raise not_whole(path)
    files = [(path.parent / location).resolve() for location in locations]
    for location, found in zip(locations, files, strict=True):
        if not found.is_relative_to(path.parent.resolve()):
            raise XmrError(f"{path}: its weights are said to lie in {location}, outside its folder; export it again")
        if not found.is_file():
            raise XmrError(f"{path}: its weights in {location} are missing; export the model again")
    return files


def not_whole(path: Path) -> XmrError:
    return XmrError(f"{path}: no ONNX network, or not all of one; export the model again")


def _locations(content: mmap.mmap, start: int, end: int, message: str) -> Iterator[str]:
    """Every path that a tensor of this message names."""
    held = HOLDS[message]
    for number, first, last in _fields(content, start, end):
        if number not in held:
            continue
        if held[number] == "external":
            parts = {part: content[a:b].decode("utf-8") for part, a, b in _fields(content, first, last)}
            if parts.get(1) == "location":
                yield parts.get(2, "")
            continue
        yield from _locations(content, first, last, held[number])


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field with bytes in it, and where they begin and end; ValueError if they do not fit."""
    place = start
    while place < end:
        key, place = _varint(content, place, end)
        wire = key & 7
        if wire == BYTES:
            size, place = _varint(content, place, end)
            if place + size > end:
                raise ValueError("a field is cut short")
            yield key >> 3, place, place + size
            place += size
        elif wire == VARINT:
            _, place = _varint(content, place, end)
        elif wire in (FIXED32, FIXED64):
            place += 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
    if place != end:
        raise ValueError("a field is cut short")


def _varint(content: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while place < end and shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a number is cut short")
