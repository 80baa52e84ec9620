"""A training run, from its configuration to the weights of its best epochs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
from rich.console import Console
from torch import nn

from rooftrace.io.console import print_plain
from rooftrace.models.fingerprint import Fingerprint, fingerprint_of
from rooftrace.models.zoo import build_model, check_side
from rooftrace.train.config import TrainConfig
from rooftrace.train.distributed import is_first
from rooftrace.train.feed import TrainingData, open_data
from rooftrace.train.record import prepare
from rooftrace.train.task import SegmentationTask
from rooftrace.train.trainer import OnEpoch, Trained, begin, run_trainer
from rooftrace.train.watch import make_watchers

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Args:
        net: the network, to load the weights of `trained.best` into.
        gsd_m: metres per pixel of the model, if it knows any.
    """

    trained: Trained
    net: nn.Module
    data: TrainingData
    gsd_m: float | None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """By what the scenes that were trained on are known again; taken when first asked for."""
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
) -> FitResult:
    """Train, and leave in `run`: config.json, metrics.csv, curves.png, checkpoints/, and what
    `config.watch` asks for.

    Args:
        base: folder that relative paths of the configuration start from.
        resume: go on after the last finished epoch of the run that is in the folder.
        console: where progress is shown; None shows nothing.
        on_epoch: sees the figures of each epoch.

    Raises:
        ConfigError: the folder holds a run already, or none where one is to be resumed, or one of
            another configuration; the network does not take such crops; an MLflow server does not
            answer.
        MissingExtraError: see `train.watch.make_watchers`.
    """
    if not is_first(config):
        console = None
    prepare(config, run, base, run / "checkpoints" / "last.ckpt", resume=resume)
    begin(config)
    data = open_data(config, base)
    for note in data.notes:
        print_plain(console, note)
    net = build_model(config.model, bands=data.samples.bands, channels=config.outputs, base=base)
    check_side(net, data.samples.bands, config.crop_px, "crop_px")
    if config.val_crop_px is not None:
        check_side(net, data.samples.bands, config.val_crop_px, "val_crop_px")
    mean, std = data.statistics
    steps = len(data.samples) // config.samples_per_step
    task = SegmentationTask(
        net,
        config,
        mean=mean,
        std=std,
        val_names=[tiles.name for tiles in data.tiles],
        total_steps=steps * config.epochs,
    )
    trained = run_trainer(
        task,
        data,
        config,
        run,
        resume=resume,
        console=console,
        callbacks=make_watchers(config, run, data, console=console),
        on_epoch=on_epoch,
    )
    return FitResult(trained, net, data, config.gsd_m)
