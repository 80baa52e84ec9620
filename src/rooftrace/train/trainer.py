"""Lightning's trainer as every kind of run uses it: whatever is trained, it is recorded, kept,
resumed, stopped and interrupted alike.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import Progress

from rooftrace.core.errors import ConfigError
from rooftrace.train.callbacks import EpochBar, Keeper, Recorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.device import (
    choose_accelerator,
    choose_precision,
    is_out_of_memory,
    tune_allocator,
)
from rooftrace.train.distributed import (
    ending_together,
    is_first,
    make_strategy,
    share_of_steps,
    share_of_tiles,
)
from rooftrace.train.feed import TrainingData
from rooftrace.train.loader import choose_workers, make_loader
from rooftrace.train.memory import out_of_memory
from rooftrace.train.monitor import check_monitor
from rooftrace.train.stopping import Stopping, why_ended
from rooftrace.train.task import Task

__all__ = ["OnEpoch", "Trained", "begin", "run_trainer"]

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and its figures; may raise to end the run."""


@dataclass(frozen=True)
class Trained:
    """What a trainer came to.

    Args:
        best: by name (`best_iou`, `best_loss`): epoch (from 1), value, file of weights.
        epochs: that the run has in all, those before a resumption among them.
        images_per_s: training samples a second, validation left out.
    """

    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float


def begin(config: TrainConfig) -> None:
    """Make the process ready: memory, and the seed of everything that is drawn."""
    tune_allocator()
    L.seed_everything(config.seed, verbose=False)


def run_trainer(
    task: Task,
    data: TrainingData,
    config: TrainConfig,
    run: Path,
    *,
    resume: bool,
    console: Console | None,
    callbacks: Sequence[Callback] = (),
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train a task, and leave in `run`: metrics.csv, curves.png, checkpoints/.

    Args:
        callbacks: more of them; they see an epoch's figures after they are recorded, and before
            the checkpoint is written.
        on_epoch: sees the same, at the same time.

    Raises:
        ConfigError: the precision or the devices are not to be had; a figure that is to be watched
            is none of the task's; nothing but numbers that are not finite came out.
        TrainError: the memory did not suffice; one of several processes failed.
    """
    check_monitor("stop.monitor", config.stop.monitor, task.metric_names)
    if config.schedule.monitor is not None:
        check_monitor("schedule.monitor", config.schedule.monitor, task.metric_names)
    accelerator = choose_accelerator(config.device, config.devices)
    # Where a task makes its own steps, how many batches each is of is its own affair.
    accumulate = config.optimizer.accumulate if task.automatic_optimization else 1
    precision = choose_precision(config.precision, accelerator)
    last = run / "checkpoints" / "last.ckpt"
    if not is_first(config):
        console = None
    progress = Progress(
        *EpochBar.columns(), console=console, transient=True, disable=console is None
    )
    recorder, keeper = Recorder(run, console and progress.console), Keeper(run / "checkpoints")
    every: list[Callback] = [
        recorder,
        *callbacks,
        keeper,
        _Seeded(data, config.seed),
    ]
    if config.stop.patience:
        every.append(Stopping(config.stop, recorder, console and progress.console))
    if on_epoch is not None:
        every.append(_Told(recorder, on_epoch))
    if console is not None and console.is_terminal:
        every.append(EpochBar(progress))
    with _quiet():
        trainer = L.Trainer(
            accelerator="gpu" if accelerator == "cuda" else "cpu",
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=make_strategy(config, accelerator, task.best_net, data.samples.bands),
            sync_batchnorm=config.processes > 1 and accelerator == "cuda",
            precision=precision,
            max_epochs=config.epochs,
            gradient_clip_val=task.clip_norm or None,
            accumulate_grad_batches=accumulate,
            callbacks=every,
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run,
        )
        batch, rank, processes = config.batch_size, trainer.global_rank, config.processes
        trained_on = share_of_steps(
            data.samples, batch=batch, accumulate=accumulate, rank=rank, processes=processes
        )
        judged_on = [
            share_of_tiles(tiles, batch=batch, rank=rank, processes=processes)
            for tiles in data.tiles
        ]
        workers = choose_workers(config, accelerator)
        if workers:
            data.load()
        training = make_loader(
            trained_on, config, batch // processes, workers=workers, lasting=True
        )
        judging = [make_loader(tiles, config, batch, workers=workers) for tiles in judged_on]
        fits = True
        try:
            with progress, _interruptible(), ending_together(trainer):
                # The checkpoint is our own file, written by Keeper; it holds more than tensors.
                checkpoint = last if resume else None
                trainer.fit(task, training, judging, ckpt_path=checkpoint, weights_only=False)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        if not fits:
            # Outside of the handler, where the error no longer holds what the step has taken.
            raise out_of_memory(task, data, trainer)
    _check_finite(keeper)
    return Trained(
        best={
            name: (best.epoch, best.value, keeper.weights_path(name))
            for name, best in keeper.best.items()
        },
        epochs=len(recorder.rows),
        stopped_because=why_ended(recorder.rows, config.epochs, config.stop),
        images_per_s=recorder.images_per_s,
    )


class _Seeded(Callback):
    """Makes what is drawn a function of the seed, the epoch, the batch and the process, so that a
    resumed run is the run that it resumes: the samples know their epoch, and dropout begins anew
    with each batch.
    """

    def __init__(self, data: TrainingData, seed: int) -> None:
        self._samples = data.samples
        self._seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._samples.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not once an epoch: the loaders draw from the same generator, at times of their own.
        place = (self._seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        mixed = np.random.SeedSequence(place).generate_state(1)
        torch.manual_seed(int(mixed[0]))


class _Told(Callback):
    """Hands the figures of each epoch on, when they are on disk; the checkpoint follows."""

    def __init__(self, recorder: Recorder, on_epoch: OnEpoch) -> None:
        self._recorder = recorder
        self._on_epoch = on_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._on_epoch(trainer.current_epoch + 1, self._recorder.rows[-1])


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice, which is for those who write the loop."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", module="torch.*")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
