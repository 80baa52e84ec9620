"""The calibration of a bundle is read as it was written, or not at all."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import BundleError
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import ModelBundle, read_bundle, write_bundle
from rooftrace.models.spec import Calibration, CalibrationData, LogisticMap

DATA = CalibrationData(data="place", split="val", scenes=4, objects=200, right=150)
FIGURES = {"ece_before": 0.2, "ece_after": 0.05, "log_loss_before": 0.7, "log_loss_after": 0.5}
PLAIN = Calibration(
    map=LogisticMap(kind="logistic", slope=2.0, intercept=-1.0), fitted_on=(DATA,), **FIGURES
)
DIVIDED = Calibration(
    map=LogisticMap(kind="logistic-divided", slope=12.0, intercept=-9.0, divided=-2.5),
    fitted_on=(DATA,),
    **FIGURES,
)


def written(path: Path, calibration: Calibration | None) -> ModelBundle:
    tiny = tiny_bundle()
    return write_bundle(path, tiny.spec.model_copy(update={"calibration": calibration}), tiny.parts)


@pytest.mark.parametrize("calibration", [PLAIN, DIVIDED, None])
def test_written_and_read_again(tmp_path: Path, calibration: Calibration | None) -> None:
    bundle = written(tmp_path / "a.rooftrace", calibration)
    read = read_bundle(tmp_path / "a.rooftrace")
    assert read.spec.calibration == calibration
    assert read.sha256 == bundle.sha256


def test_functions_by_hand() -> None:
    score = np.array([0.3, 0.5, 0.7], np.float32)
    pieces = np.array([True, False, True])
    probability = PLAIN.apply(score, pieces)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(1 - 2 * score)), rtol=1e-6)
    np.testing.assert_allclose(
        DIVIDED.apply(score, pieces), 1 / (1 + np.exp([7.9, 3.0, 3.1])), rtol=1e-6
    )


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1),
    st.floats(0, 1000),
    st.floats(-1000, 1000),
    st.floats(-1000, 1000),
    st.booleans(),
)
def test_no_score_leaves_the_range(
    score: list[float], slope: float, intercept: float, divided: float, are_pieces: bool
) -> None:
    extreme = LogisticMap(
        kind="logistic-divided", slope=slope, intercept=intercept, divided=divided
    )
    values = extreme.apply(np.sort(np.float32(score)), np.full(len(score), are_pieces))
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= 1
    assert (np.diff(values) >= 0).all()


def plain(calibration: Calibration) -> dict[str, Any]:
    made: dict[str, Any] = calibration.model_dump(mode="json")
    return made


def with_map(**function: Any) -> dict[str, Any]:
    return plain(PLAIN) | {"map": function}


WRONG = {
    "kind": with_map(kind="spline", slope=1),
    "no kind": with_map(slope=1.0, intercept=0.0),
    "slope": with_map(kind="logistic", slope=-1.0, intercept=0.0),
    "not finite": with_map(kind="logistic", slope=float("inf"), intercept=0.0),
    "not a number": with_map(kind="logistic", slope=float("nan"), intercept=0.0),
    "too steep": with_map(kind="logistic", slope=1e9, intercept=0.0),
    "of 0.1.0": with_map(kind="platt", slope=1.0, intercept=0.5),
    "divided": with_map(kind="logistic", slope=1.0, intercept=0.5, divided=-1.0),
    "fitted on nothing": plain(PLAIN) | {"fitted_on": []},
    "error": plain(PLAIN) | {"ece_after": 1.5},
    "unknown key": plain(PLAIN) | {"trust": "me"},
    "text": "logistic",
    "list": [plain(PLAIN)],
}


def put(path: Path, calibration: Any) -> None:
    """A bundle of which all but the calibration is right."""
    tiny = tiny_bundle()
    spec = json.loads(tiny.spec.model_dump_json()) | {"calibration": calibration}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", json.dumps(spec))
        for name, data in tiny.parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_calibration_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a.rooftrace", WRONG[name])
    with pytest.raises(BundleError, match=r"calibration"):
        read_bundle(tmp_path / "a.rooftrace")
