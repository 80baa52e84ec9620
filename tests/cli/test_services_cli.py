"""`rooftrace predict` on the map services of a TiTiler, through the real command."""

import json
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from command_line import call, command
from map_servers import TiTiler, titiler
from rooftrace.io.web_mercator import TileName
from tiny_models import write_tiny_bundle

pytest.importorskip("httpx")
pytest.importorskip("owslib")

FIRST = TileName(19, 261_000, 309_606)
ROWS, COLS = 2, 4


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("titiler.extensions")
    with titiler() as base:
        yield base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a scene of houses on the pixels of zoom 19 with a corner of nodata, and its area."""
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    rng = np.random.default_rng(5)
    coarse = rng.integers(1, 256, (3, 16, 32), dtype=np.uint8)
    data = np.kron(coarse, np.ones((1, 32, 32), np.uint8))
    data[:, -100:, -120:] = 0
    grid = FIRST.grid((256, 256))
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=ROWS * 256, width=COLS * 256, dtype="uint8",
        nodata=0, crs="EPSG:3857", transform=grid.transform, tiled=True, compress="deflate",
    ) as out:  # fmt: skip
        out.write(data)
        box = shapely.box(*out.bounds).buffer(-0.05)
    frame = geopandas.GeoDataFrame(geometry=[box], crs=3857)
    frame.to_file(tmp_path / "town.gpkg")
    return tmp_path


def options(folder: Path, out: str) -> list[object]:
    return [
        "--area", folder / "town.gpkg", "-m", folder / "tiny.rooftrace", "-o", folder / out,
        "--per-second", 500, "--tile-cache", folder / "cache",
    ]  # fmt: skip


def same_ground(mask: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of both masks under the second one, which may be the smaller."""
    with rasterio.open(mask) as large, rasterio.open(other) as small:
        window = large.window(*small.bounds).round_offsets().round_lengths()
        return large.read(1, window=window), small.read(1)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["xyz", "wmts", "wms"])
def test_a_titiler_gives_what_the_scene_on_disk_gives(server: str, folder: Path, kind: str) -> None:
    code, disk = call(
        "predict", folder / "scene.tif", "-m", folder / "tiny.rooftrace", "-o", folder / "disk"
    )
    assert code == 0
    url = getattr(TiTiler(server, folder / "scene.tif"), kind)
    code, served = call("predict", url, "--zoom", 19, *options(folder, "served"))
    assert code == 0
    expected, found = same_ground(served["outputs"][0]["mask"], disk["outputs"][0]["mask"])
    assert (expected == found).all()
    assert (found == 255).sum() >= 100 * 120 * 0.9
    assert 0.2 < (found == 1).mean() < 0.9
    assert served["outputs"][0]["buildings"] == disk["outputs"][0]["buildings"]
    polygons = geopandas.read_file(served["outputs"][0]["polygons"])
    assert set(polygons["source"]) <= {url.partition("?")[0], "TiTiler", served_name(folder)}


def served_name(folder: Path) -> str:
    """Return the URL of the service as the record has it."""
    record = json.loads((folder / "served" / "run.json").read_text())
    return str(record["inputs"][0])


@pytest.mark.parametrize(
    ("url", "more", "code", "message"),
    [
        ("https://host.invalid/{z}/{x}.png", [], 2, "does not name a tile"),
        ("https://host.invalid/{s}/{z}/{x}/{y}.png", [], 2, "{s}"),
        ("https://host.invalid/{z}/{x}/{y}.png", ["--layer", "photo"], 2, "has tiles alone"),
        ("https://host.invalid/{z}/{x}/{y}.png", ["--max-tiles", "3"], 2, "--max-tiles"),
        ("http://127.0.0.1:9/{z}/{x}/{y}.png", [], 3, "cannot be reached"),
    ],
)
def test_a_wrong_address_is_a_clear_error(
    folder: Path, url: str, more: list[str], code: int, message: str
) -> None:
    done = command("predict", url, "--zoom", 19, *options(folder, "out"), *more)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
