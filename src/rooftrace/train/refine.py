"""The refinement of a trained segmenter, as a run within the run.

A step trains the discriminator first, then the generator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.models.losses import masked_mean, one_hot, parse_loss, probabilities
from rooftrace.models.pix2pix import Generator, PatchDiscriminator
from rooftrace.train.checkpoint import (
    check_epochs,
    check_state_dict,
    last_checkpoint,
    load_weights,
    read_checkpoint,
)
from rooftrace.train.config import RefineConfig, ScheduleConfig, TrainConfig
from rooftrace.train.datamodule import Batch
from rooftrace.train.early_stopping import StopConfig
from rooftrace.train.loop import FitResult, prepare_process, run_trainer
from rooftrace.train.task import MetricAccumulator, TrainingTask, mean_known


class RefineTask(TrainingTask):
    """A conditional GAN over a segmenter whose weights do not change.

    Figures of an epoch besides the usual ones: `train_loss` and `val_loss` compare map and label
    pixel by pixel (λ · L1, and the run's loss by its weight); `train_l1` and `val_l1` are the L1
    alone; `train_loss_generator` is the whole loss of the generator; `train_loss_discriminator`
    that of the discriminator. `val_iou_coarse` (and `/FOLDER`) and `val_boundary_iou_coarse` are
    those of the segmenter.

    Args:
        segmenter: Network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.
        config: Configuration of the run, with `refine`.
        mean, std: One value per band, in pixel values.
        val_names: Names of the validation folders, in the order of their loaders.
        fingerprint: Hash of the segmenter's weights; a checkpoint over other weights is refused.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        generator: Generator,
        discriminator: PatchDiscriminator,
        config: TrainConfig,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        val_names: Sequence[str],
        fingerprint: str,
    ) -> None:
        super().__init__(config, mean=mean, std=std, val_names=val_names)
        self.automatic_optimization = False
        self.segmenter = segmenter.requires_grad_(False)
        self.generator = generator
        self.discriminator = discriminator
        self.to(memory_format=torch.channels_last)
        self.train()
        self.loss = parse_loss(config.loss)
        self._fingerprint = fingerprint
        self._building = config.data.labels.building_class
        self._begin_training()
        self._begin_validation()

    @property
    def settings(self) -> RefineConfig:
        settings = self.config.refine
        assert settings is not None
        return settings

    @property
    def clip_norm(self) -> float:
        """Always 0: the paper clips no gradient."""
        return 0.0

    @property
    def metric_names(self) -> tuple[str, ...]:
        own = ("l1", "loss_generator", "loss_discriminator")
        both = [f"val_{figure}{of}" for figure in ("iou", "boundary_iou") for of in ("", "_coarse")]
        coarse = (f"val_iou_coarse/{name}" for name in self.val_names)
        parts = (*(f"train_{name}" for name in own), "val_l1", *both, *coarse)
        return tuple(dict.fromkeys((*super().metric_names, *parts)))

    @property
    def best_net(self) -> nn.Module:
        return self.generator

    @property
    def learning_rate(self) -> float:
        return self.settings.lr

    def train(self, mode: bool = True) -> RefineTask:
        """Set the mode of all but the segmenter, which is never trained."""
        super().train(mode)
        self.segmenter.eval()
        return self

    def predict_logits(self, images: Tensor) -> Tensor:
        refined, _ = self._both(self.normalise(images))
        return refined

    def training_step(self, batch: Batch, index: int) -> None:
        del index
        image = self.normalise(batch.images)
        for_generator, for_discriminator = self._optimizers()
        logits, _ = self._both(image)
        truth, drawn, known = self._maps(logits, batch)

        real = self.discriminator(image, truth)
        fake = self.discriminator(image, drawn.detach())
        # Halved, as in the paper: the discriminator learns at half the rate.
        discriminator_loss = (
            adversarial_loss(real, known, True) + adversarial_loss(fake, known, False)
        ) / 2
        self._step(for_discriminator, discriminator_loss)

        self.discriminator.requires_grad_(False)
        generator_loss = adversarial_loss(self.discriminator(image, drawn), known, True)
        l1, pixelwise = self._pixelwise(logits, drawn, truth, batch)
        self._step(for_generator, generator_loss + pixelwise)
        self.discriminator.requires_grad_(True)

        self._train.add(logits.detach(), batch.targets, batch.valid, pixelwise.detach())
        self._parts.add(batch.valid, l1, generator_loss + pixelwise, discriminator_loss)

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        del index
        refined, coarse = self._both(self.normalise(batch.images))
        truth, drawn, _ = self._maps(refined, batch)
        l1, pixelwise = self._pixelwise(refined, drawn, truth, batch)
        self._refined[dataloader_idx].add(refined, batch, pixelwise)
        self._coarse[dataloader_idx].add(coarse, batch, pixelwise)
        self._val_l1.add(batch.valid, l1)

    def on_train_epoch_start(self) -> None:
        self._begin_training()

    def on_validation_epoch_start(self) -> None:
        self._begin_validation()

    def on_validation_epoch_end(self) -> None:
        """Collect the figures of the epoch, those of the segmenter beside those of the refiner."""
        l1, generator, discriminator = self._parts.means
        refined, coarse = self._refined, self._coarse
        ious = [folder.tally.iou for folder in coarse]
        self.epoch_metrics = {
            **self.figures_of(self._train, [folder.tally for folder in refined]),
            "train_l1": l1,
            "train_loss_generator": generator,
            "train_loss_discriminator": discriminator,
            "val_l1": self._val_l1.means[0],
            "val_boundary_iou": mean_known([folder.outlines.iou for folder in refined]),
            "val_iou_coarse": mean_known(ious),
            "val_boundary_iou_coarse": mean_known([folder.outlines.iou for folder in coarse]),
            **{f"val_iou_coarse/{n}": iou for n, iou in zip(self.val_names, ious)},
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        settings = self.settings
        return [
            torch.optim.Adam(net.parameters(), lr=settings.lr, betas=(settings.beta1, 0.999))
            for net in (self.generator, self.discriminator)
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segmenter"] = self._fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["segmenter"] != self._fingerprint:
            raise ConfigError(
                "The refiner was trained over another segmenter: the hash of its weights is "
                f"{checkpoint['segmenter'][:12]}…, but that of the run's best epoch is now "
                f"{self._fingerprint[:12]}….",
                remedy="Remove the folder refine/ of the run to refine the new segmenter.",
            )
        check_state_dict(checkpoint["state_dict"], self.state_dict(), "The refiner's last.ckpt")

    def _both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined and coarse logits (n, channel, y, x) of normalised pixels."""
        with torch.no_grad():
            coarse = self.segmenter(image).float()
        return self.generator(image, coarse).float(), coarse

    @staticmethod
    def _maps(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the label and the prediction as maps, and where the label is known.

        Both maps are 0 elsewhere, so that unknown pixels do not distinguish them.
        """
        known = batch.valid[:, None].float()
        target = batch.targets.long().masked_fill(~batch.valid, 0)
        return one_hot(target, logits) * known, probabilities(logits) * known, known

    def _pixelwise(
        self, logits: Tensor, drawn: Tensor, truth: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the L1, and the sum of all losses that compare pixel by pixel."""
        settings = self.settings
        l1 = map_difference(drawn, truth, batch.valid)
        total = settings.l1_weight * l1
        if settings.loss_weight:
            total = total + settings.loss_weight * self.loss(logits, batch.targets, batch.valid)
        return l1, total

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        both = self.optimizers()
        assert isinstance(both, list)
        generator, discriminator = both
        assert isinstance(generator, LightningOptimizer)
        assert isinstance(discriminator, LightningOptimizer)
        return generator, discriminator

    def _begin_training(self) -> None:
        self._train = MetricAccumulator(self.classes)
        self._parts = _Means(3)

    def _begin_validation(self) -> None:
        self._refined = [_FolderAccumulator(self.classes, self._building) for _ in self.val_names]
        self._coarse = [_FolderAccumulator(self.classes, self._building) for _ in self.val_names]
        self._val_l1 = _Means(1)


class _Means:
    """Means of several figures over batches, each weighted by its samples with valid pixels."""

    def __init__(self, count: int) -> None:
        self._sums = torch.zeros(count + 1, dtype=torch.float64)

    def add(self, valid: Tensor, *values: Tensor) -> None:
        weight = valid.flatten(1).any(dim=1).sum().double()
        given = torch.stack([torch.ones_like(weight), *(v.detach().double() for v in values)])
        self._sums = self._sums.to(weight.device) + weight * given

    @property
    def means(self) -> list[float]:
        weight, *sums = self._sums.tolist()
        return [value / weight if weight else math.nan for value in sums]


class _FolderAccumulator:
    """Pixels and outlines of one validation folder."""

    def __init__(self, classes: int, building: int) -> None:
        self.tally = MetricAccumulator(classes)
        self.outlines = BoundaryCounts.zero()
        self._building = building

    def add(self, logits: Tensor, batch: Batch, loss: Tensor) -> None:
        self.tally.add(logits, batch.targets, batch.valid, loss)
        if logits.shape[1] == 1:
            predicted = logits[:, 0] > 0
        else:
            predicted = logits.argmax(dim=1) == self._building
        sides = (batch.targets == self._building, predicted, batch.valid)
        for truth, predicted, valid in zip(*(side.cpu().numpy() for side in sides)):
            self.outlines += BoundaryCounts.of(truth, predicted, valid)


def adversarial_loss(logits: Tensor, known: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's outputs, all of which should be `real`.

    Args:
        logits: (n, 1, patch, patch) logits.
        known: (n, 1, y, x) in 0..1; a patch is weighted by its share of known pixels.
        real: Whether the map is a label.
    """
    logits = logits.float()
    wanted = torch.full_like(logits, float(real))
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    share = F.adaptive_avg_pool2d(known, (logits.shape[-2], logits.shape[-1]))
    return (each * share).sum() / share.sum().clamp(min=torch.finfo(each.dtype).tiny)


def map_difference(drawn: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of two maps over valid pixels.

    With several channels half the sum is taken (the total variation distance). Two classes then
    have the same difference in one channel as in two, and λ means the same for any number.

    Args:
        drawn, truth: (n, channel, y, x) probabilities.
        valid: (n, y, x) bool.
    """
    each = (drawn - truth).abs().sum(dim=1)
    return masked_mean(each if drawn.shape[1] == 1 else each / 2, valid)


REFINED_EPOCH = "best_iou"
"""The best epoch of the segmenter that is refined."""


def refine(
    config: TrainConfig,
    result: FitResult,
    run: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train a refiner over the segmenter's best epoch, and write to `run`/refine what `fit` writes
    to `run`. The network of the result is the generator.

    Args:
        config: Configuration with `refine`.
        result: Result of the segmenter's training; its network gets the weights of `REFINED_EPOCH`.
        run: Folder of the run.
        resume: Continue after the last finished epoch of the refiner, if it has one.
        console: Console for progress; None prints nothing.
        callbacks: Further callbacks, see `run_trainer`.

    Raises:
        ConfigError: A batch of the refiner is larger than an epoch; the refiner to resume was
            trained over other weights, or has more epochs already; see also `run_trainer`.
    """
    settings = config.refine
    assert settings is not None
    folder = run / "refine"
    own = config.model_copy(
        update={
            "epochs": settings.epochs,
            "batch_size": settings.batch_size or config.batch_size,
            "stop": StopConfig(patience=settings.patience),
            "schedule": ScheduleConfig(),
        }
    )
    if len(result.data.samples) < own.batch_size:
        raise ConfigError(
            f"refine.batch_size = {own.batch_size} is more than an epoch has samples: "
            f"{len(result.data.samples)}.",
            remedy="Lower it, or raise samples_per_epoch.",
        )
    weights = result.trained.best[REFINED_EPOCH][2]
    load_weights(result.net, weights)
    # Seeded again, so that the start is the same after training and after resuming the segmenter.
    prepare_process(config)
    bands, channels = result.data.samples.bands, config.data.labels.channels
    generator = Generator(
        bands, channels, filters=settings.filters, depth=settings.depth,
        dropout=settings.dropout, residual=settings.residual,
    )  # fmt: skip
    discriminator = PatchDiscriminator(
        bands, channels, filters=settings.discriminator_filters,
        layers=settings.discriminator_layers,
    )  # fmt: skip
    mean, std = result.data.statistics
    task = RefineTask(
        result.net, generator, discriminator, own, mean=mean, std=std,
        val_names=[tiles.name for tiles in result.data.tiles],
        fingerprint=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )  # fmt: skip
    last = last_checkpoint(folder)
    resume = resume and last.is_file()
    if resume:
        check_epochs(read_checkpoint(last), folder, settings.epochs, "refine.epochs")
    trained = run_trainer(
        task, result.data, own, folder, resume=resume, console=console, callbacks=callbacks
    )
    return replace(result, trained=trained, net=generator)
