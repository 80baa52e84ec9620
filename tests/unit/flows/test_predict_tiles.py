"""Slippy tiles: each by itself, or all as one scene."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.area import read_area
from rooftrace.io.legend import NODATA
from rooftrace.io.web_mercator import TileName
from rooftrace.predict.model_set import read_models

FIRST = TileName(18, 154_803, 130_805)
SIDE = 128


def write(folder: Path, pixels: np.ndarray, *, oam: bool) -> None:
    """Two rows and three columns of tiles with one of them missing."""
    for row in range(2):
        for col in range(3):
            if (row, col) == (1, 2):
                continue
            tile = TileName(FIRST.zoom, FIRST.row + row, FIRST.col + col)
            name = f"OAM-{tile.col}-{tile.row}-{tile.zoom}" if oam else str(tile)
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = pixels[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
            Image.fromarray(part).save(path)


def test_rows_that_fit_an_area_only_from_the_south(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path / "xyz", pixels, oam=False)
    for path in sorted((tmp_path / "xyz").rglob("*.png")):
        tile = TileName.parse(path)
        assert tile is not None
        south = tmp_path / "tms" / f"{tile.flipped()}.png"
        south.parent.mkdir(parents=True, exist_ok=True)
        south.write_bytes(path.read_bytes())
    left, bottom, right, top = FIRST.bounds_xy
    town = geopandas.GeoDataFrame(geometry=[shapely.box(left, bottom, right, top)], crs=3857)
    town.to_file(tmp_path / "town.gpkg")
    area = read_area(tmp_path / "town.gpkg")
    (xyz,), (tms,) = (
        find_inputs([tmp_path / name], mosaic=True, area=area).scenes for name in ("xyz", "tms")
    )
    assert xyz.source.grid == tms.source.grid
    np.testing.assert_array_equal(tms.source.read().data, xyz.source.read().data)
    assert xyz.notes == ()
    assert "from the south (TMS), because" in tms.notes[0]
    # Without an area, a note says where the tiles lie if that is in the south.
    (xyz,), (tms,) = (find_inputs([tmp_path / name], mosaic=True).scenes for name in ("xyz", "tms"))
    assert "lie at 30.96° S. If the place is as far north, add --tms" in xyz.notes[0]
    assert tms.notes == ()
    with pytest.raises(DataError, match=r"town\.gpkg"):
        find_inputs([tmp_path / "tms"], mosaic=True, area=area, tms=False)


@pytest.fixture
def pixels() -> np.ndarray:
    """Dark ground with one bright roof that lies on four tiles."""
    drawn = np.full((2 * SIDE, 3 * SIDE, 3), 40, np.uint8)
    drawn[SIDE - 30 : SIDE + 20, SIDE - 25 : SIDE + 40] = 220
    return drawn


def test_a_mosaic_has_one_mask_and_no_seam(
    bundle: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    write(tmp_path / "town", pixels, oam=False)
    report = run_predict(
        find_inputs([tmp_path / "town"], mosaic=True), read_models(bundle), tmp_path / "out"
    )
    (output,) = report.outputs
    assert Path(output.mask).name == "town_mask.tif"
    with rasterio.open(output.mask) as mask:
        assert mask.crs.to_epsg() == 3857
        left, _, _, top = FIRST.bounds_xy
        assert (mask.bounds.left, mask.bounds.top) == pytest.approx((left, top))
        values = mask.read(1)
    roof = pixels[..., 0] == 220
    known = np.ones_like(roof)
    known[SIDE:, 2 * SIDE :] = False
    assert ((values == NODATA) == ~known).all()
    # The answer of the network is the brightness; resampling blurs the outermost pixels.
    inner = known & ~(np.hypot(*np.gradient(roof.astype(float))) > 0)
    assert ((values == 1) == roof)[inner].mean() > 0.99
    houses = geopandas.read_file(output.polygons)
    assert len(houses) == output.buildings == 1
    assert houses.crs.to_epsg() == 3857
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["options"]["mosaic"] is True


@pytest.mark.campaign
@pytest.mark.parametrize("oam", [True, False])
def test_each_tile_lies_where_its_name_says(
    bundle: Path, tmp_path: Path, pixels: np.ndarray, oam: bool
) -> None:
    write(tmp_path / "town", pixels, oam=oam)
    report = run_predict(find_inputs([tmp_path / "town"]), read_models(bundle), tmp_path / "out")
    assert len(report.outputs) == 5
    assert sum(output.buildings for output in report.outputs) == 4
    [note] = [one for one in report.notes if "colours" not in one]  # none of an assumed scale
    assert "As one scene: rooftrace predict" in note
    first = "OAM-130805-154803-18" if oam else "18__130805__154803"
    with rasterio.open(tmp_path / "out" / f"{first}_mask.tif") as mask:
        assert tuple(mask.bounds) == pytest.approx(FIRST.bounds_xy)


def test_what_is_no_scene_of_tiles_is_reported(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path / "town", pixels, oam=True)
    with pytest.raises(ConfigError, match="zoom=18 was given") as caught:
        find_inputs([tmp_path / "town"], zoom=18)
    assert "--mosaic" in caught.value.remedy
    with pytest.raises(ConfigError, match="zoom = 17 was given"):
        find_inputs([tmp_path / "town"], mosaic=True, zoom=17)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There is no image in"):
        find_inputs([tmp_path / "empty"], mosaic=True)
    with pytest.raises(DataError, match="There is no image in"):
        find_inputs([tmp_path / "empty"])


def test_numbers_beside_an_image_do_not_make_it_a_tile(tmp_path: Path) -> None:
    """`2024/12/25/7.png`, named by its day."""
    image = tmp_path / "12" / "25" / "7.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(image)
    for given in (image, image.parent):
        jobs = find_inputs([given]).scenes
        assert [job.source.grid.crs for job in jobs] == [None]
    jobs = find_inputs([tmp_path, image]).scenes
    assert [job.name for job in jobs] == ["12__25__7"]
