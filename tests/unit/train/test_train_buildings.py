"""Buildings on validation tiles: which take part, and which are right."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.types import Sample
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.metrics.calibration import BuildingOutcomes
from rooftrace.models.spec import BundleSpec
from rooftrace.train.config import TrainConfig
from rooftrace.train.export_bundle import _calibration, join_tiles, match_buildings

BINARY = tiny_bundle().spec
SHAPE = (40, 60)


class Tiles:
    """Stands for `EvalTiles`: two tiles of each scene."""

    name = "place"
    scenes = (None,) * 3

    def scene_of(self, number: int) -> int:
        return number // 2


def judged_on(spec: BundleSpec, *tiles: tuple[Sample, NDArray[np.float32]]) -> BuildingOutcomes:
    matched = [match_buildings(spec, sample, probability) for sample, probability in tiles]
    return join_tiles(Tiles(), matched)  # type: ignore[arg-type]


def sample_of(truth: np.ndarray, instances: np.ndarray | None = None) -> Sample:
    pixels = np.zeros((3, *truth.shape), np.float32)
    return Sample(pixels, truth.astype(np.uint8), np.ones(truth.shape, bool), instances)


def test_scores_and_outcomes_of_one_tile() -> None:
    probability, truth = np.full((1, *SHAPE), 0.1, np.float32), np.zeros(SHAPE, np.uint8)
    probability[0, 5:15, 5:15], truth[5:15, 5:15] = 0.8, 1
    probability[0, 5:15, 30:40], truth[5:15, 38:48] = 0.6, 1  # a fifth of each
    probability[0, 25:40, 20:30], truth[25:40, 20:30] = 0.9, 1  # reaches to the edge
    nothing = sample_of(np.zeros_like(truth)), np.zeros_like(probability)
    judged = judged_on(BINARY, *[nothing] * 3, (sample_of(truth), probability), nothing)
    np.testing.assert_allclose(judged.score, [0.8, 0.6], atol=1 / 255)
    assert judged.right.tolist() == [True, False]
    assert judged.scene.tolist() == [1, 1]
    assert (judged.data, judged.split, judged.scenes) == ("place", "val", 3)


def test_what_is_not_known_takes_no_part() -> None:
    probability = np.full((1, *SHAPE), 0.0, np.float32)
    probability[0, 5:15, 5:15] = probability[0, 5:15, 30:40] = 0.8
    sample = sample_of(probability[0] > 0)
    sample.valid[:, 25:] = False
    assert judged_on(BINARY, (sample, probability)).right.tolist() == [True]


CONFIG = parse_config(
    {"data": {"train": [{"path": "a"}], "split": "s"}, "crop_px": 96}, TrainConfig, source="c"
)


def test_a_bundle_says_what_its_calibration_is_of() -> None:
    rng = np.random.default_rng(0)
    score = rng.uniform(0.4, 0.95, 600).astype(np.float32)
    lines: list[str] = []
    folder = BuildingOutcomes(
        "place", "val", score, rng.random(600) < score**4, score > 1, np.sort(np.arange(600) % 6), 6
    )
    made = _calibration([folder], CONFIG, lines.append)
    assert made is not None
    assert made.fitted_on == (folder.record,)
    assert made.protocol.startswith("tiles of 96 px")
    assert "on tiles of 96 px, without the buildings that reach to the edge" in lines[0]
    assert "expected calibration error" in lines[0]
