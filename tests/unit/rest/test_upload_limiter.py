"""The places for uploads, which clients share."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from contextlib import ExitStack
from math import ceil

import pytest
from starlette.requests import Request

from rooftrace.core.errors import BusyError
from rooftrace.rest.upload import UploadLimiter


def request(client: str | None) -> Request:
    return Request({"type": "http", "client": client and (client, 1), "headers": []})


def places(stack: ExitStack, limiter: UploadLimiter, client: str | None, most: int = 100) -> int:
    """Return how many places the client gets, which it keeps."""
    for count in range(most):
        try:
            stack.enter_context(limiter.place(request(client)))
        except BusyError:
            return count
    return most


def test_a_single_place_is_for_one_request() -> None:
    limiter = UploadLimiter(1)
    with limiter.place(request("a")), pytest.raises(BusyError, match="1 of at most 1") as refused:
        limiter.place(request("a")).__enter__()
    assert refused.value.retry_after_s > 0
    with limiter.place(request("a")):
        pass


def test_a_client_that_keeps_all_places_it_gets_leaves_some_to_others() -> None:
    limiter = UploadLimiter(32)
    with ExitStack() as held:
        assert places(held, limiter, "10.0.0.1") == 17
        assert places(held, limiter, "10.0.0.2") == 8
        with ExitStack() as quick:
            assert places(quick, limiter, "10.0.0.3") == 4
        # It reconnects: its place is not free before it ends.
        assert places(held, limiter, "10.0.0.1") == 0
        assert places(held, limiter, "10.0.0.4", most=1) == 1


def test_places_come_back() -> None:
    limiter = UploadLimiter(8)
    with ExitStack() as held:
        places(held, limiter, "10.0.0.1")
    with ExitStack() as held:
        assert places(held, limiter, "10.0.0.1") == 5
    assert not limiter._taken


def test_refused_clients_have_their_turn_before_one_that_was_just_answered() -> None:
    limiter = UploadLimiter(4)
    held = [ExitStack() for _ in range(4)]
    for number, stack in enumerate(held):
        assert places(stack, limiter, f"held {number}", most=1) == 1
    with ExitStack() as others:
        assert places(others, limiter, "first", most=1) == 0
        assert places(others, limiter, "second", most=1) == 0
        held[0].close()
        assert places(others, limiter, "held 0", most=1) == 0
        assert places(others, limiter, "second", most=1) == 0
        assert places(others, limiter, "first", most=1) == 1
        held[1].close()
        assert places(others, limiter, "held 1", most=1) == 0
        assert places(others, limiter, "second", most=1) == 1
        held[2].close()
        assert places(others, limiter, "held 0", most=1) == 1
    held[3].close()


def test_a_turn_that_is_not_taken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limiter = UploadLimiter(2)
    with ExitStack() as held, ExitStack() as more:
        assert places(held, limiter, "one", most=1) == 1
        assert places(held, limiter, "two", most=1) == 1
        assert places(held, limiter, "gone", most=1) == 0
        held.close()
        assert places(more, limiter, "one", most=1) == 1
        assert places(more, limiter, "two", most=1) == 0
        now = 60.0
        assert places(more, limiter, "three", most=1) == 1


def test_refused_clients_keep_at_most_half_of_the_places() -> None:
    limiter = UploadLimiter(4)
    with ExitStack() as held, ExitStack() as more:
        for number in range(4):
            places(held, limiter, f"held {number}", most=1)
        for number in range(100):
            assert places(held, limiter, f"refused {number}", most=1) == 0
        held.close()
        assert [places(more, limiter, f"new {n}", most=1) for n in range(3)] == [1, 1, 0]


def test_of_fifty_clients_that_never_pause_each_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four requests run at a time, each for a second; slow uploads hold half of the places."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    random.seed(0)
    limiter, answers = UploadLimiter(32), Counter[int]()
    queue: deque[tuple[int, ExitStack]] = deque()
    with ExitStack() as slow:
        places(slow, limiter, "slow")
        asking = [(number / 1000, number) for number in range(50)]
        running: list[tuple[float, int, ExitStack]] = []
        while now < 300:
            now = min(one[0] for one in (*asking, *running))
            for done in [one for one in running if one[0] <= now]:
                running.remove(done)
                done[2].close()
                answers[done[1]] += 1
                asking.append((now, done[1]))
            for due in [one for one in asking if one[0] <= now]:
                asking.remove(due)
                held = ExitStack()
                try:
                    held.enter_context(limiter.place(request(f"client {due[1]}")))
                except BusyError as error:
                    asking.append((now + max(1, ceil(error.retry_after_s)), due[1]))
                else:
                    queue.append((due[1], held))
            while queue and len(running) < 4:
                number, held = queue.popleft()
                running.append((now + 1.0, number, held))
    counts = [answers[number] for number in range(50)]
    assert min(counts) > 0.5 * max(counts)
    assert sum(counts) ** 2 / (50 * sum(count**2 for count in counts)) > 0.9
    assert sum(counts) > 0.9 * 4 * 300


def test_refused_clients_do_not_come_back_together() -> None:
    limiter, found = UploadLimiter(1), set()
    limiter._seconds = 40.0
    with limiter.place(request("a")):
        for number in range(20):
            with pytest.raises(BusyError) as refused:
                limiter.place(request(f"b{number}")).__enter__()
            found.add(refused.value.retry_after_s)
    assert len(found) == 20
    assert 7.5 <= min(found) < max(found) <= 12.5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("testclient", "testclient", True),
        (None, None, True),
    ],
)
def test_a_client_is_an_address_or_a_network(
    one: str | None, other: str | None, same: bool
) -> None:
    limiter = UploadLimiter(8)
    with ExitStack() as held:
        assert places(held, limiter, one) == 5
        assert (places(held, limiter, other, most=1) == 0) == same
