"""`run_vectorize`: masks and probabilities of any tool become polygons."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.errors import (
    ConfigError,
    DataError,
    GeoreferenceError,
    LabelError,
    RooftraceError,
)
from rooftrace.core.types import GeoGrid, Window
from rooftrace.flows import vectorize as vectorize_inputs
from rooftrace.flows.density.images import run_by_image
from rooftrace.flows.vectorize import VectorizeReport, run_vectorize
from rooftrace.io.legend import Legend
from rooftrace.io.masks import mask_sink
from rooftrace.vector.prepare import VectorOptions
from town import generate_scene

PLAIN = VectorOptions(min_area_px=0, simplify_px=0, regularize=False)
GRID = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
HOUSES = np.zeros((40, 60), np.uint8)
HOUSES[4:14, 5:25] = HOUSES[20:36, 30:50] = 1
HOUSES[24:30, 36:42] = 0
AREA_PX = 200 + 16 * 20 - 36


def write(path: Path, data: np.ndarray, **more: object) -> Path:
    return write_geotiff(path, data, **GRID | more)


def made(
    path: Path, options: VectorOptions = PLAIN, **more: object
) -> tuple[VectorizeReport, geopandas.GeoDataFrame]:
    out = path.parent / "out.gpkg"
    report = run_vectorize(path, out, options, **more)
    table = geopandas.read_file(out)
    assert report.polygons == len(table)
    return report, table


@pytest.mark.parametrize(
    ("data", "more"),
    [
        (HOUSES, {}), (HOUSES * 255, {}), (HOUSES * 7, {}), (HOUSES, {"nbits": 1}),
        (HOUSES.astype(np.int16), {}), (HOUSES.astype(np.uint16) * 255, {"nodata": 9999}),
        (np.stack([HOUSES * 255] * 3), {"photometric": "rgb"}), (HOUSES.astype(np.float32), {}),
    ],
    ids=["01", "0255", "07", "bits", "int16", "uint16", "rgb", "float"],
)  # fmt: skip
def test_a_mask_of_buildings_in_any_format(tmp_path: Path, data: np.ndarray, more: dict) -> None:
    report, table = made(write(tmp_path / "mask.tif", data, **more))
    assert list(table.columns)[:3] == ["id", "score", "area_m2"]
    assert table.area.tolist() == pytest.approx([50.0, 71.0])
    assert [len(polygon.interiors) for polygon in table.geometry] == [0, 1]
    (building,) = report.classes
    assert (building.name, building.class_id, building.polygons) == ("building", 1, 2)
    assert building.area_m2 == pytest.approx(AREA_PX / 4, rel=2e-3)
    assert report.regularized is None


def test_a_mask_that_jpeg_has_blurred(tmp_path: Path) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[41:123, 53:157] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg")))) > 9
    report = run_vectorize(tmp_path / "m.jpg", tmp_path / "out.geojson")
    assert [(one.name, one.polygons) for one in report.classes] == [("building", 1)]
    found = geopandas.read_file(tmp_path / "out.geojson")
    assert shapely.area(found.geometry).sum() == pytest.approx(82 * 104, rel=0.01)
    shares = run_by_image(tmp_path / "m.jpg", tmp_path / "table").shares
    assert shares == pytest.approx([82 * 104 / 60_000], rel=0.01)


def test_polygons_are_no_mask(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError, match="holds polygons already"):
        run_vectorize(tmp_path / "a.geojson", tmp_path / "b.gpkg")


def test_images_without_georeference(tmp_path: Path) -> None:
    palette = Image.fromarray(HOUSES, "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(HOUSES > 0).save(tmp_path / "bits.png")
    opaque = np.full_like(HOUSES, 255)
    opaque[:15] = 0
    Image.fromarray(np.stack([HOUSES * 255] * 3 + [opaque], axis=-1)).save(tmp_path / "rgba.png")
    for name, area_px in (("palette", AREA_PX), ("bits", AREA_PX), ("rgba", AREA_PX - 200)):
        out = tmp_path / f"{name}.geojson"
        report = run_vectorize(tmp_path / f"{name}.png", out, PLAIN)
        table = geopandas.read_file(out)
        assert shapely.area(table.geometry.to_numpy()).sum() == area_px
        assert table["area_m2"].isna().all()
        assert "coordinates are pixels" in report.notes[0]
        assert report.classes[0].area_m2 is None
    report = run_vectorize(tmp_path / "bits.png", out, PLAIN, gsd_m=2.0)
    assert report.classes[0].area_m2 == AREA_PX * 4


def test_every_class_has_its_own_polygons(tmp_path: Path) -> None:
    mask = HOUSES.copy()
    mask[:2] = 3
    mask[24:30, 36:42] = 2
    mask[-1] = 255
    grid = GeoGrid(mask.shape, GRID["transform"], rasterio.CRS.from_epsg(32633))
    names = ("ground", "building", "water", "road & rail")
    with mask_sink(tmp_path / "mask.tif", grid, Legend(names)) as sink:
        sink.write(Window.whole(mask.shape), mask)
    report, table = made(tmp_path / "mask.tif")
    assert [(one.name, one.polygons) for one in report.classes] == [
        ("building", 2), ("water", 1), ("road & rail", 1)
    ]  # fmt: skip
    assert table["class"].tolist() == ["road & rail", "building", "building", "water"]
    assert table["class_id"].tolist() == [3, 1, 1, 2]
    assert report.notes == ()
    assert table.area.sum() == pytest.approx((mask[:-1] > 0).sum() / 4)
    report, table = made(tmp_path / "mask.tif", classes=["Water", "3"])
    assert table["class_id"].tolist() == [3, 2]
    assert "is named building" in report.notes[0]
    with pytest.raises(
        ConfigError, match=r"'roof', which is not in .* 1 \(building\), 2 \(water\)"
    ):
        made(tmp_path / "mask.tif", classes=["roof"])


def test_classes_without_names(tmp_path: Path) -> None:
    mask = HOUSES.copy()
    mask[0], mask[-1] = 5, 255
    report, table = made(write(tmp_path / "mask.tif", mask))
    assert table["class"].tolist() == ["5", "1", "1"]
    assert "255 beside other classes is read as nodata" in report.notes[0]
    assert "none of the classes 1, 5 is named building" in report.notes[1]
    assert report.notes[1].endswith("--class 5")
    report, table = made(write(tmp_path / "mask.tif", mask), classes=["1"])
    assert len(table) == 2
    assert "class" not in table.columns, "a single class without a name is buildings"
    report, table = made(write(tmp_path / "mask.tif", np.where(HOUSES, 2, 1).astype(np.uint8)))
    assert len(table) == 2
    assert "1 is read as the background" in report.notes[0]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_probabilities_are_cut_at_a_threshold(tmp_path: Path, dtype: type) -> None:
    prob = np.where(HOUSES > 0, 0.8, 0.1)
    prob[:18] *= 0.7
    scale = 255 if dtype == np.uint8 else 1
    data = (prob * scale).astype(dtype)
    data[0, 0] = 0 if dtype == np.uint8 else np.nan
    path = write(tmp_path / "prob.tif", data)
    _, table = made(path, threshold=0.6)
    assert table["score"].tolist() == pytest.approx([0.8], abs=1e-6)
    report, table = made(path, threshold=0.5)
    assert table["score"].tolist() == pytest.approx([0.56, 0.8], abs=4e-3)
    if dtype == np.float32:
        report, again = made(path)
        assert again.equals(table)
        assert "pixels of 0.5 or more" in report.notes[0]


def test_nodata_is_no_building(tmp_path: Path) -> None:
    mask = HOUSES.copy()
    mask[:16, 10:] = 9
    report, table = made(write(tmp_path / "mask.tif", mask, nodata=9))
    assert table.area.tolist() == pytest.approx([10 * 5 / 4, 71])
    report, table = made(write(tmp_path / "mask.tif", HOUSES * 255, nodata=255))
    assert len(table) == 0
    assert "declares 255 as nodata" in report.notes[0]


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = generate_scene(4, (500, 300))
    path = write(tmp_path / "mask.tif", scene.mask())
    options = VectorOptions(min_area_m2=4, min_hole_m2=2, min_area_px=0)
    report, whole = made(path, options)
    before = (tmp_path / "out.gpkg").read_bytes()
    monkeypatch.setattr(vectorize_inputs, "_BLOCK_PX", 1)
    monkeypatch.setattr(vectorize_inputs, "_BAND_PX", 37)
    seen: list[tuple[int, int]] = []
    again, cut = made(path, options, progress=lambda *done: seen.append(done))
    assert cut.equals(whole)
    assert (tmp_path / "out.gpkg").read_bytes() == before
    assert seen[-1] == (2 * 500 * 300, 2 * 500 * 300)
    assert again.regularized == report.regularized > 0.3
    assert whole.geometry.is_valid.all()
    truth = shapely.union_all(np.array(scene.buildings, object))
    found = shapely.transform(
        whole.union_all(),
        lambda xy: np.stack(
            scene.grid.to_world((xy[:, 0] - 500_000) * 2, (5_000_000 - xy[:, 1]) * 2), axis=1
        ),
    )
    assert found.intersection(truth).area > 0.9 * found.union(truth).area


def test_unreadable_values_are_refused(tmp_path: Path) -> None:
    grey = np.arange(60, dtype=np.uint8)[None].repeat(40, axis=0)
    coloured = np.stack([HOUSES * 9, HOUSES, HOUSES])
    cases: list[tuple[np.ndarray, dict, type[RooftraceError], str]] = [
        (grey, {}, LabelError, "59 different values"),
        (coloured, {}, LabelError, "its 3 bands differ"),
        (HOUSES.astype(np.int32) * 70_000, {}, LabelError, "values such as 70000"),
        (HOUSES * np.float32(2), {}, LabelError, "values from 0 to 2"),
        (np.stack([HOUSES * np.float32(1)] * 2), {}, LabelError, "2 bands of float32"),
        (HOUSES.astype(np.int16), {"threshold": 0.5}, LabelError, "holds int16 values"),
        (HOUSES, {"threshold": 0.5, "classes": ["1"]}, ConfigError, "class was given, but"),
        (HOUSES, {"classes": ["2"]}, ConfigError, "'2', which is not in .* expected one of 1"),
    ]
    for data, more, kind, message in cases:
        with pytest.raises(kind, match=message):
            made(write(tmp_path / "mask.tif", data), **more)
    with pytest.raises(LabelError) as image:
        made(write(tmp_path / "mask.tif", coloured))
    assert "rooftrace compare NEW OLD -m default" in image.value.remedy
    # The content decides the format, so a raster may have the ending of a vector file.
    path = write(tmp_path / "mask.tif", HOUSES).rename(tmp_path / "mask.gpkg")
    with pytest.raises(ConfigError, match="would replace the input"):
        run_vectorize(path, path, PLAIN)


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    Image.fromarray(HOUSES * 255).save(tmp_path / "mask.png")
    with pytest.raises(GeoreferenceError, match="5 m² was given"):
        run_vectorize(tmp_path / "mask.png", tmp_path / "o.gpkg", VectorOptions(min_area_m2=5))
    for path, what in ((tmp_path / "none", "does not exist"), (Path("s3://a/b"), "s3://a/b is")):
        with pytest.raises(DataError, match=what):
            run_vectorize(path, tmp_path / "o.gpkg", PLAIN)
    (tmp_path / "mask.tif.aux.xml").write_text("<PAMDataset>")
    write(tmp_path / "mask.tif", HOUSES)
    with pytest.raises(DataError, match=r"mask\.tif\.aux\.xml is damaged"):
        run_vectorize(tmp_path / "mask.tif", tmp_path / "o.gpkg", PLAIN)
    assert not (tmp_path / "o.gpkg").exists()


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_every_value_of_an_instance_raster_is_one_building(tmp_path: Path, dtype: str) -> None:
    numbers = np.zeros((60, 80), dtype)
    # Three that share walls, and one of the smallest number far away.
    numbers[10:30, 10:30], numbers[10:30, 30:50], numbers[30:45, 10:50] = 90, 7, 200
    numbers[50:56, 60:72] = 3
    write(tmp_path / "ids.tif", numbers)
    report = run_vectorize(tmp_path / "ids.tif", tmp_path / "ids.gpkg", instances=True)
    found = geopandas.read_file(tmp_path / "ids.gpkg").geometry
    # Where three meet, their corner may move by a pixel.
    assert sorted(found.area / 0.25) == pytest.approx([72, 400, 400, 600], rel=0.01)
    assert report.polygons == 4
    assert all(len(one.simplify(0.5).exterior.coords) == 5 for one in found)
    assert found.union_all().area == pytest.approx(found.area.sum())
    with pytest.raises(ConfigError, match="instances was given with"):
        run_vectorize(tmp_path / "ids.tif", tmp_path / "b.gpkg", instances=True, threshold=0.5)
