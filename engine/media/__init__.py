"""From files to arrays. MODALITIES is the table of what can be embedded: a new one is a file here and a line."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.media import image, sound, text, video
from xmr.engine.media.content import Content
from xmr.engine.media.piece import Loaded, Piece, Stream
from xmr.engine.media.reading import Reading

__all__ = [
    "MODALITIES",
    "SUFFIXES",
    "Content",
    "Loaded",
    "Modality",
    "Piece",
    "Reading",
    "Stream",
    "media_of",
    "medium_of",
    "modalities_of",
]

Read = Callable[[Content, Any, Reading | None], Loaded | Stream]

SUFFIXES = {"image": image.SUFFIXES, "audio": sound.SUFFIXES, "video": video.SUFFIXES, "text": text.SUFFIXES}


@dataclass(frozen=True)
class Modality:
    """How one modality is read, by the medium of the file. `batch` makes one array of the arrays of pieces."""

    medium: str  # what a file of it alone holds: image, audio, text
    read: Mapping[str, Read]
    preprocessing: type[Any]  # the settings of `read`, as they stand in config.json
    batch: Callable[[list[NDArray[Any]]], NDArray[Any]]

    @property
    def suffixes(self) -> frozenset[str]:
        """Of all files that it is read from."""
        return frozenset[str]().union(*(SUFFIXES[medium] for medium in self.read))

    def stream(self, content: Content | Path, preprocessing: Any, reading: Reading | None = None) -> Loaded | Stream:
        """Open a file as this modality; of a long one the pieces come while they are drawn. Raises XmrError.

        Without a `reading` sounds are cut as the model was trained, and all else as Reading does by itself.
        """
        content = Content.of(content)
        read = self.read.get(medium_of(content.path) or self.medium, self.read[self.medium])
        return read(content, preprocessing, reading)

    def load(self, content: Content | Path, preprocessing: Any, reading: Reading | None = None) -> Loaded:
        """The whole file at once; raises XmrError."""
        found = self.stream(content, preprocessing, reading)
        return found if isinstance(found, Loaded) else found.read()


HEARD: dict[str, Read] = {"audio": sound.stream, "video": video.sounds}

MODALITIES = {
    "image": Modality("image", {"image": image.load, "video": video.frames}, image.Preprocessing, np.stack),
    "sound": Modality("audio", HEARD, sound.Preprocessing, np.stack),
    "speech": Modality("audio", HEARD, sound.Preprocessing, np.stack),
    "text": Modality("text", {"text": text.stream}, text.Preprocessing, text.pad),
}


def medium_of(path: Path) -> str | None:
    """The medium that a file's suffix promises, or None: image, audio, video, text."""
    suffix = path.suffix.lower()
    return next((medium for medium, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def media_of(modalities: Iterable[str]) -> set[str]:
    """The media whose files hold something of these modalities."""
    return {medium for name in modalities for medium in MODALITIES[name].read}


def modalities_of(modalities: Iterable[str], medium: str) -> list[str]:
    """Of these modalities those as which a file of this medium is read."""
    return [name for name in modalities if medium in MODALITIES[name].read]
