"""True changes that were made by hand in a real layer are found, each as such."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import affinity, box

from rooftrace.flows.compare.options import CompareOptions
from rooftrace.flows.compare.run import run_compare

COUNT = 10
"""Number of changes of each kind."""


@pytest.mark.realdata
@pytest.mark.parametrize("place", ["nairobi", "zanzibar"])
def test_changes_made_in_a_real_layer_are_found(realdata: Path, tmp_path: Path, place: str) -> None:
    labels = gpd.read_file(realdata / "oam" / place / "labels.geojson")
    metres = labels.to_crs(labels.estimate_utm_crs())
    houses = shapely.make_valid(metres.geometry.to_numpy())
    # Only houses that stand alone are changed, so that a change of one is none of another.
    near = shapely.STRtree(houses).query(houses, predicate="dwithin", distance=6)
    alone = np.flatnonzero((np.bincount(near[0]) == 1) & (shapely.area(houses) > 30))
    alone = alone[: 4 * COUNT]
    assert len(alone) == 4 * COUNT
    _, moved, divided, extended = alone.reshape(4, COUNT)
    new = [house for index, house in enumerate(houses) if index not in set(alone.tolist())]
    new += [affinity.translate(houses[index], 4, 3) for index in moved]
    for index in divided:
        house, middle = houses[index], houses[index].centroid
        half = box(middle.x - 500, middle.y - 500, middle.x, middle.y + 500)
        new += [house & half, house - half]
    new += [shapely.buffer(houses[index], 3.5, join_style="mitre") for index in extended]
    left, bottom, right, top = shapely.total_bounds(houses)
    free = [box(x, y, x + 8, y + 8) for x in np.arange(left, right, 25.0)
            for y in np.arange(bottom, top, 25.0)]  # fmt: skip
    tree = shapely.STRtree(houses)
    added = [one for one in free if not len(tree.query(one.buffer(12)))][:COUNT]
    new += added
    path = tmp_path / "new.gpkg"
    gpd.GeoDataFrame(geometry=new, crs=metres.crs).to_file(path)
    area = tmp_path / "area.gpkg"
    frame = box(left - 50, bottom - 50, right + 50, top + 50)
    gpd.GeoDataFrame(geometry=[frame], crs=metres.crs).to_file(area)
    report = run_compare(
        path, realdata / "oam" / place / "labels.geojson", tmp_path / "out",
        CompareOptions(area=area),
    )  # fmt: skip
    assert report.offset is None or report.offset.length_m < 0.1
    found = {row.status: (row.new, row.old) for row in report.table}
    assert found["new"] == (COUNT, 0)
    assert found["gone"] == (0, COUNT)
    assert found["moved"] == (COUNT, COUNT)
    assert found["split"] == (2 * COUNT, COUNT)
    assert found["changed"] == (COUNT, COUNT)
    assert found["outside"] == (0, 0)
    sides = gpd.read_file(tmp_path / "out" / "compare.gpkg").to_crs(metres.crs)
    was_moved = sides[(sides.side == "new") & (sides.status == "moved")]
    np.testing.assert_allclose(was_moved.offset_m, 5, atol=0.02)
    was_changed = sides[(sides.side == "old") & (sides.status == "changed")]
    centres = shapely.centroid(houses[extended])
    distance = [was_changed.geometry.distance(centre).min() for centre in centres]
    assert max(distance) == 0
