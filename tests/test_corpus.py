"""Scanning: which files count, in which order, and that nothing outside the given paths is taken."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from xmr.engine.corpus import Scan, scan
from xmr.engine.errors import XmrError

MEDIA = ("image", "audio", "text")


def make(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def found_in(folder: Path, media: Iterable[str] = MEDIA) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in scan([folder], media).files]


def test_files_of_every_medium_are_found_with_size_and_time(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b/c.WAV", "b/d/e.txt"])
    os.utime(tmp_path / "a.jpg", ns=(5, 123_456_789))
    corpus = scan([tmp_path], MEDIA)
    assert [(file.path, file.medium, file.size_bytes) for file in corpus.files] == [
        (tmp_path / "a.jpg", "image", 5),
        (tmp_path / "b/c.WAV", "audio", 7),
        (tmp_path / "b/d/e.txt", "text", 9),
    ]
    assert corpus.files[0].mtime_ns == 123_456_789


def test_only_the_wanted_media_are_found_and_the_others_counted(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.wav", "c.txt", "d.exe"])
    corpus = scan([tmp_path], ["audio"])
    assert [file.path.name for file in corpus.files] == ["b.wav"]
    assert corpus.n_ignored == 3


def test_the_order_is_by_path_whatever_the_order_of_making(tmp_path: Path) -> None:
    names = ["b/a.jpg", "a/z.jpg", "a.jpg", "c.jpg", "B.jpg", "a/b/c.jpg"]
    forwards, backwards = make(tmp_path / "one", names), make(tmp_path / "two", reversed(names))
    assert found_in(forwards) == found_in(backwards)
    assert found_in(forwards) == sorted(names, key=Path)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", ".b.jpg", ".git/c.jpg", "d/.e/f.jpg", "d/.g.jpg"])
    assert found_in(tmp_path) == ["a.jpg"]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, inside = make(tmp_path / "out", ["secret.jpg"]), make(tmp_path / "in", ["a.jpg"])
    (inside / "link.jpg").symlink_to(outside / "secret.jpg")
    (inside / "up.jpg").symlink_to("../out/secret.jpg")
    (inside / "folder").symlink_to(outside)
    assert found_in(inside) == ["a.jpg"]


def test_links_within_the_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path, ["a/b.jpg"])
    (tmp_path / "link.jpg").symlink_to("a/b.jpg")
    (tmp_path / "broken.jpg").symlink_to("a/none.jpg")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    assert found_in(tmp_path) == ["a/b.jpg", "link.jpg"]


def test_a_single_file_is_a_corpus(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.jpg"])
    corpus = scan([tmp_path / "b.jpg"], MEDIA)
    assert [file.path for file in corpus.files] == [tmp_path / "b.jpg"]
    assert corpus.roots == [tmp_path / "b.jpg"]


def test_a_file_that_lies_under_two_paths_is_found_once(tmp_path: Path) -> None:
    make(tmp_path, ["a/b.jpg", "c.jpg"])
    corpus = scan([tmp_path, tmp_path / "a", tmp_path / "a" / "b.jpg"], MEDIA)
    assert [file.path for file in corpus.files] == [tmp_path / "a/b.jpg", tmp_path / "c.jpg"]


def test_a_file_has_one_path_however_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ["corpus/a.jpg", "other/b.jpg"])
    (tmp_path / "link").symlink_to("corpus")

    def scanned(path: str) -> Scan:
        return scan([Path(path)], MEDIA)

    expected = scan([tmp_path / "corpus"], MEDIA)
    monkeypatch.chdir(tmp_path / "other")
    assert scanned("../corpus") == scanned("../other/../corpus") == scanned("../link") == expected


def test_a_name_that_is_no_unicode_is_ignored_and_counted(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"])
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    corpus = scan([tmp_path], MEDIA)
    assert [file.path.name for file in corpus.files] == ["a.jpg"]
    assert corpus.n_ignored == 1


def test_what_is_no_regular_file_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"])
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found_in(tmp_path) == ["a.jpg"]


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg"])
    with pytest.raises(XmrError, match=r"/none: no such file or folder"):
        scan([tmp_path, tmp_path / "none"], MEDIA)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.exe", "b.exe", "c.pdf", "README"], "found 2 .exe, 1 README, 1 .pdf; the model takes .bmp .gif"),
        ([".hidden.jpg"], "found no file at all"),
        ([], "found no file at all"),
    ],
)
def test_a_folder_with_nothing_to_embed_says_what_it_holds(names: list[str], said: str, tmp_path: Path) -> None:
    make(tmp_path, names)
    with pytest.raises(XmrError, match=rf"{tmp_path}: nothing to embed, {said}"):
        scan([tmp_path], ["image"])


def test_links_in_a_circle_are_listed_and_the_others_found(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "a.png").write_bytes(b"")
    found = scan([tmp_path], {"image"})
    assert [file.path.name for file in found.files] == ["a.png"]
    assert [path.name for path in found.unreadable] == ["loop.png"]
