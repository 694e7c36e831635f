"""What the frozen trunk of an encoder makes of each file, run once and kept on disk.

The cache of one encoder is a folder of parts, each written whole: an interrupted run goes on where it stopped, and
new files add a part. A file that changed, or another trunk, is run again. Of a trunk that learns, the decoded files are
kept instead.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xmr.engine.media.decode import Task, decode_ahead
from xmr.engine.runtime import Network
from xmr.train.augment import view
from xmr.train.encoders import Encoder
from xmr.train.onnx_network import to_onnx

PART_ROWS = 1024
BATCH_SIZE = 32
VERSION = 1  # of how trunks and views work on their input; another one makes features anew
PLAIN = (bool, int, float, str)

FileKey = tuple[str, int, int]  # path, size in bytes, mtime in ns


class Features:
    """The cached features of one modality's files."""

    def __init__(self, n_views: int = 1, *, has_views: bool = False) -> None:
        self.n_views = n_views  # versions of a file to train on
        self._has_views = has_views  # whether the rows of parts that come hold them all, one after the other
        self._parts: list[tuple[NDArray[Any], bool]] = []
        self._place: dict[str, tuple[int, int]] = {}  # path -> part, row

    def __contains__(self, path: Path) -> bool:
        return str(path) in self._place

    def take(self, paths: Sequence[Path], views: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """(n, ...) features of these files, as they are served or of one view each."""
        rows = []
        for path, seen in zip(paths, [0] * len(paths) if views is None else views, strict=True):
            part, row = self._place[str(path)]
            features, has_views = self._parts[part]
            rows.append(features[row][seen] if has_views else features[row])
        stacked = np.stack(rows)
        return stacked.astype(np.float32) if stacked.dtype == np.float16 else stacked

    def add_part(self, row_of_path: Mapping[str, int], rows: NDArray[Any]) -> None:
        self._place.update({path: (len(self._parts), row) for path, row in row_of_path.items()})
        self._parts.append((rows, self._has_views))

    def add(self, others: "Features") -> None:
        """Take in the features of other files, of which there may be fewer views."""
        first = len(self._parts)
        self._parts += others._parts
        self._place.update({path: (first + part, row) for path, (part, row) in others._place.items()})


def cached_features(
    encoder: Encoder,
    modality: str,
    paths: Iterable[Path],
    cache: Path,
    device: torch.device,
    progress: Callable[[int, int], None],
    *,
    n_views: int = 1,
) -> tuple[Features, list[str]]:
    """The features of these files, from the cache or computed now, and a sentence for each file that is unreadable.

    Of a sound longer than the window the first window is taken. Several views are features of the same picture seen
    otherwise (xmr.train.augment); where the trunk learns they are made when they are needed.
    """
    trunk = encoder.trunk if encoder.is_frozen else nn.Identity()
    has_views = n_views > 1 and encoder.is_frozen
    folder = cache / f"{modality}-{_digest(encoder, trunk, n_views if has_views else 1, device)}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {_file_key(path) for path in paths}
    features = Features(n_views, has_views=has_views)
    for keys, rows in _read_parts(folder):
        features.add_part({key[0]: row for row, key in enumerate(keys) if key in wanted}, rows)
        wanted -= set(keys)
    errors: list[str] = []
    run: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    part_keys: list[FileKey] = []
    part_rows: list[NDArray[Any]] = []
    for keys, arrays in _batches(_decoded(encoder, modality, sorted(wanted), errors, progress)):
        part_keys += keys
        run = run or _trunk_of(trunk, np.stack(arrays), device)
        batches = [run(np.stack(seen)) for seen in _views(arrays, keys, n_views if has_views else 1, encoder.mirror)]
        rows = np.stack(batches, axis=1) if has_views else batches[0]
        part_rows.append(rows.astype(np.float16) if encoder.is_compact and encoder.is_frozen else rows)
        if len(part_keys) >= PART_ROWS:
            _add_part(features, folder, part_keys, part_rows)
            part_keys, part_rows = [], []
    if part_keys:
        _add_part(features, folder, part_keys, part_rows)
    return features, errors


def _views(arrays: list[NDArray[Any]], keys: list[FileKey], n_views: int, mirror: bool) -> Iterator[list[NDArray[Any]]]:
    """The batch as it is, then in each other view; a picture's views depend on its name alone."""
    yield arrays
    for number in range(1, n_views):
        seeds = [[number, *os.fsencode(Path(path).name)] for path, _, _ in keys]
        yield [
            view(pixels, number, np.random.default_rng(seed), mirror=mirror)
            for pixels, seed in zip(arrays, seeds, strict=True)
        ]


def _decoded(
    encoder: Encoder, modality: str, keys: list[FileKey], errors: list[str], progress: Callable[[int, int], None]
) -> Iterator[tuple[FileKey, NDArray[Any]]]:
    """The first piece of each file that can be read; what is wrong with the others is added to `errors`."""
    tasks = [Task(Path(path), modality) for path, _, _ in keys]
    results = decode_ahead(tasks, {modality: encoder.preprocessing})
    for n_done, (key, decoded) in enumerate(zip(keys, results, strict=True), start=1):
        progress(n_done, len(keys))
        if decoded.loaded is None:
            errors.append(str(decoded.error))
            continue
        yield key, decoded.loaded.pieces[0].array


def _batches(
    decoded: Iterator[tuple[FileKey, NDArray[Any]]],
) -> Iterator[tuple[list[FileKey], list[NDArray[Any]]]]:
    while batch := list(islice(decoded, BATCH_SIZE)):
        yield [key for key, _ in batch], [array for _, array in batch]


def _add_part(features: Features, folder: Path, keys: list[FileKey], batches: list[NDArray[Any]]) -> None:
    rows = np.concatenate(batches)
    path = _write_part(folder, keys, rows)
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # what is on disk need not stay in memory
    features.add_part({path: row for row, (path, _, _) in enumerate(keys)}, mapped)


def _trunk_of(trunk: nn.Module, batch: NDArray[Any], device: torch.device) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The trunk as a function of arrays; on a CPU a network runs as ONNX, five times as fast as in torch."""

    def run_in_torch(batch: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            features: NDArray[Any] = trunk(torch.from_numpy(batch).to(device)).cpu().numpy()
        return features

    if device.type != "cpu" or not any(True for _ in trunk.parameters()):
        return run_in_torch
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trunk.onnx"
        # two rows: a traced batch of one would be taken for a constant
        traced = np.concatenate([batch, batch])[:2]
        to_onnx(trunk, traced, path, input_name="batch", output_names=["features"], dynamic_axes=[0])
        network = Network(path, device.type)
    return lambda batch: network.run(batch)["features"]


def _read_parts(folder: Path) -> Iterator[tuple[list[FileKey], NDArray[Any]]]:
    for listing in sorted(folder.glob("*.json")):
        try:
            keys = [(str(path), int(size), int(mtime)) for path, size, mtime in json.loads(listing.read_text())]
            rows = np.load(listing.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # a damaged part is made again
            continue
        if len(rows) == len(keys):
            yield keys, rows


def _write_part(folder: Path, keys: list[FileKey], rows: NDArray[Any]) -> Path:
    """The file of the rows, which is written first: a part exists once its list of files does."""
    name = f"{time.time_ns()}-{os.getpid()}"  # two trainings may share the cache
    unborn = folder / f".{name}"
    with unborn.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    unborn.replace(folder / f"{name}.npy")
    unborn.write_text(json.dumps(keys))
    unborn.replace(folder / f"{name}.json")
    return folder / f"{name}.npy"


def _file_key(path: Path) -> FileKey:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _digest(encoder: Encoder, trunk: nn.Module, n_views: int, device: torch.device) -> str:
    """Of all that the cached features depend on but the file: preprocessing, views, layers and numbers of the trunk.

    And the kind of device, as torch and ONNX Runtime round differently.
    """
    content = hashlib.sha256(json.dumps(asdict(encoder.preprocessing), sort_keys=True).encode())
    views = (n_views, encoder.mirror) if n_views > 1 else n_views
    content.update(f"{version('xmr')} {VERSION} {device.type} {views} {encoder.is_compact} {trunk!r}".encode())
    for name, module in trunk.named_modules():
        plain = {key: value for key, value in vars(module).items() if _is_plain(value) and key != "training"}
        content.update(f"{name} {sorted(plain.items())}".encode())
    for name, tensor in [*trunk.state_dict().items(), *trunk.named_buffers()]:
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _is_plain(value: object) -> bool:
    """Whether it is what a layer keeps of its settings beside its numbers."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))
