"""Results of a job over HTTP: vector tiles, a review that is not lost, and lost results."""

import io
import shutil
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
from rooftrace.app.map.results import read_results
from rooftrace.app.map.review_scene import ReviewScene, reviewed_layers
from rooftrace.core.types import Footprints
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.plan import SceneOptions
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.ogc import ogc_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import Job, JobFile, JobStore
from rooftrace.service.review_store import Edit, ReviewStore

HOUSES = np.array([shapely.box(5e5 + x, 9e6, 5e5 + x + 8, 9e6 + 8) for x in (0, 20)])

FIGURES: dict[str, Any] = {
    "buildings": 2, "pixels": 64, "built_up_share": 0.1, "seconds": 1.0, "mpx_per_s": 1.0,
    "classes": [], "notes": [], "valid_pixels": 64, "gsd_m": 0.5, "threshold": 0.4,
    "polygons": "Häuser_buildings.gpkg",
}  # fmt: skip


@pytest.fixture
def client(store: JobStore) -> TestClient:
    """Return a client of a server that runs no jobs, so that each job keeps its state."""
    service = fake_service()
    intake = JobIntake(JobRunner(store), service.predictor, service.limits)
    app = FastAPI()
    install_problems(app)
    app.include_router(jobs_router(intake, reviewed_layers))
    app.include_router(ogc_router(intake))
    return TestClient(app)


@pytest.fixture
def job(store: JobStore) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").touch()
    job = store.add(job_id, "Häuser.tif", "scene.tif", 64, SceneOptions())
    store.claim()
    store.results(job_id).mkdir()
    buildings = Footprints(
        HOUSES, np.array([0.5, 0.8], np.float32), shapely.area(HOUSES), CRS(32736)
    )
    write_footprints(store.results(job_id) / "Häuser_buildings.gpkg", buildings)
    store.finish(job_id, FIGURES, [JobFile("Häuser_buildings.gpkg", 1)])
    return job


@pytest.fixture
def review(store: JobStore, job: Job) -> ReviewStore:
    made = ReviewScene(read_results(store.results(job.id)).images["Häuser"]).store
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
    assert [file["name"] for file in files] == ["Häuser_buildings.gpkg", "Häuser_review.gpkg"]
    sent = client.get(files[0]["url"]).headers
    by_tag = {"If-None-Match": f'"older", W/{sent["etag"]}'}
    for known in (by_tag, {"If-Modified-Since": sent["last-modified"]}):
        again = client.get(files[0]["url"], headers=known)
        assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "private, no-cache"
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
        names = [f"Häuser_{kind}.gpkg" for kind in ("buildings", "review", "reviewed")]
        assert archive.namelist() == names
        assert statuses_of(archive.read(names[1]), tmp_path) == decided
        kept = archive.extract(names[2], tmp_path)
    assert VectorFile(Path(kept)).read(("id",), typed=True).values["id"].tolist() == [1]
    other.close()


@pytest.mark.parametrize("address", ["/v1/jobs", "/ogc/jobs"])
def test_a_job_with_a_review_is_not_deleted_by_accident(
    client: TestClient, job: Job, review: ReviewStore, address: str
) -> None:
    refused = client.delete(f"{address}/{job.id}")
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/job-reviewed"
    assert "Häuser.tif has a review" in problem["detail"]
    assert "discard_review=true" in problem["remedy"]
    assert review.path.exists()
    gone = client.delete(f"/v1/jobs/{job.id}", params={"discard_review": True})
    assert gone.status_code == 204
    assert not review.path.exists()
    assert client.get(f"/v1/jobs/{job.id}").status_code == 404


def test_results_that_are_gone_are_a_sentence(
    client: TestClient, job: Job, store: JobStore
) -> None:
    shutil.rmtree(store.results(job.id))
    answer = client.get(f"/v1/jobs/{job.id}/results.zip")
    assert answer.status_code == 404
    assert "of the job" in answer.json()["detail"]
    assert str(store.folder) not in answer.text
    # Neither has a cancelled job the image that it could be run again with.
    other = store.add(store.reserve(), "town.tif", "scene.tif", 64, SceneOptions())
    store.cancel(other.id)
    refused = client.post(f"/v1/jobs/{other.id}/again", json={})
    assert refused.status_code == 409
    assert refused.json()["remedy"] == answer.json()["remedy"]
    assert refused.json()["remedy"] == "Upload the image again with POST /v1/jobs."
