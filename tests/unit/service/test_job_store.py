"""The list of jobs survives its process, and returns no job twice."""

import json
from pathlib import Path

import pytest

from rooftrace.core.errors import BusyError, ExportError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.job_store import STATE, Job, JobFile, JobStateError, JobStore

FIGURES = {"buildings": 3, "pixels": 64}


def add(store: JobStore, name: str = "a.tif", options: SceneOptions | None = None) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_bytes(b"12345")
    return store.add(job_id, name, "scene.tif", 64, options or SceneOptions())


def test_a_job_is_there_after_the_server_is_gone(tmp_path: Path) -> None:
    options = SceneOptions(threshold=0.4, outputs=("mask",), outline="pixel")
    first = JobStore(tmp_path)
    job = add(first, "Häuser.tif", options)
    again = JobStore(tmp_path)
    assert again.get(job.id) == job
    assert job.options == options
    assert (job.name, job.state, job.pixels) == ("Häuser.tif", "queued", 64)


def test_what_becomes_of_a_job(store: JobStore) -> None:
    job = add(store)
    claimed = store.claim()
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempts) == (job.id, "running", 1)
    assert store.claim() is None
    store.progress(job.id, 32, 64, 2)
    now = store.get(job.id)
    assert now is not None
    assert (now.pixels_done, now.buildings) == (32, 2)
    store.finish(job.id, FIGURES, [JobFile("scene_mask.tif", 7)])
    done = store.get(job.id)
    assert done is not None
    assert done.ended
    assert (done.state, done.figures, done.files) == (
        "done",
        FIGURES,
        (JobFile("scene_mask.tif", 7),),
    )
    assert done.created_s <= done.started_s <= done.finished_s  # type: ignore[operator]
    # Late changes have no effect.
    store.fail(job.id, {})
    store.progress(job.id, 1, 64, 0)
    assert store.get(job.id) == done
    assert store.remove(job.id)
    assert not store.remove(job.id)


def test_one_that_is_queued_again_comes_before_those_after_it(store: JobStore) -> None:
    first, second = add(store), add(store)
    running = store.claim()
    assert running is not None
    store.requeue(running, crashed=True)
    again = store.claim()
    assert again is not None
    assert (again.id, again.attempts, again.crashes) == (first.id, 2, 1)
    store.requeue(again, crashed=False)
    once_more = store.claim()
    assert once_more is not None
    # A stop of the server is not counted as an attempt.
    assert (once_more.attempts, once_more.crashes) == (2, 1)
    later = store.claim()
    assert later is not None
    assert later.id == second.id


def test_cancelled_where_it_has_not_ended(store: JobStore) -> None:
    waiting, running = add(store), add(store)
    assert store.cancel("nothing") is None
    first = store.claim()
    assert first is not None
    for job in (waiting, running):
        cancelled = store.cancel(job.id)
        assert cancelled is not None
        assert cancelled.state == "cancelled"
        assert cancelled.finished_s is not None
        with pytest.raises(JobStateError, match="is already cancelled"):
            store.cancel(job.id)
    assert store.claim() is None
    store.finish(waiting.id, FIGURES, [])
    late = store.get(waiting.id)
    assert late is not None
    assert late.state == "cancelled"


def test_the_queue_is_short(tmp_path: Path) -> None:
    store = JobStore(tmp_path, jobs_waiting=2)
    add(store)
    coming = store.reserve()
    with pytest.raises(BusyError, match="2 jobs are waiting already") as caught:
        store.reserve()
    assert caught.value.retry_after_s >= 1
    store.discard(coming)
    assert not store.folder_of(coming).exists()
    job = add(store)
    # An added job is never discarded.
    store.discard(job.id)
    assert store.folder_of(job.id).exists()
    with pytest.raises(BusyError):
        store.reserve()
    store.claim()
    store.reserve()


def test_the_newest_first_in_pages(store: JobStore) -> None:
    jobs = [add(store) for _ in range(5)]
    assert [job.id for job in store.newest(2)] == [jobs[4].id, jobs[3].id]
    assert [job.id for job in store.newest(9, jobs[3].number)] == [
        job.id for job in reversed(jobs[:3])
    ]
    store.claim()
    assert store.counts() == {"queued": 4, "running": 1, "done": 0, "failed": 0, "cancelled": 0}


def test_what_ran_when_the_server_ended_is_queued(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job, cancelled = add(store), add(store)
    for _ in range(4):
        store.claim()
        store.recover()
    store.cancel(cancelled.id)
    stray = store.reserve()
    store = JobStore(tmp_path)
    store.recover()
    assert not store.folder_of(stray).exists()
    assert [path.name for path in store.folder_of(cancelled.id).iterdir()] == [STATE]
    assert (store.folder_of(job.id) / "scene.tif").exists()
    now = store.get(job.id)
    assert now is not None
    assert (now.state, now.attempts) == ("queued", 4)
    store.claim()
    store.recover()
    failed = store.get(job.id)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.error is not None
    assert "prediction of a.tif failed: the server ended 5 times" in failed.error["message"]


def test_old_jobs_go_with_their_files(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep_days=2)
    old, young, waiting = add(store), add(store), add(store)
    for job in (old, young):
        store.claim()
        store.finish(job.id, FIGURES, [])
    for job in (old, waiting):
        path = store.folder_of(job.id) / STATE
        state = json.loads(path.read_bytes())
        times = ("created_s", "finished_s")
        path.write_text(json.dumps(state | {at: state[at] and state[at] - 200_000 for at in times}))
    store = JobStore(tmp_path, keep_days=2)
    store.expire()
    assert store.get(old.id) is None
    assert not store.folder_of(old.id).exists()
    assert store.get(young.id) is not None
    assert store.get(waiting.id) is not None
    assert store.folder_of(young.id).exists()


def finished(store: JobStore) -> Job:
    job = add(store)
    store.claim()
    store.results(job.id).mkdir()
    store.finish(job.id, FIGURES, [JobFile("scene_mask.tif", 7)])
    return job


def test_a_job_with_a_review_does_not_expire(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep_days=0)
    reviewed, plain = finished(store), finished(store)
    review = store.results(reviewed.id) / "scene_review.gpkg"
    review.write_bytes(b"12345")
    store.expire()
    assert store.get(plain.id) is None
    kept = store.get(reviewed.id)
    assert kept is not None
    assert kept.reviewed
    assert kept.files == (JobFile("scene_mask.tif", 7), JobFile("scene_review.gpkg", 5))
    assert review.exists()
    # Without it, the job is like any other.
    review.unlink()
    store.expire()
    assert store.get(reviewed.id) is None


def test_the_files_of_a_job_are_its_own(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job, damaged = add(store, "../../etc/passwd"), add(store)
    assert store.folder_of(job.id) == tmp_path / job.id
    for folder in (store.folder, store.folder_of(job.id)):
        assert folder.stat().st_mode & 0o077 == 0
    assert store.get("../jobs") is None
    # Files of others, and a job that cannot be read, stay.
    (tmp_path / "mine").mkdir()
    (store.folder_of(damaged.id) / STATE).write_text("{")
    again = JobStore(tmp_path)
    again.recover()
    assert again.newest(9) == [job]
    assert (tmp_path / "mine").exists()
    assert store.folder_of(damaged.id).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"is a file, not a folder.*serve --jobs PATH"):
        JobStore(tmp_path / "file" / "jobs")
