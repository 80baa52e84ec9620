"""What a training step and a validation step are, in Lightning's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.losses import parse_loss
from rooftrace.models.separation import separation_loss
from rooftrace.train.config import TrainConfig
from rooftrace.train.distributed import add_up, average_buffers
from rooftrace.train.loader import Batch
from rooftrace.train.optimizer import make_optimizer
from rooftrace.train.schedule import Schedule
from rooftrace.train.weights import check_weights

__all__ = ["SegmentationTask", "Tally", "Task"]


class Task(L.LightningModule):
    """What is trained, as the callbacks and the trainer see it.

    Args:
        config: of the run.
        mean, std: per band, in pixel values.
        val_names: of the validation folders, in the order of their loaders.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        val_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.config = config
        self.val_names = tuple(val_names)
        self.classes = len(config.data.labels.classes)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.epoch_metrics: dict[str, float] = {}
        """Of the epoch that was just validated: `train_*`, `val_*` and `val_iou/FOLDER`."""

    @property
    def clip_norm(self) -> float:
        """What the trainer cuts the gradient's norm to; 0 cuts nothing."""
        return self.config.optimizer.clip_norm

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `epoch_metrics` is going to hold."""
        kinds = ("loss", "iou", "dice", "accuracy")
        folders = (f"val_iou/{name}" for name in self.val_names)
        return (*(f"{part}_{kind}" for part in ("train", "val") for kind in kinds), *folders)

    @property
    def best_net(self) -> nn.Module:
        """The network that is validated, kept and shipped."""
        raise NotImplementedError

    @property
    def learning_rate(self) -> float:
        """As it was in the last step."""
        raise NotImplementedError

    def predict_logits(self, images: Tensor) -> Tensor:
        """Pixel values (n, band, y, x) to logits (n, channel, y, x), by `best_net`."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class SegmentationTask(Task):
    """A network with its loss, optimiser and counts.

    Args:
        net: (n, band, y, x) normalised pixels to (n, output, y, x) logits.
        mean, std: per band, in pixel values.
        val_names: of the validation folders, in the order of their loaders.
        total_steps: of the optimiser in the whole run.
    """

    def __init__(
        self,
        net: nn.Module,
        config: TrainConfig,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        val_names: Sequence[str],
        total_steps: int,
    ) -> None:
        super().__init__(config, mean=mean, std=std, val_names=val_names)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decay = config.optimizer.ema_decay
        self.average = (
            AveragedModel(net, multi_avg_fn=_averaging(decay), use_buffers=True) if decay else None
        )
        if self.average is not None:
            self.average.requires_grad_(False)
        self.loss = parse_loss(config.loss)
        self.schedule = Schedule(
            config.schedule, base_lr=config.optimizer.lr, total_steps=total_steps
        )
        self._train = Tally(self.classes)
        self._val = [Tally(self.classes) for _ in val_names]

    @property
    def best_net(self) -> nn.Module:
        """The average, where there is one."""
        module = self.net if self.average is None else self.average.module
        assert isinstance(module, nn.Module)
        return module

    def predict_logits(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.best_net(self.normalise(images))
        return outputs if self.config.separation is None else outputs[:, :-1]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        del index
        logits, loss = self._judged(self.net(self.normalise(batch.images)), batch)
        self._train.add(logits.detach(), batch.targets, batch.valid, loss.detach())
        return loss

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        del index
        # In parts of what this device trains on, which is what it has the memory for.
        share = self.config.batch_size // self.config.processes
        parts = torch.split(batch.images, share)
        outputs = torch.cat([self.best_net(self.normalise(part)) for part in parts])
        logits, loss = self._judged(outputs, batch)
        self._val[dataloader_idx].add(logits, batch.targets, batch.valid, loss)

    def _judged(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits of the classes, and the loss of all outputs."""
        if self.config.separation is None:
            return outputs, self.loss(outputs, batch.targets, batch.valid)
        assert batch.separation is not None
        logits = outputs[:, :-1]
        loss = self.loss(logits, batch.targets, batch.valid)
        parting = separation_loss(outputs[:, -1], batch.separation, batch.valid)
        return logits, loss + self.config.separation.weight * parting

    def on_train_epoch_start(self) -> None:
        self._train = Tally(self.classes)

    def on_validation_epoch_start(self) -> None:
        self._val = [Tally(self.classes) for _ in self.val_names]
        average_buffers(self.best_net)
        if self.average is not None:
            average_buffers(self.net)
            self.average.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        del batch, batch_idx
        factor = self.schedule.factor(self.global_step, self.current_epoch)
        for group in self._groups():
            group["lr"] = group["base_lr"] * factor

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        del outputs, batch, batch_idx
        if self.average is not None and self.global_step > int(self.average.n_averaged):
            self.average.update_parameters(self.net)

    def on_validation_epoch_end(self) -> None:
        """Gather the figures of the epoch: training beside validation, each folder apart."""
        for tally in (self._train, *self._val):
            tally.gather()
        ious = [tally.iou for tally in self._val]
        figures = {
            "train_loss": self._train.loss,
            "train_iou": self._train.iou,
            "train_dice": self._train.dice,
            "train_accuracy": self._train.counts.accuracy,
            "val_loss": float(np.mean([tally.loss for tally in self._val])),
            "val_iou": _mean_known(ious),
            "val_dice": _mean_known([tally.dice for tally in self._val]),
            "val_accuracy": float(np.mean([tally.counts.accuracy for tally in self._val])),
        }
        figures |= {f"val_iou/{n}": iou for n, iou in zip(self.val_names, ious)}
        self.epoch_metrics = figures
        self.schedule.observe(figures)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.config.optimizer, self.net)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning's own refuses a fused optimiser, which may scale gradients: not so on a CPU.
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.net.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["schedule"] = self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_weights(checkpoint["state_dict"], self.state_dict(), "The run's last.ckpt")
        self.schedule.load_state_dict(checkpoint["schedule"])

    def _groups(self) -> list[dict[str, Any]]:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        groups: list[dict[str, Any]] = optimizer.param_groups
        return groups

    @property
    def learning_rate(self) -> float:
        """Of the last group."""
        return float(self._groups()[-1]["lr"])


Tensors = tuple[Tensor, ...] | list[Tensor]


def _averaging(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """The exponential average, which forgets the first steps faster: without it the average of a
    short run is mostly what the network began with. As in TensorFlow's `ExponentialMovingAverage`,
    the decay after n updates is at most (1 + n) / (10 + n).
    """

    @torch.no_grad()
    def update(average: Tensors, current: Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        share = 1 - min(decay, (1 + count) / (10 + count))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, share)
        else:  # counters
            torch._foreach_copy_(average, current)

    return update


class Tally:
    """Counts and losses of one epoch; on the device until they are asked for.

    The loss of an epoch is the mean of its batches, each by its samples with valid pixels.

    Args:
        classes: how many; their logits have one channel where they are two.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._matrix: Tensor | None = None
        self._losses: Tensor | None = None

    def add(self, logits: Tensor, target: Tensor, valid: Tensor, loss: Tensor) -> None:
        predicted = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
        cells = (target.long() * self._classes + predicted)[valid]
        counted = torch.bincount(cells, minlength=self._classes**2)
        self._matrix = counted if self._matrix is None else self._matrix + counted
        weight = valid.flatten(1).any(dim=1).sum().double()
        # Where nothing is valid, there is no loss: 0 times it may be no number.
        weighted = torch.where(weight > 0, loss.double() * weight, 0.0)
        judged = torch.stack([weighted, weight])
        self._losses = judged if self._losses is None else self._losses + judged

    def gather(self) -> None:
        """Add up what all processes have counted; every one of them must ask, and once."""
        if self._matrix is not None and self._losses is not None:
            self._matrix, self._losses = add_up(self._matrix), add_up(self._losses)

    @property
    def counts(self) -> PixelCounts:
        if self._matrix is None:
            return PixelCounts.zero(self._classes)
        return PixelCounts(self._matrix.cpu().numpy().reshape(self._classes, self._classes))

    @property
    def loss(self) -> float:
        if self._losses is None:
            return float("nan")
        total, weight = self._losses.tolist()
        return float(total / weight) if weight else float("nan")

    @property
    def iou(self) -> float:
        """Of the second class where there are two, else the mean over classes."""
        return self.counts.iou(1) if self._classes == 2 else self.counts.mean_iou

    @property
    def dice(self) -> float:
        """As `iou`."""
        return self.counts.dice(1) if self._classes == 2 else self.counts.mean_dice


def _mean_known(values: Sequence[float]) -> float:
    """Over the folders that have the class at all; 0 where none has."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0
