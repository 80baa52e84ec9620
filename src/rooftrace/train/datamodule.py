"""The data of a training run: sets that are opened and checked first, and batches of samples."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.parallel import core_count
from rooftrace.core.system import loader_start_method
from rooftrace.core.text import plural
from rooftrace.core.types import Sample, Scene
from rooftrace.io.bands import band_infos, name_bands
from rooftrace.labels.derived import check_background
from rooftrace.labels.kinds import open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, own_split, read_split
from rooftrace.models.zoo import IMAGENET_MEAN, IMAGENET_STD
from rooftrace.samples.dataset import EvalTiles, TrainSamples, check_alike
from rooftrace.train.config import NormaliseConfig, TrainConfig

Values = tuple[float, ...]

_MEASURED_SAMPLES = 128
"""Number of samples from which pixel statistics are measured."""

_MAX_OUTSIDE = 1e-3
"""Maximum share of values beyond the full scale; so few are taken for bright spots."""

_DARK = 1 / 8
"""Share of the full scale below which the brightest value of a set is reported as dark."""


@dataclass(frozen=True)
class TrainingData:
    """The sets of a run.

    Args:
        train, val: Labelled scenes.
        samples: Training samples.
        tiles: Validation tiles of each folder.
        statistics: Mean and standard deviation per band, in pixel values, that normalise the input
            of the network.
        bands: Names of the bands, see `io.bands.name_bands`.
        notes: Assumptions and omissions, as sentences.
    """

    train: tuple[SceneSet, ...]
    val: tuple[SceneSet, ...]
    samples: TrainSamples
    tiles: tuple[EvalTiles, ...]
    statistics: tuple[Values, Values]
    bands: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def scene_ids(self) -> dict[str, list[str]]:
        """Ids of the scenes of each part."""
        parts = {"train": self.train, "val": self.val}
        return {
            name: [one for source in sets for one in source.ids] for name, sets in parts.items()
        }

    def with_samples(self, count: int | None) -> TrainingData:
        """Return the same data with another number of samples per epoch; None keeps it."""
        if count is None:
            return self
        return dataclasses.replace(self, samples=self.samples.resized(count))

    def load(self) -> None:
        """Decode the images that fit in memory; processes that are forked later share them."""
        self.samples.load()
        for tiles in self.tiles:
            tiles.load()


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the valid pixels of samples.

    Args:
        mean, std: One value per band.
        low, high: Smallest and largest value of all bands.
        outside: Share of the values below 0 or above the full scale.
    """

    mean: Values
    std: Values
    low: float
    high: float
    outside: float


def open_data(
    config: TrainConfig, base: Path, opened_train: Sequence[SceneSet] = ()
) -> TrainingData:
    """Open all sets of a configuration and report mistakes before anything is computed.

    Args:
        config: Configuration of the run.
        base: Folder that relative paths start from.
        opened_train: The sets of `data.train`, if they were opened before.

    Raises:
        DataError and its kinds: See `labels.kinds.open_source` and `samples.dataset`; also for a
            set without labels, for labels that hide the background, and if there is nothing to
            validate on.
        BandMismatch: The images of two sets differ in bands or dtype.
        ConfigError: Two validation sets have the same name; or a normalisation or full scale does
            not fit the images.
    """
    data = config.data
    train = [*opened_train] or [open_labelled(one, data.labels, base) for one in data.train]
    val = [open_labelled(one, data.labels, base) for one in data.val]
    opened = (*train, *val)
    for source in opened:
        check_background(source)
    notes = [note for source in opened for note in source.notes]
    has = "image has no label and is", "images have no label and are"
    counts = [(source.name, len(source.unlabelled)) for source in opened]
    notes += [f"{name}: {plural(count, *has)} not used." for name, count in counts if count]
    if config.data.split is not None:
        path = expand_path(config.data.split, base, key="data.split")
        parts = read_split(path).match([name for one in train for name in one.all_ids], path=path)
        notes += _left_out(train, parts, path)
        if not val:
            val = [source.subset(parts.ids("val")) for source in train]
            notes += parts.notes("val")
        train = [source.subset(parts.ids("train")) for source in train]
        notes += parts.notes("train")
    elif not val:
        train, val, own_notes = _divide_by_own_parts(train)
        notes += own_notes
    val = [source for source in val if len(source)]
    if not val:
        raise DataError(
            "There is nothing to validate on: no labelled scene of these folders is in the "
            f"validation part of {config.data.split}.",
            remedy="Name scenes in its list val, or make the split of this data again with "
            "rooftrace split --val above 0.",
        )
    names = [source.name for source in val]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"Two validation folders have the same name: {names}.",
            remedy='Give each of them another name: name = "…".',
        )
    if not any(one.area for one in (*data.train, *data.val)):
        notes += _in_both(train, val)
    samples = make_samples(config, train)
    tiles = tuple(
        EvalTiles(
            source,
            crop_px=config.val_crop_px or config.crop_px,
            scales=config.scales,
            cache_bytes=config.data.cache_mb * 2**18,
            limit=config.val_tiles,
            instances=config.clicks is not None,
        )
        for source in val
    )
    check_alike([samples.scenes[0], *(part.scenes[0] for part in tiles)])
    bands, band_notes = _band_names([samples.scenes, *(part.scenes for part in tiles)])
    notes += band_notes
    needed = _is_measured(config, samples) or _uses_full_scale(config, samples)
    found = measure_pixels(samples) if needed else None
    if found is not None and _uses_full_scale(config, samples):
        notes += _check_full_scale(config, samples, found)
    statistics = _statistics(config, samples, found)
    unique = tuple(dict.fromkeys(notes))
    return TrainingData(tuple(train), tuple(val), samples, tiles, statistics, bands, unique)


def _in_both(train: Sequence[SceneSet], val: Sequence[SceneSet]) -> Iterator[str]:
    """Yield a note on image files that are trained on and validated on."""
    trained, checked = (
        {entry.image.resolve() for source in part for entry in source.entries if entry.image}
        for part in (train, val)
    )
    if both := sorted(trained & checked):
        yield (
            f"Images to validate on that are also trained on: {len(both)} of {len(checked)}, such "
            f"as {both[0].name}. Validation cannot show how good the model is elsewhere; divide "
            "them with rooftrace split."
        )


def _divide_by_own_parts(
    sources: Sequence[SceneSet],
) -> tuple[list[SceneSet], list[SceneSet], list[str]]:
    """Return data to train on and to validate on, and notes, by the parts of the data itself."""
    train, val, notes = [], [], []
    for source in sources:
        own = own_split(source.ids)
        if own is None or "val" not in own.parts:
            raise ConfigError(
                f"There is nothing to validate on: {source.name} has no folders train and valid, "
                "and neither data.split nor [[data.val]] is given.",
                remedy='Give [[data.val]] folders, or data.split = "split.json" made by rooftrace '
                "split.",
            )
        train.append(source.subset(own.parts["train"]))
        val.append(source.subset(own.parts["val"]))
        use = f"val is validated on{own.without_test()[1]}. data.split chooses others."
        notes.append(own.own_note(source.name, use))
    return train, val, notes


def make_samples(config: TrainConfig, train: Sequence[SceneSet]) -> TrainSamples:
    """Return the training samples of opened sets."""
    return TrainSamples(
        train,
        crop_px=config.crop_px,
        gsd_m=config.gsd_m,
        augment=config.augment,
        samples=config.samples_per_epoch,
        at_least=config.samples_per_step,
        seed=config.seed,
        cache_bytes=config.data.cache_mb * 2**20,
        balance=config.balance,
        full_scale=config.full_scale,
        instances=config.clicks is not None,
    )


def _band_names(parts: Sequence[Sequence[Scene]]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the bands, and a note if the images name them differently."""
    images: dict[tuple[str, ...], str] = {}
    for scene in itertools.chain.from_iterable(parts):
        image = scene.image
        images.setdefault(name_bands(band_infos(image), image.name), image.name)
    (names, first), *others = images.items()
    if not others:
        return names, []
    other, second = others[0]
    unnamed = tuple(f"band{position}" for position in range(1, len(names) + 1))
    note = (
        f"The bands of {first} are {', '.join(names)}, but those of {second} are "
        f"{', '.join(other)}. They are used in the order of each file, and the model will record "
        f"them without names, as {', '.join(unnamed)}."
    )
    return unnamed, [note]


def measure_pixels(samples: TrainSamples) -> PixelStatistics:
    """Measure pixel values on some samples without augmentation, always the same ones."""
    plain = samples.unchanged(_MEASURED_SAMPLES)
    total, squares, pixels, outside = 0.0, 0.0, 0, 0
    low, high = math.inf, -math.inf
    for number in range(_MEASURED_SAMPLES):
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
            f"None of {_MEASURED_SAMPLES} samples has a valid pixel; there is nothing to measure.",
            remedy="Check nodata and ignore in the configuration.",
        )
    mean = np.asarray(total / pixels)
    spread = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    # A constant band has no spread; it is divided by the full scale instead.
    std = np.where(spread > 1e-6 * samples.full_scale, spread, samples.full_scale)
    return PixelStatistics(
        tuple(float(f"{value:.6g}") for value in mean),
        tuple(float(f"{value:.6g}") for value in std),
        low,
        high,
        outside / (pixels * len(mean)),
    )


def _left_out(sources: Sequence[SceneSet], split: SceneParts, path: Path) -> list[str]:
    """Return notes on scenes that a split file does not name at all."""
    placed = {*split.dropped, *(scene_id for ids in split.parts.values() for scene_id in ids)}
    missing = [(source, len(set(source.ids) - placed)) for source in sources]
    return [
        f"{source.name}: {count} of {len(source)} scenes are not in {path.name}, and not used."
        for source, count in missing
        if count
    ]


def _is_measured(config: TrainConfig, samples: TrainSamples) -> bool:
    """Return whether the normalisation is measured on the data."""
    return config.normalise == "dataset" or (config.normalise == "auto" and samples.bands != 3)


def _uses_full_scale(config: TrainConfig, samples: TrainSamples) -> bool:
    """Return whether the full scale matters and the dtype does not determine it."""
    from_imagenet = config.normalise in ("auto", "imagenet") and not _is_measured(config, samples)
    unsure = samples.dtype != np.uint8 or config.full_scale is not None
    return unsure and (config.augment.changes_colours or from_imagenet)


def _check_full_scale(
    config: TrainConfig, samples: TrainSamples, found: PixelStatistics
) -> list[str]:
    """Return notes on the full scale, which colour changes and ImageNet's statistics refer to."""
    scale = samples.full_scale
    if found.outside > _MAX_OUTSIDE:
        raise ConfigError(
            f"The training images have pixel values from {found.low:g} to {found.high:g}; expected "
            f"0 to {scale:g}, the full scale, but {found.outside:.1%} of the values lie outside.",
            remedy='For negative values set normalise = "dataset", and switch colour changes off '
            '(augment.policy = "none" and none of its keys).'
            if found.low < 0
            else f"Give the brightest value: full_scale = {_round_scale(samples, found.high)}.",
        )
    if config.full_scale is None and found.high < _DARK * scale:
        note = (
            f"The training images have pixel values up to {found.high:g}, which is dark for a full "
            f"scale of {scale:g}. Brightness and noise are shares of it: set full_scale = "
            f"{_round_scale(samples, found.high)} if the values end there."
        )
        return [note]
    return []


def _round_scale(samples: TrainSamples, high: float) -> str:
    """Return the full scale of the fewest bits that hold an integer value."""
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
                f"normalise has {plural(len(config.normalise.mean), 'value')}, but the images have "
                f"{plural(bands, 'band')}.",
                remedy="Give mean and std one value per band.",
            )
        return config.normalise.mean, config.normalise.std
    if config.normalise == "imagenet" and bands != 3:
        raise ConfigError(
            f'normalise = "imagenet" is for three bands, but the images have {bands}.',
            remedy='Write normalise = "dataset".',
        )
    if _is_measured(config, samples):
        assert found is not None
        return found.mean, found.std
    return (
        tuple(round(m * scale, 6) for m in IMAGENET_MEAN),
        tuple(round(s * scale, 6) for s in IMAGENET_STD),
    )


_MAX_WORKERS = 8
"""Maximum number of worker processes; more would prepare thousands of samples per second, which no
network here can use.
"""


class Samples(Protocol):
    """Samples that are read by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class Batch(NamedTuple):
    """Several samples as tensors.

    Args:
        images: (n, band, y, x) float32, pixel values.
        targets: (n, y, x) uint8, class indices.
        valid: (n, y, x) bool.
        instances: (n, y, x) int32 building numbers, 0 for background; None if samples have none.
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    instances: Tensor | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """Return samples of one size as a batch whose images are channels-last."""
    bands, height, width = samples[0].image.shape
    # OpenCV interleaves the bands in place; torch takes thirty times as long.
    images = np.empty((len(samples), height, width, bands), dtype=np.float32)
    for sample, pixels in zip(samples, images):
        cv2.merge(list(sample.image), pixels)
    targets = torch.from_numpy(np.stack([s.target for s in samples]))
    valid = torch.from_numpy(np.stack([s.valid for s in samples]))
    found = [s.instances for s in samples if s.instances is not None]
    instances = torch.from_numpy(np.stack(found)) if found else None
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), targets, valid, instances)


def choose_workers(config: TrainConfig, accelerator: Literal["cpu", "cuda"]) -> int:
    """Return the number of processes that prepare samples."""
    if config.workers != "auto":
        return config.workers
    if accelerator == "cpu":
        # The network computes on all cores; workers would only slow it down.
        return 0
    return min(_MAX_WORKERS, max(1, core_count() - 1))


def make_loader(
    samples: Samples,
    config: TrainConfig,
    *,
    workers: int,
    whole: int = 1,
    persistent: bool = False,
) -> DataLoader[Any]:
    """Return a loader of batches in the order of the samples, which is already random for training.

    Args:
        whole: Number of samples of which each epoch has a multiple; the last ones are left out.
        workers: Number of processes that prepare samples; 0 prepares them in this process, on the
            cores that the network also uses.
        persistent: Start the processes once, not once per epoch.
    """
    threads = 1 if workers else min(config.batch_size, torch.get_num_threads())
    return DataLoader(
        _TorchDataset(samples, len(samples) // whole * whole, threads),
        batch_size=config.batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_initialise_worker,
        # Forked processes share the decoded images; others decode them again.
        multiprocessing_context=loader_start_method() if workers else None,
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available() and config.device != "cpu",
    )


class _TorchDataset(Dataset[Sample]):
    """Samples as a torch dataset; the samples of a batch are prepared on several threads."""

    def __init__(self, samples: Samples, count: int, threads: int) -> None:
        self._samples, self._count = samples, count
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        each = map if self._pool is None else self._pool.map
        return list(each(self._samples.__getitem__, indices))


def _initialise_worker(number: int) -> None:
    """Prepare a process that loads samples.

    OpenCV's threads do not survive the fork, and there are several workers already. The thread that
    hands batches over prints a traceback where Ctrl-C has ended the process that takes them; an
    error of the worker itself is not printed but raised there.
    """
    del number
    cv2.setNumThreads(0)
    sys.excepthook = _print_unless_stopped


def _print_unless_stopped(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)
