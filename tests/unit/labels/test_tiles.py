import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, LayoutError
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.slippy_tiles import open_mosaic
from rooftrace.labels.source import SceneSet

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


def test_tiles_with_masks_lie_where_their_names_say(tmp_path: Path) -> None:
    """The layout of RoboSat, at one place and in parts."""
    for folder in ("images", "labels"):
        write_tile(tmp_path / "training" / folder, HOME, int(folder == "labels"), oam=False)
    for root in (tmp_path, tmp_path / "training"):
        (scene,) = open_source(SourceConfig(path=str(root)))
        assert scene.image.grid.bounds_xy == pytest.approx(HOME.bounds_xy)
        assert scene.gsd_m == pytest.approx(0.5972 * 4, rel=1e-2)


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


def test_rows_that_can_only_count_from_the_south_do(place: Path) -> None:
    shutil.rmtree(place / "images")
    write_tile(place / "images", HOME.flipped(), 1)
    source = SourceConfig(path=str(place))
    found = open_source(source)
    assert any("from the south (TMS), because the polygons" in note for note in found.notes)
    assert [mask.sum() for mask in masks(found).values()] == [256]
    assert open_source(source.model_copy(update={"tms": True})).notes == ()
    with pytest.raises(GeoreferenceError, match="touch none of the images"):
        open_source(source.model_copy(update={"tms": False}))


RESOURCE = '<TileMap version="1.0.0"><TileSets profile="mercator"></TileSets></TileMap>'
"""File that gdal2tiles writes beside its tiles, in part."""


def test_tiles_of_gdal2tiles_lie_where_their_resource_says(tmp_path: Path) -> None:
    tiles = children(HOME)
    for number, tile in enumerate(tiles):
        write_tile(tmp_path / "xyz", tile, number, oam=False)
        write_tile(tmp_path / "tms", tile.flipped(), number, oam=False)
    expected = open_mosaic(tmp_path / "xyz")
    option = open_mosaic(tmp_path / "tms", tms=True)
    (tmp_path / "tms" / "tilemapresource.xml").write_text(RESOURCE)
    folders = ("tms", f"tms/{tiles[0].zoom}")
    for mosaic in (option, *(open_mosaic(tmp_path / name) for name in folders)):
        assert mosaic.grid == expected.grid
        np.testing.assert_array_equal(mosaic.read().data, expected.read().data)
    assert "from the south (TMS)" in open_mosaic(tmp_path / "tms").notes[0]
    # Tiles in degrees or in the system of the image are numbered otherwise.
    resource = tmp_path / "tms" / "tilemapresource.xml"
    resource.write_text(RESOURCE.replace("mercator", "geodetic"))
    with pytest.raises(LayoutError, match=r"profile geodetic.* Web Mercator were expected"):
        open_mosaic(tmp_path / "tms", tms=True)


def test_a_mosaic_is_the_tiles_side_by_side(tmp_path: Path) -> None:
    tiles = children(HOME)
    for value, tile in enumerate(tiles):
        if value != 1:
            write_tile(tmp_path / "t", tile, 50 + value)
    mosaic = open_mosaic(tmp_path / "t")
    assert mosaic.grid.bounds_xy == pytest.approx(HOME.bounds_xy)
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


@pytest.mark.parametrize("size", [(64, 60), (1100, 1100)])
def test_scans_in_folders_of_numbers_are_no_tiles(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "18/1953").mkdir(parents=True)
    Image.new("L", size).save(tmp_path / "18/1953/134.png")
    with pytest.raises(DataError, match="has no tiles"):
        open_mosaic(tmp_path)
