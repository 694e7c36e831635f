"""Published datasets: what xmr knows of them, and getting those that may be had without a form.

What is fetched stands in the folder under the names its publishers chose; NAME.sha256 beside it says which file it was.
An archive is removed once it is unpacked, and NAME.sha256 then says that this is done.
"""

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import UsageError, XmrError
from xmr.engine.files import write_whole
from xmr.train.fetch.archives import is_archive, unpack
from xmr.train.fetch.downloads import check_disk, digests, download
from xmr.train.fetch.known import DATASETS_TO_FETCH, FOLDER, DatasetToFetch, FileToFetch

__all__ = ["DATASETS_TO_FETCH", "DatasetToFetch", "Fetched", "FileToFetch", "describe", "fetch", "find"]

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # label -> a bar moved by (done, total)


@dataclass(frozen=True)
class Fetched:
    """One file that a folder now has, or has the content of."""

    name: str
    sha256: str
    compared: str  # with what was published: "sha256", "md5", or "" where nothing is


def find(name: str) -> DatasetToFetch:
    """The dataset of this name; UsageError names those that there are."""
    if name in DATASETS_TO_FETCH:
        return DATASETS_TO_FETCH[name]
    near = difflib.get_close_matches(name, DATASETS_TO_FETCH, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"{name}: no dataset of this name is known; {hint}known are {', '.join(DATASETS_TO_FETCH)}")


def describe(dataset: DatasetToFetch, folder: Path | None = None) -> dict[str, object]:
    """What there is to know about a dataset, in the order in which it is told; `folder` where it is or will be."""
    place = str(folder) if folder is not None else f"data/{dataset.name}"
    facts: dict[str, object] = {
        "name": dataset.name,
        "what": dataset.what,
        "use": dataset.use,
        "paper": dataset.paper,
        "home": dataset.home,
        "licence": dataset.licence,
        "download GB": dataset.size_gb,
        "files": dataset.layout.replace(FOLDER, place),
    }
    if dataset.files:
        facts["from"] = " ".join(file.url for file in dataset.files)
    facts["how to get it"] = dataset.ask or f"xmr fetch {dataset.name} --to {place}"
    facts["train"] = f"xmr train {dataset.train.replace(FOLDER, place)}"
    return facts


def fetch(
    dataset: DatasetToFetch,
    folder: Path,
    *,
    keep_archives: bool = False,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[Fetched]:
    """Download and unpack a dataset into a folder; what is there already is left alone.

    Interrupted, the same call goes on where it stopped. XmrError where it has to be asked for, where the disk is too
    small, and where a file cannot be had whole.
    """
    if not dataset.files:
        raise XmrError(f"{dataset.name}: cannot be downloaded without asking; {dataset.ask} ({dataset.home})")
    check_disk(folder, sum(_needed_bytes(file, folder) for file in dataset.files))
    return [_fetch_file(file, folder, keep_archives, progress, note) for file in dataset.files]


def _needed_bytes(file: FileToFetch, folder: Path) -> int:
    """Room for what is still to come, as far as its size is published: the file, and what is in it."""
    path = folder / file.name
    if file.size_bytes is None or _digest_file(path).exists():
        return 0
    there = next((each.stat().st_size for each in (path, path.with_name(f"{path.name}.part")) if each.exists()), 0)
    return file.size_bytes * (2 if is_archive(file.name) else 1) - there


def _fetch_file(
    file: FileToFetch, folder: Path, keep_archives: bool, progress: Progress, note: Callable[[str], None]
) -> Fetched:
    path = folder / file.name
    compared = file.checksum.partition(":")[0] if file.checksum else ""
    done = _read_digest(path)
    if done and (is_archive(file.name) or path.exists()):
        note(f"{terminal.shown_path(path)}: fetched before; remove {path.name}.sha256 to fetch it again")
        return Fetched(file.name, done, compared)
    sha256 = _compared(path, file) if path.exists() else _download(file, path, progress)
    if is_archive(file.name):
        with progress(f"unpacking {file.name}, MB") as bar:
            unpacked = unpack(path, folder, bar)
        if unpacked.left_out:
            note(f"{file.name}: {len(unpacked.left_out)} links are left out, such as {unpacked.left_out[0]}")
        if not keep_archives:
            path.unlink()
    _write_digest(path, sha256)
    return Fetched(file.name, sha256, compared)


def _download(file: FileToFetch, path: Path, progress: Progress) -> str:
    spare = (file.size_bytes or 0) if is_archive(file.name) else 0
    with progress(f"{file.name}, MB") as bar:
        return download(file.url, path, size_bytes=file.size_bytes, checksum=file.checksum, spare_bytes=spare, bar=bar)


def _compared(path: Path, file: FileToFetch) -> str:
    """The sha256 of a file that somebody put there; XmrError where it is not the published one."""
    algorithm, _, expected = (file.checksum or "sha256:").partition(":")
    found = digests(path, {"sha256", algorithm})
    if expected and found[algorithm] != expected:
        raise XmrError(
            f"{path}: {algorithm} {found[algorithm]} found, {expected} expected; remove it, it will be fetched"
        )
    return found["sha256"]


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_digest(path: Path, sha256: str) -> None:
    """As sha256sum writes it."""
    write_whole(_digest_file(path), lambda file: file.write(f"{sha256}  {path.name}\n".encode()))


def _read_digest(path: Path) -> str:
    """What NAME.sha256 says; empty where there is none."""
    try:
        return _digest_file(path).read_text(encoding="utf-8").split(maxsplit=1)[0]
    except (OSError, ValueError, IndexError):
        return ""
