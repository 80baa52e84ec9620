"""World files and `.prj` files place images whose own files have no georeference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyproj import CRS

from command_line import command
from rooftrace.core.errors import DataError
from rooftrace.io.companions import companions
from rooftrace.io.raster import open_raster
from tiny_models import write_tiny_bundle

UTM = CRS(32645)
WORLD = "0.149\n0\n0\n-0.149\n335000.0745\n3054999.9255\n"
"""The centre of the first pixel; its corner is 335000, 3055000."""

FEET = CRS("+proj=utm +zone=45 +datum=WGS84 +units=us-ft")


def write_image(folder: Path, suffix: str = "jpg", world: str = "jgw", prj: str = "") -> Path:
    path = folder / f"scene.{suffix}"
    pixels = np.random.default_rng(3).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    if world:
        (folder / f"scene.{world}").write_text(WORLD)
    if prj:
        (folder / "scene.prj").write_text(prj)
    return path


@pytest.mark.parametrize(
    ("suffix", "world"),
    [("jpg", "jgw"), ("jpg", "JGW"), ("jpg", "jpgw"), ("jpg", "wld"), ("png", "pgw"),
     ("tif", "tfw"), ("bmp", "bpw"), ("webp", "wld"), ("webp", "webpw")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["esri", "wkt2", "code", "proj"])
def test_a_world_file_and_a_prj_place_an_image(
    tmp_path: Path, suffix: str, world: str, form: str
) -> None:
    texts = {
        "esri": UTM.to_wkt("WKT1_ESRI"), "wkt2": UTM.to_wkt(pretty=True), "code": "EPSG:32645\n",
        "proj": "+proj=utm +zone=45 +datum=WGS84 +units=m",
    }  # fmt: skip
    path = write_image(tmp_path, suffix, world, texts[form])
    grid = open_raster(path).grid
    assert grid.crs is not None
    assert grid.crs.equals(UTM, ignore_axis_order=True) or form == "proj"
    assert np.allclose(
        grid.bounds_xy, (335000, 3055000 - 96 * 0.149, 335000 + 128 * 0.149, 3055000)
    )
    assert grid.gsd_m == pytest.approx(0.149, rel=2e-3)
    assert {tmp_path / f"scene.{world}", tmp_path / "scene.prj"} <= {*companions(path)}


def test_feet_without_a_code_stay_feet(tmp_path: Path) -> None:
    grid = open_raster(write_image(tmp_path, prj=FEET.to_wkt("WKT1_ESRI"))).grid
    assert grid.gsd_m == pytest.approx(0.149 * 0.3048006, rel=2e-3)


def test_a_prj_without_a_position_is_not_used(tmp_path: Path) -> None:
    assert open_raster(write_image(tmp_path, world="", prj="EPSG:32645")).grid.crs is None


def test_a_damaged_prj_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scene\.prj is not a coordinate system.*'nonsense'"):
        _ = open_raster(write_image(tmp_path, prj="nonsense")).grid


def test_degrees_beyond_the_earth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lies at longitude 335000"):
        _ = open_raster(write_image(tmp_path, prj="EPSG:4326")).grid


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace")


@pytest.mark.parametrize("crs", ["EPSG:32645", "32645", UTM.to_wkt()])
@pytest.mark.parametrize("mosaic", [False, True])
def test_the_option_crs_places_an_image_that_states_none(
    tmp_path: Path, tiny: Path, crs: str, mosaic: bool
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    path = write_image(images)
    given = [images, "--mosaic"] if mosaic else [path]
    result = command("predict", *given, "-m", tiny, "-o", tmp_path / "out", "--crs", crs)
    assert result.code == 0, result.err
    grid = open_raster(next((tmp_path / "out").glob("*_mask.tif"))).grid
    assert grid.crs is not None
    assert grid.crs.equals(UTM)
    assert grid.transform.c == pytest.approx(335000)
    assert "0.4 m" not in result.err


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [("EPSG:32645", {"world": ""}, "has no position"),
     ("EPSG:32644", {"prj": "EPSG:32645"}, "is in 'WGS 84 / UTM zone 45N'"),
     ("UTM 45", {}, "--crs received 'UTM 45'")],
)  # fmt: skip
def test_the_option_crs_is_refused(
    tmp_path: Path, tiny: Path, given: str, kind: dict[str, str], message: str
) -> None:
    path = write_image(tmp_path, **kind)
    result = command("predict", path, "-m", tiny, "-o", tmp_path / "out", "--crs", given)
    assert result.code == 2
    assert message in " ".join(result.err.split())
