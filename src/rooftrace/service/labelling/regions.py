"""What a model found, as regions of Label Studio for one control."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import shapely
from rasterio.features import rasterize

from rooftrace.core.types import BoolArray, Footprints, Mask
from rooftrace.data.labelstudio.brush import BrushError, decode_brush
from rooftrace.data.labelstudio.read import UNKNOWN_LABEL
from rooftrace.data.labelstudio.regions import Brush, find_regions, malformed
from rooftrace.data.labelstudio.write import brush_results, polygon_results, rectangle_results
from rooftrace.predict.result import Prediction
from rooftrace.service.labelling.interface import Tool

__all__ = ["drawn_area", "regions_of"]

_WHERE = "what was drawn"


def regions_of(
    made: Prediction, tool: Tool, drawn: shapely.Geometry | None = None
) -> list[dict[str, Any]]:
    """The results of one prediction.

    Polygons and rectangles are one for each building, with its score. Brushes are one for each
    class, pixel by pixel the mask, with the mean score of its buildings.

    Args:
        made: what the model found.
        tool: what is filled.
        drawn: in pixels (x right, y down); where given, only what it touches.

    Raises:
        LabelError: the image is too large for a brush mask.
    """
    grid = made.mask.grid
    found = _in_pixels(made)
    if drawn is not None:
        found = found.take(np.asarray(shapely.intersects(drawn, found.geometry), dtype=np.bool_))
    by_label = {
        label: found.of_class(index) if made.outlines.class_id is not None else found
        for index, label in tool.labels.items()
    }
    if tool.kind == "brush":
        results = _brushes(made.mask, tool, drawn)
        for result in results:
            [label] = result["value"]["brushlabels"]
            if label in by_label and len(by_label[label]):
                result["score"] = float(by_label[label].score.mean())
    else:
        write = polygon_results if tool.kind == "polygon" else rectangle_results
        results = []
        for number, (label, part) in enumerate(by_label.items()):
            for result in write(part, grid, label, tool.control):
                results.append(result | {"id": f"{number}{result['id']}"})
    if drawn is not None:
        # These go beside others that were suggested before, of the same task.
        batch = secrets.token_hex(4)
        results = [result | {"id": f"{batch}-{result['id']}"} for result in results]
    return results


def drawn_area(context: object, shape_yx: tuple[int, int]) -> shapely.Geometry | None:
    """What an annotator has drawn with a smart tool, in pixels; None where nothing was.

    Args:
        context: of the request: `{"result": [regions]}`; key points count, too.
        shape_yx: of the image.

    Raises:
        LabelError: a region that is not what Label Studio sends.
    """
    results = context.get("result") if isinstance(context, Mapping) else None
    if not results:
        return None
    regions, _ = find_regions(results, _WHERE)
    shapes: list[shapely.Geometry] = []
    for region in regions:
        if isinstance(region.shape, Brush):
            try:
                mask = decode_brush(region.shape.rle, shape_yx)
            except BrushError as error:
                raise malformed(region.where, "its brush", str(error), "a mask of it") from error
            shapes.append(_boxes(mask))
        else:
            shapes.append(region.shape.outline(shape_yx).buffer(0))
    shapes += [
        _key_point(result.get("value"), shape_yx)
        for result in results
        if str(result.get("type")).startswith("keypoint")
    ]
    return shapely.union_all(shapes) if shapes else None


def _key_point(value: object, shape_yx: tuple[int, int]) -> shapely.Point:
    match value:
        case {"x": int() | float() as x, "y": int() | float() as y}:
            if 0 <= x <= 100 and 0 <= y <= 100:
                return shapely.Point(x / 100 * shape_yx[1], y / 100 * shape_yx[0])
    raise malformed(_WHERE, "a key point", value, "x and y in percent")


def _boxes(mask: BoolArray) -> shapely.Geometry:
    """A mask as the union of its runs along rows."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, stops) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return shapely.union_all(shapely.box(starts, rows, stops, rows + 1))


def _in_pixels(made: Prediction) -> Footprints:
    """The outlines in pixels of the image, wherever that lies."""
    if made.outlines.crs is None or not len(made.outlines):
        return replace(made.outlines, crs=None)
    t = ~made.mask.grid.transform
    geometry = shapely.transform(
        made.outlines.geometry,
        lambda xy: np.stack(
            (t.a * xy[:, 0] + t.b * xy[:, 1] + t.c, t.d * xy[:, 0] + t.e * xy[:, 1] + t.f), axis=1
        ),
    )
    return replace(made.outlines, geometry=geometry, crs=None)


def _brushes(mask: Mask, tool: Tool, drawn: shapely.Geometry | None) -> list[dict[str, Any]]:
    shown = np.isin(mask.data, list(tool.labels)) & mask.valid
    if drawn is not None:
        shown &= _touched(shown, drawn)
    # What no brush is to show counts as background, what is unknown only where it has a label.
    valid = mask.valid if tool.shows_unknown and drawn is None else np.ones_like(mask.valid)
    names = [tool.labels.get(index, "") for index in range(max(tool.labels) + 1)]
    left = Mask(np.where(shown, mask.data, 0).astype(np.uint8), valid, mask.grid)
    results = list(brush_results(left, names, tool.control))
    assert all(result["value"]["brushlabels"][0] in (*names, UNKNOWN_LABEL) for result in results)
    return results


def _touched(shown: BoolArray, drawn: shapely.Geometry) -> BoolArray:
    """The connected parts of a mask that a shape touches, whole."""
    burnt = rasterize([drawn], out_shape=shown.shape, all_touched=True, dtype=np.uint8) != 0
    _, parts = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    touched = np.unique(parts[burnt & shown])
    kept: BoolArray = np.isin(parts, touched) & shown
    return kept
