"""What the API does is what its OpenAPI description says, whatever is sent."""

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
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from rooftrace.engines.base import PointwiseEngine  # noqa: E402
from rooftrace.engines.selftest import tiny_bundle  # noqa: E402
from rooftrace.predict.predictor import Predictor  # noqa: E402
from rooftrace.rest import create_api  # noqa: E402
from rooftrace.service.limits import Limits  # noqa: E402
from rooftrace.service.service import Service  # noqa: E402


@asynccontextmanager
async def _kept(app: FastAPI) -> AsyncIterator[None]:
    """Each case begins and ends the app; the service outlives them."""
    yield


# Operations are collected as tests from it; its decoders are started by the first that decodes.
SERVICE = Service(Predictor(tiny_bundle(), PointwiseEngine()), Limits(seconds=20))
schema = schemathesis.openapi.from_asgi("/openapi.json", create_api(SERVICE, lifespan=_kept))

for _kind in ("image/tiff", "image/webp", "image/jp2"):
    schemathesis.serializer.alias(_kind, "application/octet-stream")


def _encoded(ending: str) -> st.SearchStrategy[bytes]:
    """Small images, and now and then one that is cut off."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    whole = cv2.imencode(ending, pixels)[1].tobytes()
    return st.sampled_from([whole, whole, whole[: len(whole) // 2]])


for _ending in ("png", "jpeg"):
    schemathesis.openapi.media_type(f"image/{_ending}", _encoded(f".{_ending}"))


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    SERVICE.warm()
    yield
    SERVICE.close()


@schema.parametrize()
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_answers_are_those_that_are_described(case) -> None:
    # Any bytes are a body by the description, but few are an image: those are refused with a 422,
    # which is described.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])


def test_answers_of_all_kinds_were_among_them() -> None:
    """Else what was held against the description would be refusals alone."""
    text = TestClient(schema.app).get("/metrics").text
    seen = set(re.findall(r'route="/v1/predict",status="(\d+)"', text))
    assert {"200", "405", "415", "422"} <= seen
    assert "500" not in seen
