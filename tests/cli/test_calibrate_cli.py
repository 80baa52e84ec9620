"""`rooftrace fit --keep-threshold`, with a model whose probability is the brightness of a pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import call
from rooftrace.models.bundle import read_bundle

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


def fitted(model: Path, data: Path, out: Path, *options: object) -> tuple[int, Any]:
    return call("fit", "--keep-threshold", model, data, "-o", out, "--precision", "fp32", *options)


@pytest.mark.campaign
def test_the_bundle_is_the_same_but_for_its_calibration(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "better.rooftrace"
    code, answer = fitted(bundle, data, out)
    assert code == 0
    old, new = read_bundle(bundle), read_bundle(out)
    assert new.spec.model_copy(update={"calibration": None}) == old.spec
    assert dict(new.parts) == dict(old.parts)
    calibration = new.spec.calibration
    assert calibration is not None
    assert answer["calibration"] == calibration.model_dump(mode="json")
    (record,) = answer["data"]
    assert (record["data"], record["split"], record["scenes"]) == (data.name, "all", 8)
    assert record["objects"] == 8 * PIECES**2
    assert 0.3 < record["right"] / record["objects"] < 0.6
    assert calibration.ece_after < 0.15 < 0.2 < calibration.ece_before
    # A score of 0.8 came true in about 0.8^4 of the cases.
    score = calibration.apply(np.float32([0.8]), np.array([False]))[0]
    assert score == pytest.approx(0.8**4, abs=0.15)
    # Again, from the bundle that has one already.
    again = tmp_path / "again.rooftrace"
    assert fitted(out, data, again)[0] == 0
    assert again.read_bytes() == out.read_bytes()
    # Too few buildings: the new model has no calibration, and the note says that it had one.
    code, few = fitted(out, data, again, "--part", "[:1]")
    assert (code, few["calibration"]) == (0, None)
    assert "25 buildings were judged" in few["notes"][0]
    assert "the new model is without the one it had" in few["notes"][0]
    assert read_bundle(again).spec.calibration is None


def test_options_that_do_not_fit_the_models(bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rooftrace"
    for models, options, message in [
        (
            (bundle,),
            ("--combine", "vote"),
            "--combine vote was given for 1 model; expected",
        ),
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
