"""`rooftrace fit`, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import call as call_as_given
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.predict.model_set import read_ensemble

SIDE = 20


def call(*arguments: object) -> tuple[int, dict[str, Any]]:
    return call_as_given(*arguments, "--precision", "fp32")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models whose probability is the brightness of a pixel, with different thresholds."""
    folder, tiny, made = tmp_path_factory.mktemp("models"), tiny_bundle(), []
    for name, threshold in (("eager", 0.5), ("strict", 0.7)):
        spec = tiny.spec.model_copy(update={"name": name, "gsd_m": 0.3, "threshold": threshold})
        made.append(folder / f"{name}.rooftrace")
        write_bundle(made[-1], spec, tiny.parts)
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 25 squares; those brighter than 180 are buildings."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(6):
        image = np.full((5 * SIDE, 5 * SIDE, 3), 40, np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        for row, col in np.ndindex(5, 5):
            place = np.s_[row * SIDE + 4 : (row + 1) * SIDE - 4, col * SIDE + 4 : col * SIDE + 16]
            image[place] = brightness = rng.integers(140, 250)
            mask[place] = 255 * (brightness > 180)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def test_a_threshold_is_found_and_used(bundles: list[Path], data: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"parts": {"val": ["0", "1", "2"], "test": ["3", "4", "5"]}}')
    out = tmp_path / "better.rooftrace"
    words = ("--gsd", 0.3, "--metric", "dice")
    code, answer = call("fit", bundles[0], data, "--split", f"{split}:val", *words, "-o", out)
    assert code == 0
    assert answer["threshold"]["before"] == 0.5
    assert answer["threshold"]["after"] == pytest.approx(180 / 255, abs=0.03)
    assert not any("Scale" in note for note in answer["notes"])
    assert answer["value"]["after"] > 0.97 > 0.9 > answer["value"]["before"]
    assert len(answer["curve"]) == 255
    assert answer["data"][0]["data"] == data.name
    (measured,) = read_bundle(out).spec.metrics
    assert (measured.data, measured.split) == (data.name, "val")
    judged = [
        call("evaluate", model, data, "--gsd", 0.3, "--split", f"{split}:test")[1]
        for model in (bundles[0], out)
    ]
    ious = [one["pixel"]["iou"] for one in judged]
    assert ious[1] > 0.95 > ious[0]


def test_a_scale_that_is_assumed_is_said(bundles: list[Path], data: Path, tmp_path: Path) -> None:
    expected = "6 images without metres per pixel, assumed to have the model's 0.3 m"
    out = tmp_path / "a.rooftrace"
    code, answer = call("fit", bundles[0], data, "-o", out)
    assert (code, expected in " ".join(answer["notes"])) == (0, True)
    out = tmp_path / "a.ensemble.json"
    code, answer = call("fit", bundles[0], bundles[0], data, "-o", out)
    assert (code, expected in " ".join(answer["notes"])) == (0, True)
    assert not any("replaced" in note for note in answer["notes"])
    # An earlier ensemble is replaced, but no other file.
    code, answer = call("fit", bundles[0], bundles[0], data, "-o", out)
    assert (code, answer["notes"][0]) == (0, f"{out} of an earlier run was replaced")
    labels = tmp_path / "labels.json"
    labels.write_text('{"images": []}')
    code, answer = call("fit", bundles[0], bundles[0], data, "-o", labels)
    assert code == 2
    assert answer["error"]["message"] == f"{labels} exists and is not an ensemble file."
    assert labels.read_text() == '{"images": []}'
    # Other commands would not take a file of this name for a bundle.
    code, answer = call("fit", bundles[0], data, "-o", tmp_path / "thr.txt")
    assert (code, "ends with .rooftrace" in answer["error"]["message"]) == (2, True)


@pytest.mark.campaign
def test_an_ensemble_is_fitted_used_and_given_another_threshold(
    bundles: list[Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "team.ensemble.json"
    code, answer = call("fit", *bundles, data, "--gsd", 0.3, "--combine", "average", "-o", out)
    assert code == 0
    assert answer["members"] == ["eager", "strict"]
    names = [one["name"] for one in answer["figures"]]
    assert names == ["eager", "strict", "average", "weighted", "vote"]
    average = answer["figures"][2]
    assert average["left_out"] <= average["fitted"]
    assert list(average["left_out_by_data"]) == [data.name]
    assert answer["gain"]["scenes"] == 6
    file = read_ensemble(out)
    assert file.threshold == average["threshold"] == answer["threshold"]
    assert file.metrics[0].values == {"iou": average["left_out"]}
    # What was fitted is what it comes to when it is used.
    code, judged = call("evaluate", out, data, "--gsd", 0.3)
    assert code == 0
    assert judged["pixel"]["iou"] == pytest.approx(average["fitted"], abs=0.004)
    image = data / "images" / "0.png"
    code, _ = call("predict", image, "-m", out, "--gsd", 0.3, "-o", tmp_path / "out")
    assert code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["bundle"]["file"] == str(out)
    assert record["options"]["threshold"] == file.threshold
    again = tmp_path / "there" / "again.ensemble.json"
    code, _ = call("fit", out, data, "--gsd", 0.3, "--metric", "f1", "-o", again)
    assert code == 0
    new = read_ensemble(again)
    assert new.threshold != file.threshold
    assert [one.sha256 for one in new.members] == [one.sha256 for one in file.members]
    assert (again.parent / new.members[0].path).samefile(bundles[0])
    assert call("evaluate", again, data, "--gsd", 0.3)[0] == 0


def test_what_is_no_ensemble_is_refused(bundles: list[Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "team.ensemble.json"
    wrong = [
        ((*bundles,), 3, "No data to fit the model to was given"),
        ((*bundles, data, "--set", "nonsense=1"), 2, "nonsense"),
    ]
    for words, expected, reported in wrong:
        code, answer = call("fit", *words, "-o", out)
        assert code == expected
        assert reported in answer["error"]["message"]
    code, answer = call("fit", *bundles, data, "-o", tmp_path / "team.rooftrace")
    assert (code, "ends in .json" in answer["error"]["message"]) == (2, True)
    assert not out.exists()
    code, answer = call(
        "predict", data / "images", "-m", out, "--ensemble", "vote", "-o", tmp_path / "out"
    )
    assert (code, "already determines how" in answer["error"]["message"]) == (2, True)
