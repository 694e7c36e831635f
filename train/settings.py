"""A field of a settings dataclass that says what it means."""

from dataclasses import field
from typing import TypeVar

Value = TypeVar("Value")
PRETRAINED = "pretrained"  # as `weights`: those that the library of the encoder downloads


def setting(default: Value, meaning: str) -> Value:
    """A dataclass field with its default and the sentence that explains it in xmr.toml."""
    value: Value = field(default=default, metadata={"meaning": meaning})
    return value
