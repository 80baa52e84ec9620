"""Scenes across longitude 180, or in longitudes beyond it, as of Fiji and New Zealand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from command_line import command
from raster_files import write_geotiff
from rooftrace.io.raster import open_raster
from rooftrace.io.reproject import CRS84, reprojected, split_at_180
from tiny_models import write_tiny_bundle

DEG = 0.5 / 111_320
HALF_TURN_M = 20037508.342789244
SCENES = {
    "beyond 180 degrees": ("EPSG:4326", Affine(DEG, 0, 200, 0, -DEG, -16)),
    "across 180 degrees": ("EPSG:4326", Affine(DEG, 0, 180 - 100 * DEG, 0, -DEG, -16)),
    "across it in Web Mercator": ("EPSG:3857", Affine(0.5, 0, HALF_TURN_M - 50, 0, -0.5, -1.8e6)),
    "across it in UTM": ("EPSG:32760", Affine(0.5, 0, 821_700, 0, -0.5, 8_228_000)),
}
BUILT_PX = 1300


def three_buildings() -> np.ndarray:
    mask = np.zeros((1, 60, 200), np.uint8)
    mask[:, 10:30, 80:120] = mask[:, 40:50, 10:30] = mask[:, 40:50, 150:180] = 1
    return mask


def write(path: Path, data: np.ndarray, scene: str) -> Path:
    crs, transform = SCENES[scene]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_geotiff(path, data, crs=crs, transform=transform)
    return path


def built_px(mask: Path) -> int:
    with rasterio.open(mask) as file:
        return int((file.read(1) == 1).sum())


def answer(*arguments: object) -> dict[str, Any]:
    code, out, said = command(*arguments, "--json")
    assert code == 0, out + said
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.campaign if number % 2 == 0 else ())
        for number, name in enumerate(SCENES)
    ]
)
def scene(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["geojson", pytest.param("gpkg", marks=pytest.mark.campaign)])
def outlined(request: pytest.FixtureRequest, scene: str, tmp_path: Path) -> tuple[Path, Path]:
    """A mask, and the outlines of its buildings, which GeoJSON divides at longitude 180."""
    mask = write(tmp_path / "m.tif", three_buildings(), scene)
    outlines = tmp_path / f"m.{request.param}"
    answer("vectorize", mask, "-o", outlines, "--outline", "simplified")
    return mask, outlines


def test_density_counts_all_buildings(outlined: tuple[Path, Path], tmp_path: Path) -> None:
    mask, outlines = outlined
    by_both = answer("density", mask, outlines, "-o", tmp_path / "both", "--cell", 10)
    by_outlines = answer("density", outlines, "-o", tmp_path / "outlines", "--cell", 10)
    assert by_both["total"]["buildings"] == by_outlines["total"]["buildings"] == 3
    for found in (by_both, by_outlines):
        zone = int(found["crs"].split(":")[1].split()[0])
        # Those of longitude 180, and of 160 west.
        assert zone in (32760, 32701, 32704)


def test_compare_knows_which_ground_was_seen(
    scene: str, outlined: tuple[Path, Path], tmp_path: Path
) -> None:
    mask, outlines = outlined
    one = three_buildings()
    one[:, 40:] = 0
    new = write(tmp_path / "one.tif", one, scene)
    for old in (mask, outlines):
        found = answer("compare", new, old, "-o", tmp_path / f"c{old.suffix}")["statuses"]
        assert {name: side["old"] for name, side in found.items() if side["old"]} == {
            "same": 1,
            "gone": 2,
        }


def test_outlines_are_those_of_the_mask(outlined: tuple[Path, Path]) -> None:
    mask, outlines = outlined
    found = answer("evaluate", "--predictions", outlines, "--truth", mask)
    assert found["pixel"]["iou"] == pytest.approx(1, abs=0.01)


def test_an_area_divided_at_180_limits_both_sides(
    scene: str, outlined: tuple[Path, Path], tmp_path: Path
) -> None:
    image = write(tmp_path / "i.tif", np.repeat(three_buildings() * 250, 3, axis=0), scene)
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    left, top, right, bottom = 40, 5, 190, 55
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    grid = open_raster(image).grid
    area = shapely.Polygon(np.stack(grid.to_world(*corners.T), axis=1))
    path, crs = tmp_path / f"area{outlined[1].suffix}", grid.crs
    if path.suffix == ".geojson":
        degrees = reprojected(np.array([area]), crs, CRS84, 1e-7)
        (area,), crs = split_at_180(degrees), CRS84
    gpd.GeoDataFrame(geometry=[area], crs=crs).to_file(path)
    answer(
        "predict", image, "-m", tmp_path / "tiny.rooftrace", "--area", path, "-o", tmp_path / "p",
        "--outputs", "mask", "--stretch", "none",
    )  # fmt: skip
    mask = open_raster(tmp_path / "p" / "i_mask.tif").read()
    # An edge bends a little where it is projected.
    assert abs(int(mask.valid.sum()) - (right - left) * (bottom - top)) <= 200


def test_labels_go_to_footprints_and_back(scene: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "images" / "s.tif", np.repeat(three_buildings() * 250, 3, axis=0), scene)
    write(data / "masks" / "s.tif", three_buildings(), scene)
    answer("convert", data, "--to", "footprints", "-o", tmp_path / "f.geojson")
    back = tmp_path / "back"
    images = data / "images"
    answer("convert", tmp_path / "f.geojson", "--images", images, "--to", "folder", "-o", back)
    (made,) = (back / "masks").iterdir()
    assert abs(built_px(made) - BUILT_PX) <= 10
