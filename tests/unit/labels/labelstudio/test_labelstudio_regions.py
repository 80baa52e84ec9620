"""Regions of annotators are converted to pixels."""

from typing import Any

import numpy as np
import pytest
import shapely

from rooftrace.core.errors import LabelError
from rooftrace.labels.labelstudio_regions import (
    BrushShape,
    OutlineShape,
    encode_brush,
    find_regions,
)

SHAPE = (100, 200)
SIZES = {"original_width": 200, "original_height": 100}
BOX = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}


def result(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r", "type": kind, "value": value, **SIZES, **more}


def one(kind: str, value: dict[str, Any], **more: Any) -> Any:
    regions, others = find_regions([result(kind, value, **more)], "f, task 1")
    assert not others
    assert len(regions) == 1
    return regions[0]


def test_a_polygon_is_in_percent() -> None:
    points = [[0, 0], [50, 0], [50.0, 100]]
    region = one("polygonlabels", {"points": points, "polygonlabels": ["Roof"]})
    assert region.labels == ("Roof",)
    assert region.size_yx == SHAPE
    assert region.shape.outline(SHAPE).equals(shapely.Polygon([(0, 0), (100, 0), (100, 100)]))


def test_a_rectangle_turns_about_its_corner_in_pixels() -> None:
    flat = one("rectanglelabels", BOX | {"rectanglelabels": ["Roof"]}).shape
    assert flat.outline(SHAPE).equals(shapely.box(20, 20, 80, 60))
    right = one("rectanglelabels", BOX | {"rotation": 90}).shape.outline(SHAPE)
    # Clockwise on the screen: the side that went right goes down, and that which went down left.
    assert right.symmetric_difference(shapely.box(-20, 20, 20, 80)).area < 1e-6


def test_a_shape_and_its_name_may_be_two_results() -> None:
    mask = list(encode_brush(np.ones((2, 2), dtype=bool)))
    brush = {"format": "rle", "rle": mask}
    given = [
        result("rectangle", BOX),
        result("brush", brush, id="b"),
        result("labels", brush | {"labels": ["Roof"]}, id="b"),
        result("labels", BOX | {"labels": ["Shed"]}),
        result("rectanglelabels", BOX | {"rectanglelabels": ["Later"]}, id="other"),
    ]
    regions, _ = find_regions(given, "f")
    assert [(type(r.shape), r.labels) for r in regions] == [
        (OutlineShape, ("Shed",)), (BrushShape, ("Roof",)), (OutlineShape, ("Later",)),
    ]  # fmt: skip


def test_without_a_type_the_shape_is_known_by_its_keys() -> None:
    rows = [
        {"points": [[0, 0], [1, 0], [1, 1]], "closed": True, "polygonlabels": ["a"]},
        {"points": [[0, 0], [1, 0], [1, 2]], "labels": ["b"]},
        BOX | {"rectanglelabels": ["c"]},
        BOX | {"y": 3, "labels": ["d"]},
        {"x": 1, "y": 1, "radiusX": 1, "radiusY": 2, "rotation": 0, "ellipselabels": ["e"]},
        {"format": "rle", "rle": b"\0" * 8, "brushlabels": ["f"]},
        {"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["left out"]},
        {"text": ["no area"]},
    ]
    regions, others = find_regions([row | SIZES for row in rows], "f")
    kinds = [*[OutlineShape] * 5, BrushShape]
    assert [type(region.shape) for region in regions] == kinds
    assert [region.labels for region in regions] == [(name,) for name in "abcdef"]
    assert others == ["keypoint", "other"]


BAD = [
    ("polygonlabels", {"points": [[0, 0], [1, 1]]}, "fewer than three points"),
    ("polygonlabels", {"points": [[0, 0], [1, 1], [1, "b"]]}, "are not numbers in percent"),
    ("polygonlabels", {"points": [[0, 0], [1, 1], [1, 1e9]]}, "are not numbers in percent"),
    ("rectanglelabels", {"x": 1, "y": 2, "width": 3}, "'height' is missing"),
    ("brushlabels", {"format": "rle", "rle": [256]}, "range(0, 256)"),
    ("brushlabels", {"format": "rle", "rle": 10**12}, "int"),
    ("bitmasklabels", {"imageDataURL": "data:"}, "a bitmask is not read"),
]


@pytest.mark.parametrize(("kind", "value", "said"), BAD)
def test_what_is_malformed_is_named(kind: str, value: dict[str, Any], said: str) -> None:
    with pytest.raises(LabelError, match="f, task 1, result r cannot be read") as raised:
        one(kind, value)
    assert said in raised.value.message
