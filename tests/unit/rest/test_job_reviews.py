"""Jobs with a review over HTTP: the review is downloaded whole, and is not lost by accident."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pyproj import CRS

from rest_service import fake_service
from rooftrace.predict.plan import SceneOptions
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.ogc import ogc_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import Job, JobFile, JobStore
from rooftrace.service.review.store import Edit, PredictedLayer, ReviewStore

FIGURES: dict[str, Any] = {
    "buildings": 2, "pixels": 64, "built_up_share": 0.1, "seconds": 1.0, "mpx_per_s": 1.0,
    "classes": [], "notes": [],
}  # fmt: skip


@pytest.fixture
def client(store: JobStore) -> TestClient:
    """Return a client of a server that runs no jobs, so that each job keeps its state."""
    service = fake_service()
    intake = JobIntake(JobRunner(store), service.predictor, service.limits)
    app = FastAPI()
    install_problems(app)
    app.include_router(jobs_router(intake))
    app.include_router(ogc_router(intake))
    return TestClient(app)


def queued(store: JobStore) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").touch()
    return store.add(job_id, "town.tif", "scene.tif", 64, SceneOptions())


@pytest.fixture
def job(store: JobStore) -> Job:
    job = queued(store)
    store.claim()
    store.results(job.id).mkdir()
    (store.folder_of(job.id) / "run.json").write_text("{}")
    store.finish(job.id, FIGURES, [JobFile("run.json", 2)])
    return job


@pytest.fixture
def review(store: JobStore, job: Job) -> ReviewStore:
    houses = np.array([shapely.box(x, 0, x + 8, 8) for x in (0, 10)], np.object_)
    layer = PredictedLayer("scene_buildings.gpkg", np.array([1, 2]), houses, CRS(32736), "a")
    made = ReviewStore(store.results(job.id) / "scene_review.gpkg", layer)
    made.change("Ada", "accept", {1: 0}, [Edit(1, "keep")])
    return made


def statuses_of(data: bytes, tmp_path: Path) -> list[tuple[int, str]]:
    path = tmp_path / "downloaded.gpkg"
    path.write_bytes(data)
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (layer,) = file.execute("SELECT table_name FROM gpkg_geometry_columns").fetchone()
    found = file.execute(f"SELECT fid, status FROM {layer} ORDER BY fid").fetchall()
    file.close()
    return found


def test_a_review_is_downloaded_with_the_results(
    client: TestClient, job: Job, review: ReviewStore, tmp_path: Path
) -> None:
    assert client.get(f"/v1/jobs/{job.id}").json()["reviewed"] is True
    files = client.get(f"/v1/jobs/{job.id}/results").json()["files"]
    assert [file["name"] for file in files] == ["run.json", "scene_review.gpkg"]
    # While QGIS has the file open, a change is in the file's journal before it is in the file.
    other = sqlite3.connect(review.path)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    review.change("Bo", "reject", {2: 0}, [Edit(2, "reject")])
    decided = [(1, "accepted"), (2, "rejected")]
    answer = client.get(files[1]["url"])
    assert answer.headers["content-type"] == "application/geopackage+sqlite3"
    assert statuses_of(answer.content, tmp_path) == decided
    packed = client.get(f"/v1/jobs/{job.id}/results.zip").content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["run.json", "scene_review.gpkg"]
        assert statuses_of(archive.read("scene_review.gpkg"), tmp_path) == decided
    other.close()


@pytest.mark.parametrize("address", ["/v1/jobs", "/ogc/jobs"])
def test_a_job_with_a_review_is_not_deleted_by_accident(
    client: TestClient, job: Job, review: ReviewStore, address: str
) -> None:
    refused = client.delete(f"{address}/{job.id}")
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/job-reviewed"
    assert "town.tif has a review" in problem["detail"]
    assert "discard_review=true" in problem["remedy"]
    assert review.path.exists()
    gone = client.delete(f"/v1/jobs/{job.id}", params={"discard_review": True})
    assert gone.status_code == 204
    assert not review.path.exists()
    assert client.get(f"/v1/jobs/{job.id}").status_code == 404
