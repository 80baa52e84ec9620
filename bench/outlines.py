"""Outlines of buildings beside the truth: generated shapes, and places with footprints people drew.

Each set is a raster of probabilities. Rows of one run: `regular` and `simplified` of this build,
`douglas_peucker` (shapely.simplify with the same tolerance), with `--before SRC` the regular
outlines of another build, and with `--peers FOLDER` those of buildingregulariser (`pip install
--target FOLDER buildingregulariser==0.2.5`), with its defaults and with neighbour alignment. The
peers get the pixel outlines of this build.

IoU, C-IoU, PoLiS and the maximum tangent angle error are means over pairs with an IoU of 0.5; see
`rooftrace.metrics.boundary`. `right` is the share of generated shapes whose corners are all within
`_NEAR_PX` of those of the truth, one to one; a circle or an ellipse is right if it has 12 to 40
corners that lie within 1 px of it. `area_bias` compares with the pixels, and so does `iou_mask`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, measure_part, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Polygons = NDArray[np.object_]

GSD_M = 0.3

# A network blurs an edge and adds noise of about a tenth.
_BLUR_PX = 1.3
_NOISE = 0.1
_NOISE_BLUR_PX = 2.0
_FINE = 8
"""Pixels of the drawing along a pixel of the raster."""

_TILE_PX = 288
_TILES_ALONG = 16
_SIZES_M = (8.0, 13.0, 21.0)
_TURNS = 10
_NEAR_PX = 1.5
_ROUND_CORNERS = 24

ROWS = ("regular", "simplified", "douglas_peucker", "before", "peer", "peer_aligned")


def main() -> dict[str, Any]:
    options = _options()
    folder = options.work / "outlines"
    folder.mkdir(parents=True, exist_ok=True)
    sets = {"generated": folder / "generated.npz"}
    say("generated shapes")
    measure_part(__file__, "draw", path=sets["generated"])
    for place in options.places:
        name = place.stem
        sets[name] = folder / f"{name}.npz"
        if not sets[name].exists():
            say(f"probabilities of {name}")
            measure_part(
                __file__, "predict", path=sets[name], image=place, labels=options.labels[name]
            )
    report: dict[str, Any] = {}
    for name, path in sets.items():
        _made("pixel", path, options)
        rows = {}
        for row in ROWS:
            source = {"before": options.before, "peer": options.peers}.get(row.split("_")[0], path)
            if source is None:
                continue
            seconds = _made(row, path, options)
            rows[row] = measure_part(__file__, "figures", path=path, row=row).report
            rows[row]["us_per_building"] = rounded(1e6 * seconds / rows[row]["found"])
            say(f"{name} {row}: {rows[row]}")
        report[name] = rows
    if options.picture is not None:
        beside = "before" if options.before else "douglas_peucker"
        given = {"rows": [beside, "regular"], "out": options.picture}
        measure_part(__file__, "picture", path=sets["generated"], **given)
    return {"sets": report}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("places", type=Path, nargs="*", help="georeferenced images")
    parser.add_argument(
        "--labels",
        type=Path,
        action="append",
        default=[],
        help="footprints of each place, in order",
    )  # fmt: skip
    parser.add_argument("--before", type=Path, help="src folder of another build")
    parser.add_argument("--peers", type=Path, help="folder with buildingregulariser")
    parser.add_argument("--picture", type=Path, help="PNG of the generated shapes to write")
    options = parser.parse_args()
    if len(options.labels) != len(options.places):
        parser.error("as many --labels as places")
    options.labels = dict(zip((place.stem for place in options.places), options.labels))
    return options


def _made(row: str, path: Path, options: argparse.Namespace) -> float:
    """Let a child make the outlines of a row, and return the processor seconds that it took."""
    if row.startswith("peer"):
        aligned = row == "peer_aligned"
        made = measure_part(__file__, "peer", path=path, aligned=aligned, peers=options.peers)
    elif row == "douglas_peucker":
        made = measure_part(__file__, "douglas_peucker", path=path)
    else:
        source = options.before if row == "before" else None
        made = measure_part(__file__, "outlines", path=path, row=row, source=source)
    return float(made.report["seconds"])


# The following functions run in child processes.


def draw(path: str) -> dict[str, Any]:
    """Draw the shapes in all sizes and at random angles, each group on a tile of its own."""
    import cv2
    import numpy as np
    import shapely
    from shapely import affinity

    rng = np.random.default_rng(65)
    groups = [
        (kind, [affinity.scale(part, size, size, origin=(0, 0)) for part in parts])
        for kind, parts in shapes()
        for size in np.array(_SIZES_M) / GSD_M
        for _ in range(_TURNS)
    ]
    rows = -(-len(groups) // _TILES_ALONG)
    shape_yx = rows * _TILE_PX, _TILES_ALONG * _TILE_PX
    share, markers = np.zeros(shape_yx, np.float32), np.zeros(shape_yx, np.uint8)
    truth, kinds = [], []
    for number, (kind, parts) in enumerate(groups):
        row, col = (_TILE_PX * at for at in divmod(number, _TILES_ALONG))
        angle = 33.0 if kind == "L at 33°" else rng.uniform(0, 360)
        angle = 25.0 if kind == "terrace" else angle
        at = rng.uniform(-0.5, 0.5, 2) + _TILE_PX / 2
        placed = [
            affinity.translate(affinity.rotate(part, angle, origin=(0, 0)), *at) for part in parts
        ]
        own = slice(row, row + _TILE_PX), slice(col, col + _TILE_PX)
        share[own] = _drawn(shapely.union_all(placed))
        if len(parts) > 1:
            for part in placed:
                markers[own] |= (_drawn(part.buffer(-2.5)) > 0.5).astype(np.uint8)
        truth += [affinity.translate(part, col, row) for part in placed]
        kinds += [kind] * len(parts)
    wave = cv2.GaussianBlur(
        rng.standard_normal(shape_yx).astype(np.float32), (0, 0), _NOISE_BLUR_PX
    )
    prob = cv2.GaussianBlur(share, (0, 0), _BLUR_PX) + _NOISE * wave / wave.std()
    # Far from a building a network is sure.
    prob[cv2.dilate((share > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0] = 0
    score = np.rint(prob.clip(0, 1) * 255).astype(np.uint8)
    alone = markers * (score >= 128)
    for number, (_, parts) in enumerate(groups):
        if len(parts) == 1:
            row, col = (_TILE_PX * at for at in divmod(number, _TILES_ALONG))
            alone[row : row + _TILE_PX, col : col + _TILE_PX] = 0
    np.savez_compressed(
        path, score=score, mask=(score >= 128).astype(np.uint8), markers=alone, threshold=0.5,
        truth=_packed(truth), kinds=np.array(kinds), tolerance=1.25,
        smallest=9.0, smallest_marker=9.0,
    )  # fmt: skip
    return {"shapes": len(truth)}


def shapes() -> Iterator[tuple[str, list[Any]]]:
    """Yield kinds of shapes, about 1 wide, each as the buildings of a group."""
    import numpy as np
    import shapely
    from shapely import affinity, box

    def ring(count: int, radius: float, first: float = 0) -> shapely.Polygon:
        angle = first + 2 * math.pi * np.arange(count) / count
        return shapely.Polygon(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))

    yield "rectangle", [box(-0.6, -0.4, 0.6, 0.4)]
    yield "trapezoid", [shapely.Polygon([(-0.6, -0.4), (0.6, -0.4), (0.25, 0.4), (-0.6, 0.4)])]
    yield "pentagon", [ring(5, 0.6)]
    yield "octagon", [ring(8, 0.6)]
    yield "circle", [ring(_ROUND_CORNERS, 0.55)]
    yield "ellipse", [affinity.scale(ring(_ROUND_CORNERS, 0.55), 1.25, 0.8)]
    ell = box(-0.7, -0.6, 0.7, 0.6).difference(box(-0.1, -0.05, 0.7, 0.6))
    yield "L at 33°", [ell]
    yield "L", [ell]
    yield "cross", [box(-0.8, -0.28, 0.8, 0.28).union(box(-0.28, -0.8, 0.28, 0.8))]
    bent = shapely.LineString([(-1.2, -0.3), (0, -0.3), (1.1, 0.47)])
    yield "wings", [bent.buffer(0.3, cap_style="flat", join_style="mitre")]
    yield "ring", [box(-0.9, -0.75, 0.9, 0.75).difference(box(-0.4, -0.3, 0.4, 0.3))]
    yield "terrace", [box(x - 1.6, -0.4, x - 0.96, 0.4) for x in 0.64 * np.arange(5)]
    houses = []
    for turn in np.radians([-24, -12, 0, 12, 24]):
        house = affinity.translate(box(-0.3, -0.4, 0.3, 0.4), 0, 3.4)
        houses.append(
            affinity.translate(affinity.rotate(house, turn, (0, 0), use_radians=True), 0, -3.2)
        )
    yield "bent street", houses


def _drawn(polygon: Any) -> NDArray[np.float32]:
    """Return the share of each pixel of a tile that a polygon covers."""
    import cv2
    import numpy as np
    import shapely

    large = np.zeros((_TILE_PX * _FINE, _TILE_PX * _FINE), np.float32)
    for part in shapely.get_parts(polygon):
        if not part.is_empty:
            rings = [
                np.asarray(ring.coords) * _FINE - 0.5 for ring in (part.exterior, *part.interiors)
            ]
            # In sixteenths of a pixel of the drawing.
            fixed = [np.rint(16 * ring).astype(np.int32) for ring in rings]
            cv2.fillPoly(large, fixed, 1.0, shift=4)
    return np.asarray(
        cv2.resize(large, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_AREA), np.float32
    )


def predict(path: str, image: str, labels: str) -> dict[str, Any]:
    """Keep what the bundled model gives for an image, and its labels."""
    import geopandas as gpd
    import numpy as np
    import shapely

    from rooftrace.predict.block import Block
    from rooftrace.predict.options import SceneOptions
    from rooftrace.predict.plan import plan_scene
    from rooftrace.predict.predictor import load, opened

    model = load()
    blocks: list[Block] = []
    model.predict(image, options=SceneOptions(), on_block=blocks.append)
    with opened(image, 3) as source:
        plan = plan_scene(source, model.bundle.spec, SceneOptions())
    options, grid = plan.vector_options, plan.source.grid
    assert grid.crs is not None
    frame = gpd.read_file(labels).explode(index_parts=False).to_crs(grid.crs)
    frame = frame[(frame.geom_type == "Polygon") & frame.is_valid]
    to_px = ~grid.transform
    truth = shapely.transform(
        shapely.force_2d(frame.geometry.to_numpy()),
        lambda xy: np.stack(to_px @ (xy[:, 0], xy[:, 1]), axis=1),
    )
    planes = {name: np.zeros(grid.shape, np.uint8) for name in ("score", "mask")}
    for block in blocks:
        for name, plane in planes.items():
            plane[block.window.slices()] = getattr(block, name)
    arrays: dict[str, Any] = {
        **planes, "threshold": plan.threshold, "truth": _packed(truth),
        "tolerance": options.simplify_px, "smallest": options.min_area_px,
        "smallest_marker": options.min_marker_px,
    }  # fmt: skip
    np.savez_compressed(path, **arrays)
    return {"shapes": len(truth)}


def outlines(path: str, row: str, source: str | None) -> dict[str, Any]:
    """Make the outlines of a raster of probabilities as `predict` does."""
    import sys

    if source is not None:
        sys.path.insert(0, source)
    import numpy as np

    from rooftrace.core.types import GeoGrid, Window
    from rooftrace.vector import assemble
    from rooftrace.vector.prepare import OutlineMaker, VectorOptions
    from rooftrace.vector.watershed import WatershedOptions

    held = np.load(path)
    mask, score = held["mask"], held["score"]
    markers = held.get("markers")
    tolerance, threshold = float(held["tolerance"]), float(held["threshold"])
    watershed = None
    if markers is None:
        watershed = WatershedOptions.at_threshold(threshold).scaled(tolerance / 1.25)
    options = VectorOptions(
        min_area_px=float(held["smallest"]), min_marker_px=float(held["smallest_marker"]),
        simplify_px=tolerance, watershed=watershed,
    )  # fmt: skip
    style: Any = "regular" if row == "before" else row
    given = Window.whole(mask.shape), mask, score, np.unique(mask).tolist(), markers
    spent: list[float] = []
    # Outlines are made in several threads at once, and overlaps resolved by all of them.
    maker: Any = OutlineMaker
    maker.outline = _timed(maker.outline, time.thread_time, spent)
    steps: Any = assemble
    steps.resolve_scene_overlaps = _timed(steps.resolve_scene_overlaps, time.process_time, spent)

    def make() -> Polygons:
        grid = GeoGrid(mask.shape)
        with assemble.FootprintAssembler(grid, (1,), 1, options.drawn(style)) as assembler:
            assembler.feed(*given)
            with assembler.finish() as footprints:
                return np.asarray(footprints.whole().geometry, np.object_)

    make()
    spent.clear()
    _keep(path, row, make())
    return {"seconds": sum(spent)}


def _timed(work: Callable[..., Any], clock: Callable[[], float], spent: list[float]) -> Any:
    """Return a function that also notes the processor seconds of each call."""

    def timed(*given: Any, **options: Any) -> Any:
        before = clock()
        result = work(*given, **options)
        spent.append(clock() - before)
        return result

    return timed


def _kept(path: str, row: str, make: Callable[[], Any]) -> dict[str, Any]:
    spent: list[float] = []
    _keep(path, row, _timed(make, time.process_time, spent)())
    return {"seconds": sum(spent)}


def _keep(path: str, row: str, polygons: Any) -> None:
    import numpy as np

    np.save(Path(path).with_suffix(f".{row}.npy"), _packed(polygons))


def _packed(polygons: Any) -> Any:
    import numpy as np
    import shapely

    return np.frombuffer(shapely.to_wkb(shapely.geometrycollections(list(polygons))), np.uint8)


def _unpacked(data: Any) -> Polygons:
    import numpy as np
    import shapely

    return np.asarray(shapely.get_parts(shapely.from_wkb(data.tobytes())), np.object_)


def _read(path: str, row: str) -> Polygons:
    """Return the outlines of a row."""
    import numpy as np

    return _unpacked(np.load(Path(path).with_suffix(f".{row}.npy")))


def douglas_peucker(path: str) -> dict[str, Any]:
    """Simplify the pixel outlines."""
    import numpy as np
    import shapely

    raw = _read(path, "pixel")
    tolerance = float(np.load(path)["tolerance"])
    return _kept(path, "douglas_peucker", lambda: shapely.simplify(raw, tolerance))


def peer(path: str, aligned: bool, peers: str) -> dict[str, Any]:
    """Let buildingregulariser make outlines; its lengths are metres, so pixels become metres."""
    import sys

    sys.path.insert(0, peers)
    import geopandas as gpd
    import numpy as np
    import shapely
    from buildingregulariser import regularize_geodataframe

    raw = _read(path, "pixel")
    px_m = 1.25 * GSD_M / float(np.load(path)["tolerance"])
    frame = gpd.GeoDataFrame(geometry=shapely.transform(raw, lambda xy: xy * px_m), crs=32636)

    def make() -> Polygons:
        made = regularize_geodataframe(frame, neighbor_alignment=aligned, num_cores=1)
        parts = made.geometry.explode(index_parts=False).to_numpy()
        return np.asarray(shapely.transform(parts, lambda xy: xy / px_m), np.object_)

    return _kept(path, "peer_aligned" if aligned else "peer", make)


def figures(path: str, row: str) -> dict[str, Any]:
    """Compare the outlines of a row with the truth and with the pixels."""
    import numpy as np
    import shapely

    from rooftrace.metrics.boundary import PolygonCounts
    from rooftrace.vector.match import PolygonOverlaps

    held = np.load(path)
    truth = shapely.make_valid(_unpacked(held["truth"]))
    made, raw = _read(path, row), _read(path, "pixel")
    made = made[shapely.is_valid(made) & (shapely.get_type_id(made) == 3)]
    figures = PolygonCounts.of(truth, made).figures()
    names = ("iou", "c_iou", "polis_px", "n_ratio", "max_tangent_angle_deg")
    result: dict[str, Any] = {
        "found": len(made),
        **{name: rounded(figures[name]) for name in names},
    }
    result["f1"] = rounded(2 * figures["pairs"] / (figures["found"] + figures["labelled"]))
    pairs = PolygonOverlaps.of(raw, made).matches(0.5)
    result["iou_mask"] = rounded(float(pairs.iou.mean()))
    area, area_px = (float(shapely.area(those).sum()) for those in (made, raw))
    result["area_bias"] = rounded(area / area_px - 1)
    if "kinds" in held:
        pairs = PolygonOverlaps.of(truth, made).matches(0.5)
        right = np.zeros(len(truth), np.bool_)
        kinds = held["kinds"]
        for one, other in zip(pairs.one.tolist(), pairs.other.tolist()):
            right[one] = _is_right(truth[one], made[other], kinds[one] in ("circle", "ellipse"))
        result["right"] = rounded(float(right.mean()))
        result["kinds"] = {
            kind: rounded(float(right[kinds == kind].mean()))
            for kind in dict.fromkeys(kinds.tolist())
        }
    return result


def _is_right(truth: Any, made: Any, is_round: bool) -> bool:
    """Return True if each corner is near one of the other, one to one; see the head."""
    import numpy as np
    import shapely

    if is_round:
        away = shapely.distance(shapely.points(made.exterior.coords), truth.exterior)
        return 12 <= len(away) - 1 <= 40 and float(away.max()) <= 1
    corners = [
        np.concatenate([np.asarray(ring.coords)[:-1] for ring in (one.exterior, *one.interiors)])
        for one in (truth, made)
    ]
    if len(corners[0]) != len(corners[1]):
        return False
    away = np.hypot(*(corners[0][:, None] - corners[1][None]).transpose(2, 0, 1))
    nearest = away.argmin(axis=1)
    return len(np.unique(nearest)) == len(nearest) and bool((away.min(axis=1) <= _NEAR_PX).all())


def picture(path: str, rows: list[str], out: str) -> dict[str, Any]:
    """Draw one shape of each kind, with the outlines of some rows side by side."""
    import cv2
    import numpy as np
    import shapely

    zoom, half = 4, _TILE_PX // 2
    score, kinds = np.load(path)["score"], [kind for kind, _ in shapes()]
    panels = []
    for number, kind in enumerate(kinds):
        # The third turn of the middle size.
        group = 3 * _TURNS * number + _TURNS + 2
        top, left = (_TILE_PX * at for at in divmod(group, _TILES_ALONG))
        radius = 80 if kind in ("terrace", "bent street", "wings") else 50
        corner = np.array([left, top]) + half - radius
        part = score[corner[1] : corner[1] + 2 * radius, corner[0] : corner[0] + 2 * radius]
        side = 2 * 50 * zoom
        grey = cv2.resize(255 - part // 4, (side, side), interpolation=cv2.INTER_NEAREST)
        for row in rows:
            panel, made = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), _read(path, row)
            box = shapely.box(*corner, *(corner + 2 * radius))
            for ring in shapely.get_rings(made[shapely.within(made, box)]):
                xy = (np.asarray(ring.coords) - corner) * side / (2 * radius)
                points = np.rint(16 * xy).astype(np.int32)
                cv2.polylines(panel, [points], True, (150, 70, 20), 3, cv2.LINE_AA, 4)
                for x, y in points // 16:
                    cv2.circle(panel, (int(x), int(y)), 5, (30, 90, 230), -1, cv2.LINE_AA)
            panels.append(
                cv2.copyMakeBorder(panel, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=(255,) * 3)
            )
    along = 5 * len(rows)
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % along)
    lines = [np.hstack(panels[at : at + along]) for at in range(0, len(panels), along)]
    image = cv2.resize(np.vstack(lines), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(out, image)
    return {"picture": out}


if __name__ == "__main__":
    start(main, draw, predict, outlines, douglas_peucker, peer, figures, picture)
