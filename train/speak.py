"""Spoken captions from written ones: a program that reads aloud says each, one clip a caption.

Image and speech can be paired so where nobody recorded any. A clip's name tells what was said, by whom and how, so an
interrupted run goes on where it stopped. The voices are few and read evenly: a model of real speech needs real speech.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.files import sync_folder, write_whole
from xmr.train.datasets import Row, read_rows

RATE_HZ = 16000  # of the clips, the rate of the spoken-caption datasets
TIMEOUT_S = 60.0  # for one caption
SHORTEST_S = 0.1  # less is no word
QUOTES = str.maketrans({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})  # typographic to plain
VOICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class SpeechProgram:
    """A program that reads a text file aloud into a wav."""

    command: str
    default_voices: tuple[str, ...]
    other_voices: tuple[str, ...] | None  # None: any that it knows
    is_ascii_only: bool
    arguments: Callable[[str, Path, Path], list[str]]  # of voice, text file, wav


@dataclass(frozen=True)
class Utterance:
    """One caption, the voice that says it, and where."""

    row: Row
    caption: str
    voice: str
    clip: Path  # relative to the folder that is written


@dataclass(frozen=True)
class SpeakSummary:
    """What came of a run."""

    program: str
    n_rows: int  # rows of these splits that pairs.jsonl now holds
    n_spoken: int  # clips made now
    n_kept: int  # clips that were there
    failures: list[str]  # one sentence a caption that has no clip


def speak(
    source: str,
    folder: Path,
    *,
    captions_per_image: int = 1,
    splits: Sequence[str] | None = None,
    voices: Sequence[str] | None = None,
    limit: int | None = None,
    program: str = "auto",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SpeakSummary:
    """Say captions of the images of a data source; write speech/ (16 kHz mono flac) and pairs.jsonl into a folder.

    A row of the result is one image, one caption and its clip. Which captions of an image are said, and by which
    voice, follows from the image's name alone. `limit` is the most images of a split; splits None: all of them; rows
    that the folder has of other splits stay. workers 0: as many as CPUs. progress is told clips done, of how many.
    """
    asked = _select(read_rows([source]), splits, limit, source)
    _check_folder(folder)
    chosen = pick_program(program)
    names = _check_voices(chosen, voices)
    utterances = [said for row in asked for said in _utterances(row, captions_per_image, names, chosen)]
    clips = {said.clip: said for said in utterances}  # an image that stands in two rows says the same twice
    missing = [said for clip, said in clips.items() if not _is_whole(folder / clip)]
    n_kept = len(clips) - len(missing)
    (folder / "speech").mkdir(parents=True, exist_ok=True)
    failed: dict[Path, str] = {}
    for n_done, (said, error) in enumerate(_say_all(chosen, missing, folder, workers), start=1):
        if error is not None:
            failed[said.clip] = f"{said.row.id}: {said.caption[:60]!r} not said by {said.voice} ({error})"
        if progress is not None:
            progress(n_kept + n_done, len(clips))
    sync_folder(folder / "speech")
    rows = [_record(said) for said in utterances if said.clip not in failed]
    _write_pairs(folder, rows, {row.split for row in asked})
    return SpeakSummary(chosen.command, len(rows), len(missing) - len(failed), n_kept, list(failed.values()))


def pick_program(name: str = "auto") -> SpeechProgram:
    """The program of this name, or the first of PROGRAMS that is installed."""
    if name != "auto" and name not in PROGRAMS:
        raise XmrError(f"{name}: no program that reads aloud is known by this name; one of {', '.join(PROGRAMS)}, auto")
    wanted = list(PROGRAMS) if name == "auto" else [name]
    for each in wanted:
        if shutil.which(each):
            return PROGRAMS[each]
    raise XmrError(f"{' and '.join(wanted)} not found; install one that reads aloud, as `apt install {wanted[0]}`")


def _select(rows: Iterable[Row], splits: Sequence[str] | None, limit: int | None, source: str) -> list[Row]:
    """Rows with an image and captions of these splits, the first `limit` of each."""
    by_split: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "image" in row.files and row.captions and (splits is None or row.split in splits):
            by_split[row.split].append(row)
    if empty := [split for split in splits or () if split not in by_split]:
        raise XmrError(f"{source}: no image with a caption in the split {empty[0]}; choose another split or file")
    if not by_split:
        raise XmrError(f"{source}: no image with a caption in it; nothing can be said")
    return [row for split in by_split.values() for row in split[:limit]]


def _check_folder(folder: Path) -> None:
    """A pairs.jsonl that somebody else wrote is never replaced."""
    if any("voice" not in record for record in _read_records(folder)):
        raise XmrError(f"{folder / 'pairs.jsonl'}: holds rows that were not made from text; choose another folder")


def _check_voices(program: SpeechProgram, voices: Sequence[str] | None) -> list[str]:
    """The voices to use; each says a word first, so that a program that does not work fails here, once."""
    names = list(dict.fromkeys(program.default_voices if voices is None else voices))
    known = program.default_voices + (program.other_voices or ())
    for name in names:
        if not VOICE_NAME.fullmatch(name) or (program.other_voices is not None and name not in known):
            raise XmrError(f"{name!r}: {program.command} has no such voice; choose among {', '.join(known)}")
        try:
            _synthesise(program, "hello", name)
        except XmrError as error:
            raise XmrError(f"{program.command} cannot speak with the voice {name} ({error}); try another") from None
    if not names:
        raise XmrError(f"no voice given; choose among {', '.join(known)}")
    return names


def _utterances(row: Row, n_captions: int, voices: Sequence[str], program: SpeechProgram) -> Iterator[Utterance]:
    """The captions of one image to say; where to start among captions and voices is drawn from the image's name.

    Datasets list the captions of an image in alphabetical order, so the first ones are no fair choice.
    """
    stem = row.files["image"].stem
    start = int.from_bytes(hashlib.sha256(stem.encode(errors="replace")).digest()[:8], "big")
    for number in range(min(n_captions, len(row.captions))):
        caption = row.captions[(start + number) % len(row.captions)]
        voice = voices[(start // len(row.captions) + number) % len(voices)]
        content = "\n".join((program.command, voice, str(RATE_HZ), caption))
        digest = hashlib.sha256(content.encode(errors="replace")).hexdigest()[:12]
        name = re.sub(r"[^\w.-]", "_", stem)[:80]
        yield Utterance(row, caption, voice, Path("speech") / f"{name}-{voice}-{digest}.flac")


def _is_whole(clip: Path) -> bool:
    try:
        found = soundfile.info(clip)
    except soundfile.SoundFileError:
        return False
    return bool(found.frames > 0 and found.samplerate == RATE_HZ)


def _say_all(
    program: SpeechProgram, utterances: Sequence[Utterance], folder: Path, workers: int
) -> Iterator[tuple[Utterance, str | None]]:
    """Each with what went wrong, in their order. Threads: the work is done in the programs they start."""
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        results = pool.map(lambda said: _say(program, said, folder), utterances)
        yield from zip(utterances, results, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _say(program: SpeechProgram, said: Utterance, folder: Path) -> str | None:
    try:
        samples = _synthesise(program, said.caption, said.voice)
    except XmrError as error:
        return str(error)
    clip = folder / said.clip
    write_whole(clip, lambda file: soundfile.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16"))
    return None


def _synthesise(program: SpeechProgram, text: str, voice: str) -> Samples:
    """(n_samples,) at RATE_HZ. The text goes by file, so that no caption is taken for an option."""
    spoken = _plain(text, program.is_ascii_only)
    if not any(letter.isalnum() for letter in spoken):
        raise XmrError("no word in it that can be said")
    with TemporaryDirectory(prefix="xmr-speak-") as folder:
        written, wav = Path(folder, "text.txt"), Path(folder, "said.wav")
        written.write_text(spoken + "\n", encoding="utf-8")
        _run([program.command, *program.arguments(voice, written, wav)])
        return _read_wav(wav)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise XmrError(f"not done within {TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise XmrError(f"{command[0]} does not start: {error.strerror or error}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[:200]
        raise XmrError(f"{command[0]} exits {done.returncode}{': ' if said else ''}{said}")


def _read_wav(wav: Path) -> Samples:
    try:
        channels, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        raise XmrError("no sound came out") from None
    samples = channels.mean(axis=1)
    if len(samples) < SHORTEST_S * rate or not samples.any():
        raise XmrError("only silence came out")
    if rate != RATE_HZ:
        samples = soxr.resample(samples, rate, RATE_HZ)
    return np.ascontiguousarray(samples.clip(-1, 1), dtype=np.float32)


def _plain(text: str, is_ascii_only: bool) -> str:
    """One line of printable letters; for a program that reads ASCII only, without accents and other scripts."""
    text = text.translate(QUOTES)
    if is_ascii_only:
        decomposed = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
        text = "".join(letter if letter.isascii() else " " for letter in decomposed)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _record(said: Utterance) -> dict[str, str]:
    """A line of pairs.jsonl; the image by its absolute path, its other keys as the source has them."""
    row = said.row
    record = {"image": str(row.files["image"]), "speech": str(said.clip), "caption": said.caption, "voice": said.voice}
    if row.id != record["image"]:
        record["id"] = row.id
    if row.label is not None:
        record["label"] = row.label
    return {**record, "split": row.split}


def _write_pairs(folder: Path, records: Iterable[dict[str, str]], splits: set[str]) -> None:
    """Replace the rows of these splits."""
    others = [record for record in _read_records(folder) if record.get("split") not in splits]
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in (*others, *records))
    write_whole(folder / "pairs.jsonl", lambda file: file.write(content.encode(errors="replace")))
    sync_folder(folder)


def _read_records(folder: Path) -> list[dict[str, str]]:
    path = folder / "pairs.jsonl"
    if not path.exists():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise XmrError(f"{path}: not a pairs.jsonl ({error}); choose another folder") from None
    return [record if isinstance(record, dict) else {} for record in records]


PROGRAMS: dict[str, SpeechProgram] = {
    # kal is kal16 at 8 kHz
    "flite": SpeechProgram(
        "flite",
        default_voices=("kal16", "awb", "rms", "slt"),
        other_voices=("kal",),  # it answers an unknown name with kal and says nothing of it
        is_ascii_only=True,
        arguments=lambda voice, text, wav: ["-voice", voice, "-f", str(text), "-o", str(wav)],
    ),
    "espeak-ng": SpeechProgram(
        "espeak-ng",
        default_voices=("en-us", "en-gb+f2", "en-us+f4", "en-gb-scotland"),
        other_voices=None,  # a language and a variant, as de+f3
        is_ascii_only=False,
        arguments=lambda voice, text, wav: ["-b", "1", "-v", voice, "-f", str(text), "-w", str(wav)],
    ),
}
