"""A thread that works things off, one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Stage"]

T = TypeVar("T")


class Stage(Generic[T]):
    """Takes items in their order; what waits is counted in bytes, so that it can be bounded.

    An error of the thread comes out at whoever puts, waits or finishes next.

    Args:
        name: of the thread.
        work: done with each item.
        weigh: how many bytes an item holds.
    """

    def __init__(self, name: str, work: Callable[[T], None], weigh: Callable[[T], int]) -> None:
        self._work = work
        self._weigh = weigh
        self._waiting: deque[T] = deque()
        self._bytes = 0
        self._ends = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Of what was put and is not yet worked off."""
        return self._bytes

    def put(self, item: T, *, room: int | None = None) -> None:
        """Hand over an item.

        Args:
            room: wait until no more than so many bytes are waiting; None never waits.
        """
        with self._changed:
            if room is not None:
                self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()
            self._waiting.append(item)
            self._bytes += self._weigh(item)
            self._changed.notify_all()

    def wait(self, room: int) -> None:
        """Wait until no more than so many bytes are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()

    def finish(self) -> None:
        """Wait until all is worked off, and end the thread."""
        self._end()
        self._check()

    def abandon(self) -> None:
        """Drop what waits, and end the thread after what it is at."""
        with self._changed:
            self._waiting.clear()
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ends)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            try:
                self._work(item)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= self._weigh(item)
                self._changed.notify_all()
