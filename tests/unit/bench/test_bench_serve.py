"""The benchmark of the server runs at a tiny size, and prints what bench/README.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

for _package in ("torch", "fastapi", "uvicorn", "gradio"):
    pytest.importorskip(_package)

from test_bench_scripts import bundle, run  # noqa: E402

__all__ = ["bundle"]


@pytest.mark.campaign
def test_serve_is_compared_with_the_engine_and_a_handler(bundle: Path, tmp_path: Path) -> None:
    done = run(
        "serve.py", "--model", bundle, "--work", tmp_path, "--sides", "64", "--images", "2",
        "--clients", "2", "--seconds", "0.3", "--rows", "ours", "plain",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reported = json.loads(done.stdout)
    ours, plain = (reported["rows"][name]["clients"]["2"] for name in ("ours", "plain"))
    for figures in (ours, plain):
        assert figures["images"] > 0
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert ours["tiles_per_batch"] >= 1
    # The same job: what differs is the arithmetic.
    assert reported["agreement"]["plain"] > 0.9
    (ratios,) = reported["ratios"]
    assert ratios["ours/batch"]["2"] == pytest.approx(
        ours["images_per_s"] / reported["rows"]["batch"]["images_per_s"], rel=0.01
    )
