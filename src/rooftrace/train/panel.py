"""A picture of predictions on some validation tiles: image, truth, prediction and errors.

`PanelCallback` draws it after each epoch of a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.types import GeoGrid, Mask, Sample
from rooftrace.io.files import write_atomically
from rooftrace.io.legend import Legend
from rooftrace.io.picture import side_by_side
from rooftrace.labels.config import LabelConfig
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.samples.dataset import EvalTiles
from rooftrace.train.callbacks import MetricsRecorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import collate
from rooftrace.train.task import TrainingTask

_CELL_PX = 200
_GAP_PX = 28
_LINE_PX = 24
_PAPER, _INK = (255, 255, 255), (30, 30, 30)

PanelTile = tuple[str, Sample, NDArray[np.uint8]]
"""Name of a folder, one of its tiles, and the (y, x) predicted classes."""


def draw_panel(tiles: Sequence[PanelTile], labels: LabelConfig, title: str) -> bytes:
    """Return a PNG with the pictures of `side_by_side`, two in a row from four tiles on."""
    legend = Legend(labels.classes, labels.class_colours())
    classes = len(labels.classes)
    sheets = []
    for name, sample, predicted in tiles:
        counts = PixelCounts.of(sample.target, predicted, sample.valid, classes=classes)
        iou = counts.iou(1) if classes == 2 else counts.mean_iou
        pixels, grid = sample.image, GeoGrid(sample.target.shape)
        if pixels.min(initial=0) >= 0 and 1 < pixels.max(initial=0) <= 255:
            # Images of 8 bits are shown as they are, others stretched.
            pixels = pixels.round().astype(np.uint8)
        drawn = side_by_side(
            pixels, Mask(sample.target, sample.valid, grid),
            Mask(predicted, np.ones_like(sample.valid), grid), "", legend,
            building_class=labels.building_class, panel_px=_CELL_PX,
        )  # fmt: skip
        caption = f"{name}: IoU {iou:.2f}" if np.isfinite(iou) else f"{name}: nothing to find"
        sheets.append((caption, Image.fromarray(drawn)))
    columns = 2 if len(sheets) > 3 else 1
    width = max((sheet.width for _, sheet in sheets), default=4 * _CELL_PX)
    height = max((sheet.height for _, sheet in sheets), default=0) + _LINE_PX
    size = columns * (width + _GAP_PX) - _GAP_PX, -(-len(sheets) // columns) * height + _LINE_PX
    page = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    pen.text((4, 4), title, fill=_INK, font=font)
    for number, (caption, sheet) in enumerate(sheets):
        line, column = divmod(number, columns)
        left, top = column * (width + _GAP_PX), line * height + _LINE_PX
        pen.text((left + 4, top + 3), caption, fill=_INK, font=font)
        page.paste(sheet, (left, top + _LINE_PX))
    stream = io.BytesIO()
    page.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


_CANDIDATES = 3
"""Number of tiles from which one place of the panel is chosen."""


class PanelCallback(Callback):
    """Writes panel.png after each epoch, and panel_best.png for the best `val_iou`.

    Args:
        run: Folder of the run.
        tiles: Tiles of the validation folders.
    """

    def __init__(self, run: Path, tiles: Sequence[EvalTiles], config: TrainConfig) -> None:
        self._run, self._tiles, self._config = run, tiles, config
        self._chosen: list[tuple[int, int]] | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        if self._chosen is None:
            self._chosen = choose_tiles(self._tiles, self._config.watch.panel)
        recorder = MetricsRecorder.of(trainer)
        row = recorder.rows[-1]
        tiles: list[PanelTile] = []
        for first in range(0, len(self._chosen), self._config.batch_size):
            part = self._chosen[first : first + self._config.batch_size]
            samples = [self._tiles[folder][index] for folder, index in part]
            names = [self._tiles[folder].name for folder, _ in part]
            tiles += zip(names, samples, _predict(pl_module, samples))
        title = f"epoch {row['epoch']:.0f}, validation IoU {row['val_iou']:.3f}"
        picture = draw_panel(tiles, self._config.data.labels, title)
        write_atomically(self._run / "panel.png", picture)
        if recorder.is_best:
            write_atomically(self._run / "panel_best.png", picture)


def choose_tiles(tiles: Sequence[EvalTiles], count: int) -> list[tuple[int, int]]:
    """Choose at most `count` tiles as (folder, index): folders in turn, evenly spread over each.

    Among neighbours a tile with labelled objects is preferred. The choice is always the same, so
    that the panels of two epochs, and of two runs on the same data, can be compared.
    """
    places = [0] * len(tiles)
    while sum(places) < count:
        with_room = [f for f, part in enumerate(tiles) if places[f] < len(part)]
        if not with_room:
            break
        for folder in with_room[: count - sum(places)]:
            places[folder] += 1
    chosen = []
    for folder, wanted in enumerate(places):
        bounds = np.linspace(0, len(tiles[folder]), wanted + 1).astype(int)
        for low, high in pairwise(bounds):
            chosen.append((folder, _most_informative(tiles[folder], range(low, high))))
    return chosen


def _most_informative(tiles: EvalTiles, places: range) -> int:
    """Return the tile with the most objects among three; if they have none, the first that has
    some.
    """
    near = places[:: max(1, len(places) // _CANDIDATES)]
    best = max(near, key=lambda index: _content(tiles[index]))
    if _content(tiles[best])[0] == 0:
        there = (index for index in places if _content(tiles[index])[0] > 0)
        best = next(there, best)
    return best


def _content(sample: Sample) -> tuple[float, float]:
    """Return the share of known pixels that are not background, and the share of known pixels."""
    return float(((sample.target > 0) & sample.valid).mean()), float(sample.valid.mean())


def _predict(task: TrainingTask, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """Return (n, y, x) class indices.

    The task stays as it was: statistics that its layers gather in training must not include these
    tiles.
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
    found = values[:, 0] > 0 if values.shape[1] == 1 else values.argmax(dim=1)
    classes: NDArray[np.uint8] = found.byte().cpu().numpy()
    return classes
