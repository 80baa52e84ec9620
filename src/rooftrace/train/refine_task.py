"""What a step of the refinement is: the discriminator's, then the generator's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.models.losses import parse_loss, probabilities
from rooftrace.models.losses.base import masked_mean, one_hot
from rooftrace.models.pix2pix import Generator, PatchDiscriminator
from rooftrace.train.config import TrainConfig
from rooftrace.train.loader import Batch
from rooftrace.train.refine_config import RefineConfig
from rooftrace.train.task import Tally, Task
from rooftrace.train.weights import check_weights

__all__ = ["RefineTask", "adversarial_loss", "map_difference"]


class RefineTask(Task):
    """A conditional GAN over a segmenter that stays as it is.

    Figures of an epoch besides the usual ones: `train_loss` and `val_loss` are what compares map
    and label pixel by pixel (λ · L1, and the run's loss by its weight), `train_l1` and `val_l1`
    the L1 alone, `train_loss_generator` all that the generator is trained on,
    `train_loss_discriminator` the discriminator's; `val_iou_coarse` (and `/FOLDER`) is the
    segmenter's own, and so with `val_boundary_iou`.

    Args:
        segmenter: (n, band, y, x) normalised pixels to (n, output, y, x) logits, classes first.
        config: of the run, with `refine`.
        mean, std: per band, in pixel values.
        val_names: of the validation folders, in the order of their loaders.
        fingerprint: of the segmenter's weights; a checkpoint over other weights is refused.
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
        """The paper cuts no gradient."""
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
        """The segmenter is never trained: its BatchNorm and dropout rest."""
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
        judging = (adversarial_loss(real, known, True) + adversarial_loss(fake, known, False)) / 2
        self._step(for_discriminator, judging)

        self.discriminator.requires_grad_(False)
        fooling = adversarial_loss(self.discriminator(image, drawn), known, True)
        l1, pixelwise = self._pixelwise(logits, drawn, truth, batch)
        self._step(for_generator, fooling + pixelwise)
        self.discriminator.requires_grad_(True)

        self._train.add(logits.detach(), batch.targets, batch.valid, pixelwise.detach())
        self._parts.add(batch.valid, l1, fooling + pixelwise, judging)

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
        """Gather the figures of the epoch, the segmenter's beside the refiner's."""
        l1, generator, discriminator = self._parts.means
        refined, coarse = self._refined, self._coarse
        figures = {
            "train_loss": self._train.loss,
            "train_iou": self._train.iou,
            "train_dice": self._train.dice,
            "train_accuracy": self._train.counts.accuracy,
            "train_l1": l1,
            "train_loss_generator": generator,
            "train_loss_discriminator": discriminator,
            "val_loss": float(np.mean([folder.tally.loss for folder in refined])),
            "val_dice": _mean_known([folder.tally.dice for folder in refined]),
            "val_accuracy": float(np.mean([folder.tally.counts.accuracy for folder in refined])),
            "val_l1": self._val_l1.means[0],
        }
        for suffix, folders in (("", refined), ("_coarse", coarse)):
            ious = [folder.tally.iou for folder in folders]
            figures[f"val_iou{suffix}"] = _mean_known(ious)
            figures[f"val_boundary_iou{suffix}"] = _mean_known([f.outlines.iou for f in folders])
            figures |= {f"val_iou{suffix}/{n}": iou for n, iou in zip(self.val_names, ious)}
        self.epoch_metrics = figures

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
                "The refiner was trained over another segmenter: its weights are "
                f"{checkpoint['segmenter'][:12]}…, those of the run's best epoch are now "
                f"{self._fingerprint[:12]}….",
                remedy="Remove the folder refine/ of the run to refine the new one.",
            )
        check_weights(checkpoint["state_dict"], self.state_dict(), "The refiner's last.ckpt")

    def _both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Refined and coarse logits (n, channel, y, x) of normalised pixels."""
        with torch.no_grad():
            coarse = self.segmenter(image)[:, : self.generator.channels].float()
        return self.generator(image, coarse).float(), coarse

    @staticmethod
    def _maps(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The label and the answer as maps, and where they are known; both are 0 elsewhere, so that
        nothing there tells one from the other.
        """
        known = batch.valid[:, None].float()
        target = batch.targets.long().masked_fill(~batch.valid, 0)
        return one_hot(target, logits) * known, probabilities(logits) * known, known

    def _pixelwise(
        self, logits: Tensor, drawn: Tensor, truth: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """The L1, and all that compares pixel by pixel."""
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
        self._train = Tally(self.classes)
        self._parts = _Means(3)

    def _begin_validation(self) -> None:
        self._refined = [_Folder(self.classes, self._building) for _ in self.val_names]
        self._coarse = [_Folder(self.classes, self._building) for _ in self.val_names]
        self._val_l1 = _Means(1)


class _Means:
    """Of several figures over batches, each by its samples with valid pixels, as in `Tally`."""

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


class _Folder:
    """Pixels and outlines of one validation folder."""

    def __init__(self, classes: int, building: int) -> None:
        self.tally = Tally(classes)
        self.outlines = BoundaryCounts.zero()
        self._building = building

    def add(self, logits: Tensor, batch: Batch, loss: Tensor) -> None:
        self.tally.add(logits, batch.targets, batch.valid, loss)
        if logits.shape[1] == 1:
            answered = logits[:, 0] > 0
        else:
            answered = logits.argmax(dim=1) == self._building
        sides = (batch.targets == self._building, answered, batch.valid)
        for truth, predicted, valid in zip(*(side.cpu().numpy() for side in sides)):
            self.outlines += BoundaryCounts.of(truth, predicted, valid)


def adversarial_loss(verdict: Tensor, known: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's answers, all of which should be `real`.

    Args:
        verdict: (n, 1, patch, patch) logits.
        known: (n, 1, y, x) in 0..1; a patch counts by its share of known pixels.
    """
    verdict = verdict.float()
    wanted = torch.full_like(verdict, float(real))
    each = F.binary_cross_entropy_with_logits(verdict, wanted, reduction="none")
    share = F.adaptive_avg_pool2d(known, (verdict.shape[-2], verdict.shape[-1]))
    return (each * share).sum() / share.sum().clamp(min=torch.finfo(each.dtype).tiny)


def map_difference(drawn: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of two maps over valid pixels.

    Of several channels half the sum is taken (the total variation distance), so that two classes
    give the same in one channel as in two, and λ means the same for any number.

    Args:
        drawn, truth: (n, channel, y, x) probabilities.
        valid: (n, y, x) bool.
    """
    each = (drawn - truth).abs().sum(dim=1)
    return masked_mean(each if drawn.shape[1] == 1 else each / 2, valid)


def _mean_known(values: Sequence[float]) -> float:
    """Over the folders that have the class at all; 0 where none has."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else 0.0
