"""The list of jobs in pages, as the page of the jobs reads it again and again."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rest_service import fake_service

from rooftrace.predict.plan import SceneOptions
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore


@pytest.fixture
def client(store: JobStore) -> TestClient:
    service = fake_service()
    app = FastAPI()
    install_problems(app)
    app.include_router(jobs_router(JobIntake(JobRunner(store), service.predictor, service.limits)))
    return TestClient(app)


def add(store: JobStore, name: str) -> str:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").touch()
    return store.add(job_id, name, "scene.tif", 64, SceneOptions()).id


def listed(client: TestClient, limit: int) -> list[str]:
    names, address = [], f"/v1/jobs?limit={limit}"
    while address:
        page = client.get(address).json()
        names += [job["name"] for job in page["jobs"]]
        address = page["next"]
    return names


def test_pages_have_each_job_once_newest_first(client: TestClient, store: JobStore) -> None:
    ids = {name: add(store, name) for name in map(str, range(7))}
    assert listed(client, 3) == list("6543210")
    # Another client adds a job and removes one.
    add(store, "7")
    store.remove(ids["4"])
    assert listed(client, 3) == list("7653210")


def test_an_expired_job_is_in_no_page(client: TestClient, store: JobStore) -> None:
    store.keep_days = 0
    ids = [add(store, name) for name in "abc"]
    second = client.get("/v1/jobs?limit=2").json()["next"]
    store.cancel(ids[1])
    store.expire()
    assert listed(client, 2) == ["c", "a"]
    # The page that began after it says so, and the first page is asked again.
    assert client.get(second).status_code == 404


def test_unknown_parameters_are_refused(client: TestClient) -> None:
    answer = client.get("/v1/jobs?state=done&limits=5")
    assert answer.status_code == 422
    assert [one["parameter"] for one in answer.json()["errors"]] == ["state", "limits"]
