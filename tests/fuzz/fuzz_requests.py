"""The REST API under attack, with whole requests as files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz_mutate import mutate
from fuzz_target import Files, Target, check, json_bytes, png, tif


@contextmanager
def _client(folder: Path) -> Iterator[Any]:
    from starlette.testclient import TestClient

    if not _SERVED:
        from rest_service import fake_service
        from rooftrace.rest import create_api
        from rooftrace.rest.jobs import JobIntake, jobs_router
        from rooftrace.rest.labelstudio import labelstudio_router
        from rooftrace.service.jobs.runner import JobRunner
        from rooftrace.service.jobs.store import JobStore

        service = fake_service(upload_bytes=10**6, seconds=15)
        service.warm()
        store = JobStore(Path(tempfile.mkdtemp(dir=folder.parent)), jobs_waiting=10**6)
        predictor = _predictor()
        routers = [
            jobs_router(JobIntake(JobRunner(store), predictor, service.limits)),
            labelstudio_router(service),
        ]
        app = create_api(service, routers=routers)
        _SERVED.append(TestClient(app, raise_server_exceptions=True))
    yield _SERVED[0]


_SERVED: list[Any] = []


def _predictor() -> Any:
    from rooftrace.engines.base import PointwiseEngine
    from rooftrace.flows.doctor import tiny_bundle
    from rooftrace.predict.predictor import Predictor

    return Predictor(tiny_bundle(), PointwiseEngine())


def _requests() -> tuple[Files, Files]:
    import base64

    from rooftrace.labels.labelstudio.write import label_config

    interface = label_config(("background", "building"))
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    predict = {"tasks": [{"id": 1, "data": {"image": uri}}], "label_config": interface,
               "project": "1.2", "params": {"context": None}}  # fmt: skip
    setup = {"project": "1.2", "schema": interface, "hostname": "http://127.0.0.1:8080",
             "access_token": "t"}  # fmt: skip
    query = {"method": "POST", "path": "/v1/predict", "headers": {"accept": "application/json"},
             "params": {"threshold": 0.5, "gsd": 0.4, "filename": "a.png", "format": "geojson",
                        "min_area": 1, "outline": "regular", "cell": 100}}  # fmt: skip
    listed = {"method": "GET", "path": "/v1/jobs", "params": {"limit": 5}, "headers": {}}
    form = (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
            b"Content-Type: image/png\r\n\r\n" + png() + b"\r\n--x--\r\n")  # fmt: skip
    return {
        "predict.tif": tif(), "predict.png": png(), "form.bin": form, "jobs.tif": tif(),
        "ls_predict.json": json_bytes(predict), "ls_setup.json": json_bytes(setup),
        "query.json": json_bytes(query), "jobs_query.json": json_bytes(listed),
    }, {}  # fmt: skip


def _read_request(path: Path) -> None:
    import httpx

    data, headers = path.read_bytes(), {"content-type": "application/octet-stream"}
    method, where, params = "POST", "/v1/predict", {}
    if path.name == "form.bin":
        headers = {"content-type": "multipart/form-data; boundary=x"}
    elif path.name.startswith("jobs."):
        where = "/v1/jobs"
    elif path.name.startswith("ls_"):
        where, headers = f"/{path.stem[3:]}", {"content-type": "application/json"}
    elif path.suffix == ".json":
        try:
            asked = json.loads(data)
            method, where = str(asked["method"]), "/" + str(asked["path"]).lstrip("/")
            params = {str(key): str(value) for key, value in dict(asked["params"]).items()}
            headers = {str(key): str(value) for key, value in dict(asked["headers"]).items()}
            httpx.Request(method, "http://testserver" + where, params=params, headers=headers)
        except (ValueError, TypeError, KeyError, RecursionError, httpx.InvalidURL):
            # Such a request cannot be sent.
            return
        data = png()
    with _client(path.parent) as client:
        answer = client.request(method, where, content=data, params=params, headers=headers)
    kind = answer.headers.get("content-type", "")
    check(answer.status_code < 500, f"the status is {answer.status_code}")
    ok = answer.status_code < 400 or "application/problem+json" in kind or method == "HEAD"
    check(ok, f"a refusal with status {answer.status_code} is {kind or 'empty'}")


def _reviews() -> tuple[Files, Files]:
    buildings = [{"id": 1, "revision": 0}, {"id": 3, "revision": 0}]
    outline = [[10.0, 10.0], [20.0, 10.0], [20.0, 22.5], [10.0, 22.5]]
    change = {"action": "accept", "reviewer": "Ada", "buildings": buildings}
    bodies = {
        "changes": change,
        "correct": change | {"action": "edit", "buildings": buildings[:1], "outline": outline},
        "undo": {"reviewer": "Ada"},
    }
    queries = {"next": {"start": 2, "backwards": True, "status": "rejected"},
               "buildings": {"x": 524_007.0, "y": 9_317_985.0},
               "export": {"format": "gpkg", "open": "include"}}  # fmt: skip
    seeds = {f"post_{name}.json": json_bytes(body) for name, body in bodies.items()}
    return seeds | {f"get_{name}.json": json_bytes(one) for name, one in queries.items()}, {}


_REVIEWED: list[Any] = []


def _read_review(path: Path) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient
    from test_map_review import TOWN, write_results

    from rooftrace.app.map.results import ResultsCatalogue
    from rooftrace.app.map.review import review_router
    from rooftrace.rest.problems import install_problems

    if not _REVIEWED:
        folder = Path(tempfile.mkdtemp(dir=path.parent.parent)) / "out"
        write_results(folder)
        app = FastAPI()
        install_problems(app)
        app.include_router(review_router(ResultsCatalogue([folder])))
        _REVIEWED.append(TestClient(app, raise_server_exceptions=True))
    method, _, name = path.stem.partition("_")
    where = f"{TOWN}/{'changes' if name == 'correct' else name}"
    if method == "post":
        headers = {"content-type": "application/json"}
        answer = _REVIEWED[0].post(where, content=path.read_bytes(), headers=headers)
    else:
        try:
            given = dict(json.loads(path.read_bytes()))
            params = {str(key): str(value) for key, value in given.items()}
            "".join([*params, *params.values()]).encode()
        except (ValueError, TypeError, RecursionError):
            # Such a query cannot be sent.
            return
        answer = _REVIEWED[0].get(where, params=params)
    kind = answer.headers.get("content-type", "")
    check(answer.status_code < 500, f"the status is {answer.status_code}")
    ok = answer.status_code < 400 or "application/problem+json" in kind
    check(ok, f"a refusal with status {answer.status_code} is {kind or 'empty'}")


TARGETS = (
    Target("rest", _requests, _read_request, mutate, 30.0),
    Target("review", _reviews, _read_review, mutate, 30.0),
)
