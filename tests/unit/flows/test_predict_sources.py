"""However a scene comes, from a server, in pieces, its mask is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from range_server import serving
from raster_files import write_geotiff
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.predict.model_set import read_models
from tiny_models import write_tiny_bundle

ORIGIN = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000)


def write(path: Path, pixels: np.ndarray, row: int = 0, col: int = 0) -> None:
    write_geotiff(
        path, pixels, crs="EPSG:32633", transform=ORIGIN @ Affine.translation(col, row),
        compress="deflate", tiled=True, blockxsize=128, blockysize=128,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a scene with a roof in its middle, its mask, and the scene in four pieces."""
    folder = tmp_path_factory.mktemp("scene")
    write_tiny_bundle(folder / "tiny.rooftrace")
    pixels = np.full((3, 300, 400), 40, np.uint8)
    pixels[:, 120:180, 150:260] = 220
    write(folder / "scene.tif", pixels)
    (folder / "town").mkdir()
    for number, (row, col) in enumerate(((0, 0), (0, 190), (140, 0), (140, 190))):
        part = pixels[:, row : 140 if row == 0 else 300, col : 190 if col == 0 else 400]
        write(folder / "town" / f"{number}.tif", part, row, col)
    return folder


def mask_of(source: Path | str, folder: Path, out: Path, *, mosaic: bool = False) -> np.ndarray:
    report = run_predict(
        find_inputs([source], mosaic=mosaic), read_models(folder / "tiny.rooftrace"), out
    )
    with rasterio.open(report.outputs[0].mask) as mask:
        assert tuple(mask.transform)[:6] == tuple(ORIGIN)[:6]
        return mask.read(1)


@pytest.mark.campaign
def test_from_a_server_and_in_pieces(folder: Path, tmp_path: Path) -> None:
    expected = mask_of(folder / "scene.tif", folder, tmp_path / "file")
    assert expected.sum() == 60 * 110
    with serving((folder / "scene.tif").read_bytes()) as server:
        found = mask_of(server.url, folder, tmp_path / "server")
    np.testing.assert_array_equal(found, expected)
    found = mask_of(folder / "town", folder, tmp_path / "town", mosaic=True)
    np.testing.assert_array_equal(found, expected)
