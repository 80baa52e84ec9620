"""`rooftrace inspect` on the command line, and its findings on the faults of real data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from command_line import command
from town import write_pairs

SHIFT_PX = 6


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images: all labels lie too low, two images are half white, and two show the same."""
    folder = tmp_path_factory.mktemp("inspect") / "town"
    write_pairs(folder, range(12), shape_yx=(192, 192), gsd_m=0.4)
    for path in (folder / "masks").iterdir():
        with rasterio.open(path, "r+") as mask:
            drawn = mask.read(1)
            shifted = np.zeros_like(drawn)
            shifted[SHIFT_PX:] = drawn[:-SHIFT_PX]
            mask.write(shifted, 1)
    images = sorted((folder / "images").iterdir())
    for path in images[:2]:
        with rasterio.open(path, "r+") as image:
            pixels = image.read()
            pixels[:, :, 96:] = 255
            image.write(pixels)
    with rasterio.open(images[5]) as one, rasterio.open(images[6], "r+") as other:
        other.write(one.read()[:, ::-1])
    return folder


@pytest.fixture(scope="module")
def coarser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "coarser"
    write_pairs(folder, range(40, 46), shape_yx=(192, 192), gsd_m=0.8)
    return folder


def findings(audit: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["key"]: finding for finding in audit["findings"]}


@pytest.mark.campaign
def test_what_was_planted_is_found(town: Path, coarser: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "audit.html"
    code, out, err = command("inspect", town, "--against", coarser, "-o", page, "--json")
    assert (code, err) == (0, "")
    audit = json.loads(out)
    assert audit["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    found = findings(audit)
    assert {"image.flat", "label.offset", "copies.inside", "shift.scale"} <= set(found)
    assert "2 images are white" in found["image.flat"]["title"]
    (whole,) = [o for o in audit["data"]["offsets"] if o["level"] == "set"]
    assert whole["rows"] == pytest.approx(-SHIFT_PX, abs=2)
    assert whole["cols"] == pytest.approx(0, abs=2)
    assert "2.0 times coarser" in found["shift.scale"]["title"]
    assert set(found["copies.inside"]["ids"]) == {"synthetic_00005", "synthetic_00006"}
    assert audit["verdict"]["fit"] != "yes"
    assert len(audit["verdict"]["actions"]) == 3


def test_broken_files_are_findings(tmp_path: Path) -> None:
    write_pairs(tmp_path, range(3), shape_yx=(64, 64))
    sorted((tmp_path / "images").iterdir())[0].write_bytes(b"II*\0 no tiff")
    sorted((tmp_path / "masks").iterdir())[1].write_bytes(b"")
    code, out, _ = command("inspect", tmp_path, "--json")
    assert code == 0
    scenes = {scene["id"]: scene for scene in json.loads(out)["data"]["scenes"]}
    assert scenes["synthetic_00000"]["image_error"]
    assert scenes["synthetic_00001"]["label_error"]
    assert scenes["synthetic_00002"]["label"]["class_px"][1] > 0
    assert json.loads(out)["verdict"]["fit"] == "no"
