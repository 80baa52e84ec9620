"""The address `/` leads to the first page, also behind a proxy."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rooftrace.app.server import front_door


@pytest.mark.parametrize("address", ["jobs", "demo"])
def test_the_first_address_leads_on_without_naming_a_server(address: str) -> None:
    app = FastAPI()
    app.include_router(front_door(address))
    headers = {"X-Forwarded-Host": "evil.example", "Host": "other.example"}
    answer = TestClient(app).get("/", headers=headers, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, address)
