"""Samples for training, drawn at random but the same for a seed on any number of workers; and
tiles for validation, laid out once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawValue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import nearest
from rooftrace.core.errors import BandMismatch, ConfigError, DataError, GeoreferenceError
from rooftrace.core.types import Sample, Scene, Window
from rooftrace.data.augment import (
    AugmentConfig,
    change_colours,
    crop_transform,
    warp,
    window_under,
)
from rooftrace.data.augment.config import chance
from rooftrace.data.augment.geometry import log_uniform
from rooftrace.data.cache import SceneCache
from rooftrace.data.sampling import Balance, Draw, make_sampler
from rooftrace.data.separation import building_instances
from rooftrace.data.source import SceneSet

__all__ = ["EvalTiles", "TrainSamples", "check_alike", "full_scale_of", "model_scale"]

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


class TrainSamples:
    """Random crops. Item `i` of epoch `e` is a function of (seed, e, i) alone.

    Args:
        sources: sets with the same classes; what is drawn from them: see `make_sampler`.
        crop_px: side of a sample.
        gsd_m: metres per pixel of the model, or None.
        samples: how many make an epoch; default the pixels of all scenes over those of a crop.
        at_least: and not fewer.
        cache_bytes: see `SceneCache`.
        balance: what is drawn alike.
        full_scale: the brightest pixel value; default `full_scale_of` the dtype.
        instances: samples say which building a pixel belongs to, see `building_instances`.

    Raises:
        DataError: nothing to train on; a dtype that no model is made for; shares of some sets only.
        BandMismatch: images with other bands or another dtype than the first.
        GeoreferenceError: metres are needed, and a scene has none.
        ConfigError: `prefer_classes` names what is no class.
    """

    def __init__(
        self,
        sources: Sequence[SceneSet],
        *,
        crop_px: int,
        gsd_m: float | None,
        augment: AugmentConfig,
        samples: int | None,
        seed: int,
        cache_bytes: int,
        at_least: int = 1,
        balance: Balance = "area",
        full_scale: float | None = None,
        instances: bool = False,
    ) -> None:
        scenes = [scene for source in sources for scene in source]
        if not scenes:
            raise DataError(
                "There is nothing to train on: no folder has a scene in the training part.",
                remedy="Look at the split, the globs and the parts of the configuration.",
            )
        check_alike(scenes)
        _check_dtype(scenes[0])
        # Before the first sample, and for every scene.
        for scene in scenes:
            model_scale(scene, gsd_m if augment.gsd_range_m is None else 1.0)
        self._cache = SceneCache(scenes, cache_bytes, instances=instances)
        self._instances_of = sources[0].building_class if instances else None
        self._crop_px, self._gsd_m, self._augment = crop_px, gsd_m, augment
        self._preferred = _preferred(sources[0], augment)
        self._sampler = make_sampler(sources, scenes, balance)
        pixels = sum(scene.image.grid.height * scene.image.grid.width for scene in scenes)
        self._samples = max(at_least, pixels // crop_px**2 if samples is None else samples)
        self._seed, self._epoch = seed, RawValue(c_longlong, 0)
        self.full_scale = full_scale_of(self.dtype) if full_scale is None else full_scale

    @property
    def scenes(self) -> tuple[Scene, ...]:
        return self._cache.scenes

    @property
    def bands(self) -> int:
        return self.scenes[0].image.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.scenes[0].image.dtype

    def __len__(self) -> int:
        return self._samples

    @property
    def epoch(self) -> int:
        """Which samples are drawn; worker processes that were started before see it change."""
        return int(self._epoch.value)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.value = epoch

    def load(self) -> None:
        """Decode what the cache holds, so that worker processes have it in common."""
        self._cache.fill()

    def unchanged(self, samples: int) -> TrainSamples:
        """The first `samples` of the first epoch, at the model's scale and as they are."""
        plain = copy.copy(self)
        plain._augment, plain._samples = AugmentConfig(), samples
        plain._epoch = RawValue(c_longlong, 0)
        return plain

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
        pixels = change_colours(best.image, best.valid, self.full_scale, self._augment, rng)
        return Sample(pixels, best.target, best.valid, _instances(best, self._instances_of))

    def _draw(self, rng: np.random.Generator) -> Sample:
        draw = self._sampler.draw(rng)
        scene = self.scenes[draw.scene]
        scale = self._scale(scene, rng)
        row, col = self._centre(draw, scale, rng)
        # From the corner of the first pixel to its centre.
        to_scene = crop_transform((row - 0.5, col - 0.5), scale, self._crop_px, self._augment, rng)
        window = window_under(to_scene, self._crop_px).intersection(
            Window.whole(scene.image.grid.shape)
        )
        assert window is not None  # the centre lies in the scene
        to_window = to_scene.copy()
        to_window[:, 2] -= window.col, window.row
        return warp(self._cache.read(draw.scene, window), to_window, self._crop_px)

    def _scale(self, scene: Scene, rng: np.random.Generator) -> float:
        augment = self._augment
        limits = augment.gsd_range_m or augment.scale_range
        if limits is None or not chance(rng, augment.scale_p):
            return model_scale(scene, self._gsd_m)
        drawn = log_uniform(rng, *limits)
        if augment.gsd_range_m is not None:
            return model_scale(scene, drawn)
        return model_scale(scene, self._gsd_m) * drawn

    def _centre(self, draw: Draw, scale: float, rng: np.random.Generator) -> tuple[float, float]:
        """What comes to the middle, counted from the corner of the scene."""
        shape_yx = self.scenes[draw.scene].image.grid.shape
        if draw.block is not None and draw.class_index is not None:
            found = self._on_class(draw.scene, draw.block, [draw.class_index], rng)
            # Where a label has changed since it was counted, the block must do.
            return found or _anywhere(draw, shape_yx, self._crop_px * scale, rng)
        centre = _anywhere(draw, shape_yx, self._crop_px * scale, rng)
        if not chance(rng, self._augment.prefer_buildings):
            return centre
        reach = math.ceil(self._crop_px * scale / 2)
        place = centre
        for _ in range(_TRIES):
            around = Window(int(place[0]) - reach, int(place[1]) - reach, 2 * reach, 2 * reach)
            window = around.intersection(Window.whole(shape_yx))
            assert window is not None
            wanted = rng.permutation(self._preferred).tolist()
            if found := self._on_class(draw.scene, window, wanted, rng):
                return found
            if window == Window.whole(shape_yx):
                break
            place = _anywhere(draw, shape_yx, self._crop_px * scale, rng)
        return centre

    def _on_class(
        self, scene: int, window: Window, wanted: Sequence[int], rng: np.random.Generator
    ) -> tuple[float, float] | None:
        """The middle of a pixel in the window, of the first of the classes that it has."""
        for class_index in wanted:
            found = self._cache.find(scene, window, class_index)
            if len(found):
                chosen = int(found[rng.integers(len(found))])
                row, col = divmod(chosen, window.width)
                return window.row + row + 0.5, window.col + col + 0.5
        return None


class EvalTiles:
    """Scenes at the model's scale, cut side by side into squares; deterministic, unchanged.

    Args:
        source: one set.
        crop_px: side of a tile; what reaches beyond a scene is invalid.
        limit: at most so many tiles, spread evenly over all.
        instances: as for `TrainSamples`.

    Raises:
        DataError: the set has no labelled scene.
        BandMismatch, GeoreferenceError: as for `TrainSamples`.
    """

    def __init__(
        self,
        source: SceneSet,
        *,
        crop_px: int,
        gsd_m: float | None,
        cache_bytes: int,
        limit: int | None = None,
        instances: bool = False,
    ) -> None:
        scenes = list(source)
        if not scenes:
            raise DataError(
                f"There is nothing to validate on in {source.name}: it has no labelled image.",
                remedy="Name a folder with masks, or correct the globs and parts.",
            )
        check_alike(scenes)
        self.name = source.name
        self._cache = SceneCache(scenes, cache_bytes, instances=instances)
        self._instances_of = source.building_class if instances else None
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

    @property
    def scenes(self) -> tuple[Scene, ...]:
        return self._cache.scenes

    def __len__(self) -> int:
        return len(self._tiles)

    def scene_of(self, number: int) -> int:
        """Which of `scenes` a tile was cut from."""
        return self._tiles[number][0]

    def load(self) -> None:
        """As `TrainSamples.load`."""
        self._cache.fill()

    def __getitem__(self, number: int) -> Sample:
        """Image (band, y, x) float32 in pixel values, target and validity (y, x)."""
        index, scale, row, col = self._tiles[number]
        # Centre of the tile's first pixel, half a model pixel inside its corner.
        offset = np.array([col, row]) * self._crop_px * scale + (scale - 1) / 2
        to_scene = np.column_stack([np.eye(2) * scale, offset])
        window = window_under(to_scene, self._crop_px).intersection(
            Window.whole(self.scenes[index].image.grid.shape)
        )
        assert window is not None
        to_window = to_scene.copy()
        to_window[:, 2] -= window.col, window.row
        sample = warp(self._cache.read(index, window), to_window, self._crop_px)
        ids = _instances(sample, self._instances_of)
        return Sample(sample.image.astype(np.float32), sample.target, sample.valid, ids)


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


def _instances(sample: Sample, building_class: int | None) -> NDArray[np.int32] | None:
    if building_class is None:
        return None
    is_building = (sample.target == building_class) & sample.valid
    return building_instances(is_building, sample.instances)


def _preferred(source: SceneSet, augment: AugmentConfig) -> list[int]:
    """The classes that `prefer_buildings` looks for."""
    for name in augment.prefer_classes:
        if name not in source.classes:
            raise ConfigError(
                f"augment.prefer_classes names {name!r}, which is not a class of "
                f"{list(source.classes)}. {nearest(name, source.classes)}".strip(),
                remedy="Name classes of [data.labels].",
            )
    return [source.classes.index(name) for name in augment.prefer_classes] or [
        source.building_class
    ]


def _anywhere(
    draw: Draw, shape_yx: tuple[int, int], side: float, rng: np.random.Generator
) -> tuple[float, float]:
    """A place in the drawn block; where a scene is large enough the crop stays inside, and where
    it is not, all of the scene is seen.

    Args:
        side: of the crop, in pixels of the scene.
    """
    block = draw.block or Window.whole(shape_yx)
    margins = [min(side, length) / 2 for length in shape_yx]
    spans = ((block.row, block.row_stop), (block.col, block.col_stop))
    row, col = (
        rng.uniform(*np.clip(span, margin, length - margin))
        for span, margin, length in zip(spans, margins, shape_yx)
    )
    return float(row), float(col)
