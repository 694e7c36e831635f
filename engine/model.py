"""The exported model folder: open, check, embed. What it wants of an image or a sound stands in its config.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of
from xmr.engine.media import MODALITIES, decode, text
from xmr.engine.runtime import Network, pick_device, pick_runtime

FORMAT = 1
BATCH_SIZE = 32  # inputs a run of the networks
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
UNIT_EMBEDDING = "unit_embedding"  # outputs of the head
CLASS_PROBABILITIES = "class_probabilities"

Embeddings = NDArray[np.float32]
Input = str | Path | NDArray[Any]


@dataclass
class Model:
    """An exported model. Its networks are opened when they are first needed."""

    folder: Path
    config: dict[str, Any]
    device: str  # cpu or cuda
    preprocessing: dict[str, Any]  # by modality: the Preprocessing of its media module
    _networks: dict[str, Network] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str, device: str = "auto", runtime: str = "auto") -> "Model":
        """Open and check a folder that `xmr export` wrote; XmrError says what is missing or damaged."""
        folder = Path(folder)
        config = read_config(folder)
        _check_files(folder, config)
        pick_runtime(runtime)
        return cls(folder, config, pick_device(device), _preprocessing(folder, config))

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

    def embed(self, modality: str, inputs: Sequence[Input]) -> Embeddings:
        """(n, dim) unit rows, one per input: paths, sentences (text), or arrays as `load` makes them.

        A sound longer than the model's window is the mean of its windows.
        """
        self.check_modality(modality)
        return self.embed_windows(modality, [self._arrays(modality, item) for item in inputs])

    def embed_windows(self, modality: str, pieces: Sequence[Sequence[NDArray[Any]]]) -> Embeddings:
        """(n, dim) unit rows of n inputs, each the arrays that `load` made of it: the mean of its windows."""
        arrays = [array for of_input in pieces for array in of_input]
        batches = [arrays[start : start + BATCH_SIZE] for start in range(0, len(arrays), BATCH_SIZE)] or [[]]
        rows = np.concatenate([self.embed_arrays(modality, batch) for batch in batches])
        if not rows.any(axis=1).all():
            raise XmrError(f"model {self.name} gives an input no usable embedding; ask otherwise, or train it again")
        ends = np.cumsum([len(of_input) for of_input in pieces])
        means = [part.mean(axis=0) for part in np.split(rows, ends[:-1])] if pieces else []
        return _unit(np.array(means, dtype=np.float32).reshape(len(pieces), self.dim))

    def embed_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> Embeddings:
        """(n, dim) unit rows of arrays that `load` made, in one run; zeros where the output has no direction."""
        if not arrays:
            return np.zeros((0, self.dim), dtype=np.float32)
        batch = MODALITIES[modality].batch(list(arrays))
        features = self._network(modality).run(batch)
        return _unit(self._network("head").run(next(iter(features.values())))[UNIT_EMBEDDING])

    def map_arrays(self, modality: str, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """(n, dim, h, w) of pictures or (n, dim, t) of windows that `load` made, in one run: what each place gives.

        Their shares in the embedding (of a window in the unit one, of a picture before it has unit length), or unit
        embeddings of their own, as `maps` of config.json says.
        """
        self.check_maps(modality)
        part = self.config["modalities"][modality]["maps"]
        name = f"{modality}.maps"
        if name not in self._networks:
            # not when the model is opened: whoever embeds has no need of it
            _check_file(self.folder / part["file"], self.config["sha256"][part["file"]])
            self._networks[name] = Network(self.folder / part["file"], self.device)
        return self._networks[name].run(MODALITIES[modality].batch(list(arrays)))[part["output"]]

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

    def _network(self, name: str) -> Network:
        if name not in self._networks:
            part = self.config["head"] if name == "head" else self.config["modalities"][name]
            self._networks[name] = Network(self.folder / part["file"], self.device)
        return self._networks[name]


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an exported model, its format checked."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise XmrError(f"{folder}: no {CONFIG_NAME} in it, so no exported model; make one with `xmr export`")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise XmrError(f"{path}: not valid JSON ({error}); export the model again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        writer = f"xmr {config.get('xmr_version', 'of unknown version')}" if isinstance(config, dict) else "not xmr"
        raise XmrError(f"{path}: format {found!r}, written by {writer}; this version reads format {FORMAT}")
    if missing := {"name", "dim", "modalities", "head", "sha256"} - config.keys():
        raise XmrError(f"{path}: {', '.join(sorted(missing))} missing; export the model again")
    parts = [*config["modalities"].items(), ("head", config["head"])] if isinstance(config["modalities"], dict) else []
    for name, part in parts or [("modalities", None)]:
        if not isinstance(part, dict) or "file" not in part or (name != "head" and "preprocessing" not in part):
            raise XmrError(f"{path}: the part of {name} is damaged; export the model again")
        if "maps" in part and not _keys_of_maps(part) <= set(part["maps"] if isinstance(part["maps"], dict) else ()):
            raise XmrError(f"{path}: the part of {name} is damaged; export the model again")
    return config


def _keys_of_maps(part: dict[str, Any]) -> set[str]:
    """What must be said of the maps of a modality: of a sound's also when its steps are."""
    return {"file", "output", "gives"} | ({"first_s", "step_s"} if part.get("medium") == "audio" else set())


def fingerprint(config: dict[str, Any]) -> str:
    """Of an exported model's config: 16 hex digits. Maps do not count, for nothing is embedded by them."""
    mapping = _map_files(config)
    networks = {
        name: digest
        for name, digest in config["sha256"].items()
        if name.endswith((".onnx", "vocab.txt")) and name not in mapping
    }
    modalities = {
        modality: {key: value for key, value in part.items() if key != "maps"}
        for modality, part in config["modalities"].items()
    }
    identity = {"dim": config["dim"], "modalities": modalities, "head": config["head"], "sha256": networks}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    """Every file must be as it was exported, but for the model card, which is there to be edited.

    The networks of maps must be there; what is in them is checked when they are first asked.
    """
    mapping = _map_files(config)
    for name in _used_files(config):
        if name not in config["sha256"]:
            raise XmrError(f"{folder}: {name}: used, but has no checksum in config.json; export the model again")
    for name, expected in config["sha256"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise XmrError(f"{folder}: {name} lies outside the model folder; export the model again")
        if not path.is_file():
            raise XmrError(f"{path}: missing, though config.json names it; export the model again")
        if name != CARD_NAME and name not in mapping:
            _check_file(path, expected)


def _check_file(path: Path, expected: str) -> None:
    if sha256_of(path) != expected:
        raise XmrError(f"{path}: changed since it was exported; export the model again")


def _used_files(config: dict[str, Any]) -> list[str]:
    """What is opened to embed and to locate: networks and vocabularies."""
    parts = config["modalities"].values()
    vocabularies = [part["preprocessing"]["vocabulary"] for part in parts if "vocabulary" in part["preprocessing"]]
    return [config["head"]["file"], *(part["file"] for part in parts), *vocabularies, *sorted(_map_files(config))]


def _map_files(config: dict[str, Any]) -> set[str]:
    """The networks that give maps, of the modalities that have one."""
    return {part["maps"]["file"] for part in config["modalities"].values() if "maps" in part}


def _preprocessing(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, part in config["modalities"].items():
        if name not in MODALITIES:
            raise XmrError(f"{folder}: modality {name} is unknown to this version; known are {', '.join(MODALITIES)}")
        fields = dict(part["preprocessing"])
        if "vocabulary" in fields:
            vocabulary = (folder / fields["vocabulary"]).read_text(encoding="utf-8").splitlines()
            fields["vocabulary"] = tuple(vocabulary)
        try:
            settings[name] = MODALITIES[name].preprocessing(**fields)
        except TypeError as error:
            raise XmrError(f"{folder}: preprocessing of {name} not understood ({error}); export it again") from None
    return settings


def _unit(rows: NDArray[Any]) -> Embeddings:
    """Rows as they leave the model: float32, C-contiguous, unit length; zeros for a row that is zero or not finite."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    is_usable = np.isfinite(norms) & (norms > 0)
    return np.ascontiguousarray(np.where(is_usable, rows / np.where(is_usable, norms, 1), 0), dtype=np.float32)
