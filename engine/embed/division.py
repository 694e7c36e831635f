"""How the processors are divided between decoding and the network: by what each was measured to need of an item."""

import math
from dataclasses import dataclass, field

MIN_CPU_S = 1.0  # of both stages together, before their shares are believed
MIN_CHANGE = 0.75  # threads, and
MIN_CHANGE_SHARE = 0.25  # of the present ones: what is measured always varies a little
MAX_CHANGES = 3  # of the threads in a run
WORTH_S = 10.0  # of work left, from which a network is opened again with another number of threads


@dataclass
class Need:
    """CPU seconds of one stage so far, and the items that it did in them."""

    cpu_s: float = 0.0
    n_items: int = 0

    def add(self, cpu_s: float, n_items: int) -> None:
        self.cpu_s, self.n_items = self.cpu_s + cpu_s, self.n_items + n_items

    @property
    def per_item_s(self) -> float:
        return self.cpu_s / max(1, self.n_items)


@dataclass
class Division:
    """The division of one run. Decoding is given another share at once; the network, where it is worth opening again.

    Both numbers are rounded up: the one processor that both then claim is shared by the system, as the queue between
    the stages lets whoever is ahead sleep.
    """

    cpus: int
    fixed_workers: int = 0  # as the user wishes; 0: as measured
    decoding: Need = field(default_factory=Need)
    network: Need = field(default_factory=Need)
    workers: int = field(init=False)
    threads: int = field(init=False)
    _n_changes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # the network begins with all processors, for what it needs of them is not known yet
        self.workers, self.threads = self.fixed_workers or max(1, self.cpus // 2), self.cpus

    def look(self, left_s: float) -> None:
        """Divide by all that was measured so far; so much work is left for the network."""
        if self.decoding.cpu_s + self.network.cpu_s < MIN_CPU_S or not self.network.n_items:
            return
        for_decoding, for_network = self._shares()
        self.workers = self.fixed_workers or _at_least_one(for_decoding)
        change = abs(for_network - self.threads)
        is_large = change > max(MIN_CHANGE, MIN_CHANGE_SHARE * self.threads)
        if is_large and left_s > WORTH_S and self._n_changes < MAX_CHANGES:
            self.threads = _at_least_one(for_network)
            self._n_changes += 1

    def _shares(self) -> tuple[float, float]:
        """Processors, in fractions."""
        decode_s, network_s = self.decoding.per_item_s, self.network.per_item_s
        for_decoding = self.cpus * decode_s / (decode_s + network_s)
        return for_decoding, self.cpus - for_decoding


def _at_least_one(share: float) -> int:
    return max(1, math.ceil(round(share, 6)))
