"""What the routes share: the open index and model, and what works for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request

from xmr.engine.errors import XmrError
from xmr.engine.model import Model
from xmr.engine.serve.asking import fitting_video, path_words
from xmr.engine.serve.batcher import Batcher
from xmr.engine.serve.changes import Changes
from xmr.engine.serve.decoders import Decoders
from xmr.engine.serve.examples import Examples
from xmr.engine.serve.lookups import Lookups
from xmr.engine.serve.measures import Measures
from xmr.engine.serve.refusals import Refusal, busy, mistake
from xmr.engine.serve.settings import Settings
from xmr.engine.serve.small import Small

MAX_LOOKING = 16  # at once, of which all but a few wait
MAX_COPIES = 2  # of items, that lie on the disk while they are looked into

T = TypeVar("T")


@dataclass
class Service:
    """Lives as long as the server."""

    index_folder: Path
    model_folder: Path
    settings: Settings
    measures: Measures = field(default_factory=Measures)
    small: Small = field(default_factory=Small)
    examples: Examples = field(default_factory=Examples)

    def __post_init__(self) -> None:
        self.lookups, self.decoders = Lookups(self.index_folder), Decoders()
        self.batcher = Batcher(
            self.index_folder,
            self._open_model,
            max_waiting=self.settings.max_waiting,
            answer_s=self.settings.answer_s,
            told=self.measures.batched,
        )
        self._model: Model | None = None
        self._n_looking, self._looker = 0, ThreadPoolExecutor(1, thread_name_prefix="xmr looks")
        self._copies = asyncio.Semaphore(MAX_COPIES)
        self.changes = Changes(self.index_folder, lambda: self.model)

    @property
    def model(self) -> Model:
        if self._model is None:
            raise Refusal(
                503, "not_ready", "the model is still being opened; ask again in a second", {"Retry-After": "1"}
            )
        return self._model

    @property
    def dim(self) -> int:
        return self.model.dim

    @property
    def is_ready(self) -> bool:
        return self._model is not None and self.batcher.is_ready

    async def start(self) -> None:
        """XmrError where index and model cannot be opened, or do not fit each other."""
        self._model = await self.batcher.start()
        self.measures.watch(self.batcher)

    async def stop(self) -> None:
        """What waits is answered first."""
        await self.batcher.stop()
        await asyncio.to_thread(self._looker.shutdown)
        await self.changes.close()
        await self.lookups.close()
        await self.decoders.close()

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Around all that a look into a picture or sound needs; Refusal where too many look, or it takes too long."""
        if self._n_looking >= MAX_LOOKING:
            raise busy("too many pictures wait to be looked into; ask again in a second")
        self._n_looking += 1
        try:
            async with asyncio.timeout(self.settings.answer_s), self._copies:
                yield
        except TimeoutError:
            raise busy(f"not looked into within {self.settings.answer_s:g} s; ask again later") from None
        finally:
            self._n_looking -= 1

    async def look(self, look: "Callable[[], T]") -> T:
        """One at a time, in a thread beside the one that answers: a model may be asked by both."""
        return await asyncio.get_running_loop().run_in_executor(self._looker, look)

    def modality_of_video(self) -> str:
        found = fitting_video(self.model.modalities)
        if found is None:
            raise Refusal(400, "bad_question", "the model reads nothing of a video; ask with something else")
        return found

    def mistake(self, error: XmrError) -> Refusal:
        """What the engine says, without the folders of this machine."""
        return mistake(error, path_words(self))

    def _open_model(self) -> Model:
        return Model.open(self.model_folder, self.settings.device, self.settings.runtime, purpose="query")


def service_of(request: Request) -> Service:
    """The one that answers a request."""
    found: Any = request.app.state.service
    assert isinstance(found, Service)
    return found
