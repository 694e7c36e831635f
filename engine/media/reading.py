"""How files are cut into pieces, whatever the model."""

from dataclasses import dataclass
from math import inf

from xmr.engine.errors import UsageError


@dataclass(frozen=True)
class Reading:
    """What a user chooses about the reading of a corpus."""

    frame_s: float = 1.0  # seconds from one frame of a video to the next
    overlap: float = 0.5  # share of a window of a long sound that the next one repeats
    text_column: str | None = None  # of tables; None: the first there of those that are usual

    def __post_init__(self) -> None:
        if not 0 < self.frame_s < inf:
            raise UsageError(f"a frame every {self.frame_s:g} s found; pass a number of seconds above 0")
        if not 0 <= self.overlap < 1:
            raise UsageError(f"windows that overlap by {self.overlap:g} found; pass a share from 0 to less than 1")
