"""OGC API – Processes over the jobs of the server; the answers match the OGC's own schemas."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from ogc_schemas import check
from starlette.testclient import TestClient

import rooftrace.rest.jobs as job_routes
from rest_service import fake_service, png, roofs
from rooftrace.predict.plan import OUTPUTS, SceneOptions
from rooftrace.rest.api import create_api
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.ogc import CONFORMANCE, OGC_BODY_SHARE, ogc_router
from rooftrace.rest.security import Security
from rooftrace.service.decode import UploadFile
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobFile, JobStore
from rooftrace.service.service import Service

EXECUTION = "/ogc/processes/predict/execution"
EXCEPTION = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"
PNG = png(roofs())
IMAGE = base64.b64encode(PNG).decode()


def admit_in_process(path: Path, name: str, *_: object) -> tuple[Path, int]:
    """Check an upload as `admit` does, without a process."""
    source = UploadFile(path, name)
    source.check(10**6)
    return path, source.grid.height * source.grid.width


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    made = fake_service(upload_bytes=20_000)
    yield made
    made.close()


@pytest.fixture
def app(small: Service, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Return an app whose runner is not started, so that each job keeps its state."""
    monkeypatch.setattr(job_routes, "admit", admit_in_process)
    intake = JobIntake(JobRunner(store), small.predictor, small.limits)
    security = Security(api_key="k", body_bytes=int(20_000 * OGC_BODY_SHARE) + 1000)
    return create_api(small, security=security, routers=[jobs_router(intake), ogc_router(intake)])


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, headers={"X-API-Key": "k"})


def execute(client: TestClient, **body: Any) -> Any:
    return client.post(EXECUTION, json=body)


def add(store: JobStore, state: str, *files: str) -> str:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_text("")
    store.add(job_id, "town.tif", "scene.tif", 64, SceneOptions())
    if state != "queued":
        assert store.claim()
    if state == "failed":
        error = {"type": "DataError", "message": "It is torn.", "remedy": "Use --gsd 0.3."}
        store.fail(job_id, error)
    elif state == "cancelled":
        store.cancel(job_id)
    elif state == "done":
        store.finish(job_id, {"pixels": 64, "buildings": 1}, [JobFile(name, 4) for name in files])
    return job_id


def refused(answer: Any, status: int, text: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    check(problem, "exception")
    assert text in f"{problem['detail']} {problem.get('remedy', '')}"
    return problem


def test_the_landing_page_leads_to_all(client: TestClient) -> None:
    page = client.get("/ogc").json()
    check(page, "landingPage")
    links = {link["rel"].rpartition("/")[2]: link["href"] for link in page["links"]}
    names = {"self", "service-desc", "service-doc", "conformance", "processes", "job-list"}
    assert set(links) == names
    for address in links.values():
        assert address.startswith("http://testserver/")
        assert client.get(address).status_code == 200
    declared = client.get(links["conformance"]).json()
    check(declared, "confClasses")
    assert declared["conformsTo"] == list(CONFORMANCE)


def test_links_have_the_prefix_of_a_proxy(app: FastAPI) -> None:
    client = TestClient(app, headers={"X-API-Key": "k", "X-Forwarded-Prefix": "/roofs/"})
    page = client.get("/ogc").json()
    assert page["links"][0]["href"] == "http://testserver/roofs/ogc"
    # Of clients that add a slash, such as OWSLib.
    moved = client.get("/ogc/?f=json", follow_redirects=False)
    assert moved.headers["location"] == "http://testserver/roofs/ogc?f=json"
    page = client.get("/ogc", headers={"X-Forwarded-Host": "city.example:8443"}).json()
    assert page["links"][0]["href"] == "http://city.example:8443/roofs/ogc"
    # nginx's $host has no port.
    client.headers |= {"Host": "city.example:8443", "X-Forwarded-Host": "city.example"}
    page = client.get("/ogc").json()
    assert page["links"][0]["href"] == "http://city.example:8443/roofs/ogc"


def test_the_process_is_described(client: TestClient) -> None:
    listed = client.get("/ogc/processes").json()
    check(listed, "processList")
    (one,) = listed["processes"]
    process = client.get(one["links"][0]["href"]).json()
    check(process, "process")
    assert process.items() >= one.items()
    assert one["links"][1]["href"].endswith(EXECUTION)
    assert set(process["outputs"]) == set(OUTPUTS)
    formats = process["outputs"]["polygons"]["schema"]["oneOf"]
    assert [one["contentMediaType"] for one in formats] == [
        "application/geopackage+sqlite3", "application/geo+json",
    ]  # fmt: skip
    inputs = process["inputs"]
    assert [name for name, value in inputs.items() if value["minOccurs"]] == ["image"]
    assert inputs["threshold"]["schema"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert inputs["separate"]["schema"] == {"type": "boolean", "default": True}
    assert "outputs" not in inputs
    for address in ("/ogc/processes/paint", EXECUTION.replace("predict", "paint")):
        call = client.get if address.endswith("paint") else client.post
        problem = refused(call(address), 404, "'paint'")
        assert problem["type"] == EXCEPTION + "no-such-process"


def test_an_execution_becomes_a_job(client: TestClient, store: JobStore) -> None:
    value = {"value": IMAGE, "mediaType": "image/png"}
    inputs = {
        "image": value,
        "threshold": 0.4,
        "filename": "town.png",
        "separate": {"value": False},
    }
    answer = client.post(
        EXECUTION,
        json={"inputs": inputs, "outputs": {"polygons": {}, "mask": {}}},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    status = answer.json()
    check(status, "statusInfo")
    assert (status["status"], status["processID"], status["progress"]) == ("accepted", "predict", 0)
    assert client.get(answer.headers["location"]).json() == status
    job = store.get(status["jobID"])
    assert job is not None
    assert (job.name, job.options.outputs) == ("town.png", ("mask", "polygons"))
    assert (job.options.threshold, job.options.separate) == (0.4, False)
    assert (store.folder_of(job.id) / job.upload).read_bytes() == PNG
    # It is the same job as in /v1/jobs.
    assert client.get("/v1/jobs").json()["jobs"][0]["id"] == job.id
    plain = execute(client, inputs={"image": IMAGE})
    assert "preference-applied" not in plain.headers
    made = store.get(plain.json()["jobID"])
    assert made is not None
    assert made.options.outputs == OUTPUTS


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "'inputs'"),
        ({"inputs": {}}, "'image' is missing"),
        ({"inputs": {"image": {"mediaType": "image/png"}}}, "no member value"),
        ({"inputs": {"image": {"href": "https://example.org/a.tif"}}}, "fetches no URLs"),
        ({"inputs": {"image": "a"}}, "not valid base64"),
        ({"inputs": {"image": IMAGE, "threshold": 2}}, "'threshold' is 2"),
        ({"inputs": {"image": IMAGE, "colour": 2}}, "'colour' is not known"),
        ({"inputs": {"image": IMAGE, "outputs": ["mask"]}}, "'outputs' is not known"),
        ({"inputs": {"image": IMAGE}, "outputs": {"roof": {}}}, "roof"),
        (
            {"inputs": {"image": IMAGE}, "outputs": {"mask": {"transmissionMode": "value"}}},
            "only by reference",
        ),
        (
            {"inputs": {"image": IMAGE}, "outputs": {"mask": {"format": {"mediaType": "a/b"}}}},
            "no format 'a/b'",
        ),
        ({"inputs": {"image": IMAGE}, "subscriber": {"successUri": "http://a"}}, "subscriber"),
    ],
)
def test_a_wrong_execution_is_refused(
    client: TestClient, store: JobStore, body: dict[str, Any], text: str
) -> None:
    problem = refused(client.post(EXECUTION, json=body), 400, text)
    assert problem["title"] == "Invalid execution request"
    assert not store.newest(1)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("queued", "accepted"), ("running", "running"), ("done", "successful"),
        ("failed", "failed"), ("cancelled", "dismissed"),
    ],
)  # fmt: skip
def test_states_and_dismissal(client: TestClient, store: JobStore, state: str, shown: str) -> None:
    job_id = add(store, state)
    status = client.get(f"/ogc/jobs/{job_id}").json()
    check(status, "statusInfo")
    assert status["status"] == shown
    assert ("started" in status) == (state != "queued")
    assert status["progress"] == (100 if state == "done" else 0)
    assert (len(status["links"]) == 2) == (state == "done")
    if state == "failed":
        assert status["message"] == "It is torn. Use gsd=0.3."
    dismissed = client.delete(f"/ogc/jobs/{job_id}")
    assert dismissed.status_code == 200
    check(dismissed.json(), "statusInfo")
    assert dismissed.json()["status"] == "dismissed"
    left = store.get(job_id)
    if state in ("queued", "running"):
        assert left is not None
        assert left.state == "cancelled"
    else:
        assert left is None
        problem = refused(client.delete(f"/ogc/jobs/{job_id}"), 404, job_id)
        assert problem["type"] == EXCEPTION + "no-such-job"


@pytest.mark.parametrize("kind", ["buildings", "polygons"])
def test_results_are_links(client: TestClient, store: JobStore, kind: str) -> None:
    names = ("run.json", f"old town_{kind}.gpkg", "old town_density.png", "old town_mask.tif")
    job_id = add(store, "done", *names)
    answer = client.get(f"/ogc/jobs/{job_id}/results")
    check(answer.json(), "results")
    root = f"http://testserver/v1/jobs/{job_id}/results"
    assert {name: link["href"] for name, link in answer.json().items()} == {
        "mask": f"{root}/old%20town_mask.tif",
        "polygons": f"{root}/old%20town_{kind}.gpkg",
    }
    assert answer.json()["mask"]["type"] == "image/tiff"


def test_raw_results_are_in_a_header(client: TestClient, store: JobStore) -> None:
    answer = execute(client, inputs={"image": IMAGE}, response="raw")
    job_id = answer.json()["jobID"]
    assert store.claim()
    store.finish(job_id, {"pixels": 1}, [JobFile("old town_mask.tif", 4)])
    raw = client.get(f"/ogc/jobs/{job_id}/results")
    assert raw.status_code == 204
    address = f"http://testserver/v1/jobs/{job_id}/results/old%20town_mask.tif"
    assert raw.headers["link"] == f'<{address}>; rel="item"; type="image/tiff"; title="mask"'


def test_jobs_without_results(client: TestClient, store: JobStore) -> None:
    def results(job_id: str) -> Any:
        return client.get(f"/ogc/jobs/{job_id}/results")

    for state in ("queued", "running"):
        problem = refused(results(add(store, state)), 404, state)
        assert problem["type"] == EXCEPTION + "result-not-ready"
        store.cancel(store.newest(1)[0].id)
    refused(results(add(store, "failed")), 422, "It is torn.")
    refused(results(add(store, "cancelled")), 409, "dismissed")
    problem = refused(results("none"), 404, "'none'")
    assert problem["type"] == EXCEPTION + "no-such-job"


def test_the_list_of_jobs(client: TestClient, store: JobStore) -> None:
    made = [add(store, state) for state in ("done", "failed", "running", "queued")][::-1]
    page = client.get("/ogc/jobs").json()
    check(page, "jobList")
    assert [one["jobID"] for one in page["jobs"]] == made
    first = client.get("/ogc/jobs?limit=3").json()
    address = first["links"][1]["href"]
    assert first["links"][1]["rel"] == "next"
    assert [one["jobID"] for one in client.get(address).json()["jobs"]] == made[3:]
    assert client.get("/ogc/jobs", params={"before": "none"}).status_code == 404
