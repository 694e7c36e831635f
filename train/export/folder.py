"""The folder of an exported model, replaced whole or not at all."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES
from xmr.engine.model import CARD_NAME, CONFIG_NAME, read_config
from xmr.engine.trt import PLANS
from xmr.train.export.gates import COSINES
from xmr.train.export.networks import file_of, map_file_of, served_file_of

WEIGHTS_NAME = "model.safetensors"
WORDS_NAME = "vocab.txt"
OF_PLANS = (".plan", ".json")  # what lies in the folder of plans


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when all went well, and is removed when not."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (a link is replaced, not what it leads to)
    if Path.cwd().is_relative_to(folder):
        raise XmrError(f"{folder}: would be replaced, with the current folder in it; give a --model folder of its own")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if foreign := _foreign_files(folder):
        raise XmrError(f"{foreign[0]}: would be replaced, but is no part of an exported model; give another --model")
    _clear(folder)
    unborn, old = _beside(folder, "new"), _beside(folder, "old")
    unborn.mkdir()
    try:
        yield unborn
        if os.path.lexists(folder):
            folder.rename(old)
        unborn.rename(folder)
    finally:
        if os.path.lexists(old) and not os.path.lexists(folder):
            old.rename(folder)
        for left_over in (unborn, old):
            _remove(left_over)


def _beside(folder: Path, what: str) -> Path:
    """While this process replaces a folder."""
    return folder.with_name(f".{folder.name}.{what}-{os.getpid()}")


def _clear(folder: Path) -> None:
    """Remove what exports left that were killed; an old model that one had put aside is put back."""
    for path in sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*-*")):
        what, _, process = path.name.removeprefix(f".{folder.name}.").partition("-")
        if what not in ("new", "old") or not process.isdecimal() or _is_running(int(process)):
            continue
        if what == "old" and not os.path.lexists(folder):
            path.rename(folder)
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Another process than this one."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def _foreign_files(folder: Path) -> list[Path]:
    """What lies at the place of an exported model and is no part of one."""
    if not folder.is_dir():
        return [folder] if folder.exists() else []
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    try:
        names = list(read_config(folder)["sha256"])
    except XmrError:
        if not (folder / file_of("head")).is_file():
            return files
        names = _possible_names()  # an export that was damaged may be replaced as well
    own = {folder / name for name in (CONFIG_NAME, *names)}
    return [path for path in files if path not in own and not _is_of_plan(folder, path)]


def _is_of_plan(folder: Path, path: Path) -> bool:
    return path.parent == folder / PLANS and path.suffix in OF_PLANS


def _possible_names() -> list[str]:
    networks = [*map(file_of, [*MODALITIES, "head"]), *map(map_file_of, MODALITIES)]
    served = [served_file_of(modality, precision) for modality in MODALITIES for precision in COSINES]
    return [CARD_NAME, WORDS_NAME, WEIGHTS_NAME, *networks, *served]
