"""Scenes cut into chips, on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rooftrace.core.types import Scene, Window
from rooftrace.data.source import Entry, SceneSet
from rooftrace.io.placed import WindowLabel, WindowSource

__all__ = ["chipped"]


@dataclass(frozen=True)
class _OpenChip:
    """From an entry whose key is (entry of the scene, window) to the chip."""

    open_scene: Callable[[Entry], Scene]

    def __call__(self, entry: Entry) -> Scene:
        parent, window = entry.key
        scene = self.open_scene(parent)
        label = None if scene.label is None else WindowLabel(scene.label, window)
        return replace(scene, id=entry.id, image=WindowSource(scene.image, window), label=label)


def chipped(source: SceneSet, chip_px: int) -> SceneSet:
    """Every scene as squares of `chip_px`, side by side; those at the right and lower edge are cut.

    The chips of a scene are of its group; where it has none, the scene is their group, so that a
    split by group keeps it in one piece. Headers of the images are read, and no pixels.

    A scene that is no larger than a chip stays as it is.
    """

    def cut(entry: Entry) -> list[Entry]:
        height, width = source.open_scene(entry).image.grid.shape
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
