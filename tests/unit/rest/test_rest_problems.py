"""Error responses as RFC 9457 problems, and the pages that explain them."""

from __future__ import annotations

import inspect

import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from starlette.testclient import TestClient

import rooftrace.core.errors as errors
from rooftrace.core.errors import BusyError, ConfigError, ExportError, RooftraceError
from rooftrace.core.text import in_api_terms
from rooftrace.rest.problems import PROBLEMS, install_problems
from rooftrace.service.job_store import JobStateError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RooftraceError)
] + [JobStateError]

STATUSES = {
    "BandMismatch": 422, "BundleError": 500, "BusyError": 429, "ConfigError": 422,
    "DataError": 422, "DeadlineError": 503, "DefectError": 500, "ExportError": 507,
    "GeoreferenceError": 422, "GsdMismatch": 422, "JobStateError": 409, "LabelError": 422,
    "LayoutError": 422, "MissingExtraError": 501, "OutOfMemoryError": 503, "PredictError": 500,
    "RooftraceError": 500, "ServiceError": 422, "SplitError": 422, "StoppingError": 503,
    "TooLargeError": 413, "TrainError": 500,
}  # fmt: skip


class Body(BaseModel):
    count: int


def client_raising(error: Exception) -> TestClient:
    app = FastAPI()
    install_problems(app)

    @app.get("/")
    def fail() -> None:
        raise error

    return TestClient(app)


def test_a_browser_that_opens_a_url_gets_a_page() -> None:
    client = client_raising(ConfigError("It is <so>.", remedy="Do that."))
    asked = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = client.get("/", headers=asked)
    assert (page.status_code, page.headers["vary"]) == (422, "Accept")
    assert "It is &lt;so&gt;. Do that." in page.text
    # Its style is in the page: without the key, a server refuses the stylesheet.
    assert "--paper:" in page.text
    assert 'href="../.././"' in client.get("/map/a/b", headers=asked).text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[RooftraceError]) -> None:
    answer = client_raising(kind("It is so.", remedy="Do that.")).get("/")
    assert answer.status_code == STATUSES[kind.__name__]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"].removeprefix("/problems/") in PROBLEMS
    assert problem["title"]
    if answer.status_code < 500:
        assert (problem["detail"], problem["remedy"]) == ("It is so.", "Do that.")


def test_the_servers_own_paths_stay_there() -> None:
    error = ExportError("/srv/secret could not be written.", remedy="Look at /srv.")
    assert "/srv" not in client_raising(error).get("/").text


@pytest.mark.parametrize(("seconds", "answered"), [(0.2, "1"), (3.2, "4"), (7, "7")])
def test_busy_says_when(seconds: float, answered: str) -> None:
    answer = client_raising(BusyError("Full.", retry_after_s=seconds)).get("/")
    assert answer.headers["retry-after"] == answered


def test_of_http_and_of_validation() -> None:
    app = FastAPI()
    install_problems(app)

    @app.post("/items/{number}")
    def item(number: int, body: Body) -> None:
        raise HTTPException(418, "short and stout")

    @app.get("/gone")
    def gone() -> None:
        raise HTTPException(404, "That job was removed.", headers={"X-Removed": "yes"})

    client = TestClient(app)
    wrong = client.post("/items/x", json={"count": "many"}).json()
    assert wrong["type"] == "/problems/invalid-request"
    assert [one["parameter"] for one in wrong["errors"]] == ["number", "count"]
    assert "The part of the URL 'number' is 'x': it should be a whole number" in wrong["detail"]
    assert "The field 'count' is 'many': it should be a whole number" in wrong["detail"]
    missing = client.post("/items/1", json={}).json()
    assert missing["detail"] == "The field 'count' is missing."
    tea = client.post("/items/1", json={"count": 1})
    assert (tea.status_code, tea.json()["type"]) == (418, "about:blank")
    assert tea.json()["detail"] == "short and stout"
    answered = client.get("/gone")
    assert answered.json()["detail"] == "That job was removed."
    assert answered.headers["x-removed"] == "yes"
    assert client.get("/nowhere").json()["detail"] == "There is nothing at '/nowhere'."
    method = client.delete("/gone")
    assert (method.status_code, method.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Correct --gsd, or use --scale 0.5.", "Correct the parameter gsd, or use scale=0.5."),
        ("Lower --min-area; see --help.", "Lower the parameter min_area; see --help."),
    ],
)
def test_messages_name_parameters_of_the_api(text: str, expected: str) -> None:
    assert in_api_terms(text) == expected
    answer = client_raising(ConfigError("Too small.", remedy=text)).get("/")
    assert answer.json()["remedy"] == expected


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_is_explained(client: TestClient, name: str) -> None:
    answered = client.get(f"/problems/{name}").json()
    assert answered["status"] == PROBLEMS[name].status


def test_an_explanation_is_a_page_in_a_browser(client: TestClient) -> None:
    page = client.get("/problems/busy", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert PROBLEMS["busy"].meaning in page.text
    assert 'href=".././"' in page.text
