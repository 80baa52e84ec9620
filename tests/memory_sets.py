"""Sets of scenes in memory, for tests."""

from dataclasses import dataclass

import numpy as np

from rooftrace.core.types import GeoGrid, Mask, Scene, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.source import SceneEntry, SceneSet


@dataclass(frozen=True)
class ArrayLabel:
    """A label in memory."""

    data: np.ndarray
    valid: np.ndarray | None = None
    """Pixels whose class is known; None for all."""
    grid: GeoGrid | None = None

    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(self.data.shape)
        part = window.slices()
        valid = np.ones_like(self.data[part], bool) if self.valid is None else self.valid[part]
        return Mask(self.data[part], valid, (self.grid or GeoGrid(self.data.shape)).crop(window))


def set_of(*scenes: Scene, classes: int = 2) -> SceneSet:
    by_id = {scene.id: scene for scene in scenes}
    return SceneSet(
        name="made",
        kind="memory",
        classes=tuple(f"c{number}" for number in range(classes)),
        building_class=1,
        entries=tuple(SceneEntry(scene.id, None) for scene in scenes),
        open_scene=lambda entry: by_id[entry.id],
    )


def scene_of(
    scene_id: str, label: np.ndarray, known: np.ndarray | None = None,
    valid: np.ndarray | None = None, gsd_m: float | None = None,
) -> Scene:  # fmt: skip
    """An image whose valid pixels are `valid`, with a label that knows `known`."""
    everywhere = np.ones(label.shape, bool)
    image = ArraySource(
        np.zeros((1, *label.shape), np.uint8),
        valid=everywhere if valid is None else valid,
        name=scene_id,
    )
    return Scene(scene_id, image, ArrayLabel(label, known), "",
                 gsd_m)  # fmt: skip
