"""Addresses of the page: what they give, and what they give not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from page_images import classes_of, kept_of, result_of
from starlette.testclient import TestClient

from rooftrace.app.page.files import page_router
from rooftrace.app.page.results import Result, ResultStore
from rooftrace.core.errors import DataError, TooLargeError
from rooftrace.predict.plan import OUTPUTS, SceneOptions
from rooftrace.predict.predictor import load
from rooftrace.rest.jobs import JobIntake
from rooftrace.rest.problems import install_problems
from rooftrace.service.decode import Limits
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.testing.scene import demo_scene_path
from tiny_models import write_tiny_bundle


@pytest.fixture
def store() -> ResultStore:
    return ResultStore()


@pytest.fixture
def client(store: ResultStore) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(page_router(store))
    with TestClient(app) as client:
        yield client


@pytest.fixture
def run(store: ResultStore) -> str:
    name = store.begin()
    store.add(name, result_of("Zürich (x).tif"))
    store.add(name, Result("broken.tif", error=DataError("It is broken.", remedy="Mend it.")))
    store.add(name, Result("lake.png", kept=classes_of()))
    return name


@pytest.mark.parametrize(
    ("path", "kind", "begin"),
    [
        ("0/picture.jpg", "image/jpeg", b"\xff\xd8"),
        ("0/fill.png", "image/png", b"\x89PNG"),
        ("0/outlines.bin?threshold=0.8", "application/octet-stream", b"\x01\0\0\0"),
        ("0/gpkg", "application/octet-stream", b"SQLite format 3"),
        ("2/outlines.bin", "application/octet-stream", b"\x01\0\0\0"),
        ("table.csv", "text/csv; charset=utf-8", b"image,buildings"),
    ],
)
def test_what_there_is(client: TestClient, run: str, path: str, kind: str, begin: bytes) -> None:
    answer = client.get(f"/page/{run}/{path}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(begin)


def test_a_download_is_of_the_threshold_that_it_names(client: TestClient, run: str) -> None:
    counts = [
        len(client.get(f"/page/{run}/0/geojson?threshold={at}").json()["features"])
        for at in (0.5, 0.8, 0.5)
    ]
    assert counts == [2, 1, 2]


def test_a_name_cannot_leave_its_header(client: TestClient, run: str) -> None:
    reported = client.get(f"/page/{run}/0/mask").headers["content-disposition"]
    assert reported == (
        'attachment; filename="Z_rich (x)_mask.tif"; '
        "filename*=UTF-8''Z%C3%BCrich%20%28x%29_mask.tif"
    )


@pytest.mark.parametrize(
    "path",
    ["{run}/7/mask", "{run}/-1/mask", "unknown/0/mask", "unknown/table.csv", "{run}/0/passwd",
     "{run}/0/..%2f..%2fetc%2fpasswd", "..%2f..%2fetc/0/mask"],
)  # fmt: skip
def test_what_there_is_not(client: TestClient, run: str, path: str) -> None:
    assert client.get(f"/page/{path.format(run=run)}").status_code == 404


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("1/mask", "It is broken. Mend it."),
        ("1/picture.jpg", "It is broken"),
        ("0/mask?threshold=nan", "from 0 to 1"),
        ("0/mask?threshold=1.5", "from 0 to 1"),
        ("2/mask?threshold=0.5", "3 classes"),
    ],
)
def test_invalid_requests_are_reported(client: TestClient, run: str, path: str, words: str) -> None:
    answer = client.get(f"/page/{run}/{path}")
    assert answer.status_code == 409
    assert words in answer.json()["detail"]


def test_what_was_let_go_says_so(client: TestClient, run: str, store: ResultStore) -> None:
    store.run(run)[0].let_go()
    answer = client.get(f"/page/{run}/0/picture.jpg")
    assert answer.status_code == 409
    assert "once more" in answer.json()["detail"]


def test_a_job_repeats_what_was_seen() -> None:
    options = SceneOptions(gsd_m=0.5, bands="3,2,1", stretch="0,200", outputs=("mask",))
    result = Result("town.tif", kept=kept_of(), options=options)
    result.at(0.75)
    asked = result.job_options
    assert (asked.gsd_m, asked.bands, asked.stretch) == (0.5, "3,2,1", "0,200")
    assert (asked.threshold, asked.outputs) == (0.75, OUTPUTS)
    failed = Result("large.png", error=TooLargeError("It has 9 pixels."), options=options)
    assert failed.job_options.threshold is None


def test_without_jobs_there_is_no_address_for_them(client: TestClient, run: str) -> None:
    assert client.post(f"/page/{run}/0/job").status_code in (404, 405)


@pytest.mark.campaign
def test_an_image_becomes_a_job(store: ResultStore, tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5)
    upload = Path(shutil.copy(demo_scene_path(), tmp_path / "scene.tif"))
    run = store.begin()
    options = SceneOptions(gsd_m=0.5, stretch="0,200")
    store.add(run, Result("scene.tif", kept=kept_of(), file=upload, options=options))
    app = FastAPI()
    install_problems(app)
    with closing(JobStore(tmp_path / "jobs")) as jobs, TestClient(app) as client:
        intake = JobIntake(JobRunner(jobs, model), load(model), Limits())
        app.include_router(page_router(store, intake))
        answer = client.post(f"/page/{run}/0/job")
        assert answer.status_code == 202, answer.text
        job = jobs.get(answer.json()["id"])
        assert job is not None
        assert (job.name, job.options.stretch) == ("scene.tif", "0,200")
        assert client.post(f"/page/{run}/7/job").status_code == 404
        upload.unlink()
        problem = client.post(f"/page/{run}/0/job").json()
        assert problem["detail"] == "scene.tif is not on the server any more."
        assert problem["remedy"] == "Drop it once more."
        assert len(jobs.newest(9)) == 1
