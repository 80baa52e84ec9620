"""Each benchmark runs at a tiny size and prints what bench/README.md says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from town import demo_scene_path, demo_truth_path, write_pairs

if TYPE_CHECKING:
    from conftest import TinyRun

BENCH = Path(__file__).resolve().parents[3] / "bench"

RECIPE = """
crop_px = 32
epochs = 1
batch_size = 2
samples_per_epoch = 4
val_tiles = 2
[model]
encoder = "resnet18"
encoder_weights = "none"
options = {encoder_depth = 3, decoder_channels = [16, 8, 8]}
[[data.train]]
path = "pairs"
[[data.val]]
path = "pairs"
"""


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH / script, *map(str, arguments)],
        capture_output=True, text=True, check=False,
        # Where other tests run beside it, PyTorch's threads would wait for one another.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def answer_of(script: str, *arguments: str | Path) -> dict[str, Any]:
    done = run(script, *arguments)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["benchmark"] == script.removesuffix(".py")
    assert {"cpu", "instruction_set", "cores", "versions"} <= set(answer["machine"])
    return answer


def start(answer: dict[str, Any]) -> None:
    rows = answer["rows"]
    assert set(rows) == {"python", "numpy", "import", "load", "version", "help", "tile"}
    assert rows["python"]["peak_rss_mb"] < rows["tile"]["peak_rss_mb"]


def services(answer: dict[str, Any]) -> None:
    cases = {case: row["rooftrace"] for case, row in answer["cases"].items()}
    assert cases["plain"]["equal_tiles"] == cases["plain"]["requests"] == answer["tiles"] == 100
    assert cases["half_missing"]["equal_tiles"] == 50
    assert "Please sign in" in cases["page"]["error"]
    assert "Read failed" in answer["cases"]["page"]["gdal"]["error"]


def density(answer: dict[str, Any]) -> None:
    for place in ("utm", "web_mercator"):
        # The loop takes the pixels of Web Mercator for equally large.
        shares = [answer["rows"][f"{way}_{place}"]["built_up_share"] for way in ("ours", "plain")]
        assert abs(shares[0] - shares[1]) < 1e-6
    assert answer["rows"]["polygons"]["polygons_per_s"] > 0


def compare(answer: dict[str, Any]) -> None:
    rows = answer["rows"]
    assert rows["ours_1000"]["matched"] == rows["plain_1000"]["matched"]
    found = {name: row for name, row in rows["command_2000"]["statuses"].items() if any(row)}
    assert set(found) == {"same", "changed", "moved", "split", "new", "gone"}
    assert found["new"][0] == found["gone"][1] == 100


def metrics(answer: dict[str, Any]) -> None:
    # One in twenty of twelve is missing in the label; one in ten is left out of the prediction.
    assert 60 <= answer["buildings"] <= 72
    assert 0.5 < answer["iou"] < 0.95
    assert 0.7 < answer["object_f1"] < 1


def rle(answer: dict[str, Any]) -> None:
    for order in ("row", "column"):
        ours, loop = answer["rows"][f"ours_{order}"], answer["rows"][f"loop_{order}"]
        assert (ours["masks"], loop["masks"]) == (30, 10)
        assert ours["runs_per_mask"] == loop["runs_per_mask"] > 1


def map_(answer: dict[str, Any]) -> None:
    assert {"bytes", "start_up"} <= answer["ratios"].keys()
    # 400 houses of eight corners.
    assert 100_000 < answer["geojson"]["bytes"] < 300_000


def audit(answer: dict[str, Any]) -> None:
    assert set(answer["rows"]) == {"decode", "audit", "imread"}
    assert {"audit/decode", "audit/imread"} == set(answer["ratios"])


def predict(answer: dict[str, Any]) -> None:
    ours, plain = answer["rows"]["ours_fp32"], answer["rows"]["plain"]
    assert (ours["pixels"], plain["pixels"]) == (256**2, 192**2)
    assert answer["model"]["largest_difference"] < 0.01
    speed = ours["mpx_per_s"] / plain["mpx_per_s"]
    assert answer["ratios"]["ours_fp32/plain"]["speed"] == pytest.approx(speed, rel=1e-3)
    assert answer["unavailable"] == {"sahi": "ModuleNotFoundError: No module named 'sahi'"}


def stages(answer: dict[str, Any]) -> None:
    assert all(stage["mpx_per_s"] > 0 for stage in answer["stages"].values())
    low, high = sorted(answer["by_turn"])
    assert 0 < low <= answer["end_to_end_share_of_engine"] <= high


def tiles(answer: dict[str, Any]) -> None:
    assert set(answer["rows"]) == {"engine", "mask", "rle"}


def serve(answer: dict[str, Any]) -> None:
    # The same job: what differs is the arithmetic.
    assert answer["agreement"]["plain"] > 0.9


def engines(answer: dict[str, Any]) -> None:
    assert answer["rows"]["openvino_fp32"]["iou_change"] == {"data": 0.0}
    # Where there is a GPU it is a row as the others are.
    gone = "onnxruntime_tensorrt_fp16"
    assert (gone in answer["rows"]) != (gone in answer["unavailable"])


def video(answer: dict[str, Any]) -> None:
    still = answer["smoothing"]["still_stride1_none_0s"]["flicker_percent"]
    assert answer["smoothing"]["still_stride1_flow_1s"]["flicker_percent"] < still


def scale(answer: dict[str, Any]) -> None:
    small, large = (answer["rows"][side] for side in ("512", "1100"))
    assert large["buildings"] == pytest.approx(4 * small["buildings"], rel=0.1)


def seams(answer: dict[str, Any]) -> None:
    for row in answer["rows"]:
        assert [shares["changed_share"] for shares in row["by_offset"].values()] == [0, 0]


CASES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "start.py": (start, "--repeats 1 --work WORK"),
    "services.py": (services, "--cases plain half_missing page --work WORK"),
    "density.py": (density, "--size 300 --plain-size 300 --polygons 200"),
    "compare.py": (compare, "--buildings 2000 --plain-buildings 1000 --work WORK"),
    "metrics.py": (metrics, "--tiles 6 --buildings 12"),
    "rle.py": (rle, "--size 96 --masks 30 --loop-masks 10 --distinct 3 --work WORK"),
    "map.py": (map_, "--buildings 400 --work WORK"),
    "audit.py": (audit, "--tiles 40 --repeats 1 --work WORK"),
    "predict.py": (
        predict,
        (
            "--size 256 --baseline-size 192 --tile 128 --rows ours_fp32 plain sahi"
            " --peers-python PYTHON --model TRAINED --work WORK"
        ),
    ),
    "stages.py": (stages, "--size 256 --repeats 2 --model TRAINED --work WORK"),
    "tiles.py": (tiles, "--tiles 12 --rows engine mask rle --model TRAINED --work WORK"),
    "serve.py": (
        serve,
        (
            "--sides 64 --images 2 --clients 2 --seconds 0.3 --rows ours plain"
            " --model TRAINED --work WORK"
        ),
    ),
    "engines.py": (
        engines,
        (
            "--rows torch_eager openvino_fp32 onnxruntime_tensorrt_fp16 --data DATA"
            " --calibration DATA --side 64 --seconds 0.01 --model TRAINED --work WORK"
        ),
    ),
    "video.py": (
        video,
        (
            "--sizes 360p --strides 2 --ways ours,plain_mask --seconds 0.4 --frames 3 --repeats 1"
            " --model BRIGHT --work WORK"
        ),
    ),
    "scale.py": (scale, "--sizes 512 1100 --cell 512 --model BRIGHT --work WORK --clean"),
    "seams.py": (
        seams,
        "--size 500 --tile 128 --overlaps 0,0 32,8 --offsets 32 17 --model BRIGHT --work WORK",
    ),
}
"""Check and arguments of each benchmark; words in capitals are filled in."""


@pytest.mark.campaign
@pytest.mark.parametrize("script", CASES)
def test_a_benchmark_runs_at_a_tiny_size(
    script: str, bundle: Path, tiny_run: TinyRun, tmp_path: Path
) -> None:
    check, arguments = CASES[script]
    values = {
        "WORK": tmp_path, "BRIGHT": bundle, "TRAINED": tiny_run.bundle, "DATA": tiny_run.data,
        "PYTHON": sys.executable,
    }  # fmt: skip
    given = [str(values.get(one, one)) for one in arguments.split()]
    if script == "map.py" and shutil.which("chromium") is None:
        given.append("--no-browser")
    check(answer_of(script, *given))


@pytest.mark.campaign
def test_train_and_accuracy(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    answer = answer_of(
        "train.py", "--samples", "8", "--pairs", "2", "--repeats", "1", "--recipe", recipe,
        "--work", tmp_path / "speed", "--rows", "ours", "--choices", "as chosen", "fp32",
    )  # fmt: skip
    row = answer["rows"]["ours"]
    low, high = sorted(row["ours/random"])
    assert low <= answer["ratios"]["ours/random"]["median"] <= high
    # Of the epochs of samples alone, each of which is of samples of its own.
    assert len(set(row["train_loss"])) == 3
    assert list(answer["choices"]) == ["as chosen", "fp32"]
    write_pairs(tmp_path / "pairs", range(2), shape_yx=(320, 320))

    def points(minutes: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = answer_of(
            "accuracy.py", "--minutes", minutes, "--every", "0.01", "--turn", "0.01",
            "--recipe", recipe, "--work", tmp_path / "work", "--sides", "ours",
        )["points"]["ours"]  # fmt: skip
        return found

    before = points("0.02")
    assert [point["minutes"] for point in before] == [0.01, 0.02]
    # A run goes on where it was stopped.
    assert points("0.03")[:2] == before


@pytest.mark.campaign
def test_outlines_are_measured_beside_another_build_and_at_a_place(tmp_path: Path) -> None:
    scene = demo_scene_path()
    answer = answer_of(
        "outlines.py", scene, "--labels", demo_truth_path(), "--before", BENCH.parent / "src",
        "--picture", tmp_path / "shapes.png", "--work", tmp_path,
    )  # fmt: skip
    shapes, place = answer["sets"]["generated"], answer["sets"][scene.stem]
    regular, stairs = shapes["regular"], shapes["douglas_peucker"]
    assert regular["kinds"]["rectangle"] > 0.9
    assert regular["right"] > stairs["right"]
    assert regular["polis_px"] < stairs["polis_px"]
    assert place["regular"]["f1"] > 0.5
    assert place["regular"]["polis_px"] < place["douglas_peucker"]["polis_px"]
    for rows in (shapes, place):
        # The other build is this one.
        for row in ("regular", "before"):
            assert rows[row].pop("us_per_building") > 0
        assert rows["before"] == rows["regular"]
    assert (tmp_path / "shapes.png").stat().st_size > 10_000


@pytest.mark.campaign
@pytest.mark.realdata
def test_kinds_of_images_are_compared(realdata: Path, tmp_path: Path) -> None:
    answer = answer_of("kinds.py", realdata, "--places", "catanduanes", "--work", tmp_path)
    (row,) = answer["iou"].values()
    assert abs(row["16 bits"] - row["8 bits"]) <= 0.01
    assert row["dark 0.35, auto"] > row["dark 0.35, none"]
