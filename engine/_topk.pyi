import numpy as np
from numpy.typing import NDArray

MAX_DIM: int
BLOCK_ROWS: int
CODES_TAIL: int

class Segment:
    def __init__(
        self,
        rows: NDArray[np.float32],
        codes: NDArray[np.uint8] | None = None,
        blocks: NDArray[np.float32] | None = None,
        bounds: NDArray[np.float32] | None = None,
        mean: NDArray[np.float64] | None = None,
        is_rotated: bool = False,
    ) -> None: ...

def top_k(
    queries: NDArray[np.float32],
    gallery: list[Segment],
    k: int,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 0,
    isa: str = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]: ...
def encode(
    rows: NDArray[np.float32],
    mean: NDArray[np.float64] | None = None,
    is_rotated: bool = False,
    threads: int = 0,
    isa: str = "auto",
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]: ...
def kernels() -> list[str]: ...
