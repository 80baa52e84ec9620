"""Real drone imagery, five times as fine as the model, is mapped without any option."""

from pathlib import Path

import pytest

from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.labels.config import SourceConfig

pytestmark = [pytest.mark.realdata, pytest.mark.campaign]


def iou(realdata: Path, scene: str) -> float:
    data = SourceConfig(
        path=str(realdata / "oam" / scene.partition("_")[0] / "labels.geojson"),
        images=str(realdata / "scenes"),
        glob=(f"{scene}*",),
    )
    report = run_evaluate(None, data, None, EvalOptions(pixels_only=True)).first
    (note,) = (one for one in report.notes if one.startswith("Scale"))
    assert "1 image at 0.07" in note
    return report.pooled.iou(1)


@pytest.mark.parametrize(("scene", "least"), [("kampala_z21", 0.64), ("zanzibar_z21", 0.78)])
def test_it_is_mapped_at_defaults(realdata: Path, scene: str, least: float) -> None:
    assert iou(realdata, scene) > least
