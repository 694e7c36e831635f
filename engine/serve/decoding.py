"""What is done with one file in a process of its own: windows for an encoder, a small picture, a waveform."""

import io
import json
import resource
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Content, Piece, Reading
from xmr.engine.media.decode import MEMORY_BYTES, Task, draw, start, told_as_mistakes

if TYPE_CHECKING:
    from PIL import Image

MAX_WINDOWS = 256  # of a file that is asked with
WAVE_HZ = 8000  # that a waveform is drawn from
WINDOW_S = 10.0  # of a sound that are decoded at once
MAX_WHOLE_S = 60.0  # of a sound that is looked into as a whole
QUALITY = 82  # of a JPEG

Span = tuple[float | None, float | None]  # seconds of a file


def begin() -> None:
    """Ctrl-C is the server's, and memory has an end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def pieces(path: Path, modality: str, preprocessing: Any) -> list[Piece]:
    """What the encoder takes of a file; XmrError where that is nothing, or too much for a question."""
    task = Task(path, modality)
    found = list(islice(draw(start(task, preprocessing), task), MAX_WINDOWS + 1))
    if not found:
        raise XmrError("nothing in this file that the model can embed; ask with another one")
    if len(found) > MAX_WINDOWS:
        raise XmrError(f"a file of more than {MAX_WINDOWS} windows or pictures found; cut it to what it is about")
    return found


def thumbnail(content: Content, medium: str, start_s: float | None, size: int) -> bytes:
    """A JPEG of a picture, or of what a video shows at a second, at most `size` pixels long."""
    from PIL import Image

    picture = picture_of(content, medium, start_s, size)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def picture_of(content: Content, medium: str, start_s: float | None, size: int | None = None) -> "Image.Image":
    """A picture as it is seen, at least of `size` where it is; or what a video shows at a second."""
    from PIL import ImageOps

    from xmr.engine.media import image, video

    if medium == "video":
        return video.picture_at(content, start_s or 0.0)
    with told_as_mistakes(Task(content, "image")), content.open() as file, image.opened(file, content) as found:
        if found.width * found.height >= image.MAX_PIXELS:
            raise XmrError(f"{found.width}x{found.height} pixels are too many to be shown here; open the file")
        if size is not None:
            found.draft("RGB", (2 * size, 2 * size))
        return image.to_rgb(ImageOps.exif_transpose(found))


def write_plain(content: Content, medium: str, modality: str, span_s: Span, rate_hz: int, path: Path) -> float:
    """Write what an item is of its file where nothing can be wrong with it any more: a picture as BMP, a sound as WAV.

    A short sound is written whole, of a long one the item's seconds. Gives the second of the file at which it begins.
    """
    import soundfile

    if MODALITIES[modality].medium == "image":
        picture_of(content, medium, span_s[0]).save(path, "BMP")
        return 0.0
    samples, first_s = _stretch(content, span_s, rate_hz)
    if not len(samples):
        raise XmrError("no sound there; choose another item")
    soundfile.write(path, samples, rate_hz, "FLOAT", format="WAV")
    return first_s


def _stretch(content: Content, span_s: Span, rate_hz: int) -> tuple[NDArray[np.float32], float]:
    """(t,) a short sound as a whole, of a long one the seconds asked for; and the second at which that begins.

    No more is decoded than is needed, and no more held.
    """
    start, end = (None if second is None else round(second * rate_hz) for second in span_s)
    held, n_passed = np.zeros(0, dtype=np.float32), 0
    for block in _blocks(content, rate_hz):
        held = np.concatenate([held, block])
        if n_passed + len(held) <= MAX_WHOLE_S * rate_hz or start is None or end is None:
            continue
        n_before = min(max(0, start - n_passed), len(held))
        held, n_passed = held[n_before:], n_passed + n_before
        if n_passed + len(held) >= end:
            return held[: end - n_passed], n_passed / rate_hz
    return held, n_passed / rate_hz


def peaks(content: Content, n: int) -> tuple[list[list[float]], float]:
    """n pairs of the lowest and highest sample, evenly over what is heard in a file, and its seconds."""
    samples = np.concatenate([np.zeros(0, dtype=np.float32), *_blocks(content, WAVE_HZ)])
    if not len(samples):
        raise XmrError("no sound in this file; choose another one")
    edges = np.linspace(0, len(samples), min(n, len(samples)), endpoint=False).astype(int)
    both = np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)], axis=1)
    pairs = [[round(float(low), 3), round(float(high), 3)] for low, high in both]
    return pairs, round(len(samples) / WAVE_HZ, 3)


def _blocks(content: Content, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """(t,) of samples, one after the other: all that is heard in a file, silence where nothing is."""
    from xmr.engine.media import sound

    how = sound.Preprocessing(rate_hz=rate_hz, window_s=WINDOW_S, hop_s=WINDOW_S, fill="silence")
    opened = MODALITIES["sound"].stream(content, how, Reading(overlap=0))
    end_s = 0.0
    for piece in opened.pieces:
        n_known = round((end_s - (piece.start_s or 0.0)) * rate_hz)  # the last window begins inside the one before
        n_heard = round(((piece.end_s or 0.0) - (piece.start_s or 0.0)) * rate_hz)
        yield np.zeros(max(0, -n_known), dtype=np.float32)
        yield piece.array[max(0, n_known) : n_heard]
        end_s = piece.end_s or 0.0


def peaks_json(content: Content, n: int) -> bytes:
    """As a client reads them."""
    found, duration_s = peaks(content, n)
    return json.dumps({"peaks": found, "duration_s": duration_s}).encode()


def waveform_png(found: list[list[float]], height: int = 64) -> bytes:
    """Peaks drawn on nothing, a column each."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (len(found), height), (0, 0, 0, 0))
    drawing = ImageDraw.Draw(picture)
    loudest = max(1e-6, *(max(-low, high) for low, high in found))
    for column, (low, high) in enumerate(found):
        top, bottom = ((1 - level / loudest) * (height - 1) / 2 for level in (high, low))
        drawing.line([(column, top), (column, bottom)], (96, 112, 128, 255))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
