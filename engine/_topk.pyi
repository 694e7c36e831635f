import numpy as np
from numpy.typing import NDArray

def top_k(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k: int,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
