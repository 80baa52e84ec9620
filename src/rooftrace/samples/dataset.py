"""Draw training samples at random, lay out validation tiles, and cache decoded scenes.

Training samples are the same for a seed on any number of workers. Validation tiles are fixed.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawValue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.cache import LruCache
from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import BandMismatch, ConfigError, DataError, GeoreferenceError
from rooftrace.core.scales import WorkingScales
from rooftrace.core.text import plural
from rooftrace.core.types import Raster, Sample, Scene, Window
from rooftrace.io.resample import working_metres
from rooftrace.labels.derived import building_instances, label_instances
from rooftrace.labels.source import SceneSet
from rooftrace.samples.augment import (
    AugmentConfig,
    chance,
    change_colours,
    crop_transform,
    log_uniform,
    warp,
    window_under,
)
from rooftrace.samples.sampling import Balance, Draw, make_sampler


class SceneCache:
    """Thread-safe cache of decoded scenes, which are kept while they fit in `limit_bytes`.

    A scene that is larger than an eighth of the limit is read by window each time, and never whole.
    """

    def __init__(
        self, scenes: Sequence[Scene], limit_bytes: int, *, instances: bool = False
    ) -> None:
        self.scenes = tuple(scenes)
        self._instances = instances
        self._limit = limit_bytes
        self._kept: LruCache[int, Sample] = LruCache(limit_bytes, _nbytes)
        self._filled = False
        # An open file may not be used by two threads at once.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without pixels: another process decodes faster than it receives."""
        state = {**self.__dict__, "_filled": False}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def nbytes(self) -> int:
        """Memory in bytes of the scenes in the cache."""
        return self._kept.size

    def fill(self) -> None:
        """Decode as many scenes as fit, permanently; all others are then read by window.

        Processes that are forked later share these scenes and need no more memory for them.
        """
        for index in range(len(self.scenes)):
            if not self._is_large(index) and self.nbytes + self._size(index) <= self._limit:
                self._whole(index)
        self._filled = True

    def read(self, index: int, window: Window) -> Sample:
        """Return the part of a scene inside `window`, which must lie in the scene."""
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
            None if sample.image_valid is None else sample.image_valid[rows, cols],
        )

    def cut(self, index: int, to_scene: NDArray[np.float64], side_px: int) -> Sample:
        """Return a square of `side_px`, cut out of a scene by the map `to_scene`, see `warp`."""
        whole = Window.whole(self.scenes[index].image.grid.shape)
        window = window_under(to_scene, side_px).intersection(whole)
        assert window is not None
        to_window = to_scene.copy()
        to_window[:, 2] -= window.col, window.row
        return warp(self.read(index, window), to_window, side_px)

    def find(self, index: int, window: Window, class_index: int) -> NDArray[np.intp]:
        """Find the valid pixels of a class inside `window`.

        Returns:
            (n,) positions, counted along the rows of the window.
        """
        label = self.scenes[index].label
        with self._lock:
            if label is not None and self._by_window(index):
                # The image is the larger part, and most windows do not have a rare class.
                seen = label.read(window).data == class_index
                if not seen.any():
                    return np.flatnonzero(seen)
            sample = self.read(index, window)
        return np.flatnonzero((sample.target == class_index) & sample.valid)

    def _by_window(self, index: int) -> bool:
        return self._is_large(index) or (self._filled and index not in self._kept)

    def _is_large(self, index: int) -> bool:
        return self._size(index) > self._limit // 8

    def _size(self, index: int) -> int:
        image = self.scenes[index].image
        bytes_per_px = int(image.bands * image.dtype.itemsize + 2) + (4 if self._instances else 0)
        return image.grid.height * image.grid.width * bytes_per_px

    def _whole(self, index: int) -> Sample:
        scene = self.scenes[index]
        whole = Window.whole(scene.image.grid.shape)
        return self._kept.get_or_make(index, lambda: _read(scene, whole, self._instances))


def _nbytes(sample: Sample) -> int:
    instances = 0 if sample.instances is None else sample.instances.nbytes
    image_valid = 0 if sample.image_valid is None else sample.image_valid.nbytes
    own = sample.image.nbytes + sample.target.nbytes + sample.valid.nbytes
    return int(own + image_valid + instances)


def _read(scene: Scene, window: Window, instances: bool) -> Sample:
    raster = scene.image.read(window)
    pixels, valid = raster.data, _valid(raster)
    if pixels.dtype.kind == "f":
        # NaN and infinity would spread to neighbours when pixels are interpolated.
        pixels = np.where(valid, pixels, pixels.dtype.type(0))
    elif pixels.base is not None:
        # A view would keep the whole array in memory, such as the alpha band.
        pixels = pixels.copy()
    if scene.label is None:
        return Sample(pixels, np.zeros(window.shape_yx, np.uint8), valid)
    mask = scene.label.read(window)
    ids = label_instances(scene.label, window) if instances else None
    # A pixel whose class is not known keeps its colour: painted black, it would show the label.
    image_valid = None if mask.valid[valid].all() else valid
    return Sample(pixels, mask.data, valid & mask.valid, ids, image_valid)


def _valid(raster: Raster) -> NDArray[np.bool_]:
    valid = raster.valid
    if raster.data.dtype.kind == "f":
        valid = valid & np.isfinite(raster.data).all(axis=0)
    return valid


_TRIES = 12
"""Maximum number of places that are tried before a sample with few valid pixels is used."""

_ENOUGH_VALID = 0.3
"""Share of valid pixels from which a sample is used at once."""

_DTYPES = ("uint8", "uint16", "float32")
"""Pixel types that a bundle may have."""


def full_scale_of(dtype: np.dtype[Any]) -> float:
    """Return the largest pixel value of a dtype: 255, 65535, or 1 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def model_scale(scene: Scene, scales: WorkingScales | None) -> tuple[float, float]:
    """Return scene pixels per model pixel, down and along; 1 if the model has no ground sample
    distance.

    The rule is that of predictions, `io.resample.working_metres`.

    Args:
        scene: Scene.
        scales: Metres per pixel at which the model works; None if they are not known.
    """
    if scales is None:
        return 1.0, 1.0
    metres = working_metres(scene.image.grid, scales, scene.stated_gsd_m)
    if metres is None:
        raise GeoreferenceError(
            f"The metres per pixel of {scene.image.name} are needed, but it has no CRS.",
            remedy="Give gsd_m for its folder, or leave out that of the model to train without.",
        )
    (down_m, along_m), model_m = metres
    return model_m / down_m, model_m / along_m


def _scale_to(scene: Scene, gsd_m: float | None) -> tuple[float, float]:
    """Return scene pixels per pixel of `gsd_m`, down and along; 1 for None."""
    return model_scale(scene, None if gsd_m is None else WorkingScales(gsd_m))


class TrainSamples:
    """Random crops. Item `i` of epoch `e` depends only on (seed, e, i).

    Args:
        sources: Sets with the same classes; see `make_sampler` for how they are drawn from.
        crop_px: Side of a sample in pixels.
        gsd_m: Ground sample distance of the model in metres per pixel, or None.
        augment: Random changes of samples.
        samples: Number of samples in an epoch; default the pixels of all scenes divided by those of
            a crop.
        seed: Seed of all random draws.
        cache_bytes: Memory limit, see `SceneCache`.
        at_least: Minimum number of samples in an epoch.
        balance: Unit that is drawn with equal probability, see `make_sampler`.
        full_scale: Brightest pixel value; default `full_scale_of` the dtype.
        instances: Whether samples include building numbers, see `building_instances`.

    Raises:
        DataError: There is no scene, no model supports the dtype, or only some sets have a share.
        BandMismatch: An image has other bands or another dtype than the first.
        GeoreferenceError: Metres per pixel are needed, and a scene has none.
        ConfigError: `prefer_classes` names something that is not a class.
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
                remedy="Check the split, the globs and the parts of the configuration.",
            )
        check_alike(scenes)
        _check_dtype(scenes[0])
        # Every scene is checked before the first sample is drawn.
        for scene in scenes:
            _scale_to(scene, gsd_m if augment.gsd_range_m is None else 1.0)
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
        """Number of the epoch; worker processes that are already running see the change."""
        return int(self._epoch.value)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.value = epoch

    def load(self) -> None:
        """Fill the cache, so that worker processes share it."""
        self._cache.fill()

    def resized(self, samples: int) -> TrainSamples:
        """Return the same samples with another number in an epoch; both use one cache."""
        other = copy.copy(self)
        other._samples = samples
        return other

    def unchanged(self, samples: int) -> TrainSamples:
        """Return the first `samples` of the first epoch, at the model's scale, not augmented."""
        plain = self.resized(samples)
        plain._augment = AugmentConfig()
        plain._epoch = RawValue(c_longlong, 0)
        return plain

    def __getitem__(self, index: int) -> Sample:
        """Return image (band, y, x) float32 in pixel values, target and validity (y, x)."""
        rng = np.random.default_rng((self._seed, self.epoch, index))
        best: Sample | None = None
        for _ in range(_TRIES):
            draw = self._sampler.draw(rng)
            scene = self.scenes[draw.scene]
            scale = self._scale(scene, rng)
            row, col = self._centre(draw, scale, rng)
            # Convert from coordinates of pixel corners to those of pixel centres.
            to_scene = crop_transform(
                (row - 0.5, col - 0.5), scale, self._crop_px, self._augment, rng
            )
            candidate = self._cache.cut(draw.scene, to_scene, self._crop_px)
            if best is None or candidate.valid.mean() > best.valid.mean():
                best = candidate
            if best.valid.mean() >= _ENOUGH_VALID:
                break
        assert best is not None
        pixels = change_colours(best.image, best.shown, self.full_scale, self._augment, rng)
        return Sample(pixels, best.target, best.valid, _instances(best, self._instances_of))

    def _scale(self, scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
        augment = self._augment
        limits = augment.gsd_range_m or augment.scale_range
        if limits is None or not chance(rng, augment.scale_p):
            return _scale_to(scene, self._gsd_m)
        drawn = log_uniform(rng, *limits)
        if augment.gsd_range_m is not None:
            return _scale_to(scene, drawn)
        down, along = _scale_to(scene, self._gsd_m)
        return down * drawn, along * drawn

    def _centre(
        self, draw: Draw, scale_yx: tuple[float, float], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Return the position of the sample's centre, counted from the corner of the scene."""
        shape_yx = self.scenes[draw.scene].image.grid.shape
        sides_yx = self._crop_px * scale_yx[0], self._crop_px * scale_yx[1]
        if draw.block is not None and draw.class_index is not None:
            found = self._on_class(draw.scene, draw.block, [draw.class_index], rng)
            # If a label has changed since it was counted, any place in the block is used.
            return found or _anywhere(draw, shape_yx, sides_yx, rng)
        centre = _anywhere(draw, shape_yx, sides_yx, rng)
        if not chance(rng, self._augment.prefer_buildings):
            return centre
        down, along = (math.ceil(side / 2) for side in sides_yx)
        place = centre
        for _ in range(_TRIES):
            around = Window(int(place[0]) - down, int(place[1]) - along, 2 * down, 2 * along)
            window = around.intersection(Window.whole(shape_yx))
            assert window is not None
            wanted = rng.permutation(self._preferred).tolist()
            if found := self._on_class(draw.scene, window, wanted, rng):
                return found
            if window == Window.whole(shape_yx):
                break
            place = _anywhere(draw, shape_yx, sides_yx, rng)
        return centre

    def _on_class(
        self, scene: int, window: Window, wanted: Sequence[int], rng: np.random.Generator
    ) -> tuple[float, float] | None:
        """Return the centre of a pixel in the window, of the first wanted class that occurs."""
        for class_index in wanted:
            found = self._cache.find(scene, window, class_index)
            if len(found):
                chosen = int(found[rng.integers(len(found))])
                row, col = divmod(chosen, window.width)
                return window.row + row + 0.5, window.col + col + 0.5
        return None


class EvalTiles:
    """Scenes at the model's scale, cut side by side into squares; deterministic, not augmented.

    Args:
        source: Set of scenes.
        crop_px: Side of a tile in pixels; pixels beyond the scene are invalid.
        scales: Metres per pixel at which the model works; None if they are not known.
        cache_bytes: Memory limit, see `SceneCache`.
        limit: Maximum number of tiles, spread evenly over all.
        instances: See `TrainSamples`.

    Raises:
        DataError: The set has no labelled scene.
    """

    def __init__(
        self,
        source: SceneSet,
        *,
        crop_px: int,
        scales: WorkingScales | None,
        cache_bytes: int,
        limit: int | None = None,
        instances: bool = False,
    ) -> None:
        scenes = list(source)
        if not scenes:
            raise DataError(
                f"There is nothing to validate on in {source.name}: it has no labelled image.",
                remedy="Give a folder with masks, or correct the globs and parts.",
            )
        check_alike(scenes)
        self.name = source.name
        self._cache = SceneCache(scenes, cache_bytes, instances=instances)
        self._instances_of = source.building_class if instances else None
        self._crop_px = crop_px
        self._tiles: list[tuple[int, tuple[float, float], int, int]] = []
        for index, scene in enumerate(scenes):
            scale = model_scale(scene, scales)
            rows, cols = (
                math.ceil(side / per_px / crop_px - 1e-9)
                for side, per_px in zip(scene.image.grid.shape, scale)
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

    def load(self) -> None:
        """Fill the cache, so that worker processes share it."""
        self._cache.fill()

    def __getitem__(self, number: int) -> Sample:
        """Return image (band, y, x) float32 in pixel values, target and validity (y, x)."""
        index, scale_yx, row, col = self._tiles[number]
        scale_xy = np.array(scale_yx[::-1])
        # The centre of the tile's first pixel is half a model pixel inside its corner.
        offset = np.array([col, row]) * self._crop_px * scale_xy + (scale_xy - 1) / 2
        to_scene = np.column_stack([np.diag(scale_xy), offset])
        sample = self._cache.cut(index, to_scene, self._crop_px)
        ids = _instances(sample, self._instances_of)
        return Sample(sample.image.astype(np.float32), sample.target, sample.valid, ids)


def check_alike(scenes: Sequence[Scene]) -> None:
    """Raise BandMismatch if images differ in bands or dtype; the message names the first."""
    first = scenes[0].image
    for scene in scenes[1:]:
        image = scene.image
        if (image.bands, image.dtype) != (first.bands, first.dtype):
            raise BandMismatch(
                f"{image.name} has {plural(image.bands, 'band')} of {image.dtype}, "
                f"but {first.name} has {first.bands} of {first.dtype}.",
                remedy="All images that one model is trained on must have the same bands.",
            )


def _check_dtype(scene: Scene) -> None:
    if scene.image.dtype.name not in _DTYPES:
        raise DataError(
            f"{scene.image.name} has pixels of {scene.image.dtype}; expected uint8, uint16 or "
            "float32, which models support.",
            remedy="Convert the images, for example with gdal_translate -ot Float32.",
        )


def _instances(sample: Sample, building_class: int | None) -> NDArray[np.int32] | None:
    if building_class is None:
        return None
    is_building = (sample.target == building_class) & sample.valid
    return building_instances(is_building, sample.instances)


def _preferred(source: SceneSet, augment: AugmentConfig) -> list[int]:
    """Return the classes that `prefer_buildings` looks for."""
    for name in augment.prefer_classes:
        if name not in source.classes:
            raise ConfigError(
                f"augment.prefer_classes names {name!r}, which is not one of the classes "
                f"{list(source.classes)}. {did_you_mean(name, source.classes)}".strip(),
                remedy="Name classes of [data.labels].",
            )
    return [source.classes.index(name) for name in augment.prefer_classes] or [
        source.building_class
    ]


def _anywhere(
    draw: Draw,
    shape_yx: tuple[int, int],
    sides_yx: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return a random position in the drawn block.

    If the scene is large enough, the crop stays inside it; otherwise the crop shows all of it.
    """
    block = draw.block or Window.whole(shape_yx)
    margins = [min(side, length) / 2 for side, length in zip(sides_yx, shape_yx)]
    spans = ((block.row, block.row_stop), (block.col, block.col_stop))
    row, col = (
        rng.uniform(*np.clip(span, margin, length - margin))
        for span, margin, length in zip(spans, margins, shape_yx)
    )
    return float(row), float(col)
