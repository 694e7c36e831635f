"""Items and their files over HTTP: ranges, what shows them, members of archives, files that changed or are gone."""

import asyncio
import base64
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from serving import TestClient, client_of
from test_media_video import grey, sine, write_video

from xmr.engine.corpus import scan
from xmr.engine.exchange.rows import Block, Entry
from xmr.engine.index import Index
from xmr.engine.model import Model
from xmr.engine.serve.place import CHUNK_BYTES

LEVELS = (40, 120, 200)  # of grey, a second each
LARGE = 64_000_000  # bytes
Record = dict[str, Any]


@pytest.fixture(scope="module")
def shelf(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a picture, a sound and a film, and the same in an archive."""
    world = tmp_path_factory.mktemp("shelf") / "world"
    shutil.copytree(exported, world / ".xmr" / "model")
    corpus = world / "corpus"
    corpus.mkdir()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(corpus / "red.png")
    soundfile.write(corpus / "tone.wav", sine(2.0), 16_000)
    seconds = [float(second) for second in range(len(LEVELS))]
    write_video(corpus / "film.mp4", map(grey, LEVELS), times=seconds, sounds=[(0.0, sine(3.0))])
    with tarfile.open(world / "files.tar", "w") as archive:
        for path in sorted(corpus.iterdir()):
            archive.add(path, f"inside/{path.name}")
    add(world)
    return world


def add(world: Path) -> None:
    """Index what is new."""
    model, folder = Model.open(world / ".xmr" / "model"), world / ".xmr" / "index"
    with closing(Index.open(folder) if folder.exists() else Index.create(folder, model)) as index:
        index.add(scan([world / "corpus", world / "files.tar"], ("image", "audio", "video", "text")), model, workers=1)


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    with client_of(shelf) as opened:
        yield opened


@pytest.fixture
def moved(shelf: Path, tmp_path: Path) -> Path:
    """A workspace of this test alone, whose files may change."""
    world = Path(shutil.copytree(shelf, tmp_path / "world"))
    shutil.rmtree(world / ".xmr" / "index")
    add(world)
    return world


def hits(client: TestClient, path: str, modality: str) -> list[Record]:
    """Of a file, in its order."""
    condition = f"path = '{path.removeprefix('corpus/')}' OR path LIKE '%{path}'"
    question = {"text": "a bell", "to": modality, "where": condition, "k": 100}
    found: list[Record] = client.post("/v1/search", json=question).json()["hits"]
    assert found
    return sorted(found, key=lambda hit: hit["start_s"] or 0)


def refusal(answered: Any) -> tuple[int, str]:
    return answered.status_code, answered.json()["error"]["code"]


def level(jpeg: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


# bytes and ranges of them


@pytest.mark.parametrize("path", ["corpus/red.png", "inside/red.png", "inside/tone.wav", "inside/film.mp4"])
def test_media_are_the_bytes_that_were_indexed(client: TestClient, shelf: Path, path: str) -> None:
    content = (shelf / "corpus" / Path(path).name).read_bytes()
    modality = "sound" if path.endswith(".wav") else "image"
    answered = client.get(hits(client, path, modality)[0]["media"])
    assert answered.content == content
    kinds = {".png": "image/png", ".wav": "audio/wav", ".mp4": "video/mp4"}
    assert answered.headers["content-type"] == kinds[Path(path).suffix]


@pytest.mark.parametrize("path", ["corpus/tone.wav", "inside/tone.wav"])
@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-5", -5, None),
        ("bytes=-99999999", 0, None),  # the last so many of fewer: all
        ("bytes=10-99999999", 10, None),
        ("Bytes = 10 - 19 ", 10, 20),
    ],
)
def test_a_range_is_these_bytes_alone(
    client: TestClient, shelf: Path, path: str, wanted: str, begin: int, end: int | None
) -> None:
    content = (shelf / "corpus" / "tone.wav").read_bytes()
    part = client.get(hits(client, path, "sound")[0]["media"], headers={"Range": wanted})
    assert (part.status_code, part.content) == (206, content[begin:end])
    first, behind, _ = slice(begin, end).indices(len(content))
    assert part.headers["content-range"] == f"bytes {first}-{behind - 1}/{len(content)}"
    assert part.headers["content-length"] == str(behind - first)


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,4-5", "bytes=9-3", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=--5", "lines=1-2", "٣-٤"],
)
def test_a_range_that_is_none_or_several_is_answered_with_all(client: TestClient, shelf: Path, wanted: str) -> None:
    content = (shelf / "corpus" / "tone.wav").read_bytes()
    answered = client.get(hits(client, "corpus/tone.wav", "sound")[0]["media"], headers={"Range": wanted.encode()})
    assert (answered.status_code, answered.content) == (200, content)


@pytest.mark.parametrize("wanted", ["bytes={size}-", "bytes=99999999999-", "bytes=9999999999999999999999-", "bytes=-0"])
@pytest.mark.parametrize("path", ["corpus/tone.wav", "inside/tone.wav"])
def test_a_range_behind_the_end_says_how_long_the_file_is(
    client: TestClient, shelf: Path, path: str, wanted: str
) -> None:
    size = (shelf / "corpus" / "tone.wav").stat().st_size
    media = hits(client, path, "sound")[0]["media"]
    answered = client.get(media, headers={"Range": wanted.format(size=size)})
    assert refusal(answered) == (416, "range")
    assert answered.headers["content-range"] == f"bytes */{size}"


def test_head_tells_what_get_would_without_the_bytes(client: TestClient) -> None:
    media = hits(client, "inside/film.mp4", "image")[0]["media"]
    for headers in ({}, {"Range": "bytes=5-9"}):
        whole, head = client.get(media, headers=headers), client.head(media, headers=headers)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        names = ("content-length", "content-type", "etag", "accept-ranges", "content-range", "content-disposition")
        assert [head.headers.get(name) for name in names] == [whole.headers.get(name) for name in names]


def test_head_is_answered_wherever_get_is(client: TestClient) -> None:
    thumbnail = hits(client, "corpus/red.png", "image")[0]["thumbnail"]
    for address in ("/", "/healthz", "/readyz", "/v1/info", "/openapi.json", thumbnail):
        whole, head = client.get(address), client.head(address)
        assert (head.status_code, head.content) == (200, b""), address
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert client.head("/v1/search").status_code == 405


@pytest.mark.parametrize("shown", ["media", "thumbnail", "waveform", "waveform.png"])
def test_a_client_that_has_the_bytes_is_told_so(client: TestClient, shown: str) -> None:
    [hit, *_] = hits(client, "inside/film.mp4", "image")
    media = f"/v1/items/{hit['id']}/{shown}"
    tag = client.get(media).headers["etag"]
    for held in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        for method in ("GET", "HEAD"):
            answered = client.request(method, media, headers={"If-None-Match": held})
            assert (answered.status_code, answered.content, answered.headers["etag"]) == (304, b"", tag), held
    assert client.get(media, headers={"If-None-Match": '"another"'}).status_code == 200


def test_a_range_of_other_bytes_than_the_client_has_is_answered_with_all(client: TestClient) -> None:
    media = hits(client, "corpus/red.png", "image")[0]["media"]
    tag = client.get(media).headers["etag"]
    ranged = {"Range": "bytes=0-9"}
    assert client.get(media, headers=ranged | {"If-Range": tag}).status_code == 206
    assert client.get(media, headers=ranged | {"If-Range": '"another"'}).status_code == 200


def test_a_large_file_comes_in_small_parts(moved: Path) -> None:
    """Its bytes are not all held: what is sent at once is short, whatever the file is."""
    with client_of(moved) as opened:
        media = hits(opened, "corpus/red.png", "image")[0]["media"]
        os.truncate(moved / "corpus" / "red.png", LARGE)
        sizes = asyncio.run(sizes_sent(opened.app, media))
        assert opened.get(media, headers={"Range": f"bytes={LARGE - 3}-"}).content == b"\0\0\0"
    assert sum(sizes) == LARGE
    assert max(sizes) <= CHUNK_BYTES


async def sizes_sent(app: Any, path: str) -> list[int]:
    """Of the messages in which an answer is sent."""
    sizes = []

    async def receive() -> Record:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Record) -> None:
        sizes.append(len(message.get("body", b"")))

    headers = [(b"host", b"127.0.0.1")]
    about = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "GET", "client": ("127.0.0.1", 1)}
    await app(about | {"path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}, receive, send)
    return sizes


# what shows an item


@pytest.mark.parametrize("path", ["corpus/film.mp4", "inside/film.mp4"])
def test_the_thumbnail_of_a_moment_shows_its_second(client: TestClient, path: str) -> None:
    moments = hits(client, path, "image")
    assert [moment["start_s"] for moment in moments] == [0, 1, 2]
    shown = [level(client.get(moment["thumbnail"]).content) for moment in moments]
    assert shown == pytest.approx(LEVELS, abs=4)


def test_a_member_of_an_archive_is_shown_as_the_file_is(client: TestClient) -> None:
    for path, modality, shown in (
        ("red.png", "image", "thumbnail?size=64"),
        ("tone.wav", "sound", "waveform?peaks=20"),
    ):
        inside, outside = (hits(client, f"{folder}/{path}", modality)[0]["id"] for folder in ("inside", "corpus"))
        assert inside != outside
        answered = client.get(f"/v1/items/{inside}/{shown}")
        assert answered.status_code == 200
        assert answered.content == client.get(f"/v1/items/{outside}/{shown}").content


def test_the_sound_of_a_video_has_a_waveform(client: TestClient) -> None:
    [hit, *_] = hits(client, "corpus/film.mp4", "sound")
    wave = client.get(f"/v1/items/{hit['id']}/waveform?peaks=30").json()
    assert wave["duration_s"] == pytest.approx(3.0, abs=0.1)
    assert max(high for _, high in wave["peaks"]) == pytest.approx(0.5, abs=0.05)


def test_a_video_is_asked_with(client: TestClient, shelf: Path) -> None:
    film = shelf / "corpus" / "film.mp4"
    vector = Model.open(shelf / ".xmr" / "model").embed_video(film).tolist()
    expected = client.post("/v1/search", json={"image": {"vector": vector}, "k": 8}).json()["hits"]
    as_data = f"data:video/mp4;base64,{base64.b64encode(film.read_bytes()).decode()}"
    by_data = client.post("/v1/search", json={"video": as_data, "k": 8}).json()["hits"]
    by_form = client.post("/v1/search", data={"k": "8"}, files={"video": film.open("rb")}).json()["hits"]
    assert [hit["id"] for hit in by_data] == [hit["id"] for hit in by_form] == [hit["id"] for hit in expected]
    assert [hit["score"] for hit in by_data] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)


# files that are not what they were


def test_what_shows_a_file_is_made_anew_when_the_file_is_another(moved: Path) -> None:
    with client_of(moved) as opened:
        hit = hits(opened, "corpus/red.png", "image")[0]
        tag = opened.get(hit["media"]).headers["etag"]
        red = opened.get(hit["thumbnail"]).content
        Image.new("RGB", (300, 200), (255, 255, 255)).save(moved / "corpus" / "red.png")
        assert opened.get(hit["media"], headers={"If-None-Match": tag}).status_code == 200
        assert level(red) < 100
        assert level(opened.get(hit["thumbnail"]).content) > 250


def test_a_file_that_is_gone_is_told_and_still_found(moved: Path) -> None:
    with client_of(moved) as opened:
        seen, heard = (hits(opened, path, kind)[0] for path, kind in (("red.png", "image"), ("tone.wav", "sound")))
        opened.get(seen["thumbnail"])  # what was made before is not shown either
        shutil.rmtree(moved / "corpus")
        (moved / "files.tar").unlink()
        for shown in (seen["media"], seen["thumbnail"], heard["media"], heard["waveform"], f"{heard['waveform']}.png"):
            answered = opened.get(shown)
            assert refusal(answered) == (404, "no_media"), shown
            assert "not there any more; index its folder again" in answered.json()["error"]["message"]
        assert hits(opened, "corpus/red.png", "image")
        assert opened.get(f"/v1/items/{seen['id']}").json()["path"] == seen["path"]


def test_a_file_that_became_a_folder_is_told(moved: Path) -> None:
    with client_of(moved) as opened:
        hit = hits(opened, "corpus/red.png", "image")[0]
        (moved / "corpus" / "red.png").unlink()
        (moved / "corpus" / "red.png").mkdir()
        assert refusal(opened.get(hit["media"])) == (404, "no_media")


def test_a_damaged_file_is_given_but_not_shown(moved: Path) -> None:
    """Its sha256 is another than that of the catalog; who asks for the bytes gets those there are."""
    with client_of(moved) as opened:
        for path, modality, shown in (("red.png", "image", "thumbnail"), ("tone.wav", "sound", "waveform")):
            hit = hits(opened, f"corpus/{path}", modality)[0]
            (moved / "corpus" / path).write_bytes(b"damaged")
            assert opened.get(hit["media"]).content == b"damaged"
            answered = opened.get(hit[shown])
            assert refusal(answered) == (422, "bad_file")
            message = answered.json()["error"]["message"]
            assert message.startswith(path)
            assert str(moved) not in message


def test_nothing_is_cut_out_of_an_archive_that_changed(moved: Path) -> None:
    with client_of(moved) as opened:
        hit = hits(opened, "inside/red.png", "image")[0]
        with tarfile.open(moved / "files.tar", "w") as archive:
            archive.add(moved / "corpus" / "film.mp4", "inside/film.mp4")
        for shown in ("media", "thumbnail"):
            answered = opened.get(hit[shown])
            assert refusal(answered) == (404, "no_media")
            assert "archive has changed since it was indexed" in answered.json()["error"]["message"]


def test_an_item_whose_embedding_was_made_elsewhere_is_found_but_has_no_file(shelf: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(shelf, tmp_path / "world"))
    model = Model.open(world / ".xmr" / "model")
    entry = Entry("far/away.jpg", "image", metadata={"of": "a bell"})
    with closing(Index.open(world / ".xmr" / "index")) as index:
        index.append([Block(model.embed("text", ["a bell"]), [entry])])
    with client_of(world) as opened:
        [hit] = hits(opened, "away.jpg", "image")
        assert (hit["path"], hit["metadata"]) == ("away.jpg", {"of": "a bell"})
        assert (hit["media"], hit["thumbnail"], hit["waveform"]) == (None, None, None)
        for shown in ("media", "thumbnail", "where?text=a+bell"):
            answered = opened.get(f"/v1/items/{hit['id']}/{shown}")
            assert refusal(answered) == (404, "no_media")
            assert "its embedding was made elsewhere" in answered.json()["error"]["message"]


# what is told of the index


def test_no_item_without_a_file_is_an_example(tmp_path: Path, shelf: Path) -> None:
    world = Path(shutil.copytree(shelf, tmp_path / "world"))
    model = Model.open(world / ".xmr" / "model")
    shutil.rmtree(world / ".xmr" / "index")
    with closing(Index.create(world / ".xmr" / "index", model)) as index:
        index.append([Block(model.embed("text", ["a bell"]), [Entry("far/away.jpg", "image")])])
    with client_of(world) as opened:
        known = opened.get("/v1/info").json()
        assert (known["counts"], known["examples"]["items"]) == ({"image": 1}, [])


def delete_more(world: Path) -> None:
    with closing(Index.open(world / ".xmr" / "index")) as index:
        index.delete(paths=[world / "corpus" / "more.txt"])


def test_the_version_is_the_same_wherever_it_is_told(moved: Path) -> None:
    def versions(client: TestClient) -> set[str]:
        return {
            client.get("/v1/info").json()["version"],
            client.post("/v1/search", json={"text": "a bell"}).json()["version"],
        }

    with client_of(moved) as opened:
        told = [versions(opened)]
        (moved / "corpus" / "more.txt").write_text("a red bell\n")
        for change in (add, delete_more):
            change(moved)
            told.append(versions(opened))
    assert [len(each) for each in told] == [1, 1, 1]
    assert len(set.union(*told)) == 3
    with client_of(moved) as later:
        assert versions(later) == told[-1]


def test_examples_are_items_of_every_modality_and_sentences_of_the_index(moved: Path) -> None:
    (moved / "corpus" / "notes.txt").write_text(
        "\n".join(["a red bell", "a dog barks", "a red bell", "long " * 40, "rain"])
    )
    with client_of(moved) as opened:
        before = opened.get("/v1/info").json()["examples"]
        assert before["sentences"] == []
        assert {item["modality"] for item in before["items"]} == {"image", "sound"}
        add(moved)
        after = opened.get("/v1/info").json()["examples"]
        assert after["sentences"] == ["a red bell", "a dog barks", "rain"]
        assert after == opened.get("/v1/info").json()["examples"]
        for item in after["items"]:
            told = opened.get(f"/v1/items/{item['id']}").json()
            assert {name: told[name] for name in item} == item
