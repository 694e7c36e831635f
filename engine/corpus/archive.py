"""Webdataset archives: .tar files whose members are read in place.

Members that belong together have one key: their name up to the first dot after the last slash. KEY.json and KEY.cls
are metadata of the others; KEY.jpg, KEY.flac, KEY.txt are files of the corpus.
"""

import json
import os
from collections import defaultdict
from contextlib import closing
from pathlib import Path, PurePosixPath

from xmr.engine.corpus.found import Finds, is_utf8
from xmr.engine.corpus.tar import Member, Tar
from xmr.engine.errors import XmrError
from xmr.engine.media.table import metadata_of

MAX_JSON = 1_000_000  # bytes of a member that is metadata
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")


def is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


def is_packed_archive(path: Path) -> bool:
    return path.name.lower().endswith(PACKED_SUFFIXES)


def take_members(path: Path, status: os.stat_result, root: Path, finds: Finds) -> None:
    """The media in an archive, each with what its key's .json and .cls say; of a name that is there twice the last.

    Names that lead out of the archive and sparse files are named and left out; links and devices are left out. Of an
    archive that is cut short or damaged what comes before stays.
    """
    try:
        with closing(Tar(path)) as tar:
            members, metadata = _members(tar, finds)
    except OSError as error:
        finds.fail(path, error)
        return
    for name, member in members.items():
        inside = path / name
        finds.take(inside, status, root, archive=path, at=(member.start, member.size))
        if inside in finds.files:
            finds.describe(inside, metadata.get(_key(name), {}))


def _members(tar: Tar, finds: Finds) -> tuple[dict[str, Member], dict[str, dict[str, object]]]:
    """Those that may be files of the corpus by name, and the metadata by key."""
    members: dict[str, Member] = {}
    about: dict[str, Member] = {}
    try:
        for member in tar:
            name = _plain(member.name)
            if not _may_be_read(tar, member, name, finds):
                continue
            (about if name[len(_key(name)) :].lower() in (".json", ".cls") else members)[name] = member
    except XmrError as error:
        finds.refuse(tar.path, str(error))
    metadata: dict[str, dict[str, object]] = defaultdict(dict)
    for name, member in about.items():
        metadata[_key(name)] |= _said(tar, member, name, finds)
    return members, metadata


def _may_be_read(tar: Tar, member: Member, name: str, finds: Finds) -> bool:
    """Tells why not; folders go without saying."""
    if member.kind == "folder":
        return False
    if not is_utf8(name):
        finds.ignored["with a name that is not UTF-8"] += 1
    elif name.startswith("/") or ".." in name.split("/") or "\0" in name:
        sentence = f"{tar.path}: a member is named {name!r}, which leads out of the archive; it is left out"
        finds.refuse(tar.path / f"member {name}".replace("\0", ""), sentence)
    elif name.startswith(".") or "/." in name:
        finds.ignored["hidden"] += 1
    elif member.kind == "sparse file":
        finds.refuse(tar.path / name, f"{tar.path / name}: a sparse file, which cannot be read in place; unpack it")
    elif member.kind != "file":
        finds.ignored["as link or device in an archive"] += 1
    else:
        return True
    return False


def _said(tar: Tar, member: Member, name: str, finds: Finds) -> dict[str, object]:
    """The metadata in a .json or .cls member."""
    place = tar.path / name
    if member.size > MAX_JSON:
        finds.note(f"{place}: {member.size:,} bytes of metadata found, up to {MAX_JSON:,} are read; left out")
        return {}
    written = tar.read(member).decode("utf-8-sig", errors="replace")
    if name.lower().endswith(".cls"):
        label = written.strip()
        return metadata_of({"cls": int(label) if label.isdecimal() and len(label) < 19 else label})
    try:
        said = json.loads(written)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        finds.note(f"{place}: no JSON object; no metadata taken from it")
        return {}
    return metadata_of(said, column="", note=lambda sentence: finds.note(f"{place}: {sentence}"))


def _plain(name: str) -> str:
    """Without what means nothing: ./a//b.jpg is a/b.jpg."""
    return str(PurePosixPath(name)) if name.startswith("./") or "//" in name or "/./" in name else name


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0]
