"""What happens at the end of each epoch: figures, curves, checkpoints, a line for the person."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from rooftrace.io.atomic import replacing
from rooftrace.io.console import print_plain
from rooftrace.train.curves import plot_curves
from rooftrace.train.task import Task

__all__ = ["Best", "EpochBar", "Keeper", "Recorder"]


class Recorder(Callback):
    """metrics.csv and curves.png, written again after each epoch.

    A resumed run keeps the rows of the epochs before it. A figure that only some epochs have is an
    empty cell in the others.
    """

    def __init__(self, run: Path, console: Console | None) -> None:
        self._path = run / "metrics.csv"
        self._plot = run / "curves.png"
        self._console = console
        self.rows: list[dict[str, float]] = []
        self._started = 0.0
        self._samples = 0
        self._seconds = 0.0
        self._validating_since = 0.0
        self._validated = 0.0

    @classmethod
    def of(cls, trainer: L.Trainer) -> Recorder:
        """That of a run, for the callbacks that come after it."""
        return next(c for c in trainer.callbacks if isinstance(c, cls))  # type: ignore[attr-defined]

    @property
    def is_best(self) -> bool:
        """Whether no epoch before the last had as high a `val_iou`."""
        *before, last = (row["val_iou"] for row in self.rows)
        return not any(value >= last for value in before)

    @property
    def images_per_s(self) -> float:
        """Training samples a second, validation left out, over this call of the command."""
        return self._samples / self._seconds if self._seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating_since = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = time.perf_counter() - self._validating_since

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        spent = time.perf_counter() - self._started - self._validated
        samples = int(trainer.num_training_batches) * pl_module.config.batch_size
        self._samples += samples
        self._seconds += spent
        row = {
            "epoch": float(trainer.current_epoch + 1),
            **pl_module.epoch_metrics,
            "lr": pl_module.learning_rate,
            "seconds": spent + self._validated,
            "images_per_s": samples / spent,
        }
        self.rows.append(row)
        self._show(row)

    @rank_zero_only
    def _show(self, row: dict[str, float]) -> None:
        self._write()
        plot_curves(self.rows, self._plot)
        print_plain(self._console, self._line(row))

    @staticmethod
    def _line(row: dict[str, float]) -> str:
        apart = "  ".join(
            f"{k.partition('/')[2]} {v:.3f}" for k, v in row.items() if k.startswith("val_iou/")
        )
        return (
            f"epoch {row['epoch']:3.0f}  loss {row['train_loss']:.4f} / "
            f"{row['val_loss']:.4f}  IoU {row['train_iou']:.3f} / {row['val_iou']:.3f}  ({apart})  "
            f"lr {row['lr']:.1e}  {row['images_per_s']:.1f} img/s"
        )

    def _write(self) -> None:
        with (
            replacing(self._path) as partial,
            partial.open("w", newline="", encoding="utf-8") as stream,
        ):
            columns = dict.fromkeys(name for row in self.rows for name in row)
            writer = csv.DictWriter(stream, fieldnames=list(columns))
            writer.writeheader()
            for row in self.rows:
                writer.writerow({k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in row.items()})


class Best:
    """The best epoch by one figure so far."""

    def __init__(self, monitor: str, sign: int) -> None:
        self.monitor, self._sign = monitor, sign
        self.epoch, self.value = 0, math.nan

    def is_better(self, value: float) -> bool:
        return not math.isnan(value) and (
            self.epoch == 0 or self._sign * value > self._sign * self.value
        )


class Keeper(Checkpoint):
    """checkpoints/: `last.ckpt` to resume from, and the weights of the best epochs.

    Each file appears under its name when it is complete, so that a kill leaves the one before it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.best = {"best_iou": Best("val_iou", 1), "best_loss": Best("val_loss", -1)}

    @classmethod
    def of(cls, trainer: L.Trainer) -> Keeper:
        """That of a run."""
        return next(c for c in trainer.callbacks if isinstance(c, cls))  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return {name: (best.epoch, best.value) for name, best in self.best.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, (epoch, value) in state_dict.items():
            self.best[name].epoch, self.best[name].value = epoch, value

    def weights_path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        for name, best in self.best.items():
            value = pl_module.epoch_metrics[best.monitor]
            if best.is_better(value):
                best.epoch, best.value = trainer.current_epoch + 1, value
                self._keep(name, best.epoch, pl_module)
        last = self._folder / "last.ckpt"
        if trainer.is_global_zero:
            with replacing(last) as partial:
                trainer.save_checkpoint(partial)
        else:
            # The other processes wait for it in there, and write nothing.
            trainer.save_checkpoint(last)

    @rank_zero_only
    def _keep(self, name: str, epoch: int, task: Task) -> None:
        weights = {k: v.detach().cpu().contiguous() for k, v in task.best_net.state_dict().items()}
        with replacing(self.weights_path(name)) as partial:
            save_file(weights, partial, metadata={"epoch": str(epoch)})


class EpochBar(Callback):
    """A progress bar on stderr while an epoch runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None

    @staticmethod
    def columns() -> tuple[Any, ...]:
        return (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._task = self._progress.add_task(
            f"epoch {trainer.current_epoch + 1}", total=int(trainer.num_training_batches)
        )

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress.advance(self._task)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress.remove_task(self._task)
