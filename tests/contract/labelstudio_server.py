"""A real Label Studio server for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-labelstudio"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL, PASSWORD = "ann@example.com", "not-a-secret-1"
START_S = 240

needs_server = pytest.mark.skipif(
    not (ENVIRONMENT / "bin" / "label-studio").is_file(),
    reason="no Label Studio server: .venv-labelstudio is made by `make labelstudio`",
)


@dataclass(frozen=True)
class Server:
    """A running server.

    Args:
        url: Address on which it listens.
        files: Document root.
        log: Log file.
    """

    url: str
    files: Path
    log: Path

    def call(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """Send a request as a person's browser would between push and pull."""
        request = Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        with urlopen(request, timeout=120) as response:
            content = response.read()
        return json.loads(content) if content else None


@contextmanager
def running_server(home: Path) -> Iterator[Server]:
    """Run a separate server that stores everything in a folder."""
    (home / "files").mkdir()
    empty = ENVIRONMENT / "empty" / "label_studio.sqlite3"
    if empty.is_file():  # else the server makes one, which takes half a minute
        shutil.copy(empty, home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR")}
    environment = kept | {
        "HOME": str(home),
        "LABEL_STUDIO_BASE_DATA_DIR": str(home),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(home / "files"),
        # Its ML backends and their webhooks may have addresses of this machine.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [
        str(ENVIRONMENT / "bin" / "label-studio"), "start", "--no-browser",
        "--internal-host", "127.0.0.1", "-p", str(port), "--username", EMAIL,
        "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token",
    ]  # fmt: skip
    with (home / "log").open("wb") as log:
        # A separate process group, so that stopping it leaves no process behind.
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() > deadline:
                log_text = (home / "log").read_text(errors="replace")[-3000:]
                pytest.fail(f"Label Studio did not start (exit {process.returncode}):\n{log_text}")
            time.sleep(0.5)
        yield Server(url, home / "files", home / "log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


def _is_up(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=10) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
