"""The buildings of a label are read as pixels, and as polygons drawn or traced."""

import numpy as np
import pytest
import shapely

from memory_sets import ArrayLabel
from rooftrace.core.types import GeoGrid, Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.make_valid import valid_polygons
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.derived import GroundTruth, traced_outlines
from rooftrace.labels.shapes import ShapesLabel

GRID = GeoGrid((40, 60))
HOUSE, SHED = shapely.box(5, 5, 20, 15), shapely.box(30, 20, 70, 30)


def shapes() -> ShapesLabel:
    """A house, a shed that the image's edge cuts, and a pond."""
    return ShapesLabel(np.array([HOUSE, SHED, shapely.box(1, 30, 9, 38)]), [1, 1, 2], GRID)


def truth_of(label: object, grid: GeoGrid = GRID) -> GroundTruth:
    scene = Scene("a", ArraySource(np.zeros((3, *grid.shape), np.uint8)), label)  # type: ignore[arg-type]
    return GroundTruth.of(scene, 1)


def areas(truth: GroundTruth) -> list[float]:
    return sorted(shapely.area(truth.outlines).tolist())


def test_what_was_drawn_is_taken_as_drawn_and_cut_at_the_edge() -> None:
    truth = truth_of(shapes())
    assert areas(truth) == [150, 300]
    assert (truth.mask.data == 1).sum() == 450
    assert np.bincount(truth.instances.ravel())[1:3].tolist() == [150, 300]


def test_polygons_of_coco() -> None:
    pytest.importorskip("pycocotools")
    parts = [[5, 5, 20, 5, 20, 15, 5, 15], [30, 20, 35, 20, 35, 30, 30, 30]]
    drawn = (CocoAnnotation("one", 1, parts), CocoAnnotation("pond", 2, [[40, 5, 50, 5, 50, 9]]))
    label = CocoLabel(drawn, GRID.shape, GRID, "labels.json", "a.png")
    truth = truth_of(label)
    assert areas(truth) == [50, 150]
    runs = CocoAnnotation("runs", 1, {"size": list(GRID.shape), "counts": [0, 4, 2396]})
    assert CocoLabel((*drawn, runs), GRID.shape, GRID, "l.json", "a.png").read_outlines() is None


def test_of_a_mask_regions_are_traced_without_the_stairs() -> None:
    rows, cols = np.mgrid[:40, :60]
    # A slanted side, which is a stair of some fifteen steps.
    data = ((rows > 5) & (cols > 5) & (2 * rows + cols < 70)).astype(np.uint8)
    data[2, 50] = 1
    truth = truth_of(ArrayLabel(data))
    assert len(truth.outlines) == truth.instances.max() == 2
    large = truth.outlines[shapely.area(truth.outlines).argmax()]
    assert len(large.exterior.coords) - 1 <= 6
    assert abs(large.area - data.sum()) < 0.06 * data.sum()
    assert len(traced_outlines(np.zeros((4, 4), np.int32))) == 0


def test_polygons_stay_as_many_when_they_are_mended() -> None:
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 2)])
    line = shapely.Polygon([(0, 0), (4, 0), (2, 0)])
    made = valid_polygons(np.array([HOUSE, bow, line]))
    assert len(made) == 3
    assert shapely.is_valid(made).all()
    assert made[0] is HOUSE
    assert 0 < made[1].area < 6
    assert made[2].is_empty
