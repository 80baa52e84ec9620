"""Scenes cut into chips, on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rooftrace.core.types import Scene, Window
from rooftrace.data.source import Entry, SceneSet
from rooftrace.io.placed import WindowLabel, WindowSource

__all__ = ["chipped"]


class _OpenChip:
    """From an entry whose key is (entry of the scene, window) to the chip; window None is all.

    The last scene is kept, so that what it takes to draw its labels is made once for its chips.
    """

    def __init__(self, open_scene: Callable[[Entry], Scene]) -> None:
        self._open_scene = open_scene
        self._last: tuple[Entry, Scene] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_open_scene": self._open_scene, "_last": None}

    def __call__(self, entry: Entry) -> Scene:
        parent, window = entry.key
        if window is None:
            return replace(self._open_scene(parent), group=entry.group)
        if self._last is None or self._last[0] is not parent:
            self._last = (parent, self._open_scene(parent))
        scene = self._last[1]
        label = None if scene.label is None else WindowLabel(scene.label, window)
        image = WindowSource(scene.image, window)
        return replace(scene, id=entry.id, image=image, label=label, group=entry.group)


def chipped(source: SceneSet, chip_px: int) -> SceneSet:
    """Every scene as squares of `chip_px`, side by side; those at the right and lower edge are cut.

    The chips of a scene are of its group; where it has none, the scene is their group, so that a
    split by group keeps it in one piece. Headers of the images are read, and no pixels.

    A scene that is no larger than a chip keeps its id and its file.
    """

    def cut(entry: Entry) -> list[Entry]:
        height, width = source.open_scene(entry).image.grid.shape
        if max(height, width) <= chip_px:
            return [replace(entry, group=entry.group or entry.id, key=(entry, None))]
        whole = Window.whole((height, width))
        windows = [
            Window(row, col, chip_px, chip_px).intersection(whole)
            for row in range(0, height, chip_px)
            for col in range(0, width, chip_px)
        ]
        return [
            Entry(f"{entry.id}@{w.row}_{w.col}", None, entry.group or entry.id, (entry, w))
            for w in windows
            if w is not None
        ]

    return replace(
        source,
        entries=tuple(chip for entry in source.entries for chip in cut(entry)),
        unlabelled=tuple(chip for entry in source.unlabelled for chip in cut(entry)),
        open_scene=_OpenChip(source.open_scene),
    )
