"""Settings of the last layer of an encoder, which is its own projection to the head's width."""

from dataclasses import dataclass
from typing import Literal

from xmr.train.settings.field import setting


@dataclass(frozen=True)
class ProjectionSettings:
    """Of xmr.train.encoders.encoder.Projection; the settings of an encoder that ends in one inherit these."""

    scale: Literal["deviation", "length", "none"] = setting(
        "deviation", "features are first brought to mean 0 and deviation 1, or to unit length, or left alone"
    )
    dropout: float = setting(0.0, "share of the features dropped while training", at_least=0, below=1)
    projection: Literal["linear", "none"] = setting("linear", "to the head's width; none: the features have it already")
    batch_norm: bool = setting(False, "batch norm in place of the projection's bias")
