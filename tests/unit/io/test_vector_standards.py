"""Written polygons keep the standards of their formats: GeoParquet, GeoPackage, RFC 7946."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import CRS

from rooftrace.core.types import Footprints, ResultProvenance
from rooftrace.io.partitions import PartitionedLayer
from rooftrace.io.vector_write import write_footprints, write_polygons

UTM = CRS.from_epsg(32737)


def houses(crs: CRS | None, count: int = 40) -> Footprints:
    corner = np.arange(count) * 20.0
    geometry = shapely.box(5e5 + corner, 9e6, 5e5 + corner + 12.3, 9e6 + 8.7)
    return Footprints(
        np.asarray(geometry, object), np.full(count, 0.5, np.float32), np.full(count, np.nan), crs,
        provenance=ResultProvenance("2024-05-17", "© Somebody", "default"),
    )  # fmt: skip


def conformance(path: Path) -> dict[str, list[str]]:
    """Return the outcomes of the official tests of GeoParquet by their status."""
    gpv = pytest.importorskip("geoparquet_validator")
    outcomes: dict[str, list[str]] = {"pass": [], "fail": [], "skip": []}
    report = gpv.check(str(path))
    assert report["version"] == "1.1.0"
    for one in report["outcomes"]:
        outcomes[one["status"]].append(one["id"])
    return outcomes


@pytest.mark.parametrize("crs", [UTM, CRS.from_epsg(4326), None], ids=["utm", "lonlat", "pixels"])
@pytest.mark.parametrize("count", [40, 0])
def test_geoparquet_conforms(crs: CRS | None, count: int, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    if crs is not None and crs.is_geographic:
        place = houses(UTM, count)
        geometry = shapely.transform(place.geometry, lambda xy: (xy - (5e5, 9e6)) * 1e-5)
        write_polygons(path, np.asarray(geometry, object), place.columns(), crs)
    else:
        write_footprints(path, houses(crs, count))
    found = conformance(path)
    assert found["fail"] == []
    assert "/conf/core/geo-metadata" in found["pass"]
    assert [one for one in found["pass"] if one.startswith("/conf/covering/")]


def test_the_files_of_a_catalogue_conform(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    corner = np.arange(40) * 2e-4
    geometry = np.asarray(shapely.box(36.0 + corner, -1.0, 36.0001 + corner, -0.9999), object)
    # Of the first scenes no date is known.
    dates = np.array([None] * 20 + ["2024-05-17"] * 20, object)
    with PartitionedLayer(tmp_path, 8) as layer:
        for half in (slice(0, 20), slice(20, 40)):
            layer.add(geometry[half], {"imagery_date": dates[half], "score": np.ones(20)})
        layer.finish({})
    (path,) = tmp_path.rglob("*.parquet")
    assert conformance(path)["fail"] == []
    pq = pytest.importorskip("pyarrow.parquet")
    assert pq.read_table(path)["imagery_date"].null_count == 20


def test_geopackage_is_of_a_version_that_gdal_3_6_knows(tmp_path: Path) -> None:
    """GDAL 3.6 warns of 1.4; its own test of our files is in docs/prediction.md."""
    write_footprints(tmp_path / "a.gpkg", houses(UTM))
    with closing(sqlite3.connect(tmp_path / "a.gpkg")) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (10200,)
        assert file.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        extensions = file.execute("SELECT extension_name, scope FROM gpkg_extensions").fetchall()
        assert extensions == [("gpkg_rtree_index", "write-only")]
        (changed,) = file.execute("SELECT last_change FROM gpkg_contents").fetchone()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", changed)
        assert file.execute("SELECT feature_count FROM gpkg_ogr_contents").fetchone() == (40,)


@pytest.mark.parametrize("crs", [UTM, None], ids=["utm", "pixels"])
def test_geojson_keeps_rfc_7946(crs: CRS | None, tmp_path: Path) -> None:
    given = houses(crs)
    write_footprints(tmp_path / "a.geojson", given)
    text = (tmp_path / "a.geojson").read_text()
    written = json.loads(text)
    # Section 7.1 reserves these members of other objects; section 4 has removed `crs`.
    assert not {"coordinates", "geometries", "geometry", "properties", "crs"} & set(written)
    for feature in written["features"]:
        assert set(feature) == {"type", "properties", "geometry"}
        assert set(feature["geometry"]) == {"type", "coordinates"}
    if crs is None:
        return
    shapes = [shapely.geometry.shape(one["geometry"]) for one in written["features"]]
    assert all(shape.exterior.is_ccw for shape in shapes)
    numbers = re.findall(r"-?\d+\.\d+", text[text.index('"coordinates"') :].split("]]]")[0])
    assert max(len(number.partition(".")[2]) for number in numbers) == 7
