"""Several models in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import call
from rooftrace.models.bundle import read_bundle, write_bundle

if TYPE_CHECKING:
    from tests.conftest import TinyRun


@pytest.fixture
def sure(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The tiny model at a threshold that nothing reaches."""
    bundle = read_bundle(tiny_run.bundle)
    path = tmp_path / "sure.rooftrace"
    write_bundle(path, bundle.spec.model_copy(update={"threshold": 1.0}), bundle.parts)
    return path


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["average", "vote", "weighted"])
def test_several_models_predict_and_are_judged_as_one(
    how: str, tiny_run: TinyRun, sure: Path, tmp_path: Path
) -> None:
    image = next((tiny_run.data / "images").iterdir())
    three = (tiny_run.bundle, sure, sure)
    given = [word for path in three for word in ("-m", path)]
    code, answer = call("predict", image, *given, "--ensemble", how, "-o", tmp_path / "out")
    assert code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["engine"]["settings"]["combined_by"] == how
    assert len(record["engine"]["settings"]["members"]) == 3
    assert any("weighted by the IoU" in note for note in record["notes"]) is (how == "weighted")
    if how == "vote":  # two of three never see a building
        assert answer["outputs"][0]["built_up_share"] == 0.0
    code, judged = call("evaluate", *three, tiny_run.data, "--ensemble", how)
    assert code == 0
    assert judged["bundle"]["name"].startswith(f"{how} of tiny")
    assert judged["images"] == 6


def test_what_becomes_of_them_has_to_be_said(bundle: Path, tmp_path: Path) -> None:
    code, answer = call("predict", "a.tif", "-m", bundle, "-m", "default", "-o", tmp_path)
    message = answer["error"]["message"]
    assert (code, message) == (2, "2 models were given without a method to combine them.")
    assert "--ensemble average" in answer["error"]["remedy"]
    code, answer = call("evaluate", bundle, tmp_path, "--ensemble", "vote")
    assert code == 2
    assert "combines several models, but 1 model was given" in answer["error"]["message"]
