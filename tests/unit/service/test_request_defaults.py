"""Input options of a server apply to requests that do not have their own."""

from __future__ import annotations

import pytest

from rooftrace.predict.plan import SceneOptions
from rooftrace.service.service import RequestDefaults


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
