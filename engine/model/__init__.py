"""The exported model folder: open, check, embed. What it wants of an image or a sound stands in its config.json.

A modality is served by one network, encoder and head in one, in the precisions that were exported. A file is checked
when it is opened: so a query in words waits for no checksum of what sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.checksums import check_unchanged
from xmr.engine.errors import XmrError
from xmr.engine.media import MODALITIES, Reading, decode, modalities_of, text
from xmr.engine.model.config import CONFIG_NAME, FLOAT32, FORMAT, check_files, fingerprint, read_config, unfit
from xmr.engine.processors import cpus
from xmr.engine.runtime import Choice, Network, check_wishes, choices, n_streams, open_choice

__all__ = [
    "BATCH_SIZE",
    "CARD_NAME",
    "CLASS_PROBABILITIES",
    "CONFIG_NAME",
    "FLOAT32",
    "FORMAT",
    "UNIT_EMBEDDING",
    "Embeddings",
    "Input",
    "Model",
    "fingerprint",
    "read_config",
]

BATCH_SIZE = 32  # inputs a run of the networks
CARD_NAME = "README.md"
UNIT_EMBEDDING = "unit_embedding"  # outputs of the head, and of what serves a modality
CLASS_PROBABILITIES = "class_probabilities"
MAP_RUNTIMES = ("onnxruntime", "openvino")

Embeddings = NDArray[np.float32]
Input = str | Path | NDArray[Any]


@dataclass
class Model:
    """An exported model. Its networks are opened when they are first needed."""

    folder: Path
    config: dict[str, Any]
    preprocessing: dict[str, Any]  # by modality: the Preprocessing of its media module
    asked_device: str = "auto"
    runtime: str = "auto"  # or the one that was asked for
    precision: str = "auto"
    purpose: str = "corpus"  # or query
    threads: int = 0
    _networks: dict[str, Network] = field(default_factory=dict, repr=False)
    _choices: dict[str, Choice] = field(default_factory=dict, repr=False)
    _opening: Lock = field(default_factory=Lock, repr=False)  # threads that embed ask for one network

    @classmethod
    def open(
        cls,
        folder: Path | str,
        device: str = "auto",
        runtime: str = "auto",
        *,
        precision: str = "auto",
        purpose: str = "corpus",
        threads: int = 0,
    ) -> "Model":
        """Open a folder that `xmr export` wrote; XmrError says what is missing, damaged, or cannot be met here.

        `auto` is the fastest there is for each network: for a `corpus`, or for one `query` with the time that opening
        takes. Threads are those of the CPU that a network computes on, 0 all.
        """
        check_wishes(device, runtime)
        folder = Path(folder)
        config = read_config(folder)
        check_files(folder, config)
        return cls(folder, config, _preprocessing(folder, config), device, runtime, precision, purpose, threads)

    def __getstate__(self) -> dict[str, Any]:
        """To be sent to another process, which opens the networks for itself."""
        return self.__dict__ | {"_networks": {}, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opening=Lock())

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def dim(self) -> int:
        return int(self.config["dim"])

    @property
    def modalities(self) -> list[str]:
        return list(self.config["modalities"])

    @property
    def fingerprint(self) -> str:
        """The same for two folders exactly if they embed alike: networks, vocabulary and preprocessing."""
        return fingerprint(self.config)

    @property
    def device(self) -> str:
        """What its modalities are embedded on: cpu, cuda:0, or both where not all run on the GPU."""
        return " and ".join(dict.fromkeys(self.choice(name).device for name in self.modalities))

    def embed(self, modality: str, inputs: Sequence[Input]) -> Embeddings:
        """(n, dim) unit rows, one per input: paths, sentences (text), or arrays as `load` makes them.

        A sound longer than the model's window is the mean of its windows, and a text file that of its lines.
        """
        self.check_modality(modality)
        return self.embed_windows(modality, [self._arrays(modality, item) for item in inputs])

    def embed_video(self, path: Path | str, reading: Reading | None = None) -> Embeddings:
        """(dim,) unit: the mean over a video's pictures, or over its sound where the model sees nothing.

        However long it is, it needs the memory of a batch. XmrError where the model embeds nothing of it.
        """
        fitting = modalities_of(self.modalities, "video")
        if not fitting:
            raise XmrError(f"model {self.name} embeds neither pictures nor sounds; it has {', '.join(self.modalities)}")
        task = decode.Task(Path(path), "image" if "image" in fitting else fitting[0])
        opened = decode.start(task, self.preprocessing[task.modality], reading or Reading())
        pieces = decode.draw(opened, task)
        total = np.zeros(self.dim)
        while batch := [piece.array for piece in islice(pieces, BATCH_SIZE)]:
            total += self.embed_arrays(task.modality, batch).sum(axis=0, dtype=np.float64)
        if not total.any():
            raise XmrError(f"{path}: nothing in it that the model can embed as {task.modality}")
        vector: Embeddings = _unit(total[None])[0]
        return vector

    def embed_windows(self, modality: str, pieces: Sequence[Sequence[NDArray[Any]]]) -> Embeddings:
        """(n, dim) unit rows of n inputs, each the arrays that `load` made of it: the mean of its windows."""
        arrays = [array for of_input in pieces for array in of_input]
        batches = [arrays[start : start + BATCH_SIZE] for start in range(0, len(arrays), BATCH_SIZE)] or [[]]
        rows = np.concatenate([self.embed_arrays(modality, batch) for batch in batches])
        return self.means(rows, [len(of_input) for of_input in pieces])

    def means(self, rows: Embeddings, counts: Sequence[int]) -> Embeddings:
        """(n, dim) unit rows of n inputs, from the unit rows of their windows, so many of each input."""
        if not rows.any(axis=1).all():
            raise XmrError(f"model {self.name} gives an input no usable embedding; ask otherwise, or train it again")
        means = [part.mean(axis=0) for part in np.split(rows, np.cumsum(counts)[:-1])] if len(counts) else []
        return _unit(np.array(means, dtype=np.float32).reshape(len(counts), self.dim))

    def embed_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> Embeddings:
        """(n, dim) unit rows of arrays that `load` made, in one run; zeros where the output has no direction."""
        if not arrays:
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = self._run(modality, UNIT_EMBEDDING, arrays)
        if rows.shape != (len(arrays), self.dim):
            raise XmrError(
                f"{self.folder}: {modality} of {len(arrays)} inputs is embedded as {rows.shape}, in {self.dim} numbers "
                "each says config.json; export the model again"
            )
        return _unit(rows)

    def map_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """(n, dim, h, w) of pictures or (n, dim, t) of windows that `load` made, in one run: what each place gives.

        Their shares in the embedding (of a window in the unit one, of a picture before it has unit length), or unit
        embeddings of their own, as `maps` of config.json says.
        """
        self.check_maps(modality)
        output = self.config["modalities"][modality]["maps"]["output"]
        return self._run(f"{modality}.map", output, arrays)

    def choice(self, modality: str) -> Choice:
        """How a modality is embedded here: by which runtime, and in which precision."""
        self.check_modality(modality)
        return self._choice(modality)

    def steps_s(self, modality: str) -> tuple[float, float]:
        """Of the map of a window of a sound: the middle of the first step from the start, and the steps' distance."""
        maps = self.config["modalities"][modality]["maps"]
        return float(maps["first_s"]), float(maps["step_s"])

    def gives_shares(self, modality: str) -> bool:
        """Whether it keeps maps of a modality, and a place gives its share in the embedding of the whole."""
        return modality in self.mapped and self.config["modalities"][modality]["maps"]["gives"] == "shares"

    @property
    def mapped(self) -> list[str]:
        """The modalities that the model keeps maps of, to look into."""
        return [name for name, part in self.config["modalities"].items() if "maps" in part]

    def check_maps(self, modality: str) -> None:
        self.check_modality(modality)
        if modality == "text":
            raise XmrError("a sentence has no places to be told; choose an image, a sound or a video")
        if modality not in self.mapped:
            kept = f"maps of {', '.join(self.mapped)} alone" if self.mapped else "no maps"
            raise XmrError(
                f"model {self.name} keeps {kept}, so it cannot tell where in {modality} something is; train an encoder "
                "that keeps places apart, as timm-map or davenet, or export the checkpoint again"
            )

    def check_modality(self, modality: str) -> None:
        if modality not in self.modalities:
            raise XmrError(f"model {self.name} has no encoder for {modality}; it has {', '.join(self.modalities)}")

    def _arrays(self, modality: str, item: Input) -> list[NDArray[Any]]:
        preprocessing = self.preprocessing[modality]
        if isinstance(item, np.ndarray):
            return [item]
        if modality == "text" and isinstance(item, str):
            ids = text.encode(item, preprocessing)
            if len(ids) == 0:
                n_words = len(set(preprocessing.vocabulary) - set(text.MARKS))
                raise XmrError(f"{item!r}: none of its words is among the {n_words} the model knows; word it otherwise")
            return [ids]
        pieces = decode.decode(decode.Task(Path(item), modality), preprocessing).pieces
        if not pieces:
            raise XmrError(f"{item}: nothing in it that the model can embed")
        return [piece.array for piece in pieces]

    def _run(self, name: str, output: str, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """One output of the network of a modality, or of its maps, for arrays that `load` made."""
        outputs = self._network(name).run(MODALITIES[name.partition(".")[0]].batch(list(arrays)))
        if output not in outputs:
            found = ", ".join(outputs)
            raise XmrError(f"{self.folder}: the network of {name} gives {found}, not {output}; export the model again")
        return outputs[output]

    def open_networks(self) -> None:
        """All but those of maps, which are opened when they are first asked, as these would be. XmrError."""
        for modality in self.modalities:
            self._network(modality)

    def _network(self, name: str) -> Network:
        """Opened and checked when it is first asked."""
        with self._opening:
            return self._networks.get(name) or self._open_network(name)

    def _open_network(self, name: str) -> Network:
        threads = self.threads or cpus()
        streams = n_streams(threads) if self.purpose == "corpus" else 1  # a query is one item for all threads
        self._networks[name] = open_choice(self._choice(name), self.config["sha256"], threads=threads, streams=streams)
        return self._networks[name]

    def _choice(self, name: str) -> Choice:
        if name not in self._choices:
            part, precision = self._served(name)
            found = choices(
                self.folder, part, self.asked_device, self.runtime, precision=precision, purpose=self.purpose
            )
            self._choices[name] = found[0]
        return self._choices[name]

    def _served(self, name: str) -> tuple[Mapping[str, Any], str]:
        """What there is to run of a modality, or of its maps, which are of float32 alone; and the precision asked."""
        modality, _, maps = name.partition(".")
        part = self.config["modalities"][modality]
        if not maps:
            return part, self.precision
        offered = [runtime for runtime in MAP_RUNTIMES if runtime in part["served"][FLOAT32]["runtimes"]]
        served = {FLOAT32: {"file": part["maps"]["file"], "runtimes": offered}}
        return {"input": {"name": name}, "served": served}, "auto"


def _preprocessing(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, part in config["modalities"].items():
        if name not in MODALITIES:
            raise XmrError(f"{folder}: modality {name} is unknown to this version; known are {', '.join(MODALITIES)}")
        fields = dict(part["preprocessing"])
        if "vocabulary" in fields:
            check_unchanged(folder, fields["vocabulary"], config["sha256"])
            vocabulary = (folder / fields["vocabulary"]).read_text(encoding="utf-8").splitlines()
            fields["vocabulary"] = tuple(vocabulary)
        kind = MODALITIES[name].preprocessing
        if wrong := unfit(kind, fields):
            raise XmrError(
                f"{folder}: preprocessing of {name} not understood ({', '.join(wrong)}); export the model again"
            )
        settings[name] = kind(**fields)
    return settings


def _unit(rows: NDArray[Any]) -> Embeddings:
    """Rows as they leave the model: float32, C-contiguous, unit length; zeros for a row that is zero or not finite."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    is_usable = np.isfinite(norms) & (norms > 0)
    return np.ascontiguousarray(np.where(is_usable, rows / np.where(is_usable, norms, 1), 0), dtype=np.float32)
