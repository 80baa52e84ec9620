"""A layer by tiles: every polygon is in one file, in any order of input, for any reader."""

import hashlib
import json
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pytest
import shapely

from rooftrace.io import partitions
from rooftrace.io.partitions import MANIFEST, PartitionedLayer
from rooftrace.io.web_mercator import TileName, latitude_of, morton_codes, quadkeys


def houses(count: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(36.7, 37.0, count), rng.uniform(-1.4, -1.1, count)
    geometry = shapely.box(lon, lat, lon + 1e-4, lat + 1e-4)
    columns = {
        "score": rng.uniform(size=count).astype(np.float32),
        "area_m2": np.where(rng.uniform(size=count) < 0.1, np.nan, 120.0),
        "seen": rng.integers(1, 4, count),
        "scene": np.array([f"scene-{n % 3}" for n in range(count)], dtype=object),
    }
    return np.asarray(geometry, dtype=object), columns


def write(out: Path, count: int = 500, order: np.ndarray | None = None, level: int = 12) -> dict:
    geometry, columns = houses(count)
    order = np.arange(count) if order is None else order
    with PartitionedLayer(out, level) as layer:
        for own in np.array_split(order, 7):
            layer.add(geometry[own], {name: values[own] for name, values in columns.items()})
        return layer.finish({"made_with": {"model": "m"}})


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_duckdb_reads_all_of_it_and_leaves_out_what_is_not_asked_for(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    source = f"read_parquet('{tmp_path}/buildings/**/*.parquet', hive_partitioning=true)"
    asked = f"SELECT count(*), count(DISTINCT quadkey) FROM {source}"
    ((count, keys),) = duckdb.sql(asked).fetchall()
    assert count == 500 == manifest["rows"]
    assert keys == len(manifest["partitions"]) > 3
    one = manifest["partitions"][1]
    metadata = duckdb.sql(
        f"SELECT count(*), min(bbox.xmin), max(bbox.ymax) FROM {source} "
        f"WHERE CAST(quadkey AS VARCHAR) = '{one['quadkey']}'"
    ).fetchall()[0]
    assert metadata[0] == one["rows"]
    assert metadata[1:] == pytest.approx((one["bounds"][0], one["bounds"][3]))
    west = duckdb.sql(f"SELECT count(*) FROM {source} WHERE bbox.xmax < 36.8").fetchall()[0][0]
    assert west == int((shapely.bounds(houses(500)[0])[:, 2] < 36.8).sum())
    ids = duckdb.sql(f"SELECT count(DISTINCT id) FROM {source}").fetchall()[0][0]
    assert ids == 500


def test_geopandas_reads_a_file_and_the_folder(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    one = manifest["partitions"][0]
    frame = geopandas.read_parquet(tmp_path / one["path"])
    assert len(frame) == one["rows"]
    assert frame.crs == "OGC:CRS84"
    assert list(frame.columns) == [
        "id", "score", "area_m2", "seen", "scene", "geometry", "bbox",
    ] or "bbox" not in frame  # fmt: skip
    # All of a square's polygons begin in it, and are called by it.
    assert frame["id"].str.startswith(one["quadkey"]).all()
    west, south, east, north = bounds_lonlat(one["quadkey"])
    points = frame.geometry.representative_point()
    assert points.x.between(west, east).all()
    assert points.y.between(south, north).all()
    whole = geopandas.read_parquet(tmp_path / "buildings")
    assert len(whole) == 500
    assert set(whole["seen"]) == {1, 2, 3}
    assert whole["area_m2"].isna().any()
    near = geopandas.read_parquet(tmp_path / "buildings", bbox=(36.7, -1.4, 36.8, -1.3))
    assert 0 < len(near) < 500


@pytest.mark.campaign
def test_the_same_polygons_give_the_same_bytes_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one")
    monkeypatch.setattr(partitions, "_MAX_IN_MEMORY", 60)
    monkeypatch.setattr(partitions, "_GROUP_ROWS", 50_000)
    write(tmp_path / "other", order=np.random.default_rng(5).permutation(500))
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_rows_come_in_groups_along_the_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(partitions, "_GROUP_ROWS", 20)
    manifest = write(tmp_path, level=6)
    (one,) = manifest["partitions"]
    file = pq.ParquetFile(tmp_path / one["path"])
    assert file.metadata.num_row_groups == 25
    metadata = json.loads(file.schema_arrow.metadata[b"geo"])
    assert metadata["version"] == "1.1.0"
    assert metadata["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    ids = file.read(columns=["id"]).column("id").to_pylist()
    assert ids == sorted(ids)


def test_the_manifest_shows_what_there_is(tmp_path: Path) -> None:
    before = {one["path"] for one in write(tmp_path, level=13)["partitions"]}
    manifest = write(tmp_path)
    now = {one["path"] for one in manifest["partitions"]}
    assert {name for name in files(tmp_path) if name.endswith("parquet")} == now
    assert before.isdisjoint(now)
    assert json.loads((tmp_path / MANIFEST).read_text()) == json.loads(json.dumps(manifest))
    for one in manifest["partitions"]:
        data = (tmp_path / one["path"]).read_bytes()
        assert one["size_bytes"] == len(data)
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["made_with"] == {"model": "m"}
    assert not list(tmp_path.glob(".partitions.*"))


def test_two_that_begin_in_one_square_have_names_of_their_own(tmp_path: Path) -> None:
    box = shapely.box(36.7, -1.3, 36.7001, -1.2999)
    geometry = np.array([box, box, shapely.box(36.70001, -1.3, 36.70009, -1.2999)], dtype=object)
    with PartitionedLayer(tmp_path, 9) as layer:
        layer.add(geometry, {"score": np.ones(3, np.float32)})
        manifest = layer.finish({})
    frame = geopandas.read_parquet(tmp_path / manifest["partitions"][0]["path"])
    assert frame["id"].is_unique


def test_quadkeys_are_those_of_the_definition() -> None:
    # The example of the definition: tile (3, 5) of level 3 is 213.
    west, south, east, north = bounds_lonlat("213")
    assert west == 3 / 8 * 360 - 180
    assert east == 4 / 8 * 360 - 180
    middle = np.array([(west + east) / 2]), np.array([(south + north) / 2])
    assert quadkeys(morton_codes(*middle, 3), 3).tolist() == ["213"]
    assert quadkeys(morton_codes(*middle, 0), 0).tolist() == [""]


def tile_of(quadkey: str) -> TileName:
    """Return the tile of a quadkey; "" is the whole Earth."""
    cols, rows = ("".join(str(int(digit) >> bit & 1) for digit in quadkey) for bit in (0, 1))
    return TileName(len(quadkey), int(f"0{rows}", 2), int(f"0{cols}", 2))


def bounds_lonlat(quadkey: str) -> tuple[float, float, float, float]:
    """Return the bounds (west, south, east, north) of the tile of a quadkey in degrees."""
    tile = tile_of(quadkey)
    west, east = (edge / (1 << tile.zoom) * 360 - 180 for edge in (tile.col, tile.col + 1))
    _, bottom, _, top = tile.bounds_xy
    return west, latitude_of(bottom), east, latitude_of(top)
