"""A cluster inside the test: workers are threads, lost, slow or broken as a script says."""

from __future__ import annotations

import pickle
import queue
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rooftrace.core.errors import DataError, PredictError, RooftraceError
from rooftrace.predict.cluster.pool import Answered, Event, Failed, Joined, Lost, Token
from rooftrace.predict.cluster.worker import BlockWorker
from rooftrace.predict.model_set import ModelSet

Mishap = Literal["lost", "fails", "lost after"] | None
"""Outcome of a call: its worker is lost; it raises; its worker is lost after the call, together
with the answer."""

Script = Callable[[int, str, int], Mishap]
"""Return the outcome for a worker, a method and the number of the call among all calls."""


def quiet(worker: int, method: str, call: int) -> Mishap:
    """Nothing goes wrong."""
    return None


class Death(BaseException):
    """Raised by what a worker does, it is its end."""


class _Shared(bytes):
    """A value that was sent to each machine once."""


@dataclass
class _Worker:
    threads: ThreadPoolExecutor
    worker: BlockWorker


class LocalPool:
    """See `Pool`. What is sent goes through pickle, as between machines."""

    def __init__(
        self,
        options: object,
        models: ModelSet,
        make: Callable[[ModelSet, int | None, Path], BlockWorker] = BlockWorker,
        *,
        size: int = 2,
        script: Script = quiet,
        replaces: bool = True,
        machines: int = 1,
    ) -> None:
        self.size = size
        self.machines = machines
        self.called: list[tuple[Hashable, str]] = []
        self._models = models
        self._make = make
        self._script = script
        self._replaces = replaces
        self._workers: dict[int, _Worker] = {}
        self._events: queue.Queue[Event] = queue.Queue()
        self._made = 0

    def __enter__(self) -> LocalPool:
        for _ in range(self.size):
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.threads.shutdown(cancel_futures=True)

    def _start(self) -> None:
        number = self._made
        self._made += 1
        worker = self._make(pickle.loads(pickle.dumps(self._models)), None, Path.cwd())
        self._workers[number] = _Worker(ThreadPoolExecutor(3), worker)
        self._events.put(Joined(number, worker.facts()))

    def share(self, value: Any) -> Any:
        return _Shared(pickle.dumps(value))

    def call(self, worker: Hashable, token: Token, method: str, given: Sequence[Any]) -> None:
        assert isinstance(worker, int)
        if worker not in self._workers:
            # The event that reports this is on its way.
            return
        number = len(self.called)
        self.called.append((worker, method))
        # What is shared is so already.
        first = given[0] if isinstance(given[0], _Shared) else pickle.dumps(given[0])
        sent = pickle.dumps(tuple(given[1:]))
        mishap = self._script(worker, method, number)
        if mishap == "lost":
            self._lose(worker)
            return
        known = self._workers[worker]
        task = (known.worker, first, sent, mishap)
        known.threads.submit(self._do, worker, token, method, *task)

    def _do(
        self, number: int, token: Token, method: str, worker: BlockWorker, task: bytes,
        sent: bytes, mishap: Mishap,
    ) -> None:  # fmt: skip
        try:
            if mishap == "fails":
                raise DataError("The disk of this machine is broken.", remedy="Mend it.")
            value = getattr(worker, method)(pickle.loads(task), *pickle.loads(sent))
            event: Event = Answered(number, token, pickle.loads(pickle.dumps(value)))
        except Death:
            self._lose(number)
            return
        except RooftraceError as error:
            event = Failed(number, token, error)
        except Exception as error:  # as Ray's actors report it
            event = Failed(number, token, PredictError(f"A worker failed: {error!r}."))
        if mishap == "lost after":
            self._lose(number)
        else:
            self._events.put(event)

    def _lose(self, number: int) -> None:
        if self._workers.pop(number, None) is None:
            return
        self._events.put(Lost(number, "killed"))
        if self._replaces:
            self._start()

    def dismiss(self, worker: Hashable, why: str) -> None:
        assert isinstance(worker, int)
        self._workers.pop(worker, None)

    def wait(self, timeout_s: float) -> list[Event]:
        found: list[Event] = []
        try:
            found.append(self._events.get(timeout=timeout_s))
            while True:
                found.append(self._events.get_nowait())
        except queue.Empty:
            pass
        gone = {event.worker for event in found if isinstance(event, Lost)}
        if not self._workers and not gone and not found:
            raise PredictError("No worker is left: all were killed.")
        return found
