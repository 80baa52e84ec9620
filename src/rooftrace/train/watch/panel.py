"""What the network makes of some validation tiles, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from rooftrace.core.types import Sample
from rooftrace.data.dataset import EvalTiles
from rooftrace.io.atomic import write_atomically
from rooftrace.io.legend import Legend
from rooftrace.train.callbacks import Recorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.loader import collate
from rooftrace.train.task import Task
from rooftrace.train.watch.drawing import Shown, draw_panel

__all__ = ["Panel", "choose_tiles"]

_LOOKED_AT = 3
"""Tiles that one place of the panel is chosen from."""


class Panel(Callback):
    """panel.png, drawn again after each epoch, and panel_best.png, that of the best `val_iou`.

    Those in between are not kept: they would be many, and TensorBoard holds the best of them.

    Args:
        run: folder of the run.
        tiles: of the validation folders.
    """

    def __init__(self, run: Path, tiles: Sequence[EvalTiles], config: TrainConfig) -> None:
        self._run, self._tiles, self._config = run, tiles, config
        self._chosen: list[tuple[int, int]] | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Task)
        if self._chosen is None:
            self._chosen = choose_tiles(self._tiles, self._config.watch.panel)
        recorder = Recorder.of(trainer)
        row = recorder.rows[-1]
        shown = []
        for first in range(0, len(self._chosen), self._config.batch_size):
            part = self._chosen[first : first + self._config.batch_size]
            samples = [self._tiles[folder][index] for folder, index in part]
            answers = _predict(pl_module, samples)
            shown += [
                Shown(self._tiles[folder].name, s.image, s.target, s.valid, answer)
                for (folder, _), s, answer in zip(part, samples, answers)
            ]
        labels = self._config.data.labels
        picture = draw_panel(
            shown,
            legend=Legend(labels.classes, labels.drawn_in()),
            title=f"epoch {row['epoch']:.0f}, validation IoU {row['val_iou']:.3f}",
        )
        write_atomically(self._run / "panel.png", picture)
        if recorder.is_best:
            write_atomically(self._run / "panel_best.png", picture)


def choose_tiles(tiles: Sequence[EvalTiles], count: int) -> list[tuple[int, int]]:
    """At most `count` tiles as (folder, index): folders in turn, and spread over each.

    Of neighbours one is taken that shows something, where there is one. The choice is the same each
    time, so that the panels of two epochs, and of two runs on the same data, can be compared.
    """
    places = [0] * len(tiles)
    while sum(places) < count:
        open_yet = [f for f, part in enumerate(tiles) if places[f] < len(part)]
        if not open_yet:
            break
        for folder in open_yet[: count - sum(places)]:
            places[folder] += 1
    chosen = []
    for folder, wanted in enumerate(places):
        bounds = np.linspace(0, len(tiles[folder]), wanted + 1).astype(int)
        for low, high in pairwise(bounds):
            chosen.append((folder, _telling(tiles[folder], range(low, high))))
    return chosen


def _telling(tiles: EvalTiles, places: range) -> int:
    """Of three tiles the one that shows most; where they show nothing, the first that does."""
    near = places[:: max(1, len(places) // _LOOKED_AT)]
    best = max(near, key=lambda index: _content(tiles[index]))
    if _content(tiles[best])[0] == 0:
        there = (index for index in places if _content(tiles[index])[0] > 0)
        best = next(there, best)
    return best


def _content(sample: Sample) -> tuple[float, float]:
    """Share of the pixels that are known and not background; and of those that are known."""
    return float(((sample.target > 0) & sample.valid).mean()), float(sample.valid.mean())


def _predict(task: Task, samples: Sequence[Sample]) -> NDArray[Any]:
    """(n, class, y, x) probabilities, or (n, 1, y, x) of the only class there is to find.

    The task is left as it was: what its layers count while they train must not see these tiles.
    """
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    try:
        with torch.inference_mode(), task.trainer.precision_plugin.val_step_context():
            logits = task.predict_logits(collate(samples).images.to(task.device))
    finally:
        for module, mode in modes:
            module.training = mode
    values = logits[:, : task.config.data.labels.channels].float()
    found = values.sigmoid() if values.shape[1] == 1 else values.softmax(dim=1)
    answer: NDArray[Any] = found.cpu().numpy()
    return answer
