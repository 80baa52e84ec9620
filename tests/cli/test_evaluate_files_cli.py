"""What `rooftrace predict` writes is judged as the model is: `rooftrace evaluate --predictions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rooftrace.io.raster import open_raster
from rooftrace.testing import write_pairs

if TYPE_CHECKING:
    from tests.cli.conftest import Call

PIXELS = ("pixel", "per_image", "boundary", "classes", "confusion")
ALL = (*PIXELS, "objects", "polygons", "coco", "calibration", "density")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "data"
    write_pairs(folder, range(4), shape_yx=(96, 128), gsd_m=0.3)
    return folder


def test_files_of_a_model_and_the_model_itself(
    call: Call, data: Path, bundle: Path, tmp_path: Path
) -> None:
    code, _ = call("predict", data / "images", "-m", bundle, "-o", tmp_path / "out")
    assert code == 0
    code, told = call("evaluate", bundle, data, "--predictions", tmp_path / "out")
    assert code == 0, told
    model, files = told["reports"]
    assert files["objects"]["predicted"] > 0
    for key in ALL:
        assert files[key] == model[key], key
    (comparison,) = told["comparisons"]
    assert comparison["figures"]["pixel.iou"]["difference"]["value"] == 0


def test_a_submission(call: Call, data: Path, bundle: Path, tmp_path: Path) -> None:
    table = tmp_path / "submission.csv"
    assert call("predict", data / "images", "-m", bundle, "--rle", table)[0] == 0
    code, told = call("evaluate", bundle, "--truth", data, "--predictions", table)
    assert code == 0, told
    model, files = told["reports"]
    for key in PIXELS:
        assert files[key] == model[key], key
    # The same against labels as a table, without an image.
    truth = tmp_path / "truth.csv"
    assert call("convert", data, "--to", "rle", "-o", truth)[0] == 0
    moved = tmp_path / "moved" / "truth.csv"
    moved.parent.mkdir()
    lines = [line.split(",") for line in truth.read_text().splitlines()]
    moved.write_text("".join(f"{cells[0]},{cells[-1]}\n" for cells in lines))
    given = ("--predictions", table, "--truth", moved)
    code, told = call("evaluate", *given, "--size", "96x128", "--only", "pixels")
    assert code == 0, told
    for key in PIXELS:
        assert told[key] == files[key], key


def test_masks_alone_against_masks_alone(
    call: Call, data: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("predict", data / "images", "-m", bundle, "-o", out)[0] == 0
    for path in out.glob("*_buildings.*"):
        path.unlink()
    code, told = call("evaluate", "--predictions", out, "--truth", data / "masks")
    assert code == 0, told
    truth, mask = (
        np.stack([open_raster(file, palette="indices").read().data[0] for file in sorted(files)])
        for files in ((data / "masks").iterdir(), out.glob("*_mask.tif"))
    )
    both = int(((truth > 0) & (mask == 1)).sum())
    either = int(((truth > 0) | (mask == 1)).sum())
    assert told["pixel"]["iou"] == pytest.approx(both / either, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "No labelled data"),
        (["DATA"], "nothing that is judged by it"),
        (["--truth", "DATA"], "nothing that is judged by it"),
        (["--predictions", "DATA/masks"], "No labelled data"),
        (["DATA", "--predictions", "DATA/masks", "--size", "big"], "--size received 'big'"),
        (["DATA", "--predictions", "DATA/masks", "--order", "row"], "no prediction is a table"),
        (["BUNDLE", "DATA/masks", "--predictions", "DATA/masks"], "needs to be shown images"),
    ],
)
def test_what_cannot_be_judged(
    call: Call, data: Path, bundle: Path, arguments: list[str], part: str
) -> None:
    filled = [one.replace("DATA", str(data)).replace("BUNDLE", str(bundle)) for one in arguments]
    code, told = call("evaluate", *filled)
    assert (code, told["error"]["type"]) == (2, "ConfigError")
    assert part in told["error"]["message"]
    assert told["error"]["remedy"]


def test_predictions_that_are_not_there(call: Call, data: Path, tmp_path: Path) -> None:
    code, told = call("evaluate", data, "--predictions", tmp_path / "absent")
    assert code == 3
    assert "There are no predictions at" in told["error"]["message"]
    code, told = call("evaluate", data, "--predictions", tmp_path)
    assert code == 3
    assert "holds no predictions; expected masks or probabilities" in told["error"]["message"]
