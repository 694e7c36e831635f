"""Where in a picture, and when in a sound, a query of any modality is found, by a model that keeps maps of either.

What an exported model keeps is, for each place of a picture or step of a sound, either its share in the embedding, or
the embedding of that place alone; `maps` in config.json says which. Either is held against the query's embedding; the
shares of a picture against those of each step of what is heard, where there are both.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import UsageError, XmrError
from xmr.engine.localize.draw import check_out, draw, draw_picture, draw_sound
from xmr.engine.localize.heat import (
    HOT_SHARE,
    Area,
    Choice,
    Corner,
    Heat,
    PictureHeat,
    Point,
    SoundHeat,
    box_of,
    heat_of,
    hot_region,
    hottest_cell,
    point_of,
)
from xmr.engine.media import MODALITIES, Piece, image, medium_of
from xmr.engine.media.decode import Task, decode
from xmr.engine.media.image import upright_size
from xmr.engine.model import BATCH_SIZE, Input, Model

__all__ = [
    "HOT_SHARE",
    "Area",
    "Choice",
    "Corner",
    "Heat",
    "PictureHeat",
    "Point",
    "SoundHeat",
    "area_of",
    "as_record",
    "box_of",
    "check_out",
    "draw",
    "draw_picture",
    "draw_sound",
    "heat_of",
    "hot_region",
    "hottest_cell",
    "localize",
    "localize_vector",
    "matched",
    "point_of",
    "spans_of",
    "target_modality",
]


def localize(model: Model, query_modality: str, query: Input, modality: str, path: Path | str) -> Heat:
    """Hold a query of any modality against every place of an image or a sound, the file at `path`.

    The steps of a sound or speech file are each held against an image, where the model gives the shares of both.
    XmrError where the model keeps no maps of what is looked into.
    """
    model.check_modality(query_modality)
    model.check_maps(modality)
    vector, heard = _asked(model, query_modality, query, modality)
    return _looked(model, vector, heard, modality, path)


def localize_vector(
    model: Model,
    vector: NDArray[np.float32],
    modality: str,
    path: Path | str,
    asked: tuple[str, list[Piece]] | None = None,
) -> Heat:
    """Hold an embedding (dim,), of whatever was asked, against every place of an image or a sound.

    `asked`: modality and pieces of the one file that was asked with, whose steps are used as `localize` does.
    XmrError where the model keeps no maps of what is looked into.
    """
    model.check_maps(modality)
    is_matched = asked is not None and _is_matched(model, asked[0], modality)
    return _looked(model, vector, _steps(model, *asked) if asked is not None and is_matched else None, modality, path)


def _looked(
    model: Model,
    vector: NDArray[np.float32],
    heard: tuple[NDArray[Any], NDArray[Any]] | None,
    modality: str,
    path: Path | str,
) -> Heat:
    pieces = _pieces(model, modality, path)
    score = float(vector @ _whole(model, modality, pieces))
    if MODALITIES[modality].medium == "audio":
        return _in_sound(model, modality, pieces, vector, score)
    [places] = _places(model, modality, pieces)
    heat, heard_s = (heat_of(places, vector), None) if heard is None else matched(places, *heard)
    size = upright_size(Path(path))
    area = area_of(size, model.preprocessing[modality])
    return PictureHeat(heat, score, size, area, point_of(heat, area), box_of(heat, area), heard_s)


def target_modality(model: Model, path: Path, wish: str | None = None) -> str:
    """What a file is looked into as: the wish, else the modality of its medium that the model keeps maps of."""
    medium = medium_of(path)
    if medium not in ("image", "audio"):
        raise XmrError(f"{path}: neither an image nor a sound by its suffix; convert it to JPEG, PNG, WAV or FLAC")
    fitting = [name for name in MODALITIES if MODALITIES[name].medium == medium]
    if wish is not None and wish not in fitting:
        raise UsageError(f"--as {wish}: {path} can be looked into as {' or '.join(fitting)}")
    known = [name for name in fitting if name in model.modalities] or fitting
    chosen = wish or next((name for name in known if name in model.mapped), known[0])
    model.check_maps(chosen)
    return chosen


def area_of(size: tuple[int, int], preprocessing: image.Preprocessing) -> Area:
    """What the network sees of an upright picture of (width, height) pixels: all of it, or its centre square."""
    width, height = size
    if preprocessing.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    side = min(width, height) * (1 - 2 * preprocessing.margin)
    return (width - side) / 2, (height - side) / 2, side, side


def spans_of(pieces: list[Piece], n_steps: int, window_s: float, first_s: float, step_s: float) -> NDArray[np.float64]:
    """(n_windows * n_steps, 2): when each step begins and ends, in seconds from the start of the sound.

    The middle of a window's first step is `first_s` from its start, and that of each other `step_s` behind the last.
    NaN marks steps that say nothing new: those whose middle is behind the end of a clip that does not fill its window,
    and those that the window before has covered. The others follow each other from the start of the sound to its end.
    """
    edges = (first_s + step_s * (np.arange(n_steps + 1) - 0.5)).clip(0, window_s)
    edges[0], edges[-1] = 0, window_s
    spans = np.full((len(pieces), n_steps, 2), np.nan)
    told_s = 0.0
    for span, piece in zip(spans, pieces, strict=True):
        assert piece.start_s is not None, "a window of a sound has its times"
        assert piece.end_s is not None
        middles = piece.start_s + (edges[1:] + edges[:-1]) / 2
        new = np.flatnonzero((middles > told_s) & (middles < piece.end_s))
        new = new if len(new) or told_s else np.zeros(1, dtype=int)
        span[new] = np.stack([edges[new], edges[new + 1]], axis=1) + piece.start_s
        if len(new):
            span[new[0], 0] = told_s
            told_s = span[new[-1], 1] = min(span[new[-1], 1], piece.end_s)
    told = spans.reshape(-1, 2)
    told[np.flatnonzero(~np.isnan(told[:, 0]))[-1], 1] = pieces[-1].end_s
    return told


def matched(places: NDArray[Any], steps: NDArray[Any], spans_s: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """(dim, h, w) of a picture and (dim, t) of a sound -> (h, w), and the second at which the hottest place is heard.

    Of each place the step that fits it best: the matchmap of DAVEnet (Harwath et al. 2018), at its maximum over time.
    `spans_s` (t, 2) say when each step begins and ends.
    """
    matches = np.tensordot(steps, places, axes=(0, 0)).astype(np.float32)  # (t, h, w)
    heat: NDArray[np.float32] = matches.max(axis=0)
    row, column = hottest_cell(heat)
    step = int(np.argmax(matches[:, row, column]))
    return heat, float(spans_s[step].mean())


def _asked(
    model: Model, query_modality: str, query: Input, modality: str
) -> tuple[NDArray[np.float32], tuple[NDArray[Any], NDArray[Any]] | None]:
    """The embedding (dim,) of a query; of a file that is heard also its steps, where image and steps give shares."""
    if isinstance(query, np.ndarray) or not _is_matched(model, query_modality, modality):
        return model.embed(query_modality, [query])[0], None
    pieces = _pieces(model, query_modality, query)
    return _whole(model, query_modality, pieces), _steps(model, query_modality, pieces)


def _is_matched(model: Model, query_modality: str, modality: str) -> bool:
    """Whether the steps of a query are held against an image: where they are heard, and both give shares."""
    is_heard = MODALITIES[query_modality].medium == "audio" and MODALITIES[modality].medium == "image"
    return is_heard and model.gives_shares(query_modality) and model.gives_shares(modality)


def _pieces(model: Model, modality: str, path: Path | str) -> list[Piece]:
    return decode(Task(Path(path), modality), model.preprocessing[modality]).pieces


def _whole(model: Model, modality: str, pieces: list[Piece]) -> NDArray[np.float32]:
    """The embedding (dim,) of what was decoded as these pieces."""
    whole: NDArray[np.float32] = model.embed_windows(modality, [[piece.array for piece in pieces]])[0]
    return whole


def _places(model: Model, modality: str, pieces: list[Piece]) -> NDArray[np.float32]:
    """(n, dim, h, w) of the one picture or (n, dim, t) of the windows of a sound."""
    arrays = [piece.array for piece in pieces]
    batches = [arrays[start : start + BATCH_SIZE] for start in range(0, len(arrays), BATCH_SIZE)]
    places = np.concatenate([model.map_arrays(modality, batch) for batch in batches])
    if not np.isfinite(places).all():
        raise XmrError(f"model {model.name} makes no usable map of this {modality}; train and export it again")
    return places


def _steps(model: Model, modality: str, pieces: list[Piece]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(dim, t) of the steps of a sound, one after the other, and (t, 2) when each begins and ends, in seconds."""
    windows = _places(model, modality, pieces)
    spans = spans_of(pieces, windows.shape[2], model.preprocessing[modality].window_s, *model.steps_s(modality))
    is_told = ~np.isnan(spans[:, 0])
    return windows.swapaxes(0, 1).reshape(model.dim, -1)[:, is_told], spans[is_told]


def _stitched(pieces: list[Piece], rate_hz: int) -> NDArray[np.float32]:
    """The samples of a sound from its windows, without what fills them."""
    samples = np.zeros(round(rate_hz * max(piece.end_s or 0.0 for piece in pieces)), dtype=np.float32)
    for piece in pieces:
        start, end = round(rate_hz * (piece.start_s or 0.0)), round(rate_hz * (piece.end_s or 0.0))
        window = piece.array[: end - start]
        samples[start : start + len(window)] = window[: len(samples) - start]
    return samples


def _in_sound(model: Model, modality: str, pieces: list[Piece], vector: NDArray[np.float32], score: float) -> SoundHeat:
    steps, spans_s = _steps(model, modality, pieces)
    heat = heat_of(steps, vector)
    hot = spans_s[hot_region(heat[None])[0]]
    rate_hz = model.preprocessing[modality].rate_hz
    return SoundHeat(
        heat,
        score,
        spans_s,
        seconds=float(spans_s[hottest_cell(heat)].mean()),
        span_s=(float(hot[0, 0]), float(hot[-1, 1])),
        samples=_stitched(pieces, rate_hz),
        rate_hz=rate_hz,
    )


def as_record(heat: Heat) -> dict[str, Any]:
    """What is printed of it: point, box and size in pixels, or seconds; `heard_s` where a query's steps were asked."""
    score = round(heat.score, 4)
    if isinstance(heat, PictureHeat):
        point, box = _rounded(heat.point, 1), _rounded(heat.box, 1)
        record = {"score": score, "point": point, "box": box, "size": list(heat.size)}
        return record if heat.heard_s is None else record | {"heard_s": round(heat.heard_s, 3)}
    return {
        "score": score,
        "seconds": round(heat.seconds, 3),
        "span_s": _rounded(heat.span_s, 3),
        "duration_s": round(heat.duration_s, 3),
    }


def _rounded(numbers: tuple[float, ...], digits: int) -> list[float]:
    return [round(number, digits) for number in numbers]
