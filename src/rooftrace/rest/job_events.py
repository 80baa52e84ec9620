"""What happens to jobs, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from rooftrace.service.jobs.job import Job, JobState
from rooftrace.service.jobs.store import JobStore

__all__ = ["JobEvents"]

_HEARTBEAT = b": alive\n\n"
"""A comment: what stands between client and server must not take the connection for dead."""

Show = Callable[[Job], str]
"""The data of an event, in one line."""


class JobEvents:
    """Tells any number of listeners, each a coroutine, of changes that other threads make.

    A listener that is slow misses what was in between, never the last.

    Args:
        store: whose jobs they are.
        heartbeat_s: after so long without an event a comment is sent.
    """

    def __init__(self, store: JobStore, heartbeat_s: float = 15.0) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._listeners: dict[str, set[_Listener]] = {}
        self._lock = threading.Lock()
        store.watch(self._changed)

    @property
    def listening(self) -> int:
        """How many listen."""
        with self._lock:
            return sum(map(len, self._listeners.values()))

    async def of(self, job: Job, seen: int, show: Show) -> AsyncIterator[bytes]:
        """The events of a job from now on; they end with it.

        An event is called `progress`, or by the state that the job has come to; its id is the
        job's revision. A job that is removed has an event `removed`, with the job as it was last.

        Args:
            job: as it stands.
            seen: the revision that the listener knows; 0, or one that never was, for none.
            show: what is told of the job.
        """
        listener = _Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.setdefault(job.id, set()).add(listener)
        seen = seen if seen <= job.revision else 0
        try:
            # It may have changed before somebody listened.
            listener.put(await asyncio.to_thread(self._store.get, job.id))
            state: JobState | None = None
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        latest = await listener.take()
                except TimeoutError:
                    yield _HEARTBEAT
                    continue
                if latest is None:
                    yield _event("removed", job.revision + 1, show(job))
                    return
                if latest.revision > seen:
                    kind = "progress" if latest.state == state else latest.state
                    job, seen, state = latest, latest.revision, latest.state
                    yield _event(kind, seen, show(job))
                if latest.ended:
                    return
        finally:
            with self._lock:
                others = self._listeners[job.id]
                others.discard(listener)
                if not others:
                    del self._listeners[job.id]

    def _changed(self, job_id: str, job: Job | None) -> None:
        with self._lock:
            listening = tuple(self._listeners.get(job_id, ()))
        for listener in listening:
            listener.tell(job)


class _Listener:
    """The latest of a job that was not told yet.

    Args:
        loop: in which somebody listens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news = asyncio.Event()
        self._latest: Job | None = None
        self._removed = False

    def tell(self, job: Job | None) -> None:
        """Note a change, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.put, job)
        except RuntimeError:
            # The loop is closed: nobody listens any more.
            return

    def put(self, job: Job | None) -> None:
        """Note a change, in the loop. They may come out of order."""
        if job is None:
            self._removed = True
        elif self._latest is None or job.revision > self._latest.revision:
            self._latest = job
        self._news.set()

    async def take(self) -> Job | None:
        """The job when there is news of it; None where it was removed."""
        await self._news.wait()
        self._news.clear()
        return None if self._removed else self._latest


def _event(kind: str, number: int, data: str) -> bytes:
    return f"event: {kind}\nid: {number}\ndata: {data}\n\n".encode()
