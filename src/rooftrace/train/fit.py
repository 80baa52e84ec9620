"""A training run, from its configuration to the weights of its best epochs."""

from __future__ import annotations

import json
import logging
import math
import signal
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from rich.console import Console
from rich.progress import Progress
from torch import nn
from torch.utils.data import DataLoader, Dataset

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Sample
from rooftrace.data.dataset import EvalTiles, TrainSamples
from rooftrace.io.atomic import write_atomically
from rooftrace.models.zoo import build_model
from rooftrace.train.callbacks import EpochBar, Keeper, Recorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.device import choose_accelerator, choose_precision, tune_allocator
from rooftrace.train.feed import TrainingData, open_data
from rooftrace.train.task import SegmentationTask, collate

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Args:
        best: by name (`best_iou`, `best_loss`): epoch (from 1), value, file of weights.
        net: the network, to load those weights into.
    """

    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float
    net: nn.Module
    data: TrainingData


def fit(
    config: TrainConfig,
    run: Path,
    *,
    base: Path,
    resume: bool = False,
    console: Console | None = None,
) -> FitResult:
    """Train, and leave in `run`: config.json, metrics.csv, curves.png, checkpoints/.

    Args:
        base: folder that relative paths of the configuration start from.
        resume: go on after the last finished epoch of the run that is in the folder.
        console: where progress is shown; None shows nothing.

    Raises:
        ConfigError: the folder holds a run already, or none where one is to be resumed, or one of
            another configuration.
    """
    last = run / "checkpoints" / "last.ckpt"
    _prepare(config, run, base, last, resume=resume)
    tune_allocator()
    accelerator = choose_accelerator(config.device)
    precision = choose_precision(config.precision, accelerator)
    L.seed_everything(config.seed, verbose=False)
    data = open_data(config, base)
    if console is not None:
        for note in data.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
    labels = config.data.labels
    channels = 1 if len(labels.classes) == 2 else len(labels.classes)
    net = build_model(config.model, bands=data.samples.bands, channels=channels, base=base)
    mean, std = data.statistics
    steps = len(data.samples) // config.batch_size
    task = SegmentationTask(
        net,
        config,
        mean=mean,
        std=std,
        val_names=[tiles.name for tiles in data.tiles],
        total_steps=steps * config.epochs,
    )
    progress = Progress(
        *EpochBar.columns(), console=console, transient=True, disable=console is None
    )
    recorder, keeper = Recorder(run, console and progress.console), Keeper(run / "checkpoints")
    stopping = _early_stopping(config)
    callbacks: list[Callback] = [recorder, *stopping, keeper, _Seeded(data.samples, config.seed)]
    if console is not None and console.is_terminal:
        callbacks.append(EpochBar(progress))
    with _quiet():
        trainer = L.Trainer(
            accelerator="gpu" if accelerator == "cuda" else "cpu",
            devices=1,
            precision=precision,
            max_epochs=config.epochs,
            gradient_clip_val=config.optimizer.clip_norm or None,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run,
        )
        with progress, _interruptible():
            trainer.fit(
                task,
                _loader(data.samples, config, drop_last=True),
                [_loader(tiles, config) for tiles in data.tiles],
                ckpt_path=last if resume else None,
                # Our own file, written above; it holds more than tensors.
                weights_only=False,
            )
    _check_finite(keeper)
    return FitResult(
        best={
            name: (best.epoch, best.value, keeper.weights_path(name))
            for name, best in keeper.best.items()
        },
        epochs=len(recorder.rows),
        stopped_because=_reason(recorder.rows, config),
        images_per_s=recorder.images_per_s,
        net=net,
        data=data,
    )


class _Seeded(Callback):
    """Makes what is drawn a function of the seed and the step, so that a resumed run is the run
    that it resumes: the samples know their epoch, and dropout begins anew at each step.
    """

    def __init__(self, samples: TrainSamples, seed: int) -> None:
        self._samples = samples
        self._seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._samples.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not once an epoch: the loaders draw from the same generator, at times of their own.
        mixed = np.random.SeedSequence((self._seed, trainer.global_step)).generate_state(1)
        torch.manual_seed(int(mixed[0]))


class _AsDataset(Dataset[Sample]):
    def __init__(self, samples: TrainSamples | EvalTiles) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def _loader(
    samples: TrainSamples | EvalTiles, config: TrainConfig, *, drop_last: bool = False
) -> DataLoader[Any]:
    return DataLoader(
        _AsDataset(samples),
        batch_size=config.batch_size,
        num_workers=config.workers,
        collate_fn=collate,
        drop_last=drop_last,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(number: int) -> None:
    """The worker is one of several already; and OpenCV's threads do not survive the fork."""
    del number
    cv2.setNumThreads(0)


def _early_stopping(config: TrainConfig) -> list[EarlyStopping]:
    stop = config.stop
    if stop.patience == 0:
        return []
    return [
        EarlyStopping(
            stop.monitor,
            patience=stop.patience,
            min_delta=stop.min_delta,
            mode="max" if stop.monitor == "val_iou" else "min",
        )
    ]


def _reason(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> str:
    if len(rows) >= config.epochs:
        return f"all {config.epochs} epochs done"
    if not math.isfinite(rows[-1][config.stop.monitor]):
        return f"{config.stop.monitor} is no longer a finite number"
    return f"no better {config.stop.monitor} for {config.stop.patience} epochs"


def _check_finite(keeper: Keeper) -> None:
    for best in keeper.best.values():
        if best.epoch == 0:
            raise ConfigError(
                f"{best.monitor} was not a finite number in any epoch; the weights are of no use.",
                remedy="Lower optimizer.lr, set optimizer.clip_norm = 1.0, or use "
                'precision = "fp32".',
            )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stops a run as it stops any program; Lightning ends the process without a word."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _prepare(config: TrainConfig, run: Path, base: Path, last: Path, *, resume: bool) -> None:
    """Check what is in the folder, and record the configuration there."""
    record = run / "config.json"
    resolved = config.relative_to(base.resolve())
    if resume:
        if not last.is_file():
            raise ConfigError(
                f"There is nothing to resume in {run}: it has no checkpoints/last.ckpt.",
                remedy="Start without --resume; a checkpoint is written after each epoch.",
            )
        if not zipfile.is_zipfile(last):
            raise ConfigError(
                f"The checkpoint {last} is not whole; there is nothing to resume from.",
                remedy="Start a new run in another folder.",
            )
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The record of the run, {record}, cannot be read: {error}.",
                remedy="Start a new run in another folder.",
            ) from error
        _check_same(before, resolved, run)
    elif last.exists():
        raise ConfigError(
            f"{run} holds a run already.",
            remedy="Add --resume to go on with it, or choose another folder.",
        )
    write_atomically(record, (json.dumps(resolved, indent=1) + "\n").encode())


def _check_same(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    # How long a run goes on, and what is made of it in the end, may change; what it is may not.
    free = {"epochs", "stop", "export", "workers", "device", "base"}
    old = _flat({k: v for k, v in before.items() if k not in free})
    new = _flat({k: v for k, v in now.items() if k not in free})
    differing = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    if differing:
        raise ConfigError(
            f"The configuration is not that of the run in {run}: "
            + "; ".join(f"{k} was {old.get(k)}, is {new.get(k)}" for k in differing)
            + ".",
            remedy="Resume with the same configuration, or start a new run.",
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Each single value by its whole key, as --set names it."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)  # type: ignore[assignment]
    else:
        return {key: value}
    return {
        k: v for name, part in parts for k, v in _flat(part, f"{key}.{name}".strip(".")).items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice, which is for those who write the loop."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", module="torch.*")
            yield
    finally:
        logger.setLevel(level)
