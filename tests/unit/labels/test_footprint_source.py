import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import CRS
from shapely.geometry import Point, box

from memory_sets import ArrayLabel, set_of
from raster_files import write_geotiff
from rooftrace.core.errors import (
    ConfigError,
    DataError,
    ExportError,
    GeoreferenceError,
    LabelError,
    LayoutError,
)
from rooftrace.core.types import GeoGrid, Scene, Window
from rooftrace.flows.convert import run_convert
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.masks import mask_sink
from rooftrace.io.reproject import CRS84, transform_points
from rooftrace.io.vector_write import READABLE_SUFFIXES
from rooftrace.labels import shapes as layer
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.footprints import FOOTPRINTS
from rooftrace.labels.kinds import open_source
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.labels.source import SceneSet, WriteOptions

UTM = CRS.from_epsg(32736)
THREE = ("background", "building", "road")


def write_tif(path: Path, grid: GeoGrid) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_geotiff(
        path, np.full((3, *grid.shape), 90, np.uint8), transform=grid.transform,
        crs=grid.crs.to_wkt(),
    )  # fmt: skip
    return path


def grid_at(col: int = 0, row: int = 0, side: int = 40) -> GeoGrid:
    """Return a grid of half a metre per pixel, `col` and `row` pixels from one corner."""
    return GeoGrid(
        (side, side), Affine(0.5, 0, 500_000 + col / 2, 0, -0.5, 9_300_000 - row / 2), UTM
    )


def house(col: float, row: float, width: float = 6, height: float = 4) -> shapely.Polygon:
    """Return a box in the system of `grid_at`, given in its pixels."""
    left, top = 500_000 + col / 2, 9_300_000 - row / 2
    return box(left, top - height / 2, left + width / 2, top)


def write_layer(path: Path, *houses: object, crs: CRS | int = UTM, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = geopandas.GeoDataFrame(columns, geometry=list(houses), crs=crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Two images side by side with one house in each and one on both, and one image without."""
    write_tif(tmp_path / "images" / "a.tif", grid_at())
    write_tif(tmp_path / "images" / "b ü.tif", grid_at(40))
    write_tif(tmp_path / "images" / "far.tif", grid_at(4000))
    write_layer(tmp_path / "houses.gpkg", house(5, 5), house(37, 20), house(60, 30))
    return tmp_path


def masks(source: SceneSet) -> dict[str, np.ndarray]:
    found = {}
    for scene in source:
        mask = scene.label.read()
        found[scene.id] = np.where(mask.valid, mask.data, 255)
    return found


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_houses_are_drawn_on_each_image(town: Path) -> None:
    for data in (town, town / "houses.gpkg"):
        source = open_source(SourceConfig(path=str(data)))
        assert source.kind == "footprints"
        assert source.ids == ("a", "b ü", "far")
        assert source.notes[0].endswith(": a, b ü, far.")
        found = masks(source)
        expected = np.zeros((40, 40), np.uint8)
        expected[5:9, 5:11] = 1
        expected[20:24, 37:] = 1
        np.testing.assert_array_equal(found["a"], expected)
        assert found["b ü"].sum() == 4 * 3 + 4 * 6
        assert found["far"].sum() == 0
        scene = next(iter(source))
        assert scene.gsd_m == pytest.approx(0.5, rel=2e-3)
        assert scene.image.grid.crs == UTM


def test_a_long_wall_is_bent_as_the_image_is(tmp_path: Path) -> None:
    """A straight edge of 40 km along a parallel lies 5 pixels off in its middle, in UTM."""
    grid = GeoGrid((400, 4000), Affine(10, 0, 480_000, 0, -10, 6_672_000), CRS.from_epsg(32633))
    write_tif(tmp_path / "wide.tif", grid)
    lonlat = box(14.65, 60.1600, 15.35, 60.1700)
    write_layer(tmp_path / "wall.gpkg", lonlat, crs=4326)
    source = open_source(SourceConfig(path=str(tmp_path / "wall.gpkg")))
    found = masks(source)["wide"]
    dense = shapely.segmentize(lonlat, 0.0005)
    write_layer(tmp_path / "wall.gpkg", dense, crs=4326)
    expected = masks(open_source(SourceConfig(path=str(tmp_path / "wall.gpkg"))))["wide"]
    assert expected.any()
    # A tenth of a pixel along two edges; unbent it would be five pixels in the middle.
    assert (found != expected).sum() < 0.1 * 2 * 4000


def test_an_attribute_names_the_class(town: Path) -> None:
    names = ["Building", None, "tank"]
    layer = write_layer(
        town / "classes.gpkg", house(5, 5), house(25, 20), house(60, 30), kind=names
    )
    labels = LabelConfig(names={"building": "house"}, drop=("",), ignore=("tank",))
    read = SourceConfig(path=str(layer), field="kind", labels=labels)
    found = masks(open_source(read))
    assert found["a"].sum() == 24
    assert np.unique(found["b ü"]).tolist() == [0, 255]
    with pytest.raises(LabelError, match=r"classes\.gpkg, attribute 'kind', has the label ''"):
        open_source(SourceConfig(path=str(layer), field="kind"))
    with pytest.raises(ConfigError, match=r"no attribute 'kid'; it has kind\. Did you mean 'kind'"):
        open_source(SourceConfig(path=str(layer), field="kid"))
    # Polygons called building are none of a class that another name has.
    layer = write_layer(town / "k.gpkg", house(5, 5), house(6, 20), **{"class": ["pv", "building"]})
    pv = LabelConfig(classes=("background", "pv"), building="pv", drop=("building",))
    assert masks(open_source(SourceConfig(path=str(layer), labels=pv)))["a"].sum() == 24


def test_a_missing_georeference_is_an_error(town: Path) -> None:
    (town / "plain").mkdir()
    Image.new("RGB", (40, 40)).save(town / "plain" / "x.png")
    with pytest.raises(GeoreferenceError, match=r"x\.png has no coordinate system") as caught:
        open_source(SourceConfig(path=str(town / "houses.gpkg"), images=str(town / "plain")))
    assert "a_ullr" in caught.value.remedy
    write_layer(town / "nowhere.shp", house(5, 5))
    (town / "nowhere.prj").unlink()
    with pytest.raises(GeoreferenceError, match=r"nowhere\.shp has no coordinate system"):
        open_source(SourceConfig(path=str(town / "nowhere.shp")))


def test_footprints_elsewhere_are_reported_in_degrees(town: Path) -> None:
    write_layer(town / "paris.geojson", box(2.3, 48.8, 2.4, 48.9), crs=4326)
    with pytest.raises(GeoreferenceError, match=r"touch none of the images.*longitude 2\.30000"):
        open_source(SourceConfig(path=str(town / "paris.geojson")))


def test_an_empty_layer_gives_empty_labels_and_says_so(town: Path) -> None:
    layer = write_layer(town / "none.gpkg", Point(0, 0)).with_name("none.geojson")
    layer.write_text('{"type": "FeatureCollection", "features": []}')
    source = open_source(SourceConfig(path=str(layer), field="kind"))
    assert not any(mask.any() for mask in masks(source).values())
    assert any("no footprints" in note for note in source.notes)


def test_where_images_are_looked_for(town: Path, tmp_path: Path) -> None:
    write_tif(town / "beside.tif", grid_at())
    with pytest.raises(LayoutError, match=r"beside\.tif.*and in .*images") as caught:
        open_source(SourceConfig(path=str(town / "houses.gpkg")))
    assert "--images" in caught.value.remedy
    only = SourceConfig(path=str(town / "houses.gpkg"), glob="beside*")
    assert open_source(only).ids == ("beside",)
    write_layer(town / "alone" / "houses.gpkg", house(5, 5))
    for images in (None, "nowhere"):
        with pytest.raises(LayoutError, match="no image"):
            FOOTPRINTS.read(
                town / "alone" / "houses.gpkg",
                SourceConfig(path="x", images=images and str(tmp_path / images)),
                LabelConfig(),
            )
    (town / "houses.city.json").write_text('{"type": "CityJSON"}')
    write_layer(town / "houses_roof_planes.gpkg", house(5, 5))
    write_layer(town / "more.gpkg", house(5, 5))
    with pytest.raises(LayoutError, match=r"2 vector files \(houses\.gpkg, more\.gpkg\)"):
        open_source(SourceConfig(path=str(town), kind="footprints"))


def test_results_pictures_and_heights_beside_the_image_are_not_scenes(tmp_path: Path) -> None:
    houses = write_layer(tmp_path / "osm.gpkg", house(5, 5))
    write_tif(tmp_path / "ortho.tif", grid_at())
    (tmp_path / "run.json").write_text("{}")
    write_layer(tmp_path / "ortho_buildings.gpkg", house(20, 20))
    for name in ("ortho_density.png", "a.jpg"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    write_tif(tmp_path / "ortho_mask.tif", grid_at())
    kinds = {"dom1_32_565_hh.tif": "uint16", "LHD_MNS_O.tif": "int16", "slope.tif": "int16"}
    for name, kind in kinds.items():
        write_geotiff(
            tmp_path / name, np.full((1, 40, 40), 90, kind),
            transform=grid_at().transform, crs=UTM.to_wkt(),
        )  # fmt: skip
    for path in (houses, tmp_path):
        source = open_source(SourceConfig(path=str(path)))
        assert {name: mask.sum() for name, mask in masks(source).items()} == {"ortho": 24}
        assert any("of one band of decimal or signed numbers, such as heights: slope.tif" in note
                   for note in source.notes)  # fmt: skip


def test_the_folder_of_a_prediction_is_its_polygons_over_its_image(tmp_path: Path) -> None:
    image, results = write_tif(tmp_path / "ortho.tif", grid_at()), tmp_path / "results"
    polygons = write_layer(results / "ortho_buildings.gpkg", house(20, 20))
    Image.new("RGB", (9, 9)).save(results / "ortho_preview.png")
    output = {"input": str(image), "mask": None, "polygons": str(polygons)}
    (results / "run.json").write_text(json.dumps({"outputs": [output]}))
    source = open_source(SourceConfig(path=str(results)))
    assert [entry.image for entry in source.entries] == [image]
    assert "results is the folder of a prediction: its polygons are the labels." in source.notes
    report = run_convert(SourceConfig(path=str(results)), "footprints", tmp_path / "all.geojson")
    assert re.fullmatch("read 1 polygon of .* in .*, written in WGS 84 .*", report.read_as)
    # Those of several become one layer with all attributes, in degrees unless they have one CRS.
    more = {"crs": 4326, "imagery_date": ["2020"], "height": [7.5], "id": [1]}
    there = house(20, 20).centroid.buffer(9)
    degrees = shapely.transform(there, lambda xy: transform_points(xy, UTM, CRS84))
    write_layer(results / "b_buildings.gpkg", degrees, **more)
    (results / "b_item.json").write_text('{"type": "Feature"}')
    report = run_convert(SourceConfig(path=str(results)), None, tmp_path / "all.gpkg")
    assert report.notes[0].startswith("2 buildings at the edges of images touch or overlap")
    joined = geopandas.read_file(tmp_path / "all.gpkg", layer="all").replace({np.nan: None})
    assert joined.crs == "EPSG:4326"  # readers take the code for CRS84 in it for one of EPSG
    assert joined.drop(columns="geometry").to_numpy().tolist() == [
        ["2020", 7.5, 1, "b"], [None, None, 2, "ortho"]
    ]  # fmt: skip
    (results / "b_buildings.gpkg").unlink()
    # Of several images, a picture among them, each has its polygons or else its mask.
    photo, drawn = tmp_path / "photo.png", np.zeros((40, 40), np.uint8)
    Image.new("RGB", (40, 40)).save(photo)
    drawn[:10], drawn[10:12] = 255, 1
    with mask_sink(results / "photo_mask.png", GeoGrid((40, 40))) as sink:
        sink.write(Window(0, 0, 40, 40), drawn)
    another = {"input": str(photo), "mask": str(results / "photo_mask.png"), "polygons": None}
    (results / "run.json").write_text(json.dumps({"outputs": [output, another]}))
    for images in (None, str(tmp_path)):
        source = open_source(
            SourceConfig(path=str(results), images=images, glob=("ortho.tif", "photo.png"))
        )
        assert_same(masks(source), {"ortho": masks(source)["ortho"], "photo": drawn})
        assert masks(source)["ortho"].sum() == 24
    polygons.unlink()
    (results / "photo_mask.png").unlink()
    with pytest.raises(LayoutError, match="no mask and no GeoPackage of an image"):
        open_source(SourceConfig(path=str(results)))


@pytest.mark.campaign
def test_a_layer_is_read_once_and_is_small_to_pickle(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    whole = layer.VectorFile.read
    monkeypatch.setattr(
        layer.VectorFile,
        "read",
        lambda self, *rest, **more: reads.append(1) or whole(self, *rest, **more),
    )
    write_layer(town / "houses.gpkg", *(house(5 + n % 30, n % 30) for n in range(3000)))
    source = open_source(SourceConfig(path=str(town / "houses.gpkg"), chip_px=20))
    assert len(source) == 12
    moved = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 10_000
    assert_same(masks(source), masks(moved))
    assert len(reads) == 1
    labels = [source.open_scene(entry).label for entry in source.entries[:4]]
    # All chips of a scene draw from the same shapes in the same pixels.
    assert len({id(label.label) for label in labels}) == 1
    # A file that was written anew is read anew.
    write_layer(town / "houses.gpkg", house(0, 0))
    assert masks(open_source(SourceConfig(path=str(town / "houses.gpkg"))))["a"].sum() == 24


def painted_set(paintings: dict[str, tuple[np.ndarray, GeoGrid]], classes=THREE) -> SceneSet:
    scenes = []
    for name, (mask, grid) in sorted(paintings.items()):
        label = ArrayLabel(np.where(mask == 255, 0, mask), mask != 255, grid)
        image = ArraySource(np.zeros((3, *mask.shape), np.uint8), grid, name=name)
        scenes.append(Scene(name, image, label))
    return replace(set_of(*scenes), classes=classes)


PIXELS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).choice(
        np.array([0, 0, 1, 1, 2, 255], np.uint8), (9, 14)
    )
)


@pytest.mark.campaign
@settings(max_examples=12)
@given(PIXELS, PIXELS, st.sampled_from([4326, 32633, 3857]), st.floats(0, 0.6))
@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_a_mask_comes_back_from_its_outlines(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    one: np.ndarray,
    two: np.ndarray,
    epsg: int,
    turn: float,
) -> None:
    """Labels are equal bit for bit in every format, rotated, and in one system or two."""
    folder = tmp_path_factory.mktemp("round")
    near = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000) @ Affine.rotation(np.degrees(turn))
    crs = CRS.from_epsg(epsg)
    at = Affine(2e-6, 0, 15, 0, -2e-6, 45) if crs.is_geographic else near
    placed = {
        "x/one é": (one, GeoGrid(one.shape, near, CRS.from_epsg(32633))),
        "x/two": (two, GeoGrid(two.shape, at, crs)),
    }
    source = painted_set(placed)
    written = FOOTPRINTS.write(source, folder / f"out{suffix}", WriteOptions(), None)
    assert written.scenes == 2
    read = open_source(
        SourceConfig(path=str(written.path)), LabelConfig(classes=THREE, building="building")
    )
    assert read.kind == "footprints"
    assert_same(masks(source), masks(read))


def test_shapes_stay_shapes(town: Path, tmp_path: Path) -> None:
    """An outline that was drawn does not become a pixel staircase."""
    slanted = shapely.affinity.rotate(house(8, 8, 12, 9), 30)
    config = SourceConfig(path=str(write_layer(town / "houses.gpkg", slanted, house(37, 20))))
    source = open_source(config)
    out = tmp_path / "out" / "again.gpkg"
    written = FOOTPRINTS.write(source, out, WriteOptions(), None)
    frame = geopandas.read_file(out)
    assert shapely.equals_exact(frame.geometry[0], slanted, 1e-6, normalize=True)
    # The house on two images is two, each in its own.
    assert frame["scene"].tolist() == ["a", "a", "b ü"]
    images = str(town / "images")
    assert any(f"--images {images}" in note for note in written.notes)
    assert not (tmp_path / "out" / "again_images").exists()
    again = open_source(SourceConfig(path=str(out), images=images))
    assert_same(masks(source), masks(again))
    # Drawn by hand, for every scene in which it lies.
    frame.loc[0, "scene"] = None
    frame.to_file(out)
    assert_same(masks(source), masks(open_source(SourceConfig(path=str(out), images=images))))


def test_an_outline_that_crosses_itself_is_written(tmp_path: Path) -> None:
    """A shape may extend over the edge of the image, as in a labelling tool."""
    bowtie = shapely.Polygon([(-4, 2), (20, 18), (20, 2), (-4, 18)])
    label = ShapesLabel(np.array([bowtie], object), [1], grid_at())
    image = ArraySource(np.zeros((3, 40, 40), np.uint8), grid_at(), name="a")
    source = replace(set_of(Scene("a", image, label)), classes=THREE[:2])
    FOOTPRINTS.write(source, tmp_path / "out.gpkg", WriteOptions(), None)
    found = masks(open_source(SourceConfig(path=str(tmp_path / "out.gpkg"))))["a"]
    assert found.any()
    np.testing.assert_array_equal(found, label.read().data)


def test_images_are_copied_where_others_lie_among_them(town: Path, tmp_path: Path) -> None:
    source = open_source(SourceConfig(path=str(town / "houses.gpkg")))
    part = source.subset(["a", "far"])
    written = FOOTPRINTS.write(part, tmp_path / "o" / "part.fgb", WriteOptions(), None)
    assert any("1 more images" in note for note in written.notes)
    assert_same(masks(part), masks(open_source(SourceConfig(path=str(written.path)))))
    FOOTPRINTS.write(part, tmp_path / "o" / "part.fgb", WriteOptions(), None)
    with pytest.raises(ExportError, match=r"part_images contains far\.tif"):
        FOOTPRINTS.write(
            source.subset(["a"]), tmp_path / "o" / "part.fgb", WriteOptions(images="copy"), None
        )


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    mask = np.full((4, 4), 255, np.uint8)
    nowhere = painted_set({"plain": (mask, GeoGrid((4, 4)))})
    with pytest.raises(GeoreferenceError, match="plain has no coordinate system"):
        FOOTPRINTS.write(nowhere, tmp_path / "out.gpkg", WriteOptions(), None)
    with pytest.raises(ExportError, match=r"suffix '\.txt'"):
        FOOTPRINTS.write(nowhere, tmp_path / "out.txt", WriteOptions(), None)
    assert not list(tmp_path.glob("out.*"))


def test_a_broken_image_is_found_when_it_is_read(town: Path) -> None:
    (town / "images" / "a.tif").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.tif cannot be read"):
        open_source(SourceConfig(path=str(town)))
