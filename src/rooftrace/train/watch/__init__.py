"""Who else is told of a run: a picture of its predictions, TensorBoard, MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from rich.console import Console

    from rooftrace.train.config import TrainConfig
    from rooftrace.train.feed import TrainingData

__all__ = ["make_watchers"]


def make_watchers(
    config: TrainConfig, run: Path, data: TrainingData, *, console: Console | None = None
) -> list[Callback]:
    """The callbacks that `config.watch` asks for; they come after the run's `Recorder`.

    Raises:
        MissingExtraError: TensorBoard or MLflow is asked for, and not installed.
        ConfigError: the MLflow server does not answer.
    """
    # Each only where it is asked for: the configuration is part of this package, too.
    watchers: list[Callback] = []
    if config.watch.panel:
        from rooftrace.train.watch.panel import Panel

        watchers.append(Panel(run, data.tiles, config))
    if config.watch.tensorboard:
        from rooftrace.train.watch.tensorboard import TensorBoard

        watchers.append(TensorBoard(run))
    if config.watch.mlflow:
        from rooftrace.train.watch.mlflow import Mlflow

        watchers.append(Mlflow(config, run, console))
    return watchers
