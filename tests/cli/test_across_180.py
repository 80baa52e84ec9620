"""Scenes across longitude 180, or in longitudes beyond it, as of Fiji and New Zealand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from command_line import command
from raster_files import write_geotiff

DEG = 0.5 / 111_320
HALF_TURN_M = 20037508.342789244
SCENES = {
    "beyond 180 degrees": ("EPSG:4326", Affine(DEG, 0, 200, 0, -DEG, -16)),
    "across 180 degrees": ("EPSG:4326", Affine(DEG, 0, 180 - 100 * DEG, 0, -DEG, -16)),
    "across it in Web Mercator": ("EPSG:3857", Affine(0.5, 0, HALF_TURN_M - 50, 0, -0.5, -1.8e6)),
    "across it in UTM": ("EPSG:32760", Affine(0.5, 0, 821_700, 0, -0.5, 8_228_000)),
}


def three_buildings() -> np.ndarray:
    mask = np.zeros((1, 60, 200), np.uint8)
    mask[:, 10:30, 80:120] = mask[:, 40:50, 10:30] = mask[:, 40:50, 150:180] = 1
    return mask


def write(path: Path, data: np.ndarray, scene: str) -> Path:
    crs, transform = SCENES[scene]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_geotiff(path, data, crs=crs, transform=transform)
    return path


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
        found = answer("compare", new, old, "-o", tmp_path / f"c{old.suffix[1:]}")["statuses"]
        assert {name: side["old"] for name, side in found.items() if side["old"]} == {
            "same": 1,
            "gone": 2,
        }


def test_outlines_are_those_of_the_mask(outlined: tuple[Path, Path]) -> None:
    mask, outlines = outlined
    found = answer("evaluate", "--predictions", outlines, "--truth", mask)
    assert found["pixel"]["iou"] == pytest.approx(1, abs=0.01)
