"""What a folder is that xmr wrote: an exported model, an index or a checkpoint, told without opening a network."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.index import CATALOG_NAME, Index
from xmr.engine.model import CONFIG_NAME, fingerprint, read_config
from xmr.engine.trt import plans_of

CHECKPOINT_NAME = "last.safetensors"  # to go on from
BEST_NAME = "best.safetensors"  # to evaluate and export


def is_known(folder: Path) -> bool:
    """Whether xmr wrote it."""
    return any((folder / name).is_file() for name in (CONFIG_NAME, CATALOG_NAME, CHECKPOINT_NAME))


def describe(folder: Path) -> dict[str, Any]:
    """Its kind and what there is to know about it, ready for JSON."""
    if (folder / CONFIG_NAME).is_file():
        return _describe_model(folder)
    if (folder / CATALOG_NAME).is_file():
        return _describe_index(folder)
    if (folder / CHECKPOINT_NAME).is_file():
        return _describe_checkpoint(folder)
    what = "nothing that xmr wrote in it" if folder.is_dir() else "no such folder"
    raise XmrError(f"{folder}: {what}; give a model, an index or a checkpoint folder")


def _describe_model(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    return {
        "kind": "exported model",
        "path": str(folder),
        "name": config["name"],
        "fingerprint": fingerprint(config),
        "dim": config["dim"],
        "modalities": {name: part["preprocessing"] for name, part in config["modalities"].items()},
        "precisions": {name: ", ".join(part["served"]) for name, part in config["modalities"].items()},
        "plans": ", ".join(Path(plan["file"]).stem for plan in plans_of(folder, config)) or "none",
        "maps": ", ".join(name for name, part in config["modalities"].items() if "maps" in part) or "none",
        "recipe": config.get("recipe"),
        "metrics": _summary(config.get("metrics")),
        "size_mb": _size_mb(folder),
    }


def _describe_index(folder: Path) -> dict[str, Any]:
    index = Index.open(folder)
    try:
        return {
            "kind": "index",
            "path": str(folder),
            "model": index.meta["model"],
            "fingerprint": index.meta["fingerprint"],
            "dim": index.dim,
            "items": index.counts(),
            "segments": index.n_segments(),
            "reading": asdict(index.reading),
            "missing": index.n_missing(),
            "skipped": len(index.skipped()),
            "size_mb": _size_mb(folder),
        }
    finally:
        index.close()


def _describe_checkpoint(folder: Path) -> dict[str, Any]:
    state = read_checkpoint_state(folder / CHECKPOINT_NAME)
    best = read_checkpoint_state(folder / BEST_NAME) if (folder / BEST_NAME).is_file() else state
    shown = ("recipe", "step", "epoch", "n_epochs", "modalities")
    facts = {"kind": "checkpoint", "path": str(folder)} | {key: state.get(key) for key in shown}
    return facts | {"metrics": _summary(best.get("metrics"))}


def _size_mb(folder: Path) -> float:
    n_bytes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a writer may be at work
            n_bytes += path.stat().st_size if path.is_file() else 0
    return round(n_bytes / 1e6, 1)


def _summary(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Of the val records: what one looks at first, by direction."""
    return {
        f"{record['query']}→{record['gallery']}": {name: record[name] for name in ("R@10", "median_rank", "mAP")}
        for record in (metrics or {}).get("val", [])
    }


def read_checkpoint_state(path: Path) -> dict[str, Any]:
    """The state that a checkpoint carries in the header of its safetensors file, read without torch."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        state: dict[str, Any] = json.loads(header["__metadata__"]["state"])
        if not isinstance(state, dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        raise XmrError(f"{path}: no checkpoint of xmr; train again or give another folder") from None
    return state
