"""Clicks that a building takes until its outline is right, by a simulated annotator.

Each labelled building of the held-out images is clicked in its middle, and then in the middle of
the largest error, until the IoU reaches the target. The baseline is the polygon of the default
model under the first click.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, measure_part, rounded, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.core.types import RasterSource

TARGET = 0.85
MOST_CLICKS = 20
AFTER = (1, 2, 3, 5, 10)
"""Numbers of clicks after which answers are compared."""

MIN_AREA_M2 = 10.0
"""Smallest building that is clicked."""

LARGE_M2 = 50.0
"""Area from which figures are given a second time: at 0.5 m per pixel, an outline that is half a
pixel off takes a building of 10 m² below the target."""

PLACES: dict[str, dict[str, Any]] = {
    "kampala": {
        "path": "$ROOFTRACE_DATA/oam/kampala/labels.geojson",
        "images": "{work}/kampala/images",
    },
    "rotterdam": {
        "path": "$ROOFTRACE_DATA/rotterdam",
        "part": "[150:]",
        "gsd_m": 0.5,
        "label_shift_px": [-4, 1],
    },
    "catanduanes": {
        "path": "$ROOFTRACE_DATA/oam/catanduanes/labels.geojson",
        "images": "{work}/catanduanes/images",
    },
    "vienna": {"path": "$ROOFTRACE_DATA/vienna", "gsd_m": 0.3},
}
"""Images that the networks were not trained on; the last two choose the epoch of a training."""


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--clicks", type=Path, help="bundle of a click network; default: bundled")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=["kampala", "rotterdam"])
    parser.add_argument("--pieces", type=Path, default=Path("work/default-data"),
                        help="folder that recipes/default_data.py has written")  # fmt: skip
    parser.add_argument("--most", type=int, default=10_000, help="maximum number of buildings")
    options = parser.parse_args()
    if "ROOFTRACE_DATA" not in os.environ:
        raise SystemExit("Set ROOFTRACE_DATA to the folder of the imagery.")
    rows = {
        place: measure_part(
            __file__, "click", place=place, pieces=str(options.pieces.resolve()),
            clicks=options.clicks and str(options.clicks), most=options.most,
        ).row
        for place in options.places
    }  # fmt: skip
    return {"target_iou": TARGET, "most_clicks": MOST_CLICKS, "places": rows}


@dataclass(frozen=True)
class Building:
    """A labelled building.

    Args:
        image: Image that shows it.
        gsd_m: Metres per pixel.
        row, col: Position of `truth` in the image.
        truth: (y, x) pixels of the building, with a margin.
        known: (y, x) pixels whose label is known.
        default: (y, x) the default model's polygon under the first click; empty without one.
    """

    image: RasterSource
    gsd_m: float
    row: int
    col: int
    truth: NDArray[np.bool_]
    known: NDArray[np.bool_]
    default: NDArray[np.bool_]


@dataclass(frozen=True)
class Session:
    """The clicks on one building.

    Args:
        ious: IoU of the answer after each click, up to the target.
        ms: Milliseconds of each click.
        cpu_ms: Processor time of each click on all cores, which other processes do not change.
        outline: IoU of the straightened polygon after the last click.
        default: IoU of the default model's polygon.
        area_m2: Area of the building.
    """

    ious: list[float]
    ms: list[float]
    cpu_ms: list[float]
    outline: float
    default: float
    area_m2: float


def click(place: str, pieces: str, clicks: str | None, most: int) -> dict[str, Any]:
    """Click the buildings of one place."""
    import numpy as np

    from rooftrace.predict.clicks import ClickSegmenter, load_clicks
    from rooftrace.predict.predictor import load

    model = load_clicks(clicks)
    # The first run compiles the network.
    ClickSegmenter(np.zeros((3, 64, 64), np.uint8), model).click(32, 32)
    found = list(buildings(place, pieces, load()))[:most]
    sessions = [annotate(building, model) for building in found]
    large = [one for one in sessions if one.area_m2 >= LARGE_M2]
    return {
        "buildings": summary(sessions),
        f"from_{LARGE_M2:.0f}_m2": summary(large),
        "first_click_ms": quantiles([one.ms[0] for one in sessions]),
        "first_click_cpu_ms": quantiles([one.cpu_ms[0] for one in sessions]),
        "later_click_ms": quantiles([ms for one in sessions for ms in one.ms[1:]]),
        "later_click_cpu_ms": quantiles([ms for one in sessions for ms in one.cpu_ms[1:]]),
    }


def annotate(building: Building, model: Any) -> Session:
    """Click a building until the IoU reaches the target."""
    import time

    import numpy as np

    from rooftrace.models.clicks import next_click
    from rooftrace.predict.clicks import ClickSegmenter

    truth, known = building.truth, building.known
    given = next_click(truth, np.zeros_like(truth), known)
    segmenter, outline = None, 0.0
    ious: list[float] = []
    ms: list[float] = []
    cpu_ms: list[float] = []
    while given is not None and len(ious) < MOST_CLICKS and max(ious, default=0.0) < TARGET:
        started, cpu = time.perf_counter(), time.process_time()
        if segmenter is None:
            segmenter = ClickSegmenter(building.image, model, gsd_m=building.gsd_m)
        answer = segmenter.click(
            building.row + given.row, building.col + given.col, positive=given.positive
        )
        ms.append((time.perf_counter() - started) * 1000)
        cpu_ms.append((time.process_time() - cpu) * 1000)
        shown = placed(answer.mask, answer.window.row, answer.window.col, building)
        # Pixels beyond the window of the building are surplus.
        ious.append(iou(truth, shown, known, int(answer.mask.sum()) - int(shown.sum())))
        drawn = burnt(answer.outlines, (building.row, building.col), truth.shape)
        outline = iou(truth, drawn, known)
        given = next_click(truth, shown, known)
    area_m2 = float(truth.sum()) * building.gsd_m**2
    default = iou(truth, building.default, known)
    return Session(ious, ms, cpu_ms, outline, default, area_m2)


def summary(sessions: list[Session]) -> dict[str, Any]:
    """Return the clicks to the target; a building that is not reached counts the most clicks."""
    right = [len(one.ious) for one in sessions if one.ious[-1] >= TARGET]
    failed = len(sessions) - len(right)
    numbers = [*right, *[MOST_CLICKS] * failed]
    # A building that is right is not clicked again.
    after = {n: [one.ious[min(n, len(one.ious)) - 1] for one in sessions] for n in AFTER}
    return {
        "count": len(sessions),
        "median_clicks": statistics.median(numbers),
        "mean_clicks": rounded(statistics.fmean(numbers)),
        "failed_share": rounded(failed / len(sessions)),
        "right_after": {n: sum(one <= n for one in right) for n in AFTER},
        "median_iou_after": {n: rounded(statistics.median(v)) for n, v in after.items()},
        "median_iou_of_outlines": rounded(statistics.median(s.outline for s in sessions)),
        "default_polygon_right": sum(one.default >= TARGET for one in sessions),
        "default_polygon_median_iou": rounded(statistics.median(s.default for s in sessions)),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": rounded(statistics.median(ordered)),
        "p95": rounded(ordered[int(0.95 * (len(ordered) - 1))]),
    }


def buildings(place: str, pieces: str, predictor: Any) -> Iterator[Building]:
    """Yield the buildings of a place that are whole on their image."""
    import cv2
    import numpy as np
    import shapely

    from rooftrace.core.types import Window
    from rooftrace.labels.config import LabelConfig, SourceConfig
    from rooftrace.labels.derived import GroundTruth
    from rooftrace.labels.kinds import open_source
    from rooftrace.models.clicks import middle

    fields = {key: value.format(work=pieces) if isinstance(value, str) else value
              for key, value in PLACES[place].items()}  # fmt: skip
    labels = LabelConfig()
    for scene in open_source(SourceConfig.model_validate(fields), labels):
        whole = GroundTruth.of(scene, labels.building_class)
        seen = scene.image.read(Window.whole(scene.image.grid.shape)).valid
        known = seen & whole.mask.valid
        made = predictor.predict(scene.image, gsd_m=scene.gsd_m)
        outlines = made.outlines.geometry
        if made.outlines.crs is not None:
            outlines = shapely.transform(outlines, scene.image.grid.to_pixels)
        height, width = known.shape
        assert scene.gsd_m is not None
        numbers = np.unique(whole.instances)
        for number in numbers[numbers > 0].tolist():
            mask = (whole.instances == number).astype(np.uint8)
            left, top, across, down = cv2.boundingRect(mask)
            margin = max(across, down, 32)
            rows = slice(max(0, top - margin), min(height, top + down + margin))
            cols = slice(max(0, left - margin), min(width, left + across + margin))
            truth = mask[rows, cols].astype(bool)
            grown = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            at_edge = top == 0 or left == 0 or top + down == height or left + across == width
            if at_edge or truth.sum() * scene.gsd_m**2 < MIN_AREA_M2:
                continue
            if not known[rows, cols][grown].all():
                continue
            row, col = middle(truth)
            point = shapely.Point(cols.start + col, rows.start + row)
            under = outlines[shapely.contains(outlines, point)]
            default = burnt(under, (rows.start, cols.start), truth.shape)
            yield Building(
                scene.image, scene.gsd_m, rows.start, cols.start, truth, known[rows, cols], default
            )


def placed(mask: NDArray[np.bool_], row: int, col: int, building: Building) -> NDArray[np.bool_]:
    """Return a mask at a place of the image, in the window of a building."""
    import numpy as np

    shown = np.zeros_like(building.truth)
    top, left = row - building.row, col - building.col
    rows = slice(max(0, top), min(shown.shape[0], top + mask.shape[0]))
    cols = slice(max(0, left), min(shown.shape[1], left + mask.shape[1]))
    if rows.start < rows.stop and cols.start < cols.stop:
        shown[rows, cols] = mask[
            rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
        ]
    return shown


def burnt(
    outlines: NDArray[np.object_], corner: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return polygons of the image as pixels of a window with this upper left corner."""
    import numpy as np
    from rasterio.features import rasterize
    from shapely.affinity import translate

    if not len(outlines):
        return np.zeros(shape, dtype=bool)
    moved = [translate(one, -corner[1], -corner[0]) for one in outlines]
    return np.asarray(rasterize(moved, out_shape=shape, dtype="uint8"), dtype=bool)


def iou(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], known: NDArray[np.bool_], surplus: int = 0
) -> float:
    """Return the IoU of two masks on known pixels, with further pixels that were surely wrong."""
    both, either = truth & found & known, (truth | found) & known
    return float(both.sum() / max(1, either.sum() + surplus))


if __name__ == "__main__":
    start(main, click)
