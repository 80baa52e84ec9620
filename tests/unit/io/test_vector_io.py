from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Footprints
from rooftrace.io.vector_write import write_footprints, write_polygons
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


@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_no_buildings_are_a_valid_empty_layer(tmp_path: Path, suffix: str) -> None:
    write_footprints(tmp_path / f"out{suffix}", footprints(UTM, 0))
    table = geopandas.read_file(tmp_path / f"out{suffix}")
    assert len(table) == 0
    assert list(table.columns) == ["id", "score", "area_m2", "geometry"]
    assert table.crs == UTM
    info = pyogrio.read_info(tmp_path / f"out{suffix}")
    assert info["geometry_type"] == "Polygon"


@pytest.mark.parametrize("suffix", GDAL_SUFFIXES)
def test_a_file_is_replaced_unless_that_fails(
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
    monkeypatch.undo()
    write_footprints(path, footprints(None, 2))
    assert len(read(path)) == 2
    assert not (tmp_path / "out.prj").exists(), "the old system would be read as the new one"


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
