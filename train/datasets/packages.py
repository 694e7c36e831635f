"""Packages that only some readers need."""

from importlib.util import find_spec
from pathlib import Path

from xmr.engine.errors import XmrError


def need(package: str, extra: str, source: Path) -> None:
    """XmrError naming the extra to install where the package that reads a source is not there."""
    if find_spec(package) is None:
        raise XmrError(f"{source}: read with {package}, which is not installed; pip install 'xmr[{extra}]'")
