"""What turns files into embeddings, without queue, thread or process: any scheduler can run it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from xmr.engine.errors import XmrError
from xmr.engine.media import Reading
from xmr.engine.media.decode import Decoded, Task, decode
from xmr.engine.model import Embeddings, Model


class EmbeddingWorker:
    """Reads files as an exported model wants them, and embeds what they hold."""

    def __init__(self, model: Model, reading: Reading | None = None) -> None:
        self.model = model
        self.reading = reading or Reading()

    def load(self, task: Task) -> Decoded:
        """Read one file here and now; a bad one is a result with an error."""
        try:
            return Decoded(task, decode(task, self.model.preprocessing[task.modality], self.reading))
        except XmrError as error:
            return Decoded(task, None, str(error))

    def embed(self, modality: str, arrays: Sequence[NDArray[Any]]) -> Embeddings:
        """(n, dim) unit rows of n arrays of pieces, in one run; zeros where the model gives no direction."""
        return self.model.embed_arrays(modality, arrays)

    def set_threads(self, threads: int) -> None:
        """Run the networks with so many threads from now on; they are opened again, the model given stays as it is."""
        self.model = replace(self.model, threads=threads, _networks={})
