"""Changes of jobs as server-sent events: `JobEvents` passes them from threads to coroutines."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from rooftrace.service.jobs.job import Job, JobState
from rooftrace.service.jobs.store import JobStore

__all__ = ["JobEvents"]

_HEARTBEAT = b": alive\n\n"
"""A comment that keeps proxies from closing the connection."""

JobText = Callable[[Job], str]
"""Function that returns the data of an event, in one line."""


class JobEvents:
    """Send the changes that other threads make to jobs to coroutines, as server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html

    A slow listener may miss intermediate changes, never the last one.

    Args:
        store: Store of the jobs.
        heartbeat_s: Seconds without an event after which a comment is sent.
    """

    def __init__(self, store: JobStore, heartbeat_s: float = 15.0) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._listeners: dict[str, set[_Listener]] = {}
        self._lock = threading.Lock()
        store.watch(self._changed)

    @property
    def listening(self) -> int:
        """Return the number of listeners."""
        with self._lock:
            return sum(map(len, self._listeners.values()))

    async def of(self, job: Job, seen: int, text_of: JobText) -> AsyncIterator[bytes]:
        """Yield the events of a job until it ends or is removed.

        The name of an event is `progress`, or the new state of the job; its id is the job's
        revision. The event `removed` has the last state of a removed job.

        Args:
            job: Job in its current state.
            seen: Last revision that the listener knows; 0, or a revision that does not exist yet,
                for none.
            text_of: Function that returns the data of an event.
        """
        listener = _Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.setdefault(job.id, set()).add(listener)
        seen = seen if seen <= job.revision else 0
        try:
            # The job may have changed before the listener was added.
            listener.put(await asyncio.to_thread(self._store.get, job.id))
            state: JobState | None = None
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        latest = await listener.latest()
                except TimeoutError:
                    yield _HEARTBEAT
                    continue
                if latest is None:
                    yield _event("removed", job.revision + 1, text_of(job))
                    return
                if latest.revision > seen:
                    kind = "progress" if latest.state == state else latest.state
                    job, seen, state = latest, latest.revision, latest.state
                    yield _event(kind, seen, text_of(job))
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
            listener.notify(job)


class _Listener:
    """Latest change of a job that the listening coroutine has not seen yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = asyncio.Event()
        self._latest: Job | None = None
        self._removed = False

    def notify(self, job: Job | None) -> None:
        """Record a change, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.put, job)
        except RuntimeError:
            # The loop is closed, and the listener with it.
            return

    def put(self, job: Job | None) -> None:
        """Record a change, in the loop. Changes may arrive out of order."""
        if job is None:
            self._removed = True
        elif self._latest is None or job.revision > self._latest.revision:
            self._latest = job
        self._changed.set()

    async def latest(self) -> Job | None:
        """Wait for a change and return the job; None if it was removed."""
        await self._changed.wait()
        self._changed.clear()
        return None if self._removed else self._latest


def _event(kind: str, number: int, data: str) -> bytes:
    return f"event: {kind}\nid: {number}\ndata: {data}\n\n".encode()
