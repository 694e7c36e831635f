"""What a training run is made of before its first step."""

from pathlib import Path

from xmr.train.datasets import Row
from xmr.train.run import _not_held_out


def row(split: str, name: str, **files: str) -> Row:
    return Row(name, split, files={modality: Path(path) for modality, path in files.items()}, captions=("a dog",))


def test_rows_that_show_what_is_held_out_are_not_trained_on() -> None:
    rows = [
        row("train", "a", image="a.jpg"),
        row("train", "b", image="b.jpg"),  # the same picture is a val row of another source
        row("train", "c", image="c.jpg", sound="bark.wav"),
        row("train", "d", image="d.jpg"),
        row("val", "of another name", image="b.jpg"),
        row("test", "e", image="e.jpg", sound="bark.wav"),
        row("test", "d", image="other.jpg"),
        row("extra", "a", image="a.jpg"),
    ]
    notes: list[str] = []
    kept = _not_held_out([each for each in rows if each.split == "train"], rows, notes.append)
    assert kept == rows[:1]
    assert notes == ["3 train rows show what val or test rows show, such as b; they are left out"]


def test_splits_that_share_nothing_are_no_news() -> None:
    rows = [row("train", "a", image="a.jpg"), row("val", "b", image="b.jpg")]
    notes: list[str] = []
    assert _not_held_out(rows[:1], rows, notes.append) == rows[:1]
    assert not notes
