"""The list of jobs survives its process, and returns no job twice."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rooftrace.core.errors import BusyError, ConfigError, ExportError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.jobs.job import Job, JobFile, JobReviewedError, JobStateError
from rooftrace.service.jobs.store import JobStore

FIGURES = {"buildings": 3, "pixels": 64}


def add(store: JobStore, name: str = "a.tif", options: SceneOptions | None = None) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_bytes(b"12345")
    return store.add(job_id, name, "scene.tif", 64, options or SceneOptions())


def test_a_job_is_there_after_the_server_is_gone(tmp_path: Path) -> None:
    options = SceneOptions(threshold=0.4, outputs=("mask",), regularize=False)
    first = JobStore(tmp_path)
    job = add(first, "Häuser.tif", options)
    first.close()
    again = JobStore(tmp_path)
    assert again.get(job.id) == job
    assert job.options == options
    assert (job.name, job.state, job.upload_bytes, job.pixels) == ("Häuser.tif", "queued", 5, 64)
    again.close()


def test_ids_cannot_be_guessed_and_are_all_of_a_path(store: JobStore) -> None:
    ids = {add(store, "../../etc/passwd").id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in ids)
    assert {path.name for path in (store.folder / "jobs").iterdir()} == ids
    assert store.get("../jobs") is None
    assert store.get("' OR 1=1 --") is None


def test_what_becomes_of_a_job(store: JobStore) -> None:
    job = add(store)
    seen: list[tuple[str, int]] = []
    end = store.watch(
        lambda _, now: seen.append((now.state if now else "removed", now.revision if now else 0))
    )
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
    revisions = [revision for _, revision in seen]
    assert [state for state, _ in seen] == ["running", "running", "done"]
    assert revisions == sorted(set(revisions))
    # Late changes have no effect.
    store.fail(job.id, {})
    store.progress(job.id, 1, 64, 0)
    assert store.get(job.id) == done
    assert store.remove(job.id)
    assert not store.remove(job.id)
    assert seen[-1] == ("removed", 0)
    end()
    add(store)
    assert seen[-1] == ("removed", 0)


def test_jobs_are_claimed_in_order(store: JobStore) -> None:
    jobs = [add(store) for _ in range(4)]
    claimed = [store.claim() for _ in range(4)]
    assert [job.id for job in claimed if job] == [job.id for job in jobs]


def test_no_job_is_claimed_twice(store: JobStore) -> None:
    jobs = [add(store) for _ in range(30)]
    claimed: list[str] = []

    def claim() -> None:
        while (job := store.claim()) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(job.id for job in jobs)


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
    store.close()


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
    store.close()
    store = JobStore(tmp_path)
    store.recover()
    assert not store.folder_of(stray).exists()
    assert list(store.folder_of(cancelled.id).iterdir()) == []
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
    store.close()


def test_old_jobs_go_with_their_files(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep_days=2)
    old, young, waiting = add(store), add(store), add(store)
    for job in (old, young):
        store.claim()
        store.finish(job.id, FIGURES, [])
    with sqlite3.connect(tmp_path / "jobs.sqlite") as base:
        base.execute("UPDATE jobs SET finished_s = finished_s - 200000 WHERE id = ?", (old.id,))
        base.execute("UPDATE jobs SET created_s = created_s - 200000 WHERE id = ?", (waiting.id,))
    base.close()
    store.expire()
    assert store.get(old.id) is None
    assert not store.folder_of(old.id).exists()
    assert store.get(young.id) is not None
    assert store.get(waiting.id) is not None
    assert store.folder_of(young.id).exists()
    store.close()


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
    store.close()


def test_a_review_is_removed_only_on_request(store: JobStore) -> None:
    job = finished(store)
    (store.results(job.id) / "scene_review.gpkg").touch()
    with pytest.raises(JobReviewedError, match=r"a\.tif has a review, which would be deleted"):
        store.remove(job.id)
    assert store.get(job.id) is not None
    assert store.remove(job.id, discard_review=True)
    assert store.get(job.id) is None


def test_a_list_that_is_not_ours(tmp_path: Path) -> None:
    JobStore(tmp_path / "new").close()
    base = sqlite3.connect(tmp_path / "new" / "jobs.sqlite")
    base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(ConfigError, match="has version 9; expected 3"):
        JobStore(tmp_path / "new")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "jobs.sqlite").write_bytes(b"not a database at all" * 50)
    with pytest.raises(ExportError, match="cannot be used as the list of jobs"):
        JobStore(tmp_path / "odd")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="could not be written"):
        JobStore(tmp_path / "file" / "jobs")


def test_a_damaged_list_is_an_error_of_ours(tmp_path: Path) -> None:
    store = JobStore(tmp_path, jobs_waiting=10**6)
    options = SceneOptions()
    for number in range(200):
        job_id = store.reserve()
        (store.folder_of(job_id) / "scene.tif").write_bytes(b"12345")
        store.add(job_id, f"{number}{'x' * 200}.tif", "scene.tif", 64, options)
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "jobs.sqlite"
    data = path.read_bytes()
    # The first page, with the version and the tables, stays.
    path.write_bytes(data[:4096] + bytes([0xA5]) * (len(data) - 4096))
    store._database.execute("PRAGMA shrink_memory")
    asked: list[Callable[[], object]] = [
        lambda: store.newest(10), lambda: store.get(job_id), store.counts, store.claim,
        store.expire, store.recover, store.reserve, lambda: store.cancel(job_id),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(ExportError, match=r"jobs\.sqlite cannot be used.*malformed") as raised:
            ask()
        assert "copy the results" in raised.value.remedy
    store.close()
    with pytest.raises(ExportError, match=r"jobs\.sqlite cannot be used as the list of jobs"):
        JobStore(tmp_path)
    path.write_bytes(data)
    JobStore(tmp_path).close()


def test_other_users_cannot_read_uploads(store: JobStore) -> None:
    job = add(store)
    for folder in (store.folder / "jobs", store.folder_of(job.id)):
        assert folder.stat().st_mode & 0o077 == 0
