"""Matchmaps: every place of an image against every frame of a sound, and the similarities pooled from them."""

from typing import Literal

import torch
from torch import Tensor

from xmr.train.losses.scores import blocks

MatchKind = Literal["SISA", "MISA", "SIMA"]


def matchmap(image_maps: Tensor, sound_maps: Tensor) -> Tensor:
    """(n, h, w, t), or (n, p, t): how well each place of image i fits each frame of sound i (DAVEnet).

    image_maps (n, d, h, w) or (n, d, p), sound_maps (n, d, t); an entry is the inner product over d.
    """
    _check_maps(image_maps, sound_maps)
    if len(image_maps) != len(sound_maps):
        raise ValueError(f"{len(image_maps)} image maps and {len(sound_maps)} sound maps; row i of each is a pair")
    places = image_maps.flatten(2).mT @ sound_maps  # (n, p, t)
    return places.reshape(len(places), *image_maps.shape[2:], -1)


def matchmap_similarity(
    image_maps: Tensor, sound_maps: Tensor, n_frames: Tensor | None = None, kind: MatchKind = "MISA"
) -> Tensor:
    """(n, m): every image against every sound, by pooling the matchmap of the two (DAVEnet).

    image_maps (n, d, h, w) or (n, d, p), sound_maps (m, d, t) of which the first n_frames (m,) count, at least one.
    SISA: mean over places and frames. MISA: best place of each frame, mean over frames. SIMA: best frame of each
    place, mean over places.
    """
    _check_maps(image_maps, sound_maps)
    images = image_maps.flatten(2)  # (n, d, p)
    is_frame = _is_frame(n_frames, sound_maps)  # (m, t)
    if kind == "SISA":
        return images.mean(dim=2) @ _mean_of_frames(sound_maps, is_frame[:, None]).T
    if kind not in ("MISA", "SIMA"):
        raise ValueError(f"kind {kind!r} found; it is 'SISA', 'MISA' or 'SIMA'")
    frames = sound_maps.transpose(0, 1).flatten(1)  # (d, m * t)
    pool = _best_places if kind == "MISA" else _best_frames
    by_block = blocks(len(images), images.shape[2] * frames.shape[1])
    return torch.cat([pool(images[rows].mT @ frames, is_frame) for rows in by_block])


def _is_frame(n_frames: Tensor | None, sound_maps: Tensor) -> Tensor:
    """(m, t): True before the end of each sound."""
    m, _, t = sound_maps.shape
    steps = torch.arange(t, device=sound_maps.device)
    if n_frames is None:
        return (steps < t).expand(m, t)
    if n_frames.shape != (m,):
        raise ValueError(f"n_frames are {tuple(n_frames.shape)}, there are {m} sound maps")
    return steps < n_frames.to(sound_maps.device).clamp(min=1)[:, None]


def _mean_of_frames(values: Tensor, is_frame: Tensor) -> Tensor:
    """The mean over the last axis of what is_frame, which broadcasts, lets through."""
    return values.masked_fill(~is_frame, 0).sum(dim=-1) / is_frame.sum(dim=-1)


def _best_places(products: Tensor, is_frame: Tensor) -> Tensor:
    """(rows, m) of the products (rows, p, m * t) of places and frames."""
    best = products.max(dim=1).values
    return _mean_of_frames(best.reshape(-1, *is_frame.shape), is_frame)


def _best_frames(products: Tensor, is_frame: Tensor) -> Tensor:
    """(rows, m) of the products (rows, p, m * t) of places and frames."""
    frames = products.masked_fill(~is_frame.flatten(), -torch.inf)
    return frames.reshape(*frames.shape[:2], *is_frame.shape).max(dim=3).values.mean(dim=1)


def _check_maps(image_maps: Tensor, sound_maps: Tensor) -> None:
    if image_maps.ndim not in (3, 4) or sound_maps.ndim != 3 or image_maps.shape[1] != sound_maps.shape[1]:
        shapes = tuple(image_maps.shape), tuple(sound_maps.shape)
        raise ValueError(f"maps are {shapes[0]} and {shapes[1]}; they must be (n, d, h, w) or (n, d, p), and (m, d, t)")
