"""Images: any file Pillow reads whole -> (size, size, 3) uint8 RGB. Scaling the pixels is the network's first layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.piece import Loaded, Piece

if TYPE_CHECKING:  # a query in words starts without it
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000
MAX_BYTES = 64_000_000
EXIF_ORIENTATION = 0x0112
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations at which width and height change places

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a square of pixels; bicubic, as the pretrained encoders expect."""

    size: int = 224  # pixels, each side
    resize: Literal["squash", "crop"] = "squash"  # the whole picture, or its centre square
    margin: float = 0.0  # share of the centre square's side that crop cuts off on every side


def load(path: Path, preprocessing: Preprocessing) -> Loaded:
    """The picture as one piece. A file that is too large, cut short or no picture raises XmrError."""
    from PIL import Image, UnidentifiedImageError

    n_bytes = path.stat().st_size
    if n_bytes > MAX_BYTES:
        raise XmrError(
            f"{path}: {n_bytes / 1e6:.0f} MB found, images up to {MAX_BYTES / 1e6:.0f} MB are read; make it smaller"
        )
    try:
        with Image.open(path) as picture:
            return Loaded([Piece(to_square(picture, preprocessing, path))])
    except (FileNotFoundError, PermissionError):
        raise
    except UnidentifiedImageError:
        raise XmrError(f"{path}: no image that Pillow can read; convert it to JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise XmrError(f"{path}: damaged image ({error}); replace the file") from None


def to_square(picture: "Image.Image", preprocessing: Preprocessing, path: Path) -> Pixels:
    """(size, size, 3) uint8 of an opened picture: upright, RGB, resized as the model was trained."""
    from PIL import Image, ImageOps

    if picture.width * picture.height >= MAX_PIXELS:
        raise XmrError(
            f"{path}: {picture.width}x{picture.height} pixels found, less than {MAX_PIXELS / 1e6:.0f} Mpx are read; "
            "make it smaller"
        )
    size = (preprocessing.size, preprocessing.size)
    # lets the JPEG decoder halve the picture while it decodes; at twice the size the difference is not visible
    n_drafted = round(2 * preprocessing.size / (1 - 2 * preprocessing.margin))
    picture.draft("RGB", (n_drafted, n_drafted))
    rgb = to_rgb(ImageOps.exif_transpose(picture))
    if preprocessing.resize == "crop":
        # of both sides of the picture, which leaves the same centre square as a share of the shorter one
        rgb = ImageOps.fit(rgb, size, Image.Resampling.BICUBIC, bleed=preprocessing.margin)
    elif rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(rgb, dtype=np.uint8)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the picture, which its file may hold on its side."""
    from PIL import Image

    with Image.open(path) as picture:
        width, height = picture.size
        is_on_its_side = picture.getexif().get(EXIF_ORIENTATION) in ON_ITS_SIDE
    return (height, width) if is_on_its_side else (width, height)


def to_rgb(picture: "Image.Image") -> "Image.Image":
    """As networks see it: 8 bits, white where it can be seen through."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")
