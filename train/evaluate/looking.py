"""A checkpoint that looks for phrases and categories in pictures: the loops of the pointing game and segmentation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.engine.localize import Area, area_of, point_of
from xmr.engine.media import image, text
from xmr.engine.media.decode import Task, decode_ahead
from xmr.train.batches import Progress
from xmr.train.checkpoint import Checkpoint, restore_model
from xmr.train.datasets import Row, read_rows, split_source
from xmr.train.datasets.instances import SegmentedImage, read_instances
from xmr.train.datasets.rows import Size
from xmr.train.evaluate.localisation import (
    AT,
    DIMS,
    POINTING_SHARE,
    SEGMENTATION_SHARE,
    THRESHOLDS,
    heats_of,
    overlap,
    pointing_figures,
    segmentation_figures,
)
from xmr.train.model import AlignedModel
from xmr.train.places import Places, places_of

BATCH_SIZE = 16  # pictures, or sentences, a run of the networks
KEPT_SENTENCES = 10_000  # whose embeddings are not made anew: phrases such as "blue sky" are asked again and again
Embedding = NDArray[np.float32]  # (dim,)
Seen = tuple[Any, NDArray[np.float32]]
Overlaps = list[tuple[float, float]]  # by each of DIMS, of the hot part and of all of the picture
Pointed = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # (n, dims, at, 2), (n, 4), (n, 2)


@dataclass
class Looker:
    """A model that finds sentences in pictures."""

    model: AlignedModel
    places: Places
    preprocessing: image.Preprocessing
    device: torch.device
    _kept: dict[str, Embedding | None] = field(default_factory=dict, repr=False)  # what was asked last stands last

    def sentences(self, sentences: Sequence[str]) -> dict[str, Embedding]:
        """The embedding of each sentence; those without a word that the model knows are left out."""
        wanted = list(dict.fromkeys(sentences))
        fresh = self._embedded([sentence for sentence in wanted if sentence not in self._kept])
        found = {of: fresh[of] if of in fresh else self._kept.pop(of) for of in wanted}
        self._kept |= found
        for oldest in list(self._kept)[:-KEPT_SENTENCES]:
            del self._kept[oldest]
        return {sentence: row for sentence, row in found.items() if row is not None}

    def _embedded(self, sentences: Sequence[str]) -> dict[str, Embedding | None]:
        settings = self.model.encoder("text").preprocessing
        encoded = {sentence: text.encode(sentence, settings) for sentence in sentences}
        known = [sentence for sentence, ids in encoded.items() if len(ids)]
        embeddings: dict[str, Embedding | None] = dict.fromkeys(sentences)
        for start in range(0, len(known), BATCH_SIZE):
            part = known[start : start + BATCH_SIZE]
            batch = torch.from_numpy(text.pad([encoded[sentence] for sentence in part])).to(self.device)
            with torch.inference_mode():
                rows = self.model("text", batch).embeddings.float().cpu().numpy()
            embeddings |= dict(zip(part, rows, strict=True))
        return embeddings

    def look(
        self, pictures: Sequence[tuple[Path, Any]], progress: Progress, note: Callable[[str], None]
    ) -> Iterator[Seen]:
        """What goes with each picture, and its places (dim, h, w). A file that cannot be read gets a sentence."""
        waiting: list[tuple[Any, NDArray[Any]]] = []
        decoded = decode_ahead([Task(path, "image") for path, _ in pictures], {"image": self.preprocessing})
        with progress("looking") as move:
            for done, (result, (_, subject)) in enumerate(zip(decoded, pictures, strict=True), start=1):
                if result.loaded is None:
                    note(f"skipped: {result.error}")
                else:
                    waiting.append((subject, result.loaded.pieces[0].array))
                if len(waiting) == BATCH_SIZE or done == len(pictures):
                    yield from self._seen(waiting)
                    waiting = []
                move(done, len(pictures))

    def _seen(self, pictures: Sequence[tuple[Any, NDArray[Any]]]) -> Iterator[Seen]:
        if not pictures:
            return
        batch = torch.from_numpy(np.stack([pixels for _, pixels in pictures])).to(self.device)
        try:
            with torch.inference_mode():
                maps = self.places(batch).float().cpu().numpy()
        except (RuntimeError, AssertionError) as error:  # timm asserts the size of its transformers
            is_own_size = self.preprocessing.size == self.model.encoder("image").preprocessing.size
            if is_own_size or isinstance(error, torch.OutOfMemoryError):
                raise
            raise XmrError(
                f"the image encoder takes no pictures of {self.preprocessing.size} pixels ({error}); leave --size out"
            ) from None
        yield from zip([subject for subject, _ in pictures], maps, strict=True)


def load_looker(checkpoint: Checkpoint, device: torch.device, size: int | None = None) -> Looker:
    """XmrError where the model reads no sentences or keeps no places. `size` of the pictures in place of its own."""
    model = restore_model(checkpoint).to(device).eval()
    if not {"image", "text"} <= set(model.modalities):
        raise XmrError(f"localisation asks sentences of images, the model has {', '.join(model.modalities)}")
    places = places_of(model, "image")
    if places is None:
        name = checkpoint.config.encoders["image"].name
        raise XmrError(f"the image encoder {name} keeps no map of where; train one that does, as timm-map")
    preprocessing = model.encoder("image").preprocessing
    return Looker(model, places, replace(preprocessing, size=size) if size else preprocessing, device)


def point_checkpoint(
    checkpoint: Checkpoint,
    source: str,
    device: torch.device,
    *,
    split: str | None = None,
    size: int | None = None,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[dict[str, Any]]:
    """The pointing game on a dataset whose captions have boxes, as Visual Genome: a record a choice of dimensions.

    `split` None asks of all images. DSVE-loc (Engilberge et al. 2018, 4.3) has pictures of 416 pixels.
    """
    looker = load_looker(checkpoint, device, size)
    rows = _rows_with_boxes(source, split, note)
    asked: list[Pointed] = []
    for row, places in looker.look([(row.files["image"], row) for row in rows], progress, note):
        if picture_size := _annotated_size(row.files["image"], row.size, note):
            asked.append(_pointed(looker, row, places, picture_size))
    n_phrases = sum(len(row.captions) for row in rows)
    if not any(len(boxes) for _, boxes, _ in asked):
        raise XmrError(f"{source}: none of {n_phrases} phrases can be asked; no image is readable or no word is known")
    points, boxes, sizes = (np.concatenate([of_picture[part] for of_picture in asked]) for part in range(3))
    counts = {"n_images": len(asked), "n_phrases": len(boxes), "n_left_out": n_phrases - len(boxes)}
    return [
        {"kind": "pointing", "dims": dims, **counts, **pointing_figures(points[:, place], boxes, sizes)}
        for place, dims in enumerate(DIMS)
    ]


def _pointed(looker: Looker, row: Row, places: NDArray[np.float32], size: Size) -> Pointed:
    """Of the phrases of a picture that can be asked: where they point by each of DIMS and of AT, their boxes, its size.

    All in pixels of `size`, which the map covers whatever the size of the file.
    """
    area, embeddings = area_of(size, looker.preprocessing), looker.sentences(row.captions)
    asked = [(embeddings[of], box) for of, box in zip(row.captions, row.boxes, strict=True) if of in embeddings]
    heats = [heats_of(places, embedding, POINTING_SHARE) for embedding, _ in asked]
    points = [[[point_of(of[dims], area, at) for at in AT] for dims in DIMS] for of in heats]
    return (
        np.array(points, dtype=np.float64).reshape(-1, len(DIMS), len(AT), 2),
        np.array([box for _, box in asked], dtype=np.float64).reshape(-1, 4),
        np.tile(np.array(size, dtype=np.float64), (len(asked), 1)),
    )


def segment_checkpoint(
    checkpoint: Checkpoint,
    source: str,
    device: torch.device,
    *,
    size: int | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> list[dict[str, Any]]:
    """Semantic segmentation of COCO instances: a record a choice of dimensions.

    A category is asked for as "dog dogs". Masks without a pixel in what the network sees of a picture are not asked.
    DSVE-loc (Engilberge et al. 2018, 4.3) has pictures of 400 pixels.
    """
    looker = load_looker(checkpoint, device, size)
    images, categories = read_instances(split_source(source)[1])
    embeddings = looker.sentences([prompt(category) for category in categories])
    asked = [picture for picture in images if picture.segmentations and _is_there(picture, note)]
    found: list[tuple[str, Overlaps | None]] = []
    n_images = 0
    for picture, places in looker.look([(picture.file, picture) for picture in asked], progress, note):
        if _annotated_size(picture.file, (picture.width, picture.height), note):
            found += _covered(looker, picture, places, embeddings)
            n_images += 1
    names = [name for name, overlaps in found if overlaps is not None]
    if not names:
        raise XmrError(f"{source}: none of {len(images)} images shows a category that can be asked; see what it holds")
    of_dims = np.array([overlaps for _, overlaps in found if overlaps is not None])  # (n, dims, 2)
    counts = {"n_images": n_images, "n_masks": len(names), "n_left_out": len(found) - len(names)}
    counts |= {"n_categories": len(set(names))}
    left_out = sorted(set(categories) - set(names))
    return [
        {
            "kind": "segmentation",
            "dims": dims,
            **counts,
            "left_out": left_out,
            **segmentation_figures(of_dims[:, place], names, thresholds),
        }
        for place, dims in enumerate(DIMS)
    ]


def _covered(
    looker: Looker, picture: SegmentedImage, places: NDArray[np.float32], embeddings: Mapping[str, Embedding]
) -> Iterator[tuple[str, Overlaps | None]]:
    """Each category in a picture that can be asked for, and its overlaps; None where its mask is outside."""
    area = area_of((picture.width, picture.height), looker.preprocessing)
    for category in picture.segmentations:
        if (embedding := embeddings.get(prompt(category))) is not None:
            mask = _cut(picture.mask(category), area)
            heats = heats_of(places, embedding, SEGMENTATION_SHARE)
            yield category, [overlap(heats[dims], mask) for dims in DIMS] if mask.any() else None


def prompt(category: str) -> str:
    """How a category is asked for (DSVE-loc's code)."""
    return f"{category} {category}s"


def _rows_with_boxes(source: str, split: str | None, note: Callable[[str], None]) -> list[Row]:
    rows = [row for row in read_rows([source], note=note) if row.boxes and "image" in row.files]
    if not rows:
        raise XmrError(f"{source}: no captions with boxes; give visual-genome:PATH, where its regions are")
    chosen = [row for row in rows if split in (None, row.split)]
    if not chosen:
        raise XmrError(
            f"{source}: no {split} rows with boxes; splits are {', '.join(sorted({row.split for row in rows}))}"
        )
    return chosen


def _is_there(picture: SegmentedImage, note: Callable[[str], None]) -> bool:
    if picture.file.is_file():
        return True
    note(f"skipped: {picture.file}: no such file")
    return False


def _annotated_size(file: Path, annotated: Size | None, note: Callable[[str], None]) -> Size | None:
    """Of the picture that boxes or masks are drawn on; None, with a sentence, where the file shows another part of it.

    A copy of another size has the same shape but for a pixel of its shorter side.
    """
    size = image.upright_size(file)
    if annotated is None or abs(size[0] * annotated[1] - size[1] * annotated[0]) <= max(annotated):
        return annotated or size
    found, drawn_on = ("x".join(map(str, of)) for of in (size, annotated))
    note(f"skipped: {file}: {found} pixels found, drawn on were {drawn_on}; fetch the image as it was published")
    return None


def _cut(mask: NDArray[np.bool_], area: Area) -> NDArray[np.bool_]:
    """What of a mask lies in an area."""
    x, y, width, height = (round(number) for number in area)
    return mask[y : y + height, x : x + width]
