"""Lazy values and LRU caches."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rooftrace.core.cache import LazyValue, LruCache


def test_a_lazy_value_is_computed_once_by_one_of_many_threads() -> None:
    calls = []
    start = threading.Barrier(4)
    value = LazyValue(lambda: calls.append(1) or len(calls))

    def ask(_: int) -> int:
        start.wait()
        return value.get()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [1] * 4


def test_a_lazy_value_that_failed_is_tried_again() -> None:
    divisors = iter([0, 1])
    value = LazyValue(lambda: 7 // next(divisors))
    with pytest.raises(ZeroDivisionError):
        value.get()
    assert value.get() == value.get() == 7


def test_the_value_used_longest_ago_is_evicted() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    assert cache.get_or_make("c", lambda: 3) == 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.clear()
    assert (len(cache), cache.size, cache.get("a")) == (0, 0, None)
