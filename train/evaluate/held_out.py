"""The held-out rows of one split and the model that is to be judged by them, ready to be embedded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmr.engine import terminal
from xmr.engine.errors import XmrError
from xmr.train.batches import Progress, Store, load_store
from xmr.train.checkpoint import Checkpoint, restore_model
from xmr.train.config import stage_configs
from xmr.train.datasets import Row, read_rows, select, with_captions
from xmr.train.evaluate.embeddings import embed_contents
from xmr.train.model import AlignedModel
from xmr.train.objective import Comparison, comparison_of


@dataclass
class HeldOut:
    """A model and the rows that it is judged by, whose files can all be read; embeddings are made once."""

    model: AlignedModel
    store: Store
    rows: Sequence[Row]
    device: torch.device
    comparison: Comparison = "dot"
    _made: dict[tuple[str, Any], NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def embeddings(self, modality: str, contents: Sequence[Any]) -> NDArray[np.float32]:
        """(n, dim) unit rows of files or sentences."""
        fresh = [content for content in dict.fromkeys(contents) if (modality, content) not in self._made]
        made = embed_contents(self.model, self.store, modality, fresh, self.device)
        self._made.update({(modality, content): vector for content, vector in zip(fresh, made, strict=True)})
        if not contents:
            return np.zeros((0, self.model.dim), dtype=np.float32)
        return np.stack([self._made[modality, content] for content in contents])


def load_held_out(
    checkpoint: Checkpoint,
    sources: Sequence[str],
    split: str,
    cache: Path,
    device: torch.device,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> HeldOut:
    """The model of a checkpoint and the rows of a split; XmrError where the sources have none.

    Files that cannot be read are left out with a sentence to `note`; features of frozen trunks go to `cache`.
    """
    rows = read_split(
        sources, split, list(checkpoint.config.encoders), checkpoint.config.captions, cache=cache, note=note
    )
    return open_held_out(checkpoint, rows, cache, device, progress, note)


def read_split(
    sources: Sequence[str],
    split: str,
    modalities: Sequence[str],
    captions: str,
    *,
    cache: Path,
    note: Callable[[str], None] = terminal.note,
) -> list[Row]:
    """The rows of a split that pair two of these modalities; `captions` says which of theirs count."""
    rows = [with_captions(row, captions) for row in read_rows(sources, cache=cache, note=note)]
    selected = select(rows, split, modalities)
    if not selected:
        splits = ", ".join(sorted({row.split for row in rows}))
        raise XmrError(f"{', '.join(sources)}: no {split} rows of {', '.join(modalities)}; splits are {splits}")
    return selected


def open_held_out(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    cache: Path,
    device: torch.device,
    progress: Progress = terminal.progress_bar,
    note: Callable[[str], None] = terminal.note,
) -> HeldOut:
    """The model of a checkpoint and those of the rows whose files it can read; XmrError where there are none."""
    model = restore_model(checkpoint).to(device)
    store, readable, errors = load_store(model, rows, cache, device, progress)
    for sentence in errors:
        note(f"skipped: {sentence}")
    if not readable:
        raise XmrError(f"none of the {len(rows)} rows could be read, {errors[0]}; mend the files")
    return HeldOut(model, store, readable, device, comparison_of(stage_configs(checkpoint.config)))
