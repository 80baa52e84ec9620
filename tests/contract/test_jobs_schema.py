"""What /v1/jobs does is what its OpenAPI description says, whatever is sent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

schemathesis = pytest.importorskip("schemathesis")

from fastapi import FastAPI  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    positive_data_acceptance,
)

import rooftrace.rest.jobs as routes  # noqa: E402
from rooftrace.engines.base import PointwiseEngine  # noqa: E402
from rooftrace.engines.selftest import tiny_bundle  # noqa: E402
from rooftrace.predict.options import SceneOptions  # noqa: E402
from rooftrace.predict.predictor import Predictor  # noqa: E402
from rooftrace.rest import create_api  # noqa: E402
from rooftrace.service.decode_child import UploadFile  # noqa: E402
from rooftrace.service.jobs.job import JobFile  # noqa: E402
from rooftrace.service.jobs.runner import JobRunner  # noqa: E402
from rooftrace.service.jobs.store import JobStore  # noqa: E402
from rooftrace.service.service import Service  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix="rooftrace-jobs-")
STORE = JobStore(Path(FOLDER.name), jobs_waiting=8)
PREDICTOR = Predictor(tiny_bundle(), PointwiseEngine())
SERVICE = Service(PREDICTOR)
ANSWERED: set[tuple[str, int]] = set()


@asynccontextmanager
async def _kept(app: FastAPI) -> AsyncIterator[None]:
    """Each case begins and ends the app; the service outlives them."""
    yield


# Nothing runs, so that each job stays as it was made.
ROUTER = routes.jobs_router(JobRunner(STORE), PREDICTOR, SERVICE.limits)
APP = create_api(SERVICE, routers=[ROUTER], lifespan=_kept)
schema = schemathesis.openapi.from_asgi("/openapi.json", APP).include(path_regex="^/v1/jobs")


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
        }  # fmt: skip
        STORE.finish(job_id, figures, [JobFile("scene_mask.tif", 4)])
    return job_id


def looked_at(path: Path, name: str, *_: object) -> tuple[Path, int]:
    """What `admit` does, without a process for each of many images."""
    source = UploadFile(path, name)
    source.check(10**6)
    return path, source.grid.height * source.grid.width


@pytest.fixture(scope="module", autouse=True)
def jobs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "admit", looked_at)
        yield
    SERVICE.close()
    STORE.close()
    FOLDER.cleanup()


@schema.parametrize()
@settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
def test_answers_are_those_that_are_described(case) -> None:
    # What earlier cases have sent would fill the queue.
    for job in STORE.newest(100):
        if job.state == "queued":
            STORE.cancel(job.id)
    if "job_id" in case.path_parameters:
        number = len(json.dumps(case.path_parameters)) % 4
        # The events of a job that waits would not end.
        states = ["done", "failed", "done", "running"]
        state = states[number] if not case.path.endswith("/events") else states[number % 3]
        if number or case.method != "GET":
            case.path_parameters["job_id"] = add(state)
        if "name" in case.path_parameters and number == 2:
            case.path_parameters["name"] = "scene_mask.tif"
    # Any bytes are a body by the description, but few are an image.
    answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
    ANSWERED.add((f"{case.method} {case.path}", answer.status_code))


def test_answers_of_all_kinds_were_among_them() -> None:
    expected = {
        ("POST /v1/jobs", 422), ("POST /v1/jobs", 415), ("GET /v1/jobs", 200),
        ("GET /v1/jobs/{job_id}", 200), ("GET /v1/jobs/{job_id}", 404),
        ("GET /v1/jobs/{job_id}/events", 200), ("GET /v1/jobs/{job_id}/results", 200),
        ("GET /v1/jobs/{job_id}/results", 409), ("DELETE /v1/jobs/{job_id}", 204),
        ("POST /v1/jobs/{job_id}/cancel", 200), ("POST /v1/jobs/{job_id}/cancel", 409),
        ("GET /v1/jobs/{job_id}/results.zip", 409), ("GET /v1/jobs/{job_id}/results/{name}", 409),
    }  # fmt: skip
    assert expected - ANSWERED == set()
    assert not [one for one in ANSWERED if one[1] >= 500]
