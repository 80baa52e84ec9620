"""One scene in figures: its pixels, its label, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import LabelReader, Mask, RasterSource, Scene, Window
from rooftrace.data.audit.components import BuildingCounter
from rooftrace.data.audit.facts import LabelFacts, SceneFacts
from rooftrace.data.audit.pixels import PixelSums
from rooftrace.data.labels import LabelFile
from rooftrace.data.shapes import count_vanished
from rooftrace.io.placed import PlacedSource, WindowLabel, WindowSource
from rooftrace.io.raster import RasterFile, open_raster

__all__ = ["measure_scene"]

_STRIP_PX = 2**22
"""A scene is read in strips of so many pixels: some 50 MB with all that is made of them."""

_EXACT_PX = 2**26
"""A scene of up to 8192 × 8192 is read whole; of a larger one, windows."""

_WINDOW_PX = 1024
_WINDOWS = 48
_TRIES = 192
"""Of a larger scene, so many windows that show something are read, of so many that are tried."""

_ENOUGH_VALID = 0.25
_SHOWN_VALUES = 24


def measure_scene(scene: Scene, classes: tuple[str, ...], building_class: int) -> SceneFacts:
    """Measure a scene of any size in bounded memory.

    A scene of up to 8192 × 8192 pixels is read in strips, and areas and counts are exact. A larger
    one is sampled: 48 windows of 1024 × 1024 that are valid to a quarter or more, spread over it
    evenly; figures are then those of the windows (`measured_share` tells how much that is),
    buildings that reach out of one are left out, and `valid_share` is that of all windows tried.

    Args:
        scene: with or without a label.
        classes, building_class: of its set.

    Returns:
        Facts; what cannot be read is in `image_error` or `label_error`, and is not raised.
    """
    whole = Window.whole((0, 0))
    try:
        whole = Window.whole(scene.image.grid.shape)
        return _measure(scene, whole, len(classes), building_class)
    except RooftraceError as error:
        return SceneFacts(
            scene.id, scene.image.name, scene.group, whole.shape_yx,
            gsd_m=scene.gsd_m, image_error=error.message,
        )  # fmt: skip


def _measure(scene: Scene, whole: Window, classes: int, building_class: int) -> SceneFacts:
    exact = whole.area_px <= _EXACT_PX
    pixels = PixelSums(whole)
    label = _LabelSums(classes, building_class, whole, strips=exact)
    reader, error = scene.label, ""
    tried_px = tried_valid = used = 0
    for window in _strips(whole) if exact else _windows(whole):
        asked = None if window == whole else window
        raster = scene.image.read(asked)
        valid_px = int(np.count_nonzero(raster.valid))
        tried_px += window.area_px
        tried_valid += valid_px
        if not exact and valid_px < _ENOUGH_VALID * window.area_px:
            continue
        # To look at what is all valid without a mask takes half the time.
        valid = None if valid_px == window.area_px else raster.valid
        pixels.feed(raster.data, valid, window)
        if reader is not None:
            try:
                label.feed(reader.read(asked), valid, window)
            except RooftraceError as caught:
                reader, error = None, caught.message
        used += 1
        if not exact and used == _WINDOWS:
            break
    file = _file_of(scene.image)
    return SceneFacts(
        id=scene.id,
        image=scene.image.name,
        group=scene.group,
        shape_yx=whole.shape_yx,
        bands=scene.image.bands,
        dtype=str(scene.image.dtype),
        file_format="" if file is None else file.file_format,
        has_alpha=file is not None and file.has_alpha,
        gsd_m=scene.gsd_m,
        valid_share=tried_valid / max(tried_px, 1),
        label=None if reader is None else label.finish(reader),
        label_error=error,
        label_values=_values_of(scene.label) if error else (),
        **pixels.finish(),
    )


def _strips(whole: Window) -> Iterator[Window]:
    rows = max(1, _STRIP_PX // whole.width)
    # Whole blocks of a tiled file, so that none is decoded twice.
    return whole.strips(rows // 256 * 256 or rows)


def _windows(whole: Window) -> Iterator[Window]:
    """Windows in an order whose every beginning is spread evenly (by the golden ratio)."""
    shape = (whole.height // _WINDOW_PX or 1, whole.width // _WINDOW_PX or 1)
    cells = np.argsort((np.arange(shape[0] * shape[1]) * 0.6180339887498949) % 1)
    for cell in cells[:_TRIES]:
        row, col = divmod(int(cell), shape[1])
        window = Window(row * _WINDOW_PX, col * _WINDOW_PX, _WINDOW_PX, _WINDOW_PX)
        cut = window.intersection(whole)
        assert cut is not None
        yield cut


class _LabelSums:
    """What is counted of a label."""

    def __init__(self, classes: int, building_class: int, whole: Window, *, strips: bool) -> None:
        self._class_px = np.zeros(classes, dtype=np.int64)
        self._building_class = building_class
        self._whole = whole
        self._buildings = BuildingCounter(strips=strips)
        self._image_px = self._known_px = 0

    def feed(self, mask: Mask, valid: NDArray[np.bool_] | None, window: Window) -> None:
        """What is under `window`; `valid` (y, x) is the image's, None where it is all valid."""
        known = mask.valid if valid is None else mask.valid & valid
        known_px = int(np.count_nonzero(known))
        self._image_px += known.size if valid is None else int(np.count_nonzero(valid))
        self._known_px += known_px
        building = mask.data == self._building_class
        if known_px < known.size:
            building &= known
        if len(self._class_px) == 2:
            px = int(np.count_nonzero(building))
            self._class_px[self._building_class] += px
            self._class_px[1 - self._building_class] += known_px - px
        else:
            among = None if known_px == known.size else known.view(np.uint8)
            bins = [len(self._class_px)]
            counts = cv2.calcHist([mask.data], [0], among, bins, [0, bins[0]])
            self._class_px += np.asarray(counts).ravel().astype(np.int64)
        edges = (
            window.row == 0,
            window.row_stop == self._whole.height,
            window.col == 0,
            window.col_stop == self._whole.width,
        )
        self._buildings.feed(building.view(np.uint8), edges)

    def finish(self, label: LabelReader) -> LabelFacts:
        found = self._buildings.finish()
        return LabelFacts(
            class_px=tuple(self._class_px.tolist()),
            buildings_px=found.areas_px,
            cut=found.cut,
            specks=found.specks,
            holes=found.holes,
            vanished=count_vanished(label),
            unknown_share=1 - self._known_px / self._image_px if self._image_px else 0.0,
        )


def _file_of(source: RasterSource) -> RasterFile | None:
    """The file that the pixels come from, if it is one."""
    while isinstance(source, PlacedSource | WindowSource):
        source = source.source
    return source if isinstance(source, RasterFile) else None


def _values_of(label: LabelReader | None) -> tuple[tuple[str, int], ...]:
    """What a mask holds whose values are no classes; nothing where it cannot be read at all."""
    while isinstance(label, WindowLabel):
        label = label.label
    if not isinstance(label, LabelFile):
        return ()
    try:
        file = open_raster(label.path)
        data = file.read(next(_strips(Window.whole(file.grid.shape)))).data
    except RooftraceError:
        return ()
    coloured = len(data) >= 3 and data.dtype == np.uint8
    values = data[0].astype(np.int64)
    if coloured:
        values = (values << 16) | (data[1].astype(np.int64) << 8) | data[2]
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN_VALUES]
    names = (f"#{found[i]:06X}" if coloured else f"{found[i]:g}" for i in order)
    return tuple(zip(names, counts[order].tolist()))
