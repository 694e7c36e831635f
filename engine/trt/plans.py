"""Plans on disk: their names, and the JSON beside each that says what it was built of and for."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmr.engine.errors import XmrError
from xmr.engine.files import sha256_of, sync_folder, write_whole

PLANS = "plans"  # folder of an exported model
FACTS = {"network", "precision", "flavour", "version", "arch", "onnx_sha256", "profile", "plan_sha256"}


def plan_path(folder: Path, network: str, precision: str, flavour: str, version: str, arch: str) -> Path:
    """Where the plan of a network lies in a model folder; its facts lie beside it, as .json."""
    return folder / PLANS / f"{network}.{precision}.{flavour}-{version}.{arch}.plan"


def read_plan_facts(path: Path) -> dict[str, Any]:
    """What the JSON beside a plan says: network, precision, flavour, version, arch, onnx_sha256, profile, plan_sha256.

    XmrError where the plan or its JSON is missing or damaged.
    """
    if not path.is_file():
        others = [other.stem for other in path.parent.glob(".".join([*path.name.split(".")[:2], "*.plan"]))]
        found = f"; there is {', '.join(sorted(others))}" if others else ""
        raise XmrError(f"{path}: no such plan{found}; build it with `xmr plan`")
    facts = _facts_beside(path)
    if facts is None:
        raise XmrError(f"{path}: nothing that can be read beside it says what it was built of; run `xmr plan` again")
    return facts


def read_plan(path: Path, onnx_sha256: str) -> tuple[dict[str, Any], bytes]:
    """The facts of a plan and the plan, which is whole and was built of this ONNX file; XmrError for another."""
    facts = read_plan_facts(path)
    if facts["onnx_sha256"] != onnx_sha256:
        raise XmrError(f"{path}: built of another network than the model has now; run `xmr plan` again")
    plan = path.read_bytes()
    if facts["plan_sha256"] != hashlib.sha256(plan).hexdigest():
        raise XmrError(f"{path}: changed since it was built; run `xmr plan` again")
    return facts, plan


def plans_of(folder: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts of the plans in a model folder that were built of the networks it has now, and the file of each."""
    digests = set(config["sha256"].values())
    found = [(path, _facts_beside(path)) for path in sorted((folder / PLANS).glob("*.plan"))]
    return [
        facts | {"file": str(path.relative_to(folder))}
        for path, facts in found
        if facts is not None and facts["onnx_sha256"] in digests
    ]


def is_good(path: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a plan is there, whole, and of what is expected."""
    facts = _facts_beside(path)
    if facts is None or not path.is_file() or any(facts.get(key) != value for key, value in expected.items()):
        return False
    return bool(facts["plan_sha256"] == sha256_of(path))


def _facts_beside(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.keys() >= FACTS else None


def write_plan(path: Path, plan: bytes, facts: Mapping[str, Any]) -> None:
    """The facts come last: a plan is only good once they say so."""
    write_whole(path, lambda file: file.write(plan))
    told = {**facts, "plan_sha256": sha256_of(path)}
    write_whole(path.with_suffix(".json"), lambda file: file.write(f"{json.dumps(told, indent=2)}\n".encode()))
    sync_folder(path.parent)
