"""What is done with one file in a process of its own: windows for an encoder, a small picture, a waveform."""

import io
import json
import resource
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Content, Reading, medium_of
from xmr.engine.media.decode import MEMORY_BYTES, Task, draw, start

MAX_WINDOWS = 256  # of a file that is asked with
FRAME_PIXELS = 512  # of a picture taken from a video, each side
WAVE = (8000, 10.0)  # samples a second and seconds at once that a waveform is drawn from
QUALITY = 82  # of a JPEG


def begin() -> None:
    """Ctrl-C is the server's, and memory has an end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def windows(path: Path, modality: str, preprocessing: Any) -> list[NDArray[Any]]:
    """What the encoder takes of a file; XmrError where that is nothing, or too much for a question."""
    task = Task(path, modality)
    pieces = draw(start(task, preprocessing), task)
    found = [piece.array for piece in islice(pieces, MAX_WINDOWS + 1)]
    if not found:
        raise XmrError("nothing in this file that the model can embed; ask with another one")
    if len(found) > MAX_WINDOWS:
        raise XmrError(f"a file of more than {MAX_WINDOWS} windows or pictures found; cut it to what it is about")
    return found


def thumbnail(content: Content, start_s: float | None, size: int) -> bytes:
    """A JPEG of a picture, or of what a video shows at a second, at most `size` pixels long."""
    from PIL import Image, ImageOps

    from xmr.engine.media import image

    if medium_of(content.path) == "video":
        picture = _frame(content, start_s or 0.0)
    else:
        with content.open() as file, image.opened(file, content) as found:
            if found.width * found.height >= image.MAX_PIXELS:
                raise XmrError(f"{found.width}x{found.height} pixels are too many for a small picture; open the file")
            found.draft("RGB", (2 * size, 2 * size))
            picture = image.to_rgb(ImageOps.exif_transpose(found))
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _frame(content: Content, start_s: float) -> Any:
    """The first picture from a second on, or the last one."""
    from xmr.engine.media.container import decoded, opened
    from xmr.engine.media.video import _check_size, _track, _upright

    with opened(content) as container:
        track = _track(container, content)
        _check_size(track.width, track.height, content)
        container.seek(max(0, int(start_s * 1_000_000)))
        frame = None
        for frame in decoded(container, track):
            if frame.time is not None and frame.time >= start_s - 1e-3:
                break
        if frame is None:
            raise XmrError("no picture there; choose another second")
        return _upright(frame)


def peaks(content: Content, n: int) -> tuple[list[list[float]], float]:
    """n pairs of the lowest and highest sample, evenly over what is heard in a file, and its seconds."""
    from xmr.engine.media import sound

    rate_hz, window_s = WAVE
    how = sound.Preprocessing(rate_hz=rate_hz, window_s=window_s, hop_s=window_s, fill="silence")
    opened = MODALITIES["sound"].stream(content, how, Reading(overlap=0))
    blocks: list[NDArray[np.float32]] = []
    end_s = 0.0
    for piece in opened.pieces:
        n_known = round((end_s - (piece.start_s or 0.0)) * rate_hz)  # the last window begins inside the one before
        n_heard = round(((piece.end_s or 0.0) - (piece.start_s or 0.0)) * rate_hz)
        blocks += [np.zeros(max(0, -n_known), dtype=np.float32), piece.array[max(0, n_known) : n_heard]]
        end_s = piece.end_s or 0.0
    samples = np.concatenate(blocks)
    if not len(samples):
        raise XmrError("no sound in this file; choose another one")
    edges = np.linspace(0, len(samples), min(n, len(samples)), endpoint=False).astype(int)
    both = np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)], axis=1)
    return [[round(float(low), 3), round(float(high), 3)] for low, high in both], round(end_s, 3)


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
