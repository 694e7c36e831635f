"""How a setting is declared: its default, the sentence that explains it in xmr.toml, and its limits."""

from dataclasses import field
from typing import TypeVar

Value = TypeVar("Value")
PRETRAINED = "pretrained"  # as `weights`: those that the library of the encoder downloads
WEIGHT_FILES = ("weights", "map_weights")  # settings of encoders that name a file
RANDOM = "random"  # as `weights`: none, to compare with


def setting(default: Value, meaning: str, *, at_least: float | None = None, below: float | None = None) -> Value:
    """A dataclass field with its default, the sentence that explains it in xmr.toml, and its limits."""
    value: Value = field(default=default, metadata={"meaning": meaning, "at_least": at_least, "below": below})
    return value
