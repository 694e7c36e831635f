"""Where the time of a run goes: what each stage took, and what the run waits for."""

import time
from dataclasses import dataclass, field


@dataclass
class Stages:
    """Seconds and counts so far. Each number is written by one thread alone, so none of them is locked.

    The thread of the network is either running it, or waiting for something to embed, or waiting to hand it on: of
    these three the longest says what the whole run waits for.
    """

    decode_cpu_s: float = 0.0  # in all workers together
    network_s: float = 0.0  # runs of networks
    starved_s: float = 0.0  # the network had nothing to embed
    blocked_s: float = 0.0  # the network could not hand on what it had embedded
    write_s: float = 0.0  # who takes the embeddings had them
    n_decoded: int = 0  # tasks
    n_items: int = 0  # embedded
    n_batches: int = 0
    n_numbers: int = 0  # that went into the networks
    n_padding: int = 0  # of these, such as only fill the shorter rows of a batch
    workers: int = 0  # that decode
    threads: int = 0  # of the network, on a CPU
    _start_s: float | None = field(default=None, repr=False)
    _end_s: float | None = field(default=None, repr=False)
    _seen: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), repr=False)
    _waits_for: str = field(default="decoding", repr=False)

    @property
    def total_s(self) -> float:
        return (self._end_s or time.monotonic()) - self._start_s if self._start_s is not None else 0.0

    def begin(self) -> None:
        """The run starts: from now on `total_s` counts."""
        self._start_s = time.monotonic()

    def end(self) -> None:
        """The run is over: `total_s` stays as it is."""
        self._end_s = time.monotonic()

    def waits_for(self) -> str:
        """decoding, network or writing: what took longest since this was last asked."""
        now = (self.starved_s, self.network_s, self.blocked_s)
        since = [new - old for new, old in zip(now, self._seen, strict=True)]
        if any(since):
            self._seen = now
            self._waits_for = ("decoding", "network", "writing")[since.index(max(since))]
        return self._waits_for

    def status(self) -> str:
        """For a bar that counts files: items a second, and what the run waits for."""
        return f"files, {self.n_items / max(self.total_s, 1e-9):.0f} items/s, waits for {self.waits_for()}"

    def table(self) -> list[dict[str, object]]:
        """A row a stage: its name, seconds, how many it did, how many a second, and what to know of them."""
        padding = 100 * self.n_padding / max(1, self.n_numbers)
        return [
            _row("decode", self.decode_cpu_s, self.n_decoded, f"CPU time of {self.workers} workers"),
            _row("wait for decoding", self.starved_s),
            _row("network", self.network_s, self.n_items, f"{self.n_batches} runs, {padding:.1f} % padding"),
            _row("wait for writing", self.blocked_s),
            _row("write", self.write_s, self.n_items),
            _row("total", self.total_s, self.n_items),
        ]


def _row(stage: str, seconds: float, n: int | None = None, of: str = "") -> dict[str, object]:
    rate = round(n / seconds, 1) if n and seconds else None
    return {"stage": stage, "seconds": round(seconds, 3), "items": n, "per_second": rate, "note": of}
