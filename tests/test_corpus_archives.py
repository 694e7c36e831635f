"""Archives in a corpus: members are found where they lie, with their metadata, and nothing leads out of the archive."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from xmr.engine.corpus import Scan, scan

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write_tar(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]], kind: str = "gnu") -> Path:
    with tarfile.open(path, "w", format=FORMATS[kind]) as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def scanned(path: Path) -> Scan:
    return scan([path], ("image", "audio", "text"))


def held(path: Path) -> dict[str, bytes]:
    return {str(file.path.relative_to(path)): file.content.read() for file in scanned(path).files}


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_read_in_place(kind: str, tmp_path: Path) -> None:
    members = {"a.jpg": b"first", "deep/er/b.flac": b"x" * 1000, "c.txt": b"", "é.jpg": b"accent"}
    tar = write_tar(tmp_path / "a.tar", members, kind)
    assert held(tar) == members
    file = scanned(tar).files[0]
    assert (file.archive, file.mtime_ns, file.root) == (tar, tar.stat().st_mtime_ns, tar)


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_long_names_are_whole(kind: str, tmp_path: Path) -> None:
    members = {f"{'folder/' * 40}{'n' * 120}.jpg": b"x", "b.jpg": b"y"}
    assert held(write_tar(tmp_path / "a.tar", members, kind)) == members


@pytest.mark.parametrize("kind", ["gnu", "oldgnu", "posix", "ustar", "v7"])
def test_archives_of_the_tar_program_are_read(kind: str, tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar program")
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("a.jpg", "b/c.jpg"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    tar = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={kind}", "-cf", tar, "-C", tmp_path / "in", "."], check=True, timeout=30)
    assert held(tar) == {"a.jpg": b"a.jpg", "b/c.jpg": b"b/c.jpg"}


def test_members_of_one_key_share_what_its_json_and_cls_say(tmp_path: Path) -> None:
    members = {
        "s/1.seg.png": b"",
        "s/1.jpg": b"",
        "s/1.json": b'{"width": 3, "caption": "a", "nested": {"a": [1]}}',
        "s/1.cls": b"7\n",
        "s/2.jpg": b"",
        "s/2.json": b"[1]",
    }
    corpus = scanned(write_tar(tmp_path / "a.tar", members))
    said = {"width": 3, "caption": "a", "nested": {"a": [1]}, "cls": 7}
    assert [(file.path.name, dict(file.metadata)) for file in corpus.files] == [
        ("1.jpg", said),
        ("1.seg.png", said),
        ("2.jpg", {}),
    ]
    assert [note.split(": ")[1] for note in corpus.notes] == ["no JSON object; no metadata taken from it"]


def test_of_a_name_that_is_there_twice_the_last_counts(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("a.jpg", b"first"), ("b.jpg", b"b"), ("./a.jpg", b"last")])
    assert held(tar) == {"a.jpg": b"last", "b.jpg": b"b"}


def test_names_that_lead_out_are_named_and_left_out(tmp_path: Path) -> None:
    corpus = scanned(
        write_tar(tmp_path / "a.tar", {"../a.jpg": b"", "/etc/b.jpg": b"", "c/../../d.jpg": b"", "e.jpg": b""})
    )
    assert [file.path.name for file in corpus.files] == ["e.jpg"]
    assert all("leads out of the archive" in reason for reason in corpus.unreadable.values())
    assert len(corpus.unreadable) == 3


def test_links_devices_hidden_and_sparse_members_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.CHRTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            tar.addfile(header)
        tar.addfile(tarfile.TarInfo("._d.jpg"))
        sparse = tarfile.TarInfo("e.jpg")
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "e.jpg"}
        tar.addfile(sparse)
        tar.addfile(tarfile.TarInfo("f.jpg"))
    corpus = scanned(tmp_path / "a.tar")
    assert [file.path.name for file in corpus.files] == ["f.jpg"]
    assert corpus.ignored == {"as link or device in an archive": 3, "hidden": 1}
    assert ["sparse" in reason for reason in corpus.unreadable.values()] == [True]


def test_of_an_archive_cut_short_what_comes_before_stays(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {f"{n}.jpg": b"x" * 1000 for n in range(9)})
    tar.write_bytes(tar.read_bytes()[: 5 * 1536 + 700])
    corpus = scanned(tar)
    assert [file.path.name for file in corpus.files] == [f"{n}.jpg" for n in range(5)]
    assert corpus.unreadable == {tar: f"{tar}: cut off in 5.jpg; what comes before is used, copy the archive again"}


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {f"{n}.jpg": b"x" * 1000 for n in range(4)})
    damaged = bytearray(tar.read_bytes())
    damaged[2 * 1536] ^= 1
    tar.write_bytes(damaged)
    corpus = scanned(tar)
    assert [file.path.name for file in corpus.files] == ["0.jpg", "1.jpg"]
    assert "no tar header at byte 3,072" in corpus.unreadable[tar]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "a.tar"])
def test_packed_archives_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + b"\0" * 2000)
    corpus = scanned(tmp_path)
    assert corpus.files == []
    assert "cannot be read in place; unpack it" in corpus.unreadable[tmp_path / name]


def test_a_header_that_claims_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {f"{'n' * 200}.jpg": b"x"})
    header = bytearray(tar.read_bytes())
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    tar.write_bytes(header)
    assert "a header of 8,589,934,591 bytes" in scanned(tar).unreadable[tar]
