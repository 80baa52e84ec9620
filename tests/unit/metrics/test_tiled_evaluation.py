"""Whole images are judged as they are predicted."""

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from memory_sets import ArrayLabel, set_of
from rooftrace.core.errors import GsdMismatch
from rooftrace.core.types import Scene
from rooftrace.engines.base import PointwiseEngine
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.legend import NODATA
from rooftrace.metrics.tiled_evaluation import evaluate_scenes, predict_mask
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import Predictor

SPEC = BundleSpec(
    name="x", bands=("a",), mean=(90.0,), std=(1.0,), classes=("no", "yes"), threshold=0.4,
    gsd_m=0.4,
)  # fmt: skip


class Blurred(PointwiseEngine):
    """The answer for a pixel depends on those around it, and on the edges of its tile."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        return np.stack([[cv2.blur(x, (31, 31))] for x in super().run(batch)[:, 0]])


class ThreeClasses(PointwiseEngine):
    """The darker, the lower the class."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        share = super().run(batch)[:, 0]
        return np.stack([1 - share, np.full_like(share, 0.45), share / 2], axis=1)


def image(shape_yx: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape_yx[0] // 20 + 1, shape_yx[1] // 20 + 1), np.uint8)
    return np.kron(coarse, np.ones((20, 20), np.uint8))[None, : shape_yx[0], : shape_yx[1]]


@pytest.mark.parametrize(
    ("engine", "spec"),
    [
        (Blurred(), SPEC),
        (Blurred(), SPEC.model_copy(update={"input_px": 256})),
        (ThreeClasses(), SPEC.model_copy(update={"classes": ("no", "yes", "road")})),
    ],
)
def test_an_image_is_answered_as_it_is_predicted(engine: PointwiseEngine, spec: BundleSpec) -> None:
    # Two tiles at the model's resolution; a corner is nodata.
    pixels, valid = image((1500, 130)), np.ones((1500, 130), bool)
    valid[600:, 70:] = False
    source = ArraySource(pixels, valid=valid)
    expected = Predictor(ModelBundle(spec, {}, "x"), engine).predict(source, gsd_m=0.5).mask
    found = predict_mask(source.read(), spec, engine.run, gsd_m=0.5)
    assert len(np.unique(found)) == len(spec.classes)
    np.testing.assert_array_equal(np.where(valid, found, NODATA), expected.data)
    with pytest.raises(GsdMismatch):
        predict_mask(source.read(), spec, engine.run, gsd_m=5)


def test_pixels_are_counted_where_image_and_label_are_known() -> None:
    pixels = np.repeat(np.uint8([[[255, 255, 255, 0, 0, 0]]]), 4, axis=1)
    valid = np.ones((4, 6), bool)
    valid[0, 0] = False
    label = np.repeat(np.uint8([[1, 1, 0, 1, 0, 0]]), 4, axis=0)
    label[1, 1] = NODATA
    labelled = ArrayLabel(label, label != NODATA)
    scene = Scene("a", ArraySource(pixels, valid=valid), labelled, gsd_m=0.4)
    far = Scene("b", ArraySource(pixels), labelled, gsd_m=8.0)
    # The second image is too coarse for the model to be predicted.
    counts = evaluate_scenes(
        set_of(scene, far, classes=len(SPEC.classes)), SPEC, PointwiseEngine().run
    )
    assert counts.pixels == 22
    assert counts.iou(1) == pytest.approx(6 / (6 + 4 + 4))
