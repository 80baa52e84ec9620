import json
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS, Transformer

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Footprints
from rooftrace.io.vector_write import write_footprints, write_polygons
from rooftrace.io.vector_writers import WRITERS
from vector_samples import MAIN_SUFFIXES

UTM = CRS(32633)
GDAL_SUFFIXES = [suffix for suffix in MAIN_SUFFIXES if suffix != ".parquet"]
EXACT_SUFFIXES = [suffix for suffix in GDAL_SUFFIXES if suffix != ".geojson"]


def footprints(crs: CRS | None, count: int = 3) -> Footprints:
    at = np.arange(count) * 100.0
    outer = shapely.box(500_000 + at, 5_000_000, 500_020 + at, 5_000_010)
    inner = shapely.box(500_005 + at, 5_000_002, 500_007 + at, 5_000_004)
    geometry = np.asarray(shapely.difference(outer, inner), object)
    area = np.full(count, 196.0) if crs else np.full(count, np.nan)
    return Footprints(geometry, np.linspace(0.25, 1, count, dtype=np.float32), area, crs)


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(path).sort_values("id").reset_index(drop=True)


@pytest.mark.parametrize("crs", [UTM, CRS(4326), None])
@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, crs: CRS | None) -> None:
    given = footprints(crs)
    write_footprints(tmp_path / f"out{suffix}", given)
    table = read(tmp_path / f"out{suffix}")
    assert list(table.columns) == ["id", "score", "area_m2", "geometry"]
    assert table["id"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(table["score"], given.score)
    np.testing.assert_array_equal(table["area_m2"], given.area_m2)
    assert shapely.equals(table.geometry.to_numpy(), given.geometry).all()
    assert table.crs == crs


@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_no_buildings_are_a_valid_empty_layer(tmp_path: Path, suffix: str) -> None:
    write_footprints(tmp_path / f"out{suffix}", footprints(UTM, 0))
    table = geopandas.read_file(tmp_path / f"out{suffix}")
    assert len(table) == 0
    assert list(table.columns) == ["id", "score", "area_m2", "geometry"]
    assert table.crs == UTM
    info = pyogrio.read_info(tmp_path / f"out{suffix}")
    assert info["geometry_type"] == "Polygon"


def test_no_buildings_in_geojson(tmp_path: Path) -> None:
    write_footprints(tmp_path / "out.geojson", footprints(UTM, 0))
    assert json.loads((tmp_path / "out.geojson").read_text())["features"] == []


def test_geojson_follows_rfc_7946(tmp_path: Path) -> None:
    given = footprints(UTM)
    # Given the wrong way round: the driver has to turn it.
    turned = np.asarray(shapely.reverse(shapely.normalize(given.geometry)), object)
    write_footprints(tmp_path / "out.geojson", Footprints(turned, given.score, given.area_m2, UTM))
    written = json.loads((tmp_path / "out.geojson").read_text())
    assert "crs" not in written
    to_lonlat = Transformer.from_crs(UTM, 4326, always_xy=True)
    for feature, polygon in zip(written["features"], given.geometry, strict=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.exterior.is_ccw
        assert not any(ring.is_ccw for ring in shape.interiors)
        expected = shapely.transform(
            polygon, lambda xy: np.stack(to_lonlat.transform(*xy.T), axis=1)
        )
        assert shapely.hausdorff_distance(shape, expected) < 2e-7
    assert [f["properties"]["id"] for f in written["features"]] == [1, 2, 3]
    assert [f["properties"]["area_m2"] for f in written["features"]] == [196, 196, 196]


def test_geojson_in_pixels_claims_no_crs(tmp_path: Path) -> None:
    given = footprints(None)
    write_footprints(tmp_path / "out.geojson", given)
    written = json.loads((tmp_path / "out.geojson").read_text())
    assert "crs" not in written
    assert "pixels" in written["description"]
    assert [f["properties"]["area_m2"] for f in written["features"]] == [None] * 3
    table = read(tmp_path / "out.geojson")
    assert shapely.equals(table.geometry.to_numpy(), given.geometry).all()


@pytest.mark.parametrize("crs", [UTM, None])
@pytest.mark.parametrize("count", [3, 0])
def test_parquet_is_read_back(tmp_path: Path, crs: CRS | None, count: int) -> None:
    pytest.importorskip("pyarrow")
    given = footprints(crs, count)
    write_footprints(tmp_path / "out.parquet", given)
    table = geopandas.read_parquet(tmp_path / "out.parquet")
    assert table[["id", "score", "area_m2"]].dtypes.tolist() == [np.int64, np.float32, np.float64]
    np.testing.assert_array_equal(table["area_m2"], given.area_m2)
    assert shapely.equals(table.geometry.to_numpy(), given.geometry).all()
    assert table.crs == crs


@pytest.mark.parametrize("suffix", GDAL_SUFFIXES)
def test_a_file_that_was_there_is_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_footprints(path, footprints(UTM, 5))
    write_footprints(path, footprints(None, 2))
    assert len(read(path)) == 2
    assert not (tmp_path / "out.prj").exists(), "the old system would be read as the new one"


@pytest.mark.parametrize("suffix", GDAL_SUFFIXES)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"out{suffix}"
    write_footprints(path, footprints(UTM, 5))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def half(_: object, target: Path, **__: object) -> None:
        target.write_bytes(b"half")
        raise pyogrio.errors.DataSourceError("No space left on device")

    monkeypatch.setattr(pyogrio, "write_arrow", half)
    with pytest.raises(ExportError, match="could not be written: No space left"):
        write_footprints(path, footprints(UTM, 2))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.gpkg").mkdir()
    for path, reason in [
        (tmp_path / "missing" / "out.gpkg", "No such file or directory"),
        (tmp_path / "file" / "out.gpkg", "Not a directory"),
        (tmp_path / "taken.gpkg", "Is a directory"),
    ]:
        with pytest.raises(ExportError, match=reason) as caught:
            write_footprints(path, footprints(UTM))
        assert str(path) in caught.value.message
        assert "folder" in caught.value.remedy
    assert {file.name for file in tmp_path.iterdir()} == {"file", "taken.gpkg"}


@pytest.mark.parametrize("name", ["out.svg", "out"])
def test_an_unknown_suffix_is_reported_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError) as caught:
        write_footprints(tmp_path / name, footprints(UTM))
    assert repr(Path(name).suffix) in caught.value.message
    assert all(suffix in caught.value.remedy for suffix in WRITERS)
    assert list(tmp_path.iterdir()) == []


def test_a_coordinate_system_that_needs_wkt_of_2019(tmp_path: Path) -> None:
    """GDAL writes it by an extension, which is in the table of the extensions before the index."""
    path = tmp_path / "out.gpkg"
    write_polygons(path, np.array([shapely.box(15, 42, 15.1, 42.1)]), {}, CRS.from_epsg(4979))
    assert len(pyogrio.read_dataframe(path, bbox=(14, 41, 16, 43))) == 1
    assert not len(pyogrio.read_dataframe(path, bbox=(16, 43, 17, 44)))


@pytest.mark.parametrize("size", [0, 8192, 40_960, 73_728, 90_000, 98_304])
def test_a_disk_that_is_full_at_any_moment(tmp_path: Path, size: int) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.gpkg"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        write_polygons(path, np.array([shapely.box(0, 0, 9, 9)]), {}, CRS(32633))
    except ExportError:
        assert not any(tmp_path.iterdir())
    else:
        assert size > 90_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
