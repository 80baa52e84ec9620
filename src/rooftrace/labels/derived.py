"""Scene sets made of others: scenes cut into chips, labels shifted, or limited to an area.

The labelled buildings of a scene (`GroundTruth`) are numbers on its pixels, and polygons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError
from rooftrace.core.text import plural
from rooftrace.core.types import (
    BoolArray,
    GeoGrid,
    InstanceReader,
    LabelReader,
    Mask,
    OutlineReader,
    Polygons,
    Scene,
    Window,
    is_known_empty,
)
from rooftrace.io.area import Area, AreaSource, limit_to_area
from rooftrace.io.gdal import trace_values
from rooftrace.io.georeferenced import WindowSource
from rooftrace.io.make_valid import polygon_parts, valid_geometry
from rooftrace.labels.shapes import clip_outlines
from rooftrace.labels.source import SceneEntry, SceneSet

Instances = NDArray[np.int32]

_SIMPLIFY_PX = 1.0
"""Tolerance in pixels that removes the pixel staircase from the outlines of a mask."""


def label_instances(label: LabelReader | None, window: Window | None = None) -> Instances | None:
    """Return the object numbers (y, x) of a label inside `window` (default: everywhere).

    Returns None if the label does not number its objects.
    """
    return label.read_instances(window) if isinstance(label, InstanceReader) else None


def label_outlines(label: LabelReader | None) -> tuple[Polygons, NDArray[np.int16]] | None:
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
        instances: (y, x) number of the labelled building at each pixel, from 1; 0 elsewhere.
        outlines: (n,) polygons of the buildings in pixels of the image, x right and y down: those
            that a person drew, or else traced along the mask and simplified.
        is_mask: True if the label does not separate buildings that touch.
    """

    mask: Mask
    instances: Instances
    outlines: Polygons
    is_mask: bool = False

    @classmethod
    def of(cls, scene: Scene, building_class: int) -> GroundTruth:
        """Read the label of a labelled scene."""
        assert scene.label is not None
        mask = scene.label.read(Window.whole(scene.image.grid.shape))
        is_building = mask.data == building_class
        labelled = label_instances(scene.label)
        instances = building_instances(is_building, labelled)
        outlines = label_outlines(scene.label)
        if outlines is None:
            return cls(mask, instances, traced_outlines(instances), labelled is None)
        return cls(mask, instances, outlines[0][outlines[1] == building_class])


def traced_outlines(instances: Instances) -> Polygons:
    """Return (n,) polygons of numbered regions (y, x), within a pixel of their pixel edges."""
    traced, _ = trace_values(instances, instances > 0)
    smooth = shapely.simplify(traced, _SIMPLIFY_PX)
    return polygon_parts(valid_geometry(np.asarray(smooth, np.object_)))[0]


Outlines = tuple[Polygons, NDArray[np.int16]]
"""(n,) polygons in pixels of an image, and their class indices."""


class _OpenChip:
    """Opens the chip of an entry whose key is (entry of the scene, window or None for the whole).

    The last scene is kept, so that the data needed to draw its labels is prepared once for all its
    chips.
    """

    def __init__(self, open_scene: Callable[[SceneEntry], Scene]) -> None:
        self._open_scene = open_scene
        self._last: tuple[SceneEntry, Scene] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_open_scene": self._open_scene, "_last": None}

    def __call__(self, entry: SceneEntry) -> Scene:
        parent, window = entry.key
        if window is None:
            return replace(self._open_scene(parent), group=entry.group)
        if self._last is None or self._last[0] is not parent:
            self._last = (parent, self._open_scene(parent))
        scene = self._last[1]
        image, label = WindowSource(scene.image, window), None
        if scene.label is not None:
            shape = scene.image.grid.shape
            label = ShiftedLabel(scene.label, image.grid, -window.row, -window.col, shape)
        # Metres that the georeference gives are given for each axis, also of a chip.
        gsd_m = image.grid.gsd_m if scene.stated_gsd_m is None else scene.gsd_m
        return replace(scene, id=entry.id, image=image, label=label, group=entry.group, gsd_m=gsd_m)


def cut_into_chips(source: SceneSet, chip_px: int) -> SceneSet:
    """Return a set in which every scene is cut into squares of `chip_px`, side by side.

    Chips at the right and lower edge are smaller. A chip keeps the group of its scene; if the scene
    has none, its id becomes the group, so that a split by group keeps the scene in one part. Only
    the headers of images are read; chips that these show to be empty are left out, with a note.

    A scene that is not larger than a chip keeps its id and its file.
    """
    empty = 0

    def cut(entry: SceneEntry) -> list[SceneEntry]:
        nonlocal empty
        image = source.open_scene(entry).image
        if max(image.grid.shape) <= chip_px:
            return [replace(entry, group=entry.group or entry.id, key=(entry, None))]
        windows = [*Window.whole(image.grid.shape).blocks(chip_px, chip_px)]
        seen = [window for window in windows if not is_known_empty(image, window)]
        empty += len(windows) - len(seen)
        return [
            SceneEntry(f"{entry.id}@{w.row}_{w.col}", None, entry.group or entry.id, (entry, w))
            for w in seen
        ]

    entries, unlabelled = (
        tuple(chip for entry in some for chip in cut(entry))
        for some in (source.entries, source.unlabelled)
    )
    note = (f"Left out: {plural(empty, 'chip')} of nodata alone.",) if empty else ()
    return replace(
        source, entries=entries, unlabelled=unlabelled, notes=(*source.notes, *note),
        open_scene=_OpenChip(source.open_scene),
    )  # fmt: skip


@dataclass(frozen=True)
class ShiftedLabel:
    """A `LabelReader` that shows the label of a scene shifted by whole pixels, or in a chip.

    Args:
        grid: Grid of the image on which the label is shown.
        rows, cols: Number of pixels to shift down and to the right; negative values shift up and
            to the left. Pixels that come in from beyond the scene are unknown.
        shape: Shape of the scene.
    """

    label: LabelReader
    grid: GeoGrid
    rows: int
    cols: int
    shape: tuple[int, int]

    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(self.grid.shape)
        grid = self.grid.crop(window)
        data = np.zeros(window.shape_yx, dtype=np.uint8)
        valid = np.zeros(window.shape_yx, dtype=bool)
        wanted, there = self._unshifted(window)
        if there is not None:
            mask = self.label.read(there)
            if there == wanted:
                return Mask(mask.data, mask.valid, grid)
            into = there.slices(wanted)
            data[into], valid[into] = mask.data, mask.valid
        return Mask(data, valid, grid)

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Return the shifted object numbers; None if the label does not number its objects."""
        window = window or Window.whole(self.grid.shape)
        wanted, there = self._unshifted(window)
        # A window whose pixels all come from beyond the scene is asked for one that does not.
        ids = label_instances(self.label, there or Window(0, 0, 1, 1))
        if ids is None or there == wanted:
            return ids
        shifted = np.zeros(window.shape_yx, dtype=np.int32)
        if there is not None:
            shifted[there.slices(wanted)] = ids
        return shifted

    def read_outlines(self) -> Outlines | None:
        """Return the shifted outlines that overlap the image, unclipped; None without outlines."""
        if (outlines := label_outlines(self.label)) is None:
            return None
        geometry, classes = outlines
        wanted, _ = self._unshifted(Window.whole(self.grid.shape))
        frame = shapely.box(wanted.col, wanted.row, wanted.col_stop, wanted.row_stop)
        inside = shapely.intersects(frame, geometry)
        shift = np.array([self.cols, self.rows])
        moved = shapely.transform(geometry[inside], lambda xy: xy + shift)
        return np.asarray(moved, np.object_), classes[inside]

    def _unshifted(self, window: Window) -> tuple[Window, Window | None]:
        """Return the window before the shift, and its part inside the scene."""
        wanted = Window(window.row - self.rows, window.col - self.cols, *window.shape_yx)
        return wanted, wanted.intersection(Window.whole(self.shape))


def shift_labels(source: SceneSet, shift_yx: tuple[int, int]) -> SceneSet:
    """Return the set with all labels shifted by (rows down, columns to the right)."""
    rows, cols = source.label_shift_px
    shifted = source.mapped(partial(_shifted, shift_yx))
    return replace(shifted, label_shift_px=(rows + shift_yx[0], cols + shift_yx[1]))


def _shifted(shift_yx: tuple[int, int], scene: Scene) -> Scene:
    if scene.label is None:
        return scene
    grid = scene.image.grid
    return replace(scene, label=ShiftedLabel(scene.label, grid, *shift_yx, grid.shape))


@dataclass(frozen=True)
class _AreaLabel:
    """A `LabelReader` that shows another label inside an area; pixels outside are unknown."""

    label: LabelReader
    area: AreaSource

    def read(self, window: Window | None = None) -> Mask:
        mask = self.label.read(window)
        valid = mask.valid & self.area.inside(window)
        return Mask(np.where(valid, mask.data, 0).astype(np.uint8), valid, mask.grid)

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Return the object numbers inside; None if the label does not number its objects."""
        ids = label_instances(self.label, window)
        return None if ids is None else np.where(self.area.inside(window), ids, 0)

    def read_outlines(self) -> Outlines | None:
        """Return the parts of the outlines inside; None if the label has none."""
        if (outlines := label_outlines(self.label)) is None:
            return None
        return clip_outlines(*outlines, shapely.union_all(valid_geometry(self.area.polygons)))


def label_area(label: LabelReader | None) -> AreaSource | None:
    """Return the image within the area that limits a label; None if none does."""
    return label.area if isinstance(label, _AreaLabel) else None


def within_area(source: SceneSet, area: Area) -> SceneSet:
    """Return the set with labels inside an area only, without the scenes that the area misses.

    Raises:
        DataError: The area misses all scenes.
        GeoreferenceError: A scene or the area has no georeference.
    """
    every = (*source.entries, *source.unlabelled)
    limited = limit_to_area([source.open_scene(entry).image for entry in every], area)
    kept = {entry.id for entry, image in zip(every, limited) if image is not None}
    left_out = len(every) - len(kept)
    note = f"Left out: {plural(left_out, 'image')} outside the area {area.name}."
    inside = source.filtered(lambda entry: entry.id in kept)
    notes = (*source.notes, note) if left_out else source.notes
    return replace(inside.mapped(partial(limit_label, area=area)), notes=notes)


def limit_label(scene: Scene, area: Area) -> Scene:
    """Return the scene with a label that is unknown outside an area."""
    if scene.label is None:
        return scene
    return replace(scene, label=_AreaLabel(scene.label, AreaSource(scene.image, area)))


_HIDDEN = 0.05
"""Mean unknown share of labels from which a background that never occurs is taken as hidden."""

_ROWS = 1024
"""Number of rows of a label that are examined at a time."""


def hidden_background(
    built_px: int, known_px: int, unknown_share: float
) -> tuple[str, str, str] | None:
    """Return title, details and remedy where labels of two classes hide the background, or None.

    Args:
        built_px: Pixels of the class building in all labels.
        known_px: Pixels of both classes.
        unknown_share: Mean share of an image's valid pixels that its label leaves unknown.
    """
    if not 0 < built_px == known_px or unknown_share < _HIDDEN:
        return None
    percent = f"{100 * unknown_share:.0f} %"
    title = f"All known pixels are labelled as building, and {percent} are unknown"
    detail = (
        "Transparency or a nodata value probably hides the background. A model would learn that "
        "everything is a building, and no false positive would count."
    )
    remedy = (
        "Save the masks without transparency, with the background in its own value. Of RGBA, alpha "
        "is the mask: gdal_translate -b 4 MASK OUT."
    )
    return title, detail, remedy


def check_background(source: SceneSet) -> None:
    """Refuse a set whose labels hide the background; reading ends at the first background pixel."""
    if len(source.classes) != 2:
        return
    built_px, unknown = 0, []
    for scene in source:
        assert scene.label is not None
        # What lies outside of an area is not hidden.
        image = label_area(scene.label) or scene.image
        known_px = image_px = 0
        for window in Window.whole(scene.image.grid.shape).strips(_ROWS):
            mask = scene.label.read(window)
            if (mask.valid & (mask.data != source.building_class)).any():
                return
            shown = image.read(window).valid
            image_px += int(np.count_nonzero(shown))
            known_px += int(np.count_nonzero(mask.valid & shown))
        built_px += known_px
        unknown.append(1 - known_px / image_px if image_px else 0.0)
    share = float(np.mean(unknown)) if unknown else 0.0
    if hidden := hidden_background(built_px, built_px, share):
        title, detail, remedy = hidden
        raise LabelError(f"{source.name}: {title}. {detail}", remedy=remedy)
