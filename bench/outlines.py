"""Outlines compared with drawn footprints, before and after regularization."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, fastest_s, measure_part, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Polygons = NDArray[np.object_]

# A network blurs an edge and adds noise of about a tenth.
_BLUR_PX = 1.3
_NOISE = 0.1
_NOISE_BLUR_PX = 2.0
_SMALLEST_PX = 20
_SECONDS = 1.0


def main() -> dict[str, Any]:
    options = _options()
    common = {"gsd_m": options.gsd, "tolerance_px": options.tolerance}
    sets: dict[str, Any] = {}
    towns = {"size_px": options.size, "scenes": options.scenes}
    for name, districts in (("towns", []), ("rows of houses", ["rows"])):
        say(f"generated {name}")
        found = measure_part(__file__, "generated", districts=districts, **towns, **common)
        sets[name] = found.report
    for path in options.labels:
        say(str(path))
        found = measure_part(__file__, "labelled", path=path, **common)
        sets[f"{path.parent.name}/{path.name}"] = found.report
    return {
        "gsd_m": options.gsd,
        "tolerance_px": options.tolerance,
        "sets": sets,
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("labels", type=Path, nargs="*", help="files of footprints that people drew")
    parser.add_argument("--size", type=int, default=1500, help="side of a town, in pixels")
    parser.add_argument("--scenes", type=int, default=3, help="towns of each kind")
    parser.add_argument("--gsd", type=float, default=0.4, help="metres per pixel")
    parser.add_argument("--tolerance", type=float, default=1.25, help="in pixels")
    return parser.parse_args()


# The following functions run in child processes.


def generated(
    districts: list[str], size_px: int, scenes: int, gsd_m: float, tolerance_px: float
) -> dict[str, Any]:
    """Measure towns of all kinds of districts, or of some."""
    from town import generate_scene

    drawn = (
        generate_scene(seed, (size_px, size_px), gsd_m, districts=districts)
        for seed in range(scenes)
    )
    return _measured(
        [_in_pixels(scene.buildings, ~scene.grid.transform) for scene in drawn],
        (size_px, size_px),
        tolerance_px,
    )


def labelled(path: str, gsd_m: float, tolerance_px: float) -> dict[str, Any]:
    """Measure the footprints of a file that OGR reads."""
    import geopandas as gpd
    import numpy as np
    import shapely
    from affine import Affine

    frame = gpd.read_file(path).explode(index_parts=False)
    frame = frame.to_crs(frame.estimate_utm_crs())
    frame = frame[(frame.geom_type == "Polygon") & frame.is_valid]
    left, bottom, right, top = frame.total_bounds
    margin = 8 * gsd_m
    to_world = Affine(gsd_m, 0, left - margin, 0, -gsd_m, top + margin)
    shape_yx = tuple(int(np.ceil(m / gsd_m)) + 16 for m in (top - bottom, right - left))
    truth = _in_pixels(frame.geometry, ~to_world)
    return _measured([shapely.force_2d(truth)], (shape_yx[0], shape_yx[1]), tolerance_px)


def _in_pixels(geometry: Any, to_px: Any) -> Polygons:
    import numpy as np
    import shapely

    world = np.array(list(geometry), np.object_)
    moved = shapely.transform(world, lambda xy: np.stack(to_px @ (xy[:, 0], xy[:, 1]), axis=1))
    return np.asarray(moved, np.object_)


def _measured(
    truth: list[Polygons], shape_yx: tuple[int, int], tolerance_px: float
) -> dict[str, Any]:
    """Return figures for exact pixels and for noisy ones."""
    return {
        name: _figures(truth, shape_yx, tolerance_px, noise)
        for name, noise in (("exact pixels", 0.0), ("noisy pixels", _NOISE))
    }


def _figures(
    scenes: list[Polygons], shape_yx: tuple[int, int], tolerance_px: float, noise: float
) -> dict[str, Any]:
    import numpy as np

    from rooftrace.metrics.polygons import PolygonCounts
    from rooftrace.vector.regularize import regularize
    from rooftrace.vector.resolve_overlaps import resolve_overlaps
    from rooftrace.vector.simplify import simplify_staircase

    stairs = []
    for seed, truth in enumerate(scenes):
        # Scenes are placed side by side in one plane.
        own = np.array(list(_traced(truth, shape_yx, noise, seed)), np.object_)
        stairs.append(_beside(own, seed, shape_yx))
    raw = np.concatenate(stairs)
    truth = np.concatenate([_beside(those, at, shape_yx) for at, those in enumerate(scenes)])
    regular = regularize(raw, tolerance_px)
    settled = resolve_overlaps(raw, regular.polygons)
    went_back = sum(one is other for one, other in zip(settled, raw))
    outlines = {
        "stairs": raw,
        "simplified": simplify_staircase(raw, tolerance_px),
        "regular": regular.polygons,
        "settled": settled,
    }
    rows: dict[str, Any] = {}
    for name, polygons in outlines.items():
        figures = PolygonCounts.of(truth, polygons).figures()
        rows[name] = {"matched": figures["pairs"]} | {
            figure: rounded(figures[figure])
            for figure in (
                "iou", "c_iou", "polis_px", "max_tangent_angle_deg", "corners", "corners_labelled",
            )
        }  # fmt: skip
    for name, make in (
        ("simplified", lambda: simplify_staircase(raw, tolerance_px)),
        ("regular", lambda: regularize(raw, tolerance_px)),
        ("settled", lambda: resolve_overlaps(raw, regular.polygons)),
    ):
        rows[name]["polygons_per_s"] = rounded(len(raw) / fastest_s(make, _SECONDS)[0])
    return {
        "polygons": len(raw),
        "labelled": len(truth),
        "accepted": rounded(float(regular.accepted.mean())),
        "went_back": went_back,
        "rows": rows,
    }


def _beside(polygons: Polygons, at: int, shape_yx: tuple[int, int]) -> Polygons:
    import numpy as np
    import shapely

    step = np.array([at * (shape_yx[1] + 16), 0])
    return np.asarray(shapely.transform(polygons, lambda xy: xy + step), np.object_)


def _traced(truth: Polygons, shape_yx: tuple[int, int], noise: float, seed: int) -> Iterator[Any]:
    """Yield the pixels of each building separately, as an ideal instance segmentation finds
    them.
    """
    import cv2
    import numpy as np
    import shapely
    from rasterio.features import rasterize

    from rooftrace.core.types import Window
    from rooftrace.vector.trace import trace

    numbered = [(polygon, number) for number, polygon in enumerate(truth, 1)]
    labels = rasterize(numbered, shape_yx, dtype="int32")
    if noise:
        wave = np.random.default_rng(seed).standard_normal(shape_yx, np.float32)
        smooth = cv2.GaussianBlur(wave, (0, 0), _NOISE_BLUR_PX)
        soft = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), _BLUR_PX)
        labels[soft + noise * smooth / smooth.std() < 0.5] = 0
    whole = Window.whole(shape_yx)
    for number, (left, top, right, bottom) in enumerate(shapely.bounds(truth).astype(int), 1):
        window = Window(top, left, bottom - top + 2, right - left + 2).intersection(whole)
        if window:
            found = trace(labels[window.slices()] == number, window)
            yield from found.polygons[found.area_px >= _SMALLEST_PX]


if __name__ == "__main__":
    start(main, generated, labelled)
