"""The refinement of a trained segmenter, a run within the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
from rich.console import Console

from rooftrace.core.errors import ConfigError
from rooftrace.models.pix2pix import Generator, PatchDiscriminator
from rooftrace.train.config import StopConfig, TrainConfig
from rooftrace.train.fit import FitResult
from rooftrace.train.record import check_whole
from rooftrace.train.refine_task import RefineTask
from rooftrace.train.schedule import ScheduleConfig
from rooftrace.train.trainer import Trained, begin, run_trainer
from rooftrace.train.watch import make_watchers
from rooftrace.train.weights import load_weights

__all__ = ["REFINED_FROM", "Refined", "refine"]

REFINED_FROM = "best_iou"
"""Which of the segmenter's best epochs is refined."""


@dataclass(frozen=True)
class Refined:
    """What a refinement came to.

    Args:
        generator: the network, as it was after the last epoch.
    """

    trained: Trained
    generator: Generator

    def load_best(self) -> int:
        """Load the weights of the epoch with the highest `val_iou`, and say which it is."""
        epoch, _, weights = self.trained.best["best_iou"]
        load_weights(self.generator, weights)
        return epoch


def refine(
    config: TrainConfig,
    result: FitResult,
    run: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> Refined:
    """Train a refiner over the segmenter's best epoch, and leave in `run`/refine what `fit` leaves
    in `run`.

    Args:
        config: with `refine`.
        result: of the segmenter's training; its network gets the weights of `REFINED_FROM`.
        resume: go on after the last finished epoch of the refiner, if it has one.

    Raises:
        ConfigError: the refiner's batches are larger than an epoch; the refiner that is to be
            resumed was trained over other weights; see `run_trainer`.
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
            # The second head rests, too.
            "separation": None,
        }
    )
    if len(result.data.samples) < own.batch_size:
        raise ConfigError(
            f"refine.batch_size = {own.batch_size} is more than an epoch has samples: "
            f"{len(result.data.samples)}.",
            remedy="Lower it, or raise samples_per_epoch.",
        )
    weights = result.trained.best[REFINED_FROM][2]
    load_weights(result.net, weights)
    # Once more, so that it begins alike whether the segmenter was trained before or is resumed.
    begin(config)
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
    last = folder / "checkpoints" / "last.ckpt"
    resume = resume and last.is_file()
    if resume:
        check_whole(last)
    trained = run_trainer(
        task, result.data, own, folder, resume=resume, console=console,
        callbacks=make_watchers(own, folder, result.data, console=console),
    )  # fmt: skip
    return Refined(trained, generator)
