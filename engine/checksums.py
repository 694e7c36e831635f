"""Whether the files of an exported model are those that were exported: each has its SHA-256 in config.json."""

from collections.abc import Mapping
from pathlib import Path

from xmr.engine.errors import UnreadableError
from xmr.engine.files import sha256_of


def check_there(folder: Path, name: str) -> None:
    """UnreadableError for a file that is not in the model folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnreadableError(f"{folder}: {name} lies outside the model folder; export the model again")
    if not path.is_file():
        raise UnreadableError(f"{path}: missing, though config.json names it; export the model again")


def check_covered(folder: Path, name: str, sha256: Mapping[str, str]) -> None:
    """UnreadableError for a file that config.json gives no checksum of."""
    if name not in sha256:
        raise UnreadableError(f"{folder}: {name}: used, but has no checksum in config.json; export the model again")


def check_unchanged(folder: Path, name: str, sha256: Mapping[str, str]) -> None:
    """UnreadableError for a file with anything else in it than was exported."""
    check_covered(folder, name, sha256)
    check_there(folder, name)
    if sha256_of(folder / name) != sha256[name]:
        raise UnreadableError(f"{folder / name}: changed since it was exported; export the model again")
