"""Vector tiles: their contents, and the encoder against the specification and GDAL's reader."""

import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.app.map import outlines as module
from rooftrace.app.map.outlines import LayerTable, Outlines, VectorTiles, encode_tile, read_outlines
from rooftrace.app.map.place import Place
from rooftrace.app.map.results import read_results
from rooftrace.app.map.scene import MapScene
from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.io.vector_write import write_footprints
from rooftrace.io.web_mercator import WORLD_M, TileName, web_mercator

ZOOM = 15
SIDE_M = WORLD_M / 2**ZOOM
TILE = TileName(ZOOM, 2**14, 2**14)
"""Tile whose upper left corner is the middle of the map."""

UNIT_M = SIDE_M / 4096


def outlines_of(polygons: list[shapely.Polygon], folder: Path, scores=None, sizes=None) -> Outlines:
    """Return the outlines of polygons in EPSG:3857."""
    n = len(polygons)
    path = folder / "a_buildings.gpkg"
    write_footprints(
        path,
        Footprints(
            np.array(polygons, np.object_),
            np.full(n, 0.5, np.float32) if scores is None else np.array(scores, np.float32),
            np.full(n, 10.0) if sizes is None else np.array(sizes, float),
            web_mercator(),
        ),
    )
    grid = GeoGrid((4096, 4096), Affine(UNIT_M, 0, 0, 0, -UNIT_M, 0), web_mercator())
    return read_outlines(LayerTable(path).table(), Place(grid))


def in_units(*bounds: float) -> shapely.Polygon:
    """A rectangle by left, top, right, bottom in the units of `TILE`."""
    left, top, right, bottom = (value * UNIT_M for value in bounds)
    return shapely.box(left, -bottom, right, -top)


def read(data: bytes, folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    path = folder / "tile.mvt"
    path.write_bytes(data)
    meta, _, wkb, columns = pyogrio.raw.read(f"MVT:{path}", CLIP="NO")
    made = shapely.transform(
        shapely.from_wkb(wkb), lambda xy: np.stack([xy[:, 0], 4096 - xy[:, 1]], axis=1)
    )
    return dict(zip(map(str, meta["fields"]), columns)), made


def test_a_building_where_it_is(tmp_path: Path) -> None:
    outlines = outlines_of([in_units(100, 200, 160, 240)], tmp_path, [0.725], [12.34])
    columns, (made,) = read(VectorTiles(outlines).buildings(TILE), tmp_path)
    assert shapely.equals(made, shapely.box(100, 200, 160, 240))
    assert (columns["score"].item(), columns["size"].item()) == (725, 123)
    assert VectorTiles(outlines).buildings(TileName(ZOOM, 2**14, 2**14 + 1)) == b""


def test_what_is_larger_than_the_tile_is_clipped(tmp_path: Path) -> None:
    whole = in_units(-20_000, -20_000, 30_000, 30_000)
    yard = in_units(1000, 1000, 2000, 2000)
    outlines = outlines_of([shapely.difference(whole, yard)], tmp_path)
    _, (made,) = read(VectorTiles(outlines).buildings(TILE), tmp_path)
    expected = shapely.box(-64, -64, 4160, 4160) - shapely.box(1000, 1000, 2000, 2000)
    assert shapely.equals(made, expected)


def test_tiny_buildings_do_not_vanish(tmp_path: Path) -> None:
    places = np.arange(10) * 100.0 + 10
    polygons = [in_units(at, at, at + 0.3, at + 0.2) for at in places]
    _, made = read(VectorTiles(outlines_of(polygons, tmp_path)).buildings(TILE), tmp_path)
    assert len(made) == 10
    assert (shapely.area(made) >= 4).all()
    centres = shapely.get_coordinates(shapely.centroid(made))
    assert np.abs(np.sort(centres[:, 0]) - places).max() <= 2


@pytest.mark.parametrize("seed", range(3))
def test_tiles_together_show_all(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    polygons = []
    for x, y, size, angle in rng.uniform((0, 0, 20, 0), (8192, 8192, 300, 3), (60, 4)):
        square = shapely.affinity.rotate(
            in_units(x, y, x + size, y + size), angle, use_radians=True
        )
        hole = shapely.affinity.scale(square, 0.4, 0.4)
        polygons.append(shapely.difference(square, hole))
    made = VectorTiles(outlines_of(polygons, tmp_path))
    for col, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        _, found = read(made.buildings(TileName(ZOOM, 2**14 + row, 2**14 + col)), tmp_path)
        tile = shapely.box(0, 0, 4096, 4096)
        shown = shapely.area(shapely.intersection(found, tile)).sum()
        local = shapely.transform(
            np.array(polygons),
            lambda xy, col=col, row=row: xy / (UNIT_M, -UNIT_M) - (col * 4096, row * 4096),
        )
        expected = shapely.area(shapely.intersection(local, tile)).sum()
        assert shown == pytest.approx(expected, rel=0.01)
        assert shapely.is_valid(found).all()


def many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> VectorTiles:
    """400 buildings, read in parts, where a tile may have no more than 60."""
    monkeypatch.setattr(module, "MOST_FEATURES", 60)
    monkeypatch.setattr(module, "_AT_ONCE", 150)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 4000, (400, 2))
    polygons = [in_units(x, y, x + 20, y + 20) for x, y in corner]
    return VectorTiles(outlines_of(polygons, folder, np.linspace(0, 1, 400), np.arange(400.0)))


def test_single_buildings_begin_where_a_tile_holds_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = many(tmp_path, monkeypatch)
    assert ZOOM < made.first_zoom <= ZOOM + 4
    # From farther away a sample covers as much ground.
    _, found = read(made.buildings(TileName(ZOOM - 4, 2**10, 2**10)), tmp_path)
    assert len(found) < 60
    assert shapely.area(found).sum() == pytest.approx(400 * (20 / 16) ** 2, rel=0.1)
    columns, _ = read(made.buildings(TILE), tmp_path)
    # The largest.
    assert sorted(columns["size"].tolist()) == [size * 10 for size in range(340, 400)]
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    assert 0 < len(made.buildings(TILE)) <= 1000


triangles = st.lists(
    st.tuples(
        st.integers(-64, 4000), st.integers(-64, 4000), st.integers(1, 160), st.integers(1, 160)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(triangles, st.integers(0, 2**33))
def test_gdal_reads_what_was_meant(corners: list[tuple[int, int, int, int]], base: int) -> None:
    polygons = shapely.polygons([[(x, y), (x + w, y), (x + w, y + h)] for x, y, w, h in corners])
    number = np.arange(len(polygons))
    ids = number * 1000 + base % 2**31
    values = number * 7 + base
    with tempfile.TemporaryDirectory() as folder:
        columns, made = read(
            encode_tile("layer", polygons, number, ids, {"one": values, "two": values % 3}),
            Path(folder),
        )
    assert columns["mvt_id"].tolist() == ids.tolist()
    assert columns["one"].tolist() == values.tolist()
    assert columns["two"].tolist() == (values % 3).tolist()
    assert shapely.equals(made, polygons).all()


def test_a_layer_with_heights_is_a_scene_of_its_own(tmp_path: Path) -> None:
    layer = gpd.GeoDataFrame(
        {"height": [4.24, np.nan, 9.0], "floors": [1, None, 3]},
        geometry=[shapely.box(x, 0, x + 10, 10).buffer(0) for x in (0, 20, 40)],
        crs=3857,
    )
    layer.astype({"floors": "Int64"}).to_file(tmp_path / "town_heights.gpkg")
    (files,) = read_results(tmp_path).images.values()
    scene = MapScene(files, None)
    assert scene.vectors is not None
    assert scene.describe()["buildings"]["heights"][4] == pytest.approx(9, abs=0.3)
    tile = TileName(16, (1 << 15) - 1, 1 << 15)
    attributes, _ = read(scene.vectors.buildings(tile), tmp_path)
    assert sorted(attributes["height"].tolist()) == [0, 42, 90]
    described = [scene.vectors.outlines.attributes(row) or {} for row in range(3)]
    assert [one["floors"] for one in described] == [1, None, 3]
