"""Work that is done while other work is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """An iterator that another thread is a few items ahead with.

    Args:
        items: none of them None.
        count: how many to be ahead with.
        name: of the thread.
    """

    def __init__(self, items: Iterator[T], count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._items = items
        self._count = count
        self._waiting: deque[Future[T | None]] = deque()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __next__(self) -> T:
        while len(self._waiting) <= self._count:
            self._waiting.append(self._pool.submit(next, self._items, None))
        item = self._waiting.popleft().result()
        if item is None:
            raise StopIteration
        return item
