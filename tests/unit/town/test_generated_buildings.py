"""Buildings of generated scenes: their shapes, angles and distances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

from town.buildings import MATERIALS, Building, Sun, Wing, draw_building
from town.canvas import Canvas, noise

SUN = Sun((0.6, 0.8), 0.8)


def _draw(building, gsd_m=0.3, shape_yx=(120, 140)):
    canvas = Canvas(shape_yx, gsd_m, (0, 0, 0))
    rng = np.random.Generator(np.random.PCG64(1))
    draw_building(canvas, building, SUN, noise(rng, (512, 512), [1, 8]), rng)
    return canvas


@settings(deadline=None, max_examples=25)
@given(
    angle=st.floats(-3.1, 3.1),
    x=st.floats(17, 24),
    y=st.floats(15, 21),
    roof=st.sampled_from(["gable_u", "gable_v", "hip", "flat", "shed", "cone"]),
    material=st.sampled_from(sorted(MATERIALS)),
)
def test_a_roof_is_drawn_where_its_footprint_lies(angle, x, y, roof, material):
    wings = [Wing(-5, -5, 5, 5, roof)]
    if roof != "cone":
        wings.append(Wing(-5, -5, -1, 9, roof))
    building = Building((x, y), angle, tuple(wings), material)
    canvas = _draw(building)
    drawn = canvas.height > 0
    pixels = building.footprint()
    truth = rasterize([pixels], canvas.shape_yx, transform=(0.3, 0, 0, 0, 0.3, 0)).astype(bool)
    edge_px = pixels.length / 0.3
    # They may differ in a few pixels that the outline crosses (up to 0.14 of them for a cone, whose
    # outline is never axis-parallel). A shift by half a pixel would make it 0.3.
    assert np.sum(drawn != truth) < 0.2 * edge_px
    for axis in (0, 1):
        middle = [np.nonzero(m)[axis].mean() for m in (drawn, truth)]
        assert middle[0] == pytest.approx(middle[1], abs=0.15)


def test_coverage_at_the_edge_is_the_share_of_the_pixel():
    white = Building((20.0, 20.0), 0.0, (Wing(-6.0, -6.0, 6.1, 6.0, "flat", 0.0),), "white")
    row = _draw(white, shape_yx=(140, 140)).rgba[66, :, 1].astype(float)
    inner = row[60:70].mean()
    # The right edge lies at 26.1 m, exactly 87 pixels; the left one at 14 m, 46.67 pixels.
    assert row[86] > 0.8 * inner
    assert row[87] == 0
    assert row[46] == pytest.approx(inner / 3, rel=0.25)


@pytest.mark.parametrize("pitch", [0.2, 0.5])
def test_the_side_towards_the_sun_is_brighter(pitch):
    to_sun, level, away = (SUN.shade(way, pitch) for way in ((0.6, 0.8), (0.8, -0.6), (-0.6, -0.8)))
    assert to_sun > level > away > 0.4
    assert SUN.shade((0.6, 0.8), 0.0) == pytest.approx(1.0)


def test_two_planes_of_a_gable_differ():
    house = Building((20.0, 18.0), math.pi / 2, (Wing(-8, -5, 8, 5, "gable_u", 0.5),), "grey")
    green = _draw(house).rgba[..., 1].astype(float)
    assert abs(green[60, 52:64].mean() - green[60, 70:82].mean()) > 15
