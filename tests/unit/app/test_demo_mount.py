"""The Gradio demo in its application: what is served, and what is not."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from demo_images import LastOfThree, predictor_of
from fastapi import FastAPI
from starlette.testclient import TestClient

from rest_service import app_with
from rooftrace.app.demo import mount_page
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service(predictor_of(), Limits(upload_bytes=100_000, waiting=7))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(mount_page(app_with(), service)) as client:
        yield client


def config_of(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/config").json())


def test_nothing_is_recorded_and_nothing_runs_on_the_server(client: TestClient) -> None:
    config = config_of(client)
    assert config["analytics_enabled"] is False
    assert not config.get("run_history")
    assert config["dependencies"]
    assert not any(one["backend_fn"] for one in config["dependencies"])
    info = client.get("/gradio_api/info").json()
    assert (info["named_endpoints"], info["unnamed_endpoints"]) == ({}, {})


def test_a_proxy_may_serve_the_page_below_a_folder(client: TestClient) -> None:
    page = TestClient(client.app, root_path="/roofs").get("/demo").text
    assert '"root":"http://testserver/roofs"' in page


def test_a_model_of_several_classes_has_no_threshold() -> None:
    made = Service(predictor_of(LastOfThree(), classes=("background", "building", "water")))
    try:
        with TestClient(mount_page(FastAPI(), made)) as client:
            props = [one["props"] for one in config_of(client)["components"]]
    finally:
        made.close()
    slider = next(one for one in props if one.get("elem_id") == "rt-threshold")
    assert slider["interactive"] is False
    assert "3 classes" in slider["info"]


def test_no_connection_leaves_the_machine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network here")

    def resolve(host: Any, *rest: Any, **more: Any) -> list[Any]:
        asked.append(host)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with TestClient(mount_page(FastAPI(), service)) as client:
        for path in ("/", "/config", "/theme.css", "/gradio_api/startup-events"):
            assert client.get(path).status_code == 200
    assert asked == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/call/x"), ("POST", "/gradio_api/queue/join"), ("GET", "/x"),
        ("POST", "/gradio_api/upload"), ("GET", "/gradio_api/queue/data?session_hash=x"),
        ("GET", "/gradio_api/call/x/y"), ("GET", "/monitoring"), ("POST", "/"),
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_use_are_closed(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, path, json={"data": [], "fn_index": -1, "session_hash": "a"})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
