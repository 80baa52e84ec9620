import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, LayoutError
from rooftrace.core.types import GeoGrid, Scene, Window
from rooftrace.io.raster import open_raster
from rooftrace.io.sources import ArraySource
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.labels.slippy_tiles import TILES, find_tiles, open_mosaic
from rooftrace.labels.source import SceneEntry, SceneSet, WriteOptions
from town import generate_scene

HOME = TileName(18, 130_805, 154_803)  # Kampala
SIDE = 64


def ground(tile: TileName, left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """Return a rectangle in EPSG:3857, given in shares of a tile from its upper left corner."""
    x0, y0, x1, y1 = tile.bounds_xy
    width, height = x1 - x0, y1 - y0
    return shapely.box(
        x0 + left * width, y1 - bottom * height, x0 + right * width, y1 - top * height
    )


def write_tile(
    folder: Path, tile: TileName, value: int, *, oam: bool = True, side: int = SIDE
) -> None:
    name = f"OAM-{tile.col}-{tile.row}-{tile.zoom}.png" if oam else f"{tile}.png"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, value, value)).save(path)


def children(tile: TileName) -> list[TileName]:
    return [
        TileName(tile.zoom + 1, tile.row * 2 + down, tile.col * 2 + right)
        for down in (0, 1)
        for right in (0, 1)
    ]


def write_labels(path: Path, *polygons: shapely.Polygon) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    geopandas.GeoDataFrame(geometry=list(polygons), crs=3857).to_crs(4326).to_file(path)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One tile and two of its children, with a house in the first of them."""
    for value, tile in enumerate([HOME, *children(HOME)[:2]]):
        write_tile(tmp_path / "images", tile, 100 + value)
    write_labels(tmp_path / "labels.geojson", ground(HOME, 0.125, 0.25, 0.375, 0.5))
    return tmp_path


def masks(source: SceneSet) -> dict[str, np.ndarray]:
    return {scene.id: scene.label.read().data for scene in source}


def test_a_tile_lies_where_its_name_says(place: Path) -> None:
    source = open_source(SourceConfig(path=str(place)))
    assert source.kind == "tiles"
    first, second = (f"OAM-{t.col}-{t.row}-{t.zoom}" for t in children(HOME)[:2])
    whole = f"OAM-{HOME.col}-{HOME.row}-{HOME.zoom}"
    found = masks(source)
    assert set(found) == {whole, first, second}
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[16:32, 8:24] = 1
    np.testing.assert_array_equal(found[whole], expected)
    expected[:] = 0
    expected[32:, 16:48] = 1
    np.testing.assert_array_equal(found[first], expected)
    assert not found[second].any()
    scenes = {scene.id: scene for scene in source}
    assert scenes[whole].gsd_m == pytest.approx(2 * scenes[first].gsd_m, rel=1e-3)
    # 64 pixels a tile: a quarter of those that the zoom is known for.
    assert scenes[whole].gsd_m == pytest.approx(0.5972 * 4, rel=1e-2)


def test_ground_is_named_alike_at_every_zoom(place: Path) -> None:
    source = open_source(SourceConfig(path=str(place)))
    assert {entry.group for entry in source.entries} == {str(HOME)}
    assert any("same ground is present at zooms 18, 19" in note for note in source.notes)
    chosen = open_source(SourceConfig(path=str(place), zoom=19))
    assert len(chosen) == 2
    assert {entry.group for entry in chosen.entries} == {str(HOME)}
    assert not any("same ground" in note for note in chosen.notes)
    with pytest.raises(ConfigError, match=r"zoom = 20 .*tiles of zoom 18, 19"):
        open_source(SourceConfig(path=str(place), zoom=20))
    assert len(open_source(SourceConfig(path=str(place), glob="*-18.png"))) == 1
    with pytest.raises(DataError, match=r"no tiles that match \['x'\]"):
        open_source(SourceConfig(path=str(place), glob="x"))


def test_where_labels_and_tiles_may_lie(tmp_path: Path) -> None:
    """Labels lie in the same folder, above folders of zoom and column, or are given separately."""
    house = ground(HOME, 0.25, 0.25, 0.5, 0.5)
    write_tile(tmp_path / "flat", HOME, 9)
    write_labels(tmp_path / "flat" / "l.gpkg", house)
    write_tile(tmp_path / "deep" / "tiles", HOME, 9, oam=False)
    write_labels(tmp_path / "deep" / "labels.gpkg", house)
    # Not the labels: an area to predict, and the results for other images.
    write_labels(tmp_path / "deep" / "area.geojson", ground(HOME, 0, 0, 1, 1))
    write_labels(tmp_path / "deep" / "town_buildings.gpkg", ground(HOME, 0, 0, 1, 1))
    columns = tmp_path / "deep" / "tiles" / str(HOME.zoom) / str(HOME.col)
    for folder in ("flat", "deep/tiles", "deep/tiles/18", columns):
        source = open_source(SourceConfig(path=str(tmp_path / folder)))
        assert source.kind == "tiles", folder
        assert [mask.sum() for mask in masks(source).values()] == [256]
    read = SourceConfig(
        path=str(tmp_path / "flat" / "l.gpkg"),
        images=str(tmp_path / "deep" / "tiles"),
        kind="tiles",
    )
    assert open_source(read).ids == (str(HOME),)
    with pytest.raises(LayoutError, match="images is not given"):
        open_source(read.model_copy(update={"images": None}))


def test_tiles_without_labels_beside_those_with(place: Path) -> None:
    """Labels beside `images/` do not belong to `unlabelled/`."""
    write_tile(place / "unlabelled", children(HOME)[3], 9)
    source = open_source(SourceConfig(path=str(place / "unlabelled")))
    assert source.kind == "images"
    assert len(open_source(SourceConfig(path=str(place)))) == 3
    assert open_source(SourceConfig(path=str(place / "images"))).kind == "tiles"
    with pytest.raises(LayoutError, match="no vector file of footprints in"):
        open_source(SourceConfig(path=str(place / "unlabelled"), kind="tiles"))


def test_other_vector_files_beside_a_folder_of_tiles_are_not_its_labels(tmp_path: Path) -> None:
    write_tile(tmp_path / "tiles", HOME, 9)
    write_labels(tmp_path / "area.geojson", ground(HOME, 0, 0, 1, 1))
    source = SourceConfig(path=str(tmp_path / "tiles"))
    assert open_source(source).kind == "images"
    with pytest.raises(LayoutError, match=r"nor labels\.geojson"):
        open_source(source.model_copy(update={"kind": "tiles"}))
    # A file with the name of the folder belongs to it.
    write_labels(tmp_path / "tiles.geojson", ground(HOME, 0.25, 0.25, 0.5, 0.5))
    assert [mask.sum() for mask in masks(open_source(source)).values()] == [256]
    write_labels(tmp_path / "labels.gpkg", ground(HOME, 0, 0, 1, 1))
    with pytest.raises(LayoutError, match="contains 2 vector files"):
        open_source(source.model_copy(update={"kind": "tiles"}))


def test_two_images_of_one_tile_and_images_that_are_none(place: Path) -> None:
    Image.new("RGB", (9, 9)).save(place / "images" / "overview.png")
    assert any("overview.png" in n for n in open_source(SourceConfig(path=str(place))).notes)
    write_tile(place / "images", HOME, 1, oam=False)
    with pytest.raises(LayoutError, match=f"Two images show the tile {HOME}"):
        open_source(SourceConfig(path=str(place)))


def test_rows_that_can_only_count_from_the_south_do(place: Path) -> None:
    shutil.rmtree(place / "images")
    write_tile(place / "images", HOME.flipped(), 1)
    source = SourceConfig(path=str(place))
    found = open_source(source)
    assert any("from the south (TMS), because the polygons" in note for note in found.notes)
    assert [mask.sum() for mask in masks(found).values()] == [256]
    assert open_source(source.model_copy(update={"tms": True})).notes == ()
    with pytest.raises(GeoreferenceError, match="touch none of the tiles"):
        open_source(source.model_copy(update={"tms": False}))


def tile_map_resource(tiles: list[TileName]) -> str:
    """Return the file that gdal2tiles writes beside its tiles."""
    bounds = np.array([tile.bounds_xy for tile in tiles])
    (left, bottom), (right, top) = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<TileMap version="1.0.0" '
        'tilemapservice="http://tms.osgeo.org/1.0.0">\n<SRS>EPSG:3857</SRS>\n'
        f'<BoundingBox minx="{left}" miny="{bottom}" maxx="{right}" maxy="{top}"/>\n'
        '<TileSets profile="mercator"></TileSets>\n</TileMap>\n'
    )


def test_tiles_of_gdal2tiles_lie_where_their_resource_says(tmp_path: Path) -> None:
    tiles = children(HOME)
    for number, tile in enumerate(tiles):
        write_tile(tmp_path / "xyz", tile, number)
        write_tile(tmp_path / "tms", tile.flipped(), number)
    expected = open_mosaic(tmp_path / "xyz")
    option = open_mosaic(tmp_path / "tms", tms=True)
    for name in ("xyz", "tms"):
        (tmp_path / name / "tilemapresource.xml").write_text(tile_map_resource(tiles))
    for mosaic in (option, open_mosaic(tmp_path / "tms"), open_mosaic(tmp_path / "xyz")):
        assert mosaic.grid == expected.grid
        np.testing.assert_array_equal(mosaic.read().data, expected.read().data)
    assert "from the south (TMS)" in open_mosaic(tmp_path / "tms").notes[0]
    assert open_mosaic(tmp_path / "xyz").notes == ()


def test_a_mosaic_is_the_tiles_side_by_side(tmp_path: Path) -> None:
    tiles = children(HOME)
    for value, tile in enumerate(tiles):
        if value != 1:
            write_tile(tmp_path / "t", tile, 50 + value)
    mosaic = open_mosaic(tmp_path / "t")
    assert TileName.of(mosaic.grid) == HOME
    found = mosaic.read()
    for value, (row, col) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        part = (slice(row * SIDE, (row + 1) * SIDE), slice(col * SIDE, (col + 1) * SIDE))
        assert (found.valid[part] == (value != 1)).all()
        assert (found.data[:, *part] == (0 if value == 1 else 50 + value)).all()
    write_tile(tmp_path / "t", HOME, 9)
    with pytest.raises(ConfigError, match="zoom 18, 19; a mosaic has only one") as caught:
        open_mosaic(tmp_path / "t")
    assert "--zoom 19" in caught.value.remedy
    assert open_mosaic(tmp_path / "t", 18).grid.shape == (SIDE, SIDE)


def test_folders_that_are_no_mosaic_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for path in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(DataError, match="has no tiles"):
            open_mosaic(path)
    write_tile(tmp_path / "t", HOME, 1)
    write_tile(tmp_path / "t", TileName(18, 5, 5), 1)
    with pytest.raises(DataError, match=r"2 tiles .* are scattered over 130801 × 154799 places"):
        open_mosaic(tmp_path / "t")


def scene_set(**scenes: tuple[ArraySource, list[shapely.Polygon]]) -> SceneSet:
    """Return scenes in memory, with houses in pixel coordinates."""

    def open_scene(entry: SceneEntry) -> Scene:
        image, houses = scenes[entry.id]
        shapes = np.array([*houses, None], object)[:-1]
        return Scene(entry.id, image, ShapesLabel(shapes, [1] * len(houses), image.grid))

    entries = tuple(SceneEntry(name, None) for name in sorted(scenes))
    return SceneSet("memory", "memory", ("background", "building"), 1, entries, open_scene)


def test_an_aligned_scene_is_cut_into_its_tiles(tmp_path: Path) -> None:
    """Tiles are equal bit for bit, with nodata as alpha; empty tiles are not written."""
    rng = np.random.default_rng(5)
    grid = HOME.grid((512, 512)).resampled((1024, 512), (1.0, 1.0))
    data = rng.integers(1, 255, (3, 1024, 512), np.uint8)
    valid = np.ones((1024, 512), np.bool_)
    valid[512:, :300] = False
    source = scene_set(a=(ArraySource(data, grid, valid), [shapely.box(200, 100, 300, 400)]))
    steps: list[tuple[int, int]] = []
    written = TILES.write(source, tmp_path, WriteOptions(), lambda *now: steps.append(now))
    assert written.scenes == 6
    assert steps[-1] == (8, 8)
    mosaic = open_mosaic(tmp_path)
    assert mosaic.grid.shape == (1024, 512)
    assert mosaic.grid.transform.almost_equals(grid.transform, 1e-9)
    found = mosaic.read()
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.data[:, valid], data[:, valid])
    modes = []
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as picture:
            modes.append(picture.mode)
    assert sorted(modes) == ["RGB"] * 4 + ["RGBA"] * 2
    back = open_source(SourceConfig(path=str(tmp_path)))
    assert back.kind == "tiles"
    assert sum(int(mask.sum()) for mask in masks(back).values()) == 100 * 300


def test_scenes_without_a_valid_pixel_are_an_error(tmp_path: Path) -> None:
    grid = HOME.grid((256, 256))
    nothing = ArraySource(np.zeros((3, 256, 256), np.uint8), grid, np.zeros((256, 256), np.bool_))
    with pytest.raises(DataError, match="none of its scenes has a valid pixel"):
        TILES.write(scene_set(a=(nothing, [])), tmp_path / "out", WriteOptions(), None)
    assert not (tmp_path / "out").exists()


def test_a_scene_elsewhere_is_warped_into_place(tmp_path: Path) -> None:
    """Scenes in UTM are warped; bright pixels still lie under the label."""
    drawn = generate_scene(3, shape_yx=(300, 400))
    mask = drawn.mask()
    grey = np.where(mask, 250, 5).astype(np.uint8)[None]
    (tmp_path / "in").mkdir()
    _, truth = drawn.write(tmp_path / "in", "scene")
    with rasterio.open(tmp_path / "in" / "scene.tif", "w", driver="GTiff", dtype="uint8", count=1,
                       height=300, width=400, crs=drawn.grid.crs.to_wkt(),
                       transform=drawn.grid.transform) as out:  # fmt: skip
        out.write(grey)
    source = open_source(SourceConfig(path=str(truth)))
    written = TILES.write(source, tmp_path / "out", WriteOptions(), None)
    assert "1 scene became 6 tiles of zoom 19" in written.notes[-1]
    assert written.scenes == 6
    agree = total = 0
    for scene in open_source(SourceConfig(path=str(tmp_path / "out"))):
        assert scene.gsd_m == pytest.approx(0.3, rel=0.05)
        raster, label = scene.image.read(), scene.label.read()
        agree += int(((raster.data[0] > 127) == label.data)[raster.valid].sum())
        total += int(raster.valid.sum())
    assert total == pytest.approx(300 * 400 * (0.3 / scene.gsd_m) ** 2, rel=0.01)
    assert agree / total > 0.98
    coarse = TILES.write(source, tmp_path / "coarse", WriteOptions(zoom=17), None)
    assert coarse.scenes == len(list((tmp_path / "coarse" / "images" / "17").rglob("*.png")))
    with pytest.raises(ConfigError, match=r"zoom = 28 was given, .* that of zoom 19") as caught:
        TILES.write(source, tmp_path / "fine", WriteOptions(zoom=28), None)
    assert "22" in caught.value.remedy


def test_tiles_are_copied_as_they_are(place: Path, tmp_path: Path) -> None:
    source = open_source(SourceConfig(path=str(place)))
    written = TILES.write(source, tmp_path / "out", WriteOptions(), None)
    assert written.scenes == 2
    assert any("Left out: 1 scene of other zooms" in note for note in written.notes)
    for tile in children(HOME)[:2]:
        copy = tmp_path / "out" / "images" / f"{tile}.png"
        original = place / "images" / f"OAM-{tile.col}-{tile.row}-{tile.zoom}.png"
        assert copy.read_bytes() == original.read_bytes()
    back = open_source(SourceConfig(path=str(tmp_path / "out")))
    fine = open_source(SourceConfig(path=str(place), zoom=19))
    for one, two in zip(masks(fine).values(), masks(back).values(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_two_scenes_of_one_ground_the_nearer_goes_first(tmp_path: Path) -> None:
    """The scene with precedence gives pixels and labels; the other fills gaps."""
    grid = HOME.grid((256, 256))
    half = Window(0, 0, 256, 128)
    fine = ArraySource(np.full((3, 256, 128), 200, np.uint8), grid.crop(half), name="fine")
    coarse = HOME.grid((64, 64)).crop(Window(0, 0, 64, 60))
    rough = ArraySource(np.full((3, 64, 60), 100, np.uint8), coarse, name="rough")
    source = scene_set(
        a=(rough, [shapely.box(0, 0, 64, 16)]), b=(fine, [shapely.box(0, 128, 128, 256)])
    )
    TILES.write(source, tmp_path, WriteOptions(zoom=18), None)
    (scene,) = open_source(SourceConfig(path=str(tmp_path)))
    raster, mask = scene.image.read(), scene.label.read().data
    assert (raster.data[:, :, :128] == 200).all()
    assert (raster.data[:, :, 128:240] == 100).all()
    assert raster.valid.sum() == 256 * 240
    expected = np.zeros((256, 256), np.uint8)
    expected[128:, :128] = 1
    expected[:64, 128:240] = 1
    np.testing.assert_array_equal(mask, expected)


def test_more_bands_become_geotiffs_and_other_bands_are_refused(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 4000, (5, 256, 256), np.uint16)
    five = ArraySource(data, HOME.grid((256, 256)), name="five")
    TILES.write(scene_set(a=(five, [])), tmp_path / "a", WriteOptions(), None)
    np.testing.assert_array_equal(
        open_raster(tmp_path / "a" / "images" / f"{HOME}.tif").read().data, data
    )
    left, right = (
        HOME.grid((256, 256)).crop(Window(0, 0, 256, 128)),
        HOME.grid((256, 256)).crop(Window(0, 128, 256, 128)),
    )
    mixed = scene_set(
        a=(ArraySource(data[..., :128], left, name="five"), []),
        b=(ArraySource(np.zeros((3, 256, 128), np.uint8), right, name="three"), []),
    )
    with pytest.raises(DataError, match=rf"five has 5 bands .* three has 3 .*the tile {HOME}"):
        TILES.write(mixed, tmp_path / "b", WriteOptions(zoom=18), None)


def test_scenes_outside_web_mercator_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((3, 8, 8), np.uint8)
    with pytest.raises(GeoreferenceError, match="no coordinate system"):
        TILES.write(scene_set(a=(ArraySource(pixels), [])), tmp_path, WriteOptions(), None)
    pole = GeoGrid((8, 8), Affine(1, 0, 0, 0, -1, 90), CRS.from_epsg(4326))
    with pytest.raises(GeoreferenceError, match="outside Web Mercator"):
        TILES.write(scene_set(a=(ArraySource(pixels, pole), [])), tmp_path, WriteOptions(), None)


@pytest.mark.campaign
@pytest.mark.realdata
@pytest.mark.parametrize("place", ["kampala", "catanduanes"])
def test_real_tiles_against_the_masks_that_came_with_them(realdata: Path, place: str) -> None:
    """Pillow drew the originals with edge pixels: masks agree except for the outermost pixel."""
    folder = realdata / "oam" / place
    given = open_source(SourceConfig(path=str(folder)))
    assert given.kind == "folder"
    drawn = open_source(SourceConfig(path=str(folder), kind="tiles", zoom=21))
    common = either = outside = 0
    for scene, entry in zip(drawn, drawn.entries):
        assert scene.gsd_m is not None
        lat = abs(np.degrees(np.arctan(np.sinh(scene.image.grid.bounds_xy[1] / 6378137))))
        assert scene.gsd_m == pytest.approx(0.07465 * np.cos(np.radians(lat)), rel=5e-3)
        mine = scene.label.read().data > 0
        (pair,) = given.subset([entry.id])
        theirs = pair.label.read().data > 0
        common, either = common + (mine & theirs).sum(), either + (mine | theirs).sum()
        outside += (mine & ~theirs).sum()
    assert common / either > 0.98
    assert outside / either < 2e-3


@pytest.mark.realdata
def test_a_real_mosaic_against_the_scene_made_from_it(realdata: Path) -> None:
    mosaic = open_mosaic(realdata / "oam" / "kampala", 20)
    scene = open_raster(realdata / "scenes" / "kampala_z20.tif")
    assert mosaic.grid.shape == scene.grid.shape
    assert mosaic.grid.transform.almost_equals(scene.grid.transform, 1e-6)
    one, two = mosaic.read(), scene.read()
    np.testing.assert_array_equal(one.valid, two.valid)
    difference = np.abs(one.data.astype(int) - two.data)[:, one.valid]
    assert 0 < difference.mean() < 3  # JPEG


@pytest.mark.realdata
def test_every_place_is_found_without_opening_its_tiles(realdata: Path) -> None:
    found = find_tiles(realdata / "oam" / "zanzibar")
    assert (len(found.paths), found.zooms) == (966, (19, 20, 21))
    assert len(find_tiles(realdata / "banepa-chips").paths) == 48
