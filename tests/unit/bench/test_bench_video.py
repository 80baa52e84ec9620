"""The benchmark of videos runs at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")

from tiny_models import write_tiny_bundle

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_video(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    command = [sys.executable, BENCH / "video.py", "--sizes", "360p", "--strides", "2"]
    command += ["--ways", "ours,plain_mask", "--seconds", "0.4", "--frames", "3", "--repeats", "1"]
    command += ["--model", tmp_path / "tiny.rooftrace", "--work", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["frames"] == 10
    ours, plain = (answer["rows"][f"{way}_360p_stride2"] for way in ("ours", "plain_mask"))
    assert ours["realtime"] == pytest.approx(ours["frames_per_s"] / 25, rel=0.01)
    # The same model on the same frames; one follows the ground between those that it is shown.
    assert ours["built_up_share"] == pytest.approx(plain["built_up_share"], rel=0.1)
    assert set(answer["ratios"]) == {"ours/plain_mask_360p_stride2"}
    still = answer["smoothing"]["still_stride1_none_0s"]
    assert 0 < still["iou"] < 1
    assert (
        answer["smoothing"]["still_stride1_flow_1s"]["flicker_percent"] < still["flicker_percent"]
    )
