"""Access, size limits, and headers for browsers."""

import asyncio
import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from rooftrace.core.errors import ConfigError
from rooftrace.rest import security as body
from rooftrace.rest.problems import install_problems
from rooftrace.rest.security import (
    LOOPBACK,
    AccessMiddleware,
    BodyLimitMiddleware,
    Security,
    install_security,
)

KEY = "schlüssel"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("security") / "large.bin"
    path.write_bytes(bytes(2**20))
    return path


def app_of(security: Security, large: Path | None = None) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.api_route("/echo", methods=["GET", "POST"])
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    @app.post("/wrapped")
    async def wrapped(body: dict) -> dict:
        return body

    @app.post("/v1/jobs")
    async def jobs(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    @app.get("/healthz")
    def healthz() -> str:
        return "alive"

    @app.get("/where")
    def where(request: Request) -> list[str]:
        assert request.client is not None
        return [str(request.base_url), request.client.host]

    @app.get("/file")
    def file() -> FileResponse:
        assert large is not None
        return FileResponse(large)

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(itertools.repeat(b"x" * 1000))

    @app.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError("the password is 1234")

    @app.get("/v1/cancelled")
    async def cancelled() -> None:
        raise asyncio.CancelledError

    install_problems(app)
    install_security(app, security)
    return app


def client_of(**security: object) -> TestClient:
    return TestClient(app_of(Security(**security)), base_url="http://localhost:8000")


def basic(password: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY.encode()}, {"Authorization": f"Bearer {KEY}".encode()},
        {"authorization": f"bearer   {KEY}".encode()}, {"Authorization": basic(KEY)},
        {"Authorization": basic(KEY, user="")},
        {"Authorization": "Digest nonsense", "X-API-Key": KEY.encode()},
    ],
)  # fmt: skip
def test_who_has_the_key_may_ask(headers: dict) -> None:
    assert client_of(api_key=KEY).get("/echo", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"X-API-Key": "schl"}, {"X-API-Key": KEY.encode() + b"x"},
        {"Authorization": KEY.encode()}, {"Authorization": basic("other")},
        {"Authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},
        {"Cookie": b"key=" + KEY.encode()},
    ],
)  # fmt: skip
def test_who_has_not_is_asked_for_it(headers: dict) -> None:
    client = client_of(api_key=KEY)
    answer = client.get("/echo", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorized")
    # Browsers then ask for the key.
    assert "Basic realm" in answer.headers["www-authenticate"]
    assert "Bearer realm" in answer.headers["www-authenticate"]
    assert client.get("/healthz", headers=headers).status_code == 200
    # Without the key, clients do not learn which addresses exist.
    assert client.get("/nowhere", headers=headers).status_code == 401


@pytest.mark.parametrize("key", ["", "  "])
def test_a_key_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="empty"):
        Security(api_key=key)


def test_a_request_that_a_stopping_server_cancels_gets_a_problem() -> None:
    answer = TestClient(app_of(Security()), base_url="http://127.0.0.1").get("/v1/cancelled")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-ready"


def test_a_body_that_announces_too_much_is_not_read() -> None:
    client = client_of(body_bytes=100)
    assert client.post("/echo", content=b"x" * 100).text == "100"
    answer = client.post("/echo", content=b"x" * 101)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert "101 bytes" in answer.json()["detail"]
    assert "at most 100 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/echo", "/wrapped"])
def test_a_body_that_goes_on_is_cut_off_while_it_comes(path: str) -> None:
    """Independent of how the app handles the error, such as FastAPI within JSON."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(50):
            taken += 40
            yield b"x" * 40

    answer = client_of(body_bytes=100).post(path, content=chunks())
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    # The rest was short enough to be drained.
    assert taken == 2000


def test_who_asks_before_it_sends_hears_at_once() -> None:
    """The server sends `100 Continue` when the app first reads the body."""
    sent: list[dict] = []

    async def receive() -> dict:
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"content-length", b"1000"), (b"expect", b"100-continue"), (b"host", b"x")]
    scope = {"type": "http", "path": "/", "headers": headers, "method": "POST"}
    asyncio.run(
        BodyLimitMiddleware(app_of(Security()), Security(body_bytes=10))(scope, receive, send)
    )
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]


def test_limits_by_path() -> None:
    client = client_of(body_bytes=10, body_bytes_of={"/v1/jobs": 1000})
    assert client.post("/v1/jobs", content=b"x" * 500).text == "500"
    assert client.post("/v1/jobs", content=b"x" * 1001).status_code == 413
    assert client.post("/echo", content=b"x" * 500).status_code == 413
    # A prefix matches only whole path segments.
    assert client.post("/v1/jobsandmore", content=b"x" * 500).status_code == 413


@pytest.mark.parametrize("trickles", [False, True])
def test_a_body_that_stops_coming_is_given_up(
    trickles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_GRACE_S", 0.1)
    monkeypatch.setattr(body, "_MAX_DRAIN_S", 0.1)
    app = BodyLimitMiddleware(app_of(Security()), Security(idle_seconds=5 if trickles else 0.05))
    given = iter([{"type": "http.request", "body": b"x", "more_body": True}])
    sent: list[dict] = []

    async def receive() -> dict:
        for message in given:
            return message
        await asyncio.sleep(0.02 if trickles else 20)
        assert trickles
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/echo", "raw_path": b"/echo", "query_string": b"", "root_path": "",
        "scheme": "http", "headers": [(b"host", b"x"), (b"content-length", b"99")],
        "client": None, "server": None,
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 4))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.nip.io:8000", 421),
        ("localhost:8000@evil.example", 421), ("", 421),
    ],
)  # fmt: skip
def test_names_that_point_here_from_elsewhere_are_refused(host: str, status: int) -> None:
    answer = client_of(hosts=LOOPBACK).get("/echo", headers={"Host": host})
    assert answer.status_code == status
    assert client_of().get("/echo", headers={"Host": host}).status_code == 200
    # Behind a proxy on this machine, with the name of the proxy.
    keyed = client_of(hosts=LOOPBACK, api_key="k")
    assert keyed.get("/echo", headers={"Host": host, "X-API-Key": "k"}).status_code == 200
    assert keyed.get("/echo", headers={"Host": host}).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200), ("http://localhost:8000", 200), ("https://evil.example", 403),
        ("http://localhost:9999", 403), ("null", 403),
    ],
)  # fmt: skip
def test_forms_of_foreign_pages_are_refused(origin: str | None, status: int) -> None:
    client = client_of()
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/echo", content=b"x", headers=headers).status_code == status
    # Reading is harmless: the browser does not show the response to the other site.
    assert client.get("/echo", headers=headers).status_code == 200


def test_behind_a_proxy_its_own_page_may_ask() -> None:
    headers = {"Origin": "https://roofs.example", "X-Forwarded-Host": "roofs.example"}
    assert client_of().post("/echo", content=b"x", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("stated", "scheme"),
    [("https", "https"), ("http", "http"), ("javascript", "http"), ("", "http")],
)
def test_a_proxy_states_the_scheme_of_links(stated: str, scheme: str) -> None:
    answer = client_of().get("/where", headers={"X-Forwarded-Proto": stated})
    assert answer.json() == [f"{scheme}://localhost:8000/", "testclient"]


def test_head_is_answered_as_get_without_a_body(large: Path) -> None:
    client = TestClient(app_of(Security(api_key=KEY), large))
    for path, length in (("/healthz", "7"), ("/file", str(2**20)), ("/endless", None)):
        answer = client.head(path, headers={"X-API-Key": KEY.encode()})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers.get("content-length") == length
    assert client.head("/nowhere", headers={"X-API-Key": KEY.encode()}).status_code == 404
    assert client.head("/echo").status_code == 401


def test_head_starts_no_camera() -> None:
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["method"])

    async def unused(*_: object) -> None:
        raise AssertionError

    head = {"type": "http", "method": "HEAD", "path": "/live/cameras/0/stream", "headers": []}
    asyncio.run(AccessMiddleware(app, Security())(head, unused, unused))
    assert asked == ["HEAD"]


def test_headers_for_browsers() -> None:
    client = client_of()
    api, page = client.get("/v1/nothing").headers, client.get("/echo").headers
    for headers in (api, page):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert api["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert api["cache-control"] == "no-store"
    assert page["content-security-policy"] == "frame-ancestors 'self'"


def test_the_log_has_errors_and_the_ids_of_refusals(caplog: pytest.LogCaptureFixture) -> None:
    answer = client_of().get("/v1/broken")
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (500, "/problems/server-error")
    assert "1234" not in answer.text
    assert "RuntimeError" not in answer.text
    name = answer.headers["x-request-id"]
    assert problem["instance"] == f"urn:uuid:{name}"
    record, line = caplog.records
    assert name in record.getMessage()
    assert "1234" in str(record.exc_info)
    assert line.getMessage() == f"request {name} from testclient: GET '/v1/broken': 500"
    refused = client_of().get("/nothing?key=secret").headers["x-request-id"]
    assert client_of().get("/readyz").status_code == 404
    assert caplog.messages[-1] == f"request {refused} from testclient: GET '/nothing': 404"


def test_a_request_keeps_the_name_that_a_proxy_gave_it() -> None:
    client = client_of()
    name = "0123456789abcdef0123456789abcdef"
    same_id = client.get("/echo", headers={"X-Request-Id": name}).headers["x-request-id"]
    assert same_id.replace("-", "") == name
    other = client.get("/echo", headers={"X-Request-Id": "a\tb"}).headers["x-request-id"]
    assert other != client.get("/echo").headers["x-request-id"]
    assert len(other) == 36


def test_pages_of_allowed_sites_may_call_the_server(large: Path) -> None:
    site, other = "https://map.example:8443", "https://other.example"
    client = TestClient(app_of(Security(api_key="k", origins=[site]), large))
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "range"}
    # The browser asks first, without the key.
    asked = client.options("/echo", headers={"Origin": site, **asking})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == site
    assert "range" in asked.headers["access-control-allow-headers"]
    made = client.post("/echo", content=b"12", headers={"Origin": site, "X-API-Key": "k"})
    assert (made.text, made.headers["access-control-allow-origin"]) == ("2", site)
    # A browser must not give the page what it keeps of the server's own.
    assert client.get("/echo", headers={"X-API-Key": "k"}).headers["vary"] == "Origin"
    # A refusal and an unexpected error can be read by the page, too.
    for path, key, status in (("/echo", "", 401), ("/v1/broken", "k", 500)):
        refused = client.get(path, headers={"Origin": site, "X-API-Key": key})
        assert refused.status_code == status
        assert refused.headers["access-control-allow-origin"] == site
    for answer in (
        client.options("/echo", headers={"Origin": other, **asking}),
        client.post("/echo", headers={"Origin": other, "X-API-Key": "k"}),
    ):
        assert answer.status_code == 403
        assert f"--allow-origin {other}" in answer.json()["remedy"]
        assert "access-control-allow-origin" not in answer.headers
    for malformed in ("https://map.example/", "map.example", "*"):
        with pytest.raises(ConfigError, match="allow_origin received"):
            Security(origins=[malformed])
