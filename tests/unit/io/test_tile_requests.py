"""Requests for tiles from a real server: limits, retries, the cache, and servers that misbehave."""

import pickle
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from map_servers import Answer, TileServer, serving
from rooftrace.core.errors import ConfigError, ServiceError
from rooftrace.io import remote
from rooftrace.io.service_options import ServiceOptions
from rooftrace.io.tile_requests import TileRequests

PNG = b"\x89PNG\r\n\x1a\n and so on"
OK: Answer = (200, {"Content-Type": "image/png"}, PNG)


def client(folder: Path, **options: object) -> TileRequests:
    given = {
        "attempts": 3, "delay_s": 0.01, "timeout_s": 20.0, "per_second": 1000.0,
        "tile_cache": folder / "cache", **options,
    }  # fmt: skip
    return TileRequests("the service", ServiceOptions(**given))


def urls(server: TileServer, count: int) -> list[str]:
    return [f"{server.url}/{number}.png" for number in range(count)]


def test_a_tile_is_requested_once_and_then_cached(tmp_path: Path) -> None:
    with serving(lambda path: OK) as server:
        with_client = client(tmp_path)
        old, new = ([f"{url}?key={key}" for url in urls(server, 6)] for key in ("old", "new"))
        assert set(with_client.fetch(old[:5]).values()) == {PNG}
        copy = pickle.loads(pickle.dumps(with_client))
        assert copy.fetch(new) == dict.fromkeys(new, PNG)
        assert (with_client.requests, copy.requests, len(server.paths)) == (5, 1, 6)
        assert not any("old" in str(path) for path in (tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("status", [204, 404, 410])
def test_a_missing_tile_is_remembered(tmp_path: Path, status: int) -> None:
    with serving(lambda path: (status, {}, b"")) as server:
        assert client(tmp_path).fetch(urls(server, 2)) == dict.fromkeys(urls(server, 2), b"")
        assert client(tmp_path).fetch(urls(server, 2)) == dict.fromkeys(urls(server, 2), b"")
        assert len(server.paths) == 2


def test_what_is_sent(tmp_path: Path) -> None:
    answer = (200, {"Content-Type": "image/png", "Set-Cookie": "id=1"}, PNG)
    with serving(lambda path: answer) as server:
        client(tmp_path, connections=1, user_agent="Ada, ada@example.org").fetch(urls(server, 3))
        names = {name.lower() for headers in server.headers for name in headers}
        assert {headers["User-Agent"] for headers in server.headers} == {"Ada, ada@example.org"}
    assert names == {"host", "accept", "accept-encoding", "connection", "user-agent"}


def test_retry_after_is_obeyed_by_all_requests(tmp_path: Path) -> None:
    def answer(path: str) -> Answer:
        return OK if len(server.paths) > 1 else (429, {"Retry-After": "1"}, b"")

    with serving(answer) as server:
        patient = client(tmp_path, connections=1)
        patient.fetch(urls(server, 3))
    assert server.times[1] - server.times[0] > 0.9
    assert (patient.requests, patient.repeated, len(server.times)) == (4, 1, 4)


@pytest.mark.parametrize(
    ("status", "headers", "asked", "shown"),
    [
        (429, {"Retry-After": "3600"}, 1, "429.*wait for 3,600 s"),
        (429, {}, 3, r"429 Too Many Requests \(3 attempts\)"),
        (503, {"Retry-After": "429"}, 1, "503.*wait for 429 s"),
    ],
)
def test_a_busy_server_ends_the_work(
    tmp_path: Path, status: int, headers: dict[str, str], asked: int, shown: str
) -> None:
    with (
        serving(lambda path: (status, headers, b"")) as server,
        pytest.raises(ServiceError, match=shown) as failed,
    ):
        client(tmp_path, connections=1).fetch(urls(server, 4))
    assert len(server.paths) == asked
    assert ("--per-second" in failed.value.remedy) == (status == 429)


def test_a_server_that_breaks_off_the_tls_handshake(tmp_path: Path) -> None:
    def break_off(server: socket.socket) -> None:
        for _ in range(3):
            with server.accept()[0] as connection:
                connection.recv(2**16)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=break_off, args=[server], daemon=True).start()
        with pytest.raises(ServiceError, match=r"EOF.*\(3 attempts\)"):
            client(tmp_path).fetch([f"https://127.0.0.1:{server.getsockname()[1]}/0.png"])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_ends_the_work_and_keeps_what_was_received(tmp_path: Path, status: int) -> None:
    def answer(path: str) -> Answer:
        refused = (status, {"Content-Type": "text/html"}, b"<title>No key</title><p>x</p>")
        return refused if path == "/3.png" else OK

    with serving(answer) as server:
        with pytest.raises(ServiceError, match=f'{status}: access is refused: "No key"'):
            client(tmp_path, connections=1).fetch(urls(server, 6))
        # Nothing is requested after the refusal.
        assert server.paths == ["/0.png", "/1.png", "/2.png", "/3.png"]
        server.answer = lambda path: OK
        resumed = client(tmp_path)
        assert set(resumed.fetch(urls(server, 6)).values()) == {PNG}
        assert resumed.requests == 3


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", 'image: "Sign in"'),
        (b"<ServiceException>LayerNotDefined: x</ServiceException>", "LayerNotDefined: x"),
        (b'{"detail": "quota used up"}', "quota used up"),
        (b"\x00\x01\x02\x03", "in place of an image"),
    ],
)  # fmt: skip
def test_text_in_place_of_a_tile(tmp_path: Path, body: bytes, shown: str) -> None:
    with (
        serving(lambda path: (200, {"Content-Type": "text/html"}, body)) as server,
        pytest.raises(ServiceError, match=shown),
    ):
        client(tmp_path).fetch(urls(server, 1))


def test_a_server_that_hangs(tmp_path: Path) -> None:
    release = threading.Event()

    def answer(path: str) -> Answer:
        release.wait(60)
        return OK

    with serving(answer) as server:
        with pytest.raises(ServiceError, match=r"sent nothing for 0\.2 seconds \(2 attempts\)"):
            client(tmp_path, attempts=2, timeout_s=0.2).fetch(urls(server, 1))
        release.set()


def test_a_certificate_that_no_authority_signed(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    file, context = certificate(tmp_path)
    with serving(lambda path: OK) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address = [f"https://127.0.0.1:{server.server_port}/0.png"]
        with pytest.raises(ServiceError, match="certificate verify failed: self") as failed:
            client(tmp_path).fetch(address)
        assert "SSL_CERT_FILE" in failed.value.remedy
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(file))
            with remote._client.__wrapped__(0) as fresh:
                patch.setattr(remote, "_client", lambda _: fresh)
                assert client(tmp_path).fetch(address) == {address[0]: PNG}
            patch.setenv("SSL_CERT_FILE", "gone.pem")
            with pytest.raises(ConfigError, match=r"gone\.pem, cannot be read: No such file"):
                remote.known_authorities()


def test_requests_at_a_time_and_per_second(tmp_path: Path) -> None:
    def answer(path: str) -> Answer:
        time.sleep(0.03)
        return OK

    with serving(answer) as server:
        started = time.monotonic()
        one = client(tmp_path, connections=3, per_second=30.0)
        one.fetch([f"{server.url}/{i}" for i in range(30)])
        seconds = time.monotonic() - started
        assert len(server.paths) == 30
        assert server.most_running <= 3
        # The first one starts at once, the other 29 at 30 per second.
        assert seconds > 0.95


def test_the_cache_is_limited(tmp_path: Path) -> None:
    bodies = {f"/{i}.png": PNG + bytes(10_000) for i in range(20)}
    with serving(lambda path: (200, {}, bodies[path])) as server:
        small = client(tmp_path, cache_bytes=50_000)
        for url in urls(server, 20):
            small.fetch([url])
        files = [path for path in (tmp_path / "cache").glob("??/*") if path.is_file()]
        assert 30_000 < sum(path.stat().st_size for path in files) <= 50_000
        # What was used last is kept.
        small.fetch(urls(server, 20)[-2:])
        assert len(server.paths) == 20


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of a certificate of 127.0.0.1 that no authority signed, and its server."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, host = datetime.now(UTC), ip_address("127.0.0.1")
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(host)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    file = folder / "tls.pem"
    file.write_bytes(
        made.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context
