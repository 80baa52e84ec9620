"""A trained model is measured as it is evaluated, and holds the int8 variant that is as good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")

from memory_sets import ArrayLabel, set_of
from rooftrace.core.types import Scene
from rooftrace.engines.base import Engine
from rooftrace.flows import measure
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.source import SceneSet
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, read_bundle
from rooftrace.models.spec import BundleSpec, MeasuredMetrics
from rooftrace.predict import model_set
from rooftrace.train.config import ExportConfig

if TYPE_CHECKING:
    from tests.conftest import TinyRun

SPEC = BundleSpec(name="x", bands=("a",), mean=(0.0,), std=(1.0,), classes=("no", "yes"), gsd_m=0.4)
BUNDLE = ModelBundle(SPEC, {GRAPH_NAME: b""}, "x.rooftrace")


def scene(name: str = "a", *, wide: int = 10, buildings: bool = True, gsd_m: float = 0.4) -> Scene:
    """Ten columns, again and again, the first five of them a building."""
    column = np.arange(wide, dtype=np.uint8) % 10
    label = np.tile((column < 5) & buildings, (20, 1)).astype(np.uint8)
    image = ArraySource(np.tile(column * 28, (1, 20, 1)), name=name)
    return Scene(name, image, ArrayLabel(label), gsd_m=gsd_m)


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Number of columns that each precision predicts as building; may be changed."""
    found = {"fp32": 5, "bf16": 5, "int8": 5}

    class Columns(Engine):
        name = "columns"

        def __init__(self, precision: str) -> None:
            self.precision = precision

        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.where(batch < 28 * found[self.precision], 0.8, 0.1).astype(np.float32)

    monkeypatch.setattr(
        model_set, "load_engine", lambda bundle, precision, **options: Columns(precision)
    )
    monkeypatch.setattr(measure, "quantize_openvino", lambda graph, samples: (b"xml", b"bin"))
    monkeypatch.setattr(measure, "capabilities", lambda: {"FP32", "BF16"})
    return found


def quantised(source: SceneSet, lines: list[str], **export: float) -> ModelBundle:
    sample = SimpleNamespace(image=np.zeros((1, 32, 32), np.float32))
    data = SimpleNamespace(samples=SimpleNamespace(unchanged=lambda count: [sample] * count))
    config = SimpleNamespace(export=ExportConfig(**export))  # type: ignore[arg-type]
    return measure.with_int8(BUNDLE, config, data, [source], lines.append)  # type: ignore[arg-type]


def test_an_int8_variant_must_hold_against_the_better_of_the_precisions(
    columns: dict[str, int],
) -> None:
    lines: list[str] = []
    (alike,) = quantised(set_of(scene()), lines, int8_max_drop=0.0).spec.variants
    assert alike.parity == {"iou_drop/made/fp32": 0.0, "iou_drop/made/bf16": 0.0}
    columns["fp32"], columns["int8"] = 4, 6
    assert quantised(set_of(scene()), lines, int8_max_drop=0.16) is BUNDLE
    assert lines[-1].startswith("int8 left out: IoU falls by made/fp32 -0.0333, made/bf16 +0.1667")
    made = quantised(set_of(scene()), lines, int8_max_drop=0.17)
    assert made.spec.variants[0].parity == {
        "iou_drop/made/fp32": -0.03333, "iou_drop/made/bf16": 0.16667,
    }  # fmt: skip
    files = {"variants/openvino-int8.xml": b"xml", "variants/openvino-int8.bin": b"bin"}
    assert made.parts == {GRAPH_NAME: b"", **files}
    assert quantised(set_of(), lines, int8_max_drop=1.0) is BUNDLE
    assert lines[-1] == "int8 left out: nothing in made can be predicted and compared"


def measured(*scenes: Scene, val_tiles: int = 400) -> tuple[ModelBundle, list[str]]:
    lines: list[str] = []
    sets, part = chosen(*scenes, val_tiles=val_tiles, lines=lines)
    return measure._measured(BUNDLE, sets, part, lines.append), lines


def chosen(*scenes: Scene, val_tiles: int, lines: list[str]) -> tuple[list[SceneSet], str]:
    config = SimpleNamespace(val_tiles=val_tiles, val_crop_px=None, crop_px=64)
    data = SimpleNamespace(val=(set_of(*scenes),))
    return measure.validation_sets(config, data, SPEC, lines.append)  # type: ignore[arg-type]


def record(bundle: ModelBundle) -> MeasuredMetrics:
    (only,) = bundle.spec.metrics
    return only


def test_images_that_cannot_be_predicted_are_left_out_and_told() -> None:
    bundle, lines = measured(scene("a"), scene("far", gsd_m=8.0))
    assert record(bundle).values["iou"] == 1.0
    assert 0.1 < bundle.spec.threshold < 0.8
    assert lines[0].startswith("made: 1 image left out of the measurement: ")
    assert record(bundle).protocol == (
        "whole images as by rooftrace predict, columns fp32; the threshold was chosen on these "
        "images by their iou"
    )


def test_without_a_building_the_threshold_stays_and_the_bundle_is_made() -> None:
    bundle, lines = measured(scene(buildings=False))
    assert bundle.spec.threshold == pytest.approx(SPEC.threshold, abs=1 / 255)
    assert record(bundle).values["accuracy"] == 0.5
    assert record(bundle).values["iou_all_building"] == 0.0
    assert lines[-1].startswith("scores of buildings are not calibrated: ")


def test_of_much_ground_evenly_spread_windows_are_measured() -> None:
    bundle, _ = measured(scene(wide=5000), val_tiles=10)
    assert "of made 2 of 5 windows of up to 1024 px" in record(bundle).protocol
    assert record(bundle).values["iou"] == 1.0


@pytest.mark.parametrize(("val_tiles", "left"), [(5, [2048]), (10, [1024, 3072])])
def test_windows_are_the_middle_of_equal_shares(val_tiles: int, left: list[int]) -> None:
    (source,), _ = chosen(scene(wide=5000), val_tiles=val_tiles, lines=[])
    assert [one.id for one in source.entries] == [f"a@0_{column}" for column in left]


@pytest.mark.campaign
def test_the_figures_of_a_card_are_those_of_an_evaluation(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    data = SourceConfig(path=str(tiny_run.data))
    options = EvalOptions(split=f"{tiny_run.folder / 'split.json'}:val", precision="fp32")
    found = run_evaluate(tiny_run.bundle, data, None, options).first.to_json()
    expected = found["pixel"] | found["boundary"]
    values = dict(record(read_bundle(tiny_run.bundle)).values)
    assert values.pop("iou_all_building") > 0
    assert values == {key: pytest.approx(expected[key], abs=2e-5) for key in values}
    assert {"iou", "precision", "boundary_iou"} <= values.keys()
