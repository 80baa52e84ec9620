"""Values that are computed once, kept while they are in use, or computed in advance.

`functools.cached_property` and `functools.lru_cache` are enough for values that one thread
computes, or that cost nothing to compute twice. The classes here are for the other cases.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LazyValue(Generic[T]):
    """A value that the first caller computes while other threads wait for it.

    If the computation raises an error, the next caller tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value, and compute it if this is the first call."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]


def _one(_: object) -> int:
    return 1


class LruCache(Generic[K, V]):
    """The values that were used last, up to a limit. Threads may share it.

    A value larger than the limit is kept until another value is put in. A copy, and what pickle
    restores, is an empty cache with the same limit.

    Args:
        limit: Maximum sum of the sizes of all values; with the default size, their maximum number.
        size_of: Size of a value, for example its number of bytes; 1 by default.
    """

    def __init__(self, limit: int, size_of: Callable[[V], int] = _one) -> None:
        self._limit, self._size_of = limit, size_of
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size = 0
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[object, ...]:
        return (LruCache, (self._limit, self._size_of))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    @property
    def size(self) -> int:
        """Sum of the sizes of all values."""
        return self._size

    def get(self, key: K) -> V | None:
        """Return the value of `key` and mark it as used last; None if it is not in the cache."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Add or replace the value of `key`, and evict the values that were used longest ago."""
        with self._lock:
            if key in self._values:
                self._size -= self._size_of(self._values.pop(key))
            self._values[key] = value
            self._size += self._size_of(value)
            while self._size > self._limit and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self._size -= self._size_of(oldest)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of `key`, computed by `make` if it is not in the cache.

        `make` runs without the lock: two threads that ask at the same time may both call it.
        """
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def clear(self) -> None:
        """Evict all values."""
        with self._lock:
            self._values.clear()
            self._size = 0
