"""A run that is killed on one processor and resumed on another: the same bytes, or a refusal.

The other processor is this one under `ONEDNN_MAX_CPU_ISA`, in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raster_files import write_geotiff
from rooftrace.engines.processor import CAP, this_processor
from town import generate_scene

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        {"AVX2", "AVX512_CORE_VNNI"} - {*this_processor().without_cap.sets} != set(),
        reason="this processor has one kind of int8 kernels only",
    ),
]

HIGH, LOW = "AVX512_CORE_VNNI", "AVX2"

_PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.predict import plan

plan.TILE_PX, plan.BLOCK_PX = 256, 300
calls, run = int(sys.argv.pop(1)), OpenVinoEngine.run_quantised

def counted(self, batch):
    global calls
    calls -= 1
    if calls == 0:
        # Blocks are written by another thread, which may be late on a busy machine.
        parts = Path(sys.argv[sys.argv.index("-o") + 1], ".rooftrace", "town.parts")
        while not list(parts.glob("[0-9]*.part")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, batch)

OpenVinoEngine.run_quantised = counted
from rooftrace.predict import pipeline
pipeline.BATCH_PX = 1
from rooftrace.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = generate_scene(5, (900, 900), 0.4).image
    return write_geotiff(tmp_path_factory.mktemp("town") / "town.tif", image)


def predict(
    town: Path, out: Path, cap: str, *more: str, calls: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command on a processor with a cap; with `calls` it is killed at this tile."""
    line = [
        sys.executable, "-c", _PROGRAM, str(calls), "predict", str(town), "-o", str(out),
        "--gsd", "0.4", "--json", *more,
    ]  # fmt: skip
    return subprocess.run(
        line, env={**os.environ, CAP: cap}, capture_output=True, text=True, check=False
    )


def results(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != "run.json"}


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text("utf-8"))
    return found


def whole(town: Path, out: Path, cap: str) -> dict[str, bytes]:
    done = predict(town, out, cap)
    assert done.returncode == 0, done.stderr
    (processor,) = record(out)["processors"]
    assert processor["instruction_set"] == cap
    assert not record(out)["mixed_instruction_sets"]
    return results(out)


def killed(town: Path, out: Path, cap: str) -> None:
    done = predict(town, out, cap, calls=9)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((out / ".rooftrace" / "town.parts").glob("[0-9]*.part"))
    head = (out / ".rooftrace" / "journal.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(head)["with"]["instruction_set"] == cap


def test_a_higher_processor_resumes_with_the_set_of_the_first_part(
    town: Path, tmp_path: Path
) -> None:
    low, high = (whole(town, tmp_path / cap, cap) for cap in (LOW, HIGH))
    # Without this the test would show nothing.
    assert low["town_mask.tif"] != high["town_mask.tif"]
    out = tmp_path / "resumed"
    killed(town, out, LOW)
    done = predict(town, out, HIGH)
    assert done.returncode == 0, done.stderr
    assert results(out) == low
    found = record(out)
    assert found["resumed_blocks"] > 0
    assert [one["instruction_set"] for one in found["processors"]] == [LOW]
    assert not found["mixed_instruction_sets"]
    assert any("it is resumed with it" in note for note in found["notes"])


def test_a_lower_processor_resumes_only_if_mixing_is_allowed(town: Path, tmp_path: Path) -> None:
    low, high = (whole(town, tmp_path / cap, cap) for cap in (LOW, HIGH))
    out = tmp_path / "resumed"
    killed(town, out, HIGH)
    kept = sorted(path.name for path in (out / ".rooftrace" / "town.parts").iterdir())
    refused = predict(town, out, LOW)
    assert refused.returncode == 2, refused.stderr
    error = json.loads(refused.stdout)["error"]
    assert f"began with the instruction set {HIGH}, but" in error["message"]
    assert "--allow-mixed" in error["remedy"]
    # Nothing is lost: the first processor may still resume it.
    assert sorted(path.name for path in (out / ".rooftrace" / "town.parts").iterdir()) == kept
    mixed = predict(town, out, LOW, "--allow-mixed")
    assert mixed.returncode == 0, mixed.stderr
    assert results(out)["town_mask.tif"] not in (low["town_mask.tif"], high["town_mask.tif"])
    found = record(out)
    assert found["mixed_instruction_sets"] is True
    assert [one["instruction_set"] for one in found["processors"]] == [HIGH, LOW]


_BATCHES = """
import sys
import numpy as np
from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import default_bundle
from town import generate_scene

engine = load_engine(default_bundle(), precision=sys.argv[1])
tiles = np.stack([generate_scene(seed, (416, 416), 0.4).image.data for seed in range(3)])
alone = np.concatenate([engine.run(tile[None]) for tile in tiles])
np.testing.assert_array_equal(engine.run(tiles), alone)
"""


@pytest.mark.parametrize(
    ("cap", "precision"), [(LOW, "int8"), (LOW, "fp32"), (HIGH, "int8"), (HIGH, "fp32")]
)
def test_a_tile_has_the_same_answer_in_every_batch(cap: str, precision: str) -> None:
    """Otherwise a resumed run, or a cluster, whose batches differ, would write other bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _BATCHES, precision], env={**os.environ, CAP: cap},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_portable_run_writes_the_same_bytes_with_every_set(
    town: Path, tmp_path: Path, precision: str
) -> None:
    found = {}
    for cap in ("", HIGH, LOW):
        out = tmp_path / f"set{cap}"
        done = predict(town, out, cap, "--portable", "--precision", precision)
        assert done.returncode == 0, done.stderr
        found[cap] = results(out)
        assert [one["instruction_set"] for one in record(out)["processors"]] == [LOW]
    assert found[""] == found[HIGH] == found[LOW]


def test_a_portable_run_that_cannot_be_is_refused_before_the_work(
    town: Path, tmp_path: Path
) -> None:
    for cap, more, message in (
        ("SSE41", (), "cannot use the instruction set AVX2"),
        ("", ("--precision", "bf16"), "has no instructions for bf16"),
        ("", ("--engine", "onnxruntime"), "holds for the engine openvino"),
    ):
        done = predict(town, tmp_path, cap, "--portable", *more)
        assert done.returncode == 2, done.stderr
        assert message in json.loads(done.stdout)["error"]["message"]
    assert not list(tmp_path.iterdir())
