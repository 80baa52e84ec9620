"""A server in place of Label Studio."""

from collections.abc import Iterator

import pytest

from fake_labelstudio import FakeServer
from local_server import running


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running(FakeServer()) as server:
        yield server
