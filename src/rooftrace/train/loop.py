"""A training run, from its configuration to the weights of its best epochs.

`fit` reads from top to bottom: folder, data, network, task, trainer. `run_trainer` is Lightning's
trainer as every run uses it: segmenters and refinements are recorded, saved, resumed, stopped and
interrupted in the same way.
"""

import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from rooftrace.core.errors import ConfigError, TrainError, is_out_of_memory
from rooftrace.core.parallel import core_count
from rooftrace.core.system import keep_freed_memory, only_errors
from rooftrace.core.text import print_plain
from rooftrace.engines.base import this_processor
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of
from rooftrace.models.spec import CLICK_BANDS, BundleSpec
from rooftrace.models.start import StartModel, read_start
from rooftrace.models.zoo import build_model, check_side
from rooftrace.train.callbacks import (
    BestEpoch,
    CheckpointSaver,
    Deadline,
    EarlyStopping,
    EpochProgressBar,
    MetricsRecorder,
    Minutes,
    OnEpoch,
    RunRecorder,
    SeedBatches,
)
from rooftrace.train.checkpoint import (
    SafeCheckpointIO,
    check_run_folder,
    check_same_scenes,
    last_checkpoint,
    record_scenes,
)
from rooftrace.train.click_task import ClickNet, ClickTask
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, choose_workers, make_loader, open_data
from rooftrace.train.early_stopping import describe_end
from rooftrace.train.task import SegmentationTask, TrainingTask


def choose_accelerator(device: str) -> Literal["cpu", "cuda"]:
    """Return the accelerator for a configured device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'device = "cuda", but PyTorch sees no CUDA device.',
            remedy='Use device = "auto", or install a CUDA build of PyTorch.',
        )
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda"


def choose_precision(
    precision: str, accelerator: str
) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision by Lightning's name; `auto` takes one that the device computes fast."""
    if precision == "fp16" and accelerator == "cpu":
        raise ConfigError(
            'precision = "fp16" needs a GPU.', remedy='Use "auto", "bf16" or "fp32" on a CPU.'
        )
    if precision == "auto":
        if accelerator == "cuda":
            precision = (
                "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            )
        else:
            # Without the instructions bf16 is emulated, and slower than fp32.
            precision = "bf16" if this_processor().has_bf16 else "fp32"
    if precision == "bf16":
        return "bf16-mixed"
    return "16-mixed" if precision == "fp16" else "32-true"


@dataclass(frozen=True)
class TrainerResult:
    """The result of a trainer.

    Args:
        best: Best epochs by name (`best_iou`, `best_loss`, and `best_monitored` if a further figure
            was monitored): number from 1, value, file of weights.
        epochs: Number of all epochs of the run, including those before it was resumed.
        stopped_because: Reason for the end, as a clause.
        images_per_s: Training samples per second, without the time of validation.
        start_iou: `val_iou` of the start model; None without one.
    """

    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float
    start_iou: float | None = None


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Args:
        trained: Best epochs, and why the run ended.
        net: The network, to load the weights of `trained.best` into.
        data: The data that it was trained and validated on.
        gsd_m: Ground sample distance of the model in metres per pixel; None if it has none.
        start: Record of the model that training started from; None without one.
        start_fingerprints: Training scenes of that model.
    """

    trained: TrainerResult
    net: nn.Module
    data: TrainingData
    gsd_m: float | None
    start: Mapping[str, Any] | None = None
    start_fingerprints: tuple[Fingerprint, ...] = ()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The data by which training scenes are recognised later; computed on first use."""
        scenes = iter(self.data.samples.scenes)
        sets = [(one.name, tuple(islice(scenes, len(one)))) for one in self.data.train]
        return fingerprint_of(sets, self.gsd_m)

    @cached_property
    def fitted_fingerprint(self) -> Fingerprint:
        """The same of the validation scenes, by which epoch and threshold are chosen."""
        sets = [(tiles.name, tuple(tiles.scenes)) for tiles in self.data.tiles]
        return fingerprint_of(sets, self.gsd_m)


def fit(
    config: TrainConfig,
    run: Path,
    *,
    base: Path,
    resume: bool = False,
    console: Console | None = None,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Callback] = (),
    monitored: BestEpoch | None = None,
    data: TrainingData | None = None,
    start: StartModel | None = None,
    deadline: Deadline | None = None,
) -> FitResult:
    """Train a network, and write config.json, metrics.csv, curves.svg, checkpoints/, start.json
    if `model.start` is given, to the folder `run`.

    Args:
        base: Folder that relative paths of the configuration start from.
        resume: Continue after the last finished epoch of the run that is in the folder.
        console: Console for progress; None prints nothing.
        on_epoch: Function called with the figures of each epoch.
        callbacks: Further callbacks, see `run_trainer`.
        monitored: See `CheckpointSaver`.
        data: Data of the configuration, if it was opened before.
        start: The model of `model.start`, if it was read before.
        deadline: Time at which the run ends, in the middle of an epoch if need be.

    Raises:
        ConfigError: The folder already holds a run; or a run is to be resumed, and there is none,
            or one of another configuration; or the network does not accept crops of this size; or
            a figure to monitor is not one of the run.
        DataError: The checkpoint to resume from is damaged; or the data has changed since then.
    """
    resolved = config.relative_to(base.resolve())
    before = check_run_folder(run, resolved, resume=resume)
    prepare_process(config)
    data = data or open_data(config, base)
    for note in data.notes:
        print_plain(console, note)
    record = record_scenes(data.scene_ids)
    if before is not None:
        check_same_scenes(before, record, run)
    net = build_model(
        config.model, bands=data.samples.bands, channels=config.data.labels.channels, base=base
    )
    start_record: dict[str, Any] | None = None
    from_start: set[str] = set()
    known: tuple[Fingerprint | None, ...] = ()
    if config.model.start is not None:
        start = start or read_start(config.model.start, base)
        loaded = start.load_into(net, config.model)
        data, notes = _as_in_start(data, config, start.bundle.spec)
        start_record = {**start.to_json(), **loaded.to_json()}
        known = start.bundle.spec.fingerprint, *start.bundle.spec.start_fingerprints
        from_start = {*loaded.loaded}
        if loaded.adapted or loaded.missing or loaded.surplus or loaded.of_another_shape:
            notes.insert(0, f"start from {start.bundle.spec.name}: {loaded.describe()}")
        for note in notes:
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

    def notify(trainer: L.Trainer, _: L.LightningModule) -> None:
        """Pass on the figures of an epoch when they are on disk, before the checkpoint."""
        assert on_epoch is not None
        on_epoch(trainer.current_epoch + 1, MetricsRecorder.of(trainer).rows[-1])

    trained = run_trainer(
        task,
        data,
        config,
        run,
        resume=resume,
        console=console,
        callbacks=[
            RunRecorder(run, resolved, record, start_record),
            *callbacks,
            *([] if on_epoch is None else [LambdaCallback(on_train_epoch_end=notify)]),
        ],
        monitored=monitored,
        deadline=deadline,
    )
    fingerprints = tuple(one for one in known if one is not None)
    return FitResult(trained, net, data, config.gsd_m, start_record, fingerprints)


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
    keep_freed_memory()
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
    deadline: Deadline | None = None,
) -> TrainerResult:
    """Train a task, and write metrics.csv, curves.svg, and checkpoints/ to the folder
    `run`.

    Args:
        callbacks: Further callbacks; they see an epoch's figures after they are recorded and
            before the checkpoint is written.
        monitored: See `CheckpointSaver`.
        deadline: See `fit`.

    Raises:
        ConfigError: The precision or the device is not available; or no epoch had a finite value.
        TrainError: The memory is exhausted.
    """
    accelerator = choose_accelerator(config.device)
    # A task that makes its own steps decides itself how many batches each step has.
    accumulate = config.optimizer.accumulate if task.automatic_optimization else 1
    precision = choose_precision(config.precision, accelerator)
    measures_start = config.model.start is not None and isinstance(task, SegmentationTask)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=console is None,
    )  # fmt: skip
    if deadline is None and (minutes := config.stop.minutes) is not None:
        deadline = Deadline(Minutes(minutes), lambda: 60 * minutes)
    recorder = MetricsRecorder(run, console and progress.console, deadline)
    saver = CheckpointSaver(run, monitored)
    every = [recorder, *callbacks, saver, SeedBatches(data, config.seed)]
    if config.stop.patience:
        every.append(EarlyStopping(config.stop, recorder))
    if deadline is not None:
        every.append(deadline)
    if console is not None and console.is_terminal:
        every.append(EpochProgressBar(progress))
    checkpoint = last_checkpoint(run) if resume else None
    with _quiet():
        trainer = L.Trainer(
            accelerator="gpu" if accelerator == "cuda" else "cpu",
            devices=1,
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
            # What Lightning calls a sanity check measures the start model, see MetricsRecorder.
            num_sanity_val_steps=-1 if measures_start and checkpoint is None else 0,
            use_distributed_sampler=False,
            default_root_dir=run,
        )
        workers = choose_workers(config, accelerator)
        if workers:
            data.load()
        training = make_loader(
            data.samples, config, workers=workers, whole=config.batch_size * accumulate,
            persistent=True,
        )  # fmt: skip
        validation = [make_loader(tiles, config, workers=workers) for tiles in data.tiles]
        try:
            with progress, _interruptible():
                trainer.fit(task, training, validation, ckpt_path=checkpoint)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise _out_of_memory(task, trainer) from error
    _check_finite(saver, task)
    return TrainerResult(
        best={
            name: (best.epoch, best.value, saver.weights_path(name))
            for name, best in saver.best.items()
        },
        epochs=len(recorder.rows),
        stopped_because=describe_end(recorder.rows, config.epochs, config.stop),
        images_per_s=recorder.images_per_s,
        start_iou=recorder.start.get("val_iou"),
    )


def _check_finite(saver: CheckpointSaver, task: TrainingTask) -> None:
    if task.has_collapsed and any(best.epoch == 0 for best in saver.best.values()):
        raise TrainError(
            "The training has collapsed: the network predicts the same class for all pixels of the "
            "validation images, in every epoch.",
            remedy="Lower optimizer.lr, add ce to the loss, such as 0.5*ce + 0.5*dice, or check "
            "the labels with rooftrace inspect.",
        )
    for best in saver.best.values():
        if best.epoch == 0:
            raise ConfigError(
                f"{best.monitor} was not a finite number in any epoch; the weights are useless.",
                remedy="Lower optimizer.lr, set optimizer.clip_norm = 1.0, or use "
                'precision = "fp32".',
            )


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
    with only_errors("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", module="torch.*")
        yield


def _out_of_memory(task: TrainingTask, failed: L.Trainer) -> TrainError:
    """Return the error for a run that ran out of memory."""
    config = task.config
    less = max(1, config.batch_size // 2)
    if not task.automatic_optimization:
        remedy = f"Lower refine.batch_size, such as to {less}."
    elif config.batch_size % 2:
        remedy = "Lower batch_size."
    else:
        remedy = (
            f"Try batch_size = {less} with optimizer.accumulate = "
            f"{2 * config.optimizer.accumulate}, which keeps the number of samples per step."
        )
    return TrainError(
        f"Out of memory: batch_size = {config.batch_size}, crop_px = {config.crop_px}, of "
        f"{config.model.architecture}{_peak(failed)}.",
        remedy=f'{remedy} Or lower crop_px or val_crop_px, or train with precision = "bf16".',
    )


def _peak(failed: L.Trainer) -> str:
    device = failed.strategy.root_device
    if device.type != "cuda":
        return ""
    used = torch.cuda.max_memory_allocated(device) / 2**30
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f", which had taken {used:.1f} of {total:.1f} GiB"
