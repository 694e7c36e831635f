"""Where in a picture and when in a sound: what is asked with, what is looked into, and who waits meanwhile."""

import base64
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import must_run
from serving import TestClient, client_of
from test_localize import RED, edit, red_square, seeing_red, without_maps  # noqa: F401, the model whose maps are known
from test_media_video import grey, write_video

from xmr.engine.localize import as_record, localize
from xmr.engine.model import Model
from xmr.engine.serve import service as service_module
from xmr.engine.serve import where as where_module

LONG_S = 70  # of a film, of which a window alone is looked into
Record = dict[str, Any]


def quiet(duration_s: float, loud_s: float, rate_hz: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Near silence, but for a quarter of a second."""
    samples = np.full(round(duration_s * rate_hz), 0.01, dtype=np.float32)
    samples[round(loud_s * rate_hz) : round((loud_s + 0.25) * rate_hz)] = 0.8
    return samples


def write_film(path: Path, n_pictures: int, duration_s: float, loud_s: float) -> Path:
    """A picture a second, of which the third has a red square; and its sound."""
    pictures = [grey(200) for _ in range(n_pictures)]
    pictures[2][0:12, 32:48] = RED
    times = [float(second) for second in range(n_pictures)]
    return write_video(path, pictures, times=times, sounds=[(0.0, quiet(duration_s, loud_s, 16_000))])


@pytest.fixture(scope="module")
def looked(finished_world: Path, seeing_red: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A workspace of files in which "a bell" is what is red, and what is loud."""
    world = tmp_path_factory.mktemp("looked") / "world"
    shutil.copytree(seeing_red, world / ".xmr" / "model")
    corpus = world / "corpus"
    corpus.mkdir()
    red_square(corpus / "red.png", (400, 200), (200, 0, 300, 50))
    soundfile.write(corpus / "loud.wav", quiet(5, 3.5, 22050), 22050)
    write_film(corpus / "film.mp4", 5, 5.0, 3.5)
    write_film(corpus / "long.mp4", 4, LONG_S, 66.5)
    (corpus / "lines.txt").write_text("a bell\n")
    red_square(world / "member.png", (300, 300), (0, 225, 75, 300))
    with tarfile.open(world / "files.tar", "w") as archive:
        archive.add(world / "member.png", "member.png")
    must_run("init", cwd=world)
    must_run("index", "corpus", "files.tar", cwd=world)
    return world


@pytest.fixture(scope="module")
def client(looked: Path) -> Iterator[TestClient]:
    with client_of(looked) as opened:
        yield opened


def items(client: TestClient, path: str, modality: str) -> list[Record]:
    """Of a file, in its order."""
    condition = f"path LIKE '%{path}'"
    answered = client.post("/v1/search", json={"text": "a bell", "to": modality, "where": condition, "k": 500})
    hits: list[Record] = answered.json()["hits"]
    return sorted(hits, key=lambda hit: hit["start_s"] or 0)


def item(client: TestClient, path: str, modality: str, second: float = 0.0) -> int:
    """The last one of a file that has begun by a second."""
    return int([hit for hit in items(client, path, modality) if (hit["start_s"] or 0) <= second][-1]["id"])


def where(client: TestClient, of: int, **question: Any) -> Record:
    answered = client.post(f"/v1/items/{of}/where", json=question)
    assert answered.status_code == 200, answered.text
    found: Record = answered.json()
    return found


def as_data(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


# what is looked into


def test_words_are_found_in_a_picture(client: TestClient) -> None:
    found = where(client, item(client, "red.png", "image"), text="a bell")
    assert (found["point"], found["box"]) == ([250, 25], [200, 0, 100, 50])
    assert (found["size"], found["area"], np.shape(found["values"])) == ([400, 200], [0, 0, 400, 200], (4, 4))


def test_words_are_found_in_a_sound(client: TestClient) -> None:
    found = where(client, item(client, "loud.wav", "sound"), text="a bell")
    assert (found["seconds"], found["span_s"], found["duration_s"]) == (3.625, [3.5, 3.75], 5)
    assert len(found["values"]) == len(found["spans_s"]) == 20


def test_a_member_of_an_archive_is_looked_into(client: TestClient) -> None:
    found = where(client, item(client, "member.png", "image"), text="a bell")
    assert (found["point"], found["size"]) == ([37.5, 262.5], [300, 300])


def test_a_moment_of_a_video_is_looked_into_as_its_picture(client: TestClient) -> None:
    found = where(client, item(client, "film.mp4", "image", second=2), text="a bell")
    assert (found["point"], found["size"], found["box"]) == ([40, 6], [64, 48], [32, 0, 16, 12])
    before = where(client, item(client, "film.mp4", "image", second=1), text="a bell")
    assert np.ptp(before["values"]) < 0.1 * np.ptp(found["values"])  # it is all grey


@pytest.mark.parametrize(("name", "loud_s"), [("film.mp4", 3.5), ("long.mp4", 66.5)])
def test_seconds_of_a_video_are_told_as_seconds_of_the_file(client: TestClient, name: str, loud_s: float) -> None:
    found = where(client, item(client, name, "sound", second=loud_s - 0.5), text="a bell")
    assert loud_s - 0.1 < found["seconds"] < loud_s + 0.35  # the codec blurs, and steps are of a quarter
    start_s, end_s = found["span_s"]
    assert start_s <= found["seconds"] <= end_s
    assert found["spans_s"][0][0] <= start_s < end_s <= found["spans_s"][-1][1] <= LONG_S + 1


def test_of_a_long_sound_only_the_window_is_looked_into(client: TestClient) -> None:
    [hit] = [hit for hit in items(client, "long.mp4", "sound") if hit["start_s"] == 40]
    found = where(client, hit["id"], text="a bell")
    assert found["spans_s"][0][0] == hit["start_s"]
    assert found["spans_s"][-1][1] == hit["end_s"]


# what is looked for


def test_words_are_asked_in_the_address_too(client: TestClient) -> None:
    of = item(client, "red.png", "image")
    for name in ("text", "query"):
        assert client.get(f"/v1/items/{of}/where", params={name: "a bell"}).json() == where(client, of, text="a bell")


def test_a_dropped_picture_is_looked_for_in_a_sound(client: TestClient, looked: Path) -> None:
    picture, sound = looked / "corpus" / "red.png", looked / "corpus" / "loud.wav"
    found = where(client, item(client, "loud.wav", "sound"), image=as_data(picture, "image/png"))
    expected = localize(Model.open(looked / ".xmr" / "model"), "image", picture, "sound", sound)
    assert {name: found[name] for name in ("seconds", "score")} == pytest.approx(
        {name: as_record(expected)[name] for name in ("seconds", "score")}, abs=2e-4
    )
    np.testing.assert_allclose(found["values"], expected.values, atol=2e-4)


def test_of_a_sound_the_second_that_names_the_place_is_told_where_both_give_shares(
    client: TestClient, looked: Path, tmp_path: Path
) -> None:
    world = Path(shutil.copytree(looked, tmp_path / "world"))
    for modality in ("image", "sound"):
        edit(
            world / ".xmr" / "model",
            lambda config, of=modality: config["modalities"][of]["maps"].update(gives="shares"),
        )
    sound, picture = world / "corpus" / "loud.wav", world / "corpus" / "red.png"
    expected = localize(Model.open(world / ".xmr" / "model"), "sound", sound, "image", picture)
    with client_of(world) as opened:
        of = item(opened, "red.png", "image")
        found = where(opened, of, sound=as_data(sound, "audio/wav"))
        others = [
            where(opened, of, **question)
            for question in ({"text": "a bell"}, {"minus_sound": as_data(sound, "audio/wav")})
        ]
    assert found["heard_s"] == as_record(expected)["heard_s"] == 3.625
    np.testing.assert_allclose(found["values"], expected.values, atol=2e-4)
    assert not any("heard_s" in other for other in others)
    of = item(client, "red.png", "image")
    assert "heard_s" not in where(client, of, sound=as_data(sound, "audio/wav"))


def test_an_upload_an_item_and_a_data_address_are_the_same_question(client: TestClient, looked: Path) -> None:
    of, sound = item(client, "red.png", "image"), looked / "corpus" / "loud.wav"
    by_data = where(client, of, sound=as_data(sound, "audio/wav"))
    by_form = client.post(f"/v1/items/{of}/where", files={"sound": sound.open("rb")}).json()
    assert by_form == by_data
    by = item(client, "film.mp4", "image", second=2)
    by_item = where(client, of, image={"item": by})
    assert by_item == where(client, of, like=by)
    assert by_item == client.get(f"/v1/items/{of}/where", params={"like": by}).json()


def test_a_line_of_text_is_looked_for_as_its_words(client: TestClient) -> None:
    of, line = item(client, "red.png", "image"), item(client, "lines.txt", "text")
    assert where(client, of, like=line)["point"] == [250, 25]


def test_a_video_is_looked_for(client: TestClient, looked: Path) -> None:
    film, of = looked / "corpus" / "film.mp4", item(client, "loud.wav", "sound")
    vector = Model.open(looked / ".xmr" / "model").embed_video(film).tolist()
    found = where(client, of, video=as_data(film, "video/mp4"))
    np.testing.assert_allclose(found["values"], where(client, of, image={"vector": vector})["values"], atol=2e-4)


def test_a_question_of_several_parts_is_looked_for_as_a_whole(client: TestClient) -> None:
    of = item(client, "red.png", "image")
    both = where(client, of, text=["a bell", "a dog"], weights={"text": [1, 0]})
    assert both == where(client, of, text="a bell")
    assert where(client, of, text="a bell", minus_text="a dog")["score"] != both["score"]


# what is refused


@pytest.mark.parametrize(
    ("path", "question", "status", "said"),
    [
        ("red.png", {}, 422, "no question found"),
        ("red.png", {"like": 999_999}, 404, "no item 999999"),
        ("red.png", {"image": "nothing"}, 422, "no data: URI found"),
        ("red.png", {"text": "zzz"}, 400, "none of its words"),
        ("red.png", {"colour": "red"}, 422, "colour"),
        ("lines.txt", {"text": "a bell"}, 400, "a sentence has no places to be told"),
    ],
)
def test_what_cannot_be_looked_into_is_told(
    client: TestClient, path: str, question: Record, status: int, said: str
) -> None:
    of = item(client, path, "text" if path.endswith(".txt") else "image")
    answered = client.post(f"/v1/items/{of}/where", json=question)
    assert answered.status_code == status, answered.text
    assert said in answered.json()["error"]["message"]


def test_an_item_that_is_not_there_is_told(client: TestClient) -> None:
    for answered in (
        client.post("/v1/items/999999/where", json={"text": "a bell"}),
        client.get("/v1/items/999999/where?text=a+bell"),
    ):
        assert (answered.status_code, answered.json()["error"]["code"]) == (404, "no_item")


def test_a_model_without_maps_says_so(looked: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(looked, tmp_path / "world"))
    without_maps(world / ".xmr" / "model", "image", "sound")
    with client_of(world) as bare:
        answered = bare.get(f"/v1/items/{item(bare, 'red.png', 'image')}/where?text=a+bell")
    assert answered.status_code == 400
    assert "keeps no maps, so it cannot tell where in image something is" in answered.json()["error"]["message"]


def test_a_file_that_is_gone_or_damaged_is_told(looked: Path, tmp_path: Path) -> None:
    corpus = looked / "corpus"
    with client_of(looked) as opened:
        of = item(opened, "red.png", "image")
        kept = shutil.move(corpus / "red.png", tmp_path / "red.png")
        try:
            gone = opened.post(f"/v1/items/{of}/where", json={"text": "a bell"})
            (corpus / "red.png").write_bytes(b"no picture")
            damaged = opened.post(f"/v1/items/{of}/where", json={"text": "a bell"})
        finally:
            shutil.move(kept, corpus / "red.png")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_media")
    assert (damaged.status_code, damaged.json()["error"]["code"]) == (422, "bad_file")
    assert str(looked) not in damaged.text


# who waits meanwhile


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looks that begin and do not end before it is set."""
    free, look = threading.Event(), where_module.localize_vector

    def slow(*arguments: Any) -> Any:
        assert free.wait(60)
        return look(*arguments)

    monkeypatch.setattr(where_module, "localize_vector", slow)
    yield free
    free.set()


def test_who_searches_does_not_wait_for_who_looks(client: TestClient, stuck: threading.Event) -> None:
    of = item(client, "red.png", "image")
    found: list[Record] = []
    looking = threading.Thread(target=lambda: found.append(where(client, of, text="a bell")))
    looking.start()
    assert len(items(client, "red.png", "image")) == 1
    assert client.get(f"/v1/items/{of}/thumbnail").status_code == 200
    assert not found
    stuck.set()
    looking.join()
    assert found[0]["point"] == [250, 25]


def test_a_look_that_takes_too_long_is_given_up(looked: Path, stuck: threading.Event) -> None:
    with client_of(looked, answer_s=0.5) as opened:
        answered = opened.post(f"/v1/items/{item(opened, 'red.png', 'image')}/where", json={"text": "a bell"})
        stuck.set()
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "too_slow")


def test_of_too_many_looks_the_last_are_refused(
    looked: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MAX_LOOKING", 2)
    with client_of(looked) as opened:
        of = item(opened, "red.png", "image")
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(opened.post(f"/v1/items/{of}/where", json={"text": "a bell"}).status_code)

        waiting = [threading.Thread(target=ask) for _ in range(5)]
        for one in waiting:
            one.start()
        until_s = time.monotonic() + 30
        while len(statuses) < 3 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert statuses == [503, 503, 503]
        stuck.set()
        for one in waiting:
            one.join()
    assert sorted(statuses) == [200, 200, 503, 503, 503]
