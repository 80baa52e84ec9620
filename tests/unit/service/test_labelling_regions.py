"""Predictions as regions of Label Studio, with and without a georeference."""

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid, Mask
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.labelstudio import Control
from rooftrace.labels.labelstudio_export import label_of
from rooftrace.labels.labelstudio_regions import encode_brush, find_regions
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.predictor import Predictor
from rooftrace.service.labelling import (
    ControlKind,
    ControlSettings,
    LabelControl,
    drawn_area,
    regions_of,
)

SHAPE = (96, 128)
# Left, top, width, height in pixels: two houses, far apart.
HOUSES = [(16, 8, 24, 32), (72, 48, 40, 24)]
UTM = GeoGrid(SHAPE, Affine(0.3, 0, 500_000, 0, -0.3, 9_300_000), CRS.from_epsg(32737))


def made(grid: GeoGrid | None = None, houses: list[tuple[int, int, int, int]] = HOUSES,
         nothing_known: int = 0) -> Prediction:  # fmt: skip
    pixels = np.full((3, *SHAPE), 30, np.uint8)
    for x, y, width, height in houses:
        pixels[:, y : y + height, x : x + width] = 230
    valid = np.ones(SHAPE, np.bool_)
    valid[:nothing_known] = False
    source = ArraySource(pixels, grid or GeoGrid(SHAPE), valid)
    return Predictor(tiny_bundle(), PointwiseEngine()).predict(source)


def tool(kind: ControlKind, label: str = "Roof", **others: Any) -> LabelControl:
    return LabelControl(kind, Control("c", "pic"), "photo", {1: label},
                others.get("shows_unknown", False), ControlSettings())  # fmt: skip


def painted(results: list[dict[str, Any]]) -> Any:
    regions, others = find_regions(results, "here")
    assert others == []
    label = label_of([tuple((one, 1) for one in regions)], GeoGrid(SHAPE), "here")
    return label.read().data


def iou(found: Any, expected: Any) -> float:
    return float((found & expected).sum() / (found | expected).sum())


@pytest.mark.parametrize("grid", [None, UTM])
@pytest.mark.parametrize("kind", ["polygon", "brush", "rectangle"])
def test_regions_show_what_was_found(kind: ControlKind, grid: GeoGrid | None) -> None:
    found = made(grid)
    assert len(found.outlines) == 2
    results = regions_of(found, tool(kind))
    assert len(results) == (1 if kind == "brush" else 2)
    for result in results:
        assert (result["from_name"], result["to_name"]) == ("c", "pic")
        assert result["type"] == f"{kind}labels"
        assert result["value"][f"{kind}labels"] == ["Roof"]
        assert (result["original_width"], result["original_height"]) == (128, 96)
    scores = [float(score) for score in found.outlines.score]
    if kind == "brush":
        assert results[0]["score"] == pytest.approx(np.mean(scores))
        assert iou(painted(results) == 1, found.mask.data == 1) == 1
    else:
        assert [result["score"] for result in results] == pytest.approx(scores)
        assert iou(painted(results) == 1, found.mask.data == 1) > 0.99
    assert len({result["id"] for result in results}) == len(results)


def test_classes_without_a_label_are_left_out() -> None:
    from dataclasses import replace

    found = made()
    data = found.mask.data.copy()
    data[:, 64:] *= 2
    outlines = replace(
        found.outlines, class_id=np.array([1, 2], np.uint8), classes=("none", "house", "shed")
    )
    both = replace(found, mask=Mask(data, found.mask.valid, found.mask.grid), outlines=outlines)
    sheds = replace(tool("brush"), labels={2: "Shed"})
    [brush] = regions_of(both, sheds)
    assert brush["score"] == pytest.approx(float(outlines.score[1]))
    assert np.array_equal(painted([brush]) == 1, data == 2)
    [polygon] = regions_of(both, replace(sheds, kind="polygon"))
    assert polygon["value"]["polygonlabels"] == ["Shed"]
    together = replace(tool("polygon"), labels={1: "Roof", 2: "Shed"})
    ids = [result["id"] for result in regions_of(both, together)]
    assert len(set(ids)) == 2


def key_point(x_px: float, y_px: float, **others: Any) -> dict[str, Any]:
    value = {"x": x_px / 1.28, "y": y_px / 0.96, "width": 0.5, "keypointlabels": ["Roof"]}
    return {"id": "k", "type": "keypointlabels", "value": value} | others


@pytest.mark.parametrize("kind", ["polygon", "brush", "rectangle"])
def test_only_what_an_annotator_points_at(kind: ControlKind) -> None:
    found = made(UTM)
    by_point = drawn_area({"result": [key_point(80, 60)]}, SHAPE)
    [result] = regions_of(found, tool(kind), by_point)
    assert result["score"] == pytest.approx(float(found.outlines.score[1]))
    shown = painted([result]) == 1
    expected = (found.mask.data == 1) & (np.arange(128) >= 64)
    assert iou(shown, expected) > 0.99
    # The Alt key takes a building away again, also the only one that was pointed at.
    points = [key_point(30, 20), key_point(80, 60), key_point(90, 55, is_positive=False)]
    [other] = regions_of(found, tool(kind), drawn_area({"result": points}, SHAPE))
    assert other["score"] == pytest.approx(float(found.outlines.score[0]))
    assert regions_of(found, tool(kind), drawn_area({"result": points[1:]}, SHAPE)) == []
    beside = drawn_area({"result": [key_point(60, 60)]}, SHAPE)
    assert regions_of(found, tool(kind), beside) == []
    # Two requests give regions with different ids.
    [again] = regions_of(found, tool(kind), by_point)
    assert again["id"] != result["id"]


def test_what_is_drawn_by_any_tool() -> None:
    corner = {"x": 0, "y": 0, "width": 25, "height": 50, "rotation": 0}
    mask = np.zeros(SHAPE, np.bool_)
    mask[10:12, 20:30] = True
    mask[90, 3] = True
    drawn = [
        ({"type": "rectanglelabels", "value": corner}, shapely.box(0, 0, 32, 48)),
        ({"type": "polygonlabels", "value": {"points": [[0, 0], [25, 0], [25, 50]]}},
         shapely.Polygon([(0, 0), (32, 0), (32, 48)])),
        ({"type": "brushlabels", "value": {"format": "rle", "rle": list(encode_brush(mask))}},
         shapely.union(shapely.box(20, 10, 30, 12), shapely.box(3, 90, 4, 91))),
    ]  # fmt: skip
    for result, expected in drawn:
        area = drawn_area({"result": [result]}, SHAPE)
        assert area is not None
        assert area.area.equals(expected)
    together = drawn_area({"result": [result for result, _ in drawn]}, SHAPE)
    assert together is not None
    assert together.area.equals(shapely.union_all([expected for _, expected in drawn]))
    choice = {"type": "choices", "value": {"choices": ["x"]}}
    for nothing in (None, {}, {"result": []}, {"result": None}, {"result": [choice]}):
        assert drawn_area(nothing, SHAPE) is None
