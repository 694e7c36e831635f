"""Flickr8k (Hodosh, Young, Hockenmaier 2013) and its spoken captions (Harwath, Glass 2015).

Captions are those of Flickr8k.token.txt, splits those of Flickr_8k.{train,dev,test}Images.txt; what is not there is
taken from Karpathy's dataset_flickr8k.json. Images outside the splits, 92 of 8,092, are left out, as published.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.datasets.karpathy import karpathy_images
from xmr.train.datasets.layout import folder_holding, image_folders, optional_file
from xmr.train.datasets.records import text_lines, without_blanks
from xmr.train.datasets.rows import Note, Row

TOKEN_NAMES = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
KARPATHY_NAMES = ("dataset_flickr8k.json", "annotations/dataset_flickr8k.json")
SPOKEN_NAMES = ("wav2capt.txt", "flickr_audio/wav2capt.txt")
EMPTY_WAV = 44  # bytes of a header without samples

Captions = dict[str, dict[int, str]]  # image -> number of the caption -> caption


def read_flickr8k(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row an image with its five captions; the image's path is its id."""
    root = source.resolve()
    captions, splits = _captions_and_splits(root)
    images = folder_holding(image_folders(root, root.parent), splits)
    return [
        Row(
            id=str(images / image),
            split=split,
            files={"image": images / image},
            captions=without_blanks(caption for _, caption in sorted(captions.get(image, {}).items())),
        )
        for image, split in splits.items()
    ]


def read_flickr8k_spoken(source: Path, cache: Path | None = None, note: Note = terminal.note) -> list[Row]:
    """One row a spoken caption: image, speech, the words spoken and the speaker.

    The five rows of an image share its path as id. A wav without samples leaves its row.
    """
    root = source.resolve()
    spoken = optional_file(root, SPOKEN_NAMES)
    if spoken is None:
        raise XmrError(f"{source}: no {' or '.join(SPOKEN_NAMES)} in it; give the folder that holds images and speech")
    captions, splits = _captions_and_splits(root)
    images = folder_holding(image_folders(root, root.parent), splits)
    speakers = dict(_speakers(spoken.with_name("wav2spk.txt")))
    empty = set(_empty_wavs(spoken.parent / "wavs"))
    rows = []
    for wav, image, number in _spoken_captions(spoken):
        if image in splits:
            speech = {} if wav in empty else {"speech": spoken.parent / "wavs" / wav}
            rows.append(
                Row(
                    id=str(images / image),
                    split=splits[image],
                    files={"image": images / image, **speech},
                    captions=without_blanks([captions.get(image, {}).get(number, "")]),
                    speaker=speakers.get(wav),
                )
            )
    if empty:
        note(
            f"flickr8k-spoken: wavs without samples: {len(empty)}, such as {min(empty)}; their rows go on without them"
        )
    return rows


def _captions_and_splits(root: Path) -> tuple[Captions, dict[str, str]]:
    """The captions, and the split of every image that has one, in the order of the files."""
    token, karpathy = optional_file(root, TOKEN_NAMES), optional_file(root, KARPATHY_NAMES)
    if token is None and karpathy is None:
        raise XmrError(f"{root}: neither Flickr8k.token.txt nor dataset_flickr8k.json in it; give Flickr8k's folder")
    captions = _token_captions(token) if token else {}
    splits = dict(_listed_splits(token.parent)) if token else {}
    if karpathy and not (captions and splits):
        images = list(karpathy_images(karpathy))
        captions = captions or {image.file: dict(enumerate(image.captions)) for image in images}
        splits = splits or {image.file: image.split for image in images}
    if not splits:
        lists = ", ".join(SPLIT_FILES.values())
        raise XmrError(f"{root}: no splits in it; put {lists} or dataset_flickr8k.json there")
    return captions, splits


def _token_captions(path: Path) -> Captions:
    """Of lines `<image>#<number>\\t<caption>`."""
    captions: Captions = defaultdict(dict)
    for where, line in text_lines(path):
        if line.strip():
            name, tab, caption = line.partition("\t")
            image, _, number = name.rpartition("#")
            if not (tab and image and number.isdecimal()):
                raise XmrError(f"{where}: {line[:40]!r} found, <image>#<number>, a tab and a caption expected")
            captions[image][int(number)] = caption
    return captions


def _listed_splits(folder: Path) -> Iterator[tuple[str, str]]:
    """Image and split, of files with one image a line."""
    for split, name in SPLIT_FILES.items():
        if (folder / name).is_file():
            yield from ((line.strip(), split) for _, line in text_lines(folder / name) if line.strip())


def _spoken_captions(path: Path) -> Iterator[tuple[str, str, int]]:
    """Wav, image and number of the caption, of lines `<wav> <image> #<number>`."""
    for where, line in text_lines(path):
        if line.strip():
            match line.split():
                case [wav, image, number] if number.startswith("#") and number[1:].isdecimal():
                    yield wav, image, int(number[1:])
                case _:
                    raise XmrError(f"{where}: {line[:40]!r} found, <wav> <image> #<number> expected")


def _speakers(path: Path) -> Iterator[tuple[str, str]]:
    """Wav and speaker, of lines `<wav> <speaker>`; the file may be absent."""
    for where, line in text_lines(path) if path.is_file() else ():
        if line.strip():
            match line.split():
                case [wav, speaker]:
                    yield wav, speaker
                case _:
                    raise XmrError(f"{where}: {line[:40]!r} found, <wav> <speaker> expected")


def _empty_wavs(folder: Path) -> list[str]:
    """The wavs that are no longer than their header."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file() and entry.stat().st_size <= EMPTY_WAV)
