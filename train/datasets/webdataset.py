"""WebDataset: tar shards in which the files of a sample share a name up to its first dot and follow one another."""

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import IO

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.media import medium_of
from xmr.engine.media.image import MAX_BYTES
from xmr.train.datasets.layout import files_under
from xmr.train.datasets.records import Record, captions_of, object_of, optional_name, without_blanks
from xmr.train.datasets.rows import MEDIA, Note, Row, named_or_hashed, split_in_name, split_name, split_of_folder
from xmr.train.datasets.unpacked import safe_name, unpacked

MAX_MEDIUM_BYTES = {"image": MAX_BYTES, "audio": 1_000_000_000}  # half an hour of 32-bit stereo at 48 kHz has 700 MB
MAX_TEXT_BYTES = 1_000_000
TEXTS = ("txt", "json", "cls")
NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # the key of a sample, and what of it the file is
CAPTION_KEYS = ("captions", "caption", "text")
NAMED_KEYS = ("category", "split", "speaker")

Member = tuple[str, str, tarfile.TarInfo]  # key, extension, what the tar says of it


def read_webdataset(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row a sample, of one .tar or all under a folder; media are unpacked below `cache`.

    jpg, png, webp… are the image, wav, flac, ogg, mp3… the sound, txt a caption a line, cls the category; json may have
    captions, caption or text, category, split and speaker. An extension of two parts begins with what the file is, as
    in 0001.speech.wav; others, as depth.png, are no business of ours. The split is the sample's own, else that of the
    shard's folder or name.
    """
    root = source.resolve()
    shards = [root] if root.is_file() else [path for path in files_under(root) if _is_shard(path)]
    if not shards:
        raise XmrError(f"{source}: no .tar in it; give the folder of the shards")
    found: list[tuple[Path, Path, Record]] = []
    named: list[str | None] = []
    with terminal.progress_bar("shards") as show:
        for number, shard in enumerate(shards, start=1):
            folder, (samples, problems) = unpacked(shard, cache, _unpack)
            for problem in problems:
                note(f"webdataset: {problem}")
            of_shard = split_of_folder(shard.relative_to(root)) or split_in_name(shard.stem)
            named += [split_name(sample["split"]) if "split" in sample else of_shard for sample in samples]
            found += [(shard, folder, sample) for sample in samples]
            show(number, len(shards))
    splits = named_or_hashed(named, [sample["key"] for _, _, sample in found])
    return [_row(*sample, split) for sample, split in zip(found, splits, strict=True)]


def _is_shard(path: Path) -> bool:
    return path.suffix == ".tar" and path.is_file()


def _row(shard: Path, folder: Path, sample: Record, split: str) -> Row:
    return Row(
        id=f"{shard}:{sample['key']}",
        split=split,
        files={modality: folder / name for modality, name in sample["files"].items()},
        captions=tuple(sample.get("captions", ())),
        category=sample.get("category"),
        speaker=sample.get("speaker"),
    )


def _unpack(shard: Path, folder: Path) -> tuple[list[Record], list[str]]:
    """The samples of a shard, their media written to the folder; and a sentence for what is wrong with it."""
    samples: list[Record] = []
    problems: list[str] = []
    try:
        with tarfile.open(shard, "r:") as tar:
            for key, members in groupby(_members(tar, shard, problems), key=lambda member: member[0]):
                samples.append(_sample(tar, key, members, folder, shard, problems))
    except (tarfile.TarError, RecursionError) as error:  # of headers that stand for one another
        if not samples:
            raise XmrError(f"{shard}: no tar archive that can be read ({error}); fetch it again") from None
        problems.append(f"{shard}: cut short after {len(samples)} samples ({error}); fetch it again for the rest")
    return samples, problems


def _members(tar: tarfile.TarFile, shard: Path, problems: list[str]) -> Iterator[Member]:
    """The plain files of a shard that are of some use and of a fair size."""
    refused = []
    for member in tar:
        name = "".join(letter if letter.isprintable() else "?" for letter in member.name.removeprefix("./"))
        parts = NAME.fullmatch(name)
        if member.isdir() or parts is None:
            continue
        key, extension = parts[1], parts[2].lower()
        limit = MAX_TEXT_BYTES if extension in TEXTS else MAX_MEDIUM_BYTES.get(_medium(extension), 0)
        if limit and (not member.isreg() or member.issparse() or member.size > limit):
            refused.append(name)
        elif limit:
            yield key, extension, member
    if refused:
        problems.append(f"{shard}: links or too large members: {len(refused)}, such as {refused[0]}; they are left out")


def _sample(
    tar: tarfile.TarFile, key: str, members: Iterator[Member], folder: Path, shard: Path, problems: list[str]
) -> Record:
    sample: Record = {"key": key, "files": {}}
    for _, extension, member in members:
        where = f"{shard}, member {key}.{extension}"
        if extension not in TEXTS:
            modality = _modality(extension)
            if modality in sample["files"]:
                problems.append(f"{where}: a second {modality} of its sample; it is left out")
            else:
                sample["files"][modality] = _write(tar, member, folder)
            continue
        text = _opened(tar, member).read().decode("utf-8", "replace")
        if extension == "txt":
            sample["captions"] = without_blanks(text.splitlines())
        elif extension == "cls":
            sample["category"] = text.strip()
        else:
            try:
                sample = _said(text, where) | sample  # txt and cls stand above json
            except XmrError as error:
                problems.append(f"{error}; it is left out")
    return sample


def _said(text: str, where: str) -> Record:
    """Captions and names of a sample's JSON."""
    try:
        record = object_of(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        raise XmrError(f"{where}: not valid JSON ({error}); mend the shard") from None
    said: Record = {name: value for name in NAMED_KEYS if (value := optional_name(record, name))}
    captions = captions_of(record, CAPTION_KEYS, where)
    return said | ({"captions": captions} if captions else {})


def _medium(extension: str) -> str:
    """The medium of `wav` and of `speech.wav`; none of what begins with anything but a modality."""
    first, *others = extension.split(".")
    return "" if others and first not in MEDIA else medium_of(Path(f"file.{extension}")) or ""


def _modality(extension: str) -> str:
    first = extension.split(".")[0]
    if first in MEDIA:
        return first
    return "image" if _medium(extension) == "image" else "sound"


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> str:
    """Write a member under a name of our own, whatever path it has in the tar."""
    digest = sha256(f"{member.offset} {member.name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = Path(member.name)
    name = safe_name(path.name.split(".")[0], digest, path.suffix.lower())
    try:
        with (folder / name).open("wb") as file:
            shutil.copyfileobj(_opened(tar, member), file)
    except tarfile.TarError:
        (folder / name).unlink()
        raise
    return name


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None, "only plain files come so far"
    return content
