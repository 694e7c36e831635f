"""What is counted, in the format of Prometheus: how often, how long, how many at once; never what was asked."""

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

if TYPE_CHECKING:
    from xmr.engine.serve.batcher import Batcher
    from xmr.engine.serve.changes import Changes

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Of one server; another one in the same process has its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a line more for each of the others
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, open files, seconds of computing
        self._requests = Counter(
            "xmr_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "xmr_request_seconds", "From a request to its answer.", ["route"], buckets=SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "xmr_batch_questions", "Questions answered together.", buckets=BATCHES, registry=self._registry
        )
        self._waiting = Gauge("xmr_waiting_questions", "Questions that wait for their batch.", registry=self._registry)
        self._changes = Gauge("xmr_waiting_changes", "Changes that wait or are made.", registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batched(self, n_batch: int) -> None:
        self._batches.observe(n_batch)

    def watch(self, batcher: "Batcher", changes: "Changes") -> None:
        self._waiting.set_function(lambda: batcher.n_waiting)
        self._changes.set_function(lambda: changes.n_waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)
