"""What the routes share: the open index and model, and what works for them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import Request

from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.media import modalities_of
from xmr.engine.model import Model
from xmr.engine.question import VIDEO
from xmr.engine.serve.batcher import Batcher
from xmr.engine.serve.bounded import Bounded
from xmr.engine.serve.changes import Changes
from xmr.engine.serve.decoders import Decoders
from xmr.engine.serve.examples import Examples
from xmr.engine.serve.kept import Small
from xmr.engine.serve.lookups import Lookups
from xmr.engine.serve.measures import Measures
from xmr.engine.serve.refusals import Refusal, busy, mistake, no_index
from xmr.engine.serve.settings import Settings
from xmr.engine.serve.uploads import Upload
from xmr.engine.serve.urls import fetch

MAX_LOOKING = 16  # at once, of which all but a few wait
N_FETCHING, MAX_FETCHING = 4, 32  # files from elsewhere, at once and with those that wait
MANY_LOOKS = "too many pictures wait to be looked into; ask again in a second"
MANY_URLS = "too many files wait to be fetched; ask again in a second"
MAX_COPIES = 2  # of items, that lie on the disk while they are looked into

T = TypeVar("T")
log = logging.getLogger("xmr.serve")


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
        self.lookups, self.decoders = Lookups(self.index_folder, lambda: self.model), Decoders()
        self.batcher = Batcher(
            self.index_folder,
            self._open_model,
            max_waiting=self.settings.max_waiting,
            told=self.measures.batched,
        )
        self._model: Model | None = None
        self.is_ending = False  # what is answered now are the last answers
        self._troubles: set[str] = set()  # with the index, that the log has told of
        self._n_looking, self._copies = 0, asyncio.Semaphore(MAX_COPIES)
        self._looker = Bounded("looks", max_waiting=MAX_LOOKING, said=MANY_LOOKS)
        self._fetcher = Bounded("fetches", n_threads=N_FETCHING, max_waiting=MAX_FETCHING, said=MANY_URLS)
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

    async def check_ready(self) -> None:
        """Refusal or UnreadableError where no question can be answered."""
        if self.batcher.is_over:
            raise Refusal(503, "failed", "the server answers no questions any more; start it again")
        await self.lookups.check()
        self._troubles.clear()

    async def start(self) -> None:
        """XmrError where index and model cannot be opened, or do not fit each other."""
        self._model = await self.batcher.start()
        self.measures.watch(self.batcher, self.changes)

    async def stop(self) -> None:
        """What waits is answered first; whatever fails, the processes end and the uploads go."""
        async with AsyncExitStack() as closing:
            for part in (self.decoders, self.lookups, self.changes, self._fetcher, self._looker):
                closing.push_async_callback(part.close)
            await self.batcher.stop()

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Around all that a look into a picture or sound needs; Refusal where too many look."""
        if self._n_looking >= MAX_LOOKING:
            raise busy(MANY_LOOKS)
        self._n_looking += 1
        try:
            async with self._copies:
                yield
        finally:
            self._n_looking -= 1

    async def look(self, look: "Callable[[], T]") -> T:
        """One at a time, in a thread beside the one that answers: a model may be asked by both."""
        return await self._looker.run(look)

    async def fetch(self, url: str, kind: str) -> Upload:
        """The file at a URL; threads of their own wait for what is slow elsewhere."""
        return await self._fetcher.run(partial(fetch, url, kind, self.settings.max_body_bytes))

    def modality_of_video(self) -> str:
        """What of a video is asked with: its pictures, or its sound where the model sees nothing."""
        fitting = modalities_of(self.model.modalities, VIDEO)
        if not fitting:
            raise Refusal(400, "bad_question", "the model reads nothing of a video; ask with something else")
        return "image" if "image" in fitting else fitting[0]

    def mistake(self, error: XmrError) -> Refusal:
        """What the engine says, without the folders of this machine; of what only the operator mends the log tells."""
        if isinstance(error, UnreadableError) and str(error) not in self._troubles:
            self._troubles.add(str(error))
            log.error("no question can be answered: %s", error)
        told = no_index if isinstance(error, UnreadableError) else mistake
        # folders of this machine, and what a client reads instead
        places = [(self.index_folder, "the index"), (self.model_folder, "the model"), (self.decoders.folder, "upload")]
        return told(error, places)

    def _open_model(self) -> Model:
        """With its networks: what is put into its folder later is not what questions are answered with."""
        model = Model.open(self.model_folder, self.settings.device, self.settings.runtime, purpose="query")
        model.open_networks()
        return model


def service_of(request: Request) -> Service:
    """The one that answers a request."""
    found: Any = request.app.state.service
    assert isinstance(found, Service)
    return found


async def served(request: Request) -> Service:
    """A coroutine, since FastAPI would call a plain function in a thread."""
    return service_of(request)


Served = Annotated[Service, Depends(served)]  # of a route
