"""Trainings in the list of jobs, their progress, and the images that they hold out."""

from __future__ import annotations

import json
import sqlite3
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
    JobStateError,
    TrainingOptions,
    TrainingProgress,
    progress_of_run,
)
from rooftrace.service.jobs.store import JobStore

FIGURES = {"version": "tiny-project3-12345678", "verdict": "better"}


def train(store: JobStore, project: int = 3) -> Job:
    training = TrainingOptions(project, 10.0, "tiny-00000000", "0" * 64, "tiny")
    return store.add_training(
        f"project {project}", SceneOptions(), training, lambda folder: (folder / "a").touch()
    )


def test_one_training_of_a_project_waits_or_runs(store: JobStore) -> None:
    first = train(store)
    assert train(store) == first
    other = train(store, 4)
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
    store.finish(first.id, FIGURES, [])
    assert train(store).id != first.id
    assert [job.id for job in store.trainings()] == [first.id]


def test_a_training_that_cannot_be_prepared_leaves_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path, jobs_waiting=1)
    training = TrainingOptions(3, 10.0, "tiny-00000000", "0" * 64, "tiny")

    def fail(folder: Path) -> None:
        raise ExportError("The disk is full.")

    with pytest.raises(ExportError, match="disk is full"):
        store.add_training("project 3", SceneOptions(), training, fail)
    assert list((tmp_path / "jobs").iterdir()) == []
    train(store)
    with pytest.raises(BusyError):
        train(store, 4)
    store.close()


def test_versions_are_kept_and_the_one_in_use_cannot_be_deleted(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep_days=0.0)
    ids = []
    for _ in range(2):
        ids.append(train(store).id)
        store.claim(training=True)
        store.finish(ids[-1], FIGURES, [])
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
    assert store.remove(ids[1])
    store.close()


@pytest.mark.parametrize(
    ("version", "missing"),
    [(1, ("training", "progress", "taken_s", "portable")), (2, ("portable",))],
)
def test_a_list_of_an_earlier_version_is_read(
    tmp_path: Path, version: int, missing: tuple[str, ...]
) -> None:
    store = JobStore(tmp_path)
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_bytes(b"1")
    job = store.add(job_id, "a.tif", "scene.tif", 64, SceneOptions())
    store.close()
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    for column in missing:
        database.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    database.execute(f"PRAGMA user_version = {version}")
    database.commit()
    database.close()
    again = JobStore(tmp_path)
    assert again.get(job_id) == job
    assert train(again).training is not None
    again.close()


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
