import numpy as np
import pytest
import shapely

from rooftrace.vector import footprints as module
from rooftrace.vector.footprints import minimum_rectangles


@pytest.mark.parametrize("at_once", [1 << 21, 100])
def test_the_smallest_rectangle_is_no_larger_than_that_of_any_direction(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(rng.integers(3, 30), 2)) * [9, 4] + 1e5 for _ in range(60)]
    polygons = shapely.convex_hull(np.array([shapely.multipoints(cloud) for cloud in clouds]))
    lengths, widths, angles = minimum_rectangles(polygons)
    assert (lengths >= widths).all()
    for polygon, area, angle, length in zip(polygons, lengths * widths, angles, lengths):
        turned = shapely.affinity.rotate(polygon, -angle, use_radians=True)
        left, top, right, bottom = turned.bounds
        assert (right - left, (right - left) * (bottom - top)) == pytest.approx((length, area))
        others = [
            shapely.box(*shapely.affinity.rotate(polygon, degrees).bounds).area
            for degrees in range(0, 90, 3)
        ]
        assert area <= min(others) * (1 + 1e-9)


def test_an_empty_array_has_no_rectangles() -> None:
    assert [*map(len, minimum_rectangles(np.zeros(0, np.object_)))] == [0, 0, 0]
