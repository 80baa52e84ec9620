"""All that is counted on a scene, and its figures as functions of counts."""

import numpy as np
import pytest
import shapely

from rooftrace.core.types import Window
from rooftrace.io.gdal import number_polygons
from rooftrace.metrics.image_counts import ImageCounts, ScenePair, score_scene, uncut_polygons
from rooftrace.metrics.report import EvalReport, SceneCounts

SHAPE = (60, 80)
WINDOW = Window.whole(SHAPE)


def pair_of(truth: list, predicted: list, gsd_m: float | None = 0.5, **more) -> ScenePair:
    own, other = (np.array([*side, None], np.object_)[:-1] for side in (truth, predicted))
    instances, numbers = number_polygons(own, WINDOW), number_polygons(other, WINDOW)
    given = {
        "truth": (instances > 0).astype(np.uint8), "predicted": (numbers > 0).astype(np.uint8),
        "valid": np.ones(SHAPE, bool), "instances": instances, "truth_outlines": own,
        "outlines": other, "truth_numbers": instances, "numbers": numbers,
        "score": np.linspace(0.2, 0.9, len(other)).astype(np.float32), "gsd_m": gsd_m,
    }  # fmt: skip
    return ScenePair(**given | more)


def scored(pair: ScenePair, name: str = "a", **options) -> ImageCounts:
    return score_scene(pair, scene_id=name, classes=2, building_class=1, dense_from=0.2, **options)


def test_pixels_and_polygons_of_one_scene() -> None:
    house, other = shapely.box(10, 10, 30, 30), shapely.box(50, 40, 60, 50)
    moved = shapely.box(11, 10, 31, 30)
    score = scored(pair_of([house, other], [moved, shapely.box(2, 50, 8, 56)]))
    assert score.counts.iou(1) == pytest.approx(19 * 20 / (400 + 100 + 400 + 36 - 380))
    assert (score.objects.labelled, score.objects.predicted, score.objects.matched) == (2, 2, 1)
    assert score.right.tolist() == [True, False]
    assert score.score.tolist() == pytest.approx([0.2, 0.9])
    assert score.polygons.pairs == 1
    # Two of four corners each way are 1 px, half a metre, from the other outline.
    assert score.polygons.figures()["polis_m"] == pytest.approx(0.25)
    assert score.built_up is not None
    assert (score.built_up.count("labelled"), score.built_up.count("predicted")) == (2, 2)


def test_what_is_cut_is_not_whole() -> None:
    outlines = np.array([shapely.box(0, 5, 9, 9), shapely.box(20, 20, 30, 30),
                         shapely.box(40, 20, 50, 30)])  # fmt: skip
    valid = np.ones(SHAPE, bool)
    valid[20:30, 50:] = False
    numbers = number_polygons(outlines, WINDOW)
    assert uncut_polygons(numbers, 3, valid).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(2))
def test_figures_are_those_of_the_report(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = []
    for number in range(6):
        boxes = [shapely.box(x, y, x + 8, y + 8) for x, y in rng.integers(0, 50, (4, 2))]
        moved = [shapely.transform(box, lambda xy: xy + rng.integers(-2, 3, 2)) for box in boxes]
        scores.append(scored(pair_of(boxes[: number % 4], moved[:3]), str(number)))
    report = EvalReport(tuple(scores), ("background", "building"), 1, {})
    plain, counts = report.to_json(), SceneCounts.of(scores, 1)
    plain["pixel"]["mean_dice"] = report.pooled.mean_dice
    for name, interval in counts.intervals().items():
        part, figure = name.split(".")
        assert plain[part][figure] == pytest.approx(interval.value, abs=1e-6), name
    test = counts.against(counts, ["pixel.iou"])["pixel.iou"]
    assert (test.difference.value, test.p_value, test.equal) == (0, 1, 6)
