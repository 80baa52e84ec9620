"""A transformation that would leave out the change of datum goes over another system.

Seen with PROJ 9.5.1: outside Canberra it has no operation from AGD66 to GDA2020.
"""

import re

import numpy as np
import pytest
from affine import Affine
from pyproj import CRS
from shapely import box

from rooftrace.core.types import GeoGrid
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.reproject import epsg_of, missing_grid, transform_points

OSTN15 = "uk_os_OSTN15_NTv2_OSGBtoETRS.tif"
SYDNEY, CANBERRA = (334000.0, 6250000.0), (690000.0, 6090000.0)


@pytest.mark.parametrize(
    ("source", "target", "xy", "shift"),
    [
        (20255, 7855, CANBERRA, 217),
        # Over GDA94: PROJ's own way leaves 207 m of it out.
        (20256, 7856, SYDNEY, 218),
        (7856, 20256, SYDNEY, 218),
        (20256, 28356, SYDNEY, 217),
        # The realisations of NAD83 differ by less than 2 m, without an operation between them.
        (2263, 6539, (990000.0, 200000.0), 0),
        # No way leads from a datum that is not named.
        ("+proj=utm +zone=33 +ellps=GRS80", 32633, (500000.0, 5.4e6), 0),
        ("+proj=utm +zone=33 +ellps=bessel", 32633, (500000.0, 5.4e6), 552),
    ],
)
def test_points_move_by_the_change_of_datum(
    source: int | str, target: int, xy: tuple[float, float], shift: float
) -> None:
    outside = np.full((1, 2), np.inf)
    points = np.concatenate([outside, [xy], outside])
    made = transform_points(points, CRS(source), CRS(target))[1]
    assert np.hypot(*(made - xy)) == pytest.approx(shift, abs=8)


@pytest.mark.parametrize(
    ("source", "target", "bounds", "grid"),
    [
        (27700, 32630, (530_000, 180_000, 531_000, 181_000), OSTN15),
        (4326, 27700, (-0.1, 51.5, -0.09, 51.51), OSTN15),
        (25830, 27700, (701_000, 5_710_000, 702_000, 5_711_000), OSTN15),
        (3035, 27700, (3_610_000, 3_200_000, 3_611_000, 3_201_000), OSTN15),
        # 0.2 m, or 0.01 m with a grid.
        (25831, 31370, (597_000, 5_632_000, 598_000, 5_633_000), None),
        (4267, 32613, (-105, 39.7, -104.9, 39.8), "us_noaa_conus.tif"),
        (32633, 4326, (500_000, 5_000_000, 500_010, 5_000_010), None),
        (32633, 32633, (500_000, 5_000_000, 500_010, 5_000_010), None),
        ("+proj=utm +zone=33 +ellps=GRS80", 32633, (500_000, 5_000_000, 500_010, 5_000_010), None),
    ],
)
def test_a_better_operation_whose_grid_is_missing_is_noted(
    source: int | str, target: int, bounds: tuple[float, float, float, float], grid: str | None
) -> None:
    notes = missing_grid(CRS(source), CRS(target), bounds)
    assert len(notes) == (grid is not None)
    if grid is not None:
        assert re.search(rf"accurate to about \d m; .*: pyproj sync .*--file {grid}$", notes[0])


@pytest.mark.parametrize(
    ("text", "code"),
    [("+proj=utm +zone=36 +ellps=clrk80", None), ("+proj=utm +zone=32 +ellps=GRS80", 25832),
     (CRS(31468).to_wkt("WKT1_ESRI"), 31468), ("+proj=utm +zone=36 +datum=WGS84", 32636)],
)  # fmt: skip
def test_a_system_without_a_datum_has_no_code_and_a_note(text: str, code: int | None) -> None:
    assert epsg_of(CRS(text)) == code
    notes = missing_grid(CRS(text), CRS(4326), (500_000, 5e6, 500_010, 5e6 + 10))
    assert ["hundreds of metres" in note for note in notes] == [True] * (code is None)


def test_an_area_of_another_datum_has_the_note() -> None:
    grid = GeoGrid((10, 10), Affine(1, 0, 699_000, 0, -1, 5_710_000), CRS.from_epsg(32630))
    area = Area(np.array([box(530_000, 180_000, 531_000, 181_000)]), CRS.from_epsg(27700), "area")
    source = AreaSource(ArraySource(np.zeros((3, 10, 10), np.uint8), grid), area)
    assert OSTN15 in source.notes[0]
