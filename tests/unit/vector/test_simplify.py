import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from overlap import polygon_iou
from rooftrace.vector import simplify as overlaps
from rooftrace.vector.simplify import MIN_IOU, common_area, simplify_staircase
from rooftrace.vector.trace import trace


def drawn(shape: shapely.Polygon, size: int = 120, fine: int = 8) -> np.ndarray:
    """The pixels of which at least half lie in the shape."""
    large = np.zeros((size * fine, size * fine), np.float32)
    rings = [np.asarray(ring.coords) * fine for ring in (shape.exterior, *shape.interiors)]
    cv2.fillPoly(large, [np.rint(ring).astype(np.int32) for ring in rings], 1)
    return (cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA) >= 0.5).astype(np.uint8)


SHAPES = {
    "rectangle": shapely.box(-30, -18, 30, 18),
    "L": shapely.box(-30, -22, 30, 22).difference(shapely.box(2, -4, 40, 40)),
    "courtyard": shapely.box(-34, -30, 34, 30).difference(shapely.box(-14, -12, 16, 10)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("degrees", [7, 20, 33, 45, 71])
def test_a_turned_building_gets_its_own_edges_back(shape: shapely.Polygon, degrees: float) -> None:
    truth = affinity.translate(affinity.rotate(shape, degrees, origin=(0, 0)), 60.3, 59.6)
    raw = trace(drawn(truth)).polygons
    (simple,) = simplify_staircase(raw, 1.5)
    assert polygon_iou(simple, truth) > 0.975
    # One corner may be cut, and the staircase is gone.
    corners = shapely.get_num_coordinates(truth)
    assert shapely.get_num_coordinates(simple) <= corners + 3
    assert len(simple.interiors) == len(truth.interiors)
    assert abs(simple.area / truth.area - 1) < 0.02


def test_an_upright_rectangle_is_left_as_it_is() -> None:
    raw = np.array([shapely.box(3, 4, 20, 11), shapely.box(100_003, 200_004, 100_020, 200_011)])
    simple = simplify_staircase(raw, 1.5)
    assert shapely.equals_exact(shapely.normalize(simple), shapely.normalize(raw), 1e-9).all()


def test_lines_run_nearer_to_the_truth_than_the_pixels() -> None:
    rng = np.random.default_rng(0)
    gain = []
    for _ in range(20):
        truth = affinity.translate(affinity.rotate(SHAPES["L"], rng.uniform(0, 90)), 60, 60)
        raw = trace(drawn(truth)).polygons
        plain = shapely.simplify(raw, 1.25)
        simple = simplify_staircase(raw, 1.25)
        gain.append([polygon_iou(p, truth)[0] for p in (raw, plain, simple)])
    raw_iou, plain_iou, simple_iou = np.mean(gain, axis=0)
    assert simple_iou > raw_iou
    assert simple_iou > plain_iou


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 0.8),
    st.floats(0, 3),
    st.sampled_from([0.5, 1, 1.5, 3, 10]),
)
def test_every_result_is_valid_and_the_same_building(
    seed: int, density: float, blur: float, tolerance_px: float
) -> None:
    noise = np.random.default_rng(seed).random((40, 50), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.1 + blur)
    raw = trace((noise > np.quantile(noise, 1 - density)).astype(np.uint8)).polygons
    before = shapely.to_wkb(raw).tolist()
    simple = simplify_staircase(raw, tolerance_px)
    assert len(simple) == len(raw)
    assert shapely.is_valid(simple).all()
    assert (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON).all()
    assert (polygon_iou(simple, raw) >= MIN_IOU - 1e-9).all()
    assert shapely.to_wkb(raw).tolist() == before


def test_polygons_that_the_tolerance_would_destroy_stay() -> None:
    raw = trace(np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1]], np.uint8)).polygons
    assert simplify_staircase(raw, 20)[0].equals(raw[0])


@pytest.mark.parametrize("tolerance_px", [0, 1.5])
def test_nothing_to_do(tolerance_px: float) -> None:
    assert len(simplify_staircase(np.zeros(0, np.object_), tolerance_px)) == 0
    raw = trace(np.tri(9, dtype=np.uint8)).polygons
    assert simplify_staircase(raw, 0)[0] is raw[0]


def overlaid(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return shapely.area(shapely.intersection(one, other))


def stairs(seed: int) -> np.ndarray:
    """Outlines of noise, some with holes, far from the origin."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((40, 60)) < 0.65).astype(np.uint8)
    polygons = trace(mask).polygons
    assert shapely.get_num_interior_rings(polygons).any()
    return shapely.transform(polygons, lambda xy: xy + 50_000)


@pytest.mark.campaign
@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-3, 3))
def test_equals_the_area_of_the_intersection(seed: int, across: float, down: float) -> None:
    raw = stairs(seed)
    moved = shapely.transform(raw, lambda xy: xy + np.array([across, down]))
    simple = shapely.simplify(moved, 0.8)
    for polygons in (simple, moved, shapely.reverse(simple), shapely.convex_hull(moved)):
        np.testing.assert_allclose(common_area(polygons, raw), overlaid(polygons, raw), atol=1e-6)


def test_disjoint_and_equal_outlines() -> None:
    raw = stairs(1)
    assert common_area(raw, raw) == pytest.approx(shapely.area(raw))
    away = shapely.transform(raw, lambda xy: xy + np.array([1000, 0]))
    assert not common_area(away, raw).any()
    assert len(common_area(raw[:0], raw[:0])) == 0


def test_slopes_and_many_edges_are_overlaid(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = stairs(2)
    turned = shapely.transform(raw, lambda xy: xy @ [[0.8, 0.6], [-0.6, 0.8]])
    hulls = shapely.convex_hull(turned)
    np.testing.assert_allclose(common_area(hulls, turned), overlaid(hulls, turned), atol=1e-6)
    expected = common_area(shapely.convex_hull(raw), raw)
    for name, value in (("_AT_ONCE", 7), ("_MAX_PAIRS", 30)):
        monkeypatch.setattr(overlaps, name, value)
        found = common_area(shapely.convex_hull(raw), raw)
        np.testing.assert_allclose(found, expected, atol=1e-6)
