"""Requests of Label Studio to the ML backend, and the responses."""

import base64
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rooftrace.core.errors import BusyError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.labels.labelstudio import label_config
from rooftrace.labels.labelstudio_client import LabelStudio
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.labelstudio import labelstudio_router
from rooftrace.rest.problems import install_problems
from rooftrace.service import labelling
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service

CONFIG = label_config(("background", "building"))
URL = "http://labels.example.com"


def png(houses: int = 1) -> bytes:
    pixels = np.full((64, 96, 3), 30, np.uint8)
    for number in range(houses):
        pixels[8:32, 8 + 32 * number : 28 + 32 * number] = 230
    return cv2.imencode(".png", pixels)[1].tobytes()


def uri(houses: int = 1) -> str:
    return "data:image/png;base64," + base64.b64encode(png(houses)).decode()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service(Predictor(tiny_bundle(), PointwiseEngine()), Limits(upload_bytes=100_000))
    yield made
    made.close()


def client(service: Service, near: bool = True, **options: Any) -> TestClient:
    app = FastAPI()
    install_problems(app)
    app.include_router(labelstudio_router(service, **options), prefix="/ls")
    where = ("127.0.0.1" if near else "192.0.2.7", 5000)
    return TestClient(app, base_url="http://127.0.0.1/ls", client=where,
                      raise_server_exceptions=False)  # fmt: skip


@pytest.fixture
def backend(service: Service) -> TestClient:
    return client(service)


def asked(*images: object, config: str = CONFIG, **others: Any) -> dict[str, Any]:
    """Return a request of `MLApi.make_predictions` in Label Studio 1.23."""
    tasks = [
        {"id": 10 + number, "data": {"image": image}, "project": 1, "annotations": [],
         "predictions": [], "meta": {}, "file_upload": None}
        for number, image in enumerate(images)
    ]  # fmt: skip
    params = {"login": "", "password": "", "context": None}
    return {"tasks": tasks, "project": "1.17", "label_config": config, "params": params} | others


def test_it_is_there(backend: TestClient) -> None:
    assert backend.get("/health").json() == {"status": "UP", "model_class": "Rooftrace"}
    [version] = backend.get("/versions").json()["versions"]
    bundle = tiny_bundle()
    assert version == f"{bundle.spec.name}-{bundle.sha256[:8]}"
    event = {"action": "ANNOTATION_CREATED", "annotation": {"result": []}}
    assert backend.post("/webhook", json=event).json() == {"status": "ignored"}
    refused = backend.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}})
    assert refused.status_code == 422
    assert "rooftrace finetune" in refused.json()["remedy"]


def setup(
    backend: TestClient, schema: str = CONFIG, hostname: str = "http://localhost:8080"
) -> Any:
    return backend.post("/setup", json={
        "project": "1.17", "schema": schema, "hostname": hostname, "access_token": "theirs",
        "extra_params": None,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "hostname", "said"),
    [("<View/>", "http://localhost:8080", "has none of <PolygonLabels>"),
     (CONFIG, "http://labels.example.com", "started without the URL"),
     (CONFIG.replace("building", "Haus"), "http://localhost:8080", "no label 'building'")],
)  # fmt: skip
def test_a_project_that_cannot_be(
    backend: TestClient, schema: str, hostname: str, said: str
) -> None:
    answer = setup(backend, schema, hostname)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in str(answer.json())
    assert "theirs" not in answer.text


def test_only_a_neighbour_may_introduce_itself(service: Service) -> None:
    assert setup(client(service, near=False)).status_code >= 400
    assert setup(client(service, near=True)).status_code == 200
    # A proxy on this machine is no neighbour.
    behind = client(service, near=True)
    behind.headers["X-Forwarded-For"] = "203.0.113.7"
    assert setup(behind).status_code >= 400


@pytest.mark.campaign
def test_predictions_for_several_tasks(backend: TestClient) -> None:
    answer = backend.post("/predict", json=asked(uri(1), uri(0), uri(2))).json()
    one, none, two = answer["results"]
    assert [len(each["result"]) for each in (one, none, two)] == [1, 0, 2]
    assert {each["model_version"] for each in (one, none, two)} == {answer["model_version"]}
    assert "score" not in none
    scores = [region["score"] for region in two["result"]]
    assert two["score"] == pytest.approx(np.mean(scores))
    [region] = one["result"]
    xy = np.array(region["value"]["points"])
    low, high = (8 / 0.96, 8 / 0.64), (28 / 0.96, 32 / 0.64)
    assert xy.min(axis=0) == pytest.approx(low)
    assert xy.max(axis=0) == pytest.approx(high)


@pytest.mark.campaign
def test_a_task_that_cannot_be_predicted_has_no_prediction(
    backend: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty prediction would mean that the image has no buildings."""
    with caplog.at_level(logging.WARNING):
        sent = asked("/etc/passwd\r\nforged", uri(1), "data:image/png;base64,AAAA", None)
        sent["tasks"] += [{"id": 5, "data": {"text": "x"}}, {"data": None}, {}]
        results = backend.post("/predict", json=sent).json()["results"]
    assert [("result" in each, "error" in each) for each in results] == [
        (False, True), (True, False), *[(False, True)] * 5
    ]  # fmt: skip
    assert "of this project is not known" in results[0]["error"]
    assert "data of task 5 has no key 'image'" in results[4]["error"]
    assert len(caplog.messages) == 6
    assert all("\n" not in message and "\r" not in message for message in caplog.messages)


def test_images_come_from_label_studio(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(self: LabelStudio, path: str, query: Mapping[str, str], *, most_bytes: int) -> bytes:
        assert (self.url, path, most_bytes) == (URL, "/data/upload/1/a.png", 100_000)
        return png(2)

    monkeypatch.setattr(LabelStudio, "fetch", fetch)
    backend = client(service, url=URL, token="ours")
    [made] = backend.post("/predict", json=asked("/data/upload/1/a.png")).json()["results"]
    assert len(made["result"]) == 2


def test_settings_of_the_interface_and_of_a_task(
    service: Service, backend: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SceneOptions] = []
    real = service.predict

    def predict(data: bytes, name: str, options: SceneOptions) -> Prediction:
        seen.append(options)
        return real(data, name, options)

    monkeypatch.setattr(service, "predict", predict)
    config = CONFIG.replace(
        '<PolygonLabels name="polygon"',
        '<PolygonLabels rooftrace_threshold="0.2" rooftrace_gsd_m="0.5" name="polygon"',
    )
    sent = asked(uri(), uri(), uri(), uri(), config=config)
    for task, gsd_m in zip(sent["tasks"], (None, 0.25, "wide", 10**400)):
        if gsd_m is not None:
            task["data"]["gsd_m"] = gsd_m
    results = backend.post("/predict", json=sent).json()["results"]
    assert sorted((one.gsd_m or 0, one.threshold) for one in seen) == [
        (0.25, 0.2), (0.5, 0.2)
    ]  # fmt: skip
    assert ["error" in one for one in results] == [False, False, True, True]


def test_a_task_that_takes_too_long_is_not_waited_for(
    service: Service, backend: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio would ignore its answer, and the annotator waits."""
    real, go = service.predict, threading.Event()

    def predict(*given: Any) -> Prediction:
        assert go.wait(60)
        return real(*given)

    monkeypatch.setattr(service, "predict", predict)
    monkeypatch.setattr(labelling, "MAX_WAIT_S", 0.0)
    try:
        answer = backend.post("/predict", json=asked(uri(1)))
        assert not go.is_set()
        assert answer.status_code == 429
        assert "did not predict the image in 0 s" in answer.json()["detail"]
    finally:
        go.set()


def test_a_full_queue_is_waited_for(
    service: Service, backend: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = service.predict, [1, 2]

    def predict(*given: Any) -> Prediction:
        if refusals:
            raise BusyError("full", retry_after_s=0.01 * refusals.pop())
        return real(*given)

    monkeypatch.setattr(service, "predict", predict)
    [made] = backend.post("/predict", json=asked(uri(1))).json()["results"]
    assert (len(made["result"]), refusals) == (1, [])


@pytest.mark.parametrize(
    "sent",
    [
        {}, [], asked(), {"tasks": [{}]}, asked(uri(), config="<View/>"), {"tasks": 3},
        asked(uri(), label_config=None), asked(uri(), config="x" * 1_000_001),
        asked(uri(), params={"context": "x"}), asked(uri(), project="1" * 201),
    ],
)  # fmt: skip
def test_what_label_studio_does_not_send(backend: TestClient, sent: Any) -> None:
    answer = backend.post("/predict", json=sent)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("folder", ["", "/roofs"], ids=["alone", "behind a proxy"])
def test_an_image_is_told_the_url_of_the_api(backend: TestClient, folder: str) -> None:
    proxied = TestClient(backend.app, "http://127.0.0.1", root_path=folder)
    answer = proxied.post("/ls/predict", files={"file": ("a.png", b"pixels", "image/png")})
    assert answer.status_code == 422
    assert "takes the JSON of Label Studio, not an image" in answer.json()["detail"]
    assert f"curl -F file=@image.tif http://127.0.0.1{folder}/v1/predict" in answer.text


@pytest.mark.campaign
def test_bodies_in_memory_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further requests are read when others are done, and answered in the same way."""
    made = Service(Predictor(tiny_bundle(), PointwiseEngine()), Limits(running=1))
    lock, now, most = threading.Lock(), 0, 0
    real = labelling.Labeller.predictions

    def predictions(self: labelling.Labeller, *given: Any) -> Any:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.02)
        try:
            return real(self, *given)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(labelling.Labeller, "predictions", predictions)
    with closing(made), client(made) as backend, ThreadPoolExecutor(8) as pool:
        sent = [asked(uri(number % 3)) for number in range(8)]
        answers = list(pool.map(lambda body: backend.post("/predict", json=body).json(), sent))
    assert [len(one["results"][0]["result"]) for one in answers] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert most == 2
