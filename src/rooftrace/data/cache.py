"""Scenes with their pixels, in memory while they fit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Raster, RasterSource, Sample, Scene, Window
from rooftrace.data.separation import told_instances

__all__ = ["SceneCache"]


class SceneCache:
    """Scenes, decoded once and kept while they fit in `limit_bytes`; for any number of threads.

    A scene that is larger than an eighth of the limit is read by window each time, and never whole.

    Args:
        instances: samples also say which object a pixel belongs to, where the label tells.
    """

    def __init__(
        self, scenes: Sequence[Scene], limit_bytes: int, *, instances: bool = False
    ) -> None:
        self.scenes = tuple(scenes)
        self._instances = instances
        self._limit = limit_bytes
        self._bytes = 0
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._filled = False
        # An open file is no more for two threads at once than the order of what is kept.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Without pixels: another process decodes faster than it is sent them."""
        state = {**self.__dict__, "_bytes": 0, "_kept": OrderedDict(), "_filled": False}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def nbytes(self) -> int:
        """What the scenes that are kept take up."""
        return self._bytes

    def fill(self) -> None:
        """Decode as many scenes as fit, once and for all; the others are read by window then.

        Processes that are forked after this have these scenes in common, and take no memory more.
        """
        for index in range(len(self.scenes)):
            if not self._is_large(index) and self._bytes + self._size(index) <= self._limit:
                self._whole(index)
        self._filled = True

    def read(self, index: int, window: Window) -> Sample:
        """The part of a scene inside `window`, which must lie in it."""
        with self._lock:
            if self._by_window(index):
                return _read(self.scenes[index], window, self._instances)
            sample = self._whole(index)
        rows, cols = window.slices()
        return Sample(
            sample.image[:, rows, cols],
            sample.target[rows, cols],
            sample.valid[rows, cols],
            None if sample.instances is None else sample.instances[rows, cols],
        )

    def find(self, index: int, window: Window, class_index: int) -> NDArray[np.intp]:
        """Where inside `window` the valid pixels of a class are.

        Returns:
            (n,) positions, counted along the rows of the window.
        """
        with self._lock:
            if self._by_window(index):
                return _find_by_window(self.scenes[index], window, class_index)
            sample = self._whole(index)
        rows, cols = window.slices()
        return np.flatnonzero((sample.target[rows, cols] == class_index) & sample.valid[rows, cols])

    def _by_window(self, index: int) -> bool:
        return self._is_large(index) or (self._filled and index not in self._kept)

    def _is_large(self, index: int) -> bool:
        return self._size(index) > self._limit // 8

    def _size(self, index: int) -> int:
        image = self.scenes[index].image
        bytes_per_px = _pixel_bytes(image) + (4 if self._instances else 0)
        return image.grid.height * image.grid.width * bytes_per_px

    def _whole(self, index: int) -> Sample:
        sample = self._kept.get(index)
        if sample is not None:
            self._kept.move_to_end(index)
            return sample
        scene = self.scenes[index]
        sample = _read(scene, Window.whole(scene.image.grid.shape), self._instances)
        self._kept[index] = sample
        self._bytes += _nbytes(sample)
        while self._bytes > self._limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _nbytes(dropped)
        return sample


def _find_by_window(scene: Scene, window: Window, class_index: int) -> NDArray[np.intp]:
    if scene.label is None:
        return np.empty(0, dtype=np.intp)
    mask = scene.label.read(window)
    found = (mask.data == class_index) & mask.valid
    # The image is the larger part, and most windows have nothing of a rare class.
    if found.any():
        found &= _valid(scene.image.read(window))
    return np.flatnonzero(found)


def _pixel_bytes(image: RasterSource) -> int:
    """Of one pixel of a `Sample`: its bands, its target and its validity."""
    return int(image.bands * image.dtype.itemsize + 2)


def _nbytes(sample: Sample) -> int:
    instances = 0 if sample.instances is None else sample.instances.nbytes
    return int(sample.image.nbytes + sample.target.nbytes + sample.valid.nbytes + instances)


def _read(scene: Scene, window: Window, instances: bool) -> Sample:
    raster = scene.image.read(window)
    pixels, valid = raster.data, _valid(raster)
    if pixels.dtype.kind == "f":
        # What is no number would spread to its neighbours when pixels are interpolated.
        pixels = np.where(valid, pixels, pixels.dtype.type(0))
    elif pixels.base is not None:
        # A view keeps all that it is a part of, such as the band of alpha.
        pixels = pixels.copy()
    if scene.label is None:
        return Sample(pixels, np.zeros(window.shape_yx, np.uint8), valid)
    mask = scene.label.read(window)
    ids = told_instances(scene.label, window) if instances else None
    return Sample(pixels, mask.data, valid & mask.valid, ids)


def _valid(raster: Raster) -> NDArray[np.bool_]:
    valid = raster.valid
    if raster.data.dtype.kind == "f":
        valid = valid & np.isfinite(raster.data).all(axis=0)
    return valid
