"""Scanning: which files count, in which order, and that nothing outside the given paths is taken."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from xmr.engine.corpus import Scan, scan
from xmr.engine.corpus.ignore import Ignore
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
        (["a.exe", "b.exe", "c.pdf", "README"], "found 2 .exe, 1 README, 1 .pdf; the model takes "),
        ([".hidden.jpg"], "found 1 hidden"),
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


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_what_an_ignore_file_names_is_left_out_and_counted(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.jpg", "build/c.jpg", "sub/b.jpg", "sub/build/d.jpg"])
    write(tmp_path / ".gitignore", "# made", "b.jpg", "/build/")
    assert found_in(tmp_path) == ["a.jpg", "sub/build/d.jpg"]
    assert scan([tmp_path], MEDIA).ignored == {"by an ignore file": 3}
    assert len(scan([tmp_path], MEDIA, ignore=False).files) == 5


def test_nearer_ignore_files_decide_and_exclamation_marks_take_back(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "keep/a.jpg", "keep/b.jpg", "keep/sub/a.jpg"])
    write(tmp_path / ".gitignore", "a.jpg")
    write(tmp_path / "keep/.gitignore", "!/a.jpg", "b.jpg")
    write(tmp_path / "keep/.xmrignore", "!b.jpg")
    assert found_in(tmp_path) == ["keep/a.jpg", "keep/b.jpg"]


def test_an_ignored_folder_is_not_entered(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "out/b.jpg"])
    write(tmp_path / ".xmrignore", "out/")
    write(tmp_path / "out/.xmrignore", "!b.jpg")
    assert found_in(tmp_path) == ["a.jpg"]


def test_lines_that_are_no_pattern_match_nothing(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / ".gitignore").write_bytes(b"!\n/\n[\n\xff\n\nb.jpg\n")
    assert found_in(tmp_path) == ["a.jpg"]


def test_files_are_ignored_as_git_ignores_them(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    names = ["a.jpg", "a/b/c.jpg", "b/a.jpg", "a b/c.jpg", "build/a.jpg", "build/b/a.jpg", "c.d/a.jpg", "#a/b.jpg"]
    make(tmp_path, names)
    patterns = ["a/**/c.jpg", "*.d", "!c.d/", "\\#a", "a\\ b/", "/build/*", "!build/b", "**/b/a.jpg", "[!a].jpg   "]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, timeout=30)
    listing = ["git", "ls-files", "--others", "--exclude-per-directory=.gitignore", "-z", "--", "*.jpg"]
    for n_patterns in range(len(patterns) + 1):
        write(tmp_path / ".gitignore", *patterns[:n_patterns])
        listed = subprocess.run(listing, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30).stdout
        assert sorted(found_in(tmp_path)) == sorted(filter(None, listed.split("\0")))


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    make(tmp_path, ["a.jpg", "b.exe", "c.pdf", ".d.jpg"])
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/etc/hostname")
    corpus = scan([tmp_path], MEDIA)
    assert corpus.ignored["of other kinds"] == 2
    assert corpus.n_ignored == 5
    assert corpus.told_ignored().startswith("2 of other kinds, 1 ")
    assert corpus.files[0].root == tmp_path


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "a" + "*" * 40 + "b", "?*" * 30 + "b", "a/**/" * 20 + "b"])
def test_an_ignore_file_that_is_a_bomb_holds_nobody_up(pattern: str, tmp_path: Path) -> None:
    place = tmp_path / "/".join("a" * 100) / ("a" * 200 + ".txt")
    place.parent.mkdir(parents=True)
    place.write_text("a dog")
    (tmp_path / ".gitignore").write_text(f"{pattern}\n")
    assert [file.path for file in scan([tmp_path], {"text"}).files] == [place]


@pytest.mark.parametrize(
    ("pattern", "named", "others"),
    [
        ("a*b*c", ["abc", "a.bb.c", "x/abxc"], ["acb", "abcd"]),
        ("*.t[a-c]*x*", ["1.tax", "1.tb.x.x"], ["1.tdx", "1.ta"]),
        ("a/**/b*c/**/d", ["a/bc/d", "a/1/b2c/3/4/d", "a/bc/bc/d"], ["a/b/c/d", "1/a/bc/d"]),
    ],
)
def test_a_pattern_of_several_stars_names_what_it_does_for_git(
    pattern: str, named: list[str], others: list[str], tmp_path: Path
) -> None:
    (tmp_path / ".gitignore").write_text(f"{pattern}\n")
    ignore = Ignore.read(tmp_path, [tmp_path / ".gitignore"], None)
    assert [name for name in named + others if ignore.leaves_out(str(tmp_path / name), is_folder=False)] == named
