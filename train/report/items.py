"""How one item looks in the page: a thumbnail, a sound that can be played, a sentence. Every word of it is escaped."""

from html import escape
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.train.datasets import LABEL
from xmr.train.report.media import N_PEAKS, Clip, clip, thumbnail

MAX_LETTERS = 160  # of a sentence that are shown
SHAPE_OF = {"image": "circle", "sound": "triangle", "speech": "diamond", "text": "square"}


def name_of(content: Any) -> str:
    """A file's name, or the sentence."""
    name = content.name if isinstance(content, Path) else str(content)
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def label_of(key: str) -> str | None:
    """The label that a key stands for; None where it stands for one row."""
    return key.removeprefix(LABEL) if key.startswith(LABEL) else None


def described(content: Any, key: str) -> str:
    """The name, and the label where there is one."""
    label = label_of(key)
    return name_of(content) if label is None else f"{name_of(content)} ({label})"


def tag(modality: str) -> str:
    """The name of a modality in its colour."""
    return f'<span class="tag c-{modality}">{escape(modality)}</span>'


def direction(query: str, gallery: str) -> str:
    return f'{tag(query)}<span class="to"> to </span>{tag(gallery)}'


def shown(modality: str, content: Any, key: str) -> str:
    """An item as HTML; where its file cannot be shown, why."""
    medium = MODALITIES[modality].medium
    if medium == "text":
        return f'<p class="sentence">{escape(name_of(content))}</p>'
    try:
        return _picture(content, key) if medium == "image" else _player(modality, content, key)
    except XmrError as error:
        return f'<p class="missing">{escape(name_of(content))} is not shown: {escape(str(error))}</p>'


def _picture(path: Path, key: str) -> str:
    small = thumbnail(path)
    alt = escape(described(path, key))
    return f'<img src="{small.uri}" width="{small.width}" height="{small.height}" alt="{alt}" title="{alt}">'


def _player(modality: str, path: Path, key: str) -> str:
    """The browser's own player; the page's script puts a round button with the drawn sound in its place."""
    heard = clip(path)
    name = escape(described(path, key))
    length = f"{heard.duration_s:.1f} s{', its beginning' if heard.is_cut else ''}"
    return (
        f'<figure class="clip c-{modality}">{_wave(heard)}'
        f'<audio controls preload="none" src="{heard.uri}" aria-label="{name}" title="{name}, {length}"></audio>'
        f"<figcaption>{escape(name_of(path))}</figcaption></figure>"
    )


def _wave(heard: Clip) -> str:
    bars = "".join(
        f"M{2 * place + 1} {16 - max(0.7, 14 * peak):.1f}V{16 + max(0.7, 14 * peak):.1f}"
        for place, peak in enumerate(heard.peaks)
    )
    return f'<svg class="wave" viewBox="0 0 {2 * N_PEAKS} 32" aria-hidden="true"><path d="{bars}"/></svg>'
