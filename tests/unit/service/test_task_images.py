"""Images are fetched only from the Label Studio server, from its paths for images."""

import base64
import io
import re
from collections.abc import Mapping

import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, TooLargeError
from rooftrace.labels.labelstudio_client import LabelStudio
from rooftrace.service.task_images import TaskImages

URL = "http://labels.example.com:8080/ls"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Mapping[str, str]]]:
    """Record the requests to each server."""
    calls: list[tuple[str, str, Mapping[str, str]]] = []

    def fetch(self: LabelStudio, path: str, query: Mapping[str, str], *, most_bytes: int) -> bytes:
        calls.append((self.url, path, dict(query)))
        return b"an image"

    monkeypatch.setattr(LabelStudio, "fetch", fetch)
    return calls


def images(url: str | None = URL, token: str | None = "t0ken", most: int = 1000) -> TaskImages:
    return TaskImages(url, token, most)


BUCKET = base64.urlsafe_b64encode(b"s3://chips/a b/1.png").decode()


@pytest.mark.parametrize(
    ("reference", "path", "query", "name"),
    [
        ("/data/upload/3/1a2b3c4d-chip%20%C3%BC.png", "/data/upload/3/1a2b3c4d-chip%20%C3%BC.png",
         {}, "chip ü.png"),
        ("/data/upload/1a2b3c4d-chip.png?x=1#y", "/data/upload/1a2b3c4d-chip.png", {}, "chip.png"),
        (f"{URL}/data/upload/3/x.png", "/data/upload/3/x.png", {}, "x.png"),
        ("/ls/data/upload/3/x.png", "/data/upload/3/x.png", {}, "x.png"),
        ("/data/local-files/?d=set%20one/%C3%BC.png", "/data/local-files/", {"d": "set one/ü.png"},
         "ü.png"),
        ("s3://chips/a b/1.png", "/tasks/7/resolve/", {"fileuri": BUCKET}, "1.png"),
        ("gs://chips/1.png", "/tasks/7/resolve/", {"fileuri": "Z3M6Ly9jaGlwcy8xLnBuZw=="}, "1.png"),
        (f"/tasks/7/resolve/?fileuri={BUCKET}", "/tasks/7/resolve/", {"fileuri": BUCKET}, "image"),
        (f"{URL}/projects/2/presign/?fileuri=YQ", "/projects/2/presign/", {"fileuri": "YQ"},
         "image"),
    ],
)  # fmt: skip
def test_where_label_studio_keeps_images(
    asked: list[tuple[str, str, Mapping[str, str]]],
    reference: str, path: str, query: dict[str, str], name: str,
) -> None:  # fmt: skip
    found = images().fetch(reference, 7, "1.1")
    assert (found.data, found.name) == (b"an image", name)
    assert asked == [(URL, path, query)]


@pytest.mark.parametrize(
    "reference",
    [
        "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:8000/metrics",
        "https://labels.example.com:8080/ls/data/upload/1/x.png",  # another origin
        "http://labels.example.com/ls/data/upload/1/x.png",
        "http://labels.example.com:8080@evil.example/data/upload/1/x.png",
        "//evil.example/data/upload/1/x.png", "http:/data/upload/1/x.png", "http://[",
        "file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "C:\\windows\\win.ini", "chip.png",
        "/vsicurl/http://evil.example/x.tif", "ftp://labels.example.com/x.png",
        "/api/users", "/data/export/1", "/data/upload/../../api/users", "/data/upload/1/..",
        "/data/upload/1/%2e%2e", "/data/upload/1/x%2f..%2f..%2fapi", "/data/upload/x\\y",
        "/data/local-files/?d=../../etc/passwd", "/data/local-files/?d=a\\..\\b",
        "/data/local-files/", "/data/local-files/?d=a&d=b", "/data/local-files/?e=a",
        "/tasks/1/resolve/", "/tasks/1/annotations/?fileuri=YQ", "/tasks/x/resolve/?fileuri=YQ",
        "/user/reset-token/?fileuri=YQ",
    ],
)  # fmt: skip
def test_and_nowhere_else(asked: list[tuple[str, str, Mapping[str, str]]], reference: str) -> None:
    with pytest.raises(DataError, match=f"fetched only from {re.escape(URL)}"):
        images().fetch(reference, 7, "1.1")
    # A bucket is asked for by its task.
    with pytest.raises(DataError, match="only from"):
        images().fetch("s3://chips/1.png", None, "1.1")
    assert asked == []


def test_data_uris(asked: list[tuple[str, str, Mapping[str, str]]]) -> None:
    body = base64.b64encode(b"\x89PNG").decode()
    found = images(None, None).fetch(f"data:image/png;base64,{body}", 7, "1.1")
    assert found.data == b"\x89PNG"
    assert images().fetch("DATA:,%89PNG", None, "").data == b"\x89PNG"
    for bad in ("data:image/png;base64", "data:image/png;base64,%%%", "data:;base64,a"):
        with pytest.raises(DataError, match="data URI"):
            images().fetch(bad, 7, "1.1")
    for large in ("a" * 4000, "a" * 1001):
        with pytest.raises(TooLargeError, match="1,000 bytes"):
            images().fetch(f"data:,{large}", 7, "1.1")
    assert asked == []


def test_a_turned_photograph() -> None:
    encoded = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8)).save(encoded, format="JPEG", exif=exif)
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
    with pytest.raises(DataError, match=r"rotates the image \(orientation 6\)"):
        images(most=10_000).fetch(uri, 7, "1.1")


def test_a_server_introduces_itself(asked: list[tuple[str, str, Mapping[str, str]]]) -> None:
    known = images(None, "never-sent")
    with pytest.raises(ConfigError, match="of this project is not known"):
        known.fetch("/data/upload/1/x.png", 7, "1.1")
    known.connect("1.1", "http://localhost:8080/", "theirs", is_local=True)
    known.connect("2.2", "http://127.0.0.1:9090", "theirs", is_local=True)
    known.fetch("/data/upload/1/x.png", 7, "1.1")
    known.fetch("/data/upload/1/x.png", 7, "2.2")
    assert [url for url, _, _ in asked] == ["http://localhost:8080", "http://127.0.0.1:9090"]
    with pytest.raises(ConfigError, match="of this project is not known"):
        known.fetch("/data/upload/1/x.png", 7, "3.3")


@pytest.mark.parametrize(
    ("hostname", "near"),
    [("http://localhost:8080", False), ("http://labels.example.com", True),
     ("http://localhost.evil.example", True), ("http://127.0.0.1@evil.example", True),
     ("http://169.254.169.254", True), ("http://0.0.0.0:80", True), ("http://10.0.0.1", True),
     ("file:///etc/passwd", True), ("", True), ("http://[", True)],
)  # fmt: skip
def test_a_stranger_introduces_itself(hostname: str, near: bool) -> None:
    with pytest.raises(ConfigError, match="started without the URL"):
        images(None, None).connect("1.1", hostname, "theirs", is_local=near)


def test_the_server_that_was_named(asked: list[tuple[str, str, Mapping[str, str]]]) -> None:
    # Without a configured token it uses the one that the server sends.
    known = images(token=None)
    with pytest.raises(ConfigError, match=r"expected http://labels\.example\.com:8080/ls"):
        known.connect("1.1", "http://evil.example:8080", "theirs", is_local=True)
    known.connect("1.1", "http://labels.example.com:8080", "theirs", is_local=False)
    known.fetch("/data/upload/1/x.png", 7, "1.1")
    # With a configured token, addresses from requests are ignored.
    known = images()
    known.connect("1.1", "http://evil.example", "theirs", is_local=True)
    known.fetch("/data/upload/1/x.png", 7, "1.1")
    assert [url for url, _, _ in asked] == [URL, URL]
