"""Images whose place on the ground, or extent, is not what their file says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import (
    GeoGrid,
    InstanceReader,
    LabelReader,
    Mask,
    OutlineReader,
    Raster,
    RasterSource,
    SparseSource,
    Window,
)

__all__ = ["OtherSource", "PlacedSource", "WindowLabel", "WindowSource"]


class OtherSource:
    """What a source that shows the pixels of another takes from it."""

    def __init__(self, source: RasterSource) -> None:
        self.source = source

    @property
    def bands(self) -> int:
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def notes(self) -> tuple[str, ...]:
        """What the other source has to say about how it was read."""
        return tuple(getattr(self.source, "notes", ()))

    def close(self) -> None:
        """Let go of the file, if there is one."""
        close = getattr(self.source, "close", None)
        if close is not None:
            close()


class PlacedSource(OtherSource):
    """A `RasterSource` that takes its grid from elsewhere: a tile's name, a table.

    Args:
        source: gives the pixels.
        place: from the source's own grid to the one that counts, of the same shape; asked when the
            grid is first needed. Picklable, if the source is to be.
    """

    def __init__(self, source: RasterSource, place: Callable[[GeoGrid], GeoGrid]) -> None:
        super().__init__(source)
        self._place = place

    def __repr__(self) -> str:
        return f"PlacedSource({self.source!r})"

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def grid(self) -> GeoGrid:
        return self._place(self.source.grid)

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        grid = self.grid if window is None else self.grid.crop(window)
        return Raster(raster.data, raster.valid, grid)

    def is_empty(self, window: Window) -> bool:
        return isinstance(self.source, SparseSource) and self.source.is_empty(window)


class WindowSource(OtherSource):
    """A `RasterSource` that is one window of another: a chip of a scene.

    Args:
        source: the scene.
        window: inside it.
    """

    def __init__(self, source: RasterSource, window: Window) -> None:
        super().__init__(source)
        self._window = window

    def __repr__(self) -> str:
        return f"WindowSource({self.source!r}, {self._window})"

    @property
    def name(self) -> str:
        return f"{self.source.name} ({self._window})"

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid.crop(self._window)

    def read(self, window: Window | None = None) -> Raster:
        return self.source.read(_shifted(window, self._window))


class WindowLabel:
    """The `LabelReader` that belongs to a `WindowSource`."""

    def __init__(self, label: LabelReader, window: Window) -> None:
        self.label = label
        self.window = window

    def read(self, window: Window | None = None) -> Mask:
        return self.label.read(_shifted(window, self.window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Those of the scene; None where its label does not tell them apart."""
        if not isinstance(self.label, InstanceReader):
            return None
        return self.label.read_instances(_shifted(window, self.window))

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
        """Those of the scene that reach into the window, not cut; None where it has none."""
        found = self.label.read_outlines() if isinstance(self.label, OutlineReader) else None
        if found is None:
            return None
        window, (geometry, classes) = self.window, found
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        inside = shapely.intersects(frame, geometry)
        corner = np.array([window.col, window.row])
        moved = shapely.transform(geometry[inside], lambda xy: xy - corner)
        return np.asarray(moved, np.object_), classes[inside]


def _shifted(window: Window | None, outer: Window) -> Window:
    if window is None:
        return outer
    moved = Window(window.row + outer.row, window.col + outer.col, window.height, window.width)
    if moved.intersection(outer) != moved:
        raise ValueError(f"{window} is not inside a chip of {outer.shape_yx}")
    return moved
