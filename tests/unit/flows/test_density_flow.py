"""`run_density` and related flows: figures agree between masks, polygons and output files."""

import csv
import itertools
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import CRS
from rasterio.warp import Resampling, reproject
from shapely import Polygon, box

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, LabelError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.density.files import BREAKS, draw_zones, read_threshold
from rooftrace.flows.density.dates import run_date_density
from rooftrace.flows.density.images import fit_images, run_by_image
from rooftrace.flows.density.run import run_density, run_zone_density
from rooftrace.flows.density.zones import zone_names
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.io.reproject import transform_points
from rooftrace.io.vector_write import write_polygons
from rooftrace.vector.prepare import MaskRecord, VectorOptions
from town import SyntheticScene, generate_scene

BANDS = ("built_up_share", "buildings_per_ha", "mean_area_m2", "nearest_m", "observed_share")


def write_mask(path: Path, mask: np.ndarray, crs: str | None, transform: Affine) -> Path:
    return write_geotiff(path, mask, crs=crs, transform=transform, nodata=255)


@pytest.fixture(scope="module")
def town() -> SyntheticScene:
    return generate_scene(3, shape_yx=(256, 256))


@pytest.fixture(scope="module")
def files(town: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write mask.tif with nodata on its left, truth.gpkg, and wards.gpkg in degrees."""
    folder = tmp_path_factory.mktemp("town")
    mask = town.mask()
    mask[:, :40] = 255
    crs = town.grid.crs
    write_mask(folder / "mask.tif", mask, crs.to_wkt(), town.grid.transform)
    gpd.GeoDataFrame(geometry=list(town.buildings), crs=crs).to_file(folder / "truth.gpkg")
    left, bottom, right, top = town.grid.bounds_xy
    middle = (left + right) / 2
    zones = [box(left, bottom, middle, top), box(middle, bottom, right + 50, top)]
    gpd.GeoDataFrame(
        {"ward": ["west", "east"], "class": ["a", "b"]}, geometry=zones, crs=crs
    ).to_crs(4326).to_file(folder / "wards.gpkg")
    return folder


def test_no_input_is_replaced(files: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(files, tmp_path / "town"))
    inputs = [folder / "mask.tif", folder / "truth.gpkg"]
    with pytest.raises(ConfigError, match="would replace the input"):
        run_density(inputs, folder / "truth", cell_m=20)
    with pytest.raises(ConfigError, match="would replace the input"):
        run_zone_density(inputs, folder / "wards.gpkg", folder / "wards")


def test_a_mask(files: Path, town: SyntheticScene, tmp_path: Path) -> None:
    report = run_density([files / "mask.tif"], tmp_path / "v1.2", cell_m=20)
    assert [file.name for file in report.files] == [
        f"v1.2.{ending}" for ending in ("tif", "gpkg", "png")
    ]
    known = town.mask()[:, 40:]
    assert float(report.total.built_up_share) == pytest.approx(known.mean())
    with rasterio.open(report.files[0]) as raster:
        assert raster.descriptions == BANDS
        bands = dict(zip(BANDS, raster.read()))
        shape, system = raster.shape, raster.crs.to_wkt()
    cells = gpd.read_file(report.files[1])
    seen = bands["observed_share"] > 0
    assert len(cells) == seen.sum() == report.classes["dense"] + report.classes["sparse"]
    assert report.classes[None] == np.prod(shape) - len(cells)
    for name in BANDS:
        np.testing.assert_allclose(cells[name], bands[name][seen], rtol=1e-6)
    assert set(cells.columns) == {"id", "class", "buildings", "geometry", *BANDS}
    assert ((cells["class"] == "dense") == (cells["built_up_share"] >= 0.2)).all()
    assert cells.crs == system
    assert cells.geometry.area.to_numpy() == pytest.approx(400)


def test_the_truth_from_polygons_and_from_pixels(files: Path, tmp_path: Path) -> None:
    """Shares come from the mask and counts from the polygons if both are given."""
    mask = run_density([files / "mask.tif"], tmp_path / "m", cell_m=20).total
    outlines = run_density([files / "truth.gpkg"], tmp_path / "p", cell_m=20)
    run_zone_density([files / "mask.tif"], files / "wards.gpkg", tmp_path / "z")
    mask_built = gpd.read_file(tmp_path / "z.gpkg")["built_m2"].sum()
    both = run_density([files / "truth.gpkg", files / "mask.tif"], tmp_path / "b", cell_m=20).total
    assert both.built_up_share == mask.built_up_share
    truth = gpd.read_file(files / "truth.gpkg").geometry
    assert int(outlines.total.buildings) == len(truth)
    # Those on nodata are not counted: the number is one per observed area.
    with rasterio.open(files / "mask.tif") as raster:
        seen = truth.centroid.x >= raster.bounds.left + 40 * raster.res[0]
    assert 0 < int(both.buildings) == seen.sum() < len(truth)
    assert float(both.mean_area_m2) == pytest.approx(truth[seen].area.mean())
    assert any("does not contain the observed area" in note for note in outlines.notes)
    # The review of a building takes it out of the shares of cells and zones; so do edits in a GIS.
    layer = gpd.read_file(files / "truth.gpkg").assign(review="accepted", reviewer="A")
    layer[seen].to_file(tmp_path / "reviewed.gpkg")
    half = layer[seen].iloc[::2]
    half.to_file(tmp_path / "half.gpkg")
    edited = half.drop(columns=["review", "reviewer"]).assign(
        id=range(1, len(half) + 1), score=0.9, rectangularity=1.0, area_m2=half.area
    )
    edited.assign(id=1).to_file(tmp_path / "edited.gpkg")
    moved = edited.geometry.buffer([2, *[0] * (len(half) - 1)], join_style="mitre")
    edited.set_geometry(moved).to_file(tmp_path / "moved.gpkg")
    share_of_half = half.area.sum() / layer[seen].area.sum()
    for name, expected in (
        ("reviewed", 1), ("half", share_of_half), ("edited", share_of_half),
        ("moved", moved.area.sum() / layer[seen].area.sum()),
    ):  # fmt: skip
        inputs = [files / "mask.tif", tmp_path / f"{name}.gpkg"]
        kept = run_density(inputs, tmp_path / "r", cell_m=20).total
        share = float(kept.built_up_share) / float(mask.built_up_share)
        assert share == pytest.approx(expected, abs=0.03)
        run_zone_density(inputs, files / "wards.gpkg", tmp_path / "w")
        built = gpd.read_file(tmp_path / "w.gpkg")["built_m2"].sum()
        assert built == pytest.approx(expected * mask_built, rel=0.03)


def test_zones(files: Path, tmp_path: Path) -> None:
    report = run_zone_density([files / "mask.tif"], files / "wards.gpkg", tmp_path / "z")
    zones = gpd.read_file(tmp_path / "z.gpkg").set_index("ward")
    assert zones.crs.to_epsg() == 4326
    assert zones["zone_class"].tolist() == ["a", "b"]
    assert "Attributes of the zones are renamed: class is zone_class" in "".join(report.notes)
    np.testing.assert_allclose(
        zones["built_m2"], zones["zone_m2"] * zones["observed_share"] * zones["built_up_share"],
        rtol=1e-4,
    )  # fmt: skip
    with rasterio.open(files / "mask.tif") as raster:
        mask = raster.read(1)
    halves = {"west": mask[:, :128], "east": mask[:, 128:]}
    for name, half in halves.items():
        share = (half == 1).sum() / (half != 255).sum()
        assert zones.loc[name, "built_up_share"] == pytest.approx(share, abs=1e-3)
    assert zones.loc["west", "observed_share"] == pytest.approx(88 / 128, abs=2e-3)
    assert zones.loc["east", "observed_share"] < 0.9
    rows = [*csv.DictReader((tmp_path / "z.csv").read_text().splitlines())]
    assert [row["ward"] for row in rows] == ["west", "east"]
    assert "observed_is_assumed" not in rows[0]
    assert [int(row["buildings"]) for row in rows] == zones["buildings"].tolist()
    assert [report.threshold.percent(x, 1) for x in (0.19999, 0.2)] == ["19.999%", "20.0%"]
    # Of a grid of the Tasking Manager, and of boundaries: what tells the zones apart.
    ready = np.array(["READY"] * 2, object)
    assert zone_names({"status": ready, "taskId": np.array([7, 8])}, 2) == ["7", "8"]
    names = {"ADM0_EN": ready[[0, 0, 0]], "ADM1_EN": np.array(["Lagos", None, "Ogun"], object)}
    assert zone_names(names, 3) == ["Lagos", "zone 2", "Ogun"]
    assert zone_names({"ward": np.array([*"AAAB"]), "CODE": np.arange(4)}, 4) == [*"0123"]
    coded = {"gml_id": np.array(["a.1", "a.2"], object), "code": np.array([31, 32])}
    assert zone_names(coded, 2) == ["31", "32"]
    coded = {"id": np.array([1, 2]), "KOD": np.array(["01", "02"], object)}
    assert zone_names(coded | {"namn": np.array(["Å", "Ö"], object)}, 2) == ["Å", "Ö"]


def test_images_of_a_folder_are_measured_as_one(files: Path, tmp_path: Path) -> None:
    """Two images with common ground, in two systems, give the figures of the whole."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").touch()
    with rasterio.open(files / "mask.tif") as raster:
        mask, crs, place, bounds = raster.read(1), raster.crs, raster.transform, raster.bounds
    write_mask(out / "a_mask.tif", mask[:, :150], crs.to_wkt(), place)
    corner = transform_points(np.array([[bounds.left, bounds.top]]), CRS(crs), CRS(3857))[0]
    there = Affine(0.1, 0, corner[0], 0, -0.1, corner[1])
    moved = np.full((780, 780), 255, np.uint8)
    reproject(
        mask, moved, src_crs=crs, src_transform=place, dst_crs="EPSG:3857", dst_transform=there,
        src_nodata=254, dst_nodata=255, resampling=Resampling.nearest,
    )  # fmt: skip
    write_mask(out / "b_mask.tif", moved[:, 300:], "EPSG:3857", there @ Affine.translation(300, 0))
    for name in "ab":
        shutil.copy(files / "truth.gpkg", out / f"{name}_buildings.gpkg")
    pair = [files / "mask.tif", files / "truth.gpkg"]
    whole = run_zone_density(pair, files / "wards.gpkg", tmp_path / "whole")
    both = run_zone_density([out], files / "wards.gpkg", tmp_path / "both")
    assert (whole.names, whole.classes) == (both.names, both.classes)
    assert whole.figures.buildings.tolist() == both.figures.buildings.tolist()
    for name in ("built_up_share", "observed_share"):
        shares = [getattr(one.figures, name) for one in (whole, both)]
        assert shares[0] == pytest.approx(shares[1], abs=0.004)
    nearest = [gpd.read_file(one.files[0])["nearest_m"].tolist() for one in (whole, both)]
    assert nearest[0] == pytest.approx(nearest[1], rel=0.02)
    assert "ha that several images show" in "".join(both.notes)
    reports = [run_density(given, tmp_path / "c", cell_m=20) for given in (pair, [out])]
    said = ["Pseudo-Mercator has no true metres" in "".join(report.notes) for report in reports]
    assert said == [False, True]
    one, other = (report.total for report in reports)
    assert one.buildings == other.buildings
    assert float(one.built_m2) == pytest.approx(float(other.built_m2), rel=0.01)
    # A village without a building does not stop the others.
    (out / "a_buildings.gpkg").unlink()
    write_polygons(out / "a_buildings.gpkg", np.array([], object), {}, CRS(crs))
    fewer = run_zone_density([out], files / "wards.gpkg", tmp_path / "fewer")
    assert 0 < fewer.figures.buildings.sum() < both.figures.buildings.sum()


def test_buildings_on_the_edges_of_images_count_once(
    town: SyntheticScene, files: Path, tmp_path: Path
) -> None:
    """Four images that meet or overlap have the figures of the whole, small parts included."""
    found = []
    for number, (edges, last) in enumerate((([0], 0), ([0, 118], 118), ([0, 118], 130))):
        tiles = []
        for top, left in itertools.product(edges, edges):
            rows, cols = (slice(at, None if at == edges[-1] else last) for at in (top, left))
            tiles.append(tmp_path / f"{number}_{top}_{left}.tif")
            corner = town.grid.transform @ Affine.translation(left, top)
            write_mask(tiles[-1], town.mask()[rows, cols], str(town.grid.crs), corner)
        zones = run_zone_density(tiles, files / "wards.gpkg", tmp_path / "z", min_area_m2=9)
        found.append(zones.files[1].read_text())
    assert found[0] == found[1] == found[2]


@pytest.fixture
def half_seen(tmp_path: Path) -> Path:
    """Write m.tif with nodata in its south, b.gpkg with a building on observed ground and one on
    nodata, and z.gpkg, a zone and one on nodata alone.
    """
    mask = np.zeros((200, 100), np.uint8)
    mask[20:40, 20:40] = 1
    mask[100:103, 60:63] = 1
    mask[150:] = 255
    write_mask(tmp_path / "m.tif", mask, "EPSG:32633", Affine(1, 0, 5e5, 0, -1, 5e6))
    houses = [box(500018, 4999958, 500042, 4999982), box(500050, 4999810, 500090, 4999840)]
    zone = [box(500000, 4999800, 500100, 5000000), box(500000, 4999800, 500100, 4999845)]
    for name, shapes in (("b", houses), ("z", zone)):
        gpd.GeoDataFrame(geometry=shapes, crs=32633).to_file(tmp_path / f"{name}.gpkg")
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "min_area_m2", "buildings"),
    [(["m.tif"], 0.0, 2), (["m.tif"], 50.0, 1), (["m.tif", "b.gpkg"], 0.0, 1),
     (["b.gpkg", "m.tif"], 1000.0, 0), (["m.tif", "b.gpkg"], 500.0, 1)],
)  # fmt: skip
def test_shares_of_zones_come_from_the_mask_as_those_of_cells(
    inputs: list[str], min_area_m2: float, buildings: int, half_seen: Path
) -> None:
    given = [half_seen / name for name in inputs]
    zones = run_zone_density(
        given, half_seen / "z.gpkg", half_seen / "by_zone", min_area_m2=min_area_m2
    )
    zone, unseen = gpd.read_file(zones.files[0]).iloc
    assert np.isnan(unseen[["buildings", "built_m2", "built_up_share"]].astype(float)).all()
    assert zones.files[1].read_text().splitlines()[2].startswith("zone 2,,,,")
    assert "1 zone without observed area: figures are empty." in zones.notes
    assert any("zone 1 and zone 2 (4,500 m²)" in note for note in zones.notes)
    assert zone["built_up_share"] == pytest.approx((400 + 9) / 15000)
    assert zone["observed_share"] == pytest.approx(0.75)
    assert zone["buildings"] == buildings
    cells = run_density(given, half_seen / "c", cell_m=100, min_area_m2=min_area_m2).total
    assert float(cells.built_up_share) == pytest.approx(zone["built_up_share"])
    assert int(cells.buildings) == buildings


def test_zones_of_polygons_and_of_another_place(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = gpd.GeoDataFrame(
        {"source": ["© A", "© A", None], "imagery_date": ["2024-05-17", "2023-01-02", None]},
        geometry=[gpd.read_file(files / "wards.gpkg").union_all()] * 3, crs=4326,
    )  # fmt: skip
    tile = tmp_path / "region/buildings/quadkey=1"
    tile.mkdir(parents=True)
    scenes.to_file(tmp_path / "region/observed.gpkg")
    gpd.read_file(files / "truth.gpkg").to_parquet(tile / "buildings.parquet")
    drawn: list[str] = []

    def draw(*said: Any) -> Image.Image:
        drawn.append(said[-1])
        return draw_zones(*said)

    monkeypatch.setattr("rooftrace.flows.density.run.draw_zones", draw)
    report = run_zone_density([tmp_path / "region"], files / "wards.gpkg", tmp_path / "z")
    assert drawn[0].startswith("Imagery: © A, 2023-01-02/2024-05-17. Source: region, wards.")
    assert report.classes[None] == 0
    # A zone between the buildings has none.
    truth = gpd.read_file(files / "truth.gpkg").to_crs(32633)
    free = truth.union_all().envelope.difference(truth.union_all().buffer(1))
    spot = free.representative_point().buffer(0.5)
    gpd.GeoDataFrame(geometry=[spot], crs=32633).to_file(tmp_path / "free.gpkg")
    report = run_zone_density([files / "truth.gpkg"], tmp_path / "free.gpkg", tmp_path / "free_out")
    zone = gpd.read_file(report.files[0]).loc[0]
    assert (zone["buildings"], zone["built_up_share"], zone["observed_share"]) == (0, 0, 1)
    # Nothing says which ground was seen: the table must not look as if all of it were.
    assert zone["observed_is_assumed"]
    assert report.notes[1:] == (f"Buildings in no zone: {len(truth)} of {len(truth)}.",)
    truth.dissolve().envelope.iloc[[0, 0]].to_file(tmp_path / "free.gpkg")
    report = run_zone_density([files / "truth.gpkg"], tmp_path / "free.gpkg", tmp_path / "free_out")
    assert report.notes[2] == f"Buildings in several zones, which count in each: {len(truth)}."
    far = gpd.read_file(files / "wards.gpkg").translate(5, 5)
    gpd.GeoDataFrame(geometry=far, crs=4326).to_file(tmp_path / "far.gpkg")
    for given in ("truth.gpkg", "mask.tif"):
        with pytest.raises(DataError, match="longitude"):
            run_zone_density([files / given], tmp_path / "far.gpkg", tmp_path / "no")
    lost = write_mask(tmp_path / "lost.tif", np.ones((9, 9), np.uint8), None, Affine.scale(2, 2))
    with pytest.raises(GeoreferenceError, match="zones cannot be placed"):
        run_zone_density([lost], files / "wards.gpkg", tmp_path / "no")


def test_the_datum_of_zones_is_compared_with_that_of_the_buildings(tmp_path: Path) -> None:
    feet = gpd.GeoSeries([box(2_000_000, 500_000, 2_000_040, 500_030)], crs=26743)
    for name, layer in (("old", feet), ("zones", feet.buffer(400)), ("new", feet.to_crs(4326))):
        layer.to_file(tmp_path / f"{name}.gpkg")
    # PROJ lacks the grid between NAD27 and WGS 84.
    for name, noted in (("old", False), ("new", True)):
        inputs, zones = [tmp_path / f"{name}.gpkg"], tmp_path / "zones.gpkg"
        notes = run_zone_density(inputs, zones, tmp_path / "out").notes
        assert any("us_noaa_conus.tif" in note for note in notes) == noted
    feet.buffer(400).to_crs(4326).to_file(tmp_path / "zones.kml", driver="LIBKML")
    run_zone_density(inputs, tmp_path / "zones.kml", tmp_path / "out")
    assert {"placemark_visibility", "begin"}.isdisjoint(gpd.read_file(tmp_path / "out.csv"))


def test_swapped_axes_of_a_layer_are_noted(tmp_path: Path) -> None:
    house = gpd.GeoSeries([box(463_000, 155_000, 463_010, 155_010)], crs=28992)
    house.to_file(tmp_path / "rd.gpkg")
    notes = run_density([tmp_path / "rd.gpkg"], tmp_path / "x").notes
    assert any("rd.gpkg lies far outside" in note and "look swapped" in note for note in notes)


def test_images_of_nodata_alone_are_unknown(tmp_path: Path) -> None:
    unseen = np.full((40, 40), 255, np.uint8)
    places = [Affine(1, 0, 5e5 + left, 0, -1, 5e6) for left in (0, 40)]
    tiles = [write_mask(tmp_path / f"{p.c}.tif", unseen, "EPSG:32633", p) for p in places]
    report = run_density(tiles, tmp_path / "c", cell_m=40, building="1")
    assert report.classes == {"dense": 0, "sparse": 0, None: 2}


def test_a_date_whose_layer_may_not_cover_a_zone_is_noted(half_seen: Path) -> None:
    gpd.read_file(half_seen / "b.gpkg").iloc[:1].to_file(half_seen / "north.gpkg")
    dates = [half_seen / name for name in ("b.gpkg", "north.gpkg")]
    report = run_date_density(dates, half_seen / "z.gpkg", half_seen / "d")
    empty = [note.partition(" where")[0] for note in report.notes if "such as zone 2" in note]
    assert empty == ["north: no building in 1 zone"]
    assert gpd.read_file(half_seen / "d.gpkg").observed_is_assumed.all()


def test_a_zone_far_from_the_imagery_has_its_area(half_seen: Path) -> None:
    zones = gpd.read_file(half_seen / "z.gpkg").to_crs(4326).geometry
    gpd.GeoSeries([zones[0], zones.translate(20)[0]], crs=4326).to_file(half_seen / "far.gpkg")
    mask = half_seen / "m.tif"
    later = Path(shutil.copy(mask, half_seen / "later.tif"))
    run_zone_density([mask], half_seen / "far.gpkg", half_seen / "o")
    run_date_density([mask, later], half_seen / "far.gpkg", half_seen / "dates")
    for name, dates in (("o", 1), ("dates", 2)):
        area = gpd.read_file(half_seen / f"{name}.gpkg")["zone_m2"]
        np.testing.assert_allclose(area, [20000, 20000 / 0.9996**2] * dates, rtol=1e-4)


def test_repeated_polygons_count_once(half_seen: Path) -> None:
    house, other = gpd.read_file(half_seen / "b.gpkg").geometry
    # The same outline from another vertex, in the other direction; and a part of the house.
    turned = Polygon(np.roll(house.exterior.coords[:-1], 1, axis=0)[::-1])
    part = box(500020, 4999960, 500030, 4999970)
    gpd.GeoDataFrame(geometry=[house, other, house, turned, part], crs=32633).to_file(
        half_seen / "several.gpkg"
    )
    for name, buildings in (("b.gpkg", 2), ("several.gpkg", 3)):
        zones = run_zone_density([half_seen / name], half_seen / "z.gpkg", half_seen / "z_out")
        zone = gpd.read_file(zones.files[0]).loc[0]
        cells = run_density([half_seen / name], half_seen / "c", cell_m=200)
        assert zone["built_up_share"] == pytest.approx((24 * 24 + 40 * 30) / 20000)
        assert cells.total.built_m2.sum() == pytest.approx(24 * 24 + 40 * 30)
        assert (zone["buildings"], int(cells.total.buildings)) == (buildings, buildings)
        for report in (zones, cells):
            said = "2 polygons exactly on another one left out." in report.notes
            upon = any("centres of 1 polygon lie in another" in note for note in report.notes)
            assert said == upon == (name == "several.gpkg")


def test_a_mask_without_georeference(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:20, 10:20] = mask[40:50, 60:70] = 255  # 0 and 255, as in most masks that are PNG files
    Image.fromarray(mask).save(tmp_path / "m.png")
    report = run_density([tmp_path / "m.png"], tmp_path, cell_m=10, gsd_m=0.5)
    assert report.files[0].name == "m_density.tif"
    style = ElementTree.parse(tmp_path / "m_density.qml").getroot()
    assert [renderer.attrib["band"] for renderer in style.iter("rasterrenderer")] == ["1"]
    assert [float(item.attrib["value"]) for item in style.iter("item")] == [0, *BREAKS, 1]
    assert (report.figures.area_m2.shape, report.to_json()["crs"][:6]) == ((3, 4), "metres")
    assert (int(report.total.buildings), float(report.total.mean_area_m2)) == (2, 25)
    assert float(report.total.built_up_share) == pytest.approx(200 / 4800)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_buildings_in_pixels_beside_their_mask(tmp_path: Path, suffix: str) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:20, 10:20] = mask[40:50, 60:70] = 1
    record = MaskRecord(polygons=VectorOptions(), gsd_m=0.5, building=1, shape=mask.shape)
    grid = GeoGrid(mask.shape, Affine.identity(), None)
    with mask_sink(tmp_path / "m_mask.png", grid, tags=record.tags()) as sink:
        sink.write(Window.whole(mask.shape), mask)
    # One region of the mask is two buildings.
    parts = [box(10, 10, 15, 20), box(15, 10, 20, 20), box(60, 40, 70, 50)]
    buildings = tmp_path / f"m_buildings{suffix}"
    write_polygons(buildings, np.array(parts), {"id": np.arange(3)}, None)
    for inputs, gsd_m in (([tmp_path / "m_mask.png", buildings], 0.5), ([buildings], None)):
        report = run_density(inputs, tmp_path, cell_m=10, gsd_m=gsd_m)
        assert int(report.total.buildings) == 3
        assert float(report.total.mean_area_m2) == pytest.approx(50 / 3)
        assert float(report.total.built_up_share) == pytest.approx(200 / 4800)
    (tmp_path / "m_mask.png").unlink()
    with pytest.raises(GeoreferenceError) as alone:
        run_density([buildings], tmp_path, cell_m=10, gsd_m=0.5)
    assert suffix == ".gpkg" or "MASK m_buildings.geojson --gsd" in alone.value.remedy
    placed = write_mask(tmp_path / "m.tif", mask, "EPSG:32737", Affine(1, 0, 5e5, 0, -1, 9e6))
    with pytest.raises(GeoreferenceError):
        run_density([placed, buildings], tmp_path, cell_m=10)


def test_which_class_is_buildings(files: Path, tmp_path: Path) -> None:
    classes = np.array([[0, 1, 2, 2]] * 4, np.uint8).repeat(10, 0).repeat(10, 1)
    path = write_mask(tmp_path / "m.tif", classes, "EPSG:32737", Affine(1, 0, 5e5, 0, -1, 9e6))
    with pytest.raises(LabelError) as several:
        run_density([path], tmp_path / "x")
    assert "--building" in several.value.remedy
    assert run_density([path], tmp_path / "x", building="2").total.built_up_share == 0.5
    with pytest.raises(ConfigError, match="building received 'roof', which is not in"):
        run_density([path], tmp_path / "x", building="roof")

    frame = gpd.read_file(files / "truth.gpkg")
    frame["class"] = ["hall", *["house"] * (len(frame) - 1)]
    frame.to_file(tmp_path / "c.gpkg")
    # Kinds of buildings are all buildings, but classes of a mask need not be.
    assert int(run_density([tmp_path / "c.gpkg"], tmp_path / "x").total.buildings) == len(frame)
    frame.assign(class_id=1).to_file(tmp_path / "m.gpkg")
    with pytest.raises(LabelError, match="hall, house") as unnamed:
        run_density([tmp_path / "m.gpkg"], tmp_path / "x")
    assert "--building hall" in unnamed.value.remedy
    assert run_density([tmp_path / "c.gpkg"], tmp_path / "x", building="hall").total.buildings == 1


@pytest.fixture
def land_cover(tmp_path: Path) -> Path:
    """Write m.tif with a road, 2, and a building, 3, p.gpkg with their polygons, and z.gpkg."""
    mask = np.zeros((100, 100), np.uint8)
    mask[10:20, 10:20], mask[50:70, 50:70] = 2, 3
    write_mask(tmp_path / "m.tif", mask, "EPSG:32633", Affine(1, 0, 5e5, 0, -1, 5e6))
    left, top = 500000, 5000000
    shapes = [box(left + 10, top - 20, left + 20, top - 10), box(left + 50, top - 70, left + 70,
                                                                 top - 50)]  # fmt: skip
    frame = gpd.GeoDataFrame({"class": ["road", "building"]}, geometry=shapes, crs=32633)
    frame.to_file(tmp_path / "p.gpkg")
    # A zone that exceeds the mask.
    zone = gpd.GeoDataFrame(geometry=[box(left, top - 100, left + 200, top)], crs=32633)
    zone.to_file(tmp_path / "z.gpkg")
    return tmp_path


def name_classes(folder: Path, *names: str) -> None:
    categories = "".join(f"<Category>{name}</Category>" for name in names)
    (folder / "m.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        "</PAMRasterBand></PAMDataset>"
    )


@pytest.mark.parametrize(
    ("names", "building"),
    [("empty other road Building", None), ("empty other road Building", "building"),
     ("empty other road Building", "3"), ("", "3")],
)  # fmt: skip
def test_buildings_of_a_mask_of_several_classes_and_of_its_polygons(
    names: str, building: str | None, land_cover: Path
) -> None:
    name_classes(land_cover, *names.split())
    inputs = [land_cover / "m.tif", land_cover / "p.gpkg"]
    cells = run_density(inputs, land_cover / "c", cell_m=100, building=building)
    zones = run_zone_density(inputs, land_cover / "z.gpkg", land_cover / "o", building=building)
    zone = gpd.read_file(zones.files[0]).loc[0]
    assert int(cells.total.buildings) == zone["buildings"] == 1
    assert float(cells.total.built_up_share) == pytest.approx(400 / 10000)
    assert zone["built_up_share"] == pytest.approx(400 / 10000)
    for report in (cells, zones):
        said = [note for note in report.notes if "1 polygon of another class than building" in note]
        assert bool(said) == (building is None)


@pytest.fixture
def valued(tmp_path: Path) -> Path:
    """Write b.gpkg, two buildings and a road with heights, and z.gpkg, two zones.

    The second building lies on nodata of m.tif and its centroid on the border of the zones.
    """
    shapes = [box(10, 10, 20, 20), box(45, 40, 55, 60), box(70, 70, 90, 90)]
    columns = {
        "class": ["building", "building", "road"], "height": [5.0, 7.0, 900.0],
        "num_floors": [2, None, None], "num_floors_estimated": [1, 3, 300],
    }  # fmt: skip
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=32633)
    frame.geometry = frame.translate(5e5, 5e6)
    frame.to_file(tmp_path / "b.gpkg")
    zones = gpd.GeoSeries([box(0, 0, 50, 100), box(50, 0, 100, 100)], crs=32633)
    zones.translate(5e5, 5e6).to_file(tmp_path / "z.gpkg")
    mask = np.zeros((100, 100), np.uint8)
    mask[80:90, 10:20], mask[40:60, 45:55] = 1, 255
    write_mask(tmp_path / "m.tif", mask, "EPSG:32633", Affine(1, 0, 5e5, 0, -1, 5e6 + 100))
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "options", "counts", "means"),
    [
        (["b.gpkg"], {}, [1, 1], [5, 7]),
        (["b.gpkg"], {"min_area_m2": 150}, [0, 1], [np.nan, 7]),
        (["b.gpkg"], {"building": "road"}, [0, 1], [np.nan, 900]),
        (["b.gpkg", "m.tif"], {}, [1, 0], [5, np.nan]),
    ],
)
def test_values_of_zones_are_those_of_the_buildings_that_are_counted(
    valued: Path, inputs: list[str], options: dict, counts: list[int], means: list[float]
) -> None:
    paths = [valued / name for name in inputs]
    run_zone_density(paths, valued / "z.gpkg", valued / "out", value="height", **options)
    zones = gpd.read_file(valued / "out.gpkg")
    assert zones["height_count"].tolist() == zones["buildings"].tolist() == counts
    np.testing.assert_allclose(zones["height_mean"], means)
    if not options:
        floors, volume = zones["floor_m2"], zones["volume_m3"]
        np.testing.assert_allclose(floors, np.array([100 * 2, 200 * 3]) * counts)
        np.testing.assert_allclose(volume, np.array([100 * 5, 200 * 7]) * counts)
        # What is not known is empty, in whole numbers too.
        unknown = -1 if inputs[1:] else -1.0
        frame = gpd.read_file(paths[0]).drop(columns="num_floors_estimated")
        frame.assign(height=[unknown, 7, 9], num_floors=[None, 3, 3]).to_file(paths[0])
        run_zone_density(paths[:1], valued / "z.gpkg", valued / "out", value="height")
        zones = gpd.read_file(valued / "out.gpkg")[["height_mean", "volume_m3", "floor_m2"]]
        np.testing.assert_array_equal(zones, [[np.nan] * 3, [7, 1400, 600]])


def test_a_value_needs_a_column_of_numbers(valued: Path) -> None:
    for value, message in (("heigth", "no attribute 'heigth'; it has class"), ("class", "text")):
        with pytest.raises(DataError, match=message):
            run_zone_density([valued / "b.gpkg"], valued / "z.gpkg", valued / "x", value=value)
    with pytest.raises(ConfigError, match="a mask has no attributes"):
        run_zone_density([valued / "m.tif"], valued / "z.gpkg", valued / "x", value="height")


def test_a_mask_whose_background_is_nodata(tmp_path: Path) -> None:
    mask = np.eye(9, dtype=np.uint8)
    place = {"crs": "EPSG:32737", "transform": Affine(1, 0, 5e5, 0, -1, 9e6)}
    write_geotiff(tmp_path / "m.tif", mask, nodata=0, **place)
    for building in (None, "1"):
        with pytest.raises(LabelError, match=r"nodata value 0.*-unsetnodata"):
            run_density([tmp_path / "m.tif"], tmp_path / "x", building=building)


def test_inputs_that_do_not_fit_together(files: Path, tmp_path: Path) -> None:
    truth = files / "truth.gpkg"
    gpd.read_file(truth).iloc[:0].to_file(tmp_path / "none.gpkg")
    (tmp_path / "points.csv").write_text("latitude,longitude\n1.5,36.5\n")
    ones, place = np.ones((9, 9), np.uint8), Affine.scale(2, -2)
    far = [write_mask(tmp_path / f"{n}.tif", ones, f"EPSG:{n}", place) for n in (32636, 32651)]
    for kind, message, inputs, options in (
        (DataError, "no mask beside.*compare NEW OLD --keep", [truth, files / "wards.gpkg"], {}),
        (ConfigError, "is a folder", [files], {}),
        (DataError, "does not exist", [tmp_path / "absent.tif"], {}),
        (ConfigError, "holds no pixels", [truth], {"gsd_m": 1}),
        (ConfigError, "ending", [files / "mask.tif"], {"out": tmp_path / "x.tif"}),
        (DataError, "no building", [tmp_path / "none.gpkg"], {}),
        (DataError, "has no column geometry with polygons", [tmp_path / "points.csv"], {}),
        (GeoreferenceError, "too far from the first one", far, {}),
    ):
        with pytest.raises(kind, match=message):
            run_density(inputs, **{"out": tmp_path / "x"} | options)
    assert not [*tmp_path.glob("x*")]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Ten masks of 4 to 13 % and ten of 40 to 49 %, one of nodata, and their labels."""
    folder = tmp_path / "masks"
    folder.mkdir()
    rows = ["image,label"]
    for number in range(20):
        share = (4 if number < 10 else 30) + number
        mask = np.zeros((10, 10), np.uint8)
        mask.flat[:share] = 1
        Image.fromarray(mask).save(folder / f"{number:02}.png")
        rows.append(f"{number:02}.png,{'sparse' if number < 10 else 'dense'}")
    empty = GeoGrid((4, 4), Affine.scale(2, 2))
    with mask_sink(folder / "20.tif", empty) as sink:
        sink.write(Window(0, 0, 4, 4), np.full((4, 4), NODATA, np.uint8))
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_images_and_a_fitted_threshold(labelled: Path) -> None:
    masks = labelled / "masks"
    # As in the folder of a prediction.
    (masks / "run.json").touch()
    Image.new("RGB", (9, 9), "red").save(masks / "00_preview.png")
    report = run_by_image(masks, labelled / "default")
    assert report.classes == {"dense": 10, "sparse": 10, None: 1}
    rows = [*csv.DictReader((labelled / "default.csv").read_text().splitlines())]
    assert rows[0] == {"image": "00.png", "built_up_share": "0.04", "class": "sparse"}
    assert rows[20] == {"image": "20.tif", "built_up_share": "", "class": ""}

    fitted = fit_images(masks, labelled / "labels.csv", labelled / "fit")
    assert [file.name for file in fitted.files] == ["fit.json", "fit.csv"]
    threshold = read_threshold(labelled / "fit.json")
    assert threshold == fitted.threshold
    assert threshold.threshold == pytest.approx((0.13 + 0.40) / 2)
    assert fitted.notes == ()
    again = run_by_image(masks, labelled / "again", threshold=threshold, glob=["0*.png"])
    assert again.classes == {"dense": 0, "sparse": 10, None: 0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,label\na.png,x\n", "columns"),
        ("image,label\n00.png,\n", "Line 2"),
        ("image,label\n00.png,dense\n00.png,sparse\n", "each image once"),
        ("image,label\n0.png,dense\n", r"neither in"),
        ("image,label\n00.png,dense\n01.png,town\n", "expected sparse or dense"),
    ],
)
def test_labels_that_cannot_be_used(table: str, message: str, labelled: Path) -> None:
    (labelled / "bad.csv").write_text(table)
    with pytest.raises(LabelError, match=message):
        fit_images(labelled / "masks", labelled / "bad.csv", labelled / "fit")


@pytest.mark.campaign
def test_dates_share_one_table_and_the_ground_that_all_show(tmp_path: Path) -> None:
    """A later image lies 4 m to the east, shows half of a ward, and has one more building."""
    rng = np.random.default_rng(0)
    old = np.zeros((400, 600), np.uint8)
    for row, col in np.ndindex(6, 10):
        height, width = rng.integers(8, 24, 2)
        old[row * 60 + 20 :, col * 60 + 10 :][:height, :width] = 1
    new = old.copy()
    new[382:398, 20:40] = 1
    new[:, 300:] = 255
    for year, mask, left in ((1978, old, 450_000), (2024, new, 450_004)):
        place = Affine(0.5, 0, left, 0, -0.5, 6_400_000)
        write_mask(tmp_path / f"{year}_mask.tif", mask, "EPSG:3006", place)
    ward = box(450_000, 6_399_800, 450_300, 6_400_000)
    gpd.GeoDataFrame({"date": ["x"]}, geometry=[ward], crs=3006).to_file(tmp_path / "w.gpkg")
    dates = tmp_path / "1978_mask.tif", tmp_path / "2024_mask.tif"
    report = run_date_density(dates, tmp_path / "w.gpkg", tmp_path / "d")
    assert "2024: moved by -4.0 m east and +0.0 m north, onto 1978." in report.notes
    record = json.loads(report.files[2].read_text())
    assert (record["notes"], record["dates"][1]["offset"]["pairs"]) == ([*report.notes], 30)
    table = gpd.read_file(report.files[0], layer=0)
    assert table[["zone", "zone_date"]].to_numpy().tolist() == [[1, "x"], [1, "x"]]
    # Of its own ground each date has other figures, with no change but one building of 80 m².
    assert table["buildings"].tolist() == [60, 31]
    assert table["common_buildings"].tolist() == [30, 31]
    assert np.diff(table["common_built_m2"]) == pytest.approx(80, abs=0.5)
