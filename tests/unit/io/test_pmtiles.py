"""Buildings as PMTiles, read again with GDAL."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS, Transformer
from shapely import affinity

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Footprints
from rooftrace.io import pmtiles
from rooftrace.io.pmtiles import sample, tile_zooms
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.io.vector_write import write_footprints, write_layer, write_polygons
from rooftrace.io.vector_writers import LayerChunk, LayerSettings

UTM = CRS(32737)
MERCATOR = CRS(3857)


def town(count: int, seed: int = 0, least_m: float = 3) -> Footprints:
    """Return turned rectangles, the smaller side of which is at least `least_m`."""
    rng = np.random.default_rng(seed)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    xy = corners * rng.uniform(least_m, 14, (count, 1, 2))
    turn = rng.uniform(0, 2 * np.pi, (count, 1))
    x = xy[..., 0] * np.cos(turn) - xy[..., 1] * np.sin(turn)
    y = xy[..., 0] * np.sin(turn) + xy[..., 1] * np.cos(turn)
    place = np.stack([np.arange(count) % 40, np.arange(count) // 40], axis=1) * 20.0
    placed = np.stack([x, y], axis=2) + place[:, None] + (500_000, 9_800_000)
    geometry = np.asarray(shapely.polygons(placed), object)
    score = rng.random(count, np.float32)
    return Footprints(geometry, score, shapely.area(geometry).astype(np.float64), UTM)


def read(path: Path, **options: Any) -> dict[str, Any]:
    """Return attributes and `geometry` of the highest zoom, or of another with ZOOM_LEVEL."""
    meta, _, geometry, data = pyogrio.raw.read(path, **options)
    return {**dict(zip(meta["fields"], data)), "geometry": shapely.from_wkb(geometry)}


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()[:127]
    names = ("kind", "lowest", "highest", "west", "south", "east", "north")
    assert data[:8] == b"PMTiles\3"
    values = struct.unpack_from("<BBBiiii", data, 99)
    return {**dict(zip(names, values)), "clustered": data[96]}


def test_all_buildings_are_in_the_tiles_with_their_attributes(tmp_path: Path) -> None:
    given, path = town(300), tmp_path / "town.pmtiles"
    assert write_footprints(path, [given], gsd_m=0.5) == ()
    assert [file.name for file in tmp_path.iterdir()] == ["town.pmtiles"]
    found = read(path)
    ids, first = np.unique(found["id"], return_index=True)
    np.testing.assert_array_equal(ids, np.arange(1, 301))
    np.testing.assert_allclose(found["score"][first], given.score, atol=6e-4)
    np.testing.assert_allclose(found["area_m2"][first], given.area_m2, atol=0.0501)
    assert pyogrio.list_layers(path)[0, 0] == "town"
    # Pieces of a building in two tiles are put together; a unit is at most half a metre.
    move = Transformer.from_crs(UTM, MERCATOR, always_xy=True).transform
    for number in range(1, 301):
        pieces = shapely.union_all(shapely.buffer(found["geometry"][found["id"] == number], 0.01))
        exact = shapely.transform(given.geometry[number - 1], lambda xy: np.stack(move(*xy.T), 1))
        assert shapely.hausdorff_distance(pieces, exact) < 0.75


def test_a_sample_stands_for_all_where_tiles_would_be_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmtiles, "_MOST_IN_TILE", 100)
    monkeypatch.setattr(pmtiles, "_MOST_SAMPLED", 60)
    given, path = town(1600), tmp_path / "town.pmtiles"
    write_footprints(path, [given], gsd_m=0.5)
    assert [file.name for file in tmp_path.iterdir()] == ["town.pmtiles"]
    found = header(path)
    assert (found["kind"], found["clustered"]) == (1, 1)
    assert (found["lowest"], found["highest"]) == (13, 15)
    move = Transformer.from_crs(UTM, 4326, always_xy=True).transform_bounds
    bounds = [found[name] / 1e7 for name in ("west", "south", "east", "north")]
    np.testing.assert_allclose(bounds, move(*shapely.total_bounds(given.geometry)), atol=2e-6)
    for zoom in range(13, 16):
        tiles = read(path, ZOOM_LEVEL=str(zoom))
        of = np.unique(tiles["id"], return_index=True)[1]
        np.testing.assert_allclose(
            tiles["area_m2"][of], given.area_m2[tiles["id"][of] - 1], atol=0.06
        )
        assert len(of) == 1600 if zoom == 15 else 60 <= len(of) <= 300
        assert shapely.area(tiles["geometry"]).sum() == pytest.approx(given.area_m2.sum(), rel=0.05)


def test_a_village_far_from_a_town_has_a_square() -> None:
    rng = np.random.default_rng(0)
    centres = np.concatenate(
        [rng.uniform(0.5, 0.5002, (100_000, 2)), rng.uniform(0.7, 0.7001, (9, 2))]
    )
    area = np.full(len(centres), (0.1 / 40_000_000) ** 2)
    area[-1] *= 2
    _, small, bounds = sample(area, centres, 6)
    assert (small[-1], len(bounds)) == (len(centres) - 1, len(small))


@pytest.mark.parametrize("least_m", [0.01, 0.5])
def test_slivers_and_single_pixels_are_not_lost(tmp_path: Path, least_m: float) -> None:
    given, share = town(400, 1), least_m / 14
    shapes = [
        affinity.scale(one, share, share if number % 2 else 1)
        for number, one in enumerate(given.geometry)
    ]
    given = replace(given, geometry=np.array(shapes, object))
    write_footprints(tmp_path / "thin.pmtiles", [given], gsd_m=0.5)
    assert len(np.unique(read(tmp_path / "thin.pmtiles")["id"])) == 400


@pytest.mark.parametrize(
    ("gsd_m", "side_m", "zooms"),
    [
        (0.3, 500.0, (14, 14, 15)),
        (0.1, 500.0, (14, 14, 17)),
        (0.1, 30_000.0, (8, 13, 17)),
        (None, 3_000.0, (11, 13, 16)),
        (10.0, 3_000.0, (10, 10, 10)),
    ],
)
def test_zooms_follow_pixels_and_size(
    gsd_m: float | None, side_m: float, zooms: tuple[int, ...]
) -> None:
    given = np.array([shapely.box(0, 0, 10, 10), shapely.box(side_m, side_m, side_m, 0)], object)
    assert tile_zooms(given, gsd_m) == zooms


@pytest.mark.parametrize("suffix", [".pmtiles", ".fgb"])
def test_null_attributes_texts_and_multipolygons(tmp_path: Path, suffix: str) -> None:
    given, path = town(4).geometry, tmp_path / f"town{suffix}"
    given[0] = shapely.MultiPolygon([given[0], affinity.translate(given[0], 0, 60)])
    columns = {
        "id": np.arange(4), "score": np.array([0.5, np.nan, 1, 0]),
        "floors": np.ma.MaskedArray([1, 2, 3, 4], [False, True, False, False]),
        "source": np.array(["© town"] * 4, object),
    }  # fmt: skip
    parts = [
        LayerChunk(given[at], {name: values[at] for name, values in columns.items()})
        for at in (slice(0, 3), slice(3, 4))
    ]
    write_layer(path, LayerSettings(UTM, multi=True), parts)
    found = read(path)
    order = np.argsort(found["id"])
    assert shapely.get_num_geometries(found["geometry"][order[0]]) == 2
    np.testing.assert_array_equal(found["score"][order], [0.5, np.nan, 1, 0])
    np.testing.assert_array_equal(found["floors"][order], [1, np.nan, 3, 4])
    assert set(found["source"]) == {"© town"}
    if suffix == ".pmtiles":
        assert not is_vector_file(path)
        stated = pyogrio.read_info(path)["dataset_metadata"]
        assert {stated["description"], stated["attribution"]} == {"© town"}


def test_buildings_on_both_sides_of_180_degrees(tmp_path: Path) -> None:
    path, west = tmp_path / "fiji.pmtiles", shapely.box(-179.99995, -17, -179.9999, -16.9999)
    houses = np.array([west, affinity.translate(west, 359.99985)], object)
    write_polygons(path, houses, {"id": np.array([1, 2])}, CRS(4326))
    assert set(read(path)["id"]) == {1, 2}


def test_what_has_no_place_in_tiles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "town.pmtiles"
    arctic = np.array([shapely.box(10, 86, 10.1, 86.1)], object)
    with pytest.raises(ExportError, match=r"^town\.pmtiles: .* no georeference") as caught:
        write_footprints(path, replace(town(2), crs=None))
    assert "GeoPackage" in caught.value.remedy
    with pytest.raises(ExportError, match="no polygons"):
        write_footprints(path, town(0))
    with pytest.raises(ExportError, match=r"85\.05"):
        write_polygons(path, arctic, {"id": np.array([1])}, CRS(4326))
    assert list(tmp_path.iterdir()) == []
