"""A stranger's first commands work on what lies on his disk, without a further option."""

from pathlib import Path

import pytest

from command_line import call, command
from data_set_samples import DOWNLOADS
from label_samples import NAMES, TOOLS

pytestmark = pytest.mark.campaign

COMMON = (
    "YOLO of Roboflow", "YOLO of Ultralytics", "COCO of Roboflow", "COCO of CVAT",
    "COCO of Label Studio", "CVAT for images", "LabelMe", "VIA", "Supervisely", "Roboflow masks",
    "INRIA", "WHU", "Massachusetts, Kaggle", "DeepGlobe", "LandCover.ai", "LoveDA",
    "ISPRS Potsdam", "xBD", "SpaceNet 2", "RAMP",
)  # fmt: skip
"""The twenty most common exports and downloads."""

TUNED = ("YOLO of Ultralytics", "COCO of CVAT", "CVAT for images", "INRIA", "SpaceNet 2")
"""One of each reader: all are read by one call, so that others would be tuned alike."""


@pytest.mark.parametrize("name", COMMON)
def test_the_first_commands(name: str, tmp_path: Path) -> None:
    folder = {**TOOLS, **DOWNLOADS}[name](tmp_path / "data")
    code, audit = call("inspect", folder)
    assert code == 0, audit
    assert "with 6 buildings" in audit["verdict"]["paragraph"]
    code, scores = call("evaluate", "default", folder, "-o", tmp_path / "scores")
    assert (code, scores["images"]) == (0, len(NAMES)), scores
    if name not in TUNED:
        return
    run = command("finetune", folder, "--minutes", "0.1", "-o", tmp_path / "tuned")
    assert run.code == 0, run
    assert list((tmp_path / "tuned").glob("*.rooftrace"))
    assert "verdict takes about" in (tmp_path / "tuned/verdict.json").read_text()
