"""Test the notes of a driver about workers that join and leave before a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from rooftrace.predict.cluster.driver import Driver
from rooftrace.predict.cluster.pool import Event, Joined, Lost, Token
from rooftrace.predict.cluster.worker import Facts


def _facts(node: str) -> Facts:
    return Facts("openvino", "fp32", {}, (), {}, node, {"instruction_set": "AVX2"})


class _ScriptedPool:
    """A pool that returns given events, one for each wait."""

    size = 3
    machines = 2

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = list(events)

    def share(self, value: Any) -> Any:
        raise AssertionError

    def call(self, worker: Hashable, token: Token, method: str, given: Sequence[Any]) -> None:
        raise AssertionError

    def dismiss(self, worker: Hashable, why: str) -> None:
        raise AssertionError

    def wait(self, timeout_s: float) -> list[Event]:
        return [self._events.pop(0)]


def test_a_worker_that_is_lost_before_it_joins_is_noted() -> None:
    driver = Driver(_ScriptedPool([Lost(0, "The processor is broken"), Joined(1, _facts("there"))]))
    assert driver.begin() == _facts("there")
    assert driver.notes == ["A worker was not used: The processor is broken."]
    assert driver.nodes == {"there": 1}
