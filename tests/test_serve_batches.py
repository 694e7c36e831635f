"""Questions answered together: as each would be alone, in turns that nobody has to wait long for."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="fastapi is missing; `pip install xmr[serve]`")

from xmr.engine.answer import Wanted
from xmr.engine.errors import UnreadableError, XmrError
from xmr.engine.index import Index
from xmr.engine.model import Model
from xmr.engine.question import Part
from xmr.engine.serve import answering
from xmr.engine.serve.answering import answers, embed_sentences
from xmr.engine.serve.batcher import Batcher
from xmr.engine.serve.refusals import Refusal
from xmr.engine.serve.waiting import MAX_BATCH, MAX_BYTES, Answered, Asked, Page, Question, Waiting

WORDS = ("a dog", "rain", "a red bell", "a siren and a dog", "bell", "a dog and a bell in the rain", "siren", "red")
WANTED = (
    Wanted(5),
    Wanted(5, to=("image",)),
    Wanted(5, offset=3),
    Wanted(50, to=("sound", "text")),
    Wanted(5, where="id % 2 = 0"),
    Wanted(5, min_score=0.1),
    Wanted(5, group="file"),
    Wanted(5, fold=0.99),
)


@pytest.fixture(scope="module")
def index(finished_world: Path) -> Iterator[Index]:
    with contextlib.closing(Index.open(finished_world / ".xmr" / "index")) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return Model.open(exported, purpose="query")


def in_words(*sentences: str, wanted: Wanted | None = None) -> Asked:
    return Asked([Part("text", sentence) for sentence in sentences], wanted or Wanted(5))


def by_vector(seed: int, dim: int, wanted: Wanted) -> Asked:
    row = np.random.default_rng(seed).standard_normal(dim)
    return Asked([Part("image", "key")], wanted, vectors={"key": (row / np.linalg.norm(row)).astype(np.float32)})


def like_item(item: int, wanted: Wanted) -> Asked:
    return Asked([Part("like", f"key {item}"), Part("text", "rain", -0.3)], wanted, items={f"key {item}": item})


def mixed(index: Index) -> list[Asked]:
    """64 questions: words, several sentences, vectors and items, wanted in every way."""
    ids = index.ids("image").tolist()
    kinds: tuple[Callable[[int, Wanted], Asked], ...] = (
        lambda number, wanted: in_words(WORDS[number % len(WORDS)], wanted=wanted),
        lambda number, wanted: in_words(WORDS[number % len(WORDS)], "rain", wanted=wanted),
        lambda number, wanted: by_vector(number, index.dim, wanted),
        lambda number, wanted: like_item(ids[number % len(ids)], wanted),
    )
    return [kinds[number % 4](number // 4, WANTED[number // 8]) for number in range(64)]


def told(outcome: Answered | Exception) -> list[tuple[object, ...]]:
    assert isinstance(outcome, Answered), outcome
    return [
        (one.rank, one.hit.id, one.hit.score, one.folded, outcome.files[one.hit.id].path) for one in outcome.answers
    ]


def test_questions_together_are_answered_as_alone_to_the_last_bit(index: Index, model: Model) -> None:
    alone = [answers([asked], index, model)[0] for asked in mixed(index)]
    together = answers(mixed(index), index, model)
    assert [told(outcome) for outcome in together] == [told(outcome) for outcome in alone]


def test_sentences_together_are_embedded_as_alone_to_the_last_bit(model: Model) -> None:
    together = embed_sentences(WORDS * 3, model)
    assert (together == np.concatenate([model.embed("text", [sentence]) for sentence in WORDS * 3])).all()


def test_what_cannot_be_answered_fails_alone(index: Index, model: Model) -> None:
    questions = [in_words("a dog"), in_words("qqzzxx"), like_item(999_999, Wanted()), in_words("rain")]
    questions.append(in_words("a dog", wanted=Wanted(5, where="colour = 'red'")))
    kinds = [type(outcome) for outcome in answers(questions, index, model)]
    assert kinds == [Answered, XmrError, Refusal, Answered, XmrError]


def question(asked: Asked) -> Question:
    return Question(asked, asyncio.get_running_loop().create_future())


def page(modality: str, n: int) -> Page:
    window = np.zeros(1000, dtype=np.float32)
    return Page(modality, [window] * n, [1] * n, asyncio.get_running_loop().create_future())


def test_a_turn_takes_of_every_lane() -> None:
    async def check() -> None:
        waiting = Waiting(1000)
        costly = [question(in_words("a", wanted=Wanted(5, group=group))) for group in ("file", "file", None)]
        costly[2].asked.wanted = Wanted(9000)
        quick = [question(in_words("a")) for _ in range(MAX_BATCH + 1)]
        pages = [page("image", 9), page("sound", 9), page("image", 9)]
        for one in (*pages, *costly, *quick):
            waiting.put(one)
        turn = waiting.turn()
        assert turn is not None
        assert (turn.quick, turn.costly, turn.pages) == (quick[:MAX_BATCH], costly[:2], [pages[0], pages[2]])
        waiting.put_back(turn.pages)
        turn = waiting.turn()
        assert turn is not None
        assert (turn.quick, turn.costly, turn.pages) == (quick[MAX_BATCH:], costly[2:], [pages[1]])

    asyncio.run(check())


def test_who_has_gone_costs_nothing_and_makes_room() -> None:
    async def check() -> None:
        waiting = Waiting(3)
        gone = [question(in_words("a")), question(in_words("a", wanted=Wanted(group="file"))), page("image", 1)]
        for one in gone:
            waiting.put(one)
        with pytest.raises(Refusal, match="too many"):
            waiting.put(question(in_words("b")))
        for one in gone:
            one.future.cancel()
        waiting.put(left := question(in_words("b")))
        turn = waiting.turn()
        assert turn is not None
        assert (turn.quick, turn.costly, turn.pages) == ([left], [], [])

    asyncio.run(check())


def test_files_that_wait_have_a_bound_in_bytes() -> None:
    async def check() -> None:
        waiting = Waiting(1000)
        window = np.zeros(MAX_BYTES // 4 // 3, dtype=np.float32)
        for _ in range(3):
            waiting.put(Page("image", [window], [1], asyncio.get_running_loop().create_future()))
        with pytest.raises(Refusal) as refused:
            waiting.put(Page("image", [window], [1], asyncio.get_running_loop().create_future()))
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        waiting.put(question(in_words("a")))

    asyncio.run(check())


@contextlib.asynccontextmanager
async def started(world: Path, *, max_waiting: int = 256) -> AsyncIterator[Batcher]:
    def opened() -> Model:
        return Model.open(world / ".xmr" / "model", purpose="query")

    batcher = Batcher(world / ".xmr" / "index", opened, max_waiting=max_waiting)
    await batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


@contextlib.contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[int]]]:
    """Answers wait until the event is set; how many questions each turn has that has begun."""
    go, turns = threading.Event(), []
    real = answering.answers

    def slow(questions: list[Asked], index: Index, model: Model) -> list[answering.Outcome]:
        turns.append(len(questions))
        assert go.wait(timeout=30)
        return real(questions, index, model)

    monkeypatch.setattr("xmr.engine.serve.batcher.answers", slow)
    try:
        yield go, turns
    finally:
        go.set()


async def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.001)


def test_what_waits_is_answered_before_the_end_and_nothing_after(
    finished_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        with held(monkeypatch) as (go, turns):
            async with started(finished_world) as batcher:
                asking = [asyncio.create_task(batcher.search(in_words("a dog"))) for _ in range(10)]
                await until(lambda: len(turns) == 1 and turns[0] + batcher.n_waiting == 10)
                stopping = asyncio.create_task(batcher.stop())
                await asyncio.sleep(0)
                with pytest.raises(Refusal, match="the server ends"):
                    await batcher.search(in_words("too late"))
                go.set()
                await stopping
                assert all(isinstance(one, Answered) for one in await asyncio.gather(*asking))
                assert sum(turns) == 10

    asyncio.run(check())


def test_a_question_that_nobody_waits_for_is_not_answered(
    finished_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        with held(monkeypatch) as (go, turns):
            async with started(finished_world) as batcher:
                first = asyncio.create_task(batcher.search(in_words("a dog")))
                await until(lambda: turns == [1])
                gone = asyncio.create_task(batcher.search(in_words("rain")))
                await until(lambda: batcher.n_waiting == 1)
                gone.cancel()
                go.set()
                await first
            assert turns == [1]

    asyncio.run(check())


def test_a_page_of_files_does_not_hold_up_a_sentence(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = answering.embed_slice

    def noted(pages: list[Page], model: Model) -> None:
        order.append("slice")
        real(pages, model)

    async def check() -> None:
        async with started(finished_world) as batcher:
            model = Model.open(finished_world / ".xmr" / "model")
            picture = model._arrays("image", next((finished_world / "corpus").rglob("*.jpg")))[0]
            embedding = asyncio.create_task(batcher.embed("image", [[picture]] * 200))
            await until(lambda: bool(order))
            await batcher.search(in_words("a dog"))
            order.append("answer")
            rows = await embedding
        assert order.count("slice") == 25
        assert order.index("answer") < 20
        assert (rows == rows[0]).all()

    monkeypatch.setattr("xmr.engine.serve.batcher.embed_slice", noted)
    asyncio.run(check())


def test_a_page_that_fails_leaves_the_others_of_its_slice_alone(finished_world: Path) -> None:
    async def check() -> None:
        async with started(finished_world) as batcher:
            found = await asyncio.gather(
                batcher.embed("text", ["a dog", "rain"]), batcher.embed("text", ["qqzzxx"]), return_exceptions=True
            )
        assert isinstance(found[0], np.ndarray)
        assert isinstance(found[1], XmrError)

    asyncio.run(check())


def test_another_index_in_its_place_is_opened_and_none_is_said(world: Path) -> None:
    folder = world / ".xmr" / "index"

    async def check() -> None:
        async with started(world) as batcher:
            before = await batcher.search(in_words("a dog"))
            folder.rename(folder.with_name("away"))
            with pytest.raises(UnreadableError, match="no index there any more"):
                await batcher.search(in_words("a dog"))
            model = Model.open(world / ".xmr" / "model")
            Index.create(folder, model).close()
            assert (await batcher.search(in_words("a dog"))).answers == []
            folder.rename(folder.with_name("empty"))
            folder.with_name("away").rename(folder)
            assert told(await batcher.search(in_words("a dog"))) == told(before)

    asyncio.run(check())


def test_a_turn_that_fails_is_followed_by_others(finished_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    async def check() -> None:
        async with started(finished_world) as batcher:
            monkeypatch.setattr("xmr.engine.serve.batcher.answers", fail)
            with pytest.raises(ZeroDivisionError):
                await batcher.search(in_words("a dog"))
            monkeypatch.undo()
            assert isinstance(await batcher.search(in_words("a dog")), Answered)

    asyncio.run(check())


def test_what_failed_holds_no_segment_that_is_gone(world: Path) -> None:
    async def check() -> None:
        async with started(world) as batcher:
            first = await batcher.search(in_words("a dog"))
            for where in ("colour = 'red'", "id %"):
                with pytest.raises(XmrError):
                    await batcher.search(in_words("a dog", wanted=Wanted(where=where)))
            views = [weakref.ref(view.gallery) for view in batcher._current._index._views.values()]
            with contextlib.closing(Index.open(world / ".xmr" / "index")) as index:
                index.delete([first.answers[0].hit.id])
            await batcher.search(in_words("a dog"))
            assert [view() for view in views] == [None]

    gc.disable()
    try:
        asyncio.run(check())
    finally:
        gc.enable()


def test_a_client_that_goes_away_is_not_worked_for() -> None:
    """Its place in the queue is free again, and no turn answers it."""
    from starlette.requests import Request

    from xmr.engine.serve.app import make_app
    from xmr.engine.serve.patience import while_waited
    from xmr.engine.serve.refusals import GONE

    async def hang_up() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def check() -> None:
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def work() -> int:
            return await waiting

        request = Request({"type": "http", "app": make_app(Path("no index"), Path("no model"))}, hang_up)
        with pytest.raises(Refusal) as gone:
            await while_waited(request, work())
        assert gone.value.status == GONE
        await asyncio.sleep(0)
        assert waiting.cancelled()

    asyncio.run(check())
