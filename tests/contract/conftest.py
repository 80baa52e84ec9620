"""One Label Studio server for all tests that need it, because it takes long to start."""

from collections.abc import Iterator

import pytest
from labelstudio_server import TOKEN, Server, running_server


@pytest.fixture(scope="session")
def _labelstudio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("labelstudio")) as server:
        yield server


@pytest.fixture
def labelstudio(_labelstudio: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Return the server, with its token in the environment."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return _labelstudio
