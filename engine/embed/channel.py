"""A bounded queue between two stages that run at once."""

import time
from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """The run was given up: nothing is taken or handed on any more."""


class Channel(Generic[T]):
    """What one thread puts in, another takes out in the same order. `put_waited_s` tells of waits for room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: deque[tuple[T, int]] = deque()
        self._n_held = 0
        self._is_stopped = False
        self._changed = Condition()
        self.put_waited_s = 0.0

    def put(self, thing: T, *, size: int = 1) -> None:
        """Wait for room; something that is larger than all of it comes in alone."""
        with self._changed:
            start_s = time.monotonic()
            while self._n_held and self._n_held + size > self._room and not self._is_stopped:
                self._changed.wait()
            self.put_waited_s += time.monotonic() - start_s
            if self._is_stopped:
                raise Stopped
            self._held.append((thing, size))
            self._n_held += size
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for something."""
        with self._changed:
            while not self._held and not self._is_stopped:
                self._changed.wait()
            if self._is_stopped:
                raise Stopped
            thing, size = self._held.popleft()
            self._n_held -= size
            self._changed.notify_all()
            return thing

    def stop(self) -> None:
        """Whoever waits, or comes later, gets Stopped."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
