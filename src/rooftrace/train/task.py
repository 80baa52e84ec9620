"""Lightning modules that are trained: their steps, optimiser, learning rate and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.losses import parse_loss
from rooftrace.train.checkpoint import check_state_dict
from rooftrace.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from rooftrace.train.datamodule import Batch
from rooftrace.train.depthwise import DepthwiseConv2d
from rooftrace.train.early_stopping import sign_of

_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def make_optimizer(config: OptimizerConfig, net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a network's weights, with those of its `encoder` in a group of their
    own.

    Each group of weights has a `base_lr`, which a schedule multiplies.
    """
    encoder = getattr(net, "encoder", None)
    in_encoder = {id(p) for p in encoder.parameters()} if encoder is not None else set()
    groups = []
    for inside, lr in ((True, config.encoder_lr or config.lr), (False, config.lr)):
        chosen = [p for p in net.parameters() if (id(p) in in_encoder) == inside]
        if chosen:
            groups.append({"params": chosen, "lr": lr, "base_lr": lr})
    # One fused loop over all weights takes a tenth of the time; on a GPU torch itself chooses.
    fused = True if all(p.device.type == "cpu" for p in net.parameters()) else None
    return _MAKERS[config.kind](groups, lr=config.lr, fused=fused, **config.own)


class Schedule:
    """The factor of the learning rate in each step.

    Args:
        config: Kind and parameters of the schedule.
        base_lr: Learning rate that the factor multiplies; `min_lr` is a rate, not a factor.
        total_steps: Steps of the optimiser in the whole run, for `cosine`.
    """

    def __init__(self, config: ScheduleConfig, *, base_lr: float, total_steps: int) -> None:
        self._kind, self._own, self._warmup = config.kind, config.own, config.warmup_steps
        self._lowest = min(1.0, self._own.get("min_lr", 0.0) / base_lr)
        self._total = max(1, total_steps)
        self.elapsed = 0.0
        """Share of the time of a run that is over; `cosine` falls with it if steps are late."""
        self._plateau = 1.0
        self._best = math.nan
        self._waited = 0

    def factor(self, step: int, epoch: int) -> float:
        """Return the factor for a step of the run and its epoch, both counted from 0."""
        rise = min(1.0, (step + 1) / (self._warmup + 1))
        if self._kind == "cosine":
            whole = max(1, self._total - self._warmup)
            share = min(1.0, max(0.0, (step - self._warmup) / whole, self.elapsed))
            wave = (1 + math.cos(math.pi * share)) / 2
            return rise * float(self._lowest + (1 - self._lowest) * wave)
        if self._kind == "step":
            fall: float = self._own["factor"] ** (epoch // self._own["step_epochs"])
            return rise * fall
        return rise * self._plateau

    def observe(self, figures: Mapping[str, float]) -> None:
        """Take the figures of an epoch into account; `plateau` may lower the rate.

        Raises:
            KeyError: `monitor` is not among them.
        """
        if self._kind != "plateau":
            return
        value = figures[self._own["monitor"]]
        sign = sign_of(self._own["monitor"], self._own["mode"])
        if sign * value > sign * self._best or (math.isnan(self._best) and not math.isnan(value)):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self._own["patience"]:
            self._plateau = max(self._lowest, self._plateau * self._own["factor"])
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._plateau, "best": float(self._best), "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plateau, self._best, self._waited = (
            state[key] for key in ("plateau", "best", "waited")
        )


def check_monitor(key: str, monitor: str, known: Collection[str]) -> None:
    """Raise ConfigError if a run has no figure with this name; the message lists those it has."""
    if monitor not in known:
        near = did_you_mean(monitor, known)
        raise ConfigError(
            f"{key} = {monitor!r} is not a figure of this run. {near}".strip(),
            remedy=f"Its figures: {', '.join(known)}.",
        )


class TrainingTask(L.LightningModule):
    """Interface of a task for the callbacks and the trainer.

    Args:
        config: Configuration of the run.
        mean, std: One value per band, in pixel values.
        val_names: Names of the validation folders, in the order of their loaders.

    Raises:
        ConfigError: A figure to monitor is not one of the task.
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
        check_monitor("stop.monitor", config.stop.monitor, self.metric_names)
        if config.schedule.monitor is not None:
            check_monitor("schedule.monitor", config.schedule.monitor, self.metric_names)
        self.epoch_metrics: dict[str, float] = {}
        """Figures of the epoch that was just validated: `train_*`, `val_*` and `val_iou/FOLDER`."""
        self.has_collapsed = False
        """True if the network did not distinguish any pixels in the last validation."""

    @property
    def clip_norm(self) -> float:
        """Maximum norm of the gradient; 0 clips nothing."""
        return self.config.optimizer.clip_norm

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the figures that `epoch_metrics` will hold."""
        kinds = ("loss", "iou", "dice", "accuracy")
        folders = (f"val_iou/{name}" for name in self.val_names)
        return (*(f"{part}_{kind}" for part in ("train", "val") for kind in kinds), *folders)

    @property
    def best_net(self) -> nn.Module:
        """The network that is validated, saved and exported."""
        raise NotImplementedError

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        raise NotImplementedError

    def predict_logits(self, images: Tensor) -> Tensor:
        """Return the logits (n, channel, y, x) of `best_net` for pixel values (n, band, y, x)."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def figures_of(
        self, train: MetricAccumulator, folders: Sequence[MetricAccumulator]
    ) -> dict[str, float]:
        """Return the figures of an epoch by the pixels of training and of each validation folder.

        Raises:
            DataError: No pixel of any validation folder was compared.
        """
        ious, judged = [folder.iou for folder in folders], with_pixels(folders)
        figures = {
            "train_loss": train.loss,
            "train_iou": train.iou,
            "train_dice": train.dice,
            "train_accuracy": train.counts.accuracy,
            "val_loss": float(np.mean([folder.loss for folder in judged])),
            "val_iou": mean_known(ious),
            "val_dice": mean_known([folder.dice for folder in folders]),
            "val_accuracy": float(np.mean([folder.counts.accuracy for folder in judged])),
        }
        return figures | {f"val_iou/{n}": iou for n, iou in zip(self.val_names, ious)}


class SegmentationTask(TrainingTask):
    """A network with its loss, optimiser and metrics.

    Args:
        net: Network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.
        mean, std: One value per band, in pixel values.
        val_names: Names of the validation folders, in the order of their loaders.
        total_steps: Steps of the optimiser in the whole run.
        from_start: Names of the network's weights that a start model gave; of these,
            `optimizer.freeze_statistics` keeps the statistics.
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
        from_start: Collection[str] = (),
    ) -> None:
        super().__init__(config, mean=mean, std=std, val_names=val_names)
        DepthwiseConv2d.take_over(net)
        # The types of PyTorch lack it.
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._from_start = frozenset(from_start)
        self.average = AveragedModel(net) if config.optimizer.ema_decay else None
        if self.average is not None:
            self.average.requires_grad_(False)
        self._averaging: _Averaging | None = None
        self.loss = parse_loss(config.loss)
        self.schedule = Schedule(
            config.schedule, base_lr=config.optimizer.lr, total_steps=total_steps
        )
        self._train = MetricAccumulator(self.classes)
        self._val = [MetricAccumulator(self.classes) for _ in val_names]
        self._spread = _Spread()

    def train(self, mode: bool = True) -> SegmentationTask:
        """Set the mode of all layers; BatchNorm with frozen statistics stays in evaluation mode."""
        super().train(mode)
        if self.config.optimizer.freeze_statistics:
            # A layer that the start model does not have has no statistics to keep.
            for name, module in self.net.named_modules():
                is_normalising = isinstance(module, nn.modules.batchnorm._BatchNorm)
                if is_normalising and f"{name}.running_mean" in self._from_start:
                    module.eval()
        return self

    @property
    def best_net(self) -> nn.Module:
        """The averaged network, if there is one."""
        module = self.net if self.average is None else self.average.module
        assert isinstance(module, nn.Module)
        return module

    def predict_logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.best_net(self.normalise(images))
        return logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        del index
        logits = self.net(self.normalise(batch.images))
        loss: Tensor = self.loss(logits, batch.targets, batch.valid)
        self._train.add(logits.detach(), batch.targets, batch.valid, loss.detach())
        return loss

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        del index
        logits = self.predict_logits(batch.images)
        loss = self.loss(logits, batch.targets, batch.valid)
        self._val[dataloader_idx].add(logits, batch.targets, batch.valid, loss)
        self._spread.add(logits, batch.valid)

    def on_train_epoch_start(self) -> None:
        self._train = MetricAccumulator(self.classes)

    def on_validation_epoch_start(self) -> None:
        self._val = [MetricAccumulator(self.classes) for _ in self.val_names]
        self._spread = _Spread()
        if self.average is not None:
            self.average.eval()

    def on_train_start(self) -> None:
        # After the weights were moved to the device, and those of a checkpoint were loaded.
        if self.average is not None:
            self._averaging = _Averaging(self.average, self.net, self.config.optimizer.ema_decay)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        del batch, batch_idx
        factor = self.schedule.factor(self.global_step, self.current_epoch)
        for group in self._groups():
            group["lr"] = group["base_lr"] * factor

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        del outputs, batch, batch_idx
        if self._averaging is not None and self.global_step > self._averaging.steps:
            self._averaging.update()

    def on_validation_epoch_end(self) -> None:
        """Collect the figures of the epoch: training, validation, and each folder by itself."""
        self.epoch_metrics = self.figures_of(self._train, self._val)
        self.has_collapsed = self._spread.is_none
        if not self.trainer.sanity_checking:
            self.schedule.observe(self.epoch_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.config.optimizer, self.net)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning's own method refuses fused optimisers, since these may scale gradients.
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.net.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["schedule"] = self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_state_dict(checkpoint["state_dict"], self.state_dict(), "The run's last.ckpt")
        self.schedule.load_state_dict(checkpoint["schedule"])

    def _groups(self) -> list[dict[str, Any]]:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        groups: list[dict[str, Any]] = optimizer.param_groups
        return groups

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last group."""
        return float(self._groups()[-1]["lr"])


_LEAST_SPREAD = 1e-3
"""Difference of probabilities below which two pixels are not distinguished."""


class _Spread:
    """Lowest and highest probability of each class in one validation.

    A network whose probabilities are nearly equal everywhere has collapsed: no threshold separates
    classes. One that predicts background everywhere at 0.5 may still be good at another threshold.
    """

    def __init__(self) -> None:
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def add(self, logits: Tensor, valid: Tensor) -> None:
        """Take the (n, channel, y, x) logits of valid pixels (n, y, x) into account."""
        found = logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)
        low = found.masked_fill(~valid[:, None], torch.inf).amin(dim=(0, 2, 3))
        high = found.masked_fill(~valid[:, None], -torch.inf).amax(dim=(0, 2, 3))
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)

    @property
    def is_none(self) -> bool:
        """True if pixels were compared, and none differs from another; NaN is no such answer."""
        if self._low is None or self._high is None:
            return False
        low, high = self._low, self._high
        return bool(((high >= low) & (high - low < _LEAST_SPREAD)).all())


class _Averaging:
    """Update of an exponential average that forgets the first steps faster.

    Without that, the average of a short run consists mostly of the initial weights. As in
    TensorFlow's `ExponentialMovingAverage`, the decay after n updates is at most (1 + n) / (10 +
    n). The update of `AveragedModel` lists all weights and waits for the device in each step.
    """

    def __init__(self, average: AveragedModel, net: nn.Module, decay: float) -> None:
        self._decay = decay
        self._counter = average.n_averaged
        self.steps = int(average.n_averaged)
        """Number of updates."""

        pairs = [*zip(_state(average.module), _state(net), strict=True)]
        self._values = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights; the first ones are copied, as are integers of any time."""
        share = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 1.0
        averages, values = zip(*self._values, strict=True)
        torch._foreach_lerp_(averages, values, share)
        for average, count in self._counts:
            average.copy_(count)
        self._counter += 1
        self.steps += 1


def _state(net: nn.Module) -> list[Tensor]:
    """Return the weights and buffers of a network."""
    return [*net.parameters(), *net.buffers()]


class MetricAccumulator:
    """Confusion matrix and loss of one epoch; both stay on the device until they are read.

    The loss of an epoch is the mean of its batches, each weighted by its samples with valid pixels.

    Args:
        classes: Number of classes; the logits of two classes have one channel.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._matrix: Tensor | None = None
        self._losses: Tensor | None = None

    def add(self, logits: Tensor, target: Tensor, valid: Tensor, loss: Tensor) -> None:
        predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(dim=1)
        cells = self._classes**2
        # Without `bincount` and selection, whose sizes a GPU would have to report in each step.
        cell = torch.where(valid, target.long() * self._classes + predicted, cells).flatten()
        counted = cell.new_zeros(cells + 1).scatter_add_(0, cell, torch.ones_like(cell))[:cells]
        self._matrix = counted if self._matrix is None else self._matrix + counted
        weight = valid.flatten(1).any(dim=1).sum().double()
        # Without a valid pixel the loss may be NaN, and so would be 0 times the loss.
        weighted = torch.where(weight > 0, loss.double() * weight, 0.0)
        judged = torch.stack([weighted, weight])
        self._losses = judged if self._losses is None else self._losses + judged

    @property
    def has_batches(self) -> bool:
        """True if a batch was added, even one without a valid pixel."""
        return self._matrix is not None

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
        """IoU of the second of two classes, else the mean over classes."""
        return self.counts.iou(1) if self._classes == 2 else self.counts.mean_iou

    @property
    def dice(self) -> float:
        """Dice of the second of two classes, else the mean over classes."""
        return self.counts.dice(1) if self._classes == 2 else self.counts.mean_dice


def with_pixels(tallies: Sequence[MetricAccumulator]) -> Sequence[MetricAccumulator]:
    """Return the accumulators of folders in which any pixel was compared; all before any batch."""
    judged = [tally for tally in tallies if tally.counts.pixels]
    if not judged and not any(tally.has_batches for tally in tallies):
        return tallies
    if not judged:
        raise DataError(
            "No pixel of the validation images has both a value and a label, so the model cannot "
            "be measured.",
            remedy="Check nodata, labels.ignore and the validation part with rooftrace inspect.",
        )
    return judged


def mean_known(values: Sequence[float]) -> float:
    """Return the mean over the folders that have the class; 0 if none has."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0
