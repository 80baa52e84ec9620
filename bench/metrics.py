"""All metrics of an evaluation on many tiles, without any network.

Tiles of 512 px have 20 labelled buildings each. The prediction is the label with every outline
moved and turned a little, some buildings missing and some invented.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity

from common import argument_parser, peak_mb, rounded, say, start
from rooftrace.core.types import Window
from rooftrace.io.gdal import number_polygons
from rooftrace.metrics.image_counts import ImageCounts, ScenePair, score_scene
from rooftrace.metrics.objects import CocoCollector
from rooftrace.metrics.pixel import ThresholdCurve
from rooftrace.metrics.report import EvalReport

SIDE_PX, CELL_PX, GSD_M = 512, 100, 0.4


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--buildings", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    curve, coco = ThresholdCurve(), CocoCollector()
    scores: list[ImageCounts] = []
    making = 0.0
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(options.tiles):
        making -= time.perf_counter()
        pair, probability = _tile(rng, options.buildings)
        making += time.perf_counter()
        scores.append(
            score_scene(
                pair, scene_id=str(number), classes=2, building_class=1, dense_from=0.2,
                group=str(number // 50),
            )
        )  # fmt: skip
        curve.add(pair.truth == 1, probability, pair.valid)
        assert pair.score is not None
        coco.add(str(number), pair.instances, pair.numbers, pair.score, pair.valid)
        if number % 100 == 99:
            say(f"{number + 1} tiles")
    counted = time.perf_counter() - began - making
    report = EvalReport(
        tuple(scores), ("background", "building"), 1, {}, curve=curve, coco=coco.figures()
    )
    figures = report.to_json()
    seconds = time.perf_counter() - began - making
    return {
        "tiles": options.tiles,
        "buildings": sum(score.objects.labelled for score in scores),
        "seconds": rounded(seconds),
        "seconds_counting": rounded(counted),
        "seconds_figures": rounded(seconds - counted),
        "seconds_making_tiles": rounded(making),
        "cpu_seconds_with_making": rounded(time.process_time() - cpu),
        "tiles_per_s": rounded(options.tiles / seconds),
        "peak_rss_mb": peak_mb(resource.getrusage(resource.RUSAGE_SELF)),
        "iou": figures["pixel"]["iou"],
        "object_f1": figures["objects"]["f1"],
        "ap50": report.coco and rounded(report.coco["ap50"]),
    }


def _tile(rng: np.random.Generator, buildings: int) -> tuple[ScenePair, NDArray[np.uint8]]:
    """One tile with its answer, and the building's probability."""
    cells = rng.permutation((SIDE_PX // CELL_PX) ** 2)[:buildings]
    truth, answer = [], []
    for cell in cells.tolist():
        row, col = divmod(cell, SIDE_PX // CELL_PX)
        width, height = rng.uniform(20, 60, 2)
        corner = shapely.box(0, 0, width / 2, height / 2)
        house = shapely.box(0, 0, width, height).difference(corner)
        house = affinity.rotate(house, rng.uniform(0, 90), origin="center")
        centre = CELL_PX * col + 50, CELL_PX * row + 50
        house = affinity.translate(house, centre[0] - width / 2, centre[1] - height / 2)
        if rng.random() > 0.05:
            truth.append(house)
        if rng.random() > 0.1:
            moved = affinity.translate(house, *rng.normal(0, 2, 2))
            answer.append(affinity.rotate(moved, rng.normal(0, 3)))
    own, other = (np.array([*side, None], np.object_)[:-1] for side in (truth, answer))
    shape = SIDE_PX, SIDE_PX
    window = Window.whole(shape)
    instances, numbers = number_polygons(own, window), number_polygons(other, window)
    noise = rng.integers(0, 100, shape, dtype=np.uint8)
    pair = ScenePair(
        truth=(instances > 0).astype(np.uint8),
        predicted=(numbers > 0).astype(np.uint8),
        valid=np.ones(shape, np.bool_),
        instances=instances,
        truth_outlines=own,
        outlines=other,
        truth_numbers=instances,
        numbers=numbers,
        score=rng.random(len(other)).astype(np.float32),
        gsd_m=GSD_M,
    )
    return pair, np.where(numbers > 0, 255 - noise, noise).astype(np.uint8)


if __name__ == "__main__":
    start(main)
