"""Captions are said once each by voices that rotate; what cannot be said is named and left out."""

import json
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from xmr.engine.errors import XmrError
from xmr.train import speak as speaking
from xmr.train.datasets import read_rows
from xmr.train.speak import PROGRAMS, RATE_HZ, pick_program, speak

# says each letter for 10 ms as a tone of the voice's own pitch; some words make it fail in one way or another
FAKE = f"""#!{sys.executable} -SE
import array, math, sys, time, wave
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
voice, said = given["-voice"], open(given["-f"], encoding="utf-8").read().strip()
with open({{log!r}}, "a") as log:
    print(voice, said, sep="|", file=log)
if "crash" in said:
    sys.exit("out of breath")
if "hang" in said:
    time.sleep(60)
if "nothing" in said:
    sys.exit(0)
rate = 8000 if voice == "kal" else 16000
loudness = 0 if "silence" in said else 9000
pitch_hz = 200 + 50 * ["kal16", "awb", "rms", "slt", "kal"].index(voice)
tone = [int(loudness * math.sin(2 * math.pi * pitch_hz * t / rate)) for t in range(max(40, len(said)) * rate // 100)]
with wave.open(given["-o"], "wb") as wav:
    wav.setnchannels(1)
    wav.setsampwidth(2)
    wav.setframerate(rate)
    wav.writeframes(array.array("h", tone).tobytes())
"""
SIX = [f"the dog runs for the {number}. time" for number in range(6)]

Said = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """A program named flite and no other; returns what it was asked to say, by whom."""
    log, program = tmp_path / "said.log", tmp_path / "bin" / "flite"
    program.parent.mkdir()
    program.write_text(FAKE.format(log=str(log)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))

    def read() -> list[tuple[str, str]]:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        pairs = [line.split("|", 1) for line in lines]
        return [(voice, text) for voice, text in pairs if text != "hello"]

    return read


def write_source(folder: Path, rows: list[dict[str, object]]) -> str:
    """A pairs.jsonl and its images."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        Image.new("RGB", (8, 8)).save(folder / str(row["image"]))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def photos(n_images: int, *, captions: list[str] | None = None, split: str = "train") -> list[dict[str, object]]:
    return [
        {"image": f"{split}{number}.png", "captions": captions or [f"{c} of {number}" for c in SIX], "split": split}
        for number in range(n_images)
    ]


def records(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_clip_is_said_for_every_image(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(3))
    done = speak(source, tmp_path / "spoken")
    assert (done.program, done.n_rows, done.n_spoken, done.n_kept, done.failures) == ("flite", 3, 3, 0, [])
    found = records(tmp_path / "spoken")
    assert [list(record) for record in found] == [["image", "speech", "caption", "voice", "split"]] * 3
    assert sorted(said()) == sorted((record["voice"], record["caption"]) for record in found)
    for record in found:
        clip = soundfile.info(tmp_path / "spoken" / record["speech"])
        assert (clip.samplerate, clip.channels, clip.format) == (RATE_HZ, 1, "FLAC")
        assert clip.duration == pytest.approx(max(40, len(record["caption"])) / 100, abs=1e-3)


def test_the_clips_are_what_the_program_said(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    speak(source, tmp_path / "spoken", voices=["slt"])
    samples, _ = soundfile.read(tmp_path / "spoken" / records(tmp_path / "spoken")[0]["speech"])
    expected = [int(9000 * np.sin(2 * np.pi * 350 * t / RATE_HZ)) / 32768 for t in range(len(samples))]
    np.testing.assert_allclose(samples, expected, atol=1 / 32768)


def test_a_voice_of_another_rate_is_resampled(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    speak(source, tmp_path / "spoken", voices=["kal"])
    samples, rate = soundfile.read(tmp_path / "spoken" / records(tmp_path / "spoken")[0]["speech"])
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert rate == RATE_HZ
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(400, abs=3)


def test_the_result_is_training_data_of_the_same_images(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", [photos(1)[0] | {"label": "dog"}, photos(2)[1] | {"id": "seven"}])
    speak(source, tmp_path / "spoken", captions_per_image=2)
    written = read_rows([source])
    spoken = read_rows([str(tmp_path / "spoken")])
    assert [row.modalities for row in spoken] == [["image", "speech", "text"]] * 4
    for row, original in zip(spoken, [written[0], written[0], written[1], written[1]], strict=True):
        assert (row.id, row.key, row.split) == (original.id, original.key, original.split)
        assert row.files["image"] == original.files["image"]
        assert row.captions[0] in original.captions


def test_an_image_has_several_captions_by_several_voices(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(5))
    speak(source, tmp_path / "spoken", captions_per_image=4)
    found = records(tmp_path / "spoken")
    for image in {record["image"] for record in found}:
        of_image = [record for record in found if record["image"] == image]
        assert len({record["caption"] for record in of_image}) == 4
        assert {record["voice"] for record in of_image} == set(PROGRAMS["flite"].default_voices)


def test_voices_and_captions_are_used_evenly(tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(400, captions=SIX))
    [*chosen] = (
        said
        for row in read_rows([source])
        for said in speaking._utterances(row, 1, PROGRAMS["flite"].default_voices, PROGRAMS["flite"])
    )
    voices, captions = Counter(each.voice for each in chosen), Counter(each.caption for each in chosen)
    assert all(70 <= n <= 130 for n in voices.values())  # 100 expected, a standard deviation is 9
    assert all(40 <= n <= 95 for n in captions.values())  # 67 expected
    both = Counter((each.voice, each.caption) for each in chosen)
    assert len(both) == 4 * 6


def test_no_more_captions_than_there_are(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1, captions=["a dog", "a cat"]))
    assert speak(source, tmp_path / "spoken", captions_per_image=5).n_rows == 2


def test_a_second_run_says_nothing_again(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(3))
    speak(source, tmp_path / "spoken")
    first, n_said = records(tmp_path / "spoken"), len(said())
    done = speak(source, tmp_path / "spoken")
    assert (done.n_spoken, done.n_kept) == (0, 3)
    assert (records(tmp_path / "spoken"), len(said())) == (first, n_said)


def test_what_is_missing_or_damaged_is_said_again(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(3))
    speak(source, tmp_path / "spoken")
    gone, damaged, _ = sorted((tmp_path / "spoken" / "speech").iterdir())
    gone.unlink()
    damaged.write_bytes(b"fLaC")
    done = speak(source, tmp_path / "spoken")
    assert (done.n_spoken, done.n_kept) == (2, 1)
    assert soundfile.info(damaged).frames > 0


def test_an_interrupted_run_keeps_its_clips(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(6))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        speak(source, tmp_path / "spoken", workers=1, progress=interrupt)
    there = list((tmp_path / "spoken" / "speech").glob("*.flac"))
    assert 1 <= len(there) < 6
    assert speak(source, tmp_path / "spoken").n_kept == len(there)


def test_a_caption_that_changed_is_said_anew(said: Said, tmp_path: Path) -> None:
    speak(write_source(tmp_path / "photos", photos(1, captions=["a dog"])), tmp_path / "spoken")
    done = speak(write_source(tmp_path / "photos", photos(1, captions=["a cat"])), tmp_path / "spoken")
    assert (done.n_spoken, done.n_kept) == (1, 0)
    assert [record["caption"] for record in records(tmp_path / "spoken")] == ["a cat"]


def test_a_run_for_one_split_leaves_the_others(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", [*photos(2), *photos(2, split="val")])
    speak(source, tmp_path / "spoken", splits=["train"], captions_per_image=2)
    speak(source, tmp_path / "spoken", splits=["val"])
    assert Counter(record["split"] for record in records(tmp_path / "spoken")) == {"train": 4, "val": 2}


def test_limit_counts_images_of_each_split(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", [*photos(3), *photos(3, split="val")])
    assert speak(source, tmp_path / "spoken", limit=2, captions_per_image=2).n_rows == 8


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("it will crash", "flite exits 1: out of breath"),
        ("silence of the lambs", "only silence came out"),
        ("nothing at all", "no sound came out"),
        (" . !", "no word in it that can be said"),
        ("愛", "no word in it that can be said"),
        ("they hang around", "not done within 1 s"),
    ],
)
def test_a_caption_that_cannot_be_said_is_named_and_left_out(
    caption: str, reason: str, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "TIMEOUT_S", 1)
    rows = [*photos(1, captions=["a dog"]), photos(2, captions=[caption])[1]]
    done = speak(write_source(tmp_path / "photos", rows), tmp_path / "spoken")
    assert (done.n_rows, done.n_spoken) == (1, 1)
    assert [record["caption"] for record in records(tmp_path / "spoken")] == ["a dog"]
    [failure] = done.failures
    assert "train1.png" in failure
    assert reason in failure


@pytest.mark.parametrize(
    ("caption", "spoken"),
    [
        ("-o /etc/passwd", "-o /etc/passwd"),
        ("$(rm -rf /) ; `ls` | cat", "$(rm -rf /) ; `ls` | cat"),
        ("two\nlines\tand \0 more", "two lines and more"),
        ("a café\u2019s \u201cnaïve\u201d dog", 'a cafe\'s "naive" dog'),
        ("a dog—a cat", "a dog a cat"),
    ],
)
def test_a_caption_is_text_and_nothing_else(caption: str, spoken: str, said: Said, tmp_path: Path) -> None:
    done = speak(write_source(tmp_path / "photos", photos(1, captions=[caption])), tmp_path / "spoken")
    assert done.failures == []
    assert [text for _, text in said()] == [spoken]
    assert records(tmp_path / "spoken")[0]["caption"] == caption


def test_a_long_strange_name_of_an_image_is_no_obstacle(said: Said, tmp_path: Path) -> None:
    rows = [{"image": f"{'a b' * 60}.png", "captions": ["a dog"]}]
    speak(write_source(tmp_path / "photos", rows), tmp_path / "spoken")
    assert read_rows([str(tmp_path / "spoken")])[0].files["speech"].is_file()


def test_the_pairs_of_others_are_never_replaced(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    before = (tmp_path / "photos" / "pairs.jsonl").read_bytes()
    with pytest.raises(XmrError, match="holds rows that were not made from text; choose another folder"):
        speak(source, tmp_path / "photos")
    assert (tmp_path / "photos" / "pairs.jsonl").read_bytes() == before


@pytest.mark.parametrize("voice", ["nobody", "-o", "../kal16", "http://evil.example/voice.flitevox"])
def test_an_unknown_voice_is_refused(voice: str, said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    with pytest.raises(XmrError, match="flite has no such voice; choose among kal16, awb, rms, slt, kal"):
        speak(source, tmp_path / "spoken", voices=["slt", voice])


def test_a_program_that_does_not_work_fails_once(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    (tmp_path / "bin" / "flite").write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(XmrError, match=r"flite cannot speak with the voice kal16 \(flite exits 7\)"):
        speak(source, tmp_path / "spoken")


def test_a_split_without_captions_is_an_error(said: Said, tmp_path: Path) -> None:
    source = write_source(tmp_path / "photos", photos(1))
    with pytest.raises(XmrError, match="no image with a caption in the split test"):
        speak(source, tmp_path / "spoken", splits=["train", "test"])


def test_no_program_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(XmrError, match=r"flite and espeak-ng not found; .* `apt install flite`"):
        pick_program()
    with pytest.raises(XmrError, match=r"espeak-ng not found; .* `apt install espeak-ng`"):
        pick_program("espeak-ng")
    with pytest.raises(XmrError, match="festival: no program that reads aloud is known by this name"):
        pick_program("festival")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_real_program_says_a_sentence(program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed; apt install {program}")
    source = write_source(tmp_path / "photos", photos(1, captions=[f"a small red bell, number {n}" for n in range(4)]))
    done = speak(source, tmp_path / "spoken", captions_per_image=4, program=program)
    assert (done.program, done.n_spoken, done.failures) == (program, 4, [])
    for record in records(tmp_path / "spoken"):
        samples, rate = soundfile.read(tmp_path / "spoken" / record["speech"])
        assert rate == RATE_HZ
        assert 1 < len(samples) / rate < 6
        assert np.sqrt(np.mean(samples**2)) > 0.01
    assert len({record["voice"] for record in records(tmp_path / "spoken")}) == 4
