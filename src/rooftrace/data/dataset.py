"""Samples for training, drawn at random but the same for a seed on any number of workers; and
tiles for validation, laid out once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BandMismatch, DataError, GeoreferenceError
from rooftrace.core.types import Raster, Sample, Scene, Window
from rooftrace.data.augment import AugmentConfig, change_colours, crop_transform, warp
from rooftrace.data.source import SceneSet

__all__ = ["EvalTiles", "SceneCache", "TrainSamples", "full_scale_of", "model_scale"]

_TRIES = 12
"""How often another place is tried before a sample with little in it is taken."""

_ENOUGH_VALID = 0.3
"""Share of valid pixels with which a sample is worth its time."""

_DTYPES = ("uint8", "uint16", "float32")
"""What a bundle may say of its pixels."""


def full_scale_of(dtype: np.dtype[Any]) -> float:
    """The largest pixel value that a dtype is used for: 255, 65535, or 1 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def model_scale(scene: Scene, gsd_m: float | None) -> float:
    """Scene pixels per model pixel; 1 where the model knows no metres.

    Raises:
        GeoreferenceError: metres are needed and the scene has none.
    """
    if gsd_m is None:
        return 1.0
    if scene.gsd_m is None:
        raise GeoreferenceError(
            f"The metres per pixel of {scene.image.name} are needed, and it has no CRS.",
            remedy="Give gsd_m for its folder, or leave out data.gsd_m to train without metres.",
        )
    return gsd_m / scene.gsd_m


class SceneCache:
    """Scenes with their pixels, decoded once and kept while they fit in `limit_bytes`.

    A scene that is larger than an eighth of the limit is read by window each time.
    """

    def __init__(self, scenes: Sequence[Scene], limit_bytes: int) -> None:
        self.scenes = tuple(scenes)
        self._limit = limit_bytes
        self._bytes = 0
        self._kept: OrderedDict[int, Sample] = OrderedDict()

    def __len__(self) -> int:
        return len(self.scenes)

    def read(self, index: int, window: Window) -> Sample:
        """The part of a scene inside `window`, which must lie in it."""
        scene = self.scenes[index]
        height, width = scene.image.grid.shape
        size = height * width * (scene.image.bands * scene.image.dtype.itemsize + 2)
        if size > self._limit // 8:
            return _read(scene, window)
        sample = self._kept.get(index)
        if sample is None:
            sample = _read(scene, Window.whole((height, width)))
            self._kept[index] = sample
            self._bytes += size
            while self._bytes > self._limit and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.image.nbytes + 2 * dropped.valid.size
        else:
            self._kept.move_to_end(index)
        rows, cols = window.slices()
        return Sample(
            sample.image[:, rows, cols], sample.target[rows, cols], sample.valid[rows, cols]
        )


def _read(scene: Scene, window: Window) -> Sample:
    raster: Raster = scene.image.read(window)
    pixels, valid = raster.data, raster.valid
    if pixels.dtype.kind == "f":
        # What is no number would spread to its neighbours when pixels are interpolated.
        valid = valid & np.isfinite(pixels).all(axis=0)
        pixels = np.where(valid, pixels, pixels.dtype.type(0))
    if scene.label is None:
        return Sample(pixels, np.zeros(window.shape_yx, np.uint8), valid)
    mask = scene.label.read(window)
    return Sample(pixels, mask.data, valid & mask.valid)


@dataclass(frozen=True)
class _Pool:
    """Scenes of one folder with how likely each is to be drawn."""

    first: int
    weights: NDArray[np.float64]


class TrainSamples:
    """Random crops. Item `i` of epoch `e` is a function of (seed, e, i) alone.

    Args:
        sources: folders; each is drawn from by its share (default: its share of the ground, or of
            the pixels where metres are not known), a scene of it by its area.
        crop_px: side of a sample.
        gsd_m: metres per pixel of the model, or None.
        samples: how many make an epoch.
        cache_bytes: see `SceneCache`.
    """

    def __init__(
        self,
        sources: Sequence[SceneSet],
        *,
        crop_px: int,
        gsd_m: float | None,
        augment: AugmentConfig,
        samples: int,
        seed: int,
        cache_bytes: int,
    ) -> None:
        scenes = [scene for source in sources for scene in source]
        if not scenes:
            raise DataError(
                "There is nothing to train on: no folder has a scene in the training part.",
                remedy="Look at the split, the globs and the parts of the configuration.",
            )
        check_alike(scenes)
        _check_dtype(scenes[0])
        if augment.gsd_range_m is not None:
            for scene in scenes:
                model_scale(scene, 1.0)
        self._cache = SceneCache(scenes, cache_bytes)
        self._crop_px, self._gsd_m, self._augment = crop_px, gsd_m, augment
        self._samples, self._seed, self.epoch = samples, seed, 0
        self._pools, shares = [], []
        first = 0
        for source in sources:
            areas = np.array([_ground(s) for s in scenes[first : first + len(source)]])
            if len(source):
                self._pools.append(_Pool(first, areas / areas.sum()))
                shares.append(source.share)
            first += len(source)
        self._shares = _shares(shares, [_ground_of(scenes, pool) for pool in self._pools])

    @property
    def bands(self) -> int:
        return self._cache.scenes[0].image.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._cache.scenes[0].image.dtype

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> Sample:
        """Image (band, y, x) float32 in pixel values, target and validity (y, x)."""
        rng = np.random.default_rng((self._seed, self.epoch, index))
        best: Sample | None = None
        for _ in range(_TRIES):
            candidate = self._draw(rng)
            if best is None or candidate.valid.mean() > best.valid.mean():
                best = candidate
            if best.valid.mean() >= _ENOUGH_VALID:
                break
        assert best is not None
        pixels = change_colours(best.image, full_scale_of(self.dtype), self._augment, rng)
        pixels *= best.valid
        return Sample(pixels, best.target, best.valid)

    def _draw(self, rng: np.random.Generator) -> Sample:
        pool = self._pools[rng.choice(len(self._pools), p=self._shares)]
        index = pool.first + int(rng.choice(len(pool.weights), p=pool.weights))
        scene = self._cache.scenes[index]
        scale = self._scale(scene, rng)
        height, width = scene.image.grid.shape
        centre = self._centre(index, (height, width), scale, rng)
        # From the corner of the first pixel to its centre.
        middle = centre[0] - 0.5, centre[1] - 0.5
        to_scene = crop_transform(middle, scale, self._crop_px, self._augment, rng)
        # A rotated square reaches half its diagonal from its centre.
        reach = math.ceil(self._crop_px * scale * math.sqrt(0.5)) + 2
        row, col = int(centre[0]) - reach, int(centre[1]) - reach
        window = Window(row, col, 2 * reach, 2 * reach).intersection(Window(0, 0, height, width))
        assert window is not None
        to_window = to_scene.copy()
        to_window[:, 2] -= window.col, window.row
        return warp(self._cache.read(index, window), to_window, self._crop_px)

    def _scale(self, scene: Scene, rng: np.random.Generator) -> float:
        limits = self._augment.gsd_range_m
        if limits is not None:
            return model_scale(scene, float(np.exp(rng.uniform(*np.log(limits)))))
        scale = model_scale(scene, self._gsd_m)
        if self._augment.scale_range is not None:
            scale *= float(np.exp(rng.uniform(*np.log(self._augment.scale_range))))
        return scale

    def _centre(
        self, index: int, shape_yx: tuple[int, int], scale: float, rng: np.random.Generator
    ) -> tuple[float, float]:
        """What comes to the middle, counted from the corner of the scene."""
        # Where a scene is large enough the crop stays inside; where not, all of it is seen.
        margins = [min(self._crop_px * scale, side) / 2 for side in shape_yx]
        row, col = (
            rng.uniform(m, side - m) if side > 2 * m else side / 2
            for m, side in zip(margins, shape_yx)
        )
        if self._augment.prefer_buildings and rng.random() < self._augment.prefer_buildings:
            reach = math.ceil(self._crop_px * scale / 2)
            around = Window(int(row) - reach, int(col) - reach, 2 * reach, 2 * reach)
            window = around.intersection(Window.whole(shape_yx))
            assert window is not None
            found = np.flatnonzero(self._cache.read(index, window).target)
            if len(found):
                chosen = int(found[rng.integers(len(found))])
                row = window.row + chosen // window.width + 0.5
                col = window.col + chosen % window.width + 0.5
        return float(row), float(col)


class EvalTiles:
    """Scenes at the model's scale, cut side by side into squares; deterministic, unchanged.

    Args:
        source: one folder.
        crop_px: side of a tile; what reaches beyond a scene is invalid.
        limit: at most so many tiles, spread evenly over all.
    """

    def __init__(
        self,
        source: SceneSet,
        *,
        crop_px: int,
        gsd_m: float | None,
        cache_bytes: int,
        limit: int | None = None,
    ) -> None:
        scenes = list(source)
        check_alike(scenes)
        self.name = source.name
        self._cache = SceneCache(scenes, cache_bytes)
        self._crop_px = crop_px
        self._tiles: list[tuple[int, float, int, int]] = []
        for index, scene in enumerate(scenes):
            scale = model_scale(scene, gsd_m)
            rows, cols = (
                math.ceil(side / scale / crop_px - 1e-9) for side in scene.image.grid.shape
            )
            self._tiles += [(index, scale, r, c) for r in range(rows) for c in range(cols)]
        if limit is not None and len(self._tiles) > limit:
            chosen = np.linspace(0, len(self._tiles) - 1, limit).round().astype(int)
            self._tiles = [self._tiles[i] for i in chosen]

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, number: int) -> Sample:
        """Image (band, y, x) float32 in pixel values, target and validity (y, x)."""
        index, scale, row, col = self._tiles[number]
        size = self._crop_px * scale
        shape = self._cache.scenes[index].image.grid.shape
        margin = math.ceil(scale) + 1
        top, left = int(row * size) - margin, int(col * size) - margin
        side = math.ceil(size) + 2 * margin + 1
        window = Window(top, left, side, side).intersection(Window.whole(shape))
        assert window is not None
        # Centre of the tile's first pixel, half a model pixel inside its corner.
        offset = np.array([col * size - window.col, row * size - window.row]) + (scale - 1) / 2
        to_window = np.column_stack([np.eye(2) * scale, offset])
        sample = warp(self._cache.read(index, window), to_window, self._crop_px)
        return Sample(sample.image.astype(np.float32), sample.target, sample.valid)


def check_alike(scenes: Sequence[Scene]) -> None:
    """Raises BandMismatch where the images differ in bands or dtype; names the first that does."""
    first = scenes[0].image
    for scene in scenes[1:]:
        image = scene.image
        if (image.bands, image.dtype) != (first.bands, first.dtype):
            raise BandMismatch(
                f"{image.name} has {image.bands} bands of {image.dtype}, "
                f"but {first.name} has {first.bands} of {first.dtype}.",
                remedy="All images that one model is trained on must have the same bands.",
            )


def _check_dtype(scene: Scene) -> None:
    if scene.image.dtype.name not in _DTYPES:
        raise DataError(
            f"{scene.image.name} has pixels of {scene.image.dtype}; expected uint8, uint16 or "
            "float32, which models are made for.",
            remedy="Convert the images, for example with gdal_translate -ot Float32.",
        )


def _ground(scene: Scene) -> float:
    height, width = scene.image.grid.shape
    return height * width * (scene.gsd_m or 1.0) ** 2


def _ground_of(scenes: Sequence[Scene], pool: _Pool) -> float:
    return sum(_ground(s) for s in scenes[pool.first : pool.first + len(pool.weights)])


def _shares(given: Sequence[float | None], grounds: Sequence[float]) -> NDArray[np.float64]:
    if any(share is not None for share in given) and any(share is None for share in given):
        raise DataError(
            "Some training folders have a share and some have none.",
            remedy="Give a share to all of them, or to none.",
        )
    weights = np.array([g if s is None else s for s, g in zip(given, grounds)], dtype=float)
    return np.asarray(weights / weights.sum(), dtype=np.float64)
