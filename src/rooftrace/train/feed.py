"""What a training run is fed with: its data, opened and checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.config import SourceConfig
from rooftrace.data.dataset import EvalTiles, TrainSamples, check_alike
from rooftrace.data.kinds import open_source
from rooftrace.data.source import SceneSet
from rooftrace.data.split import Split, read_split
from rooftrace.models.zoo import IMAGENET_MEAN, IMAGENET_STD
from rooftrace.train.config import NormaliseConfig, TrainConfig

__all__ = ["PixelStatistics", "TrainingData", "measure", "open_data"]

Values = tuple[float, ...]

_MEASURED_SAMPLES = 128

_OUTSIDE = 1e-3
"""Share of the values beyond the full scale that are taken for a few bright spots."""

_DARK = 1 / 8
"""A set whose brightest value is below this share of the full scale has another full scale."""


@dataclass(frozen=True)
class TrainingData:
    """The sets of a run.

    Args:
        statistics: mean and standard deviation per band, in pixel values: what the network's input
            is normalised with.
        notes: what was assumed or left out, for people to see.
    """

    train: tuple[SceneSet, ...]
    val: tuple[SceneSet, ...]
    samples: TrainSamples
    tiles: tuple[EvalTiles, ...]
    statistics: tuple[Values, Values]
    notes: tuple[str, ...] = ()

    def load(self) -> None:
        """Decode what fits in memory, so that processes forked after this have it in common."""
        self.samples.load()
        for tiles in self.tiles:
            tiles.load()


@dataclass(frozen=True)
class PixelStatistics:
    """Of the valid pixels of samples.

    Args:
        mean, std: per band.
        low, high: the smallest and the largest value of all.
        outside: share of the values below 0 or above the full scale.
    """

    mean: Values
    std: Values
    low: float
    high: float
    outside: float


def open_data(config: TrainConfig, base: Path) -> TrainingData:
    """Open all sets of a configuration, so that what is wrong is said at once.

    Raises:
        DataError and its kinds: see `data.kinds.open_source` and `data.dataset`; a set without
            labels; nothing to validate on.
        BandMismatch: the images of two sets differ in bands or dtype.
        ConfigError: two validation sets of one name; a normalisation or a full scale that does not
            fit the images.
    """
    train = [_open(given, config, base) for given in config.data.train]
    val = [_open(given, config, base) for given in config.data.val]
    notes = [note for source in (*train, *val) for note in source.notes]
    notes += [_unlabelled_note(source) for source in (*train, *val) if source.unlabelled]
    if config.data.split is not None:
        path = expand_path(config.data.split, base, key="data.split")
        split = read_split(path)
        notes += _left_out(train, split, path)
        if not val:
            val_ids = split.ids("val", source=str(path))
            val = [source.subset(val_ids) for source in train]
            val = [source for source in val if len(source)]
        train_ids = split.ids("train", source=str(path))
        train = [source.subset(train_ids) for source in train]
    if not val:
        raise DataError(
            "There is nothing to validate on: the validation part has no scene of these folders.",
            remedy="Make the split of this data again, with --val above 0.",
        )
    names = [source.name for source in val]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"Two validation folders have the same name: {names}.",
            remedy='Give each a name of its own: name = "…".',
        )
    # Every process that trains on this machine has a cache of its own.
    cache = config.data.cache_mb * 2**20 // config.devices
    samples = TrainSamples(
        train,
        crop_px=config.crop_px,
        gsd_m=config.gsd_m,
        augment=config.augment,
        samples=config.samples_per_epoch,
        at_least=config.samples_per_step,
        seed=config.seed,
        cache_bytes=cache,
        balance=config.balance,
        full_scale=config.full_scale,
        instances=config.separation is not None,
    )
    tiles = tuple(
        EvalTiles(
            source,
            crop_px=config.val_crop_px or config.crop_px,
            gsd_m=config.gsd_m,
            cache_bytes=cache // 4,
            limit=config.val_tiles,
            instances=config.separation is not None,
        )
        for source in val
    )
    check_alike([samples.scenes[0], *(part.scenes[0] for part in tiles)])
    needed = _by_data(config, samples) or _uses_full_scale(config, samples)
    found = measure(samples) if needed else None
    if found is not None and _uses_full_scale(config, samples):
        notes += _check_full_scale(config, samples, found)
    statistics = _statistics(config, samples, found)
    unique = tuple(dict.fromkeys(notes))
    return TrainingData(tuple(train), tuple(val), samples, tiles, statistics, unique)


def measure(samples: TrainSamples, count: int = _MEASURED_SAMPLES) -> PixelStatistics:
    """What pixel values are like, on `count` samples without any change; the same each time."""
    plain = samples.unchanged(count)
    total, squares, pixels, outside = 0.0, 0.0, 0, 0
    low, high = math.inf, -math.inf
    for number in range(count):
        sample = plain[number]
        values = sample.image[:, sample.valid].astype(np.float64)
        if not values.size:
            continue
        total = total + values.sum(axis=1)
        squares = squares + (values**2).sum(axis=1)
        pixels += values.shape[1]
        outside += int(((values < 0) | (values > samples.full_scale)).sum())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not pixels:
        raise DataError(
            f"None of {count} samples has a valid pixel; there is nothing to measure.",
            remedy="Look at nodata and ignore in the configuration.",
        )
    mean = np.asarray(total / pixels)
    spread = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    # A band that never changes is not divided by nothing.
    std = np.where(spread > 1e-6 * samples.full_scale, spread, samples.full_scale)
    return PixelStatistics(
        tuple(float(f"{value:.6g}") for value in mean),
        tuple(float(f"{value:.6g}") for value in std),
        low,
        high,
        outside / (pixels * len(mean)),
    )


def _open(given: SourceConfig, config: TrainConfig, base: Path) -> SceneSet:
    source = open_source(given, config.data.labels, base)
    if not len(source):
        raise DataError(
            f"{given.path} is read as {source.kind}: {len(source.unlabelled)} images, and none has "
            "a label to train on.",
            remedy="Name a folder with masks, or the file of the labels.",
        )
    return source


def _unlabelled_note(source: SceneSet) -> str:
    return f"{source.name}: {len(source.unlabelled)} images have no label, and are not used."


def _left_out(sources: Sequence[SceneSet], split: Split, path: Path) -> list[str]:
    """What is in no part of a split, be it training, validation or test."""
    placed = {scene_id for ids in split.parts.values() for scene_id in ids}
    missing = [(source, len(set(source.ids) - placed)) for source in sources]
    return [
        f"{source.name}: {count} of {len(source)} scenes are in no part of {path.name}, and are "
        "not used."
        for source, count in missing
        if count
    ]


def _by_data(config: TrainConfig, samples: TrainSamples) -> bool:
    """Whether the normalisation is measured."""
    return config.normalise == "dataset" or (config.normalise == "auto" and samples.bands != 3)


def _uses_full_scale(config: TrainConfig, samples: TrainSamples) -> bool:
    """Whether it matters what the brightest value is, and the dtype does not tell."""
    of_imagenet = config.normalise in ("auto", "imagenet") and not _by_data(config, samples)
    unsure = samples.dtype != np.uint8 or config.full_scale is not None
    return unsure and (config.augment.changes_colours or of_imagenet)


def _check_full_scale(
    config: TrainConfig, samples: TrainSamples, found: PixelStatistics
) -> list[str]:
    """Colour changes, and the statistics of ImageNet, are shares of the full scale."""
    scale = samples.full_scale
    if found.outside > _OUTSIDE:
        raise ConfigError(
            f"The training images have pixel values from {found.low:g} to {found.high:g}; expected "
            f"0 to {scale:g}, the full scale, but {found.outside:.1%} of the values lie outside.",
            remedy='With negative values give normalise = "dataset", and change no colours '
            '(augment.policy = "none" and none of its keys).'
            if found.low < 0
            else f"Give the brightest value: full_scale = {_round_scale(samples, found.high)}.",
        )
    if config.full_scale is None and found.high < _DARK * scale:
        note = (
            f"The training images have pixel values up to {found.high:g}, which is dark on a full "
            f"scale of {scale:g}, of which brightness and noise are shares: give full_scale = "
            f"{_round_scale(samples, found.high)}, if that is what their values go up to."
        )
        return [note]
    return []


def _round_scale(samples: TrainSamples, high: float) -> str:
    """The largest value of so many bits, for whole numbers."""
    if samples.dtype.kind == "f":
        return f"{high:.3g}"
    return str(2 ** math.ceil(math.log2(high + 1)) - 1)


def _statistics(
    config: TrainConfig, samples: TrainSamples, found: PixelStatistics | None
) -> tuple[Values, Values]:
    bands, scale = samples.bands, samples.full_scale
    if isinstance(config.normalise, NormaliseConfig):
        if len(config.normalise.mean) != bands:
            raise ConfigError(
                f"normalise has {len(config.normalise.mean)} values, but the images have {bands} "
                "bands.",
                remedy="Give mean and std one value per band.",
            )
        return config.normalise.mean, config.normalise.std
    if config.normalise == "imagenet" and bands != 3:
        raise ConfigError(
            f'normalise = "imagenet" is for three bands, but the images have {bands}.',
            remedy='Write normalise = "dataset".',
        )
    if _by_data(config, samples):
        assert found is not None
        return found.mean, found.std
    return (
        tuple(round(m * scale, 6) for m in IMAGENET_MEAN),
        tuple(round(s * scale, 6) for s in IMAGENET_STD),
    )
