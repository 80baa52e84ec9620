"""Check of uploads before they become jobs, and the process of a job."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from raster_files import TOO_LONG, with_blocks, write_geotiff
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.io.files import locked
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor, load
from rooftrace.service.decode import Limits
from rooftrace.service.job_runner import CHILD, admit
from tiny_models import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace", gsd_m=0.5)


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return load(bundle)


def draw(path: Path, bands: int = 3, gsd_m: float = 0.5) -> Path:
    data = np.full((bands, 60, 80), 40, dtype=np.uint8)
    data[:, 5:25, 10:40] = 200
    return write_geotiff(
        path, data, crs="EPSG:32737", transform=Affine(gsd_m, 0, 5e5, 0, -gsd_m, 9e6)
    )


def test_a_header_that_takes_too_long(tmp_path: Path, predictor: Predictor) -> None:
    path = draw(tmp_path / "upload")
    with pytest.raises(DataError, match=r"slow\.tif cannot be decoded: it took longer than 0 s"):
        admit(path, "slow.tif", SceneOptions(), predictor, Limits(decode_seconds=0))


def test_a_density_that_cannot_be_made_is_refused_at_once(
    tmp_path: Path, predictor: Predictor
) -> None:
    """The scene is 40 m long, and a cell 100 m."""
    path = draw(tmp_path / "upload")
    with pytest.raises(ConfigError, match="less than 3 cells of 100 m long"):
        admit(path, "town.tif", SceneOptions(outputs=("density",)), predictor, Limits())


def order(folder: Path, bundle: Path, upload: str, name: str) -> bytes:
    message = {
        "folder": str(folder), "upload": upload, "name": name,
        "model": str(bundle),
        "engine": None, "precision": None,
        "options": SceneOptions(cell_m=10).model_dump(),
    }  # fmt: skip
    return json.dumps(message).encode() + b"\n"


def begin(
    folder: Path, bundle: Path, upload: str = "scene.tif", name: str = "town.tif"
) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(order(folder, bundle, upload, name))
    child.stdin.flush()
    return child


def answers(child: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    assert child.stdout is not None
    with child:
        return [json.loads(line) for line in child.stdout]


@pytest.mark.campaign
def test_what_cannot_be_stored_is_a_matter_of_the_operator(tmp_path: Path, bundle: Path) -> None:
    draw(tmp_path / "scene.tif")
    (tmp_path / "results").write_text("a file")
    (message,) = answers(begin(tmp_path, bundle))
    assert message["error"]["remedy"] == "Ask the operator of the server to make room."  # type: ignore[index]


def wait_until_it_steps_back(pid: int) -> None:
    """Wait until the process has raised its score for the out-of-memory killer."""
    deadline = time.monotonic() + 60
    adjusted = Path(f"/proc/{pid}/oom_score_adj")
    while adjusted.read_text().strip() != "500":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.campaign
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_waits_for_the_one_before_it(tmp_path: Path, bundle: Path) -> None:
    draw(tmp_path / "scene.tif")
    with locked(tmp_path / ".lock", "the folder"):
        child = begin(tmp_path, bundle)
        wait_until_it_steps_back(child.pid)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        time.sleep(0.3)
        assert child.poll() is None
        assert not (tmp_path / "results").exists()
    message = answers(child)
    assert message[-2] == {"progress": [4800, 4800, 1]}
    figures = message[-1]["figures"]
    assert isinstance(figures, dict)
    assert figures["buildings"] == 1
    assert figures["built_up_share"] == pytest.approx(600 / 4800)
    # A stored answer is not computed again.
    written = (tmp_path / "results" / "town_mask.tif").stat().st_mtime_ns
    assert answers(begin(tmp_path, bundle))[-1] == message[-1]
    assert (tmp_path / "results" / "town_mask.tif").stat().st_mtime_ns == written


@pytest.mark.campaign
def test_a_process_ends_with_its_server(tmp_path: Path, bundle: Path) -> None:
    draw(tmp_path / "scene.tif")
    with locked(tmp_path / ".lock", "the folder"):
        child = begin(tmp_path, bundle)
        time.sleep(0.1)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 1
    assert child.stdout is not None
    child.stdout.close()
    assert not (tmp_path / "results").exists()


@pytest.mark.campaign
def test_a_large_image_whose_blocks_are_too_long_is_refused(tmp_path: Path, bundle: Path) -> None:
    # Large enough that a command on one's own image would not check it.
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1100, 1000), np.uint8)
    path = write_geotiff(
        tmp_path / "scene.tif", pixels, compress="deflate", interleave="band", blockysize=50
    )
    path.write_bytes(with_blocks(path.read_bytes(), TOO_LONG))
    (message,) = answers(begin(tmp_path, bundle))
    error = message["error"]
    assert isinstance(error, dict)
    assert error["message"].startswith("town.tif is damaged")
