"""The API behaves as its OpenAPI description says, for any request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

schemathesis = pytest.importorskip("schemathesis")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schema_tests import operation_tests  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from rooftrace.engines.base import PointwiseEngine  # noqa: E402
from rooftrace.flows.doctor import tiny_bundle  # noqa: E402
from rooftrace.predict.predictor import Predictor  # noqa: E402
from rooftrace.rest import create_api  # noqa: E402
from rooftrace.service.decode import Limits  # noqa: E402
from rooftrace.service.service import Service  # noqa: E402

pytestmark = pytest.mark.campaign


@asynccontextmanager
async def _kept(app: FastAPI) -> AsyncIterator[None]:
    """Keep the service open: each case starts and stops the app."""
    yield


# Schemathesis collects its tests from the app. The first image starts the decoders.
SERVICE = Service(Predictor(tiny_bundle(), PointwiseEngine()), Limits(seconds=20))
schema = schemathesis.openapi.from_asgi("/openapi.json", create_api(SERVICE, lifespan=_kept))


def _encoded(ending: str) -> st.SearchStrategy[bytes]:
    """Return a strategy of small images, some of them truncated."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    whole = cv2.imencode(ending, pixels)[1].tobytes()
    return st.sampled_from([whole, whole, whole[: len(whole) // 2]])


IMAGES = _encoded(".png") | _encoded(".jpeg")
schemathesis.openapi.format("binary", IMAGES)
schemathesis.openapi.media_type("application/octet-stream", IMAGES)


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    SERVICE.warm()
    yield
    SERVICE.close()


def check_response(case) -> None:
    # The description allows any bytes as a body, but few are an image. The others get a 422, which
    # is described.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])


OPTIONS = settings(max_examples=40, suppress_health_check=list(HealthCheck))
globals().update(operation_tests(schema, check_response, OPTIONS))


def test_all_kinds_of_responses_were_seen() -> None:
    """Check that not only refusals were compared with the description."""
    text = TestClient(schema.app).get("/metrics").text
    seen = set(re.findall(r'route="/v1/predict",status="(\d+)"', text))
    assert {"200", "405", "415", "422"} <= seen
    assert "500" not in seen
