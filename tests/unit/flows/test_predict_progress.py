"""Progress, times and notes of a run over several images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raster_files import write_geotiff
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions


@pytest.mark.campaign
def test_progress_moves_before_the_first_block_is_done(bundle: Path, tmp_path: Path) -> None:
    side = 3400
    image = write_geotiff(tmp_path / "large.tif", np.full((3, side, side), 40, np.uint8))
    seen = []

    def progress(done_px: int, total_px: int, buildings: int, images: int) -> None:
        seen.append(done_px)

    run_predict(
        find_inputs([image]), read_models(bundle), tmp_path / "out",
        SceneOptions(outputs=("mask",), scale=1.0), progress=progress,
    )  # fmt: skip
    assert seen == sorted(seen)
    assert seen[-1] == side**2
    # The first of several tiles of the first block.
    assert 0 < seen[0] <= side**2 / 4
    assert len(seen) > 4


def test_the_network_is_released_before_the_files_of_the_last_large_image(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TILE_PX", "BLOCK_PX", "_SMALL_TILE_PX"):
        monkeypatch.setattr(f"rooftrace.predict.plan.{name}", 64)
    written: list[list[str]] = []
    monkeypatch.setattr(
        "rooftrace.engines.openvino.OpenVinoEngine.release",
        lambda _: written.append([path.name for path in tmp_path.glob("out/*_mask.tif")]),
    )
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_geotiff(tmp_path / "in" / f"{name}.tif", np.full((3, 160, 160), 40, np.uint8))
    run_predict(
        find_inputs([tmp_path / "in"]), read_models(bundle), tmp_path / "out",
        SceneOptions(outputs=("mask",), scale=1.0),
    )  # fmt: skip
    assert written == [["a_mask.tif"]]
