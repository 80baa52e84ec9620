"""Health, readiness and metrics."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from rest_service import fake_service, png, roofs
from rooftrace.core.errors import PredictError
from rooftrace.rest.api import create_api

pytestmark = pytest.mark.campaign

PNG = {"Content-Type": "image/png"}


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_ready_between_its_beginning_and_its_end() -> None:
    service = fake_service()
    client = TestClient(create_api(service))
    try:
        assert client.get("/healthz").json()["status"] == "alive"
        early = client.get("/readyz")
        assert (early.status_code, early.json()["type"]) == (503, "/problems/not-ready")
        service.warm()
        assert client.get("/readyz").json() == {"status": "ready", "model": "brightness"}
    finally:
        service.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_the_app_warms_and_closes_its_service() -> None:
    service = fake_service()
    app = create_api(service)
    with TestClient(app) as client:
        # Before threads run: FastAPI hides warnings meanwhile, which is not safe beside them.
        assert app.openapi_schema is not None
        answer = client.post("/v1/predict", content=png(roofs()), headers=PNG)
        assert answer.status_code == 200
    assert not service.ready
    with pytest.raises(PredictError, match="The server is stopping"):
        service.submit(b"", "a")


def test_metrics_count_by_route_and_status() -> None:
    service = fake_service()
    service.warm()
    jobs = {"running": 2, "done": 5}
    client = TestClient(create_api(service, jobs_by_state=lambda: jobs))
    try:
        before = figures(client)
        for seed in range(3):
            client.post("/v1/predict?format=png", content=png(roofs(seed)), headers=PNG)
        client.post("/v1/predict", content=b"no image", headers=PNG)
        client.get("/v1/nothing/a")
        client.get("/v1/nothing/b")
        client.get("/problems/busy")
        after = figures(client)
    finally:
        service.close()

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("rooftrace_http_requests_total", "POST", "/v1/predict", "200") == 3
    assert grown("rooftrace_http_requests_total", "POST", "/v1/predict", "422") == 1
    # All unknown addresses share one row.
    assert grown("rooftrace_http_requests_total", "GET", "other", "404") == 2
    assert grown("rooftrace_http_requests_total", "GET", "/problems/{name}", "200") == 1
    assert grown("rooftrace_http_request_seconds_count", "/v1/predict") == 4
    assert grown("rooftrace_predictions_total") == 3
    assert grown("rooftrace_predictions_failed_total") == 1
    assert grown("rooftrace_engine_pixels_total") == 3 * 96 * 96
    assert after["rooftrace_jobs", "running"] == 2
    assert after["rooftrace_jobs", "done"] == 5
    assert after["rooftrace_ready",] == 1
    assert after["process_resident_memory_bytes",] > 2**24
    (info,) = (key for key in after if key[0] == "rooftrace_model_info")
    assert {"brightness", "pointwise", "fp32"} <= set(info)
