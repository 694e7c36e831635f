"""Published data is fetched whole or not at all, goes on where it stopped, and never leaves its folder."""

import gzip
import hashlib
import io
import re
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from xmr.engine.errors import UsageError, XmrError
from xmr.train import fetch as fetching
from xmr.train.fetch import DATASETS_TO_FETCH, DatasetToFetch, FileToFetch, describe, downloads, fetch, find
from xmr.train.fetch.archives import MAX_EXPANSION, SMALL_BYTES, is_archive, unpack
from xmr.train.fetch.downloads import check_disk, download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    last_modified: str | None = None
    knows_ranges: bool = True
    says_length: bool = True
    cuts: list[int] = field(default_factory=list)  # of each answer, the bytes after which the connection ends
    statuses: list[int] = field(default_factory=list)  # of each answer, before the file is sent
    asked: list[dict[str, str]] = field(default_factory=list)  # headers
    sent: list[int] = field(default_factory=list)  # bytes of each answer
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Serves the site of its server: the part of HTTP that a download needs, written out."""

    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(dict(self.headers))
        content = site.files.get(self.path.removeprefix("/"))
        if site.statuses:
            self.send_error(site.statuses.pop(0))
        elif content is None:
            self.send_error(404)
        else:
            self.send_content(content)

    def send_content(self, content: bytes) -> None:
        site, start = self.site, self.start_of_range()
        if start >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        for key, value in (("ETag", site.etag), ("Last-Modified", site.last_modified)):
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        end = start + site.cuts.pop(0) if site.cuts else len(content)
        self.wfile.write(content[start:end])
        site.sent.append(len(content[start:end]))

    def start_of_range(self) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range") in (None, self.site.etag, self.site.last_modified)
        return int(wanted[1]) if wanted and is_same and self.site.knows_ranges else 0

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the test."""


@pytest.fixture
def site() -> Iterator[Site]:
    handler = type("SiteHandler", (Handler,), {"site": Site({"birds.bin": CONTENT})})
    server = Server(("127.0.0.1", 0), handler)
    handler.site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler.site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def straight_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses before a further try, no proxy on the way to the test's server."""
    monkeypatch.setattr(downloads, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def get(site: Site, tmp_path: Path) -> Callable[..., str]:
    """Downloads birds.bin into the test's folder."""

    def run(**options: object) -> str:
        return download(f"{site.url}/birds.bin", tmp_path / "birds.bin", **options)  # type: ignore[arg-type]

    return run


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def interrupted(site: Site, get: Callable[..., str]) -> None:
    """Leaves the first million bytes behind, as a connection that stays away does."""
    site.cuts = [1_000_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "PAUSES_S", ())
        with pytest.raises(XmrError, match="the same command again to go on"):
            get()
    site.asked.clear()
    site.sent.clear()


def test_a_file_arrives_whole_under_its_name(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    assert get(size_bytes=len(CONTENT), checksum=f"sha256:{SHA256}") == SHA256
    assert names(tmp_path) == ["birds.bin"]
    assert (tmp_path / "birds.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", [f"md5:{MD5}", f"sha256:{SHA256.upper()}", None])
def test_the_sha256_comes_back_whatever_was_published(checksum: str | None, get: Callable[..., str]) -> None:
    assert get(checksum=checksum) == SHA256


def test_a_cut_connection_is_taken_up_where_it_ended(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    site.cuts = [1_200_000, 700_000]
    assert get() == SHA256
    assert site.sent == [1_200_000, 700_000, 1_100_000]
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=1200000-", "bytes=1900000-"]
    assert [asked.get("If-Range") for asked in site.asked] == [None, '"one"', '"one"']


def test_the_next_call_goes_on_where_the_last_one_stopped(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    interrupted(site, get)
    assert names(tmp_path) == ["birds.bin.part", "birds.bin.part.from"]
    assert get() == SHA256
    assert site.sent == [2_000_000]
    assert names(tmp_path) == ["birds.bin"]


def test_ctrl_c_leaves_what_has_arrived(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(bar=interrupt)
    there = (tmp_path / "birds.bin.part").stat().st_size
    assert 0 < there < len(CONTENT)
    site.sent.clear()
    assert get() == SHA256
    assert site.sent == [len(CONTENT) - there]


def test_a_download_that_was_whole_but_not_yet_checked_is_not_asked_for_again(
    site: Site, get: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_verify", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get()
    site.asked.clear()
    assert get() == SHA256
    assert site.asked == []


def test_a_server_without_ranges_sends_all_again(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    interrupted(site, get)
    site.knows_ranges = False
    assert get() == SHA256
    assert site.sent == [len(CONTENT)]
    assert (tmp_path / "birds.bin").read_bytes() == CONTENT


def test_a_file_that_has_changed_is_fetched_from_its_start(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    interrupted(site, get)
    changed = CONTENT[::-1]
    site.files["birds.bin"], site.etag = changed, '"two"'
    assert get() == hashlib.sha256(changed).hexdigest()
    assert site.asked[0]["If-Range"] == '"one"'
    assert site.sent == [len(changed)]


def test_a_weak_etag_is_no_proof_of_the_same_bytes(site: Site, get: Callable[..., str]) -> None:
    site.etag, site.last_modified = 'W/"one"', "Wed, 01 Jan 2020 00:00:00 GMT"
    interrupted(site, get)
    assert get() == SHA256
    assert site.asked[0]["If-Range"] == "Wed, 01 Jan 2020 00:00:00 GMT"


def test_without_a_validator_nothing_is_taken_up(site: Site, get: Callable[..., str]) -> None:
    site.etag = None
    interrupted(site, get)
    assert get() == SHA256
    assert "Range" not in site.asked[0]


def test_what_is_left_of_another_address_is_not_taken_up(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    interrupted(site, get)
    site.files["other.bin"] = CONTENT[::-1]
    download(f"{site.url}/other.bin", tmp_path / "birds.bin")
    assert "Range" not in site.asked[0]
    assert (tmp_path / "birds.bin").read_bytes() == CONTENT[::-1]


def test_more_than_the_file_has_is_thrown_away(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    interrupted(site, get)
    site.files["birds.bin"] = CONTENT[:900_000]  # shorter than what is there, by the same ETag: the server says 416
    assert get() == hashlib.sha256(CONTENT[:900_000]).hexdigest()


def test_a_busy_server_is_asked_again(site: Site, get: Callable[..., str]) -> None:
    site.statuses = [503, 429]
    assert get() == SHA256
    assert len(site.asked) == 3


def test_a_server_that_stays_busy_is_given_up(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    site.statuses = [503] * 10
    with pytest.raises(XmrError, match="the server answers 503"):
        get()
    assert len(site.asked) == 4
    assert names(tmp_path) == []


def test_drops_that_bring_bytes_do_not_use_up_the_tries(site: Site, get: Callable[..., str]) -> None:
    site.cuts = [200_000] * 12
    assert get() == SHA256
    assert len(site.asked) == 13


def test_a_length_that_nobody_says_is_no_obstacle(site: Site, get: Callable[..., str]) -> None:
    site.says_length = False
    assert get() == SHA256


def test_a_published_size_finds_a_file_that_ends_too_soon(site: Site, get: Callable[..., str]) -> None:
    site.says_length, site.cuts = False, [1_000_000]
    assert get(size_bytes=len(CONTENT)) == SHA256
    assert site.sent == [1_000_000, 2_000_000]


@pytest.mark.parametrize("says_length", [True, False])
def test_another_size_than_the_published_one_is_refused(site: Site, get: Callable[..., str], says_length: bool) -> None:
    site.says_length = says_length
    with pytest.raises(XmrError, match="the file has changed at its source"):
        get(size_bytes=len(CONTENT) - 1)


@pytest.mark.parametrize("checksum", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_wrong_checksum_removes_the_download(checksum: str, get: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=f"{checksum.partition(':')[0]} [0-9a-f]+ found, 0+ expected"):
        get(checksum=checksum)
    assert names(tmp_path) == []


def test_a_missing_file_is_said_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"/gone\.zip: no such file on the server \(404\)"):
        download(f"{site.url}/gone.zip", tmp_path / "gone.zip")
    assert len(site.asked) == 1
    assert names(tmp_path) == []


def test_a_refusal_is_said_at_once(site: Site, get: Callable[..., str]) -> None:
    site.statuses = [403]
    with pytest.raises(XmrError, match=r"the server refuses it \(403\)"):
        get()


def test_nobody_at_the_address_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(XmrError, match=r"the server cannot be reached .*; check the network"):
        download(f"http://127.0.0.1:{port}/birds.bin", tmp_path / "birds.bin")
    assert names(tmp_path) == []


def test_a_host_without_an_address_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(XmrError, match="its name is not known here"):
        download("http://nowhere.invalid/birds.bin", tmp_path / "birds.bin")


def test_a_disk_too_small_is_said_before_the_download(get: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"1000000\.00 GB needed, .* free on this disk"):
        get(spare_bytes=10**15)
    assert names(tmp_path) == []


def test_the_disk_is_looked_at_before_the_folder_is_made(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there", 1)
    with pytest.raises(XmrError, match="needed"):
        check_disk(tmp_path / "not" / "there", 10**15)
    assert names(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(site: Site, get: Callable[..., str], tmp_path: Path) -> None:
    with (
        downloads._locked(tmp_path / "birds.bin.part"),
        pytest.raises(XmrError, match="another process is downloading"),
    ):
        get()


def test_the_bar_moves_to_the_end_in_megabytes(get: Callable[..., str]) -> None:
    moves: list[tuple[int, int]] = []
    get(bar=lambda done, total: moves.append((done, total)))
    assert (moves[0], moves[-1]) == ((0, 3), (3, 3))


# What an archive may do


def tar_of(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return packed.getvalue()


def zip_of(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link is not None:
            member = zipfile.ZipInfo(link)
            member.external_attr = 0o120777 << 16
            archive.writestr(member, "/etc/passwd")
    return packed.getvalue()


PACKERS = pytest.mark.parametrize(("suffix", "pack"), [(".tgz", tar_of), (".zip", zip_of)])
MEMBERS = {"birds/001.jpg": b"one", "birds/list.txt": b"two"}


@pytest.fixture
def packed(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(suffix: str, content: bytes) -> Path:
        path = tmp_path / f"packed{suffix}"
        path.write_bytes(content)
        return path

    return write


@PACKERS
def test_an_archive_is_unpacked(
    suffix: str, pack: Callable[..., bytes], packed: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    done = unpack(packed(suffix, pack(MEMBERS)), tmp_path / "out")
    assert (done.n_files, done.size_bytes, done.left_out) == (2, 6, [])
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == MEMBERS


def test_a_gzip_is_unpacked_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "vectors.bin.gz").write_bytes(gzip.compress(CONTENT))
    unpack(tmp_path / "vectors.bin.gz", tmp_path)
    assert (tmp_path / "vectors.bin").read_bytes() == CONTENT


@PACKERS
@pytest.mark.parametrize("name", ["../evil.txt", "birds/../../evil.txt", "/evil.txt", "birds/.."])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    name: str, suffix: str, pack: Callable[..., bytes], packed: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    archive = packed(suffix, pack({name: b"evil"}))
    with pytest.raises(XmrError, match="leads out of the folder"):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == [archive.name]


@PACKERS
def test_a_link_that_was_in_the_folder_leads_nowhere(
    suffix: str, pack: Callable[..., bytes], packed: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "birds").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(XmrError, match="leads out of the folder"):
        unpack(packed(suffix, pack(MEMBERS)), tmp_path / "out")
    assert names(tmp_path / "elsewhere") == []


@PACKERS
def test_links_are_left_out_and_counted(
    suffix: str, pack: Callable[..., bytes], packed: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    done = unpack(packed(suffix, pack(MEMBERS, link="birds/passwords")), tmp_path / "out")
    assert done.left_out == ["birds/passwords"]
    assert names(tmp_path / "out") == sorted(MEMBERS)


@pytest.mark.parametrize(("suffix", "pack"), [(".tgz", tar_of), (".zip", zip_of)])
def test_a_bomb_stops_at_the_limit(
    suffix: str,
    pack: Callable[..., bytes],
    packed: Callable[[str, bytes], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xmr.train.fetch.archives.SMALL_BYTES", 1_000_000)
    with pytest.raises(XmrError, match=f"{MAX_EXPANSION} times its size"):
        unpack(packed(suffix, pack({"zeros": bytes(20_000_000)})), tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size <= 1_000_000


def test_text_that_packs_well_is_no_bomb(packed: Callable[[str, bytes], Path], tmp_path: Path) -> None:
    assert SMALL_BYTES >= 20_000_000
    assert unpack(packed(".zip", zip_of({"zeros": bytes(20_000_000)})), tmp_path / "out").size_bytes == 20_000_000


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".tgz", tar_of({"noise": CONTENT})[:-1_000_000]),
        (".zip", zip_of(MEMBERS)[:-10]),
        (".gz", gzip.compress(CONTENT)[:-10]),
        (".zip", b"<html>please log in</html>"),
        (".tgz", b"<html>please log in</html>"),
        (".gz", b"<html>please log in</html>"),
    ],
)
def test_a_damaged_archive_is_named(
    suffix: str, content: bytes, packed: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    with pytest.raises(XmrError, match=r"packed.*: not an archive that can be read"):
        unpack(packed(suffix, content), tmp_path / "out")


# A dataset


@pytest.fixture
def birds(site: Site) -> DatasetToFetch:
    """Two archives and a plain file on the test's server."""
    images, text = tar_of({"birds/001.jpg": CONTENT}), zip_of({"birds/list.txt": b"001.jpg"})
    site.files.update({"images.tgz": images, "text.zip": text})
    return DatasetToFetch(
        name="birds",
        what="birds",
        use="image-text pairs",
        paper="none",
        home="https://birds.example",
        licence="CC0",
        size_gb=0.003,
        train="--data cub:FOLDER/birds",
        layout="FOLDER/birds",
        files=(
            FileToFetch(f"{site.url}/images.tgz", len(images), f"sha256:{hashlib.sha256(images).hexdigest()}"),
            FileToFetch(f"{site.url}/text.zip"),
            FileToFetch(f"{site.url}/birds.bin?raw=1", None, f"md5:{MD5}"),
        ),
    )


def test_a_data_set_is_fetched_and_unpacked(site: Site, birds: DatasetToFetch, tmp_path: Path) -> None:
    site.files["birds.bin?raw=1"] = CONTENT
    done = fetch(birds, tmp_path / "data")
    assert [(each.name, each.compared) for each in done] == [
        ("images.tgz", "sha256"),
        ("text.zip", ""),
        ("birds.bin", "md5"),
    ]
    assert done[1].sha256 == hashlib.sha256(site.files["text.zip"]).hexdigest()
    assert names(tmp_path / "data") == [
        "birds.bin",
        "birds.bin.sha256",
        "birds/001.jpg",
        "birds/list.txt",
        "images.tgz.sha256",
        "text.zip.sha256",
    ]
    assert (tmp_path / "data" / "birds.bin.sha256").read_text() == f"{SHA256}  birds.bin\n"


def test_what_was_fetched_is_not_asked_for_again(site: Site, birds: DatasetToFetch, tmp_path: Path) -> None:
    notes: list[str] = []
    birds = replace(birds, files=birds.files[:2])
    first = fetch(birds, tmp_path)
    site.asked.clear()
    assert fetch(birds, tmp_path, note=notes.append) == first
    assert site.asked == []
    assert "fetched before" in notes[0]


def test_archives_stay_on_request(birds: DatasetToFetch, tmp_path: Path) -> None:
    fetch(replace(birds, files=birds.files[:1]), tmp_path, keep_archives=True)
    assert names(tmp_path) == ["birds/001.jpg", "images.tgz", "images.tgz.sha256"]


def test_an_archive_that_somebody_put_there_is_unpacked(site: Site, birds: DatasetToFetch, tmp_path: Path) -> None:
    (tmp_path / "images.tgz").write_bytes(site.files["images.tgz"])
    fetch(replace(birds, files=birds.files[:1]), tmp_path)
    assert site.asked == []
    assert names(tmp_path) == ["birds/001.jpg", "images.tgz.sha256"]


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(birds: DatasetToFetch, tmp_path: Path) -> None:
    (tmp_path / "images.tgz").write_bytes(tar_of({"other.jpg": b"other"}))
    with pytest.raises(XmrError, match=r"images\.tgz: sha256 .* found, .* expected; remove it"):
        fetch(replace(birds, files=birds.files[:1]), tmp_path)
    assert names(tmp_path) == ["images.tgz"]


def test_an_evil_archive_is_not_marked_as_done(site: Site, birds: DatasetToFetch, tmp_path: Path) -> None:
    site.files["text.zip"] = zip_of({"../evil.txt": b"evil"})
    with pytest.raises(XmrError, match="do not trust this archive"):
        fetch(replace(birds, files=birds.files[1:2]), tmp_path / "data")
    assert names(tmp_path) == ["data/text.zip"]


def test_the_disk_must_hold_archives_and_what_is_in_them(site: Site, birds: DatasetToFetch, tmp_path: Path) -> None:
    huge = replace(birds, files=(replace(birds.files[0], size_bytes=10**15),))
    with pytest.raises(XmrError, match=r"2000000\.00 GB needed"):
        fetch(huge, tmp_path)
    assert site.asked == []


def test_what_needs_a_form_says_whom_to_ask(tmp_path: Path) -> None:
    with pytest.raises(XmrError, match=r"flickr30k: cannot be downloaded without asking; fill in the form https://"):
        fetch(find("flickr30k"), tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean flickr8k"):
        find("flikr8k")
    with pytest.raises(UsageError, match="known are cub, cub-captions"):
        find("zzz")


def test_a_description_names_the_folder_in_its_commands() -> None:
    facts = describe(find("cub"), Path("birds"))
    assert facts["how to get it"] == "xmr fetch cub --to birds"
    assert facts["train"] == "xmr train --data cub:birds/CUB_200_2011"
    assert "FOLDER" not in "".join(map(str, describe(find("flickr8k-spoken")).values()))


@pytest.mark.parametrize("dataset", DATASETS_TO_FETCH.values(), ids=list(DATASETS_TO_FETCH))
def test_every_data_set_can_be_had_or_asked_for(dataset: DatasetToFetch) -> None:
    assert bool(dataset.files) != bool(dataset.ask)
    assert all((dataset.what, dataset.use, dataset.paper, dataset.licence, dataset.layout))
    assert urlsplit(dataset.home).scheme == "https"
    assert re.fullmatch(r"--(data [\w-]+:|set words\.file=)FOLDER\S*", dataset.train)
    assert len({file.name for file in dataset.files}) == len(dataset.files)
    for file in dataset.files:
        assert urlsplit(file.url).scheme in ("http", "https")
        assert urlsplit(file.url).scheme == "https" or (file.checksum or "").startswith("sha256:")
        assert is_archive(file.name)
        assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum or "md5:" + "0" * 32)


def test_the_published_sizes_add_up_to_the_stated_one() -> None:
    for name in ("cub", "karpathy", "coco"):
        dataset = fetching.DATASETS_TO_FETCH[name]
        total = sum(file.size_bytes or 0 for file in dataset.files) / 1e9
        assert dataset.size_gb == pytest.approx(total, rel=0.02)
