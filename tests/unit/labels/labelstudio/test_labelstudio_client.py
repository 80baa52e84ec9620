"""Every answer of a server becomes a clear error, and no message contains the token."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fake_labelstudio import PNG, TOKEN, Answer, FakeServer, export_of
from rooftrace.core.errors import ConfigError, DataError, RooftraceError, TooLargeError
from rooftrace.flows.label import run_pull
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.labelstudio_client import (
    LabelStudio,
    find_project,
    polygon_tool,
    project_number,
)

PERSONAL = "head.pay-s3cret.sign"

STRANGE: list[tuple[Answer, type[RooftraceError], str]] = [
    ((401, b'{"detail": "Invalid token."}', {}), ConfigError, "does not accept the token: Invalid"),
    ((403, b"", {}), ConfigError, "does not allow /api/projects/1"),
    ((404, b"<html>", {}), ConfigError, "has no /api/projects/1"),
    ((302, b"", {"Location": "http://evil.example/x"}), ConfigError, "redirects to http://evil.ex"),
    ((500, b"[1]", {}), DataError, "with the status 500"),
    ((400, b'{"detail": "s3cret-t0ken is bad"}', {}), DataError, "the status 400: (token) is bad"),
    ((400, b'{"validation_errors": {"title": ["short"]}}', {}), DataError, '{"title": ["short"]}'),
    ((200, b"<html>", {}), DataError, "with no JSON"),
    ((200, b"[]", {}), DataError, "with a list, where an object was expected"),
]


@pytest.mark.parametrize(("answer", "kind", "said"), STRANGE)
def test_strange_answers(
    fake: FakeServer, answer: Answer, kind: type[RooftraceError], said: str
) -> None:
    fake.answers["/api/projects/1"] = answer
    with pytest.raises(kind) as raised:
        LabelStudio(fake.url, TOKEN).project(1)
    assert said in raised.value.message
    assert fake.url in raised.value.message
    assert TOKEN not in str(raised.value) + repr(raised.value.__cause__)
    assert fake.asked == [("GET", "/api/projects/1", f"Token {TOKEN}")]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://example.com", "labels.example.com", "", "http://", "http://[",
     "http://me:pw@example.com", "https://example.com/?x=1", "http://example.com:99999"],
)  # fmt: skip
def test_malformed_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="expected the URL") as raised:
        LabelStudio(url, TOKEN)
    assert "pw" not in raised.value.message


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Header: b", "é", "\0"])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LabelStudio("http://example.com", token)
    assert not token or token not in raised.value.message


def test_a_personal_token_is_exchanged_and_renewed(fake: FakeServer) -> None:
    issued = iter(["first", "second"])

    def refresh(_: BaseHTTPRequestHandler) -> Answer:
        return 200, json.dumps({"access": next(issued)}).encode(), {}

    def project(handler: BaseHTTPRequestHandler) -> Answer:
        fresh = handler.headers["Authorization"] == "Bearer second"
        return (200, b'{"id": 1}', {}) if fresh else (401, b"{}", {})

    fake.answers = {"/api/token/refresh/": refresh, "/api/projects/1": project}
    server = LabelStudio(fake.url, PERSONAL)
    assert server.project(1) == server.project(1) == {"id": 1}
    assert [path for _, path, _ in fake.asked].count("/api/token/refresh/") == 2


def test_a_download_that_breaks_off_leaves_nothing(fake: FakeServer, tmp_path: Path) -> None:
    fake.answers["/data/upload/1/x.png"] = (200, b"half", {"Content-Length": "8"})
    with pytest.raises(DataError, match="received 4 bytes, expected 8"):
        LabelStudio(fake.url, TOKEN).download("/data/upload/1/x.png", tmp_path / "x.png")
    assert not [*tmp_path.iterdir()]


def test_a_file_in_memory(fake: FakeServer) -> None:
    fake.answers["/data/local-files/"] = (200, b"an image", {})
    server = LabelStudio(fake.url, TOKEN)
    asked = {"d": "set one/ü&b.png"}
    assert server.fetch("/data/local-files/", asked, most_bytes=8) == b"an image"
    path = "/data/local-files/?d=set+one%2F%C3%BC%26b.png"
    assert fake.asked == [("GET", path, f"Token {TOKEN}")]
    with pytest.raises(TooLargeError, match="more than the 7 bytes"):
        server.fetch("/data/local-files/", asked, most_bytes=7)
    fake.answers["/data/local-files/"] = (200, b"half", {"Content-Length": "8"})
    with pytest.raises(DataError, match="received 4 bytes, expected 8"):
        server.fetch("/data/local-files/", asked, most_bytes=8)
    # A storage with pre-signed addresses: no image is worth following strangers.
    elsewhere = {"Location": "https://bucket.example/x?signature=y"}
    fake.answers["/tasks/1/resolve/"] = (303, b"", elsewhere)
    with pytest.raises(ConfigError, match=r"redirects to https://bucket\.example"):
        server.fetch("/tasks/1/resolve/", {"fileuri": "YQ"}, most_bytes=8)


def test_projects_by_title(fake: FakeServer) -> None:
    results = [{"id": 3, "title": "Town"}, {"id": 4, "title": "Town 2"}]
    fake.says("/api/projects", {"results": results})
    server = LabelStudio(fake.url, TOKEN)
    assert find_project(server, "Town") == results[0]
    assert find_project(server, "nowhere") is None
    fake.says("/api/projects", {"results": [*results, {"id": 5, "title": "Town"}]})
    with pytest.raises(ConfigError, match="2 projects called 'Town': 3, 5"):
        find_project(server, "Town")
    with pytest.raises(DataError, match="has the number None"):
        project_number({})


def tool(**changes: Any) -> dict[str, Any]:
    inputs = [{"type": "Image", "value": "photo"}]
    labels = ["Road", "Building"]
    return {
        "type": "PolygonLabels",
        "to_name": ["pic"],
        "inputs": inputs,
        "labels": labels,
    } | changes


def test_where_polygons_belong() -> None:
    brush = tool(type="BrushLabels")
    parsed = {"b": brush, "roads": tool(labels=["Road"]), "p": tool()}
    found = polygon_tool({"parsed_label_config": parsed}, "building")
    assert (found.control.name, found.control.to_name) == ("p", "pic")
    assert (found.key, found.label) == ("photo", "Building")
    with pytest.raises(ConfigError, match=r"no polygon label 'buildings'.*Did you mean 'Building'"):
        polygon_tool({"parsed_label_config": parsed, "title": "t"}, "buildings")
    for broken in (None, [], {"b": brush}, {"p": tool(inputs=[])}, {"p": 3}):
        with pytest.raises(ConfigError, match="has no <PolygonLabels> on an <Image>"):
            polygon_tool({"parsed_label_config": broken}, "building")


def test_pull_downloads_each_upload_once(fake: FakeServer, tmp_path: Path) -> None:
    fake.says("/api/projects/1", {"id": 1})
    references = ["/data/upload/1/0123abcd-a.png", "/data/upload/1/0123abcd-%C3%A9.png",
                  "/data/local-files/?d=set/far.png", "s3://bucket/b.png"]  # fmt: skip
    fake.says("/api/projects/1/export", export_of(*references))
    for name in ("a", "%C3%A9"):
        fake.answers[f"/data/upload/1/0123abcd-{name}.png"] = (200, PNG, {})
    out, server = tmp_path / "out", LabelStudio(fake.url, TOKEN)
    report = run_pull(server, "1", out)
    assert (report.tasks, report.annotated, report.downloaded) == (4, 0, 2)
    assert "2 images were neither uploaded" in report.notes[0]
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    images = {"tasks_images/0123abcd-a.png", "tasks_images/0123abcd-é.png"}
    assert names == {"tasks.json", "rooftrace.toml", *images}
    assert run_pull(server, "1", out).downloaded == 0
    fake.says("/api/projects/1/export", export_of(*references[:2]))
    run_pull(server, "1", out)
    source = open_source(SourceConfig(path=str(out)))
    assert [entry.id for entry in source.unlabelled] == ["a", "é"]


def test_pull_replaces_only_an_earlier_pull(fake: FakeServer, tmp_path: Path) -> None:
    fake.says("/api/projects/1", {"id": 1})
    fake.says("/api/projects/1/export", [])
    server, out, layer = LabelStudio(fake.url, TOKEN), tmp_path / "out", tmp_path / "town.json"
    for target in (out, layer):
        for _ in range(2):
            run_pull(server, "1", target)
    layer.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(ConfigError, match=r"town\.json exists and is not an export"):
        run_pull(server, "1", layer)
    card = out / "rooftrace.toml"
    written = card.read_text()
    card.write_text('path = "."\nkind = "folder"\n')
    with pytest.raises(ConfigError, match=r"rooftrace\.toml exists and describes other data"):
        run_pull(server, "1", out)
    # What a person has added to the card stays.
    card.write_text(edited := written + 'annotator = "union"\n')
    assert run_pull(server, "1", out).notes == ()
    assert f"with --images {tmp_path}" in run_pull(server, "1", out, images=tmp_path).notes[0]
    assert card.read_text() == edited


HOSTILE = ["..", "%2e%2e", "..%5C..%5Cevil.png", "a%0Ab.png", "C:evil.png", "%00.png", "."]


@pytest.mark.parametrize("name", HOSTILE)
def test_pull_writes_nowhere_else(fake: FakeServer, tmp_path: Path, name: str) -> None:
    fake.says("/api/projects/1", {"id": 1})
    fake.says("/api/projects/1/export", export_of(f"/data/upload/1/{name}"))
    with pytest.raises(DataError, match=r"task 0 names the upload .* not a valid file name"):
        run_pull(LabelStudio(fake.url, TOKEN), "1", tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["tasks.json"]


@pytest.mark.parametrize(
    "reference",
    ["/data/upload/../../../../etc/evil.png", "/data/upload/1/..%2F..%2Fevil.png",
     "https://evil.example/data/upload/1/2/evil.png", "/data/upload//evil.png"],
)  # fmt: skip
def test_pull_takes_no_way_around(fake: FakeServer, tmp_path: Path, reference: str) -> None:
    fake.says("/api/projects/1", {"id": 1})
    fake.says("/api/projects/1/export", export_of(reference))
    report = run_pull(LabelStudio(fake.url, TOKEN), "1", tmp_path / "out")
    assert report.downloaded == 0
    assert reference in report.notes[0]
