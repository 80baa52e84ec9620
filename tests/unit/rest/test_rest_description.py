"""The OpenAPI description is complete, and its page needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.testclient import TestClient

from rest_service import fake_service
from rooftrace.rest.api import create_api
from rooftrace.rest.description import DescribedRoute
from rooftrace.rest.security import Security


class Wanted(BaseModel):
    name: str


@pytest.fixture(scope="module")
def secured() -> Iterator[TestClient]:
    router = APIRouter(prefix="/v1/more", route_class=DescribedRoute)

    @router.post("")
    def more(wanted: Wanted, size: int = 0) -> str:
        """Return the name of another router's body."""
        return wanted.name

    service = fake_service()
    app = create_api(service, security=Security(api_key="k"), routers=[router])
    yield TestClient(app, headers={"X-API-Key": "k"})
    service.close()


@pytest.fixture(scope="module")
def api(secured: TestClient) -> dict[str, Any]:
    return secured.get("/openapi.json").json()


def operations(api: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in api["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_every_operation_lists_its_problems(api: dict[str, Any]) -> None:
    assert api["openapi"] == "3.1.0"
    paths = [path for path, _ in operations(api)]
    assert {"/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics", "/v1/more"} <= {*paths}
    for path, operation in operations(api):
        responses = operation["responses"]
        assert {"200", "400", "403", "408", "413", "421", "500"} <= set(responses)
        assert ("401" in responses) == (path not in ("/healthz", "/readyz"))
        assert ("security" in operation) == (path not in ("/healthz", "/readyz"))
        for status, response in responses.items():
            assert response["description"]
            if status >= "400":
                (kind,) = response["content"]
                assert kind == "application/problem+json"
    assert set(api["components"]["securitySchemes"]) == {"bearer", "header", "basic"}


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]
    used = set(re.findall(r"#/components/schemas/([\w.-]+)", str(api)))
    assert "FeatureCollection" in used
    assert used <= set(schemas)
    assert "HTTPValidationError" not in schemas


def test_the_page_lists_all_and_loads_nothing(secured: TestClient, api: dict[str, Any]) -> None:
    page = secured.get("/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in api["paths"]:
        assert path in page.text
    assert re.findall(r'(?:src|href)="(?!\.\./|#)([^"]+)"', page.text) == []
    # Those of FastAPI load from elsewhere.
    for other in ("/docs", "/redoc"):
        assert secured.get(other).status_code == 404


def test_a_misspelt_parameter_gets_a_suggestion(secured: TestClient) -> None:
    refused = secured.post("/v1/predict?treshold=0.4", content=b"x").json()
    assert refused["detail"] == ("The parameter 'treshold' is not known. Did you mean 'threshold'?")
    assert "mean" not in secured.post("/v1/predict?xyz=1", content=b"x").json()["detail"]
    # FastAPI itself would ignore it: a filter of buildings would give all.
    refused = secured.post("/v1/more?min_size=4", json={"name": "x"})
    assert refused.status_code == 422
    assert refused.json()["detail"].endswith("Did you mean 'size'?")
    assert secured.post("/v1/more?size=4", json={"name": "x"}).json() == "x"
