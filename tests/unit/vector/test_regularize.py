import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from overlap import polygon_iou
from rooftrace.metrics.boundary import polis, vertex_counts
from rooftrace.vector.regularize import regularize
from rooftrace.vector.simplify import resembles, simplify_staircase
from rooftrace.vector.trace import trace

SIZE, FINE = 120, 8
SHAPES = {
    "rectangle": shapely.box(-30, -18, 30, 18),
    "L": shapely.box(-30, -22, 30, 22).difference(shapely.box(2, -4, 40, 40)),
    "T": shapely.union(shapely.box(-32, -24, 32, -2), shapely.box(-9, -24, 9, 26)),
    "courtyard": shapely.box(-34, -30, 34, 30).difference(shapely.box(-14, -12, 16, 10)),
}
HALF_HEXAGON = shapely.Polygon([(-30, -12), (0, -12), (18, 12), (-30, 12)])


def mask_of(shape: shapely.Polygon, seed: int | None = None) -> np.ndarray:
    """The pixels of which at least half lie in the shape, or about that: as a network sees it."""
    large = np.zeros((SIZE * FINE, SIZE * FINE), np.float32)
    rings = [np.asarray(ring.coords) * FINE for ring in (shape.exterior, *shape.interiors)]
    cv2.fillPoly(large, [np.rint(ring).astype(np.int32) for ring in rings], 1)
    share = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    if seed is not None:
        noise = np.random.default_rng(seed).standard_normal((SIZE, SIZE)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 2)
        share = cv2.GaussianBlur(share, (0, 0), 1.3) + 0.1 * noise / noise.std()
    return (share >= 0.5).astype(np.uint8)


def placed(shape: shapely.Polygon, degrees: float) -> shapely.Polygon:
    return affinity.translate(affinity.rotate(shape, degrees, origin=(0, 0)), 60.3, 59.6)


def raw_of(shape: shapely.Polygon, seed: int | None = None) -> np.ndarray:
    traced = trace(mask_of(shape, seed))
    return traced.polygons[[np.argmax(traced.area_px)]]


def turns_deg(polygon: shapely.Polygon) -> np.ndarray:
    """The angle of each corner, modulo a right one."""
    turns = []
    for ring in (polygon.exterior, *polygon.interiors):
        step = np.diff(np.asarray(ring.coords), axis=0)
        angle = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
        turns.append((np.diff(angle, append=angle[0]) + 45) % 90 - 45)
    return np.concatenate(turns)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("degrees", [0, 7, 20, 33, 45, 71])
def test_a_turned_building_has_right_angles(shape: shapely.Polygon, degrees: float) -> None:
    truth = placed(shape, degrees)
    made = regularize(raw_of(truth), 1.25)
    assert made.accepted.all()
    (regular,) = made.polygons
    # Corners lie on a grid of a thousandth of a pixel.
    assert np.abs(turns_deg(regular)).max() < 0.05
    assert polygon_iou(regular, truth) > 0.955
    assert len(regular.interiors) == len(truth.interiors)
    assert vertex_counts(made.polygons)[0] <= vertex_counts(np.array([truth]))[0] + 2


def test_outlines_come_nearer_to_the_truth_and_have_fewer_corners() -> None:
    rng = np.random.default_rng(0)
    truth = np.array(
        [placed(SHAPES[name], rng.uniform(0, 90)) for name in SHAPES for _ in range(6)]
    )
    raw = np.concatenate([raw_of(shape, seed) for seed, shape in enumerate(truth)])
    made = regularize(raw, 1.25)
    simple = simplify_staircase(raw, 1.25)
    assert made.accepted.mean() > 0.9
    assert polis(made.polygons, truth).mean() < 0.8 * polis(simple, truth).mean()
    assert polygon_iou(made.polygons, truth).mean() > polygon_iou(simple, truth).mean()
    corners = [vertex_counts(those).mean() for those in (truth, made.polygons, simple)]
    assert corners[0] - 1 < corners[1] < corners[0] + 1.5 < corners[2]


@pytest.mark.parametrize(("stretch", "degrees"), [(1, 0), (1.4, 35), (1.4, 80), (2, 61)])
def test_what_is_round_stays_round(stretch: float, degrees: float) -> None:
    truth = placed(affinity.scale(shapely.Point(0, 0).buffer(25), stretch, 1), degrees)
    made = regularize(raw_of(truth), 1.25)
    assert polygon_iou(made.polygons[0], truth) > 0.98
    assert vertex_counts(made.polygons)[0] == 32


def ring_of(count: int, radius: float) -> shapely.Polygon:
    angle = 2 * np.pi * np.arange(count) / count
    return shapely.Polygon(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))


BENT = shapely.LineString([(-36, -8), (0, -8), (30, 12)])
OTHERS = {
    "octagon": ring_of(8, 36),
    "pentagon": ring_of(5, 38),
    "trapezoid": shapely.Polygon([(-32, -20), (32, -20), (14, 20), (-32, 20)]),
    "wings": BENT.buffer(9, cap_style="flat", join_style="mitre"),
}


@pytest.mark.parametrize("shape", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("degrees", [0, 17, 61])
def test_walls_of_other_directions_stay(shape: shapely.Polygon, degrees: float) -> None:
    truth = placed(shape, degrees)
    made = regularize(raw_of(truth), 1.25)
    assert made.accepted.all()
    np.testing.assert_array_equal(vertex_counts(made.polygons), vertex_counts(np.array([truth])))
    assert polygon_iou(made.polygons[0], truth) > 0.955


@pytest.mark.parametrize("side", [10, 14, 18])
def test_a_small_shed_with_round_corners_is_no_hut(side: float) -> None:
    shed = placed(shapely.box(-side / 2, -side / 2, side / 2, side / 2).buffer(-3).buffer(3), 20)
    made = regularize(raw_of(shed), 1.25)
    assert vertex_counts(made.polygons)[0] <= 8


@pytest.mark.parametrize("degrees", [0, 12, 30])
def test_an_octagon_is_not_a_circle(degrees: float) -> None:
    octagon = placed(shapely.Point(0, 0).buffer(18, quad_segs=2), degrees)
    made = regularize(raw_of(octagon, seed=3), 1.25)
    assert vertex_counts(made.polygons)[0] == 8
    assert polygon_iou(made.polygons[0], octagon) > 0.95


def test_a_courtyard_without_walls_is_a_rectangle() -> None:
    pixels = mask_of(placed(SHAPES["rectangle"], 20))
    pixels[58:61, 55:64] = pixels[57, 57:60] = pixels[61, 60:62] = 0
    raw = trace(pixels).polygons
    assert shapely.get_num_interior_rings(raw)[0] == 1
    made = regularize(raw, 1.25)
    assert made.accepted.all()
    assert vertex_counts(made.polygons)[0] == 8
    assert turns_deg(made.polygons[0]) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("radius", [1.8, 2.5, 3.2, 4.1, 5.3])
@pytest.mark.parametrize("stretch", [1, 1.6])
def test_a_speck_is_drawn_with_few_walls(radius: float, stretch: float) -> None:
    ellipse = affinity.scale(shapely.Point(0, 0).buffer(radius), stretch, 1)
    raw = raw_of(placed(ellipse, 20))
    made = regularize(raw, 1.25)
    assert made.accepted.all()
    assert vertex_counts(made.polygons)[0] <= 6
    assert shapely.area(made.polygons)[0] == pytest.approx(shapely.area(raw)[0], rel=0.01)
    assert polygon_iou(made.polygons, raw)[0] > 0.6


@pytest.mark.parametrize("degrees", [0, 12, 50])
def test_an_oblique_wall_stays_oblique_beside_right_angles(degrees: float) -> None:
    truth = placed(HALF_HEXAGON, degrees)
    made = regularize(raw_of(truth), 1.25)
    assert made.accepted.all()
    assert polygon_iou(made.polygons[0], truth) > 0.95
    turns = np.sort(np.abs(turns_deg(made.polygons[0])))
    assert turns[1] < 0.05
    assert turns[-1] > 25


def test_cut_corners_are_made_whole() -> None:
    truth = placed(shapely.box(-30, -20, 30, 20), 25)
    cut = truth.buffer(-3).buffer(3, join_style="bevel")
    made = regularize(raw_of(cut), 1.25)
    assert vertex_counts(made.polygons)[0] == 4
    assert polygon_iou(made.polygons[0], truth) > polygon_iou(cut, truth) - 0.01


def noise_polygons(seed: int, density: float, blur: float) -> np.ndarray:
    noise = np.random.default_rng(seed).random((40, 50), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.1 + blur)
    return trace((noise > np.quantile(noise, 1 - density)).astype(np.uint8)).polygons


@pytest.mark.campaign
@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 0.8),
    st.floats(0, 3),
    st.sampled_from([0.5, 1.25, 3, 10]),
)
def test_every_result_is_valid_and_the_same_building(
    seed: int, density: float, blur: float, tolerance_px: float
) -> None:
    raw = noise_polygons(seed, density, blur)
    before = shapely.to_wkb(raw).tolist()
    made = regularize(raw, tolerance_px)
    assert len(made.polygons) == len(made.accepted) == len(raw)
    assert shapely.is_valid(made.polygons).all()
    assert (shapely.get_type_id(made.polygons) == shapely.GeometryType.POLYGON).all()
    assert resembles(made.polygons, raw, tolerance_px / 1.25).all()
    holes = shapely.get_num_interior_rings(made.polygons)[made.accepted]
    np.testing.assert_array_equal(holes, shapely.get_num_interior_rings(raw)[made.accepted])
    assert shapely.to_wkb(raw).tolist() == before
    rest = ~made.accepted
    simple = simplify_staircase(raw[rest], tolerance_px)
    assert shapely.equals_exact(made.polygons[rest], simple, 1e-9).all()


@pytest.mark.parametrize("shift", [(1, 0), (100_003, 200_017)])
def test_a_polygon_has_the_same_shape_wherever_it_lies(shift: tuple[int, int]) -> None:
    raw = np.concatenate([raw_of(placed(shape, 25), 3) for shape in SHAPES.values()])
    moved = shapely.transform(raw, lambda xy: xy + np.array(shift, np.float64))
    here, there = regularize(raw, 1.25), regularize(moved, 1.25)
    assert here.accepted.all()
    back = shapely.transform(there.polygons, lambda xy: xy - np.array(shift, np.float64))
    assert shapely.equals_exact(here.polygons, back, 0).all()
