"""From files to arrays. MODALITIES is the table of what can be embedded: a new one is a file here and a line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.media import image, sound, text
from xmr.engine.media.piece import Loaded, Piece

__all__ = ["MODALITIES", "Loaded", "Modality", "Piece", "medium_of"]


@dataclass(frozen=True)
class Modality:
    """How one modality is read. `load(path, preprocessing)` gives pieces; `batch` makes one array of their arrays."""

    medium: str  # what a file holds: image, audio, text
    suffixes: frozenset[str]
    preprocessing: type[Any]  # the settings of `load`, as they stand in config.json
    load: Callable[[Path, Any], Loaded]
    batch: Callable[[list[NDArray[Any]]], NDArray[Any]]


MODALITIES = {
    "image": Modality("image", image.SUFFIXES, image.Preprocessing, image.load, np.stack),
    "sound": Modality("audio", sound.SUFFIXES, sound.Preprocessing, sound.load, np.stack),
    "speech": Modality("audio", sound.SUFFIXES, sound.Preprocessing, sound.load, np.stack),
    "text": Modality("text", text.SUFFIXES, text.Preprocessing, text.load, text.pad),
}


def medium_of(path: Path) -> str | None:
    """The medium that a file's suffix promises, or None."""
    suffix = path.suffix.lower()
    return next((modality.medium for modality in MODALITIES.values() if suffix in modality.suffixes), None)
