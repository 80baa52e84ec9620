"""Listeners of a job receive its end, whether they are fast or slow, early or late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from rooftrace.predict.plan import SceneOptions
from rooftrace.rest import jobs
from rooftrace.rest.jobs import job_events
from rooftrace.service.jobs.store import Job, JobStore


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL_S", 0.002)


@pytest.fixture
def job(store: JobStore) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_text("")
    return store.add(job_id, "town.tif", "scene.tif", 64, SceneOptions())


def show(job: Job) -> str:
    return f"{job.state} {job.pixels_done}"


async def next_event(events: AsyncIterator[bytes]) -> str:
    return (await anext(events)).decode()


def in_a_thread(*calls: object) -> None:
    """Change jobs from a thread, as the runner does."""
    thread = threading.Thread(target=lambda: [call() for call in calls])  # type: ignore[operator]
    thread.start()
    thread.join()


def test_the_wire_format(store: JobStore, job: Job) -> None:
    async def listen() -> None:
        events = job_events(store, job, 0, show)
        assert await next_event(events) == "event: queued\nid: 1\ndata: queued 0\n\n"
        in_a_thread(store.claim)
        assert await next_event(events) == "event: running\nid: 2\ndata: running 0\n\n"
        in_a_thread(lambda: store.progress(job.id, 32, 64, 1))
        assert await next_event(events) == "event: progress\nid: 3\ndata: running 32\n\n"
        in_a_thread(lambda: store.fail(job.id, {}))
        assert await next_event(events) == "event: failed\nid: 4\ndata: failed 32\n\n"
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    asyncio.run(listen())


def test_one_that_comes_again_hears_what_is_new_alone(store: JobStore, job: Job) -> None:
    store.claim()
    running = store.get(job.id)
    assert running is not None

    async def listen() -> None:
        events = job_events(store, running, 2, show)
        waiting = asyncio.create_task(next_event(events))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        in_a_thread(lambda: store.progress(job.id, 8, 64, 1))
        assert await waiting == "event: running\nid: 3\ndata: running 8\n\n"

    asyncio.run(listen())


def test_one_that_knows_what_never_was_hears_all(store: JobStore, job: Job) -> None:
    store.cancel(job.id)
    cancelled = store.get(job.id)
    assert cancelled is not None

    async def listen() -> list[str]:
        return [event.decode() async for event in job_events(store, cancelled, 99, show)]

    assert asyncio.run(listen()) == ["event: cancelled\nid: 2\ndata: cancelled 0\n\n"]


@pytest.mark.parametrize("before", [True, False])
def test_a_job_that_is_removed(store: JobStore, job: Job, before: bool) -> None:
    async def listen() -> list[str]:
        heard = []
        if before:
            store.remove(job.id)
        async for event in job_events(store, job, 0, show):
            heard.append(event.decode())
            in_a_thread(lambda: store.remove(job.id))
        return heard

    removed = "event: removed\nid: 2\ndata: queued 0\n\n"
    queued = "event: queued\nid: 1\ndata: queued 0\n\n"
    assert asyncio.run(listen()) == ([removed] if before else [queued, removed])


def test_a_comment_keeps_the_line_open(
    store: JobStore, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_HEARTBEAT_S", 0.0)

    async def listen() -> None:
        events = job_events(store, job, 0, show)
        await next_event(events)
        assert await next_event(events) == ": alive\n\n"
        assert await next_event(events) == ": alive\n\n"
        in_a_thread(store.claim)
        heard = [await next_event(events) for _ in range(2)]
        assert "event: running\nid: 2\ndata: running 0\n\n" in heard

    asyncio.run(listen())
