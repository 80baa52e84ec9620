"""Read the labelled buildings of a scene: as numbers on its pixels, and as polygons."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import (
    BoolArray,
    InstanceReader,
    LabelReader,
    Mask,
    OutlineReader,
    Scene,
    Window,
)
from rooftrace.io.gdal import trace_values
from rooftrace.io.make_valid import polygon_parts, valid_geometry

Instances = NDArray[np.int32]

_SIMPLIFY_PX = 1.0
"""Tolerance in pixels that removes the pixel staircase from the outlines of a mask."""


def label_instances(label: LabelReader | None, window: Window | None = None) -> Instances | None:
    """Return the object numbers (y, x) of a label inside `window` (default: everywhere).

    Returns None if the label does not number its objects.
    """
    return label.read_instances(window) if isinstance(label, InstanceReader) else None


def label_outlines(
    label: LabelReader | None,
) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
    """Return the polygons of a label, see `OutlineReader`; None if it is not made of polygons."""
    return label.read_outlines() if isinstance(label, OutlineReader) else None


def building_instances(is_building: BoolArray, labelled: Instances | None) -> Instances:
    """Number the building that each pixel belongs to.

    Args:
        is_building: (y, x) building mask.
        labelled: (y, x) object numbers of the label, see `InstanceReader`. If this is None, each
            connected component counts as one building: pixels that share an edge or a corner.
            Houses that touch then count as one.

    Returns:
        (y, x) int32 building numbers; 0 where there is no building.
    """
    if labelled is not None:
        return np.where(is_building, labelled, 0)
    _, numbers = cv2.connectedComponents(is_building.view(np.uint8), connectivity=8)
    return np.asarray(numbers, dtype=np.int32)


@dataclass(frozen=True)
class GroundTruth:
    """Labelled buildings of a scene.

    Args:
        mask: Class indices.
        instances: (y, x) number of the labelled building at each pixel, from 1; 0 elsewhere.
        outlines: (n,) polygons of the buildings in pixels of the image, x right and y down.
        drawn: True if a person drew the polygons; False if they were traced along the mask and
            simplified to remove the pixel staircase.
        is_mask: True if the label does not separate buildings that touch.
    """

    mask: Mask
    instances: Instances
    outlines: NDArray[np.object_]
    drawn: bool
    is_mask: bool = False

    @classmethod
    def of(cls, scene: Scene, building_class: int) -> GroundTruth:
        """Read the label of a labelled scene.

        Raises:
            DataError: The label cannot be read.
        """
        assert scene.label is not None
        mask = scene.label.read(Window.whole(scene.image.grid.shape))
        is_building = mask.data == building_class
        labelled = label_instances(scene.label)
        instances = building_instances(is_building, labelled)
        outlines = label_outlines(scene.label)
        if outlines is None:
            return cls(mask, instances, traced_outlines(instances), False, labelled is None)
        return cls(mask, instances, outlines[0][outlines[1] == building_class], True)


def traced_outlines(instances: Instances) -> NDArray[np.object_]:
    """Return (n,) polygons of numbered regions (y, x), within a pixel of their pixel edges."""
    traced = [
        shapely.Polygon(one["coordinates"][0], one["coordinates"][1:])
        for one, _ in trace_values(instances, instances > 0, connectivity=4)
    ]
    smooth = shapely.simplify(np.array([*traced, None], np.object_)[:-1], _SIMPLIFY_PX)
    return polygon_parts(valid_geometry(np.asarray(smooth, np.object_)))[0]
