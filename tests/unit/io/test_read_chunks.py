"""Layers that are read chunk by chunk equal those that are read at once."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from rooftrace.io import vector_layers
from rooftrace.io.vector_read import VectorFile


def written(path: Path, count: int) -> Path:
    """Write polygons, some of them invalid or missing, with a number, a text and a gap of each."""
    places = np.arange(count) * 20.0
    houses = np.asarray(shapely.box(places, 0, places + 10, 10), np.object_)
    houses[3::7] = shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    houses[5::9] = None
    columns = {
        "number": np.arange(count),
        "share": np.where(np.arange(count) % 4, np.arange(count) / 8, np.nan),
        "text": np.where(np.arange(count) % 3, "a", None),
    }
    frame = gpd.GeoDataFrame(columns, geometry=houses, crs=32633)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".shp", ".geojson"])
@pytest.mark.parametrize("rows", [5, 1000])
def test_chunks_equal_the_whole(
    suffix: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_layers, "_CHUNK_ROWS", rows)
    file = VectorFile(written(tmp_path / f"layer{suffix}", 23))
    fields = [name for name in file.fields if name != "geometry"]
    whole, chunks = file.read(fields, typed=True), list(file.chunks(fields))
    if suffix != ".geojson":
        assert len(chunks) == -(-23 // rows)
    assert sum(chunk.counts.repaired for chunk in chunks) == whole.counts.repaired > 0
    assert sum(chunk.counts.without_outline for chunk in chunks) == whole.counts.without_outline > 0
    assert all(chunk.crs == whole.crs for chunk in chunks)
    joined = np.concatenate([chunk.geometry for chunk in chunks])
    assert shapely.equals_exact(joined, whole.geometry).all()
    for name in fields:
        values = np.concatenate([chunk.values[name] for chunk in chunks])
        np.testing.assert_array_equal(values, whole.values[name])


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_a_layer_without_polygons_is_one_chunk(suffix: str, tmp_path: Path) -> None:
    (chunk,) = VectorFile(written(tmp_path / f"layer{suffix}", 0)).chunks(["number"])
    assert (len(chunk), list(chunk.values), chunk.crs.to_epsg()) == (0, ["number"], 32633)
