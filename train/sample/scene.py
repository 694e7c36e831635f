"""A picture of one concept: what is in it (a Scene, which captions are written from) and how it is painted."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from xmr.train.sample.concepts import CONCEPTS
from xmr.train.sample.pen import WHITE, Colour, Paint, Pen

Mask = NDArray[np.float64] | NDArray[np.bool_]  # (rows, columns) in 0..1

IMAGE_SIZE = 96  # pixels
OVERSAMPLING = 3  # painted larger, then averaged down

COLOURS: dict[str, Colour] = {
    "red": (214, 48, 49),
    "orange": (238, 132, 40),
    "yellow": (245, 205, 56),
    "green": (62, 158, 84),
    "turquoise": (52, 184, 180),
    "blue": (54, 104, 204),
    "purple": (132, 76, 178),
    "pink": (238, 130, 176),
    "brown": (134, 88, 56),
    "grey": (134, 138, 146),
    "black": (52, 52, 60),
    "white": (240, 238, 230),
}
PATTERNS = ("plain", "fading", "striped", "chequered", "dotted", "speckled", "horizon")
TONES = {"pale": 0.62, "full": 0.0, "dark": 0.6}  # how far a background goes toward white or night
MIN_CONTRAST = 120  # Euclidean distance between a drawing's colour and its background's, in RGB


@dataclass(frozen=True)
class Scene:
    """What can be said about a picture."""

    label: str
    colour: str  # of the drawing, a key of COLOURS
    pattern: str  # of the background
    background: str  # its colour
    tone: str  # of the background, a key of TONES
    size: float  # half of the drawing's width, as a fraction of the image's
    x: float  # of the drawing's centre, 0 to 1 from the left
    y: float  # 0 to 1 from the top


def imagine(label: str, rng: Generator) -> Scene:
    """Choose what the picture of a concept shows."""
    colour = str(rng.choice(CONCEPTS[label].colours or list(COLOURS)))
    grounds = _grounds(colour)
    background, tone = grounds[int(rng.integers(len(grounds)))]
    size = float(rng.uniform(0.2, 0.44))
    x, y = rng.uniform(size, 1 - size, 2).tolist()
    return Scene(label, colour, str(rng.choice(PATTERNS)), background, tone, size, x, y)


def paint(scene: Scene, rng: Generator) -> Image.Image:
    """Paint a scene: what it leaves open (turn, stretch, outline, clutter, grain) is chosen here."""
    image = _backdrop(scene, rng)
    canvas = ImageDraw.Draw(image)
    _scatter(canvas, rng)
    ground, main = _tinted(scene.background, scene.tone), _jittered(COLOURS[scene.colour], rng)
    pen = Pen(
        canvas,
        x=scene.x * image.width,
        y=scene.y * image.height,
        scale=_stretched(scene.size * image.width * 0.95, rng),
        turn=float(np.radians(rng.normal(0, 7))),
        # a light outline where a dark one would be lost
        edge=WHITE if sum(ground) < 240 and sum(main) < 560 else _mixed(main, (0, 0, 0), 0.75),
        edge_width=float(rng.choice([0.035, 0.05, 0.07])),
    )
    CONCEPTS[scene.label].draw(pen, _palette(main, pen.edge, rng), rng)
    return _grained(image.reduce(OVERSAMPLING), rng)


@cache
def _grounds(colour: str) -> list[tuple[str, str]]:
    """Backgrounds, as colour and tone, on which a colour shows."""
    grounds = [(name, tone) for name in COLOURS for tone in TONES if tone == "full" or name not in ("black", "white")]
    return [ground for ground in grounds if math.dist(COLOURS[colour], _tinted(*ground)) > MIN_CONTRAST]


def _palette(main: Colour, edge: Colour, rng: Generator) -> Paint:
    return Paint(
        main=main,
        dark=_mixed(main, (0, 0, 0), rng.uniform(0.25, 0.45)),
        light=_mixed(main, (255, 255, 255), rng.uniform(0.35, 0.55)),
        ink=_mixed(main, (0, 0, 0), 0.82),
        edge=edge,
        accent=COLOURS[str(rng.choice(list(COLOURS)))],
    )


def _stretched(scale: float, rng: Generator) -> tuple[float, float]:
    across, down = scale * rng.uniform(0.88, 1.0, 2)
    return float(across * rng.choice([-1, 1])), float(down)


def _backdrop(scene: Scene, rng: Generator) -> Image.Image:
    """The background alone: its colour, and a second one where the pattern says so."""
    first = _jittered(_tinted(scene.background, scene.tone), rng)
    second = _mixed(first, (255, 255, 255) if sum(first) < 380 else (0, 0, 0), rng.uniform(0.18, 0.3))
    mask = Image.fromarray((_pattern(scene.pattern, rng) * 255).astype(np.uint8))
    size = (IMAGE_SIZE * OVERSAMPLING, IMAGE_SIZE * OVERSAMPLING)
    smooth = mask.resize(size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", size, second), Image.new("RGB", size, first), smooth)


def _pattern(name: str, rng: Generator) -> Mask:
    """The share of the second colour, over the whole image."""
    x = np.linspace(0, 1, IMAGE_SIZE)
    y, angle = x[:, None], rng.uniform(0, 2 * np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    n_repeats = rng.uniform(4, 8)
    match name:
        case "fading":
            return np.asarray((u - u.min()) / (u.max() - u.min()))
        case "striped":
            return np.asarray(u * n_repeats % 1 > 0.5)
        case "chequered":
            return np.asarray((u * n_repeats % 1 > 0.5) ^ (v * n_repeats % 1 > 0.5))
        case "dotted":
            return np.asarray(np.hypot(u * n_repeats % 1 - 0.5, v * n_repeats % 1 - 0.5) < 0.3)
        case "speckled":
            return rng.random((IMAGE_SIZE // 2, IMAGE_SIZE // 2))
        case "horizon":
            return np.asarray(np.broadcast_to(y > rng.uniform(0.5, 0.8), u.shape))
    return np.zeros((IMAGE_SIZE, IMAGE_SIZE))


def _scatter(canvas: ImageDraw.ImageDraw, rng: Generator) -> None:
    """Small shapes that mean nothing."""
    width = IMAGE_SIZE * OVERSAMPLING
    for _ in range(int(rng.integers(0, 6))):
        (x, y), radius = rng.uniform(0, width, 2).tolist(), width * rng.uniform(0.015, 0.04)
        colour = _jittered(COLOURS[str(rng.choice(list(COLOURS)))], rng)
        sides, turn = int(rng.choice([3, 4, 12])), int(rng.integers(360))
        canvas.regular_polygon((x, y, radius), sides, rotation=turn, fill=colour)


def _grained(image: Image.Image, rng: Generator) -> Image.Image:
    grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * rng.uniform(1, 9)
    pixels = np.asarray(image, dtype=np.float32) * rng.uniform(0.85, 1.05) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _tinted(name: str, tone: str) -> Colour:
    toward: Colour = (255, 255, 255) if tone == "pale" else (16, 18, 30)
    return _mixed(COLOURS[name], toward, TONES[tone])


def _jittered(colour: Colour, rng: Generator) -> Colour:
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, 9, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue
