"""Input options of a server apply to requests that do not have their own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.nodata import NodataRule
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.service import RequestDefaults, Service


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("3,2,1", "0,200", 0.3, None)),
        (SceneOptions(gsd_m=0.1), ("3,2,1", "0,200", 0.1, None)),
        (SceneOptions(scale=0.5), ("3,2,1", "0,200", None, 0.5)),
        (SceneOptions(bands="1,2,3", stretch="none"), ("1,2,3", "none", 0.3, None)),
        (SceneOptions(stretch="auto"), ("3,2,1", "auto", 0.3, None)),
    ],
)
def test_a_request_goes_before_the_server(
    given: SceneOptions | None, expected: tuple[object, ...]
) -> None:
    defaults = RequestDefaults(SceneOptions(bands="3,2,1", stretch="0,200", gsd_m=0.3))
    found = defaults.filled(given)
    assert (found.bands, found.stretch, found.gsd_m, found.scale) == expected


@pytest.mark.campaign
def test_an_upload_is_read_with_them() -> None:
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[:32, :32] = 7
    data = cv2.imencode(".png", pixels)[1].tobytes()
    defaults = RequestDefaults(SceneOptions(stretch="0,100"), NodataRule(7))
    service = Service(Predictor(tiny_bundle(), PointwiseEngine()), defaults=defaults)
    try:
        brighter = service.predict(data, "a.png")
        assert (brighter.mask.data[32:] == 1).all()
        assert not brighter.mask.valid[:32, :32].any()
        own = service.predict(data, "a.png", SceneOptions(stretch="none"))
        assert (own.mask.data[32:] == 0).all()
    finally:
        service.close()
