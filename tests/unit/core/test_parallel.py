"""Test calls that run at the same time."""

import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rooftrace.core import parallel, system
from rooftrace.core.parallel import Threads, core_count, in_order, limit_cores, prefetched


def slower_first(number: int, count: int) -> int:
    time.sleep(0.01 * (count - number))
    return number * number


@pytest.mark.parametrize("count", [0, 1, 2, 9])
@pytest.mark.parametrize("own", [True, False])
def test_results_come_in_the_order_of_the_arguments(count: int, own: bool) -> None:
    given = [(number, count) for number in range(count)]
    with Threads("test") as threads:
        found = list(in_order(slower_first, given, threads if own else None))
    assert found == [number * number for number in range(count)]


def test_few_arguments_are_made_ahead() -> None:
    made = 0

    def given() -> Iterator[tuple[int]]:
        nonlocal made
        for number in range(100):
            made += 1
            yield (number,)

    results = in_order(abs, given())
    assert next(results) == 0
    assert made <= min(4, core_count()) + 2
    assert list(results) == list(range(1, 100))


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(divmod, [(1, 1), (1, 0), (2, 1)]))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("", 8)]
)
def test_a_container_has_the_cores_of_its_quota(
    quota: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert system.granted_cores.__wrapped__() == cores


def test_a_process_takes_the_cores_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_LIMIT", [])
    monkeypatch.setattr(parallel, "granted_cores", lambda: 8)
    with Threads("test") as threads:
        assert (core_count(), threads.size) == (8, 4)
    limit_cores(3)
    with Threads("test") as threads:
        assert (core_count(), threads.size) == (3, 3)
    limit_cores(16)
    assert core_count() == 8


def test_an_interrupt_at_the_start_of_the_thread_ends_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while the pool starts its thread: afterwards a video may be closed."""
    start = threading.Thread.start
    begun, finished = threading.Event(), []

    def interrupted(self: threading.Thread) -> None:
        start(self)
        begun.wait(10)
        raise KeyboardInterrupt

    def frames() -> Iterator[int]:
        for number in range(5):
            begun.set()
            time.sleep(0.05)
            finished.append(number)
            yield number

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(prefetched(frames(), 2, "frames"))
    assert finished == [0]
    time.sleep(0.2)
    assert finished == [0]


@pytest.mark.parametrize("count", [0, 2])
def test_items_are_closed_in_their_thread(count: int) -> None:
    """GDAL's settings belong to a thread: another one cannot take them back."""
    closed = []

    def items() -> Generator[int, None, None]:
        try:
            yield from range(1, 9)
        finally:
            closed.append(threading.current_thread().name)

    with closing(prefetched(items(), count, "reader")) as ahead:
        assert next(ahead) == 1
    assert closed == ["reader_0"]
