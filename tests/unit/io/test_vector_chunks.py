"""Layers that are written a chunk at a time."""

import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Footprints
from rooftrace.flows.convert import run_convert
from rooftrace.io import vector_writers
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import write_footprints, write_polygons
from rooftrace.labels.config import SourceConfig
from vector_samples import MAIN_SUFFIXES

UTM = CRS(32633)


def chunk(count: int, seed: int = 0, crs: CRS | None = UTM) -> Footprints:
    rng = np.random.default_rng(seed)
    col, row = rng.random((2, count)) * 5000
    corner = (500_000 + col, 5_000_000 + row) if crs else (col, row)
    if crs is not None and crs.is_geographic:
        corner = (col / 100, row / 100)
    geometry = np.asarray(shapely.box(*corner, corner[0] + 12, corner[1] + 9), object)
    figures = rng.random((3, count))
    return Footprints(
        geometry, rng.random(count, np.float32), np.full(count, 108.0), crs,
        rng.integers(1, 3, count).astype(np.uint8), ("ground", "house", "école"),
        perimeter_m=figures[0], orientation_deg=figures[1] * 180, rectangularity=figures[2],
    )  # fmt: skip


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path)


@pytest.mark.parametrize("crs", [UTM, CRS(4326), None])
@pytest.mark.parametrize("suffix", MAIN_SUFFIXES)
def test_chunks_are_one_layer(
    tmp_path: Path, suffix: str, crs: CRS | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_writers, "_MOST_WAITING", 4)
    chunks = [chunk(5, 0, crs), chunk(0, 1, crs), chunk(3, 2, crs)]
    path = tmp_path / f"out{suffix}"
    write_footprints(path, iter(chunks))
    table = read(path).sort_values("id").reset_index(drop=True)
    whole = Footprints.joined(chunks)
    assert table["id"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    renamed = vector_writers.SHORT_NAMES if suffix == ".shp" else {}
    expected = [renamed.get(name, name) for name in whole.columns()]
    assert [name for name in table.columns if name not in ("geometry", "bbox")] == expected
    for name, values in whole.columns().items():
        given = table[renamed.get(name, name)]
        if values.dtype.kind == "O":
            assert given.tolist() == values.tolist()
        else:
            np.testing.assert_allclose(given.to_numpy(values.dtype), values, rtol=1e-12)
    assert table.geometry.is_valid.all()
    if suffix == ".geojson" and crs is not None:
        assert table.crs == CRS(4326)
        placed = table.geometry.to_crs(crs).to_numpy()
        apart = shapely.hausdorff_distance(placed, whole.geometry)
        assert apart.max() < (0.02 if crs == UTM else 1e-6)
    else:
        tolerance = 1e-9 if suffix == ".geojson" else 0
        read_, given_ = map(shapely.normalize, (table.geometry.to_numpy(), whole.geometry))
        assert shapely.equals_exact(read_, given_, tolerance).all()


@pytest.mark.parametrize("suffix", [*MAIN_SUFFIXES, ".pmtiles"])
def test_how_it_is_cut_into_chunks_does_not_matter(tmp_path: Path, suffix: str) -> None:
    whole = chunk(50)
    parts = [whole.take(np.arange(0, 20)), whole.take(np.arange(20, 50))]
    for name, chunks in (("a", [whole]), ("b", parts)):
        (tmp_path / name).mkdir()
        write_footprints(tmp_path / name / f"out{suffix}", chunks)
    one, other = (read(tmp_path / name / f"out{suffix}") for name in "ab")
    assert one.equals(other)
    if suffix in (".geojson", ".pmtiles"):
        one_bytes, other_bytes = ((tmp_path / name / f"out{suffix}").read_bytes() for name in "ab")
        assert one_bytes == other_bytes


def test_a_geopackage_has_a_spatial_index_that_stays_right(tmp_path: Path) -> None:
    path = tmp_path / 'a "b" c.gpkg'
    chunks = [chunk(300), chunk(200, 1)]
    write_footprints(path, chunks)
    with closing(sqlite3.connect(path)) as file:
        index = '"rtree_a ""b"" c_geom"'
        assert file.execute(f"SELECT count(*) FROM {index}").fetchone() == (500,)
        assert file.execute("SELECT rtreecheck('rtree_a \"b\" c_geom')").fetchone() == ("ok",)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        extent = file.execute("SELECT min_x, min_y, max_x, max_y FROM gpkg_contents").fetchone()
    whole = Footprints.joined(chunks)
    np.testing.assert_allclose(extent, shapely.total_bounds(whole.geometry))
    window = (500_100.0, 5_000_100.0, 501_000.0, 5_001_000.0)
    inside = shapely.intersects(whole.geometry, shapely.box(*window))
    assert 0 < inside.sum() < 500
    found = geopandas.read_file(path, bbox=window)
    assert sorted(found["id"]) == (np.flatnonzero(inside) + 1).tolist()
    # GDAL takes the index for its own.
    more = found.assign(id=0, geometry=[shapely.box(0, 0, 1, 1)] * len(found))
    pyogrio.write_dataframe(more.iloc[:1], path, append=True)
    assert geopandas.read_file(path, bbox=(0, 0, 2, 2))["id"].tolist() == [0]


def test_what_a_shapefile_cannot_hold_is_refused(tmp_path: Path) -> None:
    square = np.array([shapely.box(0, 0, 1, 1)], object)
    columns = {"name": np.array(["é" * 200], object)}
    with pytest.raises(ExportError, match=r"'name' holds 'éééé.*… of 400"):
        write_polygons(tmp_path / "out.shp", square, columns, UTM)
    assert list(tmp_path.iterdir()) == []
    (note,) = write_footprints(tmp_path / "out.shp", [chunk(2)])
    assert "perimeter_m is perim_m, orientation_deg is orient" in note
    # Names that are the same when shortened are numbered.
    long = ("building_height_min", "building_height_max", "Building_H", "Straßenzugänge")
    values = {name: np.array([number]) for number, name in enumerate(long)}
    (note,) = write_polygons(tmp_path / "out.shp", square, values, UTM)
    assert "min is building_1, building_height_max is building_2, Straßenzugänge is" in note
    frame = geopandas.read_file(tmp_path / "out.shp")
    assert frame.columns[:4].tolist() == ["building_1", "building_2", "Building_H", "Straßenzu"]
    assert frame.iloc[0, :4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".gpkg", ".kml", ".geojson", ".shp"])
def test_attributes_whose_names_drivers_use_are_kept(tmp_path: Path, suffix: str) -> None:
    columns = {"fid": np.array([7, 7]), "model": np.array(["a", "b"], object)}
    write_polygons(tmp_path / f"out{suffix}", chunk(2).geometry, columns, UTM)
    report = run_convert(
        SourceConfig(path=str(tmp_path / f"out{suffix}")), "footprints", tmp_path / "again.gpkg"
    )
    read = VectorFile(report.written).read(["fid", "model"]).values
    assert (read["fid"].tolist(), read["model"].tolist()) == (["7", "7"], ["a", "b"])
