"""A training run, from its configuration to the weights of its best epochs.

`fit` reads from top to bottom: folder, data, network, task, trainer. `run_trainer` is Lightning's
trainer as every run uses it: segmenters and refinements are recorded, saved, resumed, stopped and
interrupted in the same way.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import Progress
from torch import nn

from rooftrace.core.early_stopping import describe_end
from rooftrace.core.errors import ConfigError, DataError, RooftraceError, TrainError
from rooftrace.core.failures import is_out_of_memory
from rooftrace.core.parallel import core_count
from rooftrace.core.text import print_plain, reason_of
from rooftrace.models.click_net import ClickNet
from rooftrace.models.clicks import CLICK_BANDS
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of
from rooftrace.models.spec import BundleSpec
from rooftrace.models.start import read_start
from rooftrace.models.zoo import build_model, check_side
from rooftrace.train.callbacks import (
    BestEpoch,
    CheckpointSaver,
    EarlyStopping,
    EpochNotifier,
    EpochProgressBar,
    MetricsRecorder,
    OnEpoch,
    ProgressLines,
    RunRecorder,
    SeedBatches,
)
from rooftrace.train.checkpoint import (
    UNUSABLE,
    FileRecords,
    SafeCheckpointIO,
    check_run_folder,
    check_same_files,
    last_checkpoint,
    record_files,
)
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import (
    SampleShare,
    TrainingData,
    choose_workers,
    make_loader,
    open_data,
    training_share,
    validation_share,
)
from rooftrace.train.device import (
    choose_accelerator,
    choose_precision,
    is_main_process,
    make_strategy,
    release_memory,
    stop_all_processes_on_error,
    tune_allocator,
)
from rooftrace.train.panel import PanelCallback
from rooftrace.train.task import ClickTask, SegmentationTask, TrainingTask


@dataclass(frozen=True)
class TrainerResult:
    """The result of a trainer.

    Args:
        best: Best epochs by name (`best_iou`, `best_loss`, and `best_monitored` if a further figure
            was monitored): number from 1, value, file of weights.
        epochs: Number of all epochs of the run, including those before it was resumed.
        stopped_because: Reason for the end, as a clause.
        images_per_s: Training samples per second, without the time of validation.
    """

    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Args:
        trained: Best epochs, and why the run ended.
        net: The network, to load the weights of `trained.best` into.
        data: The data that it was trained and validated on.
        gsd_m: Ground sample distance of the model in metres per pixel; None if it has none.
        start: Record of the model that training started from; None without one.
    """

    trained: TrainerResult
    net: nn.Module
    data: TrainingData
    gsd_m: float | None
    start: Mapping[str, Any] | None = None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The data by which training scenes are recognised later; computed on first use."""
        scenes = iter(self.data.samples.scenes)
        sets = [(one.name, tuple(islice(scenes, len(one)))) for one in self.data.train]
        return fingerprint_of(sets, self.gsd_m)


def fit(
    config: TrainConfig,
    run: Path,
    *,
    base: Path,
    resume: bool = False,
    console: Console | None = None,
    on_epoch: OnEpoch | None = None,
    monitored: BestEpoch | None = None,
) -> FitResult:
    """Train a network, and write config.json, metrics.csv, curves.svg, checkpoints/, start.json
    if `model.start` is given, and panel.png to the folder `run`.

    Args:
        base: Folder that relative paths of the configuration start from.
        resume: Continue after the last finished epoch of the run that is in the folder.
        console: Console for progress; None prints nothing.
        on_epoch: Function called with the figures of each epoch.
        monitored: See `CheckpointSaver`.

    Raises:
        ConfigError: The folder already holds a run; or a run is to be resumed, and there is none,
            or one of another configuration; or the network does not accept crops of this size; or
            a figure to monitor is not one of the run.
        DataError: The checkpoint to resume from is damaged; or the data has changed since then.
    """
    is_main = is_main_process(config)
    if not is_main:
        console = None
    resolved = config.relative_to(base.resolve())
    before = check_run_folder(run, resolved, resume=resume)
    prepare_process(config)
    data = open_data(config, base)
    for note in data.notes:
        print_plain(console, note)
    files: FileRecords = record_files(data.files, before) if is_main else {}
    if before is not None and is_main:
        check_same_files(before, files, run)
    elif resume:
        print_plain(console, f"{last_checkpoint(run)} has no record of the data: changes since it "
                    "was written are not noticed.")  # fmt: skip
    net = build_model(config.model, bands=data.samples.bands, channels=config.outputs, base=base)
    start: dict[str, Any] | None = None
    from_start: tuple[str, ...] = ()
    if config.model.start is not None:
        model = read_start(config.model.start, base)
        loaded = model.load_into(net, config.model)
        data, notes = _as_in_start(data, config, model.bundle.spec)
        start, from_start = {**model.to_json(), **loaded.to_json()}, loaded.loaded
        for note in (f"start from {model.bundle.source}: {loaded.describe()}", *notes):
            print_plain(console, note)
    bands, kind = data.samples.bands, SegmentationTask
    if config.clicks is not None:
        net = ClickNet.of(net, bands=bands, extra=len(CLICK_BANDS))
        bands, kind = bands + len(CLICK_BANDS), ClickTask
    check_side(net, bands, config.crop_px, "crop_px")
    if config.val_crop_px is not None:
        check_side(net, bands, config.val_crop_px, "val_crop_px")
    mean, std = data.statistics
    steps = len(data.samples) // config.samples_per_step
    task = kind(
        net,
        config,
        mean=mean,
        std=std,
        val_names=[tiles.name for tiles in data.tiles],
        total_steps=steps * config.epochs,
        from_start=from_start,
    )
    trained = run_trainer(
        task,
        data,
        config,
        run,
        resume=resume,
        console=console,
        callbacks=[
            RunRecorder(run, resolved, files, start),
            *([] if on_epoch is None else [EpochNotifier(on_epoch)]),
        ],
        monitored=monitored,
    )
    return FitResult(trained, net, data, config.gsd_m, start)


def _as_in_start(
    data: TrainingData, config: TrainConfig, spec: BundleSpec
) -> tuple[TrainingData, list[str]]:
    """Return the data normalised as for the start model if it has as many bands, and notes."""
    notes = []
    same = data.samples.bands == len(spec.bands) and data.samples.dtype == spec.numpy_dtype
    if config.normalise == "auto" and same:
        data = replace(data, statistics=(spec.mean, spec.std))
    elif data.statistics != (spec.mean, spec.std):
        notes.append("pixel values are normalised by other values than those of the start model")
    if data.samples.bands == len(spec.bands) and data.bands != spec.bands:
        notes.append(
            f"the bands are {', '.join(data.bands)}, but the start model was trained on "
            f"{', '.join(spec.bands)}"
        )
    if config.gsd_m != spec.gsd_m:
        notes.append(
            f"gsd_m = {config.gsd_m or 'none'}, but the start model was trained at "
            f"{spec.gsd_m or 'no'} metres per pixel"
        )
    return data, notes


def prepare_process(config: TrainConfig) -> None:
    """Configure memory and threads of the process, and seed all its random generators."""
    tune_allocator()
    # Torch counts the cores of the machine, of which a container may have only a part.
    if core_count() < torch.get_num_threads():
        torch.set_num_threads(core_count())
    L.seed_everything(config.seed, verbose=False)


def run_trainer(
    task: TrainingTask,
    data: TrainingData,
    config: TrainConfig,
    run: Path,
    *,
    resume: bool,
    console: Console | None,
    callbacks: Sequence[Callback] = (),
    monitored: BestEpoch | None = None,
) -> TrainerResult:
    """Train a task, and write metrics.csv, curves.svg, checkpoints/ and panel.png to the folder
    `run`.

    Args:
        callbacks: Further callbacks; they see an epoch's figures after they are recorded and
            before the checkpoint is written.
        monitored: See `CheckpointSaver`.

    Raises:
        ConfigError: The precision or the devices are not available; or no epoch had a finite value.
        TrainError: The memory is exhausted; or one of several processes failed.
    """
    watching = [PanelCallback(run, data.tiles, config)] if config.watch.panel else []
    accelerator = choose_accelerator(config.device, config.devices)
    # A task that makes its own steps decides itself how many batches each step has.
    accumulate = config.optimizer.accumulate if task.automatic_optimization else 1
    precision = choose_precision(config.precision, accelerator)
    progress = Progress(
        *EpochProgressBar.columns(), console=console, transient=True, disable=console is None
    )
    recorder = MetricsRecorder(run, console and progress.console)
    saver = CheckpointSaver(run, monitored)
    every = [recorder, *watching, *callbacks, saver, SeedBatches(data, config.seed)]
    if config.stop.patience or config.stop.minutes is not None:
        every.append(EarlyStopping(config.stop, recorder, console and progress.console))
    if console is not None:
        every.append(EpochProgressBar(progress) if console.is_terminal else ProgressLines(console))
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
            plugins=[SafeCheckpointIO()],
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run,
        )
        batch, rank, processes = config.batch_size, trainer.global_rank, config.processes
        trained_on = training_share(
            data.samples, batch=batch, accumulate=accumulate, rank=rank, processes=processes
        )
        validated_on = [
            validation_share(tiles, batch=batch, rank=rank, processes=processes)
            for tiles in data.tiles
        ]
        workers = choose_workers(config, accelerator)
        if workers:
            data.load()
        training = make_loader(
            trained_on, config, batch // processes, workers=workers, persistent=True
        )
        validation = [make_loader(tiles, config, batch, workers=workers) for tiles in validated_on]
        fits = True
        try:
            with progress, _interruptible(), stop_all_processes_on_error(trainer):
                checkpoint = last_checkpoint(run) if resume else None
                with _restoring(checkpoint, recorder):
                    trainer.fit(task, training, validation, ckpt_path=checkpoint)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        if not fits:
            # Outside the handler, where the error no longer holds the tensors of the step.
            raise out_of_memory_error(task, data, trainer)
    _check_finite(saver)
    return TrainerResult(
        best={
            name: (best.epoch, best.value, saver.weights_path(name))
            for name, best in saver.best.items()
        },
        epochs=len(recorder.rows),
        stopped_because=describe_end(recorder.rows, config.epochs, config.stop),
        images_per_s=recorder.images_per_s,
    )


def _check_finite(saver: CheckpointSaver) -> None:
    for best in saver.best.values():
        if best.epoch == 0:
            raise ConfigError(
                f"{best.monitor} was not a finite number in any epoch; the weights are useless.",
                remedy="Lower optimizer.lr, set optimizer.clip_norm = 1.0, or use "
                'precision = "fp32".',
            )


@contextmanager
def _restoring(checkpoint: Path | None, recorder: MetricsRecorder) -> Iterator[None]:
    """Raise DataError where the content of a checkpoint does not fit the run that resumes it."""
    try:
        yield
    except RooftraceError:
        raise
    except Exception as error:  # Lightning and torch raise many types
        if checkpoint is None or recorder.has_started or is_out_of_memory(error):
            raise
        # Others speak of objects of Python.
        is_plain = isinstance(error, (RuntimeError, ValueError, OSError))
        reason = reason_of(error, most=300) if is_plain else "its content has another form"
        raise DataError(
            f"The checkpoint {checkpoint} does not fit this run: {reason}.",
            remedy=UNUSABLE,
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt; Lightning ends the process without a message."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice of Lightning, which is for authors of training loops."""
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


def largest_that_fits(attempt: Callable[[int], None], below: int) -> int:
    """Return the largest number for which `attempt` succeeds; 0 if there is none.

    The number is halved until an attempt succeeds, and then searched between that and the last
    failure: at most 2 · log2(below) attempts, and the answer is one of them.

    Args:
        attempt: Raises where memory is exhausted. Any other error that so few samples cause, such
            as BatchNorm with one sample, counts as a failure too.
        below: A number that is known to be too large.
    """
    fits, fails = 0, below
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            attempt(middle)
        except (RuntimeError, ValueError):
            fails = middle
        else:
            fits = middle
    return fits


def out_of_memory_error(task: TrainingTask, data: TrainingData, failed: L.Trainer) -> TrainError:
    """Return the error for a run that ran out of memory, with a batch size that was tried to fit.

    Nothing that is still in use may hold the tensors of the failed step: neither an error nor its
    traceback. The weights of the task are useless afterwards.

    Args:
        failed: The trainer, which has ended.
    """
    config = task.config
    peak = _peak(failed)
    if torch.distributed.is_initialized():
        # The other processes have ended; none of them would answer.
        torch.distributed.destroy_process_group()
    each = config.batch_size // config.processes

    def attempt(samples: int) -> None:
        _train_and_validate(task, data, samples, failed)

    batch = largest_that_fits(attempt, each) * config.processes
    on_each = f", {each} on each of {config.processes} devices" if config.processes > 1 else ""
    return TrainError(
        f"Out of memory: batch_size = {config.batch_size}{on_each}, crop_px = {config.crop_px}, "
        f"of {config.model.architecture}{peak}.",
        remedy=_remedy(task, config, batch),
    )


def _train_and_validate(
    task: TrainingTask, data: TrainingData, samples: int, failed: L.Trainer
) -> None:
    """Run a step of the optimiser and a validation with this batch size on one device."""
    release_memory()
    cuda = failed.strategy.root_device.type == "cuda"
    single = {"batch_size": samples, "devices": 1, "nodes": 1}
    task.config = config = task.config.model_copy(update=single)
    trained_on = SampleShare(data.samples, range(samples))
    validated_on = [
        SampleShare(tiles, [n % len(tiles) for n in range(samples)]) for tiles in data.tiles
    ]
    trainer = L.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=[failed.local_rank] if cuda else 1,
        precision=failed.precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        task,
        make_loader(trained_on, config, samples, workers=0),
        [make_loader(tiles, config, samples, workers=0) for tiles in validated_on],
    )


def _remedy(task: TrainingTask, config: TrainConfig, batch: int) -> str:
    if not batch:
        return (
            "No smaller batch fitted in an attempt just now, down to one sample: lower crop_px or "
            'val_crop_px, choose a smaller encoder, or train with precision = "bf16".'
        )
    key = "batch_size" if task.automatic_optimization else "refine.batch_size"
    tried = f"{key} = {batch} fits: a step and a validation with it succeeded just now."
    if not task.automatic_optimization:
        return tried
    per_step = config.samples_per_step
    smaller = next(
        b for b in range(batch, 0, -1) if per_step % b == 0 and b % config.processes == 0
    )
    return (
        f"{tried} batch_size = {smaller} with optimizer.accumulate = {per_step // smaller} keeps "
        "the number of samples per step."
    )


def _peak(failed: L.Trainer) -> str:
    device = failed.strategy.root_device
    if device.type != "cuda":
        return ""
    used = torch.cuda.max_memory_allocated(device) / 2**30
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f", which had taken {used:.1f} of {total:.1f} GiB"
