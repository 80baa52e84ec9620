"""Test that every item is taken once and in order, even if workers are lost or fail."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Hashable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.predict.cluster.schedule import MOST_LOSSES, WorkItem, WorkOrder, WorkSchedule


def grid(rows: int, cols: int) -> list[WorkItem]:
    """Return blocks that need the blocks to the left, above, and diagonally between these two."""
    items = []
    for row, col in itertools.product(range(rows), range(cols)):
        around = [(row, col - 1), (row - 1, col), (row - 1, col - 1)]
        needs = {r * cols + c for r, c in around if r >= 0 and c >= 0}
        items.append(WorkItem(row * cols + col, frozenset(needs)))
    return items


@dataclass
class World:
    """Workers in virtual time. A call takes some time, or its worker is lost during the call."""

    schedule: WorkSchedule
    seed: int
    workers: int
    loses: float = 0.0
    now: float = 0.0
    taken: list[int] = field(default_factory=list)
    blamed: set[int] = field(default_factory=set)
    ran: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._events: list[tuple[float, int, Hashable, WorkOrder | None, bool]] = []
        self._count = itertools.count()
        self._alive: set[Hashable] = set()
        for _ in range(self.workers):
            self._add_worker(0.0)

    def _add_worker(self, at: float) -> None:
        heapq.heappush(self._events, (at, next(self._count), f"w{next(self._count)}", None, False))

    def _send(self, order: WorkOrder) -> None:
        takes = 0.1 if order.what == "finish" else self._random.uniform(0.8, 1.2)
        ready = self.schedule.is_ready(order.key)
        event = (self.now + takes, next(self._count), order.worker, order, ready)
        heapq.heappush(self._events, event)

    def step(self) -> None:
        self.schedule.pull()
        for order in self.schedule.orders():
            if order.what != "drop":
                self._send(order)
        while self.schedule.is_done(len(self.taken)):
            self.taken.append(len(self.taken))
            self.schedule.taken(self.taken[-1])
            return
        if not self._events:
            return
        self.now, _, worker, order, ready = heapq.heappop(self._events)
        if order is None:
            self._alive.add(worker)
            self.schedule.join(worker)
        elif worker in self._alive:
            if self._random.random() < self.loses:
                self._alive.remove(worker)
                blamed = self.schedule.leave(worker)
                self.blamed.update(blamed)
                self.schedule.given_up(blamed)
                self._add_worker(self.now + 3)
            elif order.what == "run":
                if self.schedule.ran(worker, order.key, finished=ready):
                    self.ran[order.key] = self.ran.get(order.key, 0) + 1
            else:
                self.schedule.finished(worker, order.key)

    def play(self, most: int = 20_000) -> None:
        for _ in range(most):
            if self.schedule.is_over:
                return
            self.step()
        raise AssertionError(f"stuck at {len(self.taken)} at {self.now}")


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.integers(1, 40),
    st.sampled_from([0.0, 0.01, 0.05]), st.integers(0, 2**32),
)  # fmt: skip
def test_every_item_is_taken_once_in_every_order_of_events(
    rows: int, cols: int, workers: int, ahead: int, loses: float, seed: int
) -> None:
    items = grid(rows, cols)
    world = World(WorkSchedule(items, ahead=ahead), seed, workers, loses)
    world.play()
    assert world.taken == list(range(rows * cols))
    assert set(world.ran) | world.blamed == set(world.taken)


def test_without_failures_nothing_runs_twice() -> None:
    world = World(WorkSchedule(grid(8, 8), ahead=20), 3, 5)
    world.play()
    assert set(world.ran.values()) == {1}
    tally = world.schedule.tally
    assert (tally.runs, tally.repeated) == (64, 0)


def test_no_more_items_are_started_than_there_is_room_for() -> None:
    pulled: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for item in grid(10, 10):
            pulled.append(item.key)
            yield item

    schedule = WorkSchedule(items(), ahead=7)
    for worker in range(30):
        schedule.join(worker)
    schedule.pull()
    orders = schedule.orders()
    assert len(pulled) == 7 == len(orders)
    for order in orders[1:]:
        schedule.ran(order.worker, order.key, finished=True)
    schedule.pull()
    assert not schedule.orders()
    assert len(pulled) == 7


def test_an_item_waits_for_the_outputs_that_it_needs() -> None:
    schedule = WorkSchedule(grid(1, 2), ahead=4)
    for worker in "ab":
        schedule.join(worker)
    schedule.pull()
    first, second = schedule.orders()
    assert schedule.ran(second.worker, 1, finished=False)
    assert not schedule.orders()
    assert schedule.ran(first.worker, 0, finished=True)
    assert schedule.orders() == [WorkOrder(second.worker, "finish", 1)]
    assert schedule.finished(second.worker, 1)
    assert schedule.is_done(1)


def test_an_item_held_by_a_lost_worker_runs_again_and_its_outputs_stay_known() -> None:
    schedule = WorkSchedule(grid(1, 3), ahead=4)
    for worker in "abc":
        schedule.join(worker)
    schedule.pull()
    orders = {order.key: order.worker for order in schedule.orders()}
    assert schedule.ran(orders[1], 1, finished=False)
    assert schedule.leave(orders[1]) == []
    # The neighbour needs only the outputs of its run, which are known.
    assert schedule.ran(orders[2], 2, finished=False)
    again = schedule.orders()
    assert WorkOrder(orders[2], "finish", 2) in again
    assert [order.key for order in again if order.what == "run"] == [1]
    assert schedule.tally.repeated == 1
    assert schedule.tally.lost == 1


def test_an_item_whose_workers_are_lost_is_blamed() -> None:
    schedule = WorkSchedule(grid(1, 1), ahead=4)
    for number in range(MOST_LOSSES):
        schedule.join(number)
        schedule.pull()
        (order,) = schedule.orders()
        assert order.worker == number
        blamed = schedule.leave(number)
        assert blamed == ([0] if number == MOST_LOSSES - 1 else [])
    schedule.given_up(blamed)
    assert schedule.is_done(0)


def test_items_that_share_the_lost_workers_are_not_blamed() -> None:
    items = 12
    schedule = WorkSchedule([WorkItem(key) for key in range(items)], ahead=items)
    schedule.pull()
    schedule.join(0)
    workers, blamed, now, done = 1, [], 0.0, set()
    while len(done) + len(blamed) < items:
        for order in schedule.orders():
            if order.key == 5:
                blamed += schedule.leave(order.worker)
                schedule.given_up(blamed)
                schedule.join(workers)
                workers += 1
                break
        else:
            now += 1
            running = [key for key in range(items) if key not in done and key != 5]
            for key in running:
                if schedule.ran(workers - 1, key, finished=True):
                    done.add(key)
    assert blamed == [5]
    assert schedule.tally.lost == MOST_LOSSES
    # The item that ran with it at first was repeated, and no item after that.
    assert schedule.tally.repeated == 2 + (MOST_LOSSES - 2)


def test_an_item_that_was_only_held_is_not_blamed() -> None:
    schedule = WorkSchedule(grid(1, 2), ahead=4)
    schedule.pull()
    schedule.join("slow")
    schedule.join(0)
    orders = schedule.orders()
    for number in range(MOST_LOSSES + 1):
        assert WorkOrder(number, "run", 1) in orders
        # It waits for the first item, which is slow.
        assert schedule.ran(number, 1, finished=False)
        assert schedule.leave(number) == []
        schedule.join(number + 1)
        orders = schedule.orders()


def test_an_item_goes_to_another_worker_after_a_failure_and_two_failures_are_final() -> None:
    schedule = WorkSchedule(grid(1, 2), ahead=2)
    schedule.join("a")
    schedule.join("b")
    schedule.pull()
    orders = {order.key: order.worker for order in schedule.orders()}
    other = {"a": "b", "b": "a"}[str(orders[0])]
    assert not schedule.failed(orders[0], 0)
    assert WorkOrder(other, "run", 0) in schedule.orders()
    assert schedule.failed(other, 0)


def test_a_worker_cannot_fail_on_an_item_that_it_does_not_run() -> None:
    schedule = WorkSchedule(grid(1, 1), ahead=2)
    schedule.join("a")
    schedule.pull()
    (order,) = schedule.orders()
    schedule.join("b")
    # This may be the answer to a call of an earlier run.
    assert not schedule.failed("b", order.key)
    assert not schedule.failed("b", order.key)
    assert schedule.ran("a", order.key, finished=True)


def test_the_failure_of_the_only_worker_is_final() -> None:
    schedule = WorkSchedule(grid(1, 1), ahead=2)
    schedule.join("a")
    schedule.pull()
    schedule.orders()
    assert schedule.failed("a", 0)


def test_if_only_the_worker_that_failed_is_left_it_tries_again() -> None:
    schedule = WorkSchedule(grid(1, 1), ahead=2)
    schedule.join("a")
    schedule.join("b")
    schedule.pull()
    (order,) = schedule.orders()
    other = {"a": "b", "b": "a"}[str(order.worker)]
    schedule.failed(order.worker, 0)
    schedule.leave(other)
    assert schedule.orders() == [WorkOrder(order.worker, "run", 0)]


def test_a_worker_that_fails_where_others_do_not_is_unfit() -> None:
    schedule = WorkSchedule([WorkItem(key) for key in range(3)], ahead=1)
    schedule.join("bad")
    schedule.join("good")
    for key in range(3):
        schedule.pull()
        assert schedule.orders() == [WorkOrder("bad", "run", key)]
        assert schedule.unfit() is None
        assert not schedule.failed("bad", key)
        assert schedule.orders() == [WorkOrder("good", "run", key)]
        schedule.ran("good", key, finished=True)
        schedule.taken(key)
    assert schedule.unfit() == "bad"
    schedule.leave("bad")
    assert schedule.unfit() is None


@pytest.mark.parametrize("finished", [True, False])
def test_answers_of_lost_workers_are_not_used(finished: bool) -> None:
    schedule = WorkSchedule(grid(1, 1), ahead=1)
    schedule.join("a")
    schedule.pull()
    schedule.orders()
    schedule.leave("a")
    assert not schedule.ran("a", 0, finished=finished)
    assert not schedule.finished("a", 0)
    assert not schedule.is_done(0)
