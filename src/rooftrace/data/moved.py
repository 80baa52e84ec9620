"""Labels that lie off their images, moved to where they belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import (
    GeoGrid,
    InstanceReader,
    LabelReader,
    Mask,
    OutlineReader,
    Scene,
    Window,
)
from rooftrace.data.source import Entry, SceneSet

__all__ = ["MovedLabel", "moved"]


class MovedLabel:
    """A `LabelReader` that shows another one moved by whole pixels.

    Args:
        label: of a scene.
        grid: of the scene's image.
        rows, cols: how far down and to the right; negative is up and to the left. What comes in
            from beyond the image is not known.
    """

    def __init__(self, label: LabelReader, grid: GeoGrid, rows: int, cols: int) -> None:
        self._label = label
        self._grid = grid
        self._rows, self._cols = rows, cols

    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(self._grid.shape)
        data = np.zeros(window.shape_yx, dtype=np.uint8)
        valid = np.zeros(window.shape_yx, dtype=bool)
        wanted, there = self._before(window)
        if there is not None:
            mask = self._label.read(there)
            into = there.slices(wanted)
            data[into], valid[into] = mask.data, mask.valid
        return Mask(data, valid, self._grid.crop(window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """As moved; None where the label does not tell them apart."""
        window = window or Window.whole(self._grid.shape)
        if not isinstance(self._label, InstanceReader):
            return None
        moved_ids = np.zeros(window.shape_yx, dtype=np.int32)
        wanted, there = self._before(window)
        if there is not None:
            ids = self._label.read_instances(there)
            if ids is None:
                return None
            moved_ids[there.slices(wanted)] = ids
        return moved_ids

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
        """As moved; None where the label has none."""
        label = self._label
        found = label.read_outlines() if isinstance(label, OutlineReader) else None
        if found is None:
            return None
        shift = np.array([self._cols, self._rows])
        return np.asarray(shapely.transform(found[0], lambda xy: xy + shift), np.object_), found[1]

    def _before(self, window: Window) -> tuple[Window, Window | None]:
        """Where a window was before the move, and the part of that in the image."""
        wanted = Window(window.row - self._rows, window.col - self._cols, *window.shape_yx)
        return wanted, wanted.intersection(Window.whole(self._grid.shape))


@dataclass(frozen=True)
class _OpenMoved:
    """From an entry to its scene, with the label moved."""

    open_scene: Callable[[Entry], Scene]
    rows: int
    cols: int

    def __call__(self, entry: Entry) -> Scene:
        scene = self.open_scene(entry)
        if scene.label is None:
            return scene
        label = MovedLabel(scene.label, scene.image.grid, self.rows, self.cols)
        return replace(scene, label=label)


def moved(source: SceneSet, shift_yx: tuple[int, int]) -> SceneSet:
    """The set with all labels moved by so many pixels down and to the right."""
    return replace(source, open_scene=_OpenMoved(source.open_scene, *shift_yx))
