"""The pipeline of `xmr index` and `xmr embed`: decoding, batching, the network and the writing run at once.

    worker processes ─► thread of batches ─► thread of the network ─► whoever asks for the next file
      decode.Decoding     batches.Batches      EmbeddingWorker.embed     index.add, extract

Between them stand bounded queues, so that memory does not grow with the corpus: the stage that is ahead sleeps. Files
come out in the order in which they are given, long ones in parts, in the same batches whatever was faster.
"""

from collections.abc import Generator, Sequence

from xmr.engine.corpus import CorpusFile
from xmr.engine.embed.items import EmbeddedFile, EmbeddedItem
from xmr.engine.embed.pipeline import Pipeline
from xmr.engine.embed.stages import Stages
from xmr.engine.embed.worker import EmbeddingWorker
from xmr.engine.errors import UsageError
from xmr.engine.media import Reading
from xmr.engine.model import BATCH_SIZE, Model

__all__ = ["EmbeddedFile", "EmbeddedItem", "EmbeddingWorker", "Stages", "embed_files"]

MAX_WORKERS = 256  # each is a process with the libraries that decode


def embed_files(
    model: Model,
    files: Sequence[CorpusFile],
    *,
    workers: int = 0,
    batch_size: int = BATCH_SIZE,
    stages: Stages | None = None,
    reading: Reading | None = None,
) -> Generator[EmbeddedFile, None, None]:
    """Every file of a medium that the model embeds, in order, embedded or with its error; a long one in parts.

    `reading` says how videos, long sounds and tables are cut. Workers 0: as many as decoding was measured to need
    beside the network. `stages` is kept up to date meanwhile.
    """
    if workers > MAX_WORKERS:
        raise UsageError(f"--workers {workers}: up to {MAX_WORKERS} processes decode at once; pass fewer, or 0")
    worker = EmbeddingWorker(model, reading)
    pipeline = Pipeline(worker, files, workers=workers, batch_size=batch_size, stages=stages)
    try:
        yield from pipeline
    finally:
        pipeline.close()
