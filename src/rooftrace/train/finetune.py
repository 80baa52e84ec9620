"""Fine-tuning: the training configuration that follows from a start model, the data and a limit
of minutes.
"""

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from rooftrace.core.config import apply_override, parse_config
from rooftrace.core.errors import BandMismatch
from rooftrace.core.system import keep_freed_memory
from rooftrace.core.text import plural
from rooftrace.core.types import Scene
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.source import SceneSet
from rooftrace.models.spec import BundleSpec
from rooftrace.models.start import StartModel, fill_from_start
from rooftrace.models.zoo import build_model
from rooftrace.samples.dataset import model_scale
from rooftrace.train.checkpoint import save_tensors
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, collate
from rooftrace.train.loop import FitResult, choose_accelerator, choose_precision
from rooftrace.train.task import SegmentationTask, make_optimizer

_BATCH, _SMALL_BATCH, _FEW_STEPS = 16, 4, 150
"""Samples of a step; those of a run that has time for fewer than so many steps."""

_DECODER_LR, _ENCODER_LR = 5e-4, 1e-4
"""Learning rates; the encoder's general features should change less than the decoder."""

_EPOCH_S, _FOLD_EPOCH_S = 15.0, 60.0
"""Seconds of an epoch: with validation there are at least two evaluations a minute. Those of a fold
choose nothing."""

_MOST_STEPS = 100
"""Maximum number of steps per epoch, on devices that are much faster than a CPU."""

_MOST_EPOCHS = 60

_MOST_VIEWS = 1000
"""Maximum number of samples for each crop of labelled ground, so that a few tiles do not take all
the minutes.
"""

_LEAST_EPOCHS = 10
"""Minimum number of epochs in a run that this maximum limits."""

_WARMUP_STEPS = 10
"""Steps in which the learning rate rises, in a run that is at least ten times as long."""

_LEAST_PATIENCE = 5
"""Minimum number of epochs without a better figure before the run stops early."""

_PLANNED_SHARE = 1.3
"""Steps that are planned, as a share of those that fit at the speed of the first ones. These are
the slowest, and the clock ends a run."""

_SHORTEST_CROP, _LONGEST_CROP, _CROP_STEP = 64, 256, 32
"""Smallest and largest side of a crop in pixels, and the multiple that it is rounded up to: in few
minutes, more steps are worth more than more of the surroundings."""


def finetune_config(
    name: str,
    start: StartModel,
    data: SourceConfig,
    scenes: SceneSet,
    labels: LabelConfig,
    split: Path,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> TrainConfig:
    """Return the configuration of a fine-tuning run, except its length.

    Loss and scale are those of the start model, and so is the full scale of pixel
    values if the images have its pixel type. Crops are as large as its own, or as the images if
    these are smaller, at most 256 pixels. Augmentation is that of the recipe of the bundled model,
    with a narrower range of scales, since all images come from the same place.

    Args:
        name: Value of `model.start`.
        start: The start model.
        data: Labelled data.
        scenes: Scenes of it that are trained on.
        labels: Meaning of the labels.
        split: Split file of the data, with the parts `train` and `val`.
        seed: Seed of all random draws.
        overrides: `key.path=value` settings that replace values.

    Raises:
        ConfigError: An override does not fit.
    """
    spec = start.bundle.spec
    recorded, sizes = spec.training, _sizes(spec, scenes)
    whole_px = _crop_px(spec, sizes)
    crop_px = whole_px if spec.input_px is not None else min(whole_px, _LONGEST_CROP)
    raw: dict[str, Any] = {
        "seed": seed,
        "crop_px": crop_px,
        "val_crop_px": whole_px if whole_px > crop_px else None,
        "batch_size": _BATCH,
        "model": {"start": name},
        "data": {
            "train": [data.model_dump(mode="json", exclude_none=True)],
            "split": str(split),
            "labels": labels.model_dump(mode="json", exclude_none=True),
        },
        "augment": {"policy": "aerial"},
        "optimizer": {
            "lr": _DECODER_LR, "encoder_lr": _ENCODER_LR, "weight_decay": 1e-2,
            "ema_decay": 0.99, "freeze_statistics": True,
        },
        "schedule": {"kind": "cosine"},
        "export": {"licence": spec.licence, "attribution": spec.attribution},
    }  # fmt: skip
    if spec.gsd_m is None:
        raw["augment"]["scale_range"] = [0.75, 1.35]
    else:
        raw["gsd_m"] = spec.gsd_m
        raw["finest_gsd_m"] = spec.finest_gsd_m
        raw["interpolated_gsd_m"] = spec.interpolated_gsd_m
        least_m = spec.least_gsd_m or spec.gsd_m
        raw["augment"]["gsd_range_m"] = [0.75 * least_m, 1.35 * spec.gsd_m]
    keys = ["loss"]
    if next(iter(scenes)).image.dtype == spec.numpy_dtype:
        keys.append("full_scale")
    raw |= {key: recorded[key] for key in keys if recorded.get(key) is not None}
    if recorded.get("model", {}).get("encoder") is None:
        del raw["optimizer"]["encoder_lr"]
    for override in overrides:
        apply_override(raw, override)
    return parse_config(
        fill_from_start(raw, Path(), start),
        TrainConfig,
        source="rooftrace finetune",
        remedy="Correct --config KEY=VALUE.",
    )


def mix_weights(path: Path, start: StartModel, share: float) -> dict[str, torch.Tensor]:
    """Return trained weights mixed with those of the start model: all trained ones for share 1."""
    mixed = {}
    for key, value in load(path.read_bytes()).items():
        before = start.weights.get(key)
        if before is None or before.shape != value.shape or not value.is_floating_point():
            mixed[key] = value
        else:
            mixed[key] = torch.lerp(before.to(value), value, share)
    return mixed


def average_results(
    results: Sequence[FitResult], name: str, path: Path, data: TrainingData
) -> FitResult:
    """Return the mean of networks that started from one model, as the result of one run.

    Such a mean is at least as good as its members (Wortsman et al. 2022, "Model soups").

    Args:
        results: One run, or those of a cross-validation.
        name: Name of the epoch in them that counts.
        path: File of the mean weights, see `write_mean`.
        data: All data that they were trained on.
    """
    ends = [one.trained.best[name] for one in results]
    epoch, value = min(end[0] for end in ends), statistics.mean(end[1] for end in ends)
    trained = replace(results[0].trained, best={"best_iou": (epoch, value, path)})
    return replace(results[0], trained=trained, data=data)


def write_mean(path: Path, weights: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Write the mean of the weights of networks of one kind."""
    mean = {
        key: torch.stack([one[key] for one in weights]).mean(0)
        if value.is_floating_point()
        else value
        for key, value in weights[0].items()
    }
    save_tensors(path, mean, {})


def _sizes(spec: BundleSpec, scenes: Iterable[Scene]) -> list[tuple[float, float]]:
    """Return the height and width of each image in pixels of the model."""
    sizes = []
    for scene in scenes:
        down, along = model_scale(scene, None if scene.gsd_m is None else spec.scales)
        height, width = scene.image.grid.shape
        sizes.append((height / down, width / along))
    return sizes


def _crop_px(spec: BundleSpec, sizes: Sequence[tuple[float, float]]) -> int:
    """Return the side of a crop: the start model's, or that of the images if it is smaller."""
    trained = spec.training.get("crop_px")
    largest = trained if isinstance(trained, int) else 256
    step = math.lcm(spec.input_multiple_px, _CROP_STEP)
    if spec.input_px is not None:
        return spec.input_px
    wanted = math.ceil(round(statistics.median(map(max, sizes))) / step) * step
    return max(step, min(largest, max(_SHORTEST_CROP, wanted)))


def check_bands(data: TrainingData, spec: BundleSpec) -> None:
    """Raise BandMismatch if the images have another number of bands than the start model."""
    if data.samples.bands != len(spec.bands):
        repeat = f"Write the band of each image {len(spec.bands)} times: gdal_translate"
        repeat += f"{' -b 1' * len(spec.bands)} IN OUT.tif"
        raise BandMismatch(
            f"The images have {plural(data.samples.bands, 'band')}, but {spec.name} has "
            f"{len(spec.bands)}: {', '.join(spec.bands)}.",
            remedy=f"{repeat if data.samples.bands == 1 else 'Give images with these bands'}; or "
            "use rooftrace train with model.start, which adapts the first layer.",
        )


def fit_to_seconds(
    config: TrainConfig, spec: BundleSpec, data: TrainingData, seconds: float,
    overrides: Sequence[str] = (), *, is_fold: bool = False,
) -> TrainConfig:  # fmt: skip
    """Return the configuration with as many epochs and samples as fit into the seconds here.

    A few steps are timed with a network of the same kind. Where little ground is labelled, the run
    is shorter than its minutes: each crop is seen at most a thousand times.

    Args:
        config: Configuration of the run.
        spec: Contract of the start model.
        data: Data of the run.
        seconds: Limit of its training.
        overrides: Settings that are given; those among them stay as they are.
        is_fold: True for a fold of a cross-validation, whose epochs are longer.
    """
    given = {override.partition("=")[0].strip() for override in overrides}
    sample_s, validation_s = _measure(config, data)
    if "batch_size" not in given and seconds < _FEW_STEPS * config.samples_per_step * sample_s:
        config = config.model_copy(update={"batch_size": _SMALL_BATCH})
    step_s = config.samples_per_step * sample_s
    area = (
        sum(height * width for height, width in _sizes(spec, data.samples.scenes))
        / config.crop_px**2
    )
    most_steps = int(_MOST_VIEWS * area / config.samples_per_step)
    seconds *= _PLANNED_SHARE
    longest_s = min(_FOLD_EPOCH_S, seconds) if is_fold else min(_EPOCH_S, seconds / 2)
    fewest = 1 if is_fold else _LEAST_EPOCHS
    limits = _MOST_STEPS * (10 if is_fold else 1), most_steps / fewest
    steps = max(1, int(min(*limits, (longest_s - validation_s) / step_s)))
    samples = config.samples_per_epoch or steps * config.samples_per_step
    epoch_s = samples / config.samples_per_step * step_s + validation_s
    possible = round(seconds / epoch_s)
    if "samples_per_epoch" not in given:
        possible = min(possible, max(1, most_steps // steps))
    epochs = config.epochs if "epochs" in given else min(_MOST_EPOCHS, max(1, possible))
    stop = config.stop
    if "stop.patience" not in given:
        # The learning rate falls until the end, so a pause in the middle is no reason to stop.
        stop = stop.model_copy(update={"patience": max(_LEAST_PATIENCE, epochs // 2)})
    schedule = config.schedule
    if not any(key.startswith("schedule") for key in given):
        steps = samples // config.samples_per_step * epochs
        warmup = min(_WARMUP_STEPS, steps // 10)
        schedule = schedule.model_copy(update={"warmup_steps": warmup})
    update = {"samples_per_epoch": samples, "epochs": epochs, "stop": stop, "schedule": schedule}
    return config.model_copy(update=update)


def _measure(config: TrainConfig, data: TrainingData) -> tuple[float, float]:
    """Return the seconds of a training sample, and of a validation."""
    keep_freed_memory()
    accelerator = choose_accelerator(config.device)
    device = torch.device(accelerator)
    precision = choose_precision(config.precision, accelerator)
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    net = build_model(config.model, bands=data.samples.bands, channels=config.data.labels.channels)
    mean, std = data.statistics
    names = [tiles.name for tiles in data.tiles]
    task = SegmentationTask(net, config, mean=mean, std=std, val_names=names, total_steps=1)
    task = task.to(device).train()
    optimizer = make_optimizer(config.optimizer, task.net)
    count, times = min(_SMALL_BATCH, config.batch_size), []
    # The first step also decodes images and prepares kernels.
    for _ in range(2):
        began = time.perf_counter()
        batch = collate([data.samples[n % len(data.samples)] for n in range(count)])
        batch = task.transfer_batch_to_device(batch, device, 0)
        with torch.autocast(accelerator, types.get(precision), enabled=precision in types):
            loss = task.training_step(batch, 0)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    sample_s = min(times) / count
    # Forward alone takes about a fourth of a step.
    tiles = sum(len(one) for one in data.tiles)
    side = config.val_crop_px or config.crop_px
    return sample_s, sample_s * tiles * (side / config.crop_px) ** 2 / 3
