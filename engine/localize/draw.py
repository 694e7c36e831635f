"""Heat drawn over a picture, or behind the waveform of a sound, as a PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.files import write_whole
from xmr.engine.localize.heat import Heat, PictureHeat, SoundHeat
from xmr.engine.media.image import to_rgb

SHORT, LONG = 480, 1600  # pixels of a drawn picture's longer side, at least and at most
OPACITY = 0.75  # of the hottest place
# from cold to hot, evenly spaced: each lighter than the one before, so that it reads in print and by colour-blind eyes
COLOURS = np.array(
    [(13, 8, 52), (72, 18, 112), (148, 36, 118), (214, 66, 84), (246, 128, 44), (252, 196, 60), (252, 248, 172)],
    dtype=np.float32,
)
MARK, SHADE = (255, 255, 255), (0, 0, 0)
SOUND_SIZE = 1000, 240  # pixels
AXIS = 24  # pixels below the waveform
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
MAX_TICKS = 12


def check_out(out: Path, given: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse before any work a PNG that could not be written, or would replace what is there or is looked at."""
    if out.suffix.lower() != ".png" or out.resolve() in [path.resolve() for path in given]:
        raise UsageError(f"--out {out}: a PNG of another name than the given files' is written; name one, as heat.png")
    if not out.parent.is_dir():
        raise XmrError(f"{out.parent}: no such folder; make it, or choose another --out")
    if out.is_dir():
        raise XmrError(f"{out}: a folder has the name of a file to write; choose another --out")
    if out.exists() and not overwrite:
        raise XmrError(f"{out}: exists already; replace it with --overwrite, or choose another --out")


def draw(path: Path, heat: Heat, out: Path) -> None:
    """Write a PNG of what was looked into, the file at `path`, with its heat."""
    if isinstance(heat, PictureHeat):
        draw_picture(path, heat, out)
        return
    draw_sound(heat, out)


def draw_picture(picture_path: Path, heat: PictureHeat, out: Path) -> None:
    """Write the picture, upright and 480 to 1600 pixels long, its hot places coloured, with point and box."""
    with Image.open(picture_path) as opened:
        opened.draft("RGB", (LONG, LONG))
        picture = to_rgb(ImageOps.exif_transpose(opened))
    factor = min(max(max(heat.size), SHORT), LONG) / max(heat.size)
    width, height = (max(1, round(factor * side)) for side in heat.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    zoom = width / heat.size[0], height / heat.size[1]
    covered = [round(edge) for edge in _edges(_zoomed(heat.area, zoom))]
    left, top, right, bottom = covered
    layer = coloured(stretched(_resized(heat.values, (max(1, right - left), max(1, bottom - top)))))
    picture.paste(layer.convert("RGB"), (left, top), layer.getchannel("A"))
    _mark(picture, _edges(_zoomed(heat.box, zoom)), (heat.point[0] * zoom[0], heat.point[1] * zoom[1]))
    write_whole(out, lambda file: picture.save(file, "PNG"))


def draw_sound(heat: SoundHeat, out: Path) -> None:
    """Write the waveform of the sound over the colours of its heat, the hottest second marked, and a scale."""
    width, height = SOUND_SIZE
    duration_s = heat.duration_s
    strip = colours(_over_time(stretched(heat.values), heat.spans_s, duration_s, width))
    picture = Image.new("RGB", (width, height + AXIS), SHADE)
    picture.paste(Image.fromarray(np.repeat(strip[None], height, axis=0)), (0, 0))
    drawing = ImageDraw.Draw(picture)
    wave = _envelope(heat.samples, width).tolist()
    for colour, width_of_line, more in ((SHADE, 3, 2), (MARK, 1, 0)):
        for column, (low, high) in enumerate(wave):
            ends = (1 - high) * height / 2 - more, (1 - low) * height / 2 + more
            drawing.line([(column, ends[0]), (column, ends[1])], colour, width=width_of_line)
    hottest = heat.seconds / duration_s * (width - 1)
    drawing.line([(hottest, 0), (hottest, height)], SHADE, width=3)
    drawing.line([(hottest, 0), (hottest, height)], MARK)
    for second in _ticks(duration_s):
        drawing.text((second / duration_s * (width - 1) + 2, height + 6), f"{second:g} s", MARK)
    write_whole(out, lambda file: picture.save(file, "PNG"))


def stretched(heat: NDArray[Any]) -> NDArray[np.float32]:
    """The heat from 0, its coldest, to 1, its hottest; 0 where all of it is alike."""
    low, high = float(heat.min()), float(heat.max())
    return ((heat - low) / (high - low or 1)).astype(np.float32)


def colours(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(...) from 0 to 1 -> (..., 3) RGB, from dark blue over red to pale yellow."""
    place = heat.clip(0, 1) * (len(COLOURS) - 1)
    below = np.floor(place).astype(int).clip(max=len(COLOURS) - 2)
    share = (place - below)[..., None]
    mixed: NDArray[np.uint8] = np.rint((1 - share) * COLOURS[below] + share * COLOURS[below + 1]).astype(np.uint8)
    return mixed


def coloured(heat: NDArray[np.float32]) -> Image.Image:
    """(h, w) from 0 to 1 as an RGBA layer: what is cold can be seen through."""
    opacity = np.rint(255 * OPACITY * heat.clip(0, 1)).astype(np.uint8)
    return Image.fromarray(np.concatenate([colours(heat), opacity[..., None]], axis=-1))


def _resized(heat: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) -> (height, width) of a size, bilinear."""
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _mark(picture: Image.Image, box: tuple[float, ...], point: tuple[float, float]) -> None:
    """Outlines in white on black, which show on any picture."""
    drawing = ImageDraw.Draw(picture)
    unit = max(1, round(max(picture.size) / 400))
    radius = 5 * unit
    ring = (point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius)
    inside = (min(box[2], picture.width) - 1, min(box[3], picture.height) - 1)
    for colour, width in ((SHADE, 3 * unit), (MARK, unit)):
        drawing.rectangle((box[0], box[1], max(box[0], inside[0]), max(box[1], inside[1])), outline=colour, width=width)
        drawing.ellipse(ring, outline=colour, width=width)


def _zoomed(area: tuple[float, ...], zoom: tuple[float, float]) -> tuple[float, ...]:
    x, y, width, height = area
    return x * zoom[0], y * zoom[1], width * zoom[0], height * zoom[1]


def _edges(area: tuple[float, ...]) -> tuple[float, ...]:
    """x, y, width, height -> left, top, right, bottom."""
    x, y, width, height = area
    return x, y, x + width, y + height


def _over_time(heat: NDArray[np.float32], spans_s: NDArray[np.float64], duration_s: float, n: int) -> NDArray[Any]:
    """(t,) and when each begins and ends -> (n,) evenly over the sound."""
    seconds = (np.arange(n) + 0.5) * duration_s / n
    return np.interp(seconds, spans_s.mean(axis=1), heat).astype(np.float32)


def _envelope(samples: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """(n, 2): the lowest and highest sample of each part, the loudest of all being 1."""
    padded = np.resize(samples, max(n, len(samples)))
    edges = np.linspace(0, len(padded), n, endpoint=False).astype(int)
    both = np.stack([np.minimum.reduceat(padded, edges), np.maximum.reduceat(padded, edges)], axis=1)
    return (both / max(float(np.abs(both).max()), 1e-9)).astype(np.float32)


def _ticks(duration_s: float) -> list[float]:
    """Round seconds from 0 on, at most MAX_TICKS of them."""
    step = next((step for step in TICKS_S if duration_s / step <= MAX_TICKS), TICKS_S[-1])
    return [place * step for place in range(math.ceil(duration_s / step))]
