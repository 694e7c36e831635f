"""Images: files that Pillow reads whole -> (size, size, 3) uint8 RGB. Scaling the pixels is the network's first layer.

The size that a header tells is checked before anything is decoded. HEIC needs pillow-heif.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media.content import Content
from xmr.engine.media.piece import Loaded, Piece
from xmr.engine.media.reading import Reading

if TYPE_CHECKING:  # a query in words starts without it
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif"})
HEIF = "HEIF"
# of all that Pillow knows: some of the others run a program, or decode before they tell the size
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "PPM", HEIF)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BAND_PIXELS = 4_000_000  # of a picture that are made RGB at once
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


def load(content: Content | Path, preprocessing: Preprocessing, reading: Reading | None = None) -> Loaded:
    """The picture as one piece. A file that is too large, cut short or no picture raises XmrError."""
    from PIL import Image, UnidentifiedImageError

    content = Content.of(content)
    if content.n_bytes > MAX_BYTES:
        raise XmrError(
            f"{content}: {content.n_bytes / 1e6:.0f} MB found, images up to {MAX_BYTES / 1e6:.0f} MB are read; make it "
            "smaller"
        )
    with content.open() as file:
        try:
            with opened(file, content) as picture:
                return Loaded([Piece(to_square(picture, preprocessing, content))])
        except UnidentifiedImageError:
            raise XmrError(f"{content}: no image that Pillow can read; convert it to JPEG or PNG") from None
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise XmrError(f"{content}: damaged image ({error}); replace the file") from None


def opened(file: BinaryIO, content: Content) -> "Image.Image":
    """The picture that a file holds, whatever its suffix says; its pixels are not decoded yet."""
    from PIL import Image

    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and content.suffix != ".avif":
        _know_heif(content)
    with warnings.catch_warnings():
        # of large pictures, which are refused a moment later, and of tags that are left out
        warnings.simplefilter("ignore")
        return Image.open(file, formats=FORMATS if HEIF in Image.OPEN else FORMATS[:-1])


def _know_heif(content: Content) -> None:
    """Have Pillow read HEIC."""
    try:
        import pillow_heif
    except ModuleNotFoundError:
        raise XmrError(
            f'{content}: HEIC is read by pillow-heif, which is missing; run `pip install "xmr[heic]"` or convert it'
        ) from None
    pillow_heif.register_heif_opener()


def to_square(picture: "Image.Image", preprocessing: Preprocessing, name: object) -> Pixels:
    """(size, size, 3) uint8 of an opened picture: upright, RGB, resized as the model was trained."""
    from PIL import ImageOps

    if picture.width * picture.height >= MAX_PIXELS:
        raise XmrError(
            f"{name}: {picture.width}x{picture.height} pixels found, less than {MAX_PIXELS / 1e6:.0f} Mpx are read; "
            "make it smaller"
        )
    # lets the JPEG decoder halve the picture while it decodes; at twice the size the difference is not visible
    n_drafted = round(2 * preprocessing.size / (1 - 2 * preprocessing.margin))
    picture.draft("RGB", (n_drafted, n_drafted))
    ImageOps.exif_transpose(picture, in_place=True)
    return squared(to_rgb(picture), preprocessing)


def squared(rgb: "Image.Image", preprocessing: Preprocessing) -> Pixels:
    """(size, size, 3) uint8 of an upright picture in RGB, resized as the model was trained."""
    from PIL import Image, ImageOps

    size = (preprocessing.size, preprocessing.size)
    if preprocessing.resize == "crop":
        # of both sides of the picture, which leaves the same centre square as a share of the shorter one
        rgb = ImageOps.fit(rgb, size, Image.Resampling.BICUBIC, bleed=preprocessing.margin)
    elif rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(rgb, dtype=np.uint8)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the picture, which its file may hold on its side."""
    content = Content(path)
    with content.open() as file, opened(file, content) as picture:
        width, height = picture.size
        is_on_its_side = picture.getexif().get(EXIF_ORIENTATION) in ON_ITS_SIDE
    return (height, width) if is_on_its_side else (width, height)


def to_rgb(picture: "Image.Image") -> "Image.Image":
    """As networks see it: 8 bits, white where it can be seen through."""
    from PIL import Image

    width, height = picture.size
    picture.load()
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if width * height <= BAND_PIXELS:
        return _rgb_of(picture)
    rgb = Image.new("RGB", picture.size)  # band by band, for a copy of a large picture in every step is too much
    n_rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, n_rows):
        rgb.paste(_rgb_of(picture.crop((0, top, width, min(height, top + n_rows)))), (0, top))
    return rgb


def _rgb_of(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")
