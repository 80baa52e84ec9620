"""Callbacks of the trainer: what is recorded, saved, seeded and stopped beside the training steps.

They write config.json, metrics.csv, curves.svg and checkpoints/ of the folder of a run. `Deadline`
ends a run in the minutes that it has.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from markupsafe import Markup
from rich.console import Console
from rich.progress import Progress

from rooftrace.core.text import print_plain
from rooftrace.io.files import replacing, write_atomically, write_json
from rooftrace.io.html import Axis, Series, compose_svg, draw_chart
from rooftrace.train.checkpoint import STATE_KEY, DataRecord, last_checkpoint, save_tensors
from rooftrace.train.datamodule import TrainingData
from rooftrace.train.early_stopping import Rows, StopConfig, epochs_waited, has_diverged
from rooftrace.train.task import SegmentationTask, TrainingTask


class MetricsRecorder(Callback):
    """Writes metrics.csv and curves.svg again after each epoch.

    A resumed run keeps the rows of the epochs before it. A figure that only some epochs have is an
    empty cell in the others. The figures of a start model are a dashed line in curves.svg.
    """

    state_key = "Recorder"
    """Key in the checkpoint; it stays as it is, so that older runs can be resumed."""

    def __init__(self, run: Path, console: Console | None, deadline: Deadline | None) -> None:
        self._table = run / "metrics.csv"
        self._plot = run / "curves.svg"
        self._console = console
        self._deadline = deadline
        self.rows: list[dict[str, float]] = []
        self.start: dict[str, float] = {}
        self._epoch_start = 0.0
        self._batches = self._samples = 0
        self._seconds = 0.0
        self._validation_start = 0.0
        self._validation_s = 0.0
        self._collapsed = 0
        self._header = _HEADER

    @classmethod
    def of(cls, trainer: L.Trainer) -> MetricsRecorder:
        """Return the recorder of a run, for the callbacks that come after it."""
        # Lightning sets it elsewhere.
        return next(c for c in trainer.callbacks if isinstance(c, cls))  # type: ignore[attr-defined]

    @property
    def is_best(self) -> bool:
        """True if no epoch before the last had as high a `val_iou`."""
        *before, last = (row["val_iou"] for row in self.rows)
        return not any(value >= last for value in before)

    @property
    def images_per_s(self) -> float:
        """Training samples per second of this command, without the time of validation."""
        return self._samples / self._seconds if self._seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        rows = [{k: float(v) for k, v in row.items()} for row in self.rows]
        return {"rows": rows, "start": self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.start = state_dict["rows"], state_dict.get("start", {})

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        figures = pl_module.epoch_metrics
        self.start = {key: float(figures[key]) for key in ("val_loss", "val_iou")}
        header, self._header = self._header, ""
        line = f"start   {'':5}  {figures['val_loss']:8.3f}   {'':5}  {figures['val_iou']:8.3f}"
        print_plain(self._console, header + line)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start, self._batches = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._batches += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_s = time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        spent_s = time.perf_counter() - self._epoch_start - self._validation_s
        samples = self._batches * pl_module.config.batch_size
        self._samples += samples
        self._seconds += spent_s
        row = {
            "epoch": float(trainer.current_epoch + 1),
            **pl_module.epoch_metrics,
            "lr": pl_module.learning_rate,
            "seconds": spent_s + self._validation_s,
            "images_per_s": samples / spent_s,
        }
        self.rows.append(row)
        self._write_table()
        plot_curves(self.rows, self._plot, self.start)
        left_s = ((trainer.max_epochs or 0) - row["epoch"]) * row["seconds"]
        if self._deadline is not None:
            left_s = max(min(left_s, self._deadline.left_s), 0)
        print_plain(self._console, self._line(0 if trainer.should_stop else left_s))
        self._collapsed = self._collapsed + 1 if pl_module.has_collapsed else 0
        if self._collapsed == _NAMED_AFTER:
            print_plain(
                self._console,
                "warning: the training has collapsed: the network predicts the same class for all "
                "pixels of the validation images. Such an epoch is not exported. Lower "
                "optimizer.lr, or add ce to the loss.",
            )

    def _line(self, left_s: float) -> str:
        """Return the row of the last epoch, with a star if it is the best, and a header first."""
        row = self.rows[-1]
        folders = "  ".join(
            f"{k.partition('/')[2]} {v:.3f}" for k, v in row.items() if k.startswith("val_iou/")
        )
        line = (
            f"{row['epoch']:5.0f}   {row['train_loss']:5.3f}  {row['val_loss']:8.3f}   "
            f"{row['train_iou']:5.3f}  {row['val_iou']:8.3f}{'*' if self.is_best else ' '}   "
            f"{left_s // 60:3.0f}:{left_s % 60:02.0f}"
        )
        header, self._header = self._header, ""
        return header + line + (f"   {folders}" if folders.count("  ") else "")

    def _write_table(self) -> None:
        with (
            replacing(self._table) as partial,
            partial.open("w", newline="", encoding="utf-8") as stream,
        ):
            columns = dict.fromkeys(name for row in self.rows for name in row)
            writer = csv.DictWriter(stream, fieldnames=list(columns))
            writer.writeheader()
            for row in self.rows:
                writer.writerow({k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in row.items()})


_HEADER = "epoch    loss  held out     IoU  held out      left\n"
"""Header of the table of epochs: figures of the training samples and of what is held out."""

_NAMED_AFTER = 2
"""Number of validations in a row after which a collapse is named; the first may be by chance."""


class BestEpoch:
    """The best epoch so far by one figure; its number is 0 before any epoch had a value."""

    def __init__(self, monitor: str, sign: int) -> None:
        self.monitor, self._sign = monitor, sign
        self.epoch, self.value = 0, math.nan

    def is_better(self, value: float) -> bool:
        """Return whether an epoch with this value would be the best."""
        return not math.isnan(value) and (
            self.epoch == 0 or self._sign * value > self._sign * self.value
        )


class LastEpoch(BestEpoch):
    """The last epoch, whatever its figures: that of a run whose validation set chooses nothing."""

    def is_better(self, value: float) -> bool:
        """Return True."""
        return True


BEST_MONITORED = "best_monitored"
"""Name of the best epoch by a figure that is neither `val_iou` nor `val_loss`."""


class CheckpointSaver(Checkpoint):
    """Writes checkpoints/: `last.ckpt` to resume from, and the weights of the best epochs.

    Each file appears under its name when it is complete, so that a killed process leaves the
    file before it.

    Args:
        run: Folder of the run.
        monitored: Best epoch by a further figure, which is saved as `best_monitored`.
    """

    state_key = "Keeper"
    """Key in the checkpoint; it stays as it is, so that older runs can be resumed."""

    def __init__(self, run: Path, monitored: BestEpoch | None = None) -> None:
        self._last = last_checkpoint(run)
        self.best = {"best_iou": BestEpoch("val_iou", 1), "best_loss": BestEpoch("val_loss", -1)}
        if monitored is not None:
            self.best[BEST_MONITORED] = monitored

    def state_dict(self) -> dict[str, Any]:
        return {name: (best.epoch, float(best.value)) for name, best in self.best.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.best.keys() & state_dict.keys():
            self.best[name].epoch, self.best[name].value = state_dict[name]

    def weights_path(self, name: str) -> Path:
        """Return the path of the weights of one of the best epochs, such as `best_iou`."""
        return self._last.with_name(f"{name}.safetensors")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        for name, best in self.best.items():
            value = pl_module.epoch_metrics[best.monitor]
            if best.is_better(value) and not pl_module.has_collapsed:
                best.epoch, best.value = trainer.current_epoch + 1, value
                weights = {
                    k: v.detach().cpu().contiguous()
                    for k, v in pl_module.best_net.state_dict().items()
                }
                save_tensors(self.weights_path(name), weights, {"epoch": str(best.epoch)})
        trainer.save_checkpoint(self._last)


OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and its figures; may raise to end the run."""


class RunRecorder(Callback):
    """Writes config.json and start.json when the run begins, and puts the record of its data into
    checkpoints.

    A run that fails before, on its configuration or its data, leaves no folder.

    Args:
        run: Folder of the run.
        config: Resolved configuration as plain data.
        data: Record of the scenes of the run.
        start: Record of the model that it starts from, for start.json; None without one.
    """

    state_key = STATE_KEY

    def __init__(
        self,
        run: Path,
        config: Mapping[str, object],
        data: DataRecord,
        start: Mapping[str, object] | None = None,
    ) -> None:
        self._run, self._data = run, data
        self._records = {"config.json": config, "start.json": start}

    def state_dict(self) -> dict[str, Any]:
        return {"scenes": dict(self._data)}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, record in self._records.items():
            if record is not None:
                write_json(self._run / name, record)


class SeedBatches(Callback):
    """Makes every random draw a function of the seed, the epoch and the batch.

    A resumed run then equals the run that it resumes: the samples know their epoch, and dropout
    starts from a new seed with each batch.
    """

    def __init__(self, data: TrainingData, seed: int) -> None:
        self._samples = data.samples
        self._seed = seed
        # The workers of the loaders draw samples before the first epoch starts. The training of a
        # segmenter may have left its last epoch.
        self._samples.epoch = 0

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A checkpoint is written at the end of its epoch.
        self._samples.epoch = int(checkpoint["epoch"]) + 1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._samples.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Once an epoch is not enough: the loaders draw from the same generator at other times.
        place = (self._seed, trainer.current_epoch, batch_idx)
        mixed = np.random.SeedSequence(place).generate_state(1)
        torch.manual_seed(int(mixed[0]))


class EpochProgressBar(Callback):
    """A progress bar on stderr while an epoch runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._task = self._progress.add_task(
            f"epoch {trainer.current_epoch + 1}", total=int(trainer.num_training_batches)
        )

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress.advance(self._task)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress.remove_task(self._task)


class EarlyStopping(Callback):
    """Ends a run after `patience` epochs without a better figure.

    It looks at the rows of all epochs each time. A resumed run therefore stops where it would have
    stopped without the interruption, even if it now monitors another figure.
    """

    def __init__(self, stop: StopConfig, recorder: MetricsRecorder) -> None:
        self._stop, self._recorder = stop, recorder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rows, stop = self._recorder.rows, self._stop
        if rows and (has_diverged(rows, stop) or epochs_waited(rows, stop) >= stop.patience):
            trainer.should_stop = True

    on_train_start = on_train_epoch_end


_COARSE = "_coarse"
"""Suffix of the figures of the segmenter before a refinement; drawn beside the refined ones."""


_START = "start model"
"""Name of the dashed line of a start model."""

_TITLES = {
    "loss": "Loss",
    "iou": "IoU",
    "boundary_iou": "Boundary IoU",
    "l1": "L1",
    "loss_generator": "Loss of the generator",
    "loss_discriminator": "Loss of the discriminator",
}

_IN_TABLE = {"dice", "accuracy"}
"""Figures that follow IoU so closely that metrics.csv alone has them."""


_MAX_MARKED_EPOCHS = 40
"""Maximum number of epochs that are drawn with a mark each."""


def plot_curves(rows: Rows, path: Path, start: Mapping[str, float] = MappingProxyType({})) -> None:
    """Draw loss and IoU of training and validation over epochs, as an SVG for print.

    Other figures that a task records (`train_X`, `val_X`) get a chart of their own. The IoU of
    several validation folders is drawn as one thin line each; a single folder equals the
    validation line.

    Args:
        rows: One mapping per epoch, with `epoch`, `train_*`, `val_*`, `val_iou/FOLDER` and `lr`. A
            figure that an epoch does not have leaves a gap.
        path: The file to write.
        start: `val_loss` and `val_iou` of the start model: epoch 0, and a dashed line.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    pairs = {name.partition("_")[2] for name in names if name.startswith(("train_", "val_"))}
    more = sorted(
        key
        for key in pairs - set(_TITLES) - _IN_TABLE
        if "/" not in key and not key.endswith(_COARSE)
    )
    folders = [name for name in names if name.startswith("val_iou/")]
    folders = folders if len(folders) > 1 else []
    legend = ["training", "validation"]
    if any(name.endswith(_COARSE) for name in names):
        legend.append("validation of the segmenter")
    if start:
        legend.append(_START)
    charts = {}
    drawn = [{"epoch": 0.0, **start}, *rows] if start else rows
    for key in [key for key in _TITLES if key in pairs] + more:
        figures = [f"train_{key}", f"val_{key}", f"val_{key}{_COARSE}"][: len(legend) - bool(start)]
        title = _TITLES.get(key, key) + _describe_best(rows, key)
        at_start = start.get(f"val_{key}")
        charts[title] = _draw(drawn, key, figures, folders if key == "iou" else [], at_start)
    last = rows[-1]
    legend += [f"{n.partition('/')[2]}: IoU {last.get(n, math.nan):.3f}" for n in folders]
    write_atomically(path, compose_svg(charts, legend, dashed=_START).encode())


def _draw(
    rows: Rows, name: str, figures: Sequence[str], folders: Sequence[str], start: float | None
) -> Markup:
    """Return a chart of figures, a start model and folders; a line is empty without values."""
    epochs = [row["epoch"] for row in rows]
    lines = [
        Series(
            figure,
            epochs,
            [
                v if math.isfinite(v) else math.nan
                for v in (row.get(figure, math.nan) for row in rows)
            ],
            dots=figure in figures and len(rows) <= _MAX_MARKED_EPOCHS,
            thin=figure in folders,
        )
        for figure in (*figures, *folders)
    ]
    if start is not None:
        level = Series(_START, [epochs[0], epochs[-1]], [start, start], dashed=True)
        lines.insert(len(figures), level)
    values = [value for line in lines for value in line.y if not math.isnan(value)]
    return draw_chart(
        lines,
        Axis.numbered("epoch", int(epochs[0]), int(epochs[-1])),
        Axis.around(_TITLES.get(name, name), values or [1.0]),
    )


def _describe_best(rows: Rows, key: str) -> str:
    """Return the best validation epoch as part of a title; empty for other figures."""
    known = [row for row in rows if math.isfinite(row.get(f"val_{key}", math.nan))]
    if not known or key not in ("loss", "iou"):
        return ""
    pick = min if key == "loss" else max
    best = pick(known, key=lambda row: row[f"val_{key}"])
    return f" (best {best[f'val_{key}']:.3f}, epoch {best['epoch']:.0f})"


_PACE_S = 4.0
"""Seconds over which the load of the machine is measured."""

_SEARCHES, _END_S, _LEAST_SHARE = 2, 14.0, 0.1
"""What follows a fine-tuning: searches of a threshold; processor seconds of export and comparison;
and the share of the minutes that is trained at least."""


class Minutes:
    """The minutes of a run, and the pace of this machine, by one clock.

    The pace is the seconds that pass in a second of this process's processor time. It rises while
    other programs take the processor.

    Args:
        minutes: Minutes to the end of the run.
        began_s: Time of the clock at which they begin; default now.
        clock, processor: Functions that return seconds, and processor seconds of this process.
    """

    def __init__(
        self, minutes: float, began_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self.clock, self._processor, self._all_s = clock, processor, 60 * minutes
        self._began = clock() if began_s is None else began_s
        self._search_used, self._search_pace = 0.0, 1.0
        self.restart()

    def restart(self) -> None:
        """Begin to measure the pace anew."""
        self._since, self._used, self._pace = self.clock(), self._processor(), 0.0

    def watch(self) -> None:
        """Measure the pace of the last seconds, as soon as there are enough of them."""
        if self.clock() - self._since >= _PACE_S:
            self._lap()

    @contextmanager
    def search(self) -> Iterator[None]:
        """Measure the processor seconds of a search of a threshold, and the pace in it."""
        self.restart()
        yield
        self._search_used = self._lap()
        self._search_pace = max(1.0, self._pace)

    def _lap(self) -> float:
        """Set the pace since the last measurement; return the processor seconds since then."""
        now, used = self.clock(), self._processor()
        lap = used - self._used
        self._pace = (now - self._since) / max(lap, 1e-9)
        self._since, self._used = now, used
        return lap

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._all_s - (self.clock() - self._began)

    def end_s(self, searches: int = _SEARCHES) -> float:
        """Return the seconds of so many searches, export and comparison, at the slower pace of the
        last search and of now.
        """
        return (searches * self._search_used + _END_S) * max(self._search_pace, self._pace)

    @property
    def late_s(self) -> float:
        """Seconds by which the end will come after the minutes, at the pace of now; below 0 before
        them.
        """
        return self.end_s() + _LEAST_SHARE * self._all_s - self.left_s

    def training_s(self, trainings: int) -> Callable[[], float]:
        """Return the function for the seconds of the next of so many trainings, as of now."""
        left_s, least_s = self.left_s, _LEAST_SHARE * self._all_s
        return lambda: max(left_s - self.end_s(), least_s) / trainings


class Deadline(Callback):
    """Ends a run when its seconds are over, in the middle of an epoch if need be.

    The learning rate of `cosine` falls with the clock where the steps are behind it, so that it has
    fallen when the run ends.

    Args:
        minutes: The minutes of the run, of which this training is a part.
        seconds: Function that returns the seconds of training and validation from now, which may
            change with the pace; 0 for a run that is complete.
    """

    def __init__(self, minutes: Minutes, seconds: Callable[[], float]) -> None:
        self._minutes, self._clock, self._seconds = minutes, minutes.clock, seconds
        self._began = self._step_began = self._clock()
        self._validation_s: float | None = None
        minutes.restart()

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._seconds() - (self._clock() - self._began)

    @property
    def is_over(self) -> bool:
        """Return whether a validation would end after the seconds."""
        return (self._validation_s or 0.0) >= self.left_s

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_began = self._clock()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_s = self._clock() - self._step_began

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._seconds() == 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self._step_began = self._clock()
        spent_s = self._step_began - self._began
        pl_module.schedule.elapsed = spent_s / max(self._seconds(), 1e-9)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._minutes.watch()
        if self._validation_s is None:
            # Batches of a first validation are forward only, of tiles that may be larger.
            step_s = self._clock() - self._step_began
            self._validation_s = step_s * sum(trainer.num_val_batches)
        trainer.should_stop = trainer.should_stop or self.is_over
