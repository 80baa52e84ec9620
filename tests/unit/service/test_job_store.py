"""The list of jobs survives its process, and returns no job twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import BusyError, ExportError
from rooftrace.labels.split import Split
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.jobs.finetune import extended_split
from rooftrace.service.jobs.job import (
    Job,
    JobFile,
    JobReviewedError,
    JobStateError,
    TrainingOptions,
    TrainingProgress,
    progress_of_run,
)
from rooftrace.service.jobs.store import STATE, JobStore

FIGURES = {"buildings": 3, "pixels": 64}


def add(store: JobStore, name: str = "a.tif", options: SceneOptions | None = None) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_bytes(b"12345")
    return store.add(job_id, name, "scene.tif", 64, options or SceneOptions())


def test_a_job_is_there_after_the_server_is_gone(tmp_path: Path) -> None:
    options = SceneOptions(threshold=0.4, outputs=("mask",), regularize=False)
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
    assert done.revision == 4
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


def test_a_review_is_removed_only_on_request(store: JobStore) -> None:
    job = finished(store)
    (store.results(job.id) / "scene_review.gpkg").touch()
    with pytest.raises(JobReviewedError, match=r"a\.tif has a review, which would be deleted"):
        store.remove(job.id)
    assert store.get(job.id) is not None
    assert store.remove(job.id, discard_review=True)
    assert store.get(job.id) is None


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
    with pytest.raises(ExportError, match="could not be written"):
        JobStore(tmp_path / "file" / "jobs")


VERSION = {"version": "tiny-review-12345678", "verdict": "better"}


def train(store: JobStore, results: str = "out") -> Job:
    training = TrainingOptions(results, 10.0, "tiny-00000000", "0" * 64, "tiny")
    return store.add_training("review", training, lambda folder: (folder / "a").touch())


def test_one_training_of_a_review_waits_or_runs(store: JobStore) -> None:
    first = train(store)
    assert train(store) == first
    other = train(store, "other")
    assert other.id != first.id
    # A prediction does not wait for trainings, nor a training for predictions.
    assert store.claim() is None
    claimed = store.claim(training=True)
    assert claimed is not None
    assert claimed.id == first.id
    progress = TrainingProgress("training", 2, 9, 0.5, 0.25)
    store.training_progress(first.id, progress)
    now = train(store)
    assert (now.id, now.state, now.progress) == (first.id, "running", progress)
    store.finish(first.id, VERSION, [])
    assert train(store).id != first.id
    assert [job.id for job in store.trainings()] == [first.id]


def test_a_training_that_cannot_be_prepared_leaves_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path, jobs_waiting=1)
    training = TrainingOptions("out", 10.0, "tiny-00000000", "0" * 64, "tiny")

    def fail(folder: Path) -> None:
        raise ExportError("The disk is full.")

    with pytest.raises(ExportError, match="disk is full"):
        store.add_training("review", training, fail)
    assert list(tmp_path.iterdir()) == []
    train(store)
    with pytest.raises(BusyError):
        train(store, "other")


def test_versions_are_kept_and_the_one_in_use_cannot_be_deleted(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep_days=0.0)
    ids = []
    for _ in range(2):
        ids.append(train(store).id)
        store.claim(training=True)
        store.finish(ids[-1], VERSION, [])
        store.set_taken(ids[-1], taken=True)
    failed = train(store).id
    store.claim(training=True)
    store.fail(failed, {"type": "DataError", "message": "Too few.", "remedy": ""})
    store.expire()
    assert [job.id for job in store.newest(9)] == ids[::-1]
    with pytest.raises(JobStateError, match="is in use"):
        store.remove(ids[1])
    assert store.remove(ids[0])
    store.set_taken(ids[1], taken=False)
    # A job that waits for it keeps it, too.
    job_id = store.reserve()
    store.add(job_id, "a.tif", "scene.tif", 64, SceneOptions(), version=ids[1])
    with pytest.raises(JobStateError, match="is in use"):
        store.remove(ids[1])
    store.cancel(job_id)
    assert store.remove(ids[1])


def test_progress_is_read_from_the_files_of_the_run(tmp_path: Path) -> None:
    assert progress_of_run(tmp_path / "none") == TrainingProgress("training")
    (tmp_path / "config.json").write_text(json.dumps({"epochs": 20}))
    assert progress_of_run(tmp_path) == TrainingProgress("training", 0, 20)
    table = "epoch,val_iou,seconds\n1,0.5,30\n2,0.75,30\n3,0.7,60\n"
    (tmp_path / "metrics.csv").write_text(table)
    now = progress_of_run(tmp_path)
    assert now == TrainingProgress("training", 3, 20, 2.0, 0.75)
    # The minutes count where they end the training before the epochs do.
    assert now.share(4.0) == pytest.approx(0.8 * 0.5)
    (tmp_path / "best_iou.rooftrace").touch()
    assert progress_of_run(tmp_path).step == "comparison"


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.integers(0, 60), st.data())
def test_images_stay_in_their_parts(numbers: list[int], earlier: int, data: st.DataObject) -> None:
    ids = tuple(map(str, numbers))
    known = ids[:earlier]
    held_out = data.draw(st.sets(st.sampled_from(known)) if known else st.just(set()))
    before = Split(
        parts={"train": tuple(set(known) - held_out), "val": tuple(held_out)}, dropped=("gone",)
    )
    after = extended_split(before, ids)
    assert set(after.parts["train"]) | set(after.parts["val"]) == set(ids)
    assert not set(after.parts["train"]) & set(after.parts["val"])
    assert {one for one in known if after.part_of[one] == "val"} == held_out
    if len(held_out) < round(0.2 * len(ids)):
        possible = len(held_out) + len(ids) - len(known)
        assert len(after.parts["val"]) == min(round(0.2 * len(ids)), possible)
