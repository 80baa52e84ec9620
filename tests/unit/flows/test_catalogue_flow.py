"""Test that a town that was cut into scenes becomes one layer, for every kind of catalogue."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer
from rasterio.windows import Window

from raster_files import write_geotiff
from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.flows.catalogue.run import CatalogueReport, run_catalogue
from rooftrace.flows.catalogue.scenes import plain_id, read_catalogue
from rooftrace.flows.density.run import run_density
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import executing, run_predict
from rooftrace.flows.stac_output import predicted_scene
from rooftrace.io.reproject import CRS84, transform_points
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from tiny_models import write_tiny_bundle

SIDE_PX = 960
OPTIONS = SceneOptions(outputs=("polygons",), outline="simplified", separate=False)

Cut = tuple[int, int, int, int]
ADJOIN = [(row, col, 480, 480) for row in (0, 480) for col in (0, 480)]
OVERLAP = [(row, col, 560, 560) for row in (0, 400) for col in (0, 400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace", context_px=8)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write bright houses of 24 x 18 px on dark ground; many cross the edges of scenes."""
    rng = np.random.default_rng(7)
    data = np.full((3, SIDE_PX, SIDE_PX), 20, np.uint8)
    for row in range(6, SIDE_PX - 40, 46):
        for col in range(6, SIDE_PX - 40, 52):
            top, left = row + rng.integers(0, 12), col + rng.integers(0, 14)
            data[:, top : top + 18, left : left + 24] = 250
    return write(tmp_path_factory.mktemp("town") / "town.tif", data)


def write(path: Path, data: np.ndarray, offset_yx: tuple[int, int] = (0, 0), **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Affine(0.5, 0, 5e5 + offset_yx[1] / 2, 0, -0.5, 9e6 - offset_yx[0] / 2)
    settings = {"crs": "EPSG:32737", "transform": place, **more}
    write_geotiff(path, data, **settings)
    return path


def cut(town: Path, folder: Path, cuts: list[Cut]) -> list[Path]:
    """Write the scenes as `a/scene.tif`, `b/scene.tif`…"""
    paths = []
    with rasterio.open(town) as source:
        for number, (row, col, height, width) in enumerate(cuts):
            data = source.read(window=Window(col, row, width, height))
            name = folder / "abcdefgh"[number] / "scene.tif"
            paths.append(write(name, data, (row, col)))
    return paths


def test_edges_of_a_wide_scene_bend_with_its_pixels() -> None:
    crs = CRS.from_epsg(32636)
    left, bottom, right, top = 650_000, 6_649_910, 660_444, 6_650_000
    outline = shapely.box(left, bottom, right, top)
    output = {"input": "a.tif", **dict.fromkeys(("mask", "polygons", "density", "preview"))}
    record = {"output": output, "figures": {"gsd_m": 0.3, "classes": []}}
    degrees = predicted_scene("a", record | {"outline": outline.wkb_hex}, crs).outline
    # Pixels on the upper edge lie on it, also far from its corners, where a chord is 3 m off.
    on_edge = np.stack([np.linspace(left, right, 50), np.full(50, top)], axis=1)
    points = shapely.points(transform_points(on_edge, crs, CRS84))
    assert shapely.distance(points, degrees.exterior).max() * 111_320 < 0.05


@pytest.mark.parametrize("epsg", [32601, 3832])
def test_buildings_across_longitude_180_lie_on_both_sides(
    epsg: int, model: Path, tmp_path: Path
) -> None:
    """Scenes of Taveuni show three houses; 180° divides the middle one, and one scene cuts it."""
    crs = CRS.from_epsg(epsg)
    x, y = Transformer.from_crs(CRS84, crs, always_xy=True).transform(180.0, -16.8)
    data = np.full((3, 128, 256), 20, np.uint8)
    for left in (40, 116, 190):
        data[:, 50:68, left : left + 24] = 250
    for name, first in (("a", 122), ("b", 0), ("c", 30)):
        place = Affine(0.5, 0, x - 64 + first / 2, 0, -0.5, y + 32)
        path = write(tmp_path / "in" / f"{name}.tif", data[..., first:], crs=crs, transform=place)
        with rasterio.open(path, "r+") as image:
            image.update_tags(TIFFTAG_DATETIME="2019:02:03 04:05:06")
    report = run(tmp_path / "in", model, tmp_path / "out", stac=True)
    assert (report.found, report.buildings) == (8, 4)
    found = layer(tmp_path / "out")
    assert set(found.geom_type) == {"Polygon"}
    assert sorted(found["scenes"]) == [2, 3, 3, 3]
    west, _, east, _ = found.geometry.bounds.to_numpy().T
    assert np.abs([west, east]).max() <= 180
    assert (east - west < 0.001).all()
    assert [(east == 180).sum(), (west == -180).sum()] == [1, 1]
    ground = [abs(Geod(ellps="WGS84").geometry_area_perimeter(one)[0]) for one in found.geometry]
    assert found["area_m2"].to_numpy() == pytest.approx(ground, rel=0.001)
    whole = geopandas.read_file(tmp_path / "out" / "scenes" / "b_buildings.gpkg")
    assert found["area_m2"].sum() == pytest.approx(whole["area_m2"].sum(), rel=0.01)
    item = json.loads((tmp_path / "out" / "scenes" / "b_item.json").read_text())
    collection = json.loads((tmp_path / "out" / "collection.json").read_text())
    assert item["geometry"]["type"] == "MultiPolygon"
    for west, _, east, _ in (item["bbox"], *collection["extent"]["spatial"]["bbox"]):
        assert (west, east) == pytest.approx((180, -180), abs=0.001)
        assert west > 0 > east


def bounds(path: Path) -> tuple[float, ...]:
    with rasterio.open(path) as source:
        box = shapely.box(*source.bounds)
        return tuple(geopandas.GeoSeries([box], crs=source.crs).to_crs(4326).total_bounds)


def as_text(folder: Path, paths: list[Path]) -> Path:
    lines = ["\ufeff# scenes", "", *(f"{p.relative_to(folder)}\r" for p in paths), str(paths[0])]
    file = folder / "scenes.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def as_stac(folder: Path, paths: list[Path]) -> Path:
    items = [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"{path.parent.name}/scene",
            "bbox": list(bounds(path)), "properties": {"gsd": 0.5},
            "assets": {
                "thumbnail": {"href": "t.png", "type": "image/png", "roles": ["thumbnail"]},
                "visual": {"href": f"./{path.relative_to(folder)}",
                           "type": "image/tiff; application=geotiff", "roles": ["data"]},
            },
        }
        for path in paths
    ]  # fmt: skip
    file = folder / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return file


def run(
    catalogue: Path, model: Path, out: Path, options: SceneOptions = OPTIONS, **more: Any
) -> CatalogueReport:
    with executing(read_models(model)) as executor:
        return run_catalogue(read_catalogue(catalogue), executor, out, options, **more)


def layer(out: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(out / "buildings")


@pytest.fixture(scope="module")
def whole(town: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("whole")
    run_predict(find_inputs([town]), read_models(model), out, OPTIONS)
    return geopandas.read_file(out / "town_buildings.gpkg")


@pytest.mark.parametrize("cuts", [ADJOIN, OVERLAP], ids=["adjoin", "overlap"])
def test_each_building_occurs_once(
    cuts: list[Cut], town: Path, model: Path, whole: Any, tmp_path: Path
) -> None:
    cut(town, tmp_path / "in", cuts)
    report = run(tmp_path / "in", model, tmp_path / "out")
    found = layer(tmp_path / "out").to_crs(32737)
    assert len(whole) > 250
    assert report.found > len(whole) == report.buildings == len(found)
    assert not any("adjoin" in note for note in report.notes)
    tree = shapely.STRtree(found.geometry.to_numpy())
    for building in whole.geometry:
        hits = tree.query(building, predicate="intersects")
        shares = [found.geometry[at].intersection(building).area / building.area for at in hits]
        assert max(shares) > 0.9
        assert sum(share > 0.1 for share in shares) == 1
    assert found["area_m2"].sum() == pytest.approx(whole["area_m2"].sum(), rel=0.01)
    assert set(found["scenes"]) >= {1, 2}
    manifest = json.loads(report.manifest.read_text())
    assert sum(one["found"] for one in manifest["scenes"]) == report.found
    assert sum(one["kept"] for one in manifest["scenes"]) == report.buildings
    count = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{tmp_path}/out/buildings/**/*.parquet')"
    ).fetchall()[0][0]
    assert count == report.buildings


@pytest.mark.campaign
def test_a_scene_that_fails_is_reported_and_the_others_are_predicted(
    town: Path, model: Path, tmp_path: Path
) -> None:
    paths = cut(town, tmp_path / "in", ADJOIN)
    good = paths[1].read_bytes()
    paths[1].write_bytes(good[: len(good) // 2])
    write(tmp_path / "in" / "two" / "two.tif", np.zeros((2, 64, 64), np.uint8))
    nowhere = rasterio.open(paths[2]).read()
    write(tmp_path / "in" / "nowhere.tif", nowhere, crs=None, transform=Affine(2, 0, 3, 0, -2, 5))
    listed = as_text(tmp_path / "in", [*sorted((tmp_path / "in").rglob("*.tif"))])
    with listed.open("a") as file:
        file.write("\ngone.tif\n")
    report = run(listed, model, tmp_path / "out")
    failed = dict(report.failures)
    assert set(failed) == {"scene-2", "two", "nowhere", "gone"}
    assert isinstance(failed["nowhere"], GeoreferenceError)
    manifest = json.loads(report.manifest.read_text())
    states = {one["id"]: one["state"] for one in manifest["scenes"]}
    assert states["scene"] == "done"
    assert states["gone"] == "failed"
    reported = next(one for one in manifest["scenes"] if one["id"] == "gone")
    assert reported["error"]["type"] == "DataError"
    assert "gone.tif" in reported["error"]["message"]
    before = report.buildings
    # The second run predicts only the scene that had failed.
    paths[1].write_bytes(good)
    again = run(listed, model, tmp_path / "out")
    assert set(dict(again.failures)) == {"two", "nowhere", "gone"}
    assert again.predicted.resumed_images == 3
    assert again.buildings > before


def test_a_strict_run_stops_at_the_first_failure(town: Path, model: Path, tmp_path: Path) -> None:
    cut(town, tmp_path / "in", ADJOIN)
    (tmp_path / "in" / "a" / "scene.tif").write_bytes(b"II*\0torn")
    with pytest.raises(DataError, match=r"1 of 4 scenes failed"):
        run(tmp_path / "in", model, tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_command_fails_if_all_scenes_fail(model: Path, tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / "in" / name / "s.tif", np.zeros((2, 64, 64), np.uint8))
    with pytest.raises(Exception, match=r"2 of 2 scenes failed"):
        run(tmp_path / "in", model, tmp_path / "out")


@pytest.mark.campaign
def test_only_scenes_that_were_added_are_predicted(town: Path, model: Path, tmp_path: Path) -> None:
    cut(town, tmp_path / "in", ADJOIN)
    kept = tmp_path / "d"
    shutil.move(tmp_path / "in" / "d", kept)
    first = run(tmp_path / "in", model, tmp_path / "out")
    shutil.move(kept, tmp_path / "in" / "d")
    second = run(tmp_path / "in", model, tmp_path / "out")
    assert second.predicted.resumed_images == 3
    assert second.buildings > first.buildings
    fresh = run(tmp_path / "in", model, tmp_path / "fresh")
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / out / "buildings").rglob("*.parquet")}
        for out in ("out", "fresh")
    ]
    assert files[0] == files[1]
    assert fresh.buildings == second.buildings


@pytest.mark.campaign
def test_the_edge_of_a_scene_is_the_edge_of_its_valid_data(
    town: Path, model: Path, tmp_path: Path
) -> None:
    """Buildings are cut where the valid data of a scene end, not where its file ends."""
    paths = cut(town, tmp_path / "in", OVERLAP)
    for number, path in enumerate(paths):
        with rasterio.open(path) as source:
            data, place = source.read(), source.transform
        rim = np.zeros_like(data)
        inside = (slice(None), slice(30, -30), slice(30, -30))
        rim[inside] = data[inside]
        row, col, _, _ = OVERLAP[number]
        write(path, rim, (row, col), nodata=0)
        assert place == rasterio.open(path).transform
    write(tmp_path / "in/empty/scene.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    run(tmp_path / "in", model, tmp_path / "out")
    inner = shapely.box(5e5 + 20, 9e6 - (SIDE_PX / 2 - 20), 5e5 + SIDE_PX / 2 - 20, 9e6 - 20)
    found = layer(tmp_path / "out").to_crs(32737)
    whole = found[found.within(inner)]
    assert (whole["area_m2"] > 0.8 * 24 * 18 / 4).mean() > 0.97
    density = run_density([tmp_path / "out"], tmp_path / "density").total
    # Without the outer rims, which are 30 pixels of half a metre wide.
    assert density is not None
    assert float(density.observed_m2) == pytest.approx(450**2, rel=1e-3)


@pytest.mark.campaign
def test_buildings_carry_the_origin_of_their_scene(town: Path, model: Path, tmp_path: Path) -> None:
    paths = cut(town, tmp_path / "in", ADJOIN)
    with rasterio.open(paths[0], "r+") as image:
        image.update_tags(TIFFTAG_DATETIME="2019:02:03 04:05:06")
    listed = as_stac(tmp_path / "in", paths)
    items = json.loads(listed.read_text())
    # The item of the second scene states date and providers, which go before those of its file.
    items["features"][1].setdefault("properties", {}).update(
        license="CC-BY-4.0",
        datetime="2024-05-17T10:31:00Z",
        providers=[{"name": "Somebody"}, {"name": "Others"}],
    )
    for item in (items["features"][0], *items["features"][2:]):
        item.setdefault("properties", {}).pop("datetime", None)
    listed.write_text(json.dumps(items))
    run(listed, model, tmp_path / "out")
    found = layer(tmp_path / "out")
    by_scene = found.groupby("scene")[["imagery_date", "source", "model"]].agg(
        lambda values: set(values.fillna("unknown"))
    )
    names = [plain_id(item["id"]) for item in items["features"]]
    assert by_scene.loc[names[0], "imagery_date"] == {"2019-02-03T04:05:06"}
    assert by_scene.loc[names[0], "source"] == {paths[0].name}
    assert by_scene.loc[names[1], "imagery_date"] == {"2024-05-17T10:31:00Z"}
    assert by_scene.loc[names[1], "source"] == {"Somebody, Others (CC-BY-4.0)"}
    for name in names[2:]:
        if name in by_scene.index:
            assert by_scene.loc[name, "imagery_date"] == {"unknown"}
    assert {*found["model"]} == {read_models(model).ready().bundle.spec.name}
