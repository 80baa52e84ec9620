"""Clients of a service whose network returns the brightness of a pixel."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from rest_service import fake_service
from rooftrace.engines.base import PointwiseEngine
from rooftrace.rest.api import create_api
from rooftrace.service.service import Service


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    made = fake_service()
    made.warm()
    yield made
    made.close()


@pytest.fixture(scope="package")
def client(service: Service) -> TestClient:
    """Return a client of an API without a key. Its lifespan does not run: the service is warm."""
    return TestClient(create_api(service), raise_server_exceptions=False)


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """Return a function that creates clients of further services; they are closed at the end."""
    made: list[Service] = []

    def build(
        engine: PointwiseEngine | None = None, *, warm: bool = False, **limits: Any
    ) -> TestClient:
        made.append(fake_service(engine, **limits))
        if warm:
            made[-1].warm()
        return TestClient(create_api(made[-1]), raise_server_exceptions=False)

    yield build
    for one in made:
        one.close()
