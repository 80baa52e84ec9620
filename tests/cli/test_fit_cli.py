"""`rooftrace fit`, through the real command."""

import json
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest

from bright_squares import PIECES, write_squares
from command_line import call as call_as_given
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.predict.model_set import read_ensemble


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
    """Six images of squares; those brighter than 180 are buildings."""
    folder = tmp_path_factory.mktemp("squares")
    return write_squares(folder, 6, lambda level, _: level > 180)


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
        call("evaluate", model, data, "--gsd", 0.3, "--split", f"{split}:{part}")[1]
        for model, part in ((bundles[0], "test"), (out, "test"), (out, "val"))
    ]
    ious = [one["pixel"]["iou"] for one in judged]
    assert ious[1] > 0.95 > ious[0]
    assert [one["leaks"][0]["fitted"] is None for one in judged] == [True, True, False]
    assert judged[2]["notes"][0] == "3 of 3 scenes show ground that better was fitted on: 0, 1, 2"


def test_folders_of_runs_stand_for_their_bundles(
    bundles: list[Path], data: Path, tmp_path: Path
) -> None:
    runs = [tmp_path / path.stem for path in bundles]
    for run, path in zip(runs, bundles):
        run.mkdir()
        copy(path, run / "best_iou.rooftrace")
    code, answer = call("evaluate", *runs, data, "--gsd", 0.3)
    assert (code, [one["name"] for one in answer["reports"]]) == (0, ["eager", "strict"])
    out = tmp_path / "team.ensemble.json"
    assert call("fit", *runs, data, "--combine", "average", "--gsd", 0.3, "-o", out)[0] == 0
    members = [one.path for one in read_ensemble(out).members]
    assert members == ["eager/best_iou.rooftrace", "strict/best_iou.rooftrace"]
    code, answer = call("evaluate", out, data, "--gsd", 0.3)
    assert (code, answer["leaks"][0]["fitted"]["scenes"]) == (0, 6)


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
    assert names == ["eager", "strict", "average", "weighted"]
    average = answer["figures"][2]
    assert average["fitted_by_data"] == {data.name: average["fitted"]}
    file = read_ensemble(out)
    assert file.threshold == average["threshold"] == answer["threshold"]
    assert file.metrics[0].values == {"iou": average["fitted"]}
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


def fitted(model: Path, data: Path, out: Path, *options: object) -> tuple[int, Any]:
    return call("fit", "--keep-threshold", model, data, "-o", out, *options)


@pytest.mark.campaign
def test_the_bundle_is_the_same_but_for_its_calibration(bundle: Path, tmp_path: Path) -> None:
    """Darker squares are seldom buildings."""
    data = write_squares(
        tmp_path / "squares", 8, lambda level, rng: rng.random() < (level / 255) ** 4
    )
    out = tmp_path / "better.rooftrace"
    code, answer = fitted(bundle, data, out)
    assert code == 0
    old, new = read_bundle(bundle), read_bundle(out)
    changed = {"calibration": None, "fitted_fingerprint": None, "name": old.spec.name}
    assert new.spec.model_copy(update=changed) == old.spec
    assert dict(new.parts) == dict(old.parts)
    calibration = new.spec.calibration
    assert calibration is not None
    assert answer["threshold"] == {"before": old.spec.threshold, "after": old.spec.threshold}
    assert answer["calibration"] == calibration.map.model_dump(mode="json")
    (record,) = calibration.fitted_on
    assert (record.data, record.split, record.scenes) == (data.name, "all", 8)
    assert record.objects == 8 * PIECES**2
    assert 0.3 < record.right / record.objects < 0.6
    assert calibration.ece_after < 0.15 < 0.2 < calibration.ece_before
    # A score of 0.8 came true in about 0.8^4 of the cases.
    score = calibration.apply(np.float32([0.8]), np.array([False]))[0]
    assert score == pytest.approx(0.8**4, abs=0.15)
    # Again, from the bundle that has one already.
    again = tmp_path / "again.rooftrace"
    assert fitted(out, data, again)[0] == 0
    assert read_bundle(again).spec.model_copy(update={"name": "better"}) == new.spec
    # Too few buildings: the new model has no calibration, and the note says that it had one.
    code, few = fitted(out, data, again, "--part", "[:1]")
    assert (code, few["calibration"]) == (0, None)
    assert "25 buildings were judged" in few["notes"][-1]
    assert "the new model is without the one it had" in few["notes"][-1]
    assert read_bundle(again).spec.calibration is None


def test_options_that_do_not_fit_the_models(bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rooftrace"
    for models, options, message in [
        ((bundle,), ("--combine", "average"), "--combine average was given for 1 model; expected"),
        ((bundle, bundle), ("--keep-threshold",), "--keep-threshold was given for 2 models"),
        ((bundle, bundle), ("--metric", "f1"), "several are fitted by iou or dice"),
    ]:
        code, answer = call("fit", *models, data, "-o", out, *options)
        assert (code, message in answer["error"]["message"]) == (2, True), answer
    code, answer = fitted(bundle, tmp_path, tmp_path / "default")
    assert code == 2
    assert "expected a name that ends with .rooftrace" in answer["error"]["message"]
    code, answer = fitted(tmp_path / "none.rooftrace", data, out)
    assert (code, answer["error"]["type"]) == (4, "BundleError")
    assert not out.exists()
