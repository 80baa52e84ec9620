"""`rooftrace calibrate`, with a model whose probability is the brightness of a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import call, command
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.models.spec import Calibration, CalibrationData, LogisticMap

PIECES, SIDE = 5, 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of 25 bright squares; the darker ones are seldom buildings."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(8):
        image = np.full((PIECES * SIDE, PIECES * SIDE, 3), 40, np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        for row, col in np.ndindex(PIECES, PIECES):
            place = np.s_[row * SIDE + 4 : (row + 1) * SIDE - 4, col * SIDE + 4 : col * SIDE + 16]
            brightness = rng.integers(140, 250)
            image[place] = brightness
            mask[place] = 255 * (rng.random() < (brightness / 255) ** 4)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.mark.campaign
def test_the_bundle_is_the_same_but_for_its_calibration(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "better.rooftrace"
    code, answer = call("calibrate", bundle, data, "-o", out, "--precision", "fp32")
    assert code == 0
    old, new = read_bundle(bundle), read_bundle(out)
    assert new.spec.model_copy(update={"calibration": None}) == old.spec
    assert dict(new.parts) == dict(old.parts)
    made = new.spec.calibration
    assert made is not None
    assert answer["calibration"] == made.map.model_dump(mode="json")
    (record,) = answer["data"]
    assert (record["data"], record["split"], record["scenes"]) == (data.name, "all", 8)
    assert record["objects"] == 8 * PIECES**2
    assert 0.3 < record["right"] / record["objects"] < 0.6
    assert answer["before"] == record["before"] == answer["uncalibrated"]
    assert made.ece_after == answer["after"]["ece"] < 0.15 < 0.2 < answer["before"]["ece"]
    assert answer["after"]["brier"] < answer["before"]["brier"]
    with Image.open(answer["picture"]) as picture:
        assert picture.width > 400
    # A score of 0.8 came true in about 0.8^4 of the cases.
    assert made.apply(np.float32([0.8]), np.array([False]))[0] == pytest.approx(0.8**4, abs=0.15)
    # Again, from the bundle that has one already.
    again = tmp_path / "again.rooftrace"
    code, second = call("calibrate", out, data, "-o", again, "--precision", "fp32")
    assert code == 0
    assert again.read_bytes() == out.read_bytes()
    assert (second["uncalibrated"], second["after"]) == (answer["before"], answer["after"])
    assert second["before"]["ece"] < 0.15


def test_before_is_of_the_model_as_given(bundle: Path, data: Path, tmp_path: Path) -> None:
    old = read_bundle(bundle)
    made = Calibration(
        map=LogisticMap(kind="platt", slope=1.0, intercept=-1.5),
        fitted_on=(CalibrationData(data="a", split="val", scenes=9, objects=90, right=45),),
        log_loss_before=0.6, log_loss_after=0.5, ece_before=0.2, ece_after=0.1,
    )  # fmt: skip
    given, out = tmp_path / "given.rooftrace", tmp_path / "a.rooftrace"
    write_bundle(given, old.spec.model_copy(update={"calibration": made}), old.parts)
    code, answer = call("calibrate", given, data, "-o", out, "--precision", "fp32")
    assert code == 0
    _, evaluated = call("evaluate", given, data, "--precision", "fp32")
    assert answer["before"]["ece"] == pytest.approx(evaluated["calibration"]["ece"], abs=1e-5)
    assert answer["before"]["ece"] < 0.2 < answer["uncalibrated"]["ece"]
    assert answer["data"][0]["before"] == answer["before"]
    _, _, text = command("calibrate", given, data, "-o", out, "--precision", "fp32")
    assert "uncalibrated" in text
    # Too few buildings: the new model has no calibration, and the note says that it had one.
    code, few = call("calibrate", given, data, "-o", out, "--part", "[:1]", "--precision", "fp32")
    assert (code, few["after"]) == (0, None)
    assert few["before"] != few["uncalibrated"]
    assert "the new model is without the one it had" in few["notes"][0]


def test_a_part_of_a_split(bundle: Path, data: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"parts": {"val": ["0", "1", "2"], "test": ["7"]}}')
    code, answer = call(
        "calibrate", bundle, data, "-o", tmp_path / "a.rooftrace", "--split", f"{split}:val"
    )
    assert code == 0
    assert (answer["data"][0]["split"], answer["data"][0]["scenes"]) == ("val", 3)
    code, answer = call(
        "calibrate", bundle, data, "-o", tmp_path / "a.rooftrace", "--split", f"{split}:no"
    )
    assert code == 2
    assert "has no part 'no'" in answer["error"]["message"]


def test_where_there_is_too_little_none_is_fitted(bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rooftrace"
    code, answer = call("calibrate", bundle, data, "-o", out, "--part", "[:1]")
    assert code == 0
    assert answer["calibration"] is answer["after"] is None
    (note,) = answer["notes"]
    assert "no calibration was fitted: 25 buildings were judged" in note
    assert read_bundle(out).spec.calibration is None


def test_a_scale_that_is_assumed_is_said(bundle: Path, data: Path, tmp_path: Path) -> None:
    given = read_bundle(bundle)
    scaled, out = tmp_path / "scaled.rooftrace", tmp_path / "a.rooftrace"
    write_bundle(scaled, given.spec.model_copy(update={"gsd_m": 0.4}), given.parts)
    code, answer = call("calibrate", scaled, data, "-o", out, "--part", "[:2]")
    assert code == 0
    assert "2 images without metres per pixel, assumed to have the model's 0.4 m" in " ".join(
        answer["notes"]
    )
    code, answer = call("calibrate", scaled, data, "-o", out, "--part", "[:2]", "--gsd", 0.4)
    assert (code, any("Scale" in note for note in answer["notes"])) == (0, False)


def test_an_output_that_no_command_would_take_for_a_bundle(bundle: Path, tmp_path: Path) -> None:
    code, answer = call("calibrate", bundle, tmp_path, "-o", tmp_path / "default")
    assert code == 2
    assert "expected a name that ends with .rooftrace" in answer["error"]["message"]


def test_people_read_the_calibration(bundle: Path, data: Path, tmp_path: Path) -> None:
    code, _, text = command("calibrate", bundle, data, "-o", tmp_path / "a.rooftrace")
    assert code == 0
    reported = " ".join(text.split())
    assert "expected calibration error" in reported
    assert "200 buildings in 8 images" in reported
    assert "images left out of the fit" in reported


def test_nothing_that_is_there_is_lost(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rooftrace"
    code, answer = call("calibrate", tmp_path / "none.rooftrace", data, "-o", out)
    assert (code, answer["error"]["type"]) == (4, "BundleError")
    assert not out.exists()
