"""The benchmarks of scenes' sizes and of seams run at tiny sizes and find what is there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


def answer_of(script: str, *arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, BENCH / script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["benchmark"] == script.removesuffix(".py")
    return answer


@pytest.mark.campaign
def test_scale_compares_each_size_with_the_first(bundle: Path, tmp_path: Path) -> None:
    answer = answer_of(
        "scale.py", "--sizes", "512", "1100", "--cell", "512", "--model", bundle,
        "--work", tmp_path, "--clean",
    )  # fmt: skip
    small, large = (answer["rows"][side] for side in ("512", "1100"))
    assert (small["data_mpx"], large["data_mpx"]) == pytest.approx((0.06554, 0.2621), rel=1e-3)
    assert large["buildings"] == pytest.approx(4 * small["buildings"], rel=0.1)
    for row in (small, large):
        assert 0 < row["seconds_inside"] < row["seconds"]
        rate = row["data_mpx"] / row["seconds_inside"]
        assert row["data_mpx_per_s"] == pytest.approx(rate, rel=1e-2)
    for name, figure in (
        ("memory", "peak_rss_mb"), ("rate", "data_mpx_per_s"), ("work", "cpu_ms_per_data_mpx")
    ):  # fmt: skip
        ratio = pytest.approx(large[figure] / small[figure], rel=1e-2)
        assert answer[f"{name}_of_the_first"] == {"512": 1, "1100": ratio}
    assert not [*tmp_path.glob("sparse_*")]


@pytest.mark.campaign
def test_seams_of_a_pointwise_model_do_not_show(bundle: Path, tmp_path: Path) -> None:
    answer = answer_of(
        "seams.py", "--size", "500", "--tile", "128", "--overlaps", "0,0", "32,8",
        "--offsets", "32", "17", "--model", bundle, "--work", tmp_path,
    )  # fmt: skip
    assert [(row["overlap_px"], row["trim_px"]) for row in answer["rows"]] == [(0, 0), (32, 8)]
    assert answer["shape_yx"] == [500, 500]
    for row in answer["rows"]:
        assert set(row["by_offset"]) == {"32", "17"}
        for shares in row["by_offset"].values():
            assert shares["changed_share"] == 0


def test_changes_at_lines_differ_from_changes_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    compare = importlib.import_module("seams").compare
    whole = np.ones((640, 640), np.uint8)
    moved = whole.copy()
    # Tiles of the one begin at multiples of 256, those of the other 40 px before.
    moved[200, 216] = 0
    shares = compare(whole, moved, 40, 256, 0)
    assert shares["near_lines"] > shares["changed_share"] == 1 / 384**2
    assert shares["elsewhere"] == 0
    # And here no line of either is near.
    shares = compare(whole, moved, 200, 512, 0)
    assert shares["near_lines"] == 0
    assert shares["elsewhere"] > shares["changed_share"] == 1 / 384**2


@pytest.mark.campaign
def test_seams_are_refused_where_nothing_is_left_to_compare(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "seams.py", "--size", "300", "--work", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "edges alone" in done.stderr
