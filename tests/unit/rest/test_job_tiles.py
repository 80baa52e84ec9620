"""The buildings of a job as vector tiles, and results that are not there any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pyproj import CRS

from rest_service import fake_service
from rooftrace.core.types import Footprints
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.plan import SceneOptions
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import Job, JobFile, JobStore

FIGURES = {
    "buildings": 2, "pixels": 64, "built_up_share": 0.1, "seconds": 1.0, "mpx_per_s": 1.0,
    "classes": [], "notes": [],
}  # fmt: skip


@pytest.fixture
def client(store: JobStore) -> TestClient:
    service = fake_service()
    app = FastAPI()
    install_problems(app)
    app.include_router(jobs_router(JobIntake(JobRunner(store), service.predictor, service.limits)))
    return TestClient(app)


@pytest.fixture
def job(store: JobStore) -> Job:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").touch()
    job = store.add(job_id, "town.tif", "scene.tif", 64, SceneOptions())
    store.claim()
    store.results(job_id).mkdir()
    houses = np.array([shapely.box(5e5 + x, 9e6, 5e5 + x + 8, 9e6 + 8) for x in (0, 20)])
    buildings = Footprints(
        houses, np.array([0.5, 0.8], np.float32), shapely.area(houses), CRS(32736)
    )
    write_footprints(store.results(job_id) / "scene_buildings.gpkg", buildings)
    store.finish(job_id, FIGURES, [JobFile("scene_buildings.gpkg", 1)])
    return job


def test_buildings_are_vector_tiles(client: TestClient, job: Job, tmp_path: Path) -> None:
    address = client.get(f"/v1/jobs/{job.id}/results").json()["tiles"]
    assert address == f"/v1/jobs/{job.id}/buildings.pmtiles"
    assert client.get(f"/v1/jobs/{job.id}").json()["links"]["tiles"] == address
    answer = client.get(address)
    assert answer.headers["content-type"] == "application/vnd.pmtiles"
    assert 'filename="town_buildings.pmtiles"' in answer.headers["content-disposition"]
    path = tmp_path / "town.pmtiles"
    path.write_bytes(answer.content)
    found = pyogrio.read_dataframe(path)
    assert dict(zip(found["id"], found["score"])) == {1: 0.5, 2: 0.8}
    # A web map reads ranges, of a file that is made once.
    part = client.get(address, headers={"Range": "bytes=0-6"})
    assert (part.status_code, part.content) == (206, b"PMTiles")
    assert part.headers["etag"] == answer.headers["etag"]


def test_a_job_without_buildings_on_the_map_has_none(
    client: TestClient, job: Job, store: JobStore
) -> None:
    flat = store.add(store.reserve(), "flat.png", ".", 64, SceneOptions())
    store.claim()
    store.finish(flat.id, FIGURES, [JobFile("scene_buildings.geojson", 1)])
    assert client.get(f"/v1/jobs/{flat.id}/results").json()["tiles"] is None
    assert client.get(f"/v1/jobs/{flat.id}").json()["links"]["tiles"] is None
    answer = client.get(f"/v1/jobs/{flat.id}/buildings.pmtiles")
    assert answer.status_code == 404
    assert "no buildings that lie on the map" in answer.json()["detail"]


def test_results_that_are_gone_are_a_sentence(
    client: TestClient, job: Job, store: JobStore
) -> None:
    shutil.rmtree(store.results(job.id))
    for name, status in (("results.zip", 404), ("buildings.pmtiles", 422)):
        answer = client.get(f"/v1/jobs/{job.id}/{name}")
        assert answer.status_code == status
        assert "of the job" in answer.json()["detail"]
        assert str(store.folder) not in answer.text
