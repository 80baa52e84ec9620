"""The API behaves as its OpenAPI description says, for any request."""

import base64
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

schemathesis = pytest.importorskip("schemathesis")

import cv2
import numpy as np
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schema_tests import operation_tests
from schemathesis.specs.openapi.checks import positive_data_acceptance

import rooftrace.rest.jobs as routes
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.api import create_api
from rooftrace.rest.ogc import ogc_router
from rooftrace.service.decode import Limits, UploadFile
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobFile, JobStore
from rooftrace.service.service import Service

pytestmark = pytest.mark.campaign

FOLDER = tempfile.TemporaryDirectory(prefix="rooftrace-jobs-")
STORE = JobStore(Path(FOLDER.name), jobs_waiting=8)
PREDICTOR = Predictor(tiny_bundle(), PointwiseEngine())
SERVICE = Service(PREDICTOR, Limits(seconds=20))
PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
SEEN: set[tuple[str, int]] = set()


@asynccontextmanager
async def _kept(app: FastAPI) -> AsyncIterator[None]:
    """Keep the service open: each case starts and stops the app."""
    yield


# The runner is not started, so each job keeps its state.
INTAKE = routes.JobIntake(JobRunner(STORE), PREDICTOR, SERVICE.limits)
ROUTERS = [routes.jobs_router(INTAKE), ogc_router(INTAKE)]
APP = create_api(SERVICE, routers=ROUTERS)
APP.router.lifespan_context = _kept
schema = schemathesis.openapi.from_asgi("/openapi.json", APP)


def _encoded(ending: str) -> st.SearchStrategy[bytes]:
    """Return a strategy of small images, some of them truncated."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    whole = cv2.imencode(ending, pixels)[1].tobytes()
    return st.sampled_from([whole, whole, whole[: len(whole) // 2]])


IMAGES = _encoded(".png") | _encoded(".jpeg")
schemathesis.openapi.format("binary", IMAGES)
schemathesis.openapi.media_type("application/octet-stream", IMAGES)


def add(state: str) -> str:
    job_id = STORE.reserve()
    folder = STORE.folder_of(job_id)
    (folder / "scene.tif").write_text("")
    STORE.add(job_id, "town.tif", "scene.tif", 64, SceneOptions())
    if state == "queued":
        return job_id
    assert STORE.claim()
    if state == "failed":
        STORE.fail(job_id, {"type": "DataError", "message": "It is torn.", "remedy": ""})
    elif state == "done":
        (folder / "results").mkdir()
        (folder / "results" / "scene_mask.tif").write_text("mask")
        known = {"name": "building", "class_id": 1, "polygons": 1, "pixels": 9, "share": 0.1}
        figures = {
            "pixels": 64, "buildings": 1, "built_up_share": 0.1, "seconds": 1.0, "mpx_per_s": 1.0,
            "classes": [{**known, "area_m2": None}], "notes": ["All was well."],
            "polygons": None, "valid_pixels": 64, "gsd_m": None, "threshold": 0.5,
        }  # fmt: skip
        STORE.finish(job_id, figures, [JobFile("scene_mask.tif", 4)])
    return job_id


def admit_in_process(path: Path, name: str, *_: object) -> tuple[Path, int]:
    """Check an upload as `admit` does, without a process for each image."""
    source = UploadFile(path, name)
    source.check(10**6)
    return path, source.grid.height * source.grid.width


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    # The first image starts the decoders.
    SERVICE.warm()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "admit", admit_in_process)
        yield
    SERVICE.close()
    FOLDER.cleanup()


def check_response(case) -> None:
    # The description allows any bytes as a body, but few are an image. The others get a 422, which
    # is described.
    answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
    SEEN.add((f"{case.method} {case.path}", answer.status_code))


def check_job_response(case) -> None:
    # Jobs of earlier cases would fill the queue.
    for job in STORE.newest(100):
        if job.state == "queued":
            STORE.cancel(job.id)
    if "job_id" in case.path_parameters:
        number = len(json.dumps(case.path_parameters)) % 4
        state = ("done", "failed", "done", "running")[number]
        if number or case.method != "GET":
            case.path_parameters["job_id"] = add(state)
        if "name" in case.path_parameters and number == 2:
            case.path_parameters["name"] = "scene_mask.tif"
    if "process_id" in case.path_parameters and len(json.dumps(case.path_parameters)) % 3:
        case.path_parameters["process_id"] = "predict"
        inputs = case.body.get("inputs") if isinstance(case.body, dict) else None
        if isinstance(inputs, dict) and len(inputs) < 2:
            inputs |= {"image": base64.b64encode(PNG).decode()}
    check_response(case)


JOBS = ("/v1/jobs", "/ogc")
OTHERS = ("/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics", "/problems")
EVERY_HEALTH = list(HealthCheck)
OPTIONS = settings(max_examples=25, suppress_health_check=EVERY_HEALTH, derandomize=True)
globals().update(operation_tests(schema, check_job_response, OPTIONS, prefix=JOBS))
OPTIONS = settings(max_examples=40, suppress_health_check=EVERY_HEALTH)
globals().update(operation_tests(schema, check_response, OPTIONS, prefix=OTHERS))


def test_all_kinds_of_responses_were_seen() -> None:
    """Check that not only refusals were compared with the description."""
    expected = {
        *(("POST /v1/predict", status) for status in (200, 415, 422)),
        ("POST /v1/jobs", 422), ("POST /v1/jobs", 415), ("GET /v1/jobs", 200),
        ("GET /v1/jobs/{job_id}", 200), ("GET /v1/jobs/{job_id}", 404),
        ("GET /v1/jobs/{job_id}/results", 200),
        ("GET /v1/jobs/{job_id}/results", 409), ("DELETE /v1/jobs/{job_id}", 204),
        ("POST /v1/jobs/{job_id}/cancel", 200), ("POST /v1/jobs/{job_id}/cancel", 409),
        ("GET /ogc", 200), ("GET /ogc/processes/{process_id}", 200), ("GET /ogc/jobs", 200),
        ("GET /ogc/processes/{process_id}", 404), ("GET /ogc/jobs/{job_id}/results", 200),
        ("GET /ogc/jobs/{job_id}/results", 404), ("DELETE /ogc/jobs/{job_id}", 200),
        ("POST /ogc/processes/{process_id}/execution", 201),
        ("POST /ogc/processes/{process_id}/execution", 400),
        ("GET /v1/jobs/{job_id}/results.zip", 409), ("GET /v1/jobs/{job_id}/results/{name}", 409),
    }  # fmt: skip
    assert expected - SEEN == set()
    assert not [one for one in SEEN if one[1] >= 500]
