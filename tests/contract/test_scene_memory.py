"""Memory does not grow with the scene."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from town import demo_scene

pytestmark = pytest.mark.campaign

GSD_M = 0.4
TOWN_PX = 1500


@pytest.fixture(scope="module")
def town() -> np.ndarray:
    return demo_scene().image[:, :TOWN_PX, :TOWN_PX].clip(1, 255)


def write_sparse(path: Path, side: int, town: np.ndarray) -> Path:
    """Four towns far apart; what lies between them is not even stored."""
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", nodata=0,
        crs="EPSG:32737", transform=Affine(GSD_M, 0, 3e5, 0, -GSD_M, 9.5e6), tiled=True,
        compress="deflate", zlevel=1, sparse_ok=True, bigtiff="yes",
    ) as out:  # fmt: skip
        for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
            place = [(side - TOWN_PX) * at // 512 * 512 for at in (row, col)]
            out.write(town, window=Window(place[1], place[0], TOWN_PX, TOWN_PX))
    return path


def predict(scene: Path, out: Path) -> tuple[dict[str, int], float]:
    """The figures of the scene, and the most memory that the process held, in MB."""
    # What it says of itself: a child's peak by `wait4` begins with that of its parent.
    done = subprocess.run(
        [sys.executable, "-m", "rooftrace", "predict", str(scene), "-o", str(out), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    return report["outputs"][0], report["peak_rss_mb"]


def test_a_scene_of_100_000_pixels_takes_no_more_than_one_of_20_000(
    town: np.ndarray, tmp_path: Path
) -> None:
    small, small_mb = predict(write_sparse(tmp_path / "s.tif", 20_000, town), tmp_path / "small")
    large, large_mb = predict(write_sparse(tmp_path / "l.tif", 100_000, town), tmp_path / "large")
    assert large["pixels"] == 25 * small["pixels"] == 10**10
    # The same towns, in tiles that lie elsewhere over them.
    assert large["buildings"] == pytest.approx(small["buildings"], rel=0.03)
    assert small["buildings"] > 4 * 250
    assert large_mb < 1500
    # The same scene differs by up to 80 MB from run to run, with the threads of engine and reader;
    # one bit kept of each further pixel would be 1,200 MB.
    assert large_mb < small_mb + 200, (small_mb, large_mb)
