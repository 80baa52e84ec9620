"""Uploads of jobs are written to disk while they arrive, for any split into chunks."""

import asyncio
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import HTTPException, Request

from rooftrace.core.errors import TooLargeError
from rooftrace.rest import transfer as job_upload
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.transfer import save_upload

MOST = 2**30


def request(kind: str, chunks: Iterable[bytes], length: int | None = None) -> Request:
    """Return a request with these chunks as its body; None means that the client disconnects."""
    left = iter(chunks)

    async def next_message() -> dict[str, object]:
        chunk = next(left, b"")
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return Request({"type": "http", "method": "POST", "headers": headers}, next_message)  # type: ignore[arg-type]


def form(data: bytes, filename: str) -> tuple[str, bytes]:
    """Return the form that httpx builds."""
    built = httpx.Request("POST", "http://a", files={"file": (filename, data)})
    return built.headers["content-type"], built.read()


def test_a_form_is_read_alike_however_it_is_cut(tmp_path: Path) -> None:
    kind, body = form(data := b"\r\n--boundary\r\n", "Süd.tif")
    for size in range(1, 60):
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        path = tmp_path / str(size)
        assert asyncio.run(save_upload(request(kind, chunks), path, MOST)) == "Süd.tif"
        assert path.read_bytes() == data


@pytest.mark.parametrize("kind", ["image/tiff", "form"])
def test_a_large_upload_is_never_in_memory(tmp_path: Path, kind: str) -> None:
    chunk, count = bytes(range(256)) * 256, 512
    head, tail = b"", b""
    if kind == "form":
        kind, body = form(b"|", "a.tif")
        head, tail = body.split(b"|")

    def chunks() -> Iterator[bytes]:
        yield from [head] if head else []
        for _ in range(count):
            # Each a copy, as it comes from a socket.
            yield bytes(bytearray(chunk))
        yield from [tail] if tail else []

    async def measured() -> int:
        tracemalloc.start()
        try:
            await save_upload(request(kind, chunks()), tmp_path / "upload", MOST)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak = asyncio.run(measured())
    assert (tmp_path / "upload").stat().st_size == count * len(chunk) == 2**25
    assert peak < 2**23


def test_one_byte_too_many(tmp_path: Path) -> None:
    asyncio.run(save_upload(request("image/png", [b"12", b"34"]), tmp_path / "a", 4))
    with pytest.raises(TooLargeError, match="more than the 3 bytes"):
        asyncio.run(save_upload(request("image/png", [b"12", b"34"]), tmp_path / "b", 3))
    with pytest.raises(TooLargeError):
        asyncio.run(save_upload(request("image/png", [], length=4), tmp_path / "c", 3))
    # The body was not read.
    assert not (tmp_path / "c").exists()


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    opened, full = Path.open, Path("/dev/full")
    monkeypatch.setattr(Path, "open", lambda path, mode: opened(full, "wb", buffering=0))
    with pytest.raises(HTTPException) as caught:
        asyncio.run(save_upload(request("image/png", [b"1"]), tmp_path / "upload", MOST))
    assert caught.value.status_code == 507
    monkeypatch.setattr(job_upload.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(HTTPException, match="no room"):
        asyncio.run(save_upload(request("image/png", [], length=11), tmp_path / "b", MOST))


def test_a_client_that_goes_away(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="broke off"):
        asyncio.run(save_upload(request("image/png", [b"1", None]), tmp_path / "a", MOST))  # type: ignore[list-item]
