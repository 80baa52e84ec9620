"""The int8 variants that a bundle may hold."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from memory_sets import ArrayLabel, set_of
from rooftrace.core.types import Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.spec import BundleSpec
from rooftrace.train import export_bundle as variants
from rooftrace.train.config import ExportConfig
from rooftrace.train.export_bundle import int8_variant

SPEC = BundleSpec(name="x", bands=("a",), mean=(0.0,), std=(1.0,), classes=("no", "yes"), gsd_m=0.4)


def data(gsd_m: float = 0.4) -> SimpleNamespace:
    """Stands for `TrainingData`: a folder of one image, and samples to calibrate with."""
    image = ArraySource(np.tile(np.arange(10, dtype=np.uint8), (1, 20, 1)))
    label = ArrayLabel(np.repeat(np.uint8([[1] * 5 + [0] * 5]), 20, axis=0))
    scene = Scene("a", image, label, gsd_m=gsd_m)  # type: ignore[arg-type]
    folder = set_of(scene)
    sample = SimpleNamespace(image=np.zeros((1, 32, 32), np.float32))
    return SimpleNamespace(
        val=(folder,), samples=SimpleNamespace(unchanged=lambda count: [sample] * count)
    )


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Number of columns that each precision predicts as building; may be changed."""
    found = {"fp32": 5, "bf16": 5, "int8": 5}

    class Engine:
        def __init__(self, bundle: object, precision: str, files: object = ()) -> None:
            self._precision = precision

        def run(self, batch: np.ndarray) -> np.ndarray:
            return (batch < found[self._precision]).astype(np.float32)

    monkeypatch.setattr(variants, "OpenVinoEngine", Engine)
    monkeypatch.setattr(variants, "quantize_openvino", lambda graph, samples: (b"xml", b"bin"))
    monkeypatch.setattr(variants, "capabilities", lambda: {"FP32", "BF16"})
    return found


def made(given: SimpleNamespace, lines: list[str] | None = None, **config: float) -> object:
    notify = (lines if lines is not None else []).append
    return int8_variant(ExportConfig(**config), given, SPEC, b"", notify)  # type: ignore[arg-type]


def test_a_variant_that_answers_alike_is_kept(columns: dict[str, int]) -> None:
    variant, files = made(data(), int8_max_drop=0.0)  # type: ignore[misc]
    assert variant.parity == {"iou_drop/made/fp32": 0.0, "iou_drop/made/bf16": 0.0}
    assert files == {"variants/openvino-int8.xml": b"xml", "variants/openvino-int8.bin": b"bin"}
    assert variant.files == tuple(files)


def test_it_must_hold_against_the_better_of_the_precisions(columns: dict[str, int]) -> None:
    columns["fp32"], columns["int8"] = 4, 6
    lines: list[str] = []
    assert made(data(), lines, int8_max_drop=0.16) is None
    assert lines[-1].startswith("int8 left out: IoU falls by made/fp32 -0.0333, made/bf16 +0.1667")
    variant, _ = made(data(), int8_max_drop=0.17)  # type: ignore[misc]
    assert variant.parity == {"iou_drop/made/fp32": -0.03333, "iou_drop/made/bf16": 0.16667}


def test_what_cannot_be_judged_is_left_out(columns: dict[str, int]) -> None:
    lines: list[str] = []
    assert made(data(gsd_m=8.0), lines, int8_max_drop=1.0) is None
    assert lines[-1] == "int8 left out: nothing in made can be predicted and compared"
