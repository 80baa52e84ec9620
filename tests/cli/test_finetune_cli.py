"""`rooftrace finetune` as a person calls it: killed, continued, after a review, mistaken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import shapely

pytest.importorskip("torch")

from command_line import command
from rooftrace.core.types import Footprints, Window
from rooftrace.flows.finetune.report import Verdict
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints
from town import generate_scene, write_pairs
from training_runs import figures

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytestmark = pytest.mark.campaign


def test_a_killed_run_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", range(30, 38), shape_yx=(128, 128), gsd_m=0.3)
    run = tmp_path / "run"
    given = ["finetune", str(tmp_path / "data"), "-o", str(run), "-m", str(tiny_run.bundle)]
    settings = ["epochs=6", "samples_per_epoch=16", "batch_size=4"]
    values = [part for one in settings for part in ("--config", one)]
    process = subprocess.Popen(
        [sys.executable, "-m", "rooftrace", *given, "--minutes", "9", *values],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (run / "fold2/checkpoints/last.ckpt").is_file():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (run / "verdict.json").exists()
    split = (run / "split.json").read_bytes()
    done = command(*given, "--resume", "--json")
    assert done.code == 0, done.err
    assert (run / "split.json").read_bytes() == split
    for number in range(1, 5):
        rows = figures(run / f"fold{number}")
        assert [int(row["epoch"]) for row in rows] == list(range(1, 7))
    assert done.json["epochs"] == 6
    assert done.json == json.loads((run / "verdict.json").read_text())
    assert done.json["verdict"] in get_args(Verdict)
    assert Path(done.json["best_iou"]["bundle"]).is_file()


def test_a_review_is_labels_of_a_finetuning(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastapi = pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from rooftrace.app.map.results import ResultsCatalogue
    from rooftrace.app.map.review import review_router

    results = tmp_path / "out"
    results.mkdir()
    scene = generate_scene(7, (512, 512), 0.3)
    image, _ = scene.write(tmp_path, "scene")
    geometry = np.array(scene.buildings, np.object_)
    score = np.full(len(geometry), 0.8, np.float32)
    found = Footprints(geometry, score, shapely.area(geometry), scene.grid.crs)
    write_footprints(results / "scene_buildings.gpkg", found)
    with mask_sink(results / "scene_mask.tif", scene.grid) as sink:
        sink.write(Window.whole(scene.grid.shape), scene.mask())
    app = fastapi.FastAPI()
    app.include_router(review_router(ResultsCatalogue([results])))
    client = TestClient(app)
    review = "/v1/results/out/images/scene/review"
    last = len(geometry) - 5
    for action, numbers in (("accept", range(1, last)), ("reject", range(last, last + 3))):
        seen = [{"id": number, "revision": 0} for number in numbers]
        body = {"action": action, "reviewer": "Ada", "buildings": seen}
        assert client.post(f"{review}/changes", json=body).status_code == 200
    labels = tmp_path / "scene_reviewed.gpkg"
    labels.write_bytes(client.get(f"{review}/export?format=gpkg&open=ignore").content)
    run = tmp_path / "run"
    settings = ["epochs=1", "samples_per_epoch=4", "batch_size=2"]
    monkeypatch.setenv("ROOFTRACE_PROGRESS", "json")
    done = command(
        "finetune", labels, "--images", image, "--set", "chip_px=128", "-o", run,
        "-m", tiny_run.bundle, "--minutes", "9",
        *[part for one in settings for part in ("--config", one)], "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json == json.loads((run / "verdict.json").read_text())
    assert Path(done.json["best_iou"]["bundle"]).is_file()
    assert '"step": "finetune"' in done.err
    assert done.json["notes"]
    printed = [note for note in done.json["notes"] if note not in done.json["advice"]]
    assert all(done.err.count(f"note: {note}") == 1 for note in printed)
